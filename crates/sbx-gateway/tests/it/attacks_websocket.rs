//! Attacks on what passes in a WebSocket that was opened: case 30, and 56 and 57 in messages.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sbx_testkit::EchoUpstream;
use sbx_testkit::Recorder;
use sbx_testkit::recorder::Event;
use sbx_wire::gateway::{Credential, EgressRecord, Replace};
use sbx_wire::secret::SecretText;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::attack::{Round, closed, rest, say, twice};
use crate::attacks_credentials::{OTHER, other, writings};
use crate::attacks_http::UPGRADE;
use crate::lab::{PLACEHOLDER, SECRET, Setup, anthropic, rule, run};
use crate::tape::Tape;
use crate::ways::{Connection, Upstreams, Way};

/// The ways on which a WebSocket is read, with and without a proxy.
const WAYS: [Way; 4] = [
    Way::Proxy,
    Way::Transparent,
    Way::Opened,
    Way::OpenedTransparent,
];

// First bytes of frames: the final bit and the opcode.
const TEXT: u8 = 0x81;
const FIRST: u8 = 0x01;
const MIDDLE: u8 = 0x00;
const END: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A frame as a client writes it.
fn frame(first: u8, text: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x01, 0xc3, 0x77];
    let mut frame = vec![first];
    match text.len() {
        short @ ..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        medium @ ..0x1_0000 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0xff);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    let masked = text.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, key)| byte ^ key));
    frame
}

/// A message in fragments of so many bytes, with something to be answered between them.
fn fragments(text: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let pieces = text.chunks(size);
    for piece in pieces {
        let first = if frames.is_empty() { FIRST } else { MIDDLE };
        frames.push(frame(first, piece));
        frames.push(frame(PING, b"between"));
    }
    frames.push(frame(END, b""));
    frames
}

/// The next frame of the server; nothing in it is masked. `None`: the connection has ended.
async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? {
        126 => u64::from(stream.read_u16().await.ok()?),
        127 => stream.read_u64().await.ok()?,
        short => u64::from(short),
    };
    let mut text = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut text).await.ok()?;
    Some((first, text))
}

/// The next whole message, or control frame that is no answer to [`fragments`].
async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> (u8, Vec<u8>) {
    let mut whole = Vec::new();
    loop {
        match hear(stream).await.expect("a frame") {
            (PONG, text) if text == b"between" => {}
            (first @ (CLOSE..=PONG), text) => return (first, text),
            (first, text) => {
                whole.extend(text);
                if first & END != 0 {
                    return (TEXT, whole);
                }
            }
        }
    }
}

/// The code and the reason of the close frame that comes, behind which nothing does.
async fn close<S: AsyncRead + Unpin>(stream: &mut S) -> (u16, String) {
    loop {
        if let (CLOSE, text) = hear(stream).await.expect("a close frame") {
            let (code, reason) = text.split_first_chunk().unwrap();
            assert!(rest(stream).await.is_empty());
            let reason = String::from_utf8_lossy(reason).into_owned();
            return (u16::from_be_bytes(*code), reason);
        }
    }
}

async fn open(way: Way, round: &Round<'_>) -> Box<dyn Connection> {
    let mut stream = way.open(round).await;
    let answer = say(&mut stream, way.head("GET", "/ws") + UPGRADE + "\r\n").await;
    assert_eq!(answer.status, 101, "{way:?}: {answer:?}");
    stream
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, pieces: &[Vec<u8>]) {
    for piece in pieces {
        // The other side may have heard enough before the end.
        let _ = stream.write_all(piece).await;
        let _ = stream.flush().await;
        tokio::task::yield_now().await;
    }
}

/// The opening and then one stop with this reason.
async fn stopped(round: &Round<'_>, way: Way, reason: &str, shown: &str) {
    let records = round.recorded_at_least(2).await;
    let told: Vec<(&str, &str)> = records
        .iter()
        .map(|record| (record.reason.as_str(), record.host.as_str()))
        .collect();
    let host = way.host();
    assert_eq!(told, [("allow-rule", host), (reason, host)], "{shown}");
    assert_eq!(records[1].path.as_deref(), Some("/ws"), "{shown}");
}

