//! Records that cannot be written.

use std::fs;
use std::path::PathBuf;

use sbx_gateway::addresses::GATEWAY;
use sbx_testkit::EchoUpstream;
use sbx_testkit::upstream::TcpEcho;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::say;
use crate::aws::handing_in::{TOKEN, ask_for_key, daemon, document, handing_in};
use crate::lab::{Lab, NOWHERE, Setup, run};

/// What the gateway writes before it needs a new file, and cannot do without one.
const FULL: usize = 33 << 20;

/// The file is full, and where the old one goes is something that cannot be replaced.
pub(crate) fn full(lab: &mut Lab) -> PathBuf {
    let old = lab.path("records/egress.jsonl.1");
    fs::create_dir_all(old.join("in-the-way")).unwrap();
    fs::write(lab.path("records/egress.jsonl"), vec![b'\n'; FULL]).unwrap();
    lab.reboot();
    lab.configure();
    old
}

#[test]
fn nothing_new_passes_while_it_cannot_be_written_down() {
    let upstream = EchoUpstream::start().unwrap();
    let mut lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    let old = full(&mut lab);
    run(async {
        let asked = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n";
        let mut statuses = Vec::new();
        // The first shows that it cannot be written; its record waits.
        for _ in 0..3 {
            let answer = say(&mut lab.proxy().await, asked.to_owned()).await;
            if answer.status == 403 {
                assert!(answer.body.contains("cannot write its records"));
            }
            statuses.push(answer.status);
        }
        assert_eq!(statuses, [200, 403, 403]);
        assert_eq!(upstream.recorder().requests().len(), 1);
        fs::remove_dir_all(&old).unwrap();
        let answer = say(&mut lab.proxy().await, asked.to_owned()).await;
        assert_eq!(answer.status, 200);
        // What waited comes first.
        let records = lab.records_that(4, |_| true).await;
        let reasons: Vec<_> = records.iter().map(|record| &*record.reason).collect();
        let unwritten = "records-unwritten";
        assert_eq!(reasons, ["allow-rule", unwritten, unwritten, "allow-rule"]);
    });
}

#[test]
fn a_tunnel_whose_own_record_cannot_be_written_passes_nothing() {
    let echo = TcpEcho::start().unwrap();
    let port = echo.address().port();
    let allow = format!("allow localhost:{port}");
    let [mut dialled, mut connected] = [&allow; 2].map(|allow| Setup::new(&[allow]).start());
    for lab in [&mut dialled, &mut connected] {
        full(lab);
    }
    run(async {
        let refused = dialled.guest().connect(GATEWAY, port).await;
        assert!(refused.is_err());
        let mut stream = connected.proxy().await;
        let asked =
            format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\nsecret");
        stream.write_all(asked.as_bytes()).await.unwrap();
        // Cut off, wherever that meets the answer.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert_eq!(echo.recorder().bytes_received(), 0);
}

#[test]
fn no_name_is_asked_about_while_it_cannot_be_written_down() {
    const SERVFAIL: u8 = 2;
    let mut lab = Setup::new(&["allow **.a.test"])
        .name("first.a.test", &[NOWHERE])
        .name("secret.a.test", &[NOWHERE])
        .start();
    let old = full(&mut lab);
    run(async {
        // The first shows that it cannot be written.
        assert_eq!(lab.resolve("first.a.test").await, Ok(vec![NOWHERE]));
        assert_eq!(lab.resolve("secret.a.test").await, Err(SERVFAIL));
        // What was asked before is answered from memory, and tells nobody.
        assert_eq!(lab.resolve("first.a.test").await, Ok(vec![NOWHERE]));
        assert_eq!(lab.dns.recorder().queries_for("secret.a.test"), 0);
        fs::remove_dir_all(&old).unwrap();
        assert_eq!(lab.resolve("secret.a.test").await, Ok(vec![NOWHERE]));
        lab.one_record("records-unwritten", "secret.a.test").await;
    });
}

#[test]
fn no_key_is_handed_in_while_it_cannot_be_written_down() {
    let (standin, setup) = crate::aws::setup(None);
    let issued = standin.issue(std::time::Duration::from_mins(15));
    let mut lab = setup
        .bind(handing_in(std::slice::from_ref(&issued)))
        .start();
    let old = full(&mut lab);
    let daemon = daemon(&lab, vec![Ok(document(&issued))]);
    run(async {
        assert_eq!(ask_for_key(&lab, TOKEN).await.0, 200);
        let (status, why) = ask_for_key(&lab, TOKEN).await;
        assert_eq!(status, 403);
        assert!(why.contains("cannot write its records"), "{why}");
        fs::remove_dir_all(&old).unwrap();
        assert_eq!(ask_for_key(&lab, TOKEN).await.0, 200);
    });
    drop(lab);
    assert_eq!(daemon.join().unwrap(), 2);
}
