//! A registry of images, and where its tokens are issued (OCI distribution specification; token authentication of the same
//! project). The tokens are those that the original takes (ECDSA with a certificate in the header), so that it can be the
//! authorisation server of a real registry.
//!
//! | request | answer |
//! |---|---|
//! | `GET /token` | a token for what is asked; without a login one for nothing, with a wrong one 401 |
//! | other methods there | 405 |
//! | below `/v2/` without what is wanted | 401 with the challenge; a login where tokens are wanted counts as none |
//! | `GET /v2/` | `{}` |
//! | `GET /v2/_echo/tags/list` | the request's headers |
//! | what was put there | its content; blobs are on the host for storage, if there is one |
//! | everything else | 404 |

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::http::{self, Reply};
use crate::recorder::{Event, Recorder};
use crate::server::{HttpServer, Running, StartError, bind_tcp};
use crate::tls::{TestRoot, TlsError};

/// Name in the record.
const NAME: &str = "registry";
/// Largest request body that is read, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// Who issues the tokens.
pub const ISSUER: &str = "stand-in";
/// Path where they are issued.
pub const TOKEN_PATH: &str = "/token";

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of the certificate.
    pub names: Vec<String>,
    /// The one user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Where tokens are issued, as its challenges say; `None`: it wants the login itself.
    pub realm: Option<String>,
    /// Host that blobs are on.
    pub storage: Option<String>,
    /// How long tokens are good.
    pub lifetime: Duration,
}

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub struct RegistryStandIn {
    address: SocketAddr,
    root_pem: String,
    trust_pem: String,
    recorder: Recorder,
    state: Arc<State>,
    _running: Running,
}