/// What each WebSocket brought to the stand-in: its messages one behind the other, and the payloads of control frames.
fn brought(recorder: &Recorder) -> BTreeMap<u64, (String, Vec<String>)> {
    let mut all: BTreeMap<u64, (String, Vec<String>)> = BTreeMap::new();
    for entry in recorder.entries() {
        if let Event::Frame { seq, first, text } = entry.event {
            let (messages, controls) = all.entry(seq).or_default();
            if first & 8 == 0 {
                messages.push_str(&text);
            } else {
                controls.push(text);
            }
        }
    }
    all
}

#[test]
fn attack_30_a_placeholder_in_a_message_is_stopped_however_it_is_written_and_split() {
    const BEFORE: &str = "before it ";
    let upstreams = Upstreams::new();
    let stranger = other().placeholder;
    let lab = upstreams.setup().bind(other()).start();
    twice(lab, &upstreams.watched(), async |round| {
        for way in WAYS {
            for writing in writings(&stranger) {
                let text = format!("{BEFORE}{writing} behind it");
                let whole = frame(TEXT, text.as_bytes());
                let long = format!("{}{writing}{}", "a".repeat(100_000), "b".repeat(100_000));
                let mut in_close = 1000_u16.to_be_bytes().to_vec();
                in_close.extend(&text.as_bytes()[..text.len().min(120)]);
                for pieces in [
                    vec![whole.clone()],
                    whole.chunks(7).map(<[u8]>::to_vec).collect(),
                    fragments(text.as_bytes(), 5),
                    vec![fragments(text.as_bytes(), 11).concat()],
                    vec![frame(0x82, long.as_bytes())],
                    vec![
                        frame(FIRST, BEFORE.as_bytes()),
                        frame(PING, writing.as_bytes()),
                    ],
                    vec![frame(CLOSE, &in_close)],
                ] {
                    let mut stream = open(way, round).await;
                    write(&mut stream, &pieces).await;
                    let shown = format!("{way:?} {writing} in {} pieces", pieces.len());
                    let (code, reason) = close(&mut stream).await;
                    assert_eq!(code, 1008, "{shown}");
                    let said =
                        "placeholder-to-unbound-host: The request carries the placeholder of other";
                    assert!(reason.starts_with(said), "{shown}: {reason}");
                    stopped(round, way, "placeholder-to-unbound-host", &shown).await;
                }
                // The upstream has answered what came behind its beginning before the end comes.
                let (begin, end) = text.split_at(BEFORE.len() + writing.len() - 8);
                let begin = [frame(FIRST, begin.as_bytes()), frame(PING, b"between")];
                let mut stream = open(way, round).await;
                write(&mut stream, &begin).await;
                while hear(&mut stream).await.expect("a pong").0 != PONG {}
                write(&mut stream, &[frame(END, end.as_bytes())]).await;
                assert_eq!(close(&mut stream).await.0, 1008, "{way:?} {writing}");
                stopped(round, way, "placeholder-to-unbound-host", &writing).await;
            }
        }
        for recorder in upstreams.watched() {
            closed(recorder).await;
            for (messages, controls) in brought(recorder).into_values() {
                assert!(
                    controls.iter().all(|text| text == "between"),
                    "{controls:?}"
                );
                let rest = messages.trim_start_matches('a');
                let rest = rest.strip_prefix(BEFORE).unwrap_or(rest);
                // What Base64 makes of "user:" and the like, which has a part in the group behind it, is nobody's.
                assert!(rest.len() <= 14 || BEFORE.starts_with(rest), "{messages}");
            }
        }
    });
}

