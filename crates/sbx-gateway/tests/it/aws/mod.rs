//! AWS: what is signed with a placeholder arrives signed with the real key, or not at all. The stand-in verifies with
//! AWS's own library, and requests are signed by it here.
//!
//! The hosts are those of AWS, because a host says which region and service a request is signed for; overrides lead each
//! of them to the stand-in on loopback.

mod bodies;
mod calls;
pub(crate) mod endpoints;
pub(crate) mod handing_in;
mod refusals;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sbx_testkit::AwsStandIn;
use sbx_testkit::aws::{Covered, Key, Signer};
use sbx_wire::gateway::{Aws, Credential};
use sbx_wire::secret::SecretText;

use crate::lab::{Lab, Setup, anthropic, h1, send, text};

pub(crate) const REGION: &str = "eu-west-1";
pub(crate) const BUCKET: &str = "bucket.s3.eu-west-1.amazonaws.com";
pub(crate) const STS: &str = "sts.eu-west-1.amazonaws.com";
pub(crate) const BEDROCK: &str = "bedrock-runtime.eu-west-1.amazonaws.com";
pub(crate) const IAM: &str = "iam.amazonaws.com";
const ECR: &str = "api.ecr.eu-west-1.amazonaws.com";
const ECR_PUBLIC: &str = "api.ecr-public.us-east-1.amazonaws.com";
const CODEARTIFACT: &str = "codeartifact.eu-west-1.amazonaws.com";
const PORTAL: &str = "portal.sso.eu-west-1.amazonaws.com";
const OIDC: &str = "oidc.eu-west-1.amazonaws.com";
const COGNITO: &str = "cognito-identity.eu-west-1.amazonaws.com";
const CLUSTER: &str = "ab12.gr7.eu-west-1.eks.amazonaws.com";
const NAMES: [&str; 11] = [
    BUCKET,
    STS,
    BEDROCK,
    IAM,
    ECR,
    ECR_PUBLIC,
    CODEARTIFACT,
    PORTAL,
    OIDC,
    COGNITO,
    CLUSTER,
];

/// What the service knows.
pub(crate) fn real(token: Option<&str>) -> Key {
    let kind = if token.is_some() { "ASIA" } else { "AKIA" };
    Key {
        access_key_id: format!("{kind}REALREALREALREAL"),
        secret: "real/realrealrealrealrealrealrealreal+01".to_owned(),
        session_token: token.map(str::to_owned),
    }
}

/// What the guest knows.
pub(crate) fn placeholder() -> Key {
    Key {
        access_key_id: "AKIAPLACEHOLDER00001".to_owned(),
        secret: "placeholder0placeholder0placeholder0plac".to_owned(),
        session_token: None,
    }
}

pub(crate) fn credential(real: &Key) -> Credential {
    let placeholder = placeholder();
    Credential {
        service: "aws".to_owned(),
        hosts: vec!["**.amazonaws.com".to_owned()],
        header: String::new(),
        format: String::new(),
        placeholder: placeholder.secret,
        value: SecretText::new(stored(real)),
        aws: Some(Aws {
            placeholder_id: placeholder.access_key_id,
            handed_in: None,
            scope: None,
        }),
        ..anthropic("unused.test")
    }
}

/// As the daemon sends it.
pub(crate) fn stored(real: &Key) -> String {
    let token = real.session_token.iter().map(|token| format!(":{token}"));
    let (id, secret) = (&real.access_key_id, &real.secret);
    format!("{id}:{secret}{}", token.collect::<String>())
}

/// A gateway before the stand-in, with a key of AWS.
pub(crate) fn town(token: Option<&str>) -> (AwsStandIn, Lab) {
    let (standin, setup) = setup(token);
    let credential = credential(&real(token));
    (standin, setup.bind(credential).start())
}

pub(crate) fn setup(token: Option<&str>) -> (AwsStandIn, Setup) {
    setup_at(token, &NAMES)
}

