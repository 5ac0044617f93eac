//! Clients of web services.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use sbx_testkit::{EchoUpstream, TestRoot};

use super::{Job, NAMES, Standin, Town, installed, scripts};

/// First line of the page that a denied client gets.
const PAGE: &str = "Blocked by network policy: domain ";

/// A large body each way.
#[track_caller]
fn curl(option: &str, version: &str) {
    let upstream = EchoUpstream::start_tls(&NAMES).unwrap();
    let script = format!(
        "set -e
         curl -sS {option} -o body -w 'HTTP/%{{http_version}} %{{http_code}} ' https://$1/big?size=1000000
         if [ $(wc -c < body) != 1000000 ]; then cat body; exit 22; fi
         head -c 3000000 /dev/zero | curl -sS {option} -T - https://$1/upload"
    );
    Town::of(&upstream).do_job(&Job {
        script: &script,
        wants: &format!("HTTP/{version} 200 {{\"received\":3000000}}"),
        refusal: PAGE,
        nowhere: "Could not resolve host",
    });
}

#[test]
fn curl_downloads_and_uploads_over_http1() {
    curl("--http1.1", "1.1");
}

#[test]
fn curl_downloads_and_uploads_over_http2() {
    curl("--http2", "2");
}

#[test]
fn python_requests_gets_answers_and_readable_refusals() {
    let upstream = EchoUpstream::start_tls(&NAMES).unwrap();
    Town::of(&upstream).do_job(&Job {
        script: "$CLIENTS/python/bin/python $SCRIPTS/fetch_requests.py https://$1/echo",
        wants: "200 {\"body\":\"posted\"",
        refusal: PAGE,
        nowhere: "NameResolutionError",
    });
}

#[test]
fn python_httpx_speaks_http2_and_gets_readable_refusals() {
    let upstream = EchoUpstream::start_tls(&NAMES).unwrap();
    Town::of(&upstream).do_job(&Job {
        script: "$CLIENTS/python/bin/python $SCRIPTS/fetch_httpx.py https://$1/echo",
        wants: "HTTP/2 200 {\"body\":\"posted\"",
        refusal: PAGE,
        nowhere: "ConnectError",
    });
}

#[test]
fn node_fetch_gets_answers_and_readable_refusals() {
    let upstream = EchoUpstream::start_tls(&NAMES).unwrap();
    Town::of(&upstream).do_job(&Job {
        script: "ln -s $CLIENTS/node/node_modules && cp $SCRIPTS/fetch.mjs . && node fetch.mjs https://$1/echo",
        wants: "200 {\"body\":\"posted\"",
        refusal: PAGE,
        nowhere: "ENOTFOUND",
    });
}

#[test]
fn a_websocket_client_echoes_pings_and_closes() {
    let upstream = EchoUpstream::start_tls(&NAMES).unwrap();
    Town::of(&upstream).do_job(&Job {
        script: "$CLIENTS/python/bin/python $SCRIPTS/websocket.py wss://$1/ws",
        wants: "5000000 bytes, pong, closed with 1000 and 4321",
        refusal: PAGE,
        nowhere: "gaierror",
    });
}

#[test]
fn grpc_calls_streams_statuses_and_trailers_pass() {
    let root = TestRoot::new("gRPC root").unwrap();
    let (certificate, key) = root.leaf_pem(&NAMES).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut server = Command::new(installed().join("python/bin/python"))
        .arg(scripts().join("grpc_server.py"))
        .arg(write("key", &key))
        .arg(write("certificate", &certificate))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let stdout = server.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut port).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.trim().parse().unwrap()));
    let town = Town::of(Standin::program(address, root.pem()));
    town.do_job(&Job {
        script: "$CLIENTS/python/bin/python $SCRIPTS/grpc_client.py $1:443",
        wants: "hello you, trailer kept, FAILED_PRECONDITION as asked, echo 0 echo 1 echo 2 end",
        refusal: "StatusCode.PERMISSION_DENIED",
        nowhere: "StatusCode.UNAVAILABLE",
    });
    // Its input ends, and so does it.
    drop(server.stdin.take());
    server.wait().unwrap();
}
