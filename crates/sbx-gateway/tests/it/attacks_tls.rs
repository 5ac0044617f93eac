//! Attacks on TLS: cases 13 to 19.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::{EchConfig, EchGreaseConfig, EchMode};
use rustls::crypto::hpke::{Hpke, HpkePublicKey};
use sbx_testkit::EchoUpstream;
use sbx_testkit::upstream::{Certificate, Options};
use tokio::io::AsyncWriteExt;

use crate::attack::{Round, cut, say, twice};
use crate::hello::Hello;
use crate::lab::{Lab, NOWHERE, PLACEHOLDER, Setup, get, h1, h2, text};

/// `web.test` is tunnelled unread, `api.test` opened for a credential; both lead to stand-ins.
pub(crate) struct Hosts {
    web: EchoUpstream,
    api: EchoUpstream,
}

impl Hosts {
    pub(crate) fn new() -> Self {
        Self {
            web: EchoUpstream::start_tls(&["web.test", "evil.test", "203.0.113.9"]).unwrap(),
            api: EchoUpstream::start_tls(&["api.test", "other.test"]).unwrap(),
        }
    }

    pub(crate) fn setup(&self, more: &[&str]) -> Setup {
        let rules = ["allow web.test", "allow api.test", "allow other.test"];
        Setup::new(&[&rules[..], more].concat())
            .tls_upstream("web.test", &self.web)
            .send_to("web.test:80", self.web.address())
            .tls_upstream("api.test", &self.api)
            .tls_upstream("other.test", &self.api)
            .credential("api.test")
    }

    pub(crate) fn watched(&self) -> [&sbx_testkit::Recorder; 2] {
        [self.web.recorder(), self.api.recorder()]
    }
}

const EVIL_GET: &str = "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n";

#[test]
fn attack_13_connect_to_an_allowed_host_with_another_server_name_is_blocked() {
    let hosts = Hosts::new();
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        // Tunnelled unread, and opened.
        for host in ["web.test", "api.test"] {
            let stream = round.lab.connect(&format!("{host}:443")).await.unwrap();
            assert!(round.lab.tls(stream, "evil.test", &[]).await.is_err());
            round.blocked("sni-mismatch", host).await;
        }
        // A client that dials by itself is judged by what it names.
        let address = round.lab.resolve("web.test").await.unwrap()[0];
        let stream = round.lab.guest().connect(address, 443).await.unwrap();
        let mut stream = round.lab.tls(stream, "evil.test", &[]).await.unwrap();
        let answer = say(&mut stream, EVIL_GET).await;
        assert_eq!((answer.status, answer.reason()), (403, "default-deny"));
        round.blocked("default-deny", "evil.test").await;
    });
}

#[test]
fn attack_14_a_request_inside_that_names_another_host_is_blocked() {
    let hosts = Hosts::new();
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let address = lab.resolve("api.test").await.unwrap()[0];
        // `other.test` is allowed, and the upstream's certificate is good for it; `evil.test` is neither.
        for other in ["other.test", "evil.test"] {
            for transparent in [false, true] {
                let stream = if transparent {
                    lab.guest().connect(address, 443).await.unwrap()
                } else {
                    lab.connect("api.test:443").await.unwrap()
                };
                let mut stream = lab.tls(stream, "api.test", &[b"http/1.1"]).await.unwrap();
                let request = format!("GET / HTTP/1.1\r\nHost: {other}\r\n\r\n");
                let answer = say(&mut stream, request).await;
                assert_eq!((answer.status, answer.reason()), (403, "host-mismatch"));
                round.blocked_inside("host-mismatch", other).await;
                let stream = if transparent {
                    lab.guest().connect(address, 443).await.unwrap()
                } else {
                    lab.connect("api.test:443").await.unwrap()
                };
                let stream = lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
                let request = get(&format!("https://{other}/"), other);
                let response = h2(stream).await.send_request(request).await.unwrap();
                assert_eq!(response.headers()["x-sbx-reason"], "host-mismatch");
                assert_eq!(text(response).await.0, 421);
                round.blocked_inside("host-mismatch", other).await;
            }
        }
    });
}

