//! Somebody agrees in the host's browser (RFC 6749, section 4.1, with PKCE, RFC 7636): the page calls back on loopback with a
//! code, which is exchanged for tokens that all sandboxes may use and none sees.

use crate::browser;
use crate::daemon::Daemon;
use crate::random;
use crate::sign_ins::{self, New};
use crate::token_endpoint::{self, Head, Question};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Html;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sbx_credentials::oauth::{Document, Issued};
use sbx_credentials::services::Service;
use sbx_secrets::{Scope, Secret};
use sbx_wire::api;
use sbx_wire::browser::Address;
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Time for somebody to agree.
const LIMIT: Duration = Duration::from_mins(5);

/// Time for the answer to the page's call.
const FAREWELL: Duration = Duration::from_secs(2);

type Outcome = Result<Secret, Report>;

/// What somebody is asked. One question at a time: another one ends it.
#[derive(Debug, Default)]
pub(crate) struct Consents(Mutex<Option<Asked>>);

#[derive(Debug)]
struct Asked {
    id: String,
    work: JoinHandle<Outcome>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// What is known of a question while its page is open.
struct Page {
    service: &'static Service,
    consent: &'static sbx_credentials::services::Consent,
    port: u16,
    redirect: String,
    state: String,
    verifier: SecretText,
}

/// Begins to ask.
pub(crate) async fn ask(
    daemon: &Arc<Daemon>,
    service: &'static Service,
) -> Result<api::Consent, Report> {
    let Some(consent) = service.consent else {
        return Err(Report::user(
            "no-consent",
            format!("{} has no sign-in on the host", service.name),
            "sign in inside of a sandbox; its tokens stay on the host as well",
        ));
    };
    // The one before may hold the port.
    let before = daemon
        .consents
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(mut before) = before {
        before.work.abort();
        let _ended = (&mut before.work).await;
    }
    let listener = listen(consent.ports).await?;
    let port = listener
        .local_addr()
        .map_err(|error| no_port(&error.to_string()))?
        .port();
    let mut verifier = [0; 32];
    random::fill(&mut verifier)?;
    let page = Page {
        service,
        consent,
        port,
        redirect: format!("http://localhost:{port}{}", consent.callback),
        state: random::hex(32)?,
        verifier: SecretText::new(URL_SAFE_NO_PAD.encode(verifier)),
    };
    let id = random::hex(16)?;
    let address = page.address();
    let not_opened = match address.parse::<Address>() {
        Ok(address) => browser::show(daemon, &address).err(),
        Err(error) => Some(error.to_string()),
    };
    let work = tokio::spawn(agreed(daemon.clone(), page, listener));
    let asked = Asked {
        id: id.clone(),
        work,
    };
    *daemon
        .consents
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(asked);
    Ok(api::Consent {
        id,
        page: address,
        not_opened,
        limit_s: LIMIT.as_secs(),
    })
}

/// Waits until somebody has agreed, or does not.
pub(crate) async fn wait(daemon: &Daemon, id: &str) -> Outcome {
    let asked = {
        let mut asked = daemon
            .consents
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        asked.take_if(|asked| asked.id == id)
    };
    let unknown = || {
        Report::user(
            "consent-not-found",
            "nobody is asked that any more",
            "sbx secret set openai --oauth",
        )
    };
    let mut asked = asked.ok_or_else(unknown)?;
    (&mut asked.work).await.map_err(|_| unknown())?
}

impl Page {
    fn address(&self) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose()));
        let mut pairs = vec![
            ("response_type", "code"),
            ("client_id", self.consent.client),
            ("redirect_uri", &self.redirect),
            ("scope", self.consent.scope),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", &self.state),
        ];
        pairs.extend(self.consent.more);
        let query = form(&pairs).body();
        format!("{}?{query}", self.consent.page)
    }
}

fn form(pairs: &[(&str, &str)]) -> Document {
    let pairs = pairs.iter();
    Document::Form(
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    )
}

async fn listen(ports: &[u16]) -> Result<TcpListener, Report> {
    let mut why = String::new();
    for port in ports {
        match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).await {
            Ok(listener) => return Ok(listener),
            Err(error) => why = format!("port {port}: {error}"),
        }
    }
    Err(no_port(&why))
}