#[test]
fn attack_30_what_holds_no_placeholder_passes_as_it_is_and_at_once() {
    let upstreams = Upstreams::new();
    let lab = upstreams.setup().bind(other()).start();
    twice(lab, &upstreams.watched(), async |round| {
        for way in WAYS {
            let mut stream = open(way, round).await;
            let long: Vec<u8> = (0..3_000_000_u32)
                .map(|at| u8::try_from(at % 251).unwrap())
                .collect();
            let half = &other().placeholder.into_bytes()[..20];
            for text in [
                &b"hi"[..],
                b"",
                half,
                &long[..126],
                &long[..70_000],
                &long[..],
            ] {
                let sent = [frame(TEXT, text), frame(PING, b"still there?")].concat();
                let (mut from, mut to) = tokio::io::split(&mut stream);
                let heard = async {
                    assert_eq!(message(&mut from).await, (TEXT, text.to_vec()));
                    let pong = (PONG, b"still there?".to_vec());
                    assert_eq!(message(&mut from).await, pong);
                };
                tokio::join!(heard, async { write(&mut to, &[sent]).await });
            }
            // In fragments, of which each comes back before the next one is sent.
            write(&mut stream, &[frame(FIRST, b"one!")]).await;
            assert_eq!(hear(&mut stream).await, Some((FIRST, b"one!".to_vec())));
            write(&mut stream, &[frame(MIDDLE, b"")]).await;
            write(&mut stream, &[frame(END, half)]).await;
            assert_eq!(hear(&mut stream).await, Some((END, half.to_vec())));
            // Two messages are two texts.
            let placeholder = other().placeholder.into_bytes();
            let two = [
                frame(TEXT, &placeholder[..9]),
                frame(TEXT, &placeholder[9..]),
            ]
            .concat();
            write(&mut stream, &[two]).await;
            assert_eq!(message(&mut stream).await.1, &placeholder[..9]);
            assert_eq!(message(&mut stream).await.1, &placeholder[9..]);
            write(&mut stream, &[frame(CLOSE, b"\x10\xe1bye")]).await;
            assert_eq!(close(&mut stream).await, (4321, "bye".to_owned()));
            let records = round.recorded_at_least(1).await;
            assert_eq!(records.len(), 1, "{records:#?}");
        }
    });
}

#[test]
fn attack_56_a_value_that_comes_back_in_messages_is_replaced() {
    let upstreams = Upstreams::new();
    let lab = upstreams.setup().start();
    let opened = Cell::new(0);
    twice(lab, &upstreams.watched(), async |round| {
        for way in [Way::Opened, Way::OpenedTransparent] {
            let mut stream = open(way, round).await;
            opened.set(opened.get() + 1);
            let text = format!("key={SECRET}; and {SECRET}");
            let long = format!("{}{text}{}", "a".repeat(100_000), "b".repeat(100_000));
            let whole = frame(TEXT, text.as_bytes());
            for pieces in [
                vec![whole.clone()],
                whole.chunks(7).map(<[u8]>::to_vec).collect(),
                fragments(text.as_bytes(), 5),
                vec![frame(0x82, long.as_bytes())],
            ] {
                write(&mut stream, &pieces).await;
                let (_, heard) = message(&mut stream).await;
                let heard = String::from_utf8(heard).unwrap();
                let wanted = format!("key={PLACEHOLDER}; and {PLACEHOLDER}");
                assert_eq!(heard.trim_matches(['a', 'b']), wanted);
            }
            let encoded = STANDARD.encode(format!("user:{SECRET}"));
            write(&mut stream, &[frame(TEXT, encoded.as_bytes())]).await;
            let (_, heard) = message(&mut stream).await;
            let heard = STANDARD.decode(heard).unwrap();
            assert!(!String::from_utf8_lossy(&heard).contains(&SECRET[4..]));
            // What has a bound keeps its length.
            write(&mut stream, &[frame(PING, text.as_bytes())]).await;
            let (first, heard) = message(&mut stream).await;
            assert_eq!((first, heard.len()), (PONG, text.len()));
            assert!(!String::from_utf8_lossy(&heard).contains(SECRET));
            let reason = [&1000_u16.to_be_bytes()[..], SECRET.as_bytes()].concat();
            write(&mut stream, &[frame(CLOSE, &reason)]).await;
            let (code, heard) = close(&mut stream).await;
            assert_eq!((code, heard.len()), (1000, SECRET.len()));
            assert!(!heard.contains(SECRET), "{heard}");
            let told = |record: &EgressRecord| record.alert.as_deref() == Some("value-in-answer");
            round.lab.records_that(opened.get(), told).await;
            round.recorded_at_least(1).await;
        }
    });
}

