//! What a token endpoint answers (RFC 6749, section 5), and what the guest is told instead.

use crate::forms::percent_encoded;
use crate::shape::{self, Alphabet::Base62, Piece, Shape};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token that counts as one, bytes.
const LONGEST: usize = 16 << 10;
/// Shortest: a shorter one would be found by accident.
const SHORTEST: usize = 16;
/// Beginnings that say of a token what it is, which a placeholder has in common with it. Of any other token nothing is known
/// to be the same in all of its kind.
const BEGINNINGS: [&str; 15] = [
    "sk-ant-oat01-",
    "sk-ant-ort01-",
    "sk-ant-api03-",
    "sk-or-v1-",
    "ya29.",
    "1//",
    "rt_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "ghp_",
    "github_pat_",
    "key_",
    "crsr_",
];

/// What is asked or answered: JSON, or a form (the older answers of GitHub).
#[derive(Clone, PartialEq, Eq)]
pub enum Document {
    /// An object.
    Json(Map<String, Value>),
    /// Names and values.
    Form(Vec<(String, String)>),
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Document")
    }
}

impl Document {
    /// Reads a body. `None`: it is neither.
    pub fn parse(body: &str) -> Option<Self> {
        let body = body.trim();
        if body.starts_with('{') {
            return match serde_json::from_str(body).ok()? {
                Value::Object(fields) => Some(Self::Json(fields)),
                _ => None,
            };
        }
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if body.is_empty() || !plain(body) || body.contains(['<', '[', '"']) {
            return None;
        }
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((decoded(name)?, decoded(value)?))
        };
        let pairs: Option<Vec<_>> = body.split('&').map(pair).collect();
        pairs.map(Self::Form)
    }

    /// The text under a name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self {
            Self::Json(fields) => fields.get(name)?.as_str(),
            Self::Form(pairs) => {
                let mut found = pairs.iter().filter(|(other, _)| other == name);
                found.next().map(|(_, value)| value.as_str())
            }
        }
    }

    fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.text(name))
    }

    fn number(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| match self {
            Self::Json(fields) => fields.get(*name)?.as_u64(),
            Self::Form(_) => self.text(name)?.parse().ok(),
        })
    }

    /// Sets a number, if it is there.
    pub fn set_number(&mut self, name: &str, number: u64) {
        match self {
            Self::Json(fields) => {
                if let Some(value) = fields.get_mut(name) {
                    *value = number.into();
                }
            }
            Self::Form(pairs) => {
                for (_, value) in pairs.iter_mut().filter(|(other, _)| other == name) {
                    *value = number.to_string();
                }
            }
        }
    }

    /// Other texts for these, wherever they stand, and none at all for what is called a secret besides.
    #[must_use]
    pub fn told(mut self, instead: &[(&str, &str)]) -> Self {
        match &mut self {
            Self::Json(fields) => {
                for (name, value) in fields.iter_mut() {
                    tell(name, value, instead);
                }
            }
            Self::Form(pairs) => {
                for (name, text) in pairs.iter_mut() {
                    tell_text(name, text, instead);
                }
            }
        }
        self
    }

    /// What an answer that issues nothing says (RFC 6749, section 5.2; RFC 8628, section 3.5), and nothing else of it.
    /// `None`: it is no such answer.
    pub fn error(&self) -> Option<Self> {
        const NAMES: [&str; 4] = ["error", "error_description", "error_uri", "interval"];
        self.text("error")?;
        Some(match self {
            Self::Json(fields) => {
                let kept = |(name, _): &(&String, &Value)| NAMES.contains(&name.as_str());
                let kept = fields.iter().filter(kept);
                Self::Json(kept.map(|(a, b)| (a.clone(), b.clone())).collect())
            }
            Self::Form(pairs) => {
                let kept = pairs.iter();
                let kept = kept.filter(|(name, _)| NAMES.contains(&name.as_str()));
                Self::Form(kept.cloned().collect())
            }
        })
    }

    /// As a body.
    pub fn body(&self) -> String {
        match self {
            Self::Json(fields) => Value::Object(fields.clone()).to_string(),
            Self::Form(pairs) => {
                let encode = |text: &str| percent_encoded(text.as_bytes());
                let pairs = pairs.iter();
                let pairs: Vec<String> = pairs
                    .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
                    .collect();
                pairs.join("&")
            }
        }
    }
}