/// The stand-in at these names, which rules allow.
pub(crate) fn setup_at(token: Option<&str>, names: &[&str]) -> (AwsStandIn, Setup) {
    let standin = AwsStandIn::start(real(token), names).unwrap();
    let allowed: Vec<String> = names.iter().map(|name| format!("allow {name}")).collect();
    let mut rules: Vec<&str> = allowed.iter().map(String::as_str).collect();
    rules.extend(["allow **.amazonaws.com", "allow other.test"]);
    let mut setup = Setup::new(&rules);
    for name in names {
        setup = setup.send_to(&format!("{name}:443"), standin.address());
    }
    let root = standin.root_pem().to_owned();
    setup.file.upstream.extra_roots_pem.push(root);
    (standin, setup)
}

/// A request to be signed by the guest.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: &'static str,
    host: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    service: &'static str,
    region: &'static str,
    covered: Option<&'static str>,
    presigned: bool,
    key: Key,
    time: SystemTime,
}

impl Call {
    pub(crate) fn new(
        method: &'static str,
        host: &'static str,
        path: &str,
        service: &'static str,
    ) -> Self {
        let region = if [IAM, ECR_PUBLIC].contains(&host) {
            "us-east-1"
        } else {
            REGION
        };
        Self {
            method,
            host,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            service,
            region,
            covered: None,
            presigned: false,
            key: placeholder(),
            time: SystemTime::now(),
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With its digest, or what stands for it, in the head, as S3 wants it.
    pub(crate) fn named(self, text: &str) -> Self {
        let mut call = self.with("x-amz-content-sha256", text);
        call.covered = Some("named");
        call
    }

    pub(crate) fn hashed(self) -> Self {
        let digest = sbx_credentials::sigv4::Digest::of(&self.body).to_string();
        self.named(&digest)
    }

    pub(crate) fn signer(&self) -> Signer<'_> {
        Signer {
            key: &self.key,
            region: self.region,
            service: self.service,
            time: self.time,
            presigned: self.presigned.then(|| Duration::from_mins(5)),
        }
    }

    /// Signs, and gives the request with the signature alone.
    pub(crate) fn sign(&self) -> (Request<Full<Bytes>>, String) {
        let url = format!("https://{}{}", self.host, self.path);
        let named = self
            .headers
            .iter()
            .find(|(name, _)| name == "x-amz-content-sha256");
        let covered = match (named, self.covered) {
            (Some((_, text)), Some(_)) => Covered::Named(text.clone()),
            _ if self.presigned && self.service == "s3" => {
                Covered::Named("UNSIGNED-PAYLOAD".into())
            }
            _ => Covered::Bytes(self.body.clone()),
        };
        let added = self
            .signer()
            .sign(self.method, &url, &self.headers, &covered)
            .unwrap();
        let parameters = added.parameters.iter().map(|(name, value)| {
            let value = value.replace('/', "%2F").replace(';', "%3B");
            format!("{name}={value}")
        });
        let parameters: Vec<String> = parameters.collect();
        let mark = if self.path.contains('?') { "&" } else { "?" };
        let mark = if parameters.is_empty() { "" } else { mark };
        let uri = format!("{}{mark}{}", self.path, parameters.join("&"));
        let mut request = Request::builder()
            .method(self.method)
            .uri(uri)
            .header("host", self.host);
        for (name, value) in self.headers.iter().chain(&added.headers) {
            request = request.header(name, value);
        }
        (
            request.body(Full::new(self.body.clone())).unwrap(),
            added.signature,
        )
    }

    pub(crate) async fn send(&self, lab: &Lab) -> (u16, String) {
        deliver(lab, self.host, self.sign().0).await
    }
}

pub(crate) async fn deliver(lab: &Lab, host: &str, request: Request<Full<Bytes>>) -> (u16, String) {
    let stream = lab.connect(&format!("{host}:443")).await.unwrap();
    let stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
    let answer = send(&mut h1(stream).await, request).await.unwrap();
    text(answer).await
}
