//! What AWS's own library signs is verified, and what is signed anew is what that library would have signed with the
//! real key.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
    SignatureLocation, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use proptest::prelude::*;
use sbx_credentials::sigv4::Timestamp;

use super::{DATE, ID, REAL_ID, REAL_SECRET, Request, SECRET, Trial, keys};

pub(crate) fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(Timestamp::parse(DATE).unwrap().seconds())
}

/// What the library makes of a request that has no signature.
#[derive(Clone, Copy)]
pub(crate) struct Library<'a> {
    pub(crate) key: (&'a str, &'a str, Option<&'a str>),
    pub(crate) service: &'a str,
    pub(crate) presigned: bool,
}

impl Library<'_> {
    pub(crate) fn sign(&self, request: &Request, body: SignableBody<'_>) -> Request {
        let (id, secret, token) = self.key;
        let identity = Credentials::new(id, secret, token.map(str::to_owned), None, "test").into();
        let mut settings = SigningSettings::default();
        settings.session_token_mode = SessionTokenMode::Include;
        if self.service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            if !self.presigned {
                settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            }
        }
        if self.presigned {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(Duration::from_mins(15));
        }
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(self.service)
            .time(time())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let query = request
            .query
            .as_ref()
            .map_or_else(String::new, |query| format!("?{query}"));
        let url = format!("https://{}{}{query}", request.host, request.path);
        let headers = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        let signable = SignableRequest::new(request.method, &url, headers, body).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let mut signed = http::Request::builder()
            .method(request.method)
            .uri(&url)
            .body(())
            .unwrap();
        *signed.headers_mut() = request.headers.clone();
        instructions.apply_to_request_http1x(&mut signed);
        let (parts, ()) = signed.into_parts();
        Request {
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
            ..request.clone()
        }
    }
}

fn request() -> impl Strategy<Value = Request> {
    let segment = prop_oneof![
        "[a-zA-Z0-9._~-]{1,12}",
        "[a-z]{0,3}(%20|%2F|%E2%82%AC|%3A|%25|%2B)[a-z]{0,3}",
    ];
    let path =
        prop::collection::vec(segment, 0..5).prop_map(|parts| format!("/{}", parts.join("/")));
    let value = "([a-zA-Z0-9._~-]|%20|%2F|%3D|%26|%2B|%C3%A9){0,8}";
    let query = prop::collection::vec(("[a-zA-Z][a-zA-Z0-9-]{0,6}", value), 0..5);
    let query = query.prop_map(|pairs| {
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("&"))
    });
    let header = ("x-[a-z]{1,8}", "[!-~]( {0,3}[!-~]){0,6}");
    let headers = prop::collection::vec(header, 0..5);
    let method = prop::sample::select(vec!["GET", "PUT", "POST", "DELETE"]);
    let body = prop::collection::vec(any::<u8>(), 0..64);
    (method, path, query, headers, body).prop_map(|(method, path, query, headers, body)| {
        let mut headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        headers.sort_unstable();
        headers.dedup_by_key(|(name, _)| *name);
        headers.push(("user-agent", "not signed"));
        let mut request = Request::new(method, "https://placeholder.test/", &headers);
        (request.path, request.query, request.body) = (path, query, body);
        request
    })
}

proptest! {
    #[test]
    fn what_the_library_signs_is_verified_and_signed_anew_as_by_the_library(
        mut request in request(),
        s3 in any::<bool>(),
        presigned in any::<bool>(),
        token in prop::option::of("[a-zA-Z0-9/+=]{20}"),
    ) {
        let (service, host) = if s3 {
            ("s3", "bucket.s3.us-east-1.amazonaws.com")
        } else {
            ("bedrock", "bedrock-runtime.us-east-1.amazonaws.com")
        };
        request.host = host.to_owned();
        let body = request.body.clone();
        let covered = || {
            if presigned && s3 { SignableBody::UnsignedPayload } else { SignableBody::Bytes(&body) }
        };
        let library = |key| Library { key, service, presigned };
        let mut signed = library((ID, SECRET, None)).sign(&request, covered());
        let wanted = library((REAL_ID, REAL_SECRET, token.as_deref())).sign(&request, covered());
        let mut trial = Trial::at(host, DATE);
        trial.keys = keys(REAL_ID, REAL_SECRET, token.as_deref());
        signed.sign_anew(&trial).unwrap();
        if presigned {
            let parameters = |request: &Request| {
                let query = request.query.clone().unwrap_or_default();
                let mut pairs: Vec<String> = query.split('&').map(str::to_owned).collect();
                pairs.sort();
                pairs
            };
            prop_assert_eq!(parameters(&signed), parameters(&wanted));
        } else {
            prop_assert_eq!(signed.authorization().replace(' ', ""), wanted.authorization().replace(' ', ""));
            prop_assert_eq!(&signed.headers, &wanted.headers);
        }
    }
}
