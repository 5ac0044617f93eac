//! Policies that change, are broken, or were there before.

use sbx_testkit::EchoUpstream;
use sbx_testkit::upstream::TcpEcho;
use sbx_wire::gateway::{Answer, Command, EgressRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Lab, Setup, get, h1, run, send, text};
use sbx_gateway::addresses::GATEWAY;

fn status(lab: &Lab) -> (u64, bool, bool, Option<String>) {
    match lab.ask(&Command::Status) {
        Answer::Status {
            generation,
            attached,
            configured,
            problem,
            ..
        } => (generation, attached, configured, problem),
        other => panic!("{other:?}"),
    }
}

async fn fetch(lab: &Lab, host: &str) -> u16 {
    let mut client = h1(lab.proxy().await).await;
    let uri = format!("http://{host}/echo");
    text(send(&mut client, get(&uri, host)).await.unwrap())
        .await
        .0
}

#[test]
fn a_rule_takes_effect_on_the_next_request() {
    let upstream = EchoUpstream::start().unwrap();
    let mut lab = Setup::new(&[])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        for (rules, want) in [
            (&[][..], 403),
            (&["allow web.test"], 200),
            (&["allow web.test", "deny web.test:80"], 403),
            (&["allow web.test"], 200),
        ] {
            tokio::task::block_in_place(|| lab.set_rules(rules));
            let response = send(&mut client, get("http://web.test/echo", "web.test")).await;
            assert_eq!(text(response.unwrap()).await.0, want, "{rules:?}");
        }
    });
}

#[test]
fn a_gateway_that_is_killed_has_written_down_what_it_stopped_and_what_began() {
    let upstream = TcpEcho::start().unwrap();
    let target = format!("raw.test:{}", upstream.address().port());
    let mut lab = Setup::new(&[&format!("allow {target}")])
        .send_to(&target, upstream.address())
        .start();
    for round in 1..=5 {
        run(async {
            // In a row, so that there are records to gather.
            for _ in 0..3 {
                assert_eq!(fetch(&lab, "closed.test").await, 403);
            }
            let mut tunnel = lab.connect(&target).await.unwrap();
            tunnel.write_all(b"x").await.unwrap();
            assert_eq!(tunnel.read_u8().await.unwrap(), b'x');
        });
        lab.reboot();
        lab.configure();
        let records = lab.records();
        let of = |reason: &str| records.iter().filter(|r| r.reason == reason).count();
        assert_eq!((of("default-deny"), of("allow-rule")), (3 * round, round));
    }
}

#[test]
fn bad_policy_keeps_last_good() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    let mut config = lab.config();
    config.file.policy.generation = 9;
    config
        .file
        .upstream
        .overrides
        .insert("a b:443".into(), upstream.address());
    let mut bad = vec![serde_json::to_vec(&Command::Configure(Box::new(config))).unwrap()];
    let mut config = lab.config();
    config
        .file
        .upstream
        .extra_roots_pem
        .push("not a certificate".into());
    bad.push(serde_json::to_vec(&Command::Configure(Box::new(config))).unwrap());
    let mut config = lab.config();
    config.authority.certificate_pem = "-----BEGIN CERTIFICATE-----\n-----END".into();
    bad.push(serde_json::to_vec(&Command::Configure(Box::new(config))).unwrap());
    let good = serde_json::to_string(&Command::Configure(Box::new(lab.config()))).unwrap();
    bad.push(good.replace("\"web.test\"", "\"*\"").into_bytes());
    bad.push(good.replace("\"sandbox\"", "\"sandbag\"").into_bytes());
    bad.push(b"{".to_vec());
    for line in bad {
        let answer = lab.ask_raw(&line);
        assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    }
    assert_eq!(status(&lab), (1, true, true, None));
    run(async { assert_eq!(fetch(&lab, "web.test").await, 200) });
}

#[test]
fn open_connections_that_are_no_longer_allowed_are_closed() {
    let (echo, web) = (TcpEcho::start().unwrap(), EchoUpstream::start().unwrap());
    let allow = format!("allow localhost:{}", echo.address().port());
    let rules = ["allow web.test", allow.as_str()];
    let mut lab = Setup::new(&rules)
        .send_to("web.test:80", web.address())
        .start();
    run(async {
        let mut raw = lab
            .guest()
            .connect(GATEWAY, echo.address().port())
            .await
            .unwrap();
        raw.write_all(b"x").await.unwrap();
        raw.read_u8().await.unwrap();
        let mut client = h1(lab.proxy().await).await;
        let request = get("http://web.test/sse?events=1000&delay_ms=100", "web.test");
        let endless = send(&mut client, request).await.unwrap();
        // Unrelated changes leave them alone.
        tokio::task::block_in_place(|| lab.set_rules(&[rules[0], rules[1], "allow c.test"]));
        raw.write_all(b"y").await.unwrap();
        assert_eq!(raw.read_u8().await.unwrap(), b'y');
        tokio::task::block_in_place(|| lab.set_rules(&["allow c.test"]));
        assert!(raw.read_u8().await.is_err());
        let cut = http_body_util::BodyExt::collect(endless.into_body()).await;
        assert!(cut.is_err(), "the event stream ends with an error");
    });
}

