//! Daemon to gateway, and what the gateway records.
//!
//! Control: the daemon connects to `gateway.sock` and sends one JSON document a line ([`Command`], at most
//! [`MAX_LINE`] bytes); each is answered by one [`Answer`] line. The gateway closes connections of other
//! users. A gateway starts from [`GatewayFile`] on disk (same rules, no secrets), so that one that was
//! restarted while no daemon runs still enforces the last good policy; hosts that need a credential or an
//! intercepted connection fail closed until the daemon has sent [`Command::Configure`].
//!
//! The certificate authority of a sandbox: the gateway makes the key when it starts and keeps it. The daemon asks
//! for its public half ([`Command::CertificateRequest`]), signs an intermediate for it and sends that with the
//! configuration ([`Authority`]).
//!
//! Compatibility: a gateway of an older version may run on under a newer daemon, and one that is restarted reads the
//! file of an older one. New fields have defaults and are left out while they have them; what a reader does not know
//! it refuses, because it could be a restriction: the last good configuration stays, a file opens nothing. Frozen in
//! `tests/fixtures/gateway-v1.txt`.

use crate::browser::Address;
use crate::secret::SecretText;
use crate::ssh_agent;
use sbx_policy::PolicyDocument;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Longest body of an issuer's request or answer, in bytes.
pub const MAX_ISSUED: usize = 64 << 10;
/// Longest control line, in bytes.
pub const MAX_LINE: usize = 16 << 20;
/// Port of the forward proxy on the gateway's address.
pub const PROXY_PORT: u16 = 3128;

/// What the daemon asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Replace the whole configuration. A bad one is refused and the last good one stays.
    Configure(Box<GatewayConfig>),
    /// Name the key that the sandbox's intermediate certificate authority is to be issued for.
    CertificateRequest,
    /// Report state.
    Status,
    /// Wait for a page that the host is to open; answered with [`Answer::OpenPage`] once there is one, with nothing
    /// before.
    AwaitPage,
    /// Wait until the value of a credential with [`Credential::on_demand`] is needed; answered with
    /// [`Answer::ValueNeeded`] once one is.
    AwaitValue,
    /// The value that was needed; answered with the next [`Answer::ValueNeeded`].
    Value {
        /// Service of the credential.
        service: String,
        /// The value, unless it cannot be had.
        value: Option<SecretText>,
        /// Why it cannot be had, as a sentence that the guest may read.
        problem: Option<String>,
    },
    /// Wait for something that an issuer is asked or answers; answered with [`Answer::Issued`] or [`Answer::Exchange`].
    AwaitIssued,
    /// What the guest is told; answered with the next [`Answer::Issued`] or [`Answer::Exchange`].
    IssuedHandled {
        /// The body of its answer, with placeholders for what was issued.
        body: Option<SecretText>,
        /// Why there is none, as a sentence that the guest may read.
        problem: Option<String>,
        /// The guest's answer has this status, between 400 and 499: its request was exchanged for an error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
    },
    /// Wait for something that a program inside asks the host's SSH agent; answered with [`Answer::AgentAsked`].
    AwaitAgent,
    /// What the host answers it; answered with the next [`Answer::AgentAsked`].
    AgentHandled {
        /// The answer.
        reply: ssh_agent::Reply,
    },
    /// What became of the page; answered with the next [`Answer::OpenPage`].
    PageHandled {
        /// Why it was not opened.
        problem: Option<String>,
    },
}

