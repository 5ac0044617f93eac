//! What a token endpoint answers (RFC 6749, section 5.1), and what the guest is told instead.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Tokens that were issued. Names as in the RFC, or in camel case as some write them.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token that requests carry.
    pub access: String,
    /// The one that another access token is had for.
    pub refresh: Option<String>,
    /// Who signed in (OpenID Connect Core 1.0, section 2).
    pub id: Option<String>,
    /// Seconds for which the access token is good.
    pub expires_in: Option<u64>,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issued")
    }
}

/// Longest token that counts as one, bytes.
const LONGEST: usize = 16 << 10;
/// Shortest: a shorter one would be found by accident.
const SHORTEST: usize = 16;

impl Issued {
    /// From an answer in JSON. `None`: it holds no access token that can be one.
    pub fn parse(body: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(body).ok()?;
        let text = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| value[name].as_str())?;
            let fits = (SHORTEST..=LONGEST).contains(&found.len())
                && found.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| found.to_owned())
        };
        let number = |names: [&str; 2]| names.iter().find_map(|name| value[name].as_u64());
        Some(Self {
            access: text(["access_token", "accessToken"])?,
            refresh: text(["refresh_token", "refreshToken"]),
            id: text(["id_token", "idToken"]),
            expires_in: number(["expires_in", "expiresIn"]),
        })
    }
}

/// The answer with other texts for the tokens, wherever they stand in it. `None`: it is not JSON.
pub fn told(body: &str, instead: &[(&str, &str)]) -> Option<String> {
    let mut value: Value = serde_json::from_str(body).ok()?;
    replace(&mut value, instead);
    Some(value.to_string())
}

fn replace(value: &mut Value, instead: &[(&str, &str)]) {
    match value {
        Value::String(text) => {
            for (token, placeholder) in instead {
                if text.contains(token) {
                    *text = text.replace(token, placeholder);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, instead)),
        Value::Object(fields) => {
            fields
                .values_mut()
                .for_each(|value| replace(value, instead));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A placeholder for a token. One that is a JSON Web Token (RFC 7519) keeps its claims, because clients read them, and
/// has another signature; any other has the beginning of what it stands for and random text of the same length behind.
/// `fill` gives random bytes; `prefix`: how many bytes the beginning has at most.
///
/// # Errors
/// That of `fill`.
pub fn placeholder<E>(
    token: &str,
    prefix: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<String, E> {
    let mut random = |length: usize| {
        let mut bytes = vec![0; length];
        fill(&mut bytes)?;
        let mut text = URL_SAFE_NO_PAD.encode(bytes);
        text.truncate(length);
        Ok(text)
    };
    if let Some((claims, signature)) = jwt(token) {
        // Long enough not to be guessed, whatever the algorithm.
        return Ok(format!("{claims}.{}", random(signature.len().max(43))?));
    }
    let kept = prefix.min(token.len() / 2);
    let length = (token.len() - kept).max(32);
    Ok(format!("{}{}", &token[..kept], random(length)?))
}

/// Header and claims of a JSON Web Token, and its signature.
fn jwt(token: &str) -> Option<(&str, &str)> {
    let (claims, signature) = token.rsplit_once('.')?;
    let (header, payload) = claims.split_once('.')?;
    let object = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        value.is_object().then_some(value)
    };
    object(header)?.get("alg")?;
    object(payload)?;
    Some((claims, signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "chance can fail elsewhere")]
    fn fill(bytes: &mut [u8]) -> Result<(), std::convert::Infallible> {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(at * 37 % 251).unwrap_or_default();
        }
        Ok(())
    }

    #[test]
    fn tokens_are_read_in_both_spellings_and_nothing_else_is_taken_for_one() {
        let snake = r#"{"access_token":"sk-ant-oat01-abcdefgh","refresh_token":"sk-ant-ort01-abcdefgh","expires_in":28800}"#;
        let issued = Issued::parse(snake).unwrap();
        assert_eq!(issued.access, "sk-ant-oat01-abcdefgh");
        assert_eq!(issued.refresh.as_deref(), Some("sk-ant-ort01-abcdefgh"));
        assert_eq!((issued.id, issued.expires_in), (None, Some(28800)));
        let camel = r#"{"accessToken":"0123456789abcdef","refreshToken":null}"#;
        assert_eq!(Issued::parse(camel).unwrap().access, "0123456789abcdef");
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"access_token":"short"}"#,
            r#"{"access_token":"with a space inside"}"#,
            r#"{"access_token":5}"#,
            "access_token=0123456789abcdef",
        ] {
            assert!(Issued::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_guest_is_told_everything_but_the_tokens() {
        let body = r#"{"access_token":"aaaaaaaaaaaaaaaa","n":1,"account":{"copies":["x aaaaaaaaaaaaaaaa"]}}"#;
        let told = told(body, &[("aaaaaaaaaaaaaaaa", "placeholder")]).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["access_token"], "placeholder");
        assert_eq!(told["account"]["copies"][0], "x placeholder");
        assert_eq!(told["n"], 1);
        assert_eq!(super::told("no json", &[]), None);
    }

    #[test]
    fn a_placeholder_has_the_shape_of_its_token_and_a_jwt_its_claims() {
        let token = "sk-ant-oat01-0123456789abcdefghijklmnopqrstuvwxyz";
        let made = placeholder(token, 13, fill).unwrap();
        assert!(made.starts_with("sk-ant-oat01-") && made.len() == token.len());
        assert_ne!(made, token);
        // A short one has no room for a beginning and enough chance.
        let made = placeholder("0123456789abcdef", 13, fill).unwrap();
        assert!(made.starts_with("01234567") && made.len() == 40, "{made}");
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let claims = format!("{}.{}", part(r#"{"alg":"RS256"}"#), part(r#"{"sub":"me"}"#));
        let made = placeholder(&format!("{claims}.c2lnbmF0dXJl"), 13, fill).unwrap();
        let (kept, signature) = made.rsplit_once('.').unwrap();
        assert_eq!(kept, claims);
        assert!(signature.len() == 43 && signature != "c2lnbmF0dXJl");
        // Dots alone make none.
        let made = placeholder("a.b.cdefghijklmnopqrstuv", 2, fill).unwrap();
        assert!(made.starts_with("a.") && !made.contains("cdef"), "{made}");
    }
}
