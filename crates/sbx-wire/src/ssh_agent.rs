//! What a program inside may ask the host's SSH agent for: which keys there are, and a signature of one of two kinds.
//!
//! The request is `POST` [`PATH`] in origin form to the gateway's proxy port, with one message of the agent's protocol
//! (draft-ietf-sshm-ssh-agent) as the body, and so is the answer. The gateway parses it into a [`Request`]; the daemon
//! signs what it writes itself from that, so bytes of no known meaning are never signed.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Path of the request.
pub const PATH: &str = "/ssh-agent";
/// Where programs inside find the agent.
pub const SOCKET: &str = "/run/ssh-agent.sock";
/// Longest message of a program inside, bytes, with its length in front.
pub const MAX_REQUEST: usize = 16 << 10;
/// Longest message of the host's agent that is looked at, bytes.
pub const MAX_REPLY: usize = 256 << 10;
/// Most keys of the host's agent that are looked at.
pub const MAX_KEYS: usize = 64;
/// Longest public key, bytes: an RSA key of 16384 bits has about two thousand.
pub const MAX_KEY: usize = 4 << 10;
/// Longest signature, bytes.
pub const MAX_SIGNATURE: usize = 4 << 10;
/// Longest name (of a user, a namespace, an algorithm) and longest comment, bytes.
pub const MAX_NAME: usize = 256;
/// Longest digest and longest identifier of an SSH session, bytes.
const MAX_DIGEST: usize = 64;
/// The flags there are: `rsa-sha2-256` and `rsa-sha2-512`.
const FLAGS: u32 = 2 | 4;

const FAILURE: u8 = 5;
const LIST: u8 = 11;
const KEYS: u8 = 12;
const SIGN: u8 = 13;
const SIGNED: u8 = 14;
/// `SSH_MSG_USERAUTH_REQUEST` (RFC 4252, section 6).
const LOGIN: u8 = 50;
const CONNECTION: &[u8] = b"ssh-connection";
const PUBLIC_KEY: &[u8] = b"publickey";
const HOST_BOUND: &[u8] = b"publickey-hostbound-v00@openssh.com";
const MESSAGE: &[u8] = b"SSHSIG";

/// A message that is not served. Most are none that a client needs: to add keys, to lock the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a request for keys or for a signature of a known kind")]
pub struct NotServed;

/// Bytes, as text in hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = NotServed;

    fn try_from(text: String) -> Result<Self, NotServed> {
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(NotServed);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(NotServed);
        }
        let byte = |[high, low]: &[u8; 2]| {
            let value = digit(*high)? << 4 | digit(*low)?;
            u8::try_from(value).map_err(|_| NotServed)
        };
        pairs.iter().map(byte).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Hex> for String {
    fn from(bytes: Hex) -> Self {
        bytes.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(self.clone()))
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Which keys there are.
    Keys,
    /// A signature.
    Sign {
        /// The public key, as the agent names it.
        key: Hex,
        /// What for.
        purpose: Purpose,
        /// Of the message: which algorithm an RSA key uses.
        flags: u32,
    },
}

/// What a signature is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Purpose {
    /// A file, or a commit of git, with the namespace `git` (PROTOCOL.sshsig of OpenSSH).
    Message {
        /// What may read the signature.
        namespace: String,
        /// How the digest was made.
        hash: Hash,
        /// Of the file.
        digest: Hex,
    },
    /// A login (RFC 4252, section 7).
    Login {
        /// Identifier of the SSH session.
        session: Hex,
        /// User on the other host.
        user: String,
        /// Of the signature.
        algorithm: String,
        /// The other host's public key, where the client names it (PROTOCOL of OpenSSH, section 3.1).
        host: Option<Hex>,
    },
}

/// How a file's digest is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A key that the agent has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The public key.
    pub key: Hex,
    /// What the user calls it.
    pub comment: String,
}

/// What the host answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reply {
    /// The keys.
    Keys {
        /// Those that the sandbox may know of.
        keys: Vec<Key>,
    },
    /// The signature.
    Signature {
        /// As the agent made it.
        signature: Hex,
    },
    /// Nothing.
    Refused {
        /// Why, as a sentence.
        why: String,
    },
}

impl Request {
    /// From a message, with its length in front.
    ///
    /// # Errors
    /// It is longer than [`MAX_REQUEST`], or none that is served.
    pub fn parse(message: &[u8]) -> Result<Self, NotServed> {
        let mut message = whole(message, MAX_REQUEST)?;
        let request = match message.byte()? {
            LIST => Self::Keys,
            SIGN => {
                let key = message.string(MAX_KEY)?.to_vec();
                let purpose = Purpose::parse(message.string(MAX_REQUEST)?, &key)?;
                let flags = message.number()?;
                if flags & !FLAGS != 0 {
                    return Err(NotServed);
                }
                let key = Hex(key);
                Self::Sign {
                    key,
                    purpose,
                    flags,
                }
            }
            _ => return Err(NotServed),
        };
        message.end(request)
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Keys => framed(&[LIST]),
            Self::Sign {
                key,
                purpose,
                flags,
            } => {
                let mut message = vec![SIGN];
                put(&mut message, &key.0);
                put(&mut message, &purpose.encode(&key.0));
                message.extend(flags.to_be_bytes());
                framed(&message)
            }
        }
    }
}

impl Purpose {
    fn parse(data: &[u8], key: &[u8]) -> Result<Self, NotServed> {
        let purpose = match data.strip_prefix(MESSAGE) {
            Some(rest) => Self::parse_message(Reader(rest))?,
            None => Self::parse_login(Reader(data), key)?,
        };
        // One way to write it: what is signed in the end is what was asked for.
        (purpose.encode(key) == data)
            .then_some(purpose)
            .ok_or(NotServed)
    }

