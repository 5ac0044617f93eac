//! Stand-ins for services that tests and the demo cannot reach.
//!
//! Each stand-in is a real server on loopback that behaves as the original does where a client can tell:
//! TLS, HTTP/1.1 and HTTP/2, streaming with pauses, error bodies and status codes. Each writes down what
//! it received in a [`Recorder`], so a test can assert what reached the other side and, as important,
//! what did not.
//!
//! Servers run on a thread of their own: they can be started from a plain test, from async code and from
//! `main`. Dropping the handle closes the port, ends every connection and joins the thread.
#![forbid(unsafe_code)]

pub mod anthropic;
pub mod authorisation;
pub mod aws;
pub mod dns;
pub mod docker_registry;
pub mod files;
pub mod frames;
pub mod model;
pub mod netns;
pub mod recorder;
pub mod registry;
pub mod tls;
pub mod upstream;
pub mod virtio_fs;
pub mod write_log;

mod conversation;
mod http;
mod script;
mod server;

pub use anthropic::AnthropicStandIn;
pub use authorisation::AuthorisationStandIn;
pub use aws::AwsStandIn;
pub use dns::DnsStandIn;
pub use docker_registry::DockerRegistry;
pub use files::FileServer;
pub use frames::Frames;
pub use model::ModelStandIn;
pub use netns::Namespace;
pub use recorder::Recorder;
pub use registry::RegistryStandIn;
pub use script::Script;
pub use server::StartError;
pub use tls::TestRoot;
pub use upstream::EchoUpstream;