#[test]
fn attack_57_a_placeholder_in_a_message_stays_one_unless_somebody_chose_otherwise() {
    let (api, second) = (
        EchoUpstream::start_tls(&["api.test"]),
        EchoUpstream::start_tls(&[OTHER]),
    );
    let (api, second) = (api.unwrap(), second.unwrap());
    let in_body = Credential {
        header: String::new(),
        format: String::new(),
        replace: Some(Replace {
            body: true,
            login: false,
        }),
        value: SecretText::new("va\"lue/+x".to_owned()),
        ..other()
    };
    let placeholder = in_body.placeholder.clone();
    let model = Credential {
        conversation: true,
        ..anthropic("api.test")
    };
    let lab = Setup::new(&["allow api.test", "allow other.test"])
        .tls_upstream("api.test", &api)
        .tls_upstream(OTHER, &second)
        .bind(model)
        .bind(in_body)
        .start();
    run(async {
        let masked = "x".repeat(placeholder.len());
        for (host, upstream, said, arrives, comes_back) in [
            // Its own, where it is written into headers alone, and in a conversation that of another.
            ("api.test", &api, PLACEHOLDER, PLACEHOLDER, PLACEHOLDER),
            (
                "api.test",
                &api,
                placeholder.as_str(),
                masked.as_str(),
                masked.as_str(),
            ),
            (
                OTHER,
                &second,
                placeholder.as_str(),
                "va\"lue/+x",
                placeholder.as_str(),
            ),
        ] {
            let stream = lab.connect(&format!("{host}:443")).await.unwrap();
            let mut stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
            let head = format!("GET /ws HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}\r\n");
            assert_eq!(say(&mut stream, head).await.status, 101);
            let text = format!("a={said};");
            upstream.recorder().clear();
            for pieces in [
                vec![frame(TEXT, text.as_bytes())],
                fragments(text.as_bytes(), 5),
            ] {
                write(&mut stream, &pieces).await;
                let (_, heard) = message(&mut stream).await;
                assert_eq!(
                    String::from_utf8(heard).unwrap(),
                    format!("a={comes_back};")
                );
            }
            let arrived = brought(upstream.recorder());
            let (messages, _) = arrived.values().next().unwrap();
            assert_eq!(*messages, format!("a={arrives};").repeat(2));
        }
        let told = |record: &EgressRecord| record.alert.as_deref() == Some("placeholder-masked");
        lab.records_that(1, told).await;
    });
}

#[test]
fn attack_30_no_extension_is_offered_and_none_is_taken() {
    let upstreams = Upstreams::new();
    let extension = Tape::answering(&[
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    ]);
    let other_protocol = Tape::answering(&[
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n",
    ]);
    let mut setup = upstreams
        .setup()
        .send_to("extension.test:80", extension.address)
        .send_to("protocol.test:80", other_protocol.address);
    for text in ["allow extension.test", "allow protocol.test"] {
        setup.file.policy.rules.push(rule(text));
    }
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    twice(setup.start(), &upstreams.watched(), async |round| {
        for way in WAYS {
            let mut stream = way.open(round).await;
            round.forget_so_far().await;
            let head = way.head("GET", "/ws") + UPGRADE + offer + "\r\n";
            let answer = say(&mut stream, head).await;
            assert_eq!(answer.status, 101);
            assert_eq!(answer.header("sec-websocket-extensions"), None);
            let watched = upstreams.watched();
            let asked: Vec<_> = watched.iter().flat_map(|one| one.requests()).collect();
            assert_eq!(asked.len(), 1);
            assert_eq!(asked[0].header("sec-websocket-extensions"), None);
            round.recorded_at_least(1).await;
        }
        // On one connection: it stays HTTP.
        let mut stream = round.lab.proxy().await;
        for host in ["extension.test", "protocol.test"] {
            let head =
                format!("GET http://{host}/ws HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}{offer}\r\n");
            let answer = say(&mut stream, head).await;
            assert_eq!(
                (answer.status, answer.reason()),
                (502, "upstream-unreachable"),
                "{answer:?}"
            );
            let records = round.recorded_at_least(1).await;
            assert_eq!(records.len(), 1, "{records:#?}");
            assert_eq!(records[0].reason, "upstream-unreachable");
        }
        assert!(!extension.take().contains("permessage"));
    });
}