/// What the gateway answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The configuration of this policy generation is in force.
    Configured {
        /// Generation now in force.
        generation: u64,
    },
    /// The public half of the gateway's signing key, the same for as long as the process lives.
    CertificateRequest {
        /// The key.
        public_key: PublicKey,
    },
    /// Nothing changed; the text says why.
    Refused {
        /// Why.
        reason: String,
    },
    /// A page that the policy allows.
    OpenPage {
        /// Its address.
        address: Address,
    },
    /// A request waits for the value of this credential.
    ValueNeeded {
        /// Service of the credential.
        service: String,
    },
    /// An issuer's answer, which the guest has not seen.
    Issued {
        /// Service of the issuer.
        service: String,
        /// Path of the request.
        path: String,
        /// Body of the answer, as text.
        body: SecretText,
        /// Host that was asked.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        host: String,
        /// Body of the request, as text: it names the client, which a refresh has to name again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<SecretText>,
    },
    /// A request to an issuer that carries a placeholder of [`Issuer::exchanged`] and was not sent.
    Exchange {
        /// Service of the issuer.
        service: String,
        /// Body of the request, as text.
        body: SecretText,
    },
    /// A program inside asks the host's SSH agent.
    AgentAsked {
        /// What.
        request: ssh_agent::Request,
    },
    /// State.
    Status {
        /// Policy generation in force.
        generation: u64,
        /// Connected to the VM's frame socket.
        attached: bool,
        /// Open connections.
        connections: u32,
        /// Whether credentials and the certificate authority have been received.
        configured: bool,
        /// Why everything is denied, when the file on disk was missing or not usable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
}

/// Everything a gateway works from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Rules and where connections go.
    pub file: GatewayFile,
    /// Credentials to inject.
    pub credentials: Vec<Credential>,
    /// Placeholders that the guest may still hold although nothing is stored for them any more. A request that carries
    /// one is refused, wherever it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<Withdrawn>,
    /// Where credentials are issued: what is answered there does not reach the guest as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Issuer>,
    /// The sandbox's own intermediate certificate authority.
    pub authority: Authority,
}

/// The part of the configuration that lies on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayFile {
    /// Sandbox name, for records.
    pub sandbox: String,
    /// The rules in force for this sandbox.
    pub policy: PolicyDocument,
    /// Where connections really go.
    pub upstream: Upstream,
    /// Hosts that some credential is bound to, as in [`Credential::hosts`]; no secrets. A gateway that has
    /// not been configured yet lets nothing through to them.
    #[serde(default)]
    pub credential_hosts: Vec<String>,
}

/// Upstream settings; set by the user on the host, never by a project or the guest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `host:port` as the policy sees it, to the address dialled instead. Exempts exactly that host and
    /// port from the address check, not from the policy.
    pub overrides: BTreeMap<String, SocketAddr>,
    /// Further trusted roots for upstream TLS, PEM.
    pub extra_roots_pem: Vec<String>,
    /// DNS servers to ask; empty: those of the host's `/etc/resolv.conf`.
    #[serde(default)]
    pub resolvers: Vec<SocketAddr>,
    /// Whether rules may open UDP; without it nothing but DNS to the gateway passes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub udp_egress: bool,
}

/// A credential that the gateway writes into requests. A service whose hosts want it in several forms has one of these
/// for each form, with the same service, placeholder and value.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Service name, e.g. `anthropic`.
    pub service: String,
    /// Hosts it is bound to, as `host` (port 443) or `host:port`; the host may be a pattern of names as in the network
    /// rules, e.g. `**.example.com`.
    pub hosts: Vec<String>,
    /// Header to write, lower case, e.g. `x-api-key`. Empty where [`Self::replace`] is set.
    pub header: String,
    /// Header value with one `%s` for the secret, e.g. `%s` or `Bearer %s`. Empty where [`Self::replace`] is set.
    pub format: String,
    /// What the guest holds instead.
    pub placeholder: String,
    /// The real value; empty where [`Self::unavailable`] or [`Self::on_demand`] is set.
    pub value: SecretText,
    /// User of a `Basic` login (RFC 7617): `%s` in the format stands for the Base64 of `user:secret`. Also that of
    /// [`Self::registry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_user: Option<String>,
    /// The placeholder is replaced where the guest wrote it, instead of a header being written to every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<Replace>,
    /// Why the value cannot be had now, as a sentence that the guest may read. Requests to the hosts are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
    /// The value is asked for each time it is needed ([`Answer::ValueNeeded`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
    /// Bodies to the hosts quote whatever the agent has seen, as a conversation with a model does: other placeholders
    /// in one are made unreadable, where elsewhere the request is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conversation: bool,
    /// Requests are signed anew (AWS Signature Version 4). The value, also one that is asked for, is
    /// `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` behind it for keys that have an end; the placeholder is a
    /// secret access key, and its id is here. Header and format are empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<Aws>,
    /// It is the login of a registry of images (OCI distribution specification): the one host is the registry, the value
    /// the password. Placeholders of the tokens that are issued for it begin with this placeholder. Header and format
    /// are empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<Registry>,
}

