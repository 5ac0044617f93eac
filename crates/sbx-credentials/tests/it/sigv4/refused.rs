//! What is not signed anew.

use http::HeaderMap;
use proptest::prelude::*;
use sbx_credentials::sigv4::{Claim, Payload, Refusal};

use super::library::Library;
use super::{DATE, ID, Request, SECRET, Trial, placeholder};
use aws_sigv4::http_request::SignableBody;

const HOST: &str = "bedrock-runtime.us-east-1.amazonaws.com";

fn signed_for(service: &str, host: &str) -> Request {
    let url = format!("https://{host}/model/m/invoke?a=b");
    let mut request = Request::new("POST", &url, &[("content-type", "application/json")]);
    request.body = b"{}".to_vec();
    let library = Library {
        key: (ID, SECRET, None),
        service,
        presigned: false,
    };
    library.sign(&request, SignableBody::Bytes(b"{}"))
}

fn signed() -> Request {
    signed_for("bedrock", HOST)
}

fn refusal(request: &Request) -> Refusal {
    request.verify(&Trial::at(HOST, DATE)).unwrap_err()
}

#[test]
fn every_change_of_what_is_signed_is_noticed() {
    signed().verify(&Trial::at(HOST, DATE)).unwrap();
    let changes: [fn(&mut Request); 7] = [
        |request| request.method = "PUT",
        |request| request.path.push('x'),
        |request| request.query = Some("a=c".into()),
        |request| request.query = Some("a=b&c".into()),
        |request| request.host = "bedrock-runtime.us-west-2.amazonaws.com".into(),
        |request| request.set("content-type", "text/plain"),
        |request| request.body.push(b' '),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut request = signed();
        change(&mut request);
        assert_eq!(refusal(&request), Refusal::Mismatch, "{index}");
    }
    let mut trial = Trial::at(HOST, DATE);
    trial.placeholder = placeholder(ID, "another secret");
    assert_eq!(signed().verify(&trial).unwrap_err(), Refusal::Mismatch);
    trial.placeholder = placeholder("AKIAANOTHER", SECRET);
    assert_eq!(signed().verify(&trial).unwrap_err(), Refusal::OtherKey);
}

#[test]
fn a_time_that_is_not_the_gateway_s_is_refused() {
    for (seconds, fits) in [(-901_i64, false), (-900, true), (900, true), (901, false)] {
        let mut trial = Trial::at(HOST, DATE);
        trial.now = trial.now.checked_add_signed(seconds).unwrap();
        let result = signed().verify(&trial);
        assert_eq!(result.is_ok(), fits, "{seconds}");
        if let Err(error) = result {
            assert_eq!(error.code(), "RequestTimeTooSkewed");
        }
    }
}

#[test]
fn a_signature_for_another_place_than_the_host_s_is_refused() {
    for host in [
        "bedrock-runtime.us-west-2.amazonaws.com",
        "s3.us-east-1.amazonaws.com",
        "sts.amazonaws.com",
    ] {
        let error = signed().verify(&Trial::at(host, DATE)).unwrap_err();
        assert!(matches!(error, Refusal::Scope { .. }), "{host}: {error}");
    }
    let error = signed().verify(&Trial::at("proxy.test", DATE)).unwrap_err();
    assert!(matches!(error, Refusal::UnknownHost(_)), "{error}");
}

#[test]
fn what_must_be_signed_and_is_not_is_refused() {
    let mut request = signed();
    request.set("x-amz-meta-more", "1");
    assert!(matches!(refusal(&request), Refusal::Malformed(_)));
    let mut request = signed();
    request.headers.remove("content-type");
    assert!(matches!(refusal(&request), Refusal::Malformed(_)));
    let text = signed().authorization().replace(";host", "");
    let mut request = signed();
    request.set("authorization", &text);
    assert!(matches!(refusal(&request), Refusal::Malformed(_)), "{text}");
}

#[test]
fn ways_to_sign_that_are_not_supported_are_named() {
    let of = |headers: &[(&str, &str)], query: &str| {
        let url = format!("https://{HOST}/?{query}");
        Claim::of(&Request::new("GET", &url, headers).head())
    };
    for (headers, query) in [
        (
            &[("authorization", "AWS4-ECDSA-P256-SHA256 Credential=a")][..],
            "",
        ),
        (&[("authorization", "AWS AKIDEXAMPLE:c2lnbmF0dXJl")], ""),
        (
            &[("authorization", "AWS3-HTTPS AWSAccessKeyId=AKIDEXAMPLE")],
            "",
        ),
        (&[], "AWSAccessKeyId=AKIDEXAMPLE&Signature=a&Expires=1"),
        (
            &[],
            "X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256&X-Amz-Signature=00",
        ),
    ] {
        let error = of(headers, query).unwrap_err();
        assert!(matches!(error, Refusal::Unsupported(_)), "{error}");
    }
    for (headers, query) in [
        (&[][..], ""),
        (&[("authorization", "Bearer token")][..], "Signature=a"),
        (&[("authorization", "Basic dXNlcjpwYXNz")][..], ""),
    ] {
        assert!(of(headers, query).unwrap().is_none(), "{headers:?}");
    }
}