#[test]
fn attack_30_frames_that_are_none_end_their_connection_and_no_other() {
    let upstreams = Upstreams::new();
    let lab = upstreams.setup().start();
    // Behind each, what would be a message if it were let through.
    let behind = frame(TEXT, b"behind");
    twice(lab, &upstreams.watched(), async |round| {
        let mut neighbour = open(Way::Opened, round).await;
        round.recorded_at_least(1).await;
        for way in WAYS {
            for bad in [
                frame(0xc1, b"reserved"),
                frame(0x91, b"reserved"),
                frame(0x83, b"opcode"),
                frame(0x8f, b"opcode"),
                b"\x81\x08unmasked".to_vec(),
                frame(PING, &[b'l'; 126]),
                frame(0x09, b"in fragments"),
                b"\x81\xfe\x00\x05\0\0\0\0short".to_vec(),
                b"\x81\xff\0\0\0\0\0\0\x00\x05\0\0\0\0short".to_vec(),
                b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0large".to_vec(),
                frame(END, b"of nothing"),
                [frame(FIRST, b""), frame(TEXT, b"inside")].concat(),
                frame(CLOSE, b"h"),
            ] {
                let mut stream = open(way, round).await;
                write(&mut stream, &[[&bad[..], &behind].concat()]).await;
                let shown = format!("{way:?} {bad:x?}");
                let (code, reason) = close(&mut stream).await;
                assert_eq!(code, 1002, "{shown} {reason}");
                stopped(round, way, "bad-request", &shown).await;
            }
            write(&mut neighbour, &[frame(TEXT, b"still there?")]).await;
            assert_eq!(message(&mut neighbour).await.1, b"still there?");
        }
        drop(neighbour);
        for recorder in upstreams.watched() {
            closed(recorder).await;
            for (messages, controls) in brought(recorder).into_values() {
                assert_eq!(messages.replace("still there?", ""), "");
                assert!(controls.is_empty(), "{controls:?}");
            }
        }
    });
}

/// What a server must not send.
const BAD: [&[u8]; 7] = [
    b"\x81\x86\0\0\0\0masked",
    b"\xc1\x08reserved",
    b"\x83\x06opcode",
    b"\x89\x7e\x00\x7e",
    b"\x81\x7e\x00\x05short",
    b"\x80\x07nothing",
    b"\x88\x01h",
];

/// An upstream that opens a WebSocket and sends a good message in it, and then the one of [`BAD`] that the path numbers.
fn speaking_badly() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let number = usize::from(head["GET /".len()] - b'0');
            let opened = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            let said = [&opened[..], b"\x81\x04good", BAD[number], b"\x81\x06behind"].concat();
            stream.write_all(&said).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    address
}

#[test]
fn attack_30_an_upstream_whose_frames_are_none_is_told_and_what_it_sends_stays_out() {
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", speaking_badly())
        .start();
    twice(lab, &[], async |round| {
        for way in [Way::Proxy, Way::Transparent] {
            for (number, bad) in BAD.iter().enumerate() {
                let mut stream = way.open(round).await;
                let head = way.head("GET", &format!("/{number}")) + UPGRADE + "\r\n";
                assert_eq!(say(&mut stream, head).await.status, 101);
                assert_eq!(message(&mut stream).await, (TEXT, b"good".to_vec()));
                let (first, text) = hear(&mut stream).await.unwrap();
                assert_eq!(
                    (first, &text[..2]),
                    (CLOSE, &1002_u16.to_be_bytes()[..]),
                    "{bad:x?}"
                );
                assert!(rest(&mut stream).await.is_empty());
                let records = round.recorded_at_least(2).await;
                let reasons: Vec<_> = records.iter().map(|one| one.reason.as_str()).collect();
                assert_eq!(reasons, ["allow-rule", "upstream-unreachable"], "{bad:x?}");
            }
        }
    });
}

#[test]
fn a_websocket_in_a_tunnel_that_is_not_opened_is_left_alone() {
    let upstream = EchoUpstream::start_tls(&["web.test"]).unwrap();
    let lab = Setup::new(&["allow web.test"])
        .tls_upstream("web.test", &upstream)
        .credential("api.test")
        .start();
    run(async {
        let stream = lab.connect("web.test:443").await.unwrap();
        let mut stream = lab.tls(stream, "web.test", &[b"http/1.1"]).await.unwrap();
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let head = format!("GET /ws HTTP/1.1\r\nHost: web.test\r\n{UPGRADE}{offer}\r\n");
        assert_eq!(say(&mut stream, head).await.status, 101);
        let asked = upstream.recorder().requests();
        let offered = asked[0].header("sec-websocket-extensions");
        assert_eq!(offered, Some("permessage-deflate"));
        // With a bit that an extension would give a meaning.
        let text = format!("compressed, says the bit: {PLACEHOLDER}");
        write(&mut stream, &[frame(0xc1, text.as_bytes())]).await;
        assert_eq!(hear(&mut stream).await, Some((0xc1, text.into_bytes())));
    });
}