/// How a registry of images has its clients sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Where its tokens are issued: an `https` URL without query. The registry itself is sent no login then. Without it
    /// the login goes to the registry, and to where it says that tokens are issued if that is on its own host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_endpoint: Option<Address>,
}

/// What belongs to the placeholder of a secret access key of AWS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// Access key id that the guest holds instead, random per sandbox as the placeholder of the secret key.
    pub placeholder_id: String,
    /// Keys that end soon are handed in besides, which somebody has asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_in: Option<HandedIn>,
    /// What requests to the hosts are signed for; without it each host's name says it. A name of AWS always does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<AwsScope>,
}

/// What a request to an endpoint with a name of its own is signed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsScope {
    /// Signing name of the service, e.g. `s3`.
    pub service: String,
    /// Region, e.g. `us-east-1`.
    pub region: String,
}

/// Keys of AWS that the guest holds for a short time, for programs whose requests cannot be signed anew. They are asked for
/// as the value of [`SHORT_LIVED`], which is the text that the guest is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedIn {
    /// What a program shows in `Authorization` to get one. Worth nothing elsewhere.
    pub token: String,
    /// Access key ids of those that were handed in and have not ended: what is signed with one goes on as it is.
    pub ids: Vec<String>,
}

/// What stands for a service in [`Answer::ValueNeeded`] and [`Command::Value`] where the guest wants a key of AWS that ends
/// soon.
pub const SHORT_LIVED: &str = "aws-short-lived";
/// Where programs get one, on port 80 of an address that nobody has: their libraries read keys in clear text from there and
/// from loopback alone (AWS SDKs and Tools Reference Guide, "Container credential provider"). The gateway answers itself.
pub const SHORT_LIVED_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(169, 254, 170, 2);
/// And the path there.
pub const SHORT_LIVED_PATH: &str = "/sbx/aws";

/// Where the placeholder of a [`Credential`] is replaced: in header values (also inside of `Basic`) and in the URL's
/// path and query. Never in those of the handshake of a WebSocket, which is answered with a hash of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// Also in the body.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body: bool,
    /// Nowhere but where it is a whole login: behind `Bearer` or `token` in `Authorization`, as the user or the password
    /// of `Basic` there, as all of a header for keys. Requests that have it elsewhere in the head are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login: bool,
}

/// An endpoint whose answers hold new credentials, as a token endpoint's do (RFC 6749, section 3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Service name.
    pub service: String,
    /// Its hosts, as in [`Credential::hosts`].
    pub hosts: Vec<String>,
    /// Methods, as in the network rules, e.g. `POST` or `ANY`.
    pub methods: String,
    /// Path pattern, as in the network rules, e.g. `/app/installations/*/access_tokens`.
    pub path: String,
    /// The daemon keeps what is issued and says what the guest is told ([`Answer::Issued`]); otherwise requests are
    /// refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// Placeholders that the daemon exchanges itself: a request that carries one is not sent, the daemon answers it
    /// ([`Answer::Exchange`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanged: Vec<String>,
}

/// A placeholder for which nothing is stored any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawn {
    /// Service name.
    pub service: String,
    /// What the guest may still hold.
    pub placeholder: String,
}

