//! Attacks on names and targets: cases 1 to 10.

use sbx_gateway::addresses::GATEWAY;
use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::{Answer, Command};

use crate::attack::{Round, closed, cut, say, twice};
use crate::hello::Hello;
use crate::lab::{NOWHERE, Setup, get, h1, run, send, text};

/// A lab in which `allowed.test` is open and leads to a stand-in, over HTTP and over TLS.
fn allowed() -> (Setup, EchoUpstream, EchoUpstream) {
    let plain = EchoUpstream::start().unwrap();
    let tls = EchoUpstream::start_tls(&["allowed.test"]).unwrap();
    let setup = Setup::new(&["allow allowed.test", "allow **.allowed.test"])
        .send_to("allowed.test:80", plain.address())
        .tls_upstream("allowed.test", &tls)
        .name("evil.test", &[NOWHERE]);
    (setup, plain, tls)
}

/// `text` as the target of `CONNECT`, in an absolute URL and in the `Host` header of a transparent request: 400 each
/// time. `host`: as the record names it, `None` where it was no text that could be recorded.
async fn no_host_anywhere(round: &Round<'_>, text: &[u8]) {
    let connect = [
        b"CONNECT ",
        text,
        b":443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n",
    ]
    .concat();
    let absolute = [
        b"GET http://",
        text,
        b"/ HTTP/1.1\r\nHost: ",
        text,
        b"\r\n\r\n",
    ]
    .concat();
    for request in [connect, absolute] {
        let mut stream = round.lab.proxy().await;
        let answer = say(&mut stream, &request).await;
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert_eq!(answer.status, 400, "{shown:?}: {answer:?}");
        round.refused_as_bad(&shown).await;
    }
    let origin = [b"GET / HTTP/1.1\r\nHost: ", text, b"\r\n\r\n"].concat();
    let mut stream = round.lab.guest().connect(NOWHERE, 80).await.unwrap();
    let answer = say(&mut stream, &origin).await;
    let shown = String::from_utf8_lossy(&origin).into_owned();
    assert_eq!(answer.status, 400, "{shown:?}: {answer:?}");
    round.refused_as_bad(&shown).await;
}

/// `text` as the server name of a TLS client that dials by itself: cut.
async fn no_server_name(round: &Round<'_>, text: &[u8]) {
    let mut stream = round.lab.guest().connect(NOWHERE, 443).await.unwrap();
    let bytes = Hello::new(text).bytes();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes)
        .await
        .unwrap();
    cut(&mut stream).await;
    round.blocked("bad-client-hello", "203.0.113.9").await;
}

/// A name that no rule allows: stopped at every door with a reason that the client can read, and asked for nowhere.
async fn denied_everywhere(round: &Round<'_>, name: &str) {
    let lab = round.lab;
    let mut stream = lab.proxy().await;
    let request = format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n");
    let answer = say(&mut stream, request).await;
    assert_eq!(
        (answer.status, answer.reason()),
        (403, "default-deny"),
        "{name}"
    );
    round.blocked("default-deny", name).await;
    let stream = lab.connect(&format!("{name}:443")).await.unwrap();
    let mut stream = lab.tls(stream, name, &[]).await.unwrap();
    let answer = say(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"),
    )
    .await;
    assert_eq!(
        (answer.status, answer.reason()),
        (403, "default-deny"),
        "{name}"
    );
    round.blocked("default-deny", name).await;
    let stream = lab.guest().connect(NOWHERE, 443).await.unwrap();
    let mut stream = lab.tls(stream, name, &[]).await.unwrap();
    let answer = say(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"),
    )
    .await;
    assert_eq!(
        (answer.status, answer.reason()),
        (403, "default-deny"),
        "{name}"
    );
    round.blocked("default-deny", name).await;
    let mut stream = lab.guest().connect(NOWHERE, 80).await.unwrap();
    let answer = say(
        &mut stream,
        format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"),
    )
    .await;
    assert_eq!(
        (answer.status, answer.reason()),
        (403, "default-deny"),
        "{name}"
    );
    round.blocked("default-deny", name).await;
    assert_eq!(lab.resolve(name).await, Err(3), "{name}");
    round.blocked("default-deny", name).await;
}

#[test]
fn attack_01_a_name_with_nul_is_refused_and_looked_up_nowhere() {
    let (setup, plain, tls) = allowed();
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        no_host_anywhere(round, b"evil.test\0.allowed.test").await;
        no_host_anywhere(round, b"allowed.test\0").await;
        no_server_name(round, b"evil.test\0.allowed.test").await;
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x0aevil.test\0\x07allowed\x04test\0\0\x01\0\x01");
        let answer = round.lab.guest().udp(GATEWAY, 53, &query).await.unwrap();
        assert_eq!(answer[3] & 0xf, 3, "NXDOMAIN");
        let record = round.recorded_at_least(1).await;
        assert_eq!(
            (record.len(), record[0].reason.as_str()),
            (1, "dns-question-refused")
        );
        round.silent();
    });
}

