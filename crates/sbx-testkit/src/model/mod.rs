//! A stand-in for the model APIs of OpenAI (Responses and Chat Completions), Google (Gemini) and GitHub Copilot,
//! and for a local model server, with one scripted model behind all of them.
//!
//! Which API a request is for follows from its path. Paths, headers, stream events and error bodies follow the
//! published references, and, where there is none (Copilot), what its command line was seen to ask for and to
//! accept. The turn that is played follows from the conversation in the request ([`crate::Script`]).

mod api;
mod chat;
mod gemini;
mod github;
mod jobs;
mod play;
mod responses;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

pub use jobs::job;

use crate::recorder::Recorder;
use crate::script::Script;
use crate::server::{HttpServer, Running, StartError, bind_tcp};
use crate::tls::TestRoot;
use play::Play;

/// Names of the hosts that it stands in for.
pub const HOSTS: [&str; 4] = [
    "api.openai.com",
    "generativelanguage.googleapis.com",
    "api.github.com",
    "api.githubcopilot.com",
];

/// A running stand-in. Dropping it ends it.
#[derive(Debug)]
pub struct ModelStandIn {
    address: SocketAddr,
    root_pem: Option<String>,
    state: Arc<State>,
    _running: Running,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) recorder: Recorder,
    pub(crate) play: Mutex<Play>,
    /// Asks nobody for a key.
    pub(crate) open: bool,
}

impl ModelStandIn {
    /// Starts on a free port, with a certificate for every one of [`HOSTS`].
    pub fn start(script: Script) -> Result<Self, StartError> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script, true)
    }

    /// Starts on a free port without TLS and without asking for a key, as a model server on somebody's own machine.
    pub fn start_local(script: Script) -> Result<Self, StartError> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script, false)
    }

    /// Starts at a loopback address; port 0 chooses a free one. Without TLS nobody is asked for a key.
    pub fn start_at(address: SocketAddr, script: Script, tls: bool) -> Result<Self, StartError> {
        script.check().map_err(StartError::Script)?;
        let (mut config, mut root_pem) = (None, None);
        if tls {
            let root = TestRoot::new("model stand-in root")?;
            let names: Vec<&str> = HOSTS
                .into_iter()
                .chain(["localhost", "127.0.0.1"])
                .collect();
            config = Some(root.server_config(&names, &[b"h2", b"http/1.1"])?);
            root_pem = Some(root.pem());
        }
        let (listener, address) = bind_tcp(address)?;
        let recorder = Recorder::new();
        let state = Arc::new(State {
            recorder: recorder.clone(),
            play: Mutex::new(Play::new(script)),
            open: !tls,
        });
        let shared = Arc::clone(&state);
        let server = HttpServer {
            name: api::NAME,
            listener,
            tls: config,
            recorder,
        };
        let running = Running::spawn("standin-model", move || {
            server.serve(move |request| api::handle(Arc::clone(&shared), request))
        })?;
        Ok(Self {
            address,
            root_pem,
            state,
            _running: running,
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root certificate that clients must trust, as PEM; empty without TLS.
    pub fn root_pem(&self) -> &str {
        self.root_pem.as_deref().unwrap_or_default()
    }

    /// What was received.
    pub fn recorder(&self) -> &Recorder {
        &self.state.recorder
    }

    /// Plays another script from the next request on. Address and certificates stay.
    pub fn set_script(&self, script: Script) -> Result<(), StartError> {
        script.check().map_err(StartError::Script)?;
        *self
            .state
            .play
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Play::new(script);
        Ok(())
    }
}