fn no_port(why: &str) -> Report {
    Report::environment(
        "consent-port",
        format!("the browser cannot call back: {why}"),
        "end the program that signs in at the moment, and try again",
    )
}

/// What the page calls back with.
#[derive(Debug, Deserialize)]
struct Called {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

/// What calls are compared with, and where the one goes that fits.
#[derive(Clone)]
struct Door {
    hosts: [String; 2],
    state: String,
    called: mpsc::Sender<Called>,
}

async fn call(
    State(door): State<Door>,
    headers: HeaderMap,
    Query(called): Query<Called>,
) -> (StatusCode, Html<&'static str>) {
    // Another page that got its name to lead here must not be heard.
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let known = host.is_some_and(|host| door.hosts.iter().any(|own| own == host));
    if !known || called.state.as_deref() != Some(&door.state) {
        return (
            StatusCode::BAD_REQUEST,
            Html("This is not the sign-in that sbx asked for."),
        );
    }
    let text = match &called.code {
        Some(_) => "sbx goes on with the sign-in. You can close this page.",
        None => "Nobody agreed. You can close this page.",
    };
    // Only the first counts.
    let _later = door.called.try_send(called);
    (StatusCode::OK, Html(text))
}

/// Waits for the page's call, and has its code exchanged.
async fn agreed(daemon: Arc<Daemon>, page: Page, listener: TcpListener) -> Outcome {
    let (called, mut calls) = mpsc::channel(1);
    let door = Door {
        hosts: [
            format!("localhost:{}", page.port),
            format!("127.0.0.1:{}", page.port),
        ],
        state: page.state.clone(),
        called,
    };
    let router = Router::new()
        .route(page.consent.callback, get(call))
        .with_state(door);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = ended.await;
    });
    // Here and not apart: the port is free again when this is given up.
    let mut server = std::pin::pin!(server.into_future());
    let call = tokio::select! {
        _ = &mut server => return Err(no_port("its port was closed")),
        call = tokio::time::timeout(LIMIT, calls.recv()) => call,
    };
    // The page is answered before its port closes.
    drop(end);
    let _late = tokio::time::timeout(FAREWELL, server).await;
    match call {
        Ok(Some(Called {
            code: Some(code), ..
        })) => exchange(&daemon, &page, &code).await,
        Ok(call) => {
            let error = call.and_then(|call| call.error).unwrap_or_default();
            let plain = |c: &char| c.is_ascii_lowercase() || *c == '_';
            let code: String = error.chars().filter(plain).take(60).collect();
            Err(Report::user(
                "consent-refused",
                format!("nobody agreed ({code})"),
                "sbx secret set openai --oauth",
            ))
        }
        Err(_) => Err(Report::user(
            "consent-late",
            format!("nobody agreed within {} minutes", LIMIT.as_secs() / 60),
            "sbx secret set openai --oauth",
        )),
    }
}

async fn exchange(daemon: &Daemon, page: &Page, code: &str) -> Outcome {
    let failed = |why: String| {
        Report::environment(
            "consent-failed",
            format!("the sign-in failed: {why}"),
            "sbx secret set openai --oauth",
        )
    };
    let (host, path) = page.consent.token;
    let mut endpoints = page.service.issuing.iter();
    let endpoint = endpoints.find(|one| one.host == host && one.path == path);
    let kept = endpoint.and_then(|endpoint| Some((endpoint, endpoint.kept?)));
    let (endpoint, kept) = kept.ok_or_else(|| failed("its endpoint is not known".to_owned()))?;
    let asked = form(&[
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", &page.redirect),
        ("client_id", page.consent.client),
        ("code_verifier", page.verifier.expose()),
    ]);
    let question = Question {
        host,
        path,
        head: Head::Form,
        body: SecretText::new(asked.body()),
    };
    let told = token_endpoint::ask(daemon, &question)
        .await
        .map_err(failed)?;
    let answer = Document::parse(told.body.expose());
    let issued = answer
        .as_ref()
        .and_then(|answer| Issued::of(answer, kept.token));
    let (Some(answer), Some(issued), 200..300) = (answer, issued, told.status) else {
        return Err(failed(format!(
            "{host} answered {} and no token",
            told.status
        )));
    };
    let new = New {
        service: page.service,
        endpoint,
        answer,
        issued,
        asked: Some(&asked),
    };
    sign_ins::store(daemon, &Scope::Global, new)
}
