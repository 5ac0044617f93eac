//! Signatures of AWS: what a request says about its own, bodies in signed chunks, and what STS answers.

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use sbx_credentials::sigv4::{
    Chunks, Claim, Digest, Endpoint, Head, Keys, LIFE_S, MAX_SKEW, Payload, Placeholder, Refusal,
    Session, Verified, issuing,
};

/// 2015-08-30T12:36:00Z, the time of the corpus.
const NOW: u64 = 1_440_938_160;
/// What the corpus is signed with, which is the key of AWS's published examples.
const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REAL_ID: &str = "AKIAREALREALREALREAL";
const REAL_SECRET: &str = "real/real+realrealrealrealrealrealreal00";
/// The head in front of a body in signed chunks.
const CHUNKED: &[u8] = b"PUT /chunked\n\
content-encoding: aws-chunked\n\
host: bucket.s3.eu-west-1.amazonaws.com\n\
x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\n\
x-amz-date: 20150830T123600Z\n\
x-amz-decoded-content-length: 11\n\
authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-west-1/s3/aws4_request, SignedHeaders=content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length, Signature=c9dd566f524eeb75b0fbbb503abbff88d208c535fff83029d27f4dd69c84c1b8\n\n";

/// The first byte says what the others are: chunks, an answer of STS, or a request.
pub(crate) fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((b'c', body)) => chunks(body),
        Some((b's', answer)) => session(&String::from_utf8_lossy(answer)),
        Some((_, request)) => head(request),
        None => {}
    }
}

/// A request: method and URL in the first line, headers up to an empty one, body.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    host: &'a str,
    headers: HeaderMap,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let mut lines = std::str::from_utf8(&bytes[..end]).ok()?.lines();
        let (method, url) = lines.next()?.split_once(' ')?;
        let (path, query) = match url.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (url, None),
        };
        let mut headers = HeaderMap::new();
        let mut host = "";
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            if name == "host" {
                host = value;
            }
            headers.append(name, HeaderValue::from_str(value).ok()?);
        }
        let body = &bytes[end + 2..];
        Some(Self {
            method,
            path,
            query,
            host,
            headers,
            body,
        })
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: self.method,
            path: self.path,
            query: self.query,
            host: self.host,
            headers: &self.headers,
        }
    }
}

fn holder(id: &str, secret: &str) -> Placeholder {
    Placeholder {
        access_key_id: id.to_owned(),
        secret: secret.to_owned().into(),
    }
}

/// As the gateway does it; what that gives, and what covers the body.
fn verify(head: &Head<'_>, body: &[u8], holder: &Placeholder) -> Result<Option<Verified>, Refusal> {
    let Some(claim) = Claim::of(head)? else {
        return Ok(None);
    };
    let endpoint = Endpoint::of(head.host)?;
    claim.check(&endpoint, holder, NOW)?;
    let payload = claim.payload(&endpoint, head, true)?;
    let digest = Digest::of(body);
    if let Payload::Digest(named) = payload
        && named != digest
    {
        return Err(Refusal::OtherBody);
    }
    let verified = claim.verify(&endpoint, head, payload, Some(digest), holder)?;
    Ok(Some(verified))
}

/// What is verified is of one key, and what is made of it is as good with the other one and shows nothing of the first.
fn head(bytes: &[u8]) {
    let Some(request) = Request::parse(bytes) else {
        return;
    };
    let head = request.head();
    if let Ok(endpoint) = Endpoint::of(request.host) {
        assert!(!endpoint.region().is_empty() && !endpoint.service().is_empty());
        if issuing(&endpoint, &head, b"").is_some() {
            // A body makes no call of another kind of it.
            assert!(issuing(&endpoint, &head, request.body).is_some());
        }
    }
    let guest = holder(ID, SECRET);
    let Ok(Some(verified)) = verify(&head, request.body, &guest) else {
        return;
    };
    let another = verify(&head, request.body, &holder(ID, REAL_SECRET));
    assert_eq!(another.err(), Some(Refusal::Mismatch));
    let keys = Keys::parse(&format!("{REAL_ID}:{REAL_SECRET}")).expect("a key");
    let mut headers = request.headers.clone();
    let none = HeaderMap::new();
    let bare = Head {
        headers: &none,
        ..head
    };
    let signed = verified.sign(&bare, &mut headers, &keys, None);
    let again = Head {
        headers: &headers,
        query: signed.query.as_deref().or(head.query),
        ..head
    };
    let real = holder(REAL_ID, REAL_SECRET);
    let found = verify(&again, request.body, &real);
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
    // What the guest writes of its own key where no signature is stays as it is.
    for value in headers.get_all(AUTHORIZATION) {
        let text = String::from_utf8_lossy(value.as_bytes());
        assert!(!text.contains(ID), "{text}");
    }
    let query = signed.query.as_deref().unwrap_or_default();
    let mut credentials = query
        .split('&')
        .filter(|pair| pair.starts_with("X-Amz-Credential="));
    assert!(!credentials.any(|pair| pair.contains(ID)), "{query}");
}

fn begun() -> Chunks {
    let request = Request::parse(CHUNKED).expect("a request");
    let verified = verify(&request.head(), b"", &holder(ID, SECRET));
    let verified = verified.expect("a signature").expect("a signature");
    let keys = Keys::parse(&format!("{REAL_ID}:{REAL_SECRET}")).expect("a key");
    let mut headers = request.headers.clone();
    let none = HeaderMap::new();
    let bare = Head {
        headers: &none,
        ..request.head()
    };
    let signed = verified.sign(&bare, &mut headers, &keys, None);
    signed.chunks.expect("chunks")
}

/// The first byte says in which pieces the body comes. In whatever pieces, the same comes out, and no more than went in.
fn chunks(bytes: &[u8]) {
    let Some((size, body)) = bytes.split_first() else {
        return;
    };
    let in_pieces = passed(body, usize::from(*size).max(1));
    let whole = passed(body, usize::MAX);
    assert_eq!(in_pieces.1, whole.1);
    if whole.1.is_none() {
        assert_eq!(in_pieces.0, whole.0);
        assert_eq!(whole.0.len(), body.len());
    }
}

fn passed(body: &[u8], size: usize) -> (Vec<u8>, Option<sbx_credentials::sigv4::ChunkError>) {
    let mut chunks = begun();
    let mut out = Vec::new();
    for piece in body.chunks(size) {
        match chunks.push(piece) {
            Ok(passed) => out.extend_from_slice(&passed),
            Err(error) => return (out, Some(error)),
        }
        assert!(out.len() <= body.len());
    }
    let end = chunks.finish().err();
    (out, end)
}

/// What is taken for a key has an end, and stands whole in what programs are told.
fn session(answer: &str) {
    assert!(Session::of_answer(403, answer, NOW).is_err());
    let Ok(session) = Session::of_answer(200, answer, NOW) else {
        return;
    };
    assert!(session.end_s() > NOW && session.end_s() <= NOW + LIFE_S + MAX_SKEW);
    let document = session.document();
    let told: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(told["AccessKeyId"], session.access_key_id());
    for name in ["SecretAccessKey", "Token", "Expiration"] {
        let text = told[name].as_str().expect("a text");
        assert!(answer.contains(text), "{name}");
    }
}
