//! Pages for the host's browser. The test is the daemon.

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sbx_wire::gateway::{Answer, Command, ProxyKind};

use crate::lab::{Lab, Setup, h1, run, send, text};

async fn ask(lab: &Lab, address: impl Into<Bytes>) -> (u16, String) {
    let request = Request::post("/browser-open")
        .header("host", "gateway.docker.internal:3128")
        .body(Full::new(address.into()))
        .unwrap();
    let mut client = h1(lab.proxy().await).await;
    text(send(&mut client, request).await.unwrap()).await
}

/// Tells the gateway something and returns what it says.
fn tell(control: &UnixStream, command: &Command) -> Answer {
    let line = serde_json::to_string(command).unwrap();
    (&*control)
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

fn address(answer: Answer) -> String {
    match answer {
        Answer::OpenPage { address } => address.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_that_the_policy_allows_goes_to_the_daemon_and_is_recorded() {
    let setup = Setup::new(&["allow a.test", "allow b.test"]);
    let lab = setup
        .name("a.test", &[Ipv4Addr::new(203, 0, 113, 7)])
        .name("b.test", &[Ipv4Addr::new(203, 0, 113, 8)])
        .start();
    let control = lab.control();
    let daemon = std::thread::spawn(move || {
        let first = address(tell(&control, &Command::AwaitPage));
        let problem = Some("switched off".to_owned());
        let second = address(tell(&control, &Command::PageHandled { problem }));
        let done = Command::PageHandled { problem: None };
        let line = serde_json::to_string(&done).unwrap();
        (&control)
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        (first, second, control)
    });
    run(async {
        let (status, page) = ask(&lab, "https://A.test/in?state=1#x").await;
        assert_eq!(status, 502);
        assert!(page.contains("switched off"), "{page}");
        assert_eq!(ask(&lab, "http://b.test:8080").await.0, 200);
        let record = lab.one_record("not-opened", "a.test").await;
        assert_eq!(
            (record.proxy, record.allowed),
            (ProxyKind::BrowserOpen, true)
        );
        assert_eq!(record.path.as_deref(), Some("/in"), "without the query");
        let record = lab.one_record("allow-rule", "b.test").await;
        assert_eq!((record.proxy, record.port), (ProxyKind::BrowserOpen, 8080));
    });
    let (first, second, _control) = daemon.join().unwrap();
    assert_eq!(first, "https://a.test/in?state=1#x");
    assert_eq!(second, "http://b.test:8080/");
}

#[test]
fn a_page_that_the_policy_denies_and_what_is_no_page_never_reach_the_daemon() {
    let lab = Setup::new(&["allow a.test"]).start();
    let control = lab.control();
    let line = serde_json::to_string(&Command::AwaitPage).unwrap();
    (&control)
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
    control.set_nonblocking(true).unwrap();
    run(async {
        let (status, page) = ask(&lab, "https://evil.test/x").await;
        assert_eq!(status, 403);
        assert!(
            page.starts_with("Blocked by network policy: domain evil.test:443"),
            "{page}"
        );
        let record = lab.one_record("default-deny", "evil.test").await;
        assert_eq!(record.proxy, ProxyKind::BrowserOpen);
        for bad in [
            &b""[..],
            b"file:///etc/passwd",
            b"https://a.test/\x1b[2J",
            b"https://a.test/\xff",
            b"https://a.test@evil.test/",
            b"https://a.test\\@evil.test/",
            b"https://127.1/",
        ] {
            assert_eq!(ask(&lab, bad.to_vec()).await.0, 400, "{bad:?}");
        }
        // Where it leads is known, and what it asks for cannot be judged.
        let doubtful = "https://a.test/%2e%2e/x";
        assert_eq!(ask(&lab, doubtful).await.0, 400);
        let record = lab.one_record("bad-request", "a.test").await;
        assert_eq!(record.proxy, ProxyKind::BrowserOpen);
        let long = format!("https://a.test/{}", "a".repeat(5000));
        assert_eq!(ask(&lab, long).await.0, 400);
        assert_eq!(lab.dns.recorder().bytes_received(), 0);
    });
    let said = std::io::Read::read(&mut (&control), &mut [0; 64]);
    assert_eq!(said.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_daemon_that_went_away_while_it_waited_costs_no_page() {
    let lab = Setup::new(&["allow a.test"])
        .name("a.test", &[Ipv4Addr::new(203, 0, 113, 7)])
        .start();
    for _ in 0..3 {
        let control = lab.control();
        let line = serde_json::to_string(&Command::AwaitPage).unwrap();
        (&control)
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        control.shutdown(std::net::Shutdown::Write).unwrap();
        // The gateway closes its side once it has noticed.
        let rest = std::io::Read::read(&mut (&control), &mut [0; 64]);
        assert_eq!(rest.unwrap(), 0);
    }
    let control = lab.control();
    let daemon = std::thread::spawn(move || {
        let page = address(tell(&control, &Command::AwaitPage));
        let done = serde_json::to_string(&Command::PageHandled { problem: None }).unwrap();
        (&control)
            .write_all(format!("{done}\n").as_bytes())
            .unwrap();
        (page, control)
    });
    run(async {
        assert_eq!(ask(&lab, "https://a.test/").await.0, 200);
    });
    assert_eq!(daemon.join().unwrap().0, "https://a.test/");
}