#[test]
fn attack_15_a_client_without_a_server_name_is_judged_by_the_address_it_dialled() {
    let hosts = Hosts::new();
    let nameless = Hello {
        name: None,
        ..Hello::new("")
    };
    let closed = hosts.setup(&[]).name("named.test", &[NOWHERE]).start();
    twice(closed, &hosts.watched(), async |round| {
        let lab = round.lab;
        // Through the proxy a host was named, so the handshake has to name it too.
        for host in ["web.test", "api.test"] {
            let mut stream = lab.connect(&format!("{host}:443")).await.unwrap();
            stream.write_all(&nameless.bytes()).await.unwrap();
            cut(&mut stream).await;
            round.blocked("sni-mismatch", host).await;
        }
        // Without a proxy: the address has no rule, though a name that is allowed leads to it.
        for address in [lab.resolve("web.test").await.unwrap()[0], NOWHERE] {
            let stream = lab.guest().connect(address, 443).await.unwrap();
            let stream = lab.tls(stream, &address.to_string(), &[]).await.unwrap();
            let response = h1(stream).await.send_request(get("/", "web.test")).await;
            assert_eq!(text(response.unwrap()).await.0, 403);
            let reason = if address == NOWHERE {
                "default-deny"
            } else {
                "address-blocked"
            };
            round.blocked(reason, &address.to_string()).await;
        }
    });
    // A rule for the address opens it, and only it; a host that is not there is not looked for elsewhere.
    let open = hosts
        .setup(&["allow 203.0.113.9", "allow 203.0.113.10"])
        .tls_upstream("203.0.113.9", &hosts.web)
        .send_to("203.0.113.10:443", "127.0.0.1:1".parse().unwrap());
    twice(open.start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let stream = lab.guest().connect(NOWHERE, 443).await.unwrap();
        let stream = lab.tls(stream, "203.0.113.9", &[]).await.unwrap();
        let response = h1(stream)
            .await
            .send_request(get("/echo", "203.0.113.9"))
            .await;
        assert_eq!(text(response.unwrap()).await.0, 200);
        assert_eq!(round.recorded_at_least(1).await[0].reason, "allow-rule");
        crate::attack::closed(hosts.web.recorder()).await;
        round.forget_so_far().await;
        let dead = Ipv4Addr::new(203, 0, 113, 10);
        let mut stream = lab.guest().connect(dead, 443).await.unwrap();
        stream.write_all(&nameless.bytes()).await.unwrap();
        cut(&mut stream).await;
        let records = round.recorded_at_least(1).await;
        assert_eq!(records[0].reason, "upstream-unreachable");
        round.silent();
    });
}

/// A client's configuration with encrypted client hello, which is TLS 1.3 only.
fn with_ech(lab: &Lab, mode: EchMode) -> rustls::ClientConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_ech(mode)
        .unwrap()
        .with_root_certificates(lab.guest_roots())
        .with_no_client_auth()
}

/// A list with one configuration (RFC 9849, section 4) whose outer name is `public_name`.
fn ech_config(public_name: &str, key: &HpkePublicKey) -> Vec<u8> {
    let long = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let name = public_name.as_bytes();
    let contents = [
        &[1][..],                             // configuration id
        &[0, 0x20],                           // DHKEM(X25519, HKDF-SHA256)
        &long(&key.0),                        // public key
        &long(&[0, 1, 0, 1]),                 // HKDF-SHA256, AES-128-GCM
        &[0],                                 // longest name
        &[u8::try_from(name.len()).unwrap()], // public name
        name,
        &[0, 0], // no extensions
    ]
    .concat();
    long(&[&[0xfe, 0x0d][..], &long(&contents)].concat())
}