/// A name or a value of a form. `None`: it is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                rest = &after[2..];
                let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                plain.then(|| u8::from_str_radix(digits, 16).ok())??
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn tell(name: &str, value: &mut Value, instead: &[(&str, &str)]) {
    match value {
        Value::String(text) => tell_text(name, text, instead),
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| tell(name, value, instead)),
        Value::Object(fields) => fields
            .iter_mut()
            .for_each(|(name, value)| tell(name, value, instead)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn tell_text(name: &str, text: &mut String, instead: &[(&str, &str)]) {
    let mut known = false;
    for (token, placeholder) in instead {
        if text.contains(token) {
            *text = text.replace(token, placeholder);
            known = true;
        }
    }
    if !known && text.len() >= SHORTEST && is_secret(name) {
        text.clear();
    }
}

/// Whether a field of that name holds a secret: one that is not known is not passed on.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts = [
        "token", "secret", "password", "private", "pem", "apikey", "api_key",
    ];
    let names = name.ends_with("token_type") || name.ends_with("tokentype");
    !names && parts.iter().any(|part| name.contains(part))
}

/// Tokens that were issued. Names as in the RFC, or in camel case as some write them.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token that requests carry.
    pub access: String,
    /// The one that another access token is had for.
    pub refresh: Option<String>,
    /// Who signed in (OpenID Connect Core 1.0, section 2).
    pub id: Option<String>,
    /// How long the access token is good.
    pub good: Good,
}

/// How long a token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// Nobody said.
    Unsaid,
    /// For so many seconds from now.
    For(u64),
    /// Until then, seconds since the Unix epoch.
    Until(u64),
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issued")
    }
}

impl Issued {
    /// From an answer. `names`: those of its access token. `None`: it holds none that can be one.
    pub fn of(answer: &Document, names: &[&str]) -> Option<Self> {
        let token = |names: &[&str]| {
            let found = answer.first(names)?;
            let fits = (SHORTEST..=LONGEST).contains(&found.len())
                && found.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| found.to_owned())
        };
        let access = token(names)?;
        let refresh = token(&["refresh_token", "refreshToken"]);
        let id = token(&["id_token", "idToken"]);
        let apart = |a: &Option<String>, b: &str| a.as_deref() != Some(b);
        // One text for two things could not have two placeholders.
        let refresh = refresh.filter(|text| *text != access);
        let id = id.filter(|text| *text != access && apart(&refresh, text));
        let said = answer.number(&["expires_in", "expiresIn"]).map(Good::For);
        let until = answer.number(&["expires_at", "expiresAt"]);
        let claimed = || claims(&access)?.get("exp")?.as_u64();
        let good = said.or_else(|| until.or_else(claimed).map(Good::Until));
        Some(Self {
            good: good.unwrap_or(Good::Unsaid),
            access,
            refresh,
            id,
        })
    }

    /// Who signed in, as far as the answer says so: something to tell accounts apart, and to show.
    pub fn account(&self, answer: &Document) -> Option<String> {
        let claims = |token: Option<&str>| {
            let claims = claims(token?)?;
            ["email", "sub"].iter().find_map(|name| {
                let text = claims.get(*name)?.as_str()?;
                Some(text.to_owned())
            })
        };
        let named = || {
            let Document::Json(fields) = answer else {
                return None;
            };
            let account = fields.get("account").or_else(|| fields.get("user"))?;
            let names = ["email_address", "email", "uuid", "id"];
            let text = names.iter().find_map(|name| account.get(name)?.as_str())?;
            Some(text.to_owned())
        };
        let found = named()
            .or_else(|| claims(self.id.as_deref()))
            .or_else(|| answer.first(&["authId", "auth_id"]).map(str::to_owned))
            .or_else(|| claims(Some(&self.access)))?;
        // It is shown: nothing in it may turn the direction of what follows.
        let turns = |c: &char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let shown = found.chars().filter(|c| !c.is_control() && !turns(c));
        let shown: String = shown.take(80).collect();
        Some(shown).filter(|shown| !shown.is_empty())
    }
}

