//! Signatures by AWS's own library: making them, and making one again to compare it.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_lc_rs::digest;
use aws_sigv4::http_request::{
    PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest, SignatureLocation,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::{self, sign_chunk};
use bytes::Bytes;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

/// The request is signed with another key.
pub(super) const ANOTHER: &str = "another access key id";

/// A key of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret: String,
    /// Session token.
    pub session_token: Option<String>,
}

/// What is signed of a body.
#[derive(Debug, Clone)]
pub enum Covered {
    /// All of it.
    Bytes(Bytes),
    /// This stands for it.
    Named(String),
}

/// A key, and what it signs for.
#[derive(Debug, Clone)]
pub struct Signer<'a> {
    /// Key.
    pub key: &'a Key,
    /// Region.
    pub region: &'a str,
    /// Service.
    pub service: &'a str,
    /// When.
    pub time: SystemTime,
    /// Into the URL, for so long.
    pub presigned: Option<Duration>,
}

/// What a signature adds to a request.
#[derive(Debug, Clone)]
pub struct Added {
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// Parameters of the URL.
    pub parameters: Vec<(String, String)>,
    /// The signature alone.
    pub signature: String,
}

impl Signer<'_> {
    /// Signs a request that has no signature, with every header given. `None`: it cannot be.
    pub fn sign(
        &self,
        method: &str,
        url: &str,
        headers: &[(String, String)],
        covered: &Covered,
    ) -> Option<Added> {
        let body = match covered {
            Covered::Bytes(bytes) => SignableBody::Bytes(bytes),
            Covered::Named(name) => SignableBody::Precomputed(name.clone()),
        };
        let pairs = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let request = SignableRequest::new(method, url, pairs, body).ok()?;
        let identity = self.key.credentials().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(self.settings())
            .build()
            .ok()?
            .into();
        let (instructions, signature) = sign(request, &params).ok()?.into_parts();
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Some(Added {
            headers: instructions.headers().map(own).collect(),
            parameters: instructions
                .params()
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone().into_owned()))
                .collect(),
            signature,
        })
    }

    fn settings(&self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        settings.session_token_mode = SessionTokenMode::Include;
        settings.excluded_headers = None;
        if self.service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        if let Some(time) = self.presigned {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(time);
        }
        settings
    }

    fn chunk(&self, chunk: &[u8], last: &str) -> Option<String> {
        let identity = self.key.credentials().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.time)
            .settings(SigningSettings::default())
            .build()
            .ok()?;
        let signed = sign_chunk(&Bytes::copy_from_slice(chunk), last, &params).ok()?;
        Some(signed.signature().to_owned())
    }
}

/// A body in signed chunks. `seed`: the signature of the head. `None`: it cannot be signed.
pub fn chunked(signer: &Signer<'_>, seed: &str, chunks: &[&[u8]]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut last = seed.to_owned();
    for chunk in chunks.iter().copied().chain([&b""[..]]) {
        last = signer.chunk(chunk, &last)?;
        body.extend_from_slice(format!("{:x};chunk-signature={last}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    Some(body)
}

/// A request whose signature is right.
pub(super) struct Checked {
    pub(super) service: String,
    /// Without the framing of chunks.
    pub(super) body: Bytes,
}

/// What a request shows of its signature.
struct Shown<'a>(&'a Parts);

impl<'a> Shown<'a> {
    fn header(&self, name: &str) -> Option<&'a str> {
        self.0.headers.get(name)?.to_str().ok()
    }

    fn query(&self) -> &'a str {
        self.0.uri.query().unwrap_or_default()
    }

    fn is_presigned(&self) -> bool {
        self.query().contains("X-Amz-Signature=")
    }

    fn authorization(&self) -> Option<&'a str> {
        self.header("authorization")
            .filter(|value| value.starts_with("AWS4"))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self
            .query()
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(found, _)| *found == name)?;
        Some(value.replace("%2F", "/").replace("%3B", ";"))
    }

    fn field(&self, name: &str) -> Option<String> {
        let fields = self.authorization()?.split_once(' ')?.1.split(',');
        let mut fields = fields.filter_map(|field| field.trim().split_once('='));
        let (_, value) = fields.find(|(found, _)| *found == name)?;
        Some(value.to_owned())
    }
}

impl Key {
    fn credentials(&self) -> Credentials {
        let token = self.session_token.clone();
        Credentials::new(&self.access_key_id, &self.secret, token, None, "stand-in")
    }