#[test]
fn attack_16_an_encrypted_server_name_is_judged_by_the_outer_one() {
    use rustls::crypto::aws_lc_rs::hpke::{
        ALL_SUPPORTED_SUITES, DH_KEM_X25519_HKDF_SHA256_AES_128,
    };
    let hosts = Hosts::new();
    twice(hosts.setup(&[]).start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let suite = DH_KEM_X25519_HKDF_SHA256_AES_128;
        let (public, _) = suite.generate_key_pair().unwrap();
        // What browsers send to everybody is no reason to refuse.
        let grease = EchMode::Grease(EchGreaseConfig::new(suite, HpkePublicKey(public.0.clone())));
        let stream = lab.connect("web.test:443").await.unwrap();
        let stream = lab
            .tls_as(with_ech(lab, grease), stream, "web.test")
            .await
            .unwrap();
        let response = h1(stream)
            .await
            .send_request(get("/echo", "web.test"))
            .await;
        assert_eq!(text(response.unwrap()).await.0, 200);
        assert_eq!(round.recorded_at_least(1).await[0].reason, "allow-rule");
        crate::attack::closed(hosts.web.recorder()).await;
        round.forget_so_far().await;
        // An allowed name inside of a hello for another.
        let real = || {
            let list = ech_config("evil.test", &public).into();
            EchMode::Enable(EchConfig::new(list, ALL_SUPPORTED_SUITES).unwrap())
        };
        let stream = lab.connect("web.test:443").await.unwrap();
        assert!(
            lab.tls_as(with_ech(lab, real()), stream, "web.test")
                .await
                .is_err()
        );
        round.blocked("sni-mismatch", "web.test").await;
        let address = lab.resolve("web.test").await.unwrap()[0];
        let stream = lab.guest().connect(address, 443).await.unwrap();
        // The gateway's own certificate for the outer name is not what the client wants: it refuses, after the
        // gateway has.
        assert!(
            lab.tls_as(with_ech(lab, real()), stream, "web.test")
                .await
                .is_err()
        );
        round.blocked("default-deny", "evil.test").await;
        // The keys for it come by DNS: SVCB and HTTPS are answered empty, and nobody is asked.
        for kind in [64, 65] {
            let answer = lab.dns_query("web.test", kind).await;
            assert_eq!(
                (answer[3] & 0xf, &answer[6..8]),
                (0, &[0, 0][..]),
                "type {kind}"
            );
        }
        round.silent();
    });
}

#[test]
fn attack_17_an_allowed_name_with_an_address_never_resolved_for_it_is_blocked() {
    let hosts = Hosts::new();
    let setup = hosts
        .setup(&["allow named.test", "allow 203.0.113.0/24"])
        .name("named.test", &[Ipv4Addr::new(203, 0, 113, 77)]);
    twice(setup.start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        // `web.test` has an address of our making, `named.test` one of the resolver's; both are known.
        lab.resolve("web.test").await.unwrap();
        lab.resolve("named.test").await.unwrap();
        round.forget_so_far().await;
        for name in ["web.test", "named.test", "api.test"] {
            let stream = lab.guest().connect(NOWHERE, 443).await.unwrap();
            let mut stream = lab.tls(stream, name, &[]).await.unwrap();
            let answer = say(
                &mut stream,
                format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"),
            )
            .await;
            assert_eq!(
                (answer.status, answer.reason()),
                (403, "address-not-pinned"),
                "{name}"
            );
            round.blocked("address-not-pinned", name).await;
            if name == "api.test" {
                continue; // It leads somewhere on port 443 only.
            }
            let mut stream = lab.guest().connect(NOWHERE, 80).await.unwrap();
            let answer = say(
                &mut stream,
                format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"),
            )
            .await;
            assert_eq!(
                (answer.status, answer.reason()),
                (403, "address-not-pinned"),
                "{name}"
            );
            round.blocked("address-not-pinned", name).await;
        }
    });
}