struct State {
    options: Options,
    key: EcdsaKeyPair,
    /// The certificate of the key, as it stands in the header of a token.
    chain: String,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

#[derive(Default)]
struct Inner {
    /// Path, media type and content.
    content: BTreeMap<String, (&'static str, Bytes)>,
    tokens: Vec<Given>,
    issued_besides: Option<Value>,
}

/// A token that was issued.
struct Given {
    token: String,
    until: SystemTime,
    /// Repositories that it is for.
    repositories: Vec<String>,
}

impl RegistryStandIn {
    /// Starts on a free port, with a root of its own.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let root = TestRoot::new("registry stand-in root")?;
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let tls = root.server_config(&names, &[b"h2", b"http/1.1"])?;
        let (key, certificate) = signer().map_err(StartError::Tls)?;
        let (listener, address) = bind_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let recorder = Recorder::new();
        let state = Arc::new(State {
            options,
            key,
            chain: STANDARD.encode(certificate.der()),
            inner: Mutex::default(),
        });
        let server = HttpServer {
            name: NAME,
            listener,
            tls: Some(tls),
            recorder: recorder.clone(),
        };
        let (shared, written) = (state.clone(), recorder.clone());
        let running = Running::spawn("standin-registry", move || {
            server.serve(move |request| handle(shared.clone(), written.clone(), request))
        })?;
        Ok(Self {
            address,
            root_pem: root.pem(),
            trust_pem: certificate.pem(),
            recorder,
            state,
            _running: running,
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root that clients must trust, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The certificate that a registry must trust for the tokens, PEM.
    pub fn trust_pem(&self) -> &str {
        &self.trust_pem
    }

    /// What was received.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Puts something there.
    pub fn put(&self, path: &str, media_type: &'static str, content: impl Into<Bytes>) {
        let content = (media_type, content.into());
        self.state.lock().content.insert(path.to_owned(), content);
    }

    /// From now on this is answered where tokens are issued, instead of one.
    pub fn answer_with(&self, body: Value) {
        self.state.lock().issued_besides = Some(body);
    }

    /// Every token that was issued.
    pub fn tokens(&self) -> Vec<String> {
        let inner = self.state.lock();
        let tokens = inner.tokens.iter();
        tokens.map(|given| given.token.clone()).collect()
    }
}

/// A key for tokens, and its certificate.
fn signer() -> Result<(EcdsaKeyPair, rcgen::Certificate), TlsError> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "tokens");
    let certificate = params.self_signed(&key)?;
    let unusable = |_| TlsError::Certificate(rcgen::Error::KeyGenerationUnavailable);
    let pkcs8 = key.serialize_der();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
    Ok((key.map_err(unusable)?, certificate))
}

async fn handle(state: Arc<State>, recorder: Recorder, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let body = http::read_body(body, BODY_LIMIT).await.unwrap_or_default();
    let length = body.len() as u64;
    let note = host(&parts).to_owned();
    let seq = http::record(&recorder, NAME, &parts, length, None, note);
    let reply = state.answer(&parts);
    recorder.push(Event::Answered {
        seq,
        status: reply.status(),
    });
    reply
}

/// Host that was asked.
fn host(parts: &Parts) -> &str {
    let authority = parts.uri.authority().map(Authority::as_str);
    let header = || parts.headers.get("host")?.to_str().ok();
    authority.or_else(header).unwrap_or_default()
}

/// What is behind the name of a scheme in a header.
fn login<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (found, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// What is wanted: the repository, and what is to be done with it.
type Wanted = (String, &'static str);

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_user(&self, headers: &HeaderMap) -> Option<bool> {
        let given = login(headers, "basic")?;
        let own = format!("{}:{}", self.options.user, self.options.password);
        Some(given == STANDARD.encode(own))
    }

    fn answer(&self, parts: &Parts) -> Reply {
        let path = parts.uri.path();
        if path == TOKEN_PATH {
            return self.issue(parts);
        }
        let storage = self.options.storage.as_deref();
        let inside = path.starts_with("/v2/");
        if inside && storage != Some(host(parts)) {
            let wanted = wanted(&parts.method, path);
            if let Some(challenge) = self.challenge(&parts.headers, wanted.as_ref()) {
                let errors = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "authentication required" }] });
                return http::json(StatusCode::UNAUTHORIZED, &errors)
                    .with_header("docker-distribution-api-version", "registry/2.0")
                    .with_header("www-authenticate", &challenge);
            }
            if path == "/v2/" {
                return http::json(StatusCode::OK, &json!({}));
            }
            if path.starts_with("/v2/_echo/") {
                let headers = http::header_pairs(parts);
                return http::json(StatusCode::OK, &json!({ "headers": headers }));
            }
            if let Some(storage) = storage.filter(|_| path.contains("/blobs/")) {
                let to = format!("https://{storage}{path}?signature=of-the-storage");
                return http::whole(StatusCode::TEMPORARY_REDIRECT, "text/plain", "")
                    .with_header("location", &to);
            }
        }
        let content = self.lock().content.get(path).cloned();
        match content {
            Some((media_type, content)) => http::whole(StatusCode::OK, media_type, content),
            None => http::json(StatusCode::NOT_FOUND, &json!({ "errors": [] })),
        }
    }

    /// What is said to a request that has not what is wanted.
    fn challenge(&self, headers: &HeaderMap, wanted: Option<&Wanted>) -> Option<String> {
        let Some(realm) = &self.options.realm else {
            let is_user = self.is_user(headers) == Some(true);
            return (!is_user).then(|| "Basic realm=\"stand-in\"".to_owned());
        };
        let service = self.options.names.first().map_or("", String::as_str);
        let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
        if let Some((repository, action)) = wanted {
            challenge.push_str(&format!(",scope=\"repository:{repository}:{action}\""));
        }
        let token = login(headers, "bearer");
        let inner = self.lock();
        let given = inner
            .tokens
            .iter()
            .find(|one| Some(one.token.as_str()) == token);
        let given = given.filter(|one| SystemTime::now() < one.until);
        let covers = |given: &Given| {
            wanted.is_none_or(|(repository, _)| given.repositories.contains(repository))
        };
        match given {
            Some(given) if covers(given) => None,
            Some(_) => Some(challenge + ",error=\"insufficient_scope\""),
            None => Some(challenge),
        }
    }

    fn issue(&self, parts: &Parts) -> Reply {
        if parts.method != Method::GET {
            return http::json(StatusCode::METHOD_NOT_ALLOWED, &json!({}));
        }
        let user = match self.is_user(&parts.headers) {
            Some(false) => {
                let details = json!({ "details": "incorrect username or password" });
                return http::json(StatusCode::UNAUTHORIZED, &details);
            }
            other => other.is_some(),
        };
        if let Some(body) = &self.lock().issued_besides {
            return http::json(StatusCode::OK, body);
        }
        let query = parts.uri.query().unwrap_or_default();
        let scopes = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("scope="));
        let scopes: Vec<String> = scopes
            .map(|text| {
                text.replace("%3A", ":")
                    .replace("%2F", "/")
                    .replace("%2C", ",")
            })
            .collect();
        let access: Vec<Value> = scopes
            .iter()
            .filter(|_| user)
            .filter_map(|scope| access(scope))
            .collect();
        let repositories = access
            .iter()
            .filter_map(|one| one["name"].as_str().map(str::to_owned));
        let service = http::query_param(parts, "service").unwrap_or_default();
        let repositories = repositories.collect();
        let Some(token) = self.token(service, &access) else {
            return Reply::Hangup;
        };
        let given = Given {
            token: token.clone(),
            until: SystemTime::now() + self.options.lifetime,
            repositories,
        };
        self.lock().tokens.push(given);
        let body = json!({
            "token": token,
            "access_token": token,
            "expires_in": self.options.lifetime.as_secs(),
        });
        http::json(StatusCode::OK, &body)
    }

    /// A JSON Web Token that registries take.
    fn token(&self, service: &str, access: &[Value]) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.chain] });
        let claims = json!({
            "iss": ISSUER,
            "sub": self.options.user,
            "aud": service,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self.options.lifetime.as_secs(),
            "jti": self.lock().tokens.len().to_string(),
            "access": access,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `repository:NAME:ACTION,…` as it stands in a token.
fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let actions: Vec<&str> = actions.split(',').collect();
    Some(json!({ "type": kind, "name": name, "actions": actions }))
}

fn wanted(method: &Method, path: &str) -> Option<Wanted> {
    let below = path.strip_prefix("/v2/")?;
    let parts = ["/manifests/", "/blobs/", "/tags/"];
    let at = parts.iter().find_map(|part| below.find(part))?;
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let action = if reads { "pull" } else { "pull,push" };
    Some((below[..at].to_owned(), action))
}