    /// Signs the request again and compares. `None`: it is not signed.
    pub(super) fn check(
        &self,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Option<Checked>, &'static str> {
        let shown = Shown(parts);
        let (query, presigned) = (shown.query(), shown.is_presigned());
        if shown.authorization().is_none() && !presigned {
            return Ok(None);
        }
        let of = |in_header: &str, in_query: &str| {
            if presigned {
                shown.parameter(in_query)
            } else {
                shown.field(in_header)
            }
        };
        let credential = of("Credential", "X-Amz-Credential").ok_or("no credential")?;
        let names = of("SignedHeaders", "X-Amz-SignedHeaders").ok_or("no signed headers")?;
        let signature = of("Signature", "X-Amz-Signature").ok_or("no signature")?;
        let scope: Vec<&str> = credential.split('/').collect();
        let [id, _, region, service, _] = scope[..] else {
            return Err("bad scope");
        };
        if id != self.access_key_id {
            return Err(ANOTHER);
        }
        let date = if presigned {
            shown.parameter("X-Amz-Date")
        } else {
            shown.header("x-amz-date").map(str::to_owned)
        };
        let expires = shown
            .parameter("X-Amz-Expires")
            .and_then(|text| text.parse().ok());
        let signer = Signer {
            key: self,
            region,
            service,
            time: date.and_then(|date| time(&date)).ok_or("no date")?,
            presigned: presigned.then(|| Duration::from_secs(expires.unwrap_or_default())),
        };
        let covered = match shown.header("x-amz-content-sha256") {
            _ if presigned && service == "s3" => Covered::Named("UNSIGNED-PAYLOAD".to_owned()),
            Some(name) => Covered::Named(name.to_owned()),
            None => Covered::Bytes(body.clone()),
        };
        // What the library adds by itself.
        let added = ["host", "x-amz-date", "x-amz-security-token"];
        let headers: Vec<(String, String)> = names
            .split(';')
            .filter(|name| !added.contains(name))
            .map(|name| Some((name.to_owned(), shown.header(name)?.to_owned())))
            .collect::<Option<_>>()
            .ok_or("a signed header is not there")?;
        let host = shown
            .header(HOST.as_str())
            .or(parts.uri.authority().map(Authority::as_str));
        let rest: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let name = pair.split('=').next().unwrap_or_default();
                !(pair.is_empty() || presigned && name.starts_with("X-Amz-"))
            })
            .collect();
        let question = if rest.is_empty() { "" } else { "?" };
        let url = format!(
            "https://{}{}{question}{}",
            host.ok_or("no host")?,
            parts.uri.path(),
            rest.join("&")
        );
        let again = signer
            .sign(parts.method.as_str(), &url, &headers, &covered)
            .ok_or("cannot be signed")?;
        if again.signature != signature {
            return Err("the signature does not match");
        }
        if !presigned && shown.header("x-amz-security-token") != self.session_token.as_deref() {
            return Err("another session token");
        }
        let body = signer.body(&covered, &signature, body)?;
        Ok(Some(Checked {
            service: service.to_owned(),
            body,
        }))
    }
}

impl Signer<'_> {
    /// What the body means, after it was compared with what was signed.
    fn body(&self, covered: &Covered, seed: &str, body: &Bytes) -> Result<Bytes, &'static str> {
        let Covered::Named(name) = covered else {
            return Ok(body.clone());
        };
        if name == "UNSIGNED-PAYLOAD" {
            return Ok(body.clone());
        }
        if !name.starts_with("STREAMING-") {
            let digest = digest::digest(&digest::SHA256, body);
            let text: String = digest
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            return if text == *name {
                Ok(body.clone())
            } else {
                Err("another body")
            };
        }
        let signed = name == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
        let mut last = seed.to_owned();
        let (mut plain, mut rest) = (Vec::new(), &body[..]);
        loop {
            let end = rest
                .windows(2)
                .position(|pair| pair == b"\r\n")
                .ok_or("no chunk")?;
            let head = std::str::from_utf8(&rest[..end]).map_err(|_| "no chunk")?;
            let (size, signature) = head.split_once(";chunk-signature=").unwrap_or((head, ""));
            let size = usize::from_str_radix(size, 16).map_err(|_| "no size")?;
            let chunk = rest.get(end + 2..end + 2 + size).ok_or("a chunk is cut")?;
            if signed {
                last = self.chunk(chunk, &last).ok_or("cannot be signed")?;
                if last != signature {
                    return Err("the signature of a chunk does not match");
                }
            }
            plain.extend_from_slice(chunk);
            if size == 0 {
                return Ok(plain.into());
            }
            rest = rest.get(end + 4 + size..).ok_or("a chunk is cut")?;
        }
    }
}

/// `YYYYMMDDTHHMMSSZ`.
fn time(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
    let (month, day) = (
        u8::try_from(number(4, 6)?).ok()?,
        u8::try_from(number(6, 8)?).ok()?,
    );
    let year = i32::try_from(number(0, 4)?).ok()?;
    let seconds = number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
    let midnight = SystemTime::from(rcgen::date_time_ymd(year, month, day));
    Some(midnight + Duration::from_secs(u64::from(seconds)))
}