/// A placeholder for a token. One whose claims are in it keeps them, because clients read them, and has another signature:
/// a JSON Web Token (RFC 7519), and a token of Copilot. One of GitHub has the checksum that its clients verify. Any other
/// has the beginning that says what it is, if that is known, and random text of the same length behind. `fill` gives random
/// bytes.
///
/// # Errors
/// That of `fill`.
pub fn placeholder<E>(
    token: &str,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<String, E> {
    if let Some(shape) = github(token) {
        return shape::render(shape, fill);
    }
    let mut random = |length: usize| {
        let mut bytes = vec![0; length];
        fill(&mut bytes)?;
        let mut text = URL_SAFE_NO_PAD.encode(bytes);
        text.truncate(length);
        Ok(text)
    };
    if let Some((claims, signature)) = signed(token) {
        // Long enough not to be guessed, whatever the algorithm.
        return Ok(format!("{claims}{}", random(signature.len().max(43))?));
    }
    let mut known = BEGINNINGS.iter();
    let kept = known.find(|one| token.starts_with(**one)).unwrap_or(&"");
    let length = (token.len() - kept.len()).max(32);
    Ok(format!("{kept}{}", random(length)?))
}

/// The part of a placeholder that nobody else has: all of it, or the signature behind claims.
pub fn own_part(placeholder: &str) -> &str {
    signed(placeholder).map_or(placeholder, |(_, signature)| signature)
}

/// Whether a placeholder shows claims, which are others in the next token.
pub fn has_claims(placeholder: &str) -> bool {
    signed(placeholder).is_some()
}

/// Claims with what stands before the signature, and the signature.
fn signed(token: &str) -> Option<(&str, &str)> {
    if claims(token).is_some() {
        let at = token.rfind('.')? + 1;
        return Some(token.split_at(at));
    }
    let at = token.rfind(':')? + 1;
    let (fields, signature) = token.split_at(at);
    let is_field = |field: &str| field.contains('=');
    let fields_only = fields.len() > 1 && fields[..at - 1].split(';').all(is_field);
    (fields_only && fields.contains(';') && signature.len() >= SHORTEST)
        .then_some((fields, signature))
}

/// The claims of a JSON Web Token, whoever signed it. `None`: it is none.
pub fn claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let object = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Map<String, Value>>(&bytes).ok()
    };
    if parts.next().is_some() || !object(header)?.contains_key("alg") {
        return None;
    }
    object(payload)
}

/// The shape of GitHub's tokens with a checksum.
fn github(token: &str) -> Option<Shape> {
    const fn shape(prefix: &'static str) -> [Piece; 3] {
        [
            Piece::Text(prefix),
            Piece::Random(Base62, 30),
            Piece::GithubChecksum,
        ]
    }
    static SHAPES: [[Piece; 3]; 5] = [
        shape("gho_"),
        shape("ghu_"),
        shape("ghs_"),
        shape("ghr_"),
        shape("ghp_"),
    ];
    let mut shapes = SHAPES.iter();
    let is_its = |shape: &&[Piece; 3]| match shape[0] {
        Piece::Text(prefix) => token.starts_with(prefix),
        _ => false,
    };
    shapes
        .find(is_its)
        .filter(|_| token.len() == 40)
        .map(|shape| &shape[..])
}

#[cfg(test)]
#[path = "oauth_tests.rs"]
mod tests;
