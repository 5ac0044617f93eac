//! Attacks on the framing of HTTP/2: case 34.

use sbx_gateway::limits;
use sbx_testkit::EchoUpstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::attack::{Round, rest, twice};
use crate::guest::Stream;
use crate::lab::{Setup, get, h2, text};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A string that is not compressed (RFC 7541, section 5.2).
fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match text.len() {
        length @ ..127 => bytes.push(u8::try_from(length).unwrap()),
        length => {
            bytes.push(127);
            let mut left = length - 127;
            while left > 127 {
                bytes.push(u8::try_from(left & 127).unwrap() | 128);
                left >>= 7;
            }
            bytes.push(u8::try_from(left).unwrap());
        }
    }
    bytes.extend_from_slice(text);
    bytes
}

/// A header that is not to be indexed (RFC 7541, section 6.2.2).
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

/// `GET https://api.test/echo` and more.
fn block(more: &[u8]) -> Vec<u8> {
    let path = field(b":path", b"/echo");
    let authority = field(b":authority", b"api.test");
    [&[0x82, 0x87][..], &path, &authority, more].concat()
}

/// A whole request in one piece, or in as many as its headers need.
fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16 * 1024).peekable();
    let (mut bytes, mut kind) = (Vec::new(), HEADERS);
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        let flags = if kind == HEADERS {
            end | END_STREAM
        } else {
            end
        };
        bytes.extend(frame(kind, flags, stream, piece));
        kind = CONTINUATION;
    }
    bytes
}

/// A connection to `api.test` that has begun.
async fn connect(round: &Round<'_>) -> TlsStream<Stream> {
    let stream = round.lab.connect("api.test:443").await.unwrap();
    let mut stream = round.lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
    let preface = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
    ];
    stream.write_all(&preface.concat()).await.unwrap();
    stream
}

/// The next frame that is an answer to what was sent: its kind and payload. None: the connection has ended.
async fn answer<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Option<(u8, Vec<u8>)> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.ok()?;
        if matches!(head[3], HEADERS | RST_STREAM | GOAWAY) {
            return Some((head[3], payload));
        }
    }
}

fn lab() -> (Setup, EchoUpstream) {
    let api = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let setup = Setup::new(&["allow api.test", "allow other.test"])
        .tls_upstream("api.test", &api)
        .credential("api.test");
    (setup, api)
}

#[test]
fn attack_34_an_http2_request_with_more_than_one_meaning_is_refused_and_recorded() {
    let (setup, api) = lab();
    let many: Vec<u8> = (0..=limits::HEADERS)
        .flat_map(|_| field(b"x", b""))
        .collect();
    // One entry of the table for compression, and thousands of references to it: 4 KiB become 12 MiB.
    let bomb = [
        [&[0x40][..], &string(b"x"), &string(&[b'y'; 3000])].concat(),
        vec![0xbe; 4000],
    ]
    .concat();
    let blocks = [
        ("two hosts", block(&field(b":authority", b"evil.test"))),
        ("two paths", block(&field(b":path", b"/admin"))),
        ("two methods", block(&[0x83])),
        ("a Host that differs", block(&field(b"host", b"other.test"))),
        (
            "two lengths",
            block(
                &[
                    field(b"content-length", b"0"),
                    field(b"content-length", b"1"),
                ]
                .concat(),
            ),
        ),
        (
            "one length twice",
            block(
                &[
                    field(b"content-length", b"0"),
                    field(b"content-length", b"0"),
                ]
                .concat(),
            ),
        ),
        (
            "a pseudo-header behind others",
            [&block(&field(b"x", b"y"))[..], &field(b":scheme", b"https")].concat(),
        ),
        ("an unknown pseudo-header", block(&field(b":evil", b"x"))),
        (
            "a line break in a value",
            block(&field(b"x", b"a\r\nhost: evil.test")),
        ),
        (
            "a line break in the path",
            [
                &[0x82, 0x87][..],
                &field(b":path", b"/\r\nX: y"),
                &field(b":authority", b"api.test"),
            ]
            .concat(),
        ),
        ("NUL in a value", block(&field(b"x", b"a\0b"))),
        ("a name in upper case", block(&field(b"X", b"y"))),
        ("a name with a space", block(&field(b"host ", b"evil.test"))),
        ("no name", block(&field(b"", b"y"))),
        (
            "a header of the connection",
            block(&field(b"connection", b"x-api-key")),
        ),
        (
            "a transfer coding",
            block(&field(b"transfer-encoding", b"chunked")),
        ),
        ("no host", [0x82, 0x87, 0x84].to_vec()),
        (
            "no path",
            [&[0x82, 0x87][..], &field(b":authority", b"api.test")].concat(),
        ),
        ("too many headers", block(&many)),
        (
            "too long headers",
            block(&field(b"x", &vec![b'y'; limits::H2_HEADERS as usize])),
        ),
        ("too long headers, compressed", block(&bomb)),
        (
            "a table that is too large",
            block(&[0x3f, 0xff, 0xff, 0xff, 0x7f]),
        ),
        ("a reference to nothing", block(&[0xff, 0x7f])),
    ];
    twice(setup.start(), &[api.recorder()], async |round| {
        for (what, block) in &blocks {
            let mut stream = connect(round).await;
            stream.write_all(&request(1, block)).await.unwrap();
            let answered = answer(&mut stream).await;
            let refused = match &answered {
                // 400, or another status of the client's fault, however it is written (RFC 7541, appendix A).
                Some((HEADERS, block)) => block[0] == 0x8c || block[0] == 0x48,
                Some(_) => true,
                None => false,
            };
            assert!(refused, "{what}: {answered:?}");
            stream.shutdown().await.unwrap();
            round.refused_as_bad_inside(what).await;
        }
    });
}

