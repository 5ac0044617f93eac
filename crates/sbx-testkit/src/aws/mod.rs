//! AWS: S3 (objects, parts, listing), STS, IAM, Bedrock. Every signature is verified with the real key, by AWS's own
//! library, so that a test's opinion about signatures is not that of the code it tests.
//!
//! Which service is meant is told by the host, as AWS does it. A request whose signature does not match gets S3's error,
//! which shows the access key id that was used.

mod s3;
mod services;
mod signature;
mod sts;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;

use crate::http::{self, Reply};
use crate::recorder::{Event, Recorder};
use crate::server::{HttpServer, Running, StartError, bind_tcp};
use crate::tls::TestRoot;

pub use signature::{Added, Covered, Key, Signer, chunked};
pub use sts::Issued;

/// Name in the record.
const NAME: &str = "aws";
/// Largest request body that is taken, in bytes.
const BODY_LIMIT: usize = 64 << 20;

/// A running stand-in. Dropping it ends it.
#[derive(Debug)]
pub struct AwsStandIn {
    address: SocketAddr,
    root_pem: String,
    state: Arc<State>,
    _running: Running,
}

/// What it holds.
#[derive(Debug)]
struct State {
    key: Key,
    recorder: Recorder,
    /// By bucket and key.
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// Keys that STS gave out.
    sessions: sts::Sessions,
}

impl AwsStandIn {
    /// Starts on a free loopback port with a certificate for these names. `key`: the only one that it knows.
    pub fn start(key: Key, names: &[&str]) -> Result<Self, StartError> {
        let root = TestRoot::new("AWS stand-in root")?;
        let tls = root.server_config(names, &[b"h2", b"http/1.1"])?;
        let (listener, address) = bind_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let state = Arc::new(State {
            key,
            recorder: Recorder::new(),
            objects: Mutex::default(),
            sessions: sts::Sessions::default(),
        });
        let server = HttpServer {
            name: NAME,
            listener,
            tls: Some(tls),
            recorder: state.recorder.clone(),
        };
        let shared = state.clone();
        let running = Running::spawn("standin-aws", move || {
            server.serve(move |request| handle(shared.clone(), request))
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

    /// What was received. The note of a request is `verified SERVICE`, `unsigned`, or why its signature is none.
    pub fn recorder(&self) -> &Recorder {
        &self.state.recorder
    }

    /// Gives out a key that is good for so long, as STS does.
    pub fn issue(&self, life: Duration) -> Issued {
        self.state.sessions.issue(life)
    }

    /// STS gives out keys that are good for so long from now on, whatever it is asked for.
    pub fn set_life(&self, life: Duration) {
        self.state.sessions.set_life(life);
    }

    /// An object of a bucket.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Bytes> {
        s3::lock(&self.state.objects)
            .get(&format!("{bucket}/{key}"))
            .cloned()
    }
}

async fn handle(state: Arc<State>, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Some(body) = http::read_body(body, BODY_LIMIT).await else {
        return Reply::Hangup;
    };
    let checked = state.sessions.check(&state.key, &parts, &body);
    let note = match &checked {
        Ok(Some(checked)) => format!("verified {}", checked.service),
        Ok(None) => "unsigned".to_owned(),
        Err(error) => (*error).to_owned(),
    };
    let length = body.len() as u64;
    let seq = http::record(&state.recorder, NAME, &parts, length, None, note);
    let reply = match checked {
        Ok(Some(checked)) => services::answer(&state, &parts, &checked.body),
        Ok(None) => services::answer(&state, &parts, &body),
        Err(error) => mismatch(&state.key, error),
    };
    state.recorder.push(Event::Answered {
        seq,
        status: reply.status(),
    });
    reply
}

/// As S3 says it.
fn mismatch(key: &Key, error: &str) -> Reply {
    let code = if error == sts::ENDED {
        "ExpiredToken"
    } else {
        "SignatureDoesNotMatch"
    };
    let text = format!(
        "<Error><Code>{code}</Code><Message>{error}</Message><AWSAccessKeyId>{}</AWSAccessKeyId></Error>",
        key.access_key_id
    );
    http::whole(StatusCode::FORBIDDEN, "application/xml", text)
}
