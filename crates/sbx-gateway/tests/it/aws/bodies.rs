//! Bodies that are not what was signed.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sbx_testkit::aws::chunked;
use tokio::io::AsyncWriteExt;

use super::{BEDROCK, BUCKET, Call, town};
use crate::lab::{h1, run, text};

/// The answer, or none if the connection broke off.
async fn answer(
    lab: &crate::lab::Lab,
    host: &str,
    request: Request<Full<Bytes>>,
) -> Option<(u16, String)> {
    let stream = lab.connect(&format!("{host}:443")).await.unwrap();
    let stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
    let answer = h1(stream).await.send_request(request).await;
    match answer {
        Ok(answer) => Some(text(answer).await),
        Err(_) => None,
    }
}

#[test]
fn a_body_that_streams_and_is_another_one_never_arrives_whole() {
    let (standin, lab) = town(None);
    for size in [10, 70_000, 3_000_000] {
        let call = Call::new("PUT", BUCKET, "/key", "s3")
            .body(vec![b'a'; size])
            .hashed();
        let (request, _) = call.sign();
        let mut other = vec![b'a'; size];
        other[size - 1] = b'b';
        let request = request.map(|_| Full::new(other.into()));
        run(async {
            let (status, text) = answer(&lab, BUCKET, request).await.unwrap();
            assert_eq!(status, 403, "{text}");
            assert!(text.contains("XAmzContentSHA256Mismatch"), "{text}");
            lab.one_record("aws-signature", BUCKET).await;
            lab.forget_records();
        });
    }
    // The stand-in writes a request down when it has read it to its end.
    assert!(standin.recorder().requests().is_empty());
}

#[test]
fn a_chunk_with_another_signature_ends_the_body() {
    let (standin, lab) = town(None);
    let call = Call::new("PUT", BUCKET, "/streamed", "s3")
        .with("content-encoding", "aws-chunked")
        .with("x-amz-decoded-content-length", "200000")
        .named("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let (request, seed) = call.sign();
    let part = vec![b'a'; 100_000];
    let mut body = chunked(&call.signer(), &seed, &[&part, &part]).unwrap();
    body[150_000] = b'b';
    let request = request.map(|_| body.into());
    run(async {
        let (status, text) = answer(&lab, BUCKET, request).await.unwrap();
        assert_eq!(status, 403, "{text}");
        assert!(text.contains("SignatureDoesNotMatch"), "{text}");
        lab.one_record("aws-signature", BUCKET).await;
    });
    assert!(standin.recorder().requests().is_empty());
}

#[test]
fn a_body_that_has_to_be_held_has_a_bound() {
    let (standin, lab) = town(None);
    run(async {
        let fits =
            Call::new("POST", BEDROCK, "/model/m/converse", "bedrock").body(vec![b'a'; 10 << 20]);
        assert_eq!(fits.send(&lab).await.0, 200);
        let call =
            Call::new("POST", BEDROCK, "/model/m/converse", "bedrock")
                .body(vec![b'a'; (10 << 20) + 1]);
        let (request, _) = call.sign();
        let answered = answer(&lab, BEDROCK, request).await;
        // The client may find its connection closed before it reads why.
        if let Some((status, text)) = answered {
            assert_eq!(status, 413, "{text}");
        }
        lab.one_record("aws-signature", BEDROCK).await;
    });
    assert_eq!(standin.recorder().requests().len(), 1);
}

#[test]
fn what_finds_no_room_to_be_held_waits_until_another_body_has_gone() {
    const MIB: usize = 1 << 20;
    let (standin, lab) = town(None);
    run(async {
        let call = Call::new("POST", BEDROCK, "/model/m/converse", "bedrock").body("{}");
        let mut held = Vec::new();
        // Together 64 MiB.
        for announced in [10, 10, 10, 10, 10, 10, 4] {
            let stream = lab.connect(&format!("{BEDROCK}:443")).await.unwrap();
            let mut stream = lab.tls(stream, BEDROCK, &[b"http/1.1"]).await.unwrap();
            let (request, _) = call.sign();
            let mut head = format!("POST {} HTTP/1.1\r\n", request.uri());
            head += &format!("Content-Length: {}\r\n", announced * MIB);
            for (name, value) in request.headers() {
                head += &format!("{name}: {}\r\n", value.to_str().unwrap());
            }
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
            // More than the buffers between take: what is written has been read in part.
            stream.write_all(&vec![b'a'; 3 * MIB]).await.unwrap();
            held.push(stream);
        }
        let mut waits = std::pin::pin!(call.send(&lab));
        let limit = Duration::from_secs(1);
        assert!(tokio::time::timeout(limit, &mut waits).await.is_err());
        assert!(standin.recorder().requests().is_empty());
        drop(held.pop());
        assert_eq!(waits.await.0, 200);
    });
}

#[test]
fn what_is_held_is_compared_with_the_digest_in_the_head() {
    let (standin, lab) = town(None);
    run(async {
        let call = Call::new("POST", BEDROCK, "/model/m/converse", "bedrock")
            .body("{}")
            .hashed();
        assert_eq!(call.send(&lab).await.0, 200);
        let (request, _) = call.sign();
        let request = request.map(|_| Full::from("[]"));
        let (status, text) = answer(&lab, BEDROCK, request).await.unwrap();
        assert_eq!(status, 403, "{text}");
        assert!(text.contains("XAmzContentSHA256Mismatch"), "{text}");
    });
    assert_eq!(standin.recorder().requests().len(), 1);
}
