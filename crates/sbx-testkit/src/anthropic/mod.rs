//! A stand-in for the Anthropic Messages API with a scripted model.
//!
//! Endpoints, headers, stream events and error bodies follow the published API reference (version
//! `2023-06-01`). The model's answers come from a [`Script`]; which turn is played follows from the
//! conversation in the request, not from a counter, so that a client may retry or run side requests.

mod api;
mod conversation;
pub(crate) mod side;
pub(crate) mod stream;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::script::{Block, Expect, Fault, Script, Turn};

use crate::recorder::Recorder;
use crate::server::{HttpServer, Running, StartError, bind_tcp};
use crate::tls::TestRoot;

/// Where and as whom to listen.
#[derive(Debug, Clone)]
pub struct Options {
    /// Loopback address; port 0 chooses a free one.
    pub listen: SocketAddr,
    /// Names and addresses that the certificate is valid for.
    pub names: Vec<String>,
    /// Where to write down what comes.
    pub recorder: Recorder,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            names: ["api.anthropic.com", "localhost", "127.0.0.1"]
                .map(str::to_owned)
                .to_vec(),
            recorder: Recorder::new(),
        }
    }
}

/// A running stand-in. Dropping it ends it.
#[derive(Debug)]
pub struct AnthropicStandIn {
    address: SocketAddr,
    root_pem: String,
    state: Arc<State>,
    _running: Running,
}

#[derive(Debug)]
struct State {
    recorder: Recorder,
    play: Mutex<Play>,
}

#[derive(Debug)]
struct Play {
    script: Script,
    /// Per turn, how many of its faults were served.
    faults_served: Vec<usize>,
}

impl Play {
    fn new(script: Script) -> Self {
        Self {
            faults_served: vec![0; script.turns.len()],
            script,
        }
    }
}

impl AnthropicStandIn {
    /// Starts on a free port with a certificate for `api.anthropic.com`.
    pub fn start(script: Script) -> Result<Self, StartError> {
        Self::start_with(script, Options::default())
    }

    /// Starts with the given address, names and recorder.
    pub fn start_with(script: Script, options: Options) -> Result<Self, StartError> {
        script.check().map_err(StartError::Script)?;
        let root = TestRoot::new("Anthropic stand-in root")?;
        let names: Vec<&str> = options.names.iter().map(String::as_str).collect();
        let tls = root.server_config(&names, &[b"h2", b"http/1.1"])?;
        let (listener, address) = bind_tcp(options.listen)?;
        let recorder = options.recorder;
        let state = Arc::new(State {
            recorder: recorder.clone(),
            play: Mutex::new(Play::new(script)),
        });
        let shared = Arc::clone(&state);
        let server = HttpServer {
            name: api::NAME,
            listener,
            tls: Some(tls),
            recorder,
        };
        let running = Running::spawn("standin-anthropic", move || {
            server.serve(move |request| api::handle(Arc::clone(&shared), request))
        })?;
        Ok(Self {
            address,
            root_pem: root.pem(),
            state,
            _running: running,
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root certificate that clients must trust, as PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Writes the root certificate to `path`.
    pub fn write_root_pem(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, &self.root_pem)
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
