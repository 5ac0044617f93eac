//! Keys that end soon, which the host asks STS for with a key that it keeps.
//!
//! Source: AWS, "GetSessionToken" and "AssumeRole" (STS API Reference); "Container credential provider" (SDKs and Tools
//! Reference Guide) for the form in which programs read one.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use zeroize::Zeroizing;

use super::canonical::encode;
use super::claim::{Head, MAX_SKEW};
use super::host::Endpoint;
use super::key::Keys;
use super::resign::sign_own;
use super::time::Timestamp;

/// How long a key is asked for, seconds: the shortest time that STS gives.
pub const LIFE_S: u64 = 900;
/// Longest name of a session of a role, bytes.
const MAX_NAME: usize = 64;
/// Version of the interface.
const VERSION: &str = "2011-06-15";

/// Whether somebody shows the token that keys are handed in for. Takes as long for every wrong one of its length.
pub fn shows_token(shown: &[u8], token: &str) -> bool {
    verify_slices_are_equal(shown, token.as_bytes()).is_ok()
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// Region whose STS is asked.
    pub region: &'a str,
    /// A role to take on; without one it is a session of the key's own user.
    pub role: Option<&'a str>,
    /// What the session is called in the account's records, e.g. the sandbox's name.
    pub name: &'a str,
}

/// A `POST` to STS.
pub struct Request {
    /// Host, port 443.
    pub host: String,
    /// Headers, signed.
    pub headers: HeaderMap,
    /// A form. Holds nothing secret.
    pub body: String,
}

/// Why there is no session: a sentence that the guest may read, without its subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSession {
    /// No such region.
    #[error("{0:?} is no region that has an STS")]
    Region(String),
    /// A key that has an end cannot ask for another one by itself.
    #[error(
        "the stored key is a temporary one, with which STS gives no session; store it with --role"
    )]
    Temporary,
    /// STS says so.
    #[error("STS refuses it: {0}")]
    Refused(String),
    /// Not what STS answers.
    #[error("STS answers with something that is no key")]
    Answer,
    /// It would be good for longer than was asked, or has ended.
    #[error("STS answers with a key that does not end within 15 minutes, or has ended")]
    End,
}

impl Ask<'_> {
    /// The request, signed with the key at this time.
    pub fn request(&self, keys: &Keys, time: Timestamp) -> Result<Request, NoSession> {
        if self.role.is_none() && keys.session_token().is_some() {
            return Err(NoSession::Temporary);
        }
        let (host, endpoint) = self.endpoint()?;
        let body = self.body();
        let mut headers = HeaderMap::new();
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
        let none = HeaderMap::new();
        let head = Head {
            method: "POST",
            path: "/",
            query: None,
            host: &host,
            headers: &none,
        };
        sign_own(
            &head,
            &mut headers,
            (&endpoint, keys),
            time,
            body.as_bytes(),
        )
        .ok_or_else(|| NoSession::Region(self.region.to_owned()))?;
        Ok(Request {
            host,
            headers,
            body,
        })
    }

    /// The STS of the region: its host, and what it is signed for.
    pub fn endpoint(&self) -> Result<(String, Endpoint), NoSession> {
        let found = Endpoint::of_region("sts", self.region);
        found.ok_or_else(|| NoSession::Region(self.region.to_owned()))
    }

    fn body(&self) -> String {
        let action = if self.role.is_some() {
            "AssumeRole"
        } else {
            "GetSessionToken"
        };
        let mut body = format!("Action={action}&Version={VERSION}&DurationSeconds={LIFE_S}");
        if let Some(role) = self.role {
            let fits = |c: &char| c.is_ascii_alphanumeric() || "=,.@-_".contains(*c);
            let name = format!("sbx-{}", self.name);
            let name: String = name.chars().filter(fits).take(MAX_NAME).collect();
            for (field, value) in [("RoleArn", role), ("RoleSessionName", &name)] {
                body.push('&');
                body.push_str(field);
                body.push('=');
                encode(value.as_bytes(), &mut body);
            }
        }
        body
    }
}

/// A key that ends soon. `Debug` shows nothing of it.
pub struct Session {
    access_key_id: String,
    secret: Zeroizing<String>,
    token: Zeroizing<String>,
    end: Timestamp,
    /// As STS wrote it.
    expiration: String,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Session");
        debug.field("expiration", &self.expiration);
        debug.finish_non_exhaustive()
    }
}

impl Session {
    /// Reads what STS answered. `now`: seconds since the Unix epoch.
    pub fn of_answer(status: u16, text: &str, now: u64) -> Result<Self, NoSession> {
        if status != 200 {
            let code = element(text, "Code").filter(|code| {
                (1..=MAX_NAME).contains(&code.len())
                    && code.bytes().all(|b| b.is_ascii_alphanumeric())
            });
            let code = code.map_or_else(|| format!("status {status}"), str::to_owned);
            return Err(NoSession::Refused(code));
        }
        let field = |name: &str| element(text, name).ok_or(NoSession::Answer);
        let (id, secret) = (field("AccessKeyId")?, field("SecretAccessKey")?);
        let (token, expiration) = (field("SessionToken")?, field("Expiration")?);
        let whole = Zeroizing::new(format!("{id}:{secret}:{token}"));
        let keys = Keys::parse(&whole).map_err(|_| NoSession::Answer)?;
        if keys.access_key_id() != id || keys.session_token() != Some(token) {
            return Err(NoSession::Answer);
        }
        let end = Timestamp::of_rfc3339(expiration).ok_or(NoSession::Answer)?;
        if end.seconds() <= now || end.seconds() > now.saturating_add(LIFE_S + MAX_SKEW) {
            return Err(NoSession::End);
        }
        Ok(Self {
            access_key_id: id.to_owned(),
            secret: secret.to_owned().into(),
            token: token.to_owned().into(),
            expiration: expiration.to_owned(),
            end,
        })
    }

    /// Its access key id.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// When it ends, seconds since the Unix epoch.
    pub fn end_s(&self) -> u64 {
        self.end.seconds()
    }

    /// As programs read it.
    pub fn document(&self) -> Zeroizing<String> {
        let value = json!({
            "AccessKeyId": self.access_key_id,
            "SecretAccessKey": *self.secret,
            "Token": *self.token,
            "Expiration": self.expiration,
        });
        value.to_string().into()
    }
}

/// The text of the one element of this name, which has nothing but plain text in it.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (_, rest) = text.split_once(&open)?;
    let (inner, rest) = rest.split_once(&close)?;
    let one = !rest.contains(&open) && !inner.contains(['<', '&']);
    one.then(|| inner.trim())
}
