//! Connections that a guest gives up after the gateway has dialled for them: the upstream has seen them, so they are
//! recorded, each once.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use sbx_gateway::limits;
use sbx_testkit::recorder::{Entry, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{Round, closed, rest, twice};
use crate::attacks_tls::Hosts;
use crate::guest::Stream;
use crate::hello::Hello;
use crate::lab::{Lab, get, h1, run, send, text};

/// One record that says that it was allowed, and the upstream's connections have ended.
async fn told(round: &Round<'_>, hosts: &Hosts, reason: &str, host: &str) {
    let records = round.recorded_at_least(1).await;
    let [record] = records.as_slice() else {
        panic!("{records:#?}");
    };
    assert_eq!(
        (record.reason.as_str(), record.host.as_str()),
        (reason, host)
    );
    for recorder in hosts.watched() {
        closed(recorder).await;
    }
    round.forget_so_far().await;
}

#[test]
fn a_tunnel_that_is_given_up_before_its_first_message_is_recorded() {
    let hosts = Hosts::new();
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let hello = Hello::new("web.test").bytes();
        for said in [0, 1, 20] {
            let mut stream = round.lab.connect("web.test:443").await.unwrap();
            stream.write_all(&hello[..said]).await.unwrap();
            let seen = |entries: &[Entry]| !entries.is_empty();
            let recorder = hosts.watched()[0];
            assert!(recorder.until(Duration::from_secs(10), seen).await);
            drop(stream);
            told(round, &hosts, "allow-rule", "web.test").await;
        }
    });
}

/// A hello of a client of both versions of HTTP, for which the upstream is asked first.
fn of_both_versions(lab: &Lab, name: &str) -> Vec<u8> {
    let config = lab.client_tls(&[b"h2", b"http/1.1"]);
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn an_opened_connection_that_is_given_up_before_its_first_request_is_recorded() {
    let hosts = Hosts::new();
    let asked = |entries: &[Entry]| {
        entries
            .iter()
            .any(|entry| matches!(entry.event, Event::Handshake { .. }))
    };
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        // Before the handshake is over.
        let mut stream = lab.connect("api.test:443").await.unwrap();
        stream
            .write_all(&of_both_versions(lab, "api.test"))
            .await
            .unwrap();
        let recorder = hosts.watched()[1];
        assert!(recorder.until(Duration::from_secs(10), asked).await);
        assert_eq!(stream.read_u8().await.unwrap(), 22);
        drop(stream);
        told(round, &hosts, "allow-rule", "api.test").await;
    });
    // After it.
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, "api.test", &[b"h2", b"http/1.1"]).await;
        drop(stream.unwrap());
        told(round, &hosts, "allow-rule", "api.test").await;
    });
}

#[test]
fn a_connection_that_breaks_while_its_upstream_is_asked_is_recorded() {
    let hosts = Hosts::new();
    // Accepts connections and says nothing on them.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = hosts
        .setup(&["allow mute.test"])
        .send_to("mute.test:443", mute.local_addr().unwrap())
        .credential("mute.test");
    twice(setup.start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let mut stream = lab.connect("mute.test:443").await.unwrap();
        let hello = of_both_versions(lab, "mute.test");
        stream.write_all(&hello).await.unwrap();
        let (asked, _) = tokio::task::block_in_place(|| mute.accept()).unwrap();
        stream.break_off();
        told(round, &hosts, "allow-rule", "mute.test").await;
        drop(asked);
    });
}

#[test]
fn an_upstream_that_does_not_shake_hands_is_502_and_recorded_and_no_other_waits_for_it() {
    let hosts = Hosts::new();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = hosts
        .setup(&["allow mute.test"])
        .send_to("mute.test:443", mute.local_addr().unwrap())
        .credential("mute.test")
        .start();
    run(async {
        let stream = lab.connect("mute.test:443").await.unwrap();
        let stream = lab.tls(stream, "mute.test", &[b"http/1.1"]).await.unwrap();
        let mut waiting = h1(stream).await;
        let started = Instant::now();
        let answer = send(&mut waiting, get("/", "mute.test"));
        let other = async {
            let stream = lab.connect("api.test:443").await.unwrap();
            let stream = lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap();
            let answer = send(&mut h1(stream).await, get("/echo", "api.test")).await;
            assert_eq!(text(answer.unwrap()).await.0, 200);
            assert!(started.elapsed() < limits::UPSTREAM_TLS);
        };
        let (answer, ()) = tokio::join!(answer, other);
        assert_eq!(text(answer.unwrap()).await.0, 502);
        assert!(started.elapsed() >= limits::UPSTREAM_TLS);
        lab.one_record("upstream-tls", "mute.test").await;
    });
}