const EMPTY: &str = "empty pieces of a body";

#[test]
fn attack_34_a_flood_of_frames_ends_its_connection_and_nothing_else() {
    let (setup, api) = lab();
    let open = frame(HEADERS, 0, 1, &block(&[]));
    let resets: Vec<u8> = (0..20_000)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            [request(stream, &block(&[])), reset].concat()
        })
        .collect();
    let floods = [
        ("resets", resets),
        (
            "settings",
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(20_000),
        ),
        ("priorities", frame(PRIORITY, 0, 1, &[0; 5]).repeat(20_000)),
        ("unknown frames", frame(0xf0, 0, 0, &[0; 5]).repeat(20_000)),
        (
            "continuations",
            [
                &open[..],
                &frame(CONTINUATION, 0, 1, &field(b"x", b"y")).repeat(20_000),
            ]
            .concat(),
        ),
        (
            "empty continuations",
            [&open[..], &frame(CONTINUATION, 0, 1, &[]).repeat(20_000)].concat(),
        ),
        (
            "a frame that is too large",
            frame(HEADERS, 0, 1, &vec![0x82; 16 * 1024 + 1]),
        ),
        ("a request with an even number", request(2, &block(&[]))),
        (
            "a window beyond its bounds",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]),
        ),
        ("a push", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        (
            EMPTY,
            [
                frame(HEADERS, END_HEADERS, 1, &block(&[])),
                frame(DATA, 0, 1, &[]).repeat(20_000),
            ]
            .concat(),
        ),
    ];
    twice(setup.start(), &[api.recorder()], async |round| {
        let stream = round.lab.connect("api.test:443").await.unwrap();
        let stream = round.lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
        let mut bystander = h2(stream).await;
        let mut granted = 0;
        for (what, bytes) in &floods {
            let (mut from, mut to) = tokio::io::split(connect(round).await);
            let ((), answers) = tokio::join!(
                // The gateway may have ended it before everything was said.
                async {
                    let _ = to.write_all(bytes).await;
                    let _ = to.flush().await;
                },
                rest(&mut from)
            );
            assert!(answers.len() < 256 * 1024, "{what}: {}", answers.len());
            let asked = get("https://api.test/echo/bystander", "api.test");
            let answer = bystander.send_request(asked).await.unwrap();
            assert_eq!(text(answer).await.0, 200, "{what}");
            // Requests that were granted before it came to that are recorded as such, in their own time.
            let (mut bad, mut served) = (0, 0);
            while bad == 0 || served == 0 {
                for record in round.recorded_at_least(1).await {
                    assert_eq!(record.host, "api.test", "{what}");
                    match (record.reason.as_str(), record.path.as_deref()) {
                        ("bad-request", _) => bad += 1,
                        ("allow-rule", Some("/echo/bystander")) => served += 1,
                        ("allow-rule", Some("/echo")) => granted += 1,
                        _ => panic!("{what}: {record:#?}"),
                    }
                }
            }
            let of_its_request = usize::from(*what == EMPTY);
            assert!(bad <= 1 + of_its_request && served == 1, "{what}: {bad}");
        }
        let most = limits::H2_IDLE_FRAMES as usize + 1;
        assert!(granted <= most, "{granted} requests granted");
        let asked = api.recorder().requests();
        assert!(
            asked.len() <= most + floods.len(),
            "{} requests sent",
            asked.len()
        );
        for _ in 0..5 {
            let asked = get("https://api.test/echo/bystander", "api.test");
            let answer = bystander.send_request(asked).await.unwrap();
            assert_eq!(text(answer).await.0, 200);
            round.forget_so_far().await;
        }
    });
}

#[test]
fn attack_34_pings_are_answered_only_as_fast_as_the_answers_are_read() {
    let (setup, api) = lab();
    twice(setup.start(), &[], async |round| {
        let stream = round.lab.connect("api.test:443").await.unwrap();
        let stream = round.lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
        let mut bystander = h2(stream).await;
        let mut flood = connect(round).await;
        let pings = frame(PING, 0, 0, &[7; 8]).repeat(4096);
        let mut sent = 0;
        loop {
            let still_served = async {
                for _ in 0..20 {
                    let asked = get("https://api.test/echo", "api.test");
                    let answer = bystander.send_request(asked).await.unwrap();
                    assert_eq!(text(answer).await.0, 200);
                }
            };
            tokio::pin!(still_served);
            tokio::select! {
                written = flood.write_all(&pings) => written.unwrap(),
                () = &mut still_served => break,
            }
            sent += pings.len();
            assert!(
                sent < 64 << 20,
                "{sent} bytes of pings taken, no answer read"
            );
            still_served.await;
        }
        drop(flood);
        round.forget_so_far().await;
    });
    drop(api);
}