#[test]
fn what_has_no_single_meaning_is_refused() {
    let good = signed().authorization().to_owned();
    let replaced = |from: &str, to: &str| {
        let text = good.replace(from, to);
        assert_ne!(text, good, "{from}");
        text
    };
    let repeated = format!("{good}, Signature={}", "0".repeat(64));
    for text in [
        replaced("Credential=", "credential="),
        replaced("SignedHeaders", "Signed"),
        replaced("content-type;host", "host;content-type"),
        replaced("content-type;host", "content-type;content-type;host"),
        replaced("host;", "Host;"),
        replaced("host;", "host;;"),
        replaced("/bedrock/", "/bedrock/x/"),
        replaced("/20150830/", "/2015083/"),
        replaced("AKIDEXAMPLE/", "/"),
        replaced("Signature=", "Signature=0"),
        repeated,
    ] {
        let mut request = signed();
        request.set("authorization", &text);
        assert!(matches!(refusal(&request), Refusal::Malformed(_)), "{text}");
    }
    let mut request = signed();
    request.set("authorization", &replaced("/20150830/", "/20150831/"));
    assert!(matches!(refusal(&request), Refusal::Malformed(_)));
    let mut request = signed();
    let value = request.headers["authorization"].clone();
    request.headers.append("authorization", value);
    assert!(matches!(refusal(&request), Refusal::Malformed(_)));
    let mut request = signed();
    request.query = Some("X-Amz-Algorithm=AWS4-HMAC-SHA256".into());
    assert!(matches!(refusal(&request), Refusal::Malformed(_)));
}

#[test]
fn bodies_that_are_not_covered_pass_to_s3_alone_and_over_tls_alone() {
    let bucket = "bucket.s3.us-east-1.amazonaws.com";
    let payload = |service: &str, host: &str, content: &str, tls: bool| {
        let mut request = signed_for(service, host);
        request.headers.remove("x-amz-content-sha256");
        let claim = Claim::of(&request.head()).ok().flatten();
        let claim = claim.unwrap_or_else(|| {
            Claim::of(&signed_for("bedrock", HOST).head())
                .unwrap()
                .unwrap()
        });
        request.set("x-amz-content-sha256", content);
        let endpoint = sbx_credentials::sigv4::Endpoint::of(host).unwrap();
        claim.payload(&endpoint, &request.head(), tls)
    };
    for content in ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
        payload("s3", bucket, content, true).unwrap();
        payload("s3", bucket, content, false).unwrap_err();
        payload("bedrock", HOST, content, true).unwrap_err();
    }
    for content in [
        "STREAMING-AWS4-HMAC-SHA256-EVENTS",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        "none",
        "",
    ] {
        payload("s3", bucket, content, true).unwrap_err();
    }
    // A presigned URL need not say that it leaves the body out.
    let presigned = |header: Option<(&'static str, &str)>, tls: bool| {
        let request = Request::new("PUT", &format!("https://{bucket}/key"), &[]);
        let library = Library {
            key: (ID, SECRET, None),
            service: "s3",
            presigned: true,
        };
        let mut request = library.sign(&request, SignableBody::UnsignedPayload);
        if let Some((name, value)) = header {
            request.set(name, value);
        }
        let claim = Claim::of(&request.head()).unwrap().unwrap();
        let endpoint = sbx_credentials::sigv4::Endpoint::of(bucket).unwrap();
        claim.payload(&endpoint, &request.head(), tls)
    };
    for body in [("content-length", "2"), ("transfer-encoding", "chunked")] {
        assert_eq!(presigned(Some(body), true), Ok(Payload::Unsigned));
        let refused = presigned(Some(body), false).unwrap_err();
        assert!(matches!(refused, Refusal::Unsupported(_)), "{refused}");
    }
    for none in [None, Some(("content-length", "0"))] {
        assert_eq!(presigned(none, false), Ok(Payload::Unsigned));
    }
}

#[test]
fn a_token_of_the_guest_does_not_go_on() {
    let mut request = Request::new("GET", &format!("https://{HOST}/"), &[]);
    let library = Library {
        key: (ID, SECRET, Some("the guest's")),
        service: "bedrock",
        presigned: false,
    };
    request = library.sign(&request, SignableBody::Bytes(b""));
    request.sign_anew(&Trial::at(HOST, DATE)).unwrap();
    let text = format!("{:?}", request.headers);
    assert!(!text.contains("the guest's"), "{text}");
    assert!(
        !request.authorization().contains("token"),
        "{}",
        request.authorization()
    );
}

proptest! {
    #[test]
    fn no_text_in_the_place_of_a_signature_breaks_anything(
        text in "(AWS4-HMAC-SHA256 )?[ -~]{0,80}",
        query in "(X-Amz-[A-Za-z]{0,12}=[ -~]{0,10}&){0,4}",
    ) {
        let mut request = signed();
        request.set("authorization", &text);
        request.query = Some(query);
        prop_assert!(request.verify(&Trial::at(HOST, DATE)).is_err());
        request.headers = HeaderMap::new();
        let _ = Claim::of(&request.head());
    }
}
