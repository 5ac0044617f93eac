//! Attacks on the TLS handshake itself: case 21.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;

use crate::attack::{cut, rest, twice};
use crate::attacks_tls::{Hosts, asked_inside};
use crate::hello::Hello;
use crate::lab::{get, h1, send, text};

/// An upstream that knows nothing newer than TLS 1.0, and how often it was asked.
fn upstream_of_tls_1_0() -> (SocketAddr, Arc<AtomicUsize>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut first = [0; 6];
            if stream.read_exact(&mut first).is_err() || first[5] != 1 {
                continue;
            }
            counter.fetch_add(1, Ordering::AcqRel);
            // ServerHello: version, random, no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
            let hello = [&[3, 1][..], &[9; 32], &[0, 0, 0x2f, 0]].concat();
            let length = u8::try_from(hello.len()).unwrap();
            let record = [&[22, 3, 1, 0, length + 4, 2, 0, 0, length][..], &hello].concat();
            let _ = stream.write_all(&record);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    (address, asked)
}

#[test]
fn attack_21_old_versions_and_broken_ciphers_are_refused_on_both_sides() {
    let hosts = Hosts::new();
    let (old_upstream, asked) = upstream_of_tls_1_0();
    let setup = hosts
        .setup(&["allow old.test"])
        .send_to("old.test:443", old_upstream)
        .credential("old.test");
    twice(setup.start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let address = lab.resolve("web.test").await.unwrap()[0];
        for version in [0x0300, 0x0301, 0x0302] {
            // In one record, and in pieces that show the version late.
            for record in [16 * 1024, 1, 5] {
                let hello = |name| Hello {
                    version,
                    versions: Vec::new(),
                    record,
                    ..Hello::new(name)
                };
                for name in ["web.test", "api.test"] {
                    let mut stream = lab.connect(&format!("{name}:443")).await.unwrap();
                    stream.write_all(&hello(name).bytes()).await.unwrap();
                    cut(&mut stream).await;
                    round.blocked("bad-client-hello", name).await;
                }
                let mut stream = lab.guest().connect(address, 443).await.unwrap();
                stream.write_all(&hello("web.test").bytes()).await.unwrap();
                cut(&mut stream).await;
                round
                    .blocked("bad-client-hello", &address.to_string())
                    .await;
            }
        }
        // In an opened connection the gateway is the server: RC4, export, NULL and anonymous suites.
        let hello = Hello {
            suites: vec![0x0005, 0x0003, 0x0008, 0x0014, 0x0001, 0x0034],
            versions: Vec::new(),
            ..Hello::new("api.test")
        };
        let mut stream = lab.connect("api.test:443").await.unwrap();
        stream.write_all(&hello.bytes()).await.unwrap();
        let alert = rest(&mut stream).await;
        assert!(
            matches!(alert[..], [] | [21, 3, _, 0, 2, 2, 40 | 71]),
            "{alert:?}"
        );
        round.blocked_inside("bad-client-hello", "api.test").await;
        // Towards an upstream the gateway is the client.
        let before = asked.load(Ordering::Acquire);
        let (status, _) = asked_inside(round, "old.test", b"http/1.1").await;
        assert_eq!(status, 502);
        round.blocked("upstream-tls", "old.test").await;
        assert!(asked.load(Ordering::Acquire) > before);
    });
}

#[test]
fn attack_21_early_data_is_neither_taken_nor_asked_for() {
    let hosts = Hosts::new();
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let mut config = lab.client_tls(&[b"http/1.1"]);
        config.enable_early_data = true;
        let config = Arc::new(config);
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab
            .tls_as(config.clone(), stream, "api.test")
            .await
            .unwrap();
        // Tickets come with or before the first answer.
        let mut client = h1(stream).await;
        let answer = send(&mut client, get("/echo", "api.test")).await.unwrap();
        assert_eq!(text(answer).await.0, 200);
        let name = rustls::pki_types::ServerName::try_from("api.test").unwrap();
        let mut again = rustls::ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        again.write_tls(&mut hello).unwrap();
        let resumes = hello.windows(4).any(|window| window[..2] == [0, 41]);
        assert!(resumes, "a session to resume is there");
        assert!(again.early_data().is_none(), "and allows no early data");
        assert_eq!(round.recorded_at_least(1).await.len(), 1);
    });
}

/// A record of a TLS 1.2 connection with AES-128-GCM (RFC 5288), sealed with what rustls gave out.
fn sealed(secrets: &rustls::ExtractedSecrets, after: u64, kind: u8, plain: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let (sequence, secret) = &secrets.tx;
    let sequence = sequence + after;
    let rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secret else {
        panic!("another suite");
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap());
    let explicit = sequence.to_be_bytes();
    let nonce = [&iv.as_ref()[..4], &explicit].concat();
    let length = u16::try_from(plain.len()).unwrap().to_be_bytes();
    let aad = [&explicit[..], &[kind, 3, 3], &length].concat();
    let mut body = plain.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut body)
        .unwrap();
    let length = u16::try_from(explicit.len() + body.len())
        .unwrap()
        .to_be_bytes();
    [&[kind, 3, 3][..], &length, &explicit, &body].concat()
}

#[test]
fn attack_21_a_connection_is_not_renegotiated() {
    const HANDSHAKE: u8 = 22;
    const ALERT: u8 = 21;
    const DATA: u8 = 23;
    let hosts = Hosts::new();
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let suite = rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
        provider
            .cipher_suites
            .retain(|known| known.suite() == suite);
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(lab.guest_roots())
            .with_no_client_auth();
        config.enable_secret_extraction = true;
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls_as(config, stream, "api.test").await.unwrap();
        let (mut stream, client) = stream.into_inner();
        let secrets = client.dangerous_extract_secrets().unwrap();
        let message = Hello::new("other.test").bytes().split_off(5);
        stream
            .write_all(&sealed(&secrets, 0, HANDSHAKE, &message))
            .await
            .unwrap();
        // What the gateway has to say goes out with its next answer.
        let request = b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n";
        stream
            .write_all(&sealed(&secrets, 1, DATA, request))
            .await
            .unwrap();
        // no_renegotiation (RFC 5246, section 7.2.2), no handshake, and the connection is still for its host only.
        assert_eq!(
            tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap(),
            ALERT
        );
        round.blocked_inside("host-mismatch", "other.test").await;
        drop(stream);
    });
}
