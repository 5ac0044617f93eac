//! The sandbox's certificate authority: whose key, for whom, for how long.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::{Answer, Command, PublicKey};

use crate::attack::twice;
use crate::attacks_tls::asked_inside;
use crate::lab::{Lab, Setup, TestAuthority, get, h1, run, text};

const API: &str = "api.test";

fn lab(upstream: &EchoUpstream) -> Lab {
    Setup::new(&["allow api.test"])
        .tls_upstream(API, upstream)
        .credential(API)
        .start()
}

/// Leaf and intermediate as a client inside sees them.
async fn chain(lab: &Lab, host: &str) -> Vec<Vec<u8>> {
    let stream = lab.connect(&format!("{host}:443")).await.unwrap();
    let stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain.iter().map(|der| der.to_vec()).collect()
}

fn holds(der: &[u8], part: &[u8]) -> bool {
    der.windows(part.len()).any(|window| window == part)
}

#[test]
fn attack_20_the_key_is_the_gateway_s_own_and_a_restarted_one_has_another() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let mut lab = lab(&upstream);
    let first = lab.gateway_key();
    assert_eq!(first, lab.gateway_key(), "the same for as long as it lives");
    run(async {
        let chain = chain(&lab, API).await;
        assert!(holds(&chain[1], first.as_bytes()));
        assert!(
            !holds(&chain[0], first.as_bytes()),
            "leaves have another key than the authority"
        );
    });
    lab.reboot();
    assert_ne!(first, lab.gateway_key());
    for file in ["log", "records/egress.jsonl", "run/gateway.json"] {
        let text = std::fs::read_to_string(lab.path(file)).unwrap_or_default();
        assert!(!text.contains("PRIVATE"), "{file}");
    }
}

#[test]
fn attack_20_a_leaf_for_a_denied_name_brings_the_refusal_and_opens_no_way_there() {
    let upstream = EchoUpstream::start_tls(&[API, "other.test"]).unwrap();
    let setup = Setup::new(&["allow api.test"])
        .tls_upstream(API, &upstream)
        .tls_upstream("other.test", &upstream)
        .credential(API);
    twice(setup.start(), &[upstream.recorder()], async |round| {
        for alpn in [&b"http/1.1"[..], b"h2"] {
            let (status, said) = asked_inside(round, "other.test", alpn).await;
            assert_eq!(status, 403, "{said}");
            assert!(said.contains("other.test:443"), "{said}");
            round.blocked("default-deny", "other.test").await;
        }
    });
}

/// The serial number of a certificate of version 3 (RFC 5280, section 4.1).
fn serial(der: &[u8]) -> &[u8] {
    const VERSION_3: [u8; 5] = [0xa0, 3, 2, 1, 2];
    let at = der.windows(5).position(|part| part == VERSION_3).unwrap() + 5;
    assert_eq!(der[at], 2, "an integer");
    &der[at + 2..][..usize::from(der[at + 1])]
}

#[test]
fn every_leaf_has_a_serial_number_of_its_own() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = lab(&upstream);
    run(async {
        // The second is the one of a page that says no.
        let chains = [chain(&lab, API).await, chain(&lab, "other.test").await];
        let serials = chains.each_ref().map(|chain| serial(&chain[0]));
        assert_ne!(serials[0], serials[1]);
        for serial in serials {
            assert!(
                (8..=20).contains(&serial.len()) && serial[0] < 0x80,
                "{serial:?}"
            );
        }
    });
}

#[test]
fn a_client_gets_aes_128_unless_its_hardware_has_it_prefer_another_cipher() {
    use rustls::CipherSuite as Suite;
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = lab(&upstream);
    run(async {
        for (first, want) in [
            (
                Suite::TLS13_AES_256_GCM_SHA384,
                Suite::TLS13_AES_128_GCM_SHA256,
            ),
            (
                Suite::TLS13_CHACHA20_POLY1305_SHA256,
                Suite::TLS13_CHACHA20_POLY1305_SHA256,
            ),
        ] {
            let mut provider = rustls::crypto::aws_lc_rs::default_provider();
            provider
                .cipher_suites
                .sort_by_key(|suite| suite.suite() != first);
            let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(lab.guest_roots())
                .with_no_client_auth();
            let stream = lab.connect("api.test:443").await.unwrap();
            let stream = lab.tls_as(config, stream, API).await.unwrap();
            let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
            assert_eq!(suite.suite(), want);
        }
    });
}

#[test]
fn an_authority_for_another_key_or_of_another_root_or_that_has_ended_is_refused() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = lab(&upstream);
    let mut other_key = lab.config();
    let point = [&[4_u8][..], &[7; PublicKey::LENGTH - 1]].concat();
    let somebody = PublicKey::try_from(&point[..]).unwrap();
    other_key.authority = lab.authority.issue(somebody, Duration::from_hours(1));
    let mut other_root = lab.config();
    other_root.authority.root_pem = TestAuthority::new()
        .issue(somebody, Duration::from_hours(1))
        .root_pem;
    let mut ended = lab.config();
    ended.authority = lab.authority.issue(lab.gateway_key(), Duration::ZERO);
    for config in [other_key, other_root, ended] {
        let answer = lab.ask(&Command::Configure(Box::new(config)));
        assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    }
    run(async {
        assert_eq!(
            chain(&lab, API).await.len(),
            2,
            "the last good one works on"
        );
    });
}

#[test]
fn no_leaf_outlives_its_authority_and_none_is_made_after_its_end() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = lab(&upstream);
    let mut config = lab.config();
    config.authority = lab
        .authority
        .issue(lab.gateway_key(), Duration::from_secs(3));
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(config.authority.not_after_s);
    let answer = lab.ask(&Command::Configure(Box::new(config)));
    assert!(matches!(answer, Answer::Configured { .. }), "{answer:?}");
    run(async {
        while SystemTime::now() < ends {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (status, body) = lab.connect("api.test:443").await.err().unwrap();
        assert_eq!(status, 502);
        assert!(body.contains("certificate authority has ended"), "{body}");
        lab.one_record("not-configured", API).await;
        assert_eq!(upstream.recorder().requests().len(), 0);
        // The next one is taken up at once.
        tokio::task::block_in_place(|| lab.configure());
        assert_eq!(chain(&lab, API).await.len(), 2);
    });
}

#[test]
fn leaves_are_made_once_for_each_host_and_kept_over_changes_of_the_policy() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = lab(&upstream);
    let config = lab.config();
    let configure = || {
        let answer = lab.ask(&Command::Configure(Box::new(config.clone())));
        assert!(matches!(answer, Answer::Configured { .. }), "{answer:?}");
    };
    configure();
    run(async {
        let first = chain(&lab, API).await;
        tokio::task::block_in_place(configure);
        assert_eq!(first[0], chain(&lab, API).await[0]);
    });
}

#[test]
fn names_that_are_blocked_do_not_push_out_the_leaves_of_allowed_ones() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = lab(&upstream);
    run(async {
        let first = chain(&lab, API).await;
        for i in 0..sbx_gateway::limits::LEAVES + 10 {
            let host = format!("n{i}.evil.test");
            let stream = lab.connect(&format!("{host}:443")).await.unwrap();
            let stream = lab.tls(stream, &host, &[]).await.unwrap();
            let response = h1(stream).await.send_request(get("/", &host)).await;
            assert_eq!(text(response.unwrap()).await.0, 403);
        }
        assert_eq!(first[0], chain(&lab, API).await[0]);
    });
}