/// The sandbox's own intermediate certificate authority. Its private key is not here: only the gateway has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The intermediate's certificate, PEM, issued for the key of [`Answer::CertificateRequest`].
    pub certificate_pem: String,
    /// When it ends, seconds since the Unix epoch; as in the certificate.
    pub not_after_s: u64,
    /// The root's certificate, PEM: what the guest trusts.
    pub root_pem: String,
}

/// A public key on the curve P-256: the uncompressed point (SEC 1, section 2.3.3), as text in hexadecimal. Of this
/// length and no other, so that nobody has to parse what a gateway sends.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; Self::LENGTH]);

/// What is not a [`PublicKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an uncompressed point on P-256")]
pub struct NotAPublicKey;

impl PublicKey {
    /// Length in bytes: the form, and two coordinates of 32.
    pub const LENGTH: usize = 65;
    /// First byte of a point that is not compressed.
    const UNCOMPRESSED: u8 = 4;

    /// The point's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = NotAPublicKey;

    fn try_from(bytes: &[u8]) -> Result<Self, NotAPublicKey> {
        let point: [u8; Self::LENGTH] = bytes.try_into().map_err(|_| NotAPublicKey)?;
        match point[0] {
            Self::UNCOMPRESSED => Ok(Self(point)),
            _ => Err(NotAPublicKey),
        }
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotAPublicKey;

    fn try_from(text: String) -> Result<Self, NotAPublicKey> {
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(NotAPublicKey);
        let mut point = [0; Self::LENGTH];
        if text.len() != 2 * point.len() {
            return Err(NotAPublicKey);
        }
        for (byte, pair) in point.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let value = digit(pair[0])? << 4 | digit(pair[1])?;
            *byte = u8::try_from(value).map_err(|_| NotAPublicKey)?;
        }
        Self::try_from(&point[..])
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a connection left, or tried to (column PROXY of `policy log`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyKind {
    /// Explicit proxy, inspected.
    Forward,
    /// Explicit proxy, tunnelled unread.
    ForwardBypass,
    /// Caught on its way out although the client ignored the proxy.
    Transparent,
    /// TCP that is not HTTP, UDP, ICMP.
    Network,
    /// A name look-up.
    Dns,
    /// A request to open a page in the host's browser.
    BrowserOpen,
    /// A signature by a key of the host's SSH agent.
    SshAgent,
}

/// One thing that left or was stopped. One JSON line in `egress.jsonl`. The writer borrows its texts, readers own them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord<Text = String> {
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Sandbox name.
    pub sandbox: Text,
    /// `network`.
    #[serde(rename = "type")]
    pub kind: Text,
    /// Name or address as judged.
    pub host: Text,
    /// Port; 0 where there is none.
    pub port: u16,
    /// How it left.
    pub proxy: ProxyKind,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Id of the deciding rule, if one decided.
    pub rule: Option<Text>,
    /// The deciding rule's resource or name, for people.
    pub rule_text: Option<Text>,
    /// Stable reason code, kebab-case.
    pub reason: Text,
    /// HTTP method, where seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text>,
    /// HTTP path without query, where seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text>,
    /// Credential service that was injected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Text>,
    /// What somebody should know about the request besides, a stable code in kebab-case, e.g. `value-in-answer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Text>,
    /// Policy generation that decided.
    pub generation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_a_point_of_one_length_and_form() {
        let mut point = [7; PublicKey::LENGTH];
        point[0] = 4;
        let key = PublicKey::try_from(&point[..]).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text.len(), 2 * PublicKey::LENGTH + 2);
        assert_eq!(serde_json::from_str::<PublicKey>(&text).unwrap(), key);
        for bad in [
            text.replacen("04", "02", 1),
            text.replacen("07", "0x", 1),
            text.replacen("07", "+7", 1),
            text.replacen("07", "", 1),
            text.replacen("07", "0707", 1),
            text.replacen("0707", "07é", 1),
        ] {
            assert!(serde_json::from_str::<PublicKey>(&bad).is_err(), "{bad}");
        }
    }
}