    fn parse_message(mut data: Reader<'_>) -> Result<Self, NotServed> {
        let namespace = data.name()?;
        if namespace.is_empty() || !data.string(0)?.is_empty() {
            return Err(NotServed);
        }
        let hash = match data.string(MAX_NAME)? {
            b"sha256" => Hash::Sha256,
            b"sha512" => Hash::Sha512,
            _ => return Err(NotServed),
        };
        let digest = Hex(data.string(MAX_DIGEST)?.to_vec());
        if digest.0.len() != hash.length() {
            return Err(NotServed);
        }
        data.end(Self::Message {
            namespace,
            hash,
            digest,
        })
    }

    fn parse_login(mut data: Reader<'_>, key: &[u8]) -> Result<Self, NotServed> {
        let session = Hex(data.string(MAX_DIGEST)?.to_vec());
        let login = data.byte()? == LOGIN;
        let user = data.name()?;
        let connection = data.string(MAX_NAME)? == CONNECTION;
        let method = data.string(MAX_NAME)?;
        let signed = data.byte()? == 1;
        let algorithm = data.name()?;
        if !login || !connection || !signed || data.string(MAX_KEY)? != key {
            return Err(NotServed);
        }
        let host = match method {
            PUBLIC_KEY => None,
            HOST_BOUND => Some(Hex(data.string(MAX_KEY)?.to_vec())),
            _ => return Err(NotServed),
        };
        data.end(Self::Login {
            session,
            user,
            algorithm,
            host,
        })
    }

    /// What is signed.
    fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        match self {
            Self::Message {
                namespace,
                hash,
                digest,
            } => {
                data.extend(MESSAGE);
                put(&mut data, namespace.as_bytes());
                put(&mut data, b"");
                put(&mut data, hash.name().as_bytes());
                put(&mut data, &digest.0);
            }
            Self::Login {
                session,
                user,
                algorithm,
                host,
            } => {
                put(&mut data, &session.0);
                data.push(LOGIN);
                put(&mut data, user.as_bytes());
                put(&mut data, CONNECTION);
                let method = if host.is_some() {
                    HOST_BOUND
                } else {
                    PUBLIC_KEY
                };
                put(&mut data, method);
                data.push(1);
                put(&mut data, algorithm.as_bytes());
                put(&mut data, key);
                if let Some(host) = host {
                    put(&mut data, &host.0);
                }
            }
        }
        data
    }
}

/// For people, and for records.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { namespace, .. } => write!(f, "signature/{namespace}"),
            Self::Login { user, .. } => write!(f, "login/{user}"),
        }
    }
}

impl Reply {
    /// From a message of the host's agent, with its length in front.
    ///
    /// # Errors
    /// It is longer than allowed, or no answer to a [`Request`].
    pub fn parse(message: &[u8]) -> Result<Self, NotServed> {
        let mut message = whole(message, MAX_REPLY)?;
        let reply = match message.byte()? {
            FAILURE => Self::Refused {
                why: "the host's SSH agent refuses it".to_owned(),
            },
            KEYS => {
                let count = message.number()? as usize;
                if count > MAX_KEYS {
                    return Err(NotServed);
                }
                let mut keys = Vec::with_capacity(count);
                for _ in 0..count {
                    let key = Hex(message.string(MAX_KEY)?.to_vec());
                    let comment = String::from_utf8_lossy(message.string(MAX_REPLY)?);
                    keys.push(Key {
                        key,
                        comment: printable(&comment),
                    });
                }
                Self::Keys { keys }
            }
            SIGNED => Self::Signature {
                signature: Hex(message.string(MAX_SIGNATURE)?.to_vec()),
            },
            _ => return Err(NotServed),
        };
        message.end(reply)
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        match self {
            Self::Keys { keys } => {
                message.push(KEYS);
                let count = u32::try_from(keys.len()).unwrap_or_default();
                message.extend(count.to_be_bytes());
                for Key { key, comment } in keys {
                    put(&mut message, &key.0);
                    put(&mut message, comment.as_bytes());
                }
            }
            Self::Signature { signature } => {
                message.push(SIGNED);
                put(&mut message, &signature.0);
            }
            Self::Refused { .. } => message.push(FAILURE),
        }
        framed(&message)
    }
}

/// A comment of at most [`MAX_NAME`] bytes that is no terminal's command.
fn printable(text: &str) -> String {
    let shown = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
    shown.take(MAX_NAME).collect()
}

fn put(message: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or_default();
    message.extend(length.to_be_bytes());
    message.extend(bytes);
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(message.len() + 4);
    put(&mut framed, message);
    framed
}

fn whole(message: &[u8], limit: usize) -> Result<Reader<'_>, NotServed> {
    let mut reader = Reader(message);
    let inner = reader.string(limit.saturating_sub(4))?;
    reader.end(Reader(inner))
}

/// What is left to be read (RFC 4251, section 5).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, NotServed> {
        let (byte, rest) = self.0.split_first().ok_or(NotServed)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Result<u32, NotServed> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(NotServed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn string(&mut self, limit: usize) -> Result<&'a [u8], NotServed> {
        let length = self.number()? as usize;
        if length > limit {
            return Err(NotServed);
        }
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(NotServed)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A name: printable, so that it can be shown and recorded.
    fn name(&mut self) -> Result<String, NotServed> {
        let name = std::str::from_utf8(self.string(MAX_NAME)?).map_err(|_| NotServed)?;
        let shown = name.bytes().all(|byte| byte.is_ascii_graphic());
        shown.then(|| name.to_owned()).ok_or(NotServed)
    }

    fn end<T>(&self, read: T) -> Result<T, NotServed> {
        self.0.is_empty().then_some(read).ok_or(NotServed)
    }
}