#[test]
fn a_first_message_that_is_not_complete_in_time_is_cut_and_recorded() {
    let hosts = Hosts::new();
    let lab = hosts.setup(&[]).start();
    run(async {
        let address = lab.resolve("web.test").await.unwrap()[0];
        let hello = Hello::new("web.test").bytes();
        let mut slow = Vec::new();
        for door in [
            lab.connect("web.test:443").await.unwrap(),
            lab.connect("api.test:443").await.unwrap(),
            lab.guest().connect(address, 443).await.unwrap(),
        ] {
            slow.push(tokio::spawn(dribbled(door, hello.clone())));
        }
        // Its first message is whole, and it says no more.
        let mut half = lab.connect("api.test:443").await.unwrap();
        let whole = of_both_versions(&lab, "api.test");
        half.write_all(&whole).await.unwrap();
        // One that says nothing has a connection to the upstream as well.
        let mut mute = lab.connect("web.test:443").await.unwrap();
        let served = async {
            tokio::time::sleep(limits::CLIENT_HELLO / 2).await;
            let stream = lab.connect("web.test:443").await.unwrap();
            let stream = lab.tls(stream, "web.test", &[b"http/1.1"]).await.unwrap();
            let mut client = h1(stream).await;
            tokio::time::sleep(limits::CLIENT_HELLO / 2 + Duration::from_secs(1)).await;
            let answer = send(&mut client, get("/echo", "web.test")).await;
            assert_eq!(text(answer.unwrap()).await.0, 200);
        };
        let started = Instant::now();
        let ended = async {
            for slow in slow {
                slow.await.unwrap();
            }
            rest(&mut half).await;
            rest(&mut mute).await;
            started.elapsed()
        };
        let (ended, ()) = tokio::join!(ended, served);
        // It was begun a little before the clock.
        let shortest = limits::CLIENT_HELLO.saturating_sub(Duration::from_secs(1));
        let longest = limits::CLIENT_HELLO + Duration::from_secs(5);
        assert!((shortest..longest).contains(&ended), "{ended:?}");
        let mut told: Vec<_> = lab
            .records()
            .into_iter()
            .map(|record| (record.host, record.reason))
            .collect();
        told.sort();
        let address = address.to_string();
        let mut want = [
            (address.as_str(), "bad-client-hello"),
            // Dribbled, and silent after its first message.
            ("api.test", "bad-client-hello"),
            ("api.test", "bad-client-hello"),
            // Silent from the beginning, and served.
            ("web.test", "allow-rule"),
            ("web.test", "allow-rule"),
            ("web.test", "bad-client-hello"),
        ];
        want.sort_unstable();
        let told: Vec<_> = told.iter().map(|(h, r)| (h.as_str(), r.as_str())).collect();
        assert_eq!(told, want);
    });
}

/// Sends a byte each second, until the gateway has had enough.
async fn dribbled(mut stream: Stream, hello: Vec<u8>) {
    for byte in hello {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        let ended = tokio::time::timeout(Duration::from_secs(1), stream.read_u8());
        if ended.await.is_ok() {
            return;
        }
    }
    panic!("it was waited for to its end");
}

#[test]
fn a_first_message_that_is_too_long_is_cut_and_recorded() {
    let hosts = Hosts::new();
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let address = lab.resolve("web.test").await.unwrap()[0];
        round.forget_so_far().await;
        // A message of 32 KiB in records of one byte each, which does not come to its end.
        let head = [&[1, 0, 0x80, 0][..], &[0x03, 0x03]].concat();
        let message = [head, vec![7; 0x8000 - 2]].concat();
        let record = |byte: &u8| [22, 3, 1, 0, 1, *byte];
        let long: Vec<u8> = message.iter().flat_map(record).collect();
        let long = &long[..limits::CLIENT_HELLO_BYTES + 16_384];
        for (mut stream, host) in [
            (
                lab.connect("web.test:443").await.unwrap(),
                "web.test".to_owned(),
            ),
            (
                lab.connect("api.test:443").await.unwrap(),
                "api.test".to_owned(),
            ),
            (
                lab.guest().connect(address, 443).await.unwrap(),
                address.to_string(),
            ),
        ] {
            let begun = Instant::now();
            // It may be cut before all of it was written.
            let _ = stream.write_all(long).await;
            assert_eq!(rest(&mut stream).await, b"");
            assert!(begun.elapsed() < limits::CLIENT_HELLO, "it ran out of time");
            round.blocked("bad-client-hello", &host).await;
            let stream = lab.connect("web.test:443").await.unwrap();
            let stream = lab.tls(stream, "web.test", &[b"http/1.1"]).await.unwrap();
            let answer = send(&mut h1(stream).await, get("/echo", "web.test")).await;
            assert_eq!(text(answer.unwrap()).await.0, 200);
            told(round, &hosts, "allow-rule", "web.test").await;
        }
    });
}
