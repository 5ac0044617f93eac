//! An authorisation server and what it guards (RFC 6749, 7636, 6750).
//!
//! | request | answer |
//! |---|---|
//! | `GET …/authorize` | 302 to the `redirect_uri` with a code for the account in `login_hint` (else `me@example.test`) |
//! | `POST` with `grant_type=authorization_code` | tokens, if code, client, redirect and verifier (S256) are those of the code |
//! | `POST` with `grant_type=refresh_token` | other tokens; the refresh token is good once, a second use ends the sign-in |
//! | `POST` with `grant_type=urn:ietf:params:oauth:grant-type:device_code` | `authorization_pending` with status 200, until a code of that name was made |
//! | `GET /auth/poll?uuid=CODE` | 404 until a code of that name was made, then tokens in camel case |
//! | another path of those in `Options::keys` | one token under the name given there |
//! | everything else | the account and path if the bearer's access token is good, else 401 |
//!
//! Bodies are JSON or forms; what is asked for tokens in a form is answered in one if it accepts no JSON.

mod endpoints;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::recorder::Recorder;
use crate::server::{HttpServer, Running, StartError, bind_tcp};
use crate::tls::TestRoot;
use state::State;
pub use state::{Counts, Style};

/// How it behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of the certificate.
    pub names: Vec<String>,
    /// What tokens look like.
    pub style: Style,
    /// Paths that answer with one token, and under which name.
    pub keys: Vec<(String, String)>,
    /// How long access tokens are good.
    pub lifetime: Duration,
    /// How long a refresh takes.
    pub delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            names: vec!["login.example".to_owned()],
            style: Style::Opaque,
            keys: Vec::new(),
            lifetime: Duration::from_hours(8),
            delay: Duration::ZERO,
        }
    }
}

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub struct AuthorisationStandIn {
    address: SocketAddr,
    root_pem: String,
    recorder: Recorder,
    state: Arc<State>,
    _running: Running,
}

impl AuthorisationStandIn {
    /// Starts on a free port, with a root of its own.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let root = TestRoot::new("authorisation stand-in root")?;
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let tls = root.server_config(&names, &[b"h2", b"http/1.1"])?;
        let (listener, address) = bind_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let recorder = Recorder::new();
        let state = Arc::new(State::new(options));
        let server = HttpServer {
            name: endpoints::NAME,
            listener,
            tls: Some(tls),
            recorder: recorder.clone(),
        };
        let (shared, written) = (state.clone(), recorder.clone());
        let running = Running::spawn("standin-authorisation", move || {
            server.serve(move |request| endpoints::handle(shared.clone(), written.clone(), request))
        })?;
        Ok(Self {
            address,
            root_pem: root.pem(),
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

    /// What was received.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Somebody agrees: the code of this name is good once, for this account, without a verifier.
    pub fn agree(&self, code: &str, account: &str) {
        self.state.agree(code, account);
    }

    /// From now on access tokens are good for so long.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state.lock().options.lifetime = lifetime;
    }

    /// From now on a refresh takes so long.
    pub fn set_delay(&self, delay: Duration) {
        self.state.lock().options.delay = delay;
    }

    /// Whether refreshes wait from now on, until this is said again.
    pub fn hold(&self, held: bool) {
        self.state.lock().held = held;
    }

    /// The next so many refreshes fail with this status, and the refresh token stays good.
    pub fn fail(&self, refreshes: u32, status: u16) {
        self.state.lock().failing = (refreshes, status);
    }

    /// Ends every sign-in of the account.
    pub fn revoke(&self, account: &str) {
        self.state.lock().revoke(account);
    }

    /// What came.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// Every token that was ever given out.
    pub fn tokens(&self) -> Vec<String> {
        self.state.lock().given.clone()
    }
}
