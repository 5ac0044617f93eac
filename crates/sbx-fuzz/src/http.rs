//! Heads of HTTP requests, as the guest's connections are served.

use hyper::Request;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use sbx_gateway::adapter::guarded::Arrival;
use sbx_gateway::adapter::request;
use sbx_gateway::relay::page;
use sbx_gateway::relay::serve::{serve_h1, serve_h2};
use sbx_policy::{Port, Target};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::gateway::block_on;

/// What a connection carries at most: more than any input.
const ROOM: usize = 1 << 20;

/// As the first byte: HTTP/2 in opened TLS.
const H2: u8 = b'2';
/// What a client of HTTP/2 begins with (RFC 9113, section 3.4): nothing of interest comes before it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte says which door it is, the others are what the guest sends. Whatever request comes out of them names
/// its host in one way, and its path in one form.
pub(crate) fn run(bytes: &[u8]) {
    let Some((door, sent)) = bytes.split_first() else {
        return;
    };
    if *door == H2 {
        return run_h2(sent);
    }
    let door = door % 3;
    let (mut guest, ours) = tokio::io::duplex(ROOM);
    block_on(async {
        let answer = move |request: Request<Incoming>, arrival: Arrival| {
            assert!(arrival.is_in_step(), "the library sees another message");
            let (parts, _) = request.into_parts();
            // What stands in for a refused head is nobody's request.
            if arrival.refused().is_none() {
                look(door, &parts);
            }
            async { Ok(page::bad_request("")) }
        };
        let serving = serve_h1(ours, answer, || ());
        let talking = async {
            // A connection that was closed early is no fault, and one that ended here need not be answered.
            let _ = guest.write_all(sent).await;
            let _ = guest.shutdown().await;
            let _ = guest.read_to_end(&mut Vec::new()).await;
        };
        tokio::join!(serving, talking);
    });
}

fn run_h2(sent: &[u8]) {
    let (mut guest, ours) = tokio::io::duplex(ROOM);
    block_on(async {
        let answer = |request: Request<Incoming>| {
            look(2, &request.into_parts().0);
            async { Ok(page::bad_request("")) }
        };
        let room = Arc::new(Semaphore::new(1));
        let serving = serve_h2(ours, &room, answer, || ());
        let talking = async {
            let _ = guest.write_all(PREFACE).await;
            let _ = guest.write_all(sent).await;
            let _ = guest.shutdown().await;
            let _ = guest.read_to_end(&mut Vec::new()).await;
        };
        tokio::join!(serving, talking);
    });
}

/// What is true of a request that would be judged.
fn look(door: u8, parts: &Parts) {
    if request::check_head(parts).is_err() {
        return;
    }
    let target = match (door, &parts.method) {
        (0, &hyper::Method::CONNECT) => request::connect_target(parts),
        (0, _) => request::proxy_target(parts),
        (1, _) => request::origin_target(parts, Port::HTTP),
        _ => request::origin_target(parts, Port::HTTPS),
    };
    let Ok(target) = target else {
        return;
    };
    let shown = target.to_string();
    assert_eq!(
        Target::parse_authority(&shown, Port::HTTP),
        Ok(target.clone())
    );
    // Nothing that the head says about the host names another one.
    let same = |text: &str| {
        [Port::HTTP, Port::HTTPS].into_iter().any(|port| {
            Target::parse_authority(text, port).is_ok_and(|named| named.host == target.host)
        })
    };
    if let Some(authority) = parts.uri.authority() {
        assert!(same(authority.as_str()), "{shown} is not {authority}");
    }
    if parts.method != hyper::Method::CONNECT {
        for header in parts.headers.get_all("host") {
            assert!(
                same(header.to_str().expect("a host")),
                "{shown} is not {header:?}"
            );
        }
    }
    if let Ok(judged) = request::judged(parts) {
        let path = judged.path.as_str();
        assert!(
            path.starts_with('/') && !path.split('/').any(|s| matches!(s, "." | "..")),
            "{path}"
        );
    }
}