#[test]
fn attack_18_a_client_that_speaks_http2_only_works_and_each_stream_is_judged() {
    let hosts = Hosts::new();
    let mut setup = hosts.setup(&["allow api.test"]);
    let mut deny = crate::lab::rule("deny api.test");
    deny.http = Some(sbx_policy::HttpMatch {
        methods: sbx_policy::Methods::ANY,
        path: "/private/**".parse().unwrap(),
    });
    setup.file.policy.rules.push(deny);
    twice(setup.start(), &hosts.watched(), async |round| {
        let lab = round.lab;
        let address = lab.resolve("api.test").await.unwrap()[0];
        let tunnel = lab.connect("api.test:443").await.unwrap();
        let transparent = lab.guest().connect(address, 443).await.unwrap();
        for stream in [tunnel, transparent] {
            let stream = lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let client = h2(stream).await;
            let call = |path: &str| {
                let mut request = get(&format!("https://api.test{path}"), "api.test");
                let headers = request.headers_mut();
                headers.insert("content-type", "application/grpc".parse().unwrap());
                headers.insert("te", "trailers".parse().unwrap());
                let mut client = client.clone();
                async move { client.send_request(request).await.unwrap() }
            };
            let (good, bad, also_good) = tokio::join!(
                call("/echo/Service/Call"),
                call("/private/Service/Call"),
                call("/slow?delay_ms=50")
            );
            assert_eq!(
                (good.status().as_u16(), also_good.status().as_u16()),
                (200, 200)
            );
            assert_eq!(bad.headers()["x-sbx-reason"], "deny-rule");
            assert_eq!(text(bad).await.0, 403);
            let records = round.recorded_at_least(3).await;
            let denied: Vec<_> = records.iter().filter(|record| !record.allowed).collect();
            assert_eq!((records.len(), denied.len()), (3, 1));
            assert_eq!(denied[0].path.as_deref(), Some("/private/Service/Call"));
        }
        let requests = hosts.api.recorder().requests();
        assert_eq!(requests.len(), 4);
        for request in requests {
            assert_eq!(request.header("content-type"), Some("application/grpc"));
            assert_eq!(request.header("te"), Some("trailers"));
            assert!(!request.path.starts_with("/private"), "{}", request.path);
        }
    });
}

#[test]
fn attack_19_an_upstream_without_a_valid_certificate_gets_no_request_and_no_secret() {
    let start = |name: &str, certificate| {
        let tls_names = vec![name.to_owned()];
        let options = Options {
            tls_names,
            certificate,
            ..Options::default()
        };
        EchoUpstream::start_with(options).unwrap()
    };
    let upstreams = [
        ("expired.test", start("expired.test", Certificate::Expired)),
        (
            "selfsigned.test",
            start("selfsigned.test", Certificate::SelfSigned),
        ),
        (
            "wrongname.test",
            start("somebody-else.test", Certificate::Valid),
        ),
    ];
    let stranger = start("stranger.test", Certificate::Valid);
    let mut setup = Setup::new(&["allow *.test"]).send_to("stranger.test:443", stranger.address());
    setup = setup.credential("stranger.test");
    for (name, upstream) in &upstreams {
        setup = setup.tls_upstream(name, upstream).credential(name);
    }
    // Each credential has the same header and placeholder; one of them is enough here.
    let watched: Vec<_> = upstreams
        .iter()
        .map(|(_, upstream)| upstream)
        .chain([&stranger])
        .map(EchoUpstream::recorder)
        .collect();
    twice(setup.start(), &watched, async |round| {
        let names = upstreams.iter().map(|(name, _)| *name);
        for name in names.chain(["stranger.test"]) {
            for alpn in [&b"http/1.1"[..], b"h2"] {
                let (status, body) = asked_inside(round, name, alpn).await;
                assert_eq!(status, 502, "{name}: {body}");
                let want = format!("certificate of {name}:443 is not valid");
                assert!(body.contains(&want), "{name}: {body}");
                round.blocked_inside("upstream-certificate", name).await;
            }
        }
    });
}

/// The status and text of an answer to a request with the placeholder in an opened connection, or of a `CONNECT` that
/// is refused.
pub(crate) async fn asked_inside(round: &Round<'_>, name: &str, alpn: &[u8]) -> (u16, String) {
    let stream = match round.lab.connect(&format!("{name}:443")).await {
        Ok(stream) => stream,
        Err(refused) => return refused,
    };
    let stream = round.lab.tls(stream, name, &[alpn]).await.unwrap();
    let mut request = get(&format!("https://{name}/echo"), name);
    request
        .headers_mut()
        .insert("x-api-key", PLACEHOLDER.parse().unwrap());
    if alpn == b"h2" {
        return text(h2(stream).await.send_request(request).await.unwrap()).await;
    }
    *request.uri_mut() = "/echo".parse().unwrap();
    text(h1(stream).await.send_request(request).await.unwrap()).await
}