#[test]
fn attack_02_control_bytes_spaces_and_percent_are_no_part_of_a_host() {
    let (setup, plain, tls) = allowed();
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        for text in [
            &b"evil.test%00.allowed.test"[..],
            b"evil%2eallowed.test",
            b"%61llowed.test",
            b"allowed\t.test",
            b"evil.test .allowed.test",
            b"evil.test\x7f.allowed.test",
            b"evil.test\x01.allowed.test",
            b"evil.test\\.allowed.test",
            b"allowed..test",
            b".allowed.test",
            b"",
        ] {
            no_host_anywhere(round, text).await;
        }
        for text in [
            &b"evil test.allowed.test"[..],
            b"evil\r\n.allowed.test",
            b"%61.allowed.test",
        ] {
            no_server_name(round, text).await;
        }
    });
}

#[test]
fn attack_03_names_have_one_form_and_a_homoglyph_is_another_name() {
    let (setup, plain, tls) = allowed();
    let setup = setup.send_to("xn--bcher-kva.allowed.test:80", plain.address());
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        // Spellings of a name that is allowed: the same name everywhere, in the record and upstream as well.
        for (spelled, name) in [
            ("ALLOWED.test.", "allowed.test"),
            ("XN--BCHER-KVA.allowed.test", "xn--bcher-kva.allowed.test"),
        ] {
            let mut client = h1(round.lab.proxy().await).await;
            let request = get(&format!("http://{spelled}/echo"), spelled);
            assert_eq!(
                text(send(&mut client, request).await.unwrap()).await.0,
                200,
                "{spelled}"
            );
            let records = round.recorded_at_least(1).await;
            assert_eq!((records.len(), records[0].host.as_str()), (1, name));
            let requests = plain.recorder().requests();
            assert_eq!(requests.last().unwrap().header("host"), Some(name));
        }
        assert!(round.lab.resolve("ALLOWED.TEST").await.is_ok());
        let stream = round.lab.connect("Allowed.TEST.:443").await.unwrap();
        assert!(round.lab.tls(stream, "allowed.test", &[]).await.is_ok());
        assert_eq!(round.recorded_at_least(1).await[0].host, "allowed.test");
        // Its last bytes would count as those of what follows.
        closed(tls.recorder()).await;
        round.forget_so_far().await;
        // A Cyrillic letter, as bytes and encoded. Labels that decode to nothing valid are refused.
        no_host_anywhere(round, "\u{430}llowed.test".as_bytes()).await;
        for broken in ["xn--a.allowed.test", "xn--.allowed.test"] {
            no_host_anywhere(round, broken.as_bytes()).await;
        }
        let homoglyph = "xn--llowed-2fg.test";
        denied_everywhere(round, homoglyph).await;
    });
}

#[test]
fn attack_04_suffix_tricks_are_other_names() {
    let (setup, plain, tls) = allowed();
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        for name in [
            "allowed.test.evil.test",
            "evilallowed.test",
            "evil-allowed.test",
            "allowed.test-evil.test",
        ] {
            denied_everywhere(round, name).await;
        }
    });
}

#[test]
fn attack_05_over_broad_patterns_are_refused_when_loaded_with_the_reason() {
    let (setup, plain, tls) = allowed();
    let mut lab = setup.start();
    let good = serde_json::to_string(&Command::Configure(Box::new(lab.config()))).unwrap();
    assert!(good.contains("\"**.allowed.test\""), "{good}");
    for (pattern, reason) in [
        ("*", "a lone `*` is not a resource"),
        ("*.com", "*.com is too broad"),
        (
            "foo.**.allowed.test",
            "\"foo.**.allowed.test\": `**` stands only at the start",
        ),
    ] {
        let answer = lab.ask_raw(good.replace("**.allowed.test", pattern).as_bytes());
        let Answer::Refused { reason: said } = answer else {
            panic!("{pattern}: {answer:?}");
        };
        assert!(said.contains(reason), "{pattern}: {said}");
    }
    // The last good policy holds.
    run(async {
        let mut stream = lab.proxy().await;
        let request = "GET http://evil.com/ HTTP/1.1\r\nHost: evil.com\r\n\r\n";
        assert_eq!(say(&mut stream, request).await.status, 403);
        lab.one_record("default-deny", "evil.com").await;
        let mut stream = lab.proxy().await;
        let request = "GET http://allowed.test/echo HTTP/1.1\r\nHost: allowed.test\r\n\r\n";
        assert_eq!(say(&mut stream, request).await.status, 200);
    });
    plain.recorder().clear();
    // A gateway that finds such a policy at its start opens nothing.
    let file = std::fs::read_to_string(lab.path("run/gateway.json")).unwrap();
    std::fs::write(
        lab.path("run/gateway.json"),
        file.replace("**.allowed.test", "*"),
    )
    .unwrap();
    lab.reboot();
    let Answer::Status { problem, .. } = lab.ask(&Command::Status) else {
        panic!("no status");
    };
    let why = "a lone `*` is not a resource";
    assert!(
        problem.as_ref().is_some_and(|p| p.contains(why)),
        "{problem:?}"
    );
    run(async {
        let mut stream = lab.proxy().await;
        let request = "GET http://allowed.test/echo HTTP/1.1\r\nHost: allowed.test\r\n\r\n";
        let answer = say(&mut stream, request).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (403, "policy-unavailable")
        );
        lab.one_record("policy-unavailable", "allowed.test").await;
    });
    for recorder in [plain.recorder(), tls.recorder(), lab.dns.recorder()] {
        assert_eq!(recorder.bytes_received(), 0);
    }
}