#[test]
fn restart_comes_back_with_same_rules() {
    let upstream = EchoUpstream::start().unwrap();
    let mut lab = Setup::new(&[])
        .send_to("web.test:80", upstream.address())
        .start();
    lab.set_rules(&["allow web.test"]);
    lab.reboot();
    assert_eq!(status(&lab), (2, true, false, None));
    run(async {
        assert_eq!(fetch(&lab, "web.test").await, 200);
        assert_eq!(fetch(&lab, "evil.test").await, 403);
        assert!(lab.resolve("evil.test").await.is_err());
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn a_missing_or_broken_file_denies_everything_and_says_so() {
    let upstream = EchoUpstream::start().unwrap();
    let setup = Setup::new(&["allow **"]).send_to("web.test:80", upstream.address());
    let mut lab = setup.start();
    for (round, broken) in [(1, Some("{\"sandbox\": \"box\"")), (2, None)] {
        match broken {
            Some(text) => std::fs::write(lab.path("run/gateway.json"), text).unwrap(),
            None => std::fs::remove_file(lab.path("run/gateway.json")).unwrap(),
        }
        lab.reboot();
        let (generation, _, configured, problem) = status(&lab);
        assert!(generation == 0 && !configured && problem.is_some());
        run(async {
            assert_eq!(fetch(&lab, "web.test").await, 403);
            assert!(lab.resolve("web.test").await.is_err());
            assert_eq!(upstream.recorder().connections(), 0);
            // Once for the request and once for the name. Before the next one is killed: it gathers its records.
            let fits = |r: &EgressRecord| r.reason == "policy-unavailable";
            lab.records_that(2 * round, fits).await;
        });
    }
    // The daemon's configuration opens it again.
    lab.configure();
    run(async { assert_eq!(fetch(&lab, "web.test").await, 200) });
}

#[test]
fn rules_with_method_and_path_judge_each_request() {
    let upstream = EchoUpstream::start_tls(&["web.test"]).unwrap();
    let mut setup = Setup::new(&[]).tls_upstream("web.test", &upstream);
    let mut only_echo = crate::lab::rule("allow web.test");
    only_echo.http = Some(sbx_policy::HttpMatch {
        methods: "GET".parse().unwrap(),
        path: "/echo/**".parse().unwrap(),
    });
    setup.file.policy.rules.push(only_echo);
    let lab = setup.start();
    run(async {
        let address = lab.resolve("web.test").await.unwrap()[0];
        let tunnel = lab.connect("web.test:443").await.unwrap();
        let transparent = lab.guest().connect(address, 443).await.unwrap();
        for stream in [tunnel, transparent] {
            let stream = lab.tls(stream, "web.test", &[b"http/1.1"]).await.unwrap();
            let mut client = h1(stream).await;
            for (path, want) in [
                ("/echo", 200),
                ("/status/../echo?x=1", 200),
                ("/status", 403),
                ("/echo/%2e%2e/status", 400),
                ("/echo/..%2fstatus", 400),
                ("/echo/%00", 400),
            ] {
                let response = send(&mut client, get(path, "web.test")).await.unwrap();
                assert_eq!(text(response).await.0, want, "{path}");
            }
            let post = hyper::Request::post("/echo").header("host", "web.test");
            let post = post.body(http_body_util::Full::default()).unwrap();
            let response = send(&mut client, post).await.unwrap();
            assert_eq!(text(response).await.0, 403);
        }
        let sent = upstream.recorder().requests();
        assert!(
            sent.iter().all(|r| r.path == "/echo"),
            "what was judged is what was sent"
        );
        assert_eq!(sent.len(), 4);
        // Raw TCP to the same host cannot be judged.
        assert!(lab.guest().connect(address, 8443).await.is_err());
        lab.one_record("not-inspectable", "web.test").await;
    });
}

#[test]
fn a_body_with_trailers_arrives_and_they_cannot_become_headers() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut stream = lab.proxy().await;
        let request = "POST http://web.test/echo HTTP/1.1\r\nHost: web.test\r\nTE: trailers\r\n\
                       Trailer: x-sum, authorization\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nhello\r\n0\r\nx-sum: 1\r\nAuthorization: Bearer x\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let got = &upstream.recorder().requests()[0];
        assert_eq!(got.body_bytes, 5);
        assert_eq!(got.header("authorization"), None);
    });
}
