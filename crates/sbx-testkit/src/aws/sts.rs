//! STS: who somebody is, and keys that end.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::http::request::Parts;

use super::services::query;
use super::signature::{ANOTHER, Checked, Key};
use crate::http::{self, Reply};

/// The key has ended.
pub(super) const ENDED: &str = "The provided token has expired.";
/// Shortest time that a key may be asked for, seconds.
const SHORTEST_S: u64 = 900;

/// A key that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The key.
    pub key: Key,
    /// When it ends, seconds since the Unix epoch.
    pub end_s: u64,
}

/// What was given out.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Mutex<Vec<Issued>>,
    life: Mutex<Option<Duration>>,
}

impl Sessions {
    pub(super) fn set_life(&self, life: Duration) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life);
    }

    pub(super) fn issue(&self, life: Duration) -> Issued {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.len();
        let issued = Issued {
            key: Key {
                access_key_id: format!("ASIASHORTLIVED{number:06}"),
                secret: format!("short/lived+{number:028}"),
                session_token: Some(format!("tokenOfSession{number:028}")),
            },
            end_s: now_s() + life.as_secs(),
        };
        all.push(issued.clone());
        issued
    }

    /// Verifies with the lasting key, or with one of those that were given out.
    pub(super) fn check(
        &self,
        lasting: &Key,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Option<Checked>, &'static str> {
        let first = lasting.check(parts, body);
        if !matches!(first, Err(ANOTHER)) {
            return first;
        }
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for issued in all.iter() {
            match issued.key.check(parts, body) {
                Err(ANOTHER) => {}
                Ok(_) if issued.end_s <= now_s() => return Err(ENDED),
                checked => return checked,
            }
        }
        Err(ANOTHER)
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// `YYYY-MM-DDTHH:MM:SSZ`.
fn written(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Counted on from 2020, which is good for a stand-in.
    let (mut year, mut left) = (2020, days.saturating_sub(18_262));
    let leap = |year: u64| year.is_multiple_of(4);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let day = left + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

pub(super) fn answer(sessions: &Sessions, parts: &Parts, body: &Bytes) -> Reply {
    let form = String::from_utf8_lossy(body).into_owned();
    let query_ = parts.uri.query().unwrap_or_default();
    let field = |name: &str| {
        let mut pairs = form.split('&').chain(query_.split('&'));
        let of = |pair: &str| {
            let (found, value) = pair.split_once('=')?;
            (found == name).then(|| value.to_owned())
        };
        pairs.find_map(of)
    };
    let action = field("Action").unwrap_or_default();
    let temporary = parts.headers.contains_key("x-amz-security-token");
    match action.as_str() {
        "GetSessionToken" if temporary => refused(
            "AccessDenied",
            "Cannot call GetSessionToken with session credentials",
        ),
        "AssumeRole" if field("RoleArn").is_none() || field("RoleSessionName").is_none() => {
            refused("ValidationError", "RoleArn and RoleSessionName are needed")
        }
        "GetSessionToken" | "AssumeRole" => {
            let asked = field("DurationSeconds").and_then(|text| text.parse().ok());
            let asked: u64 = asked.unwrap_or(3600);
            if asked < SHORTEST_S {
                return refused("ValidationError", "DurationSeconds is below 900");
            }
            let life = *sessions.life.lock().unwrap_or_else(PoisonError::into_inner);
            let issued = sessions.issue(life.unwrap_or(Duration::from_secs(asked)));
            query(&action, &credentials(&issued))
        }
        _ => query(
            "GetCallerIdentity",
            "<Arn>arn:aws:iam::123456789012:user/somebody</Arn><UserId>AIDA</UserId><Account>123456789012</Account>",
        ),
    }
}

fn credentials(issued: &Issued) -> String {
    let key = &issued.key;
    format!(
        "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>",
        key.access_key_id,
        key.secret,
        key.session_token.as_deref().unwrap_or_default(),
        written(issued.end_s)
    )
}

fn refused(code: &str, message: &str) -> Reply {
    let text = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    http::whole(StatusCode::FORBIDDEN, "text/xml", text)
}