#[test]
fn attack_06_names_longer_than_dns_allows_are_refused() {
    let (setup, plain, tls) = allowed();
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        let label = format!("{}.allowed.test", "a".repeat(64));
        let name = format!("{}allowed.test", "a.".repeat(121));
        assert_eq!(name.len(), 254);
        for text in [&label, &name] {
            no_host_anywhere(round, text.as_bytes()).await;
            no_server_name(round, text.as_bytes()).await;
        }
        // One byte less is a name, and judged: below a name that is allowed, to which nothing leads.
        let longest = &name[2..];
        let longest = format!("b{longest}");
        assert_eq!(longest.len(), 253);
        assert_eq!(round.lab.resolve(&longest).await, Err(3));
        let asked = round.recorded_at_least(1).await;
        assert_eq!(asked[0].reason, "no-address");
    });
}

#[test]
fn attack_08_ports_are_numbers_from_1_to_65535_and_nothing_else() {
    let (setup, plain, tls) = allowed();
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        // 65979 is 443 after a cut to 16 bits, 65616 is 80.
        for port in [
            "65979", "65616", "65536", "+443", "+80", "", "0443", "080", "0", "-1", "4_43",
        ] {
            for request in [
                format!("CONNECT allowed.test:{port} HTTP/1.1\r\nHost: allowed.test\r\n\r\n"),
                format!("GET http://allowed.test:{port}/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n"),
                format!("GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n"),
            ] {
                let mut stream = round.lab.proxy().await;
                assert_eq!(say(&mut stream, &request).await.status, 400, "{request}");
                round.refused_as_bad(&request).await;
            }
            let request = format!("GET / HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n");
            let mut stream = round.lab.guest().connect(NOWHERE, 80).await.unwrap();
            assert_eq!(say(&mut stream, &request).await.status, 400, "{request}");
            round.refused_as_bad(&request).await;
        }
    });
}

#[test]
fn attack_09_user_information_is_not_the_host_and_stays_out_of_the_record() {
    let (setup, plain, tls) = allowed();
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        for (url, host) in [
            ("http://allowed.test@evil.test/", "evil.test"),
            ("http://allowed.test:80@evil.test/", "evil.test"),
            ("http://name:password@allowed.test/", "allowed.test"),
        ] {
            for header in [host, "allowed.test"] {
                let mut stream = round.lab.proxy().await;
                let request = format!("GET {url} HTTP/1.1\r\nHost: {header}\r\n\r\n");
                assert_eq!(say(&mut stream, request).await.status, 400, "{url}");
                round.blocked("bad-request", host).await;
            }
        }
        let mut stream = round.lab.proxy().await;
        let request = "CONNECT allowed.test@evil.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\n";
        assert_eq!(say(&mut stream, request).await.status, 400);
        round.blocked("bad-request", "evil.test:443").await;
        let written = std::fs::read_to_string(round.lab.path("records/egress.jsonl")).unwrap();
        assert!(!written.contains("password"), "{written}");
    });
}

#[test]
fn attack_10_an_absolute_url_and_a_host_header_that_differ_are_refused() {
    let (setup, plain, tls) = allowed();
    let watched = [plain.recorder(), tls.recorder()];
    twice(setup.start(), &watched, async |round| {
        for (url, header) in [
            ("http://allowed.test/", "evil.test"),
            ("http://evil.test/", "allowed.test"),
            ("http://allowed.test/", "allowed.test:8080"),
            ("http://allowed.test:8080/", "allowed.test"),
        ] {
            let mut stream = round.lab.proxy().await;
            let request = format!("GET {url} HTTP/1.1\r\nHost: {header}\r\n\r\n");
            let answer = say(&mut stream, request).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (400, "bad-request"),
                "{url} {header}"
            );
            round.refused_as_bad(url).await;
        }
        // Two of them, or none.
        for hosts in ["Host: allowed.test\r\nHost: evil.test\r\n", ""] {
            let mut stream = round.lab.guest().connect(NOWHERE, 80).await.unwrap();
            let answer = say(&mut stream, format!("GET / HTTP/1.1\r\n{hosts}\r\n")).await;
            assert_eq!(answer.status, 400, "{hosts:?}");
            round.refused_as_bad(hosts).await;
        }
        // In origin form with an absolute URL as well.
        let mut stream = round.lab.guest().connect(NOWHERE, 80).await.unwrap();
        let request = "GET http://allowed.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        assert_eq!(say(&mut stream, request).await.status, 400);
        round.refused_as_bad(request).await;
    });
}
