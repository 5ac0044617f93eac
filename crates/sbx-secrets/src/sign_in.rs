//! What came of a sign-in (OAuth 2.0, RFC 6749): tokens, and what stands for them inside.

use sbx_wire::secret::SecretText;
use serde::{Deserialize, Serialize};

/// A token is refreshed when this part of its time is left, and no more than [`EARLIEST_MS`].
const EARLY: u64 = 10;
const EARLIEST_MS: u64 = 5 * 60 * 1000;
/// How often one token may have had other claims, until its oldest placeholder stands for nothing any more.
const GENERATIONS: usize = 3;

/// Beginning of the names that these have as secrets.
pub const SIGN_IN: &str = "oauth:";

/// Tokens of one account. The access token is the secret's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// Service that they are for.
    pub service: String,
    /// Host of the endpoint that issued them.
    pub host: String,
    /// Whose they are, if that was said.
    pub account: Option<String>,
    /// The client that they were issued to.
    pub client: Option<String>,
    /// What it proves itself with.
    pub client_secret: Option<SecretText>,
    /// The token that another access token is had for.
    pub refresh: Option<SecretText>,
    /// What stands for the access token inside, newest first.
    pub accesses: Vec<String>,
    /// For the refresh token.
    pub refreshes: Vec<String>,
    /// For the token that says who signed in.
    pub ids: Vec<String>,
    /// The newest answer as the guest may read it.
    pub told: String,
    /// When that came, milliseconds since the Unix epoch.
    pub got_ms: u64,
    /// When the access token is no longer good, if ever.
    pub expires_ms: Option<u64>,
}

/// What can be done with an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is good.
    Good,
    /// It is good, and another one is to be had.
    Due,
    /// It is not good any more.
    Over,
}

impl SignIn {
    /// How it stands at a time, milliseconds since the Unix epoch.
    pub fn standing(&self, now_ms: u64) -> Standing {
        match (self.due_ms(), self.expires_ms) {
            (_, Some(expires)) if now_ms >= expires => Standing::Over,
            (Some(due), _) if now_ms >= due => Standing::Due,
            _ => Standing::Good,
        }
    }

    /// When another access token is to be had; `None`: never.
    pub fn due_ms(&self) -> Option<u64> {
        let expires = self.expires_ms?;
        self.refresh.as_ref()?;
        let time = expires.saturating_sub(self.got_ms);
        Some(expires - (time / EARLY).min(EARLIEST_MS))
    }

    /// When its standing changes next.
    pub fn changes_ms(&self, now_ms: u64) -> Option<u64> {
        let times = [self.due_ms(), self.expires_ms];
        times.into_iter().flatten().filter(|at| *at > now_ms).min()
    }

    /// Everything that stands for one of its tokens, with whether it can be exchanged for others.
    pub fn placeholders(&self) -> impl Iterator<Item = (&str, bool)> {
        let accesses = self.accesses.iter().map(|text| (text.as_str(), false));
        let others = self.refreshes.iter().chain(&self.ids);
        accesses.chain(others.map(|text| (text.as_str(), true)))
    }
}

/// Puts another placeholder in front; those before it go on, as long as there is room.
pub fn put_in_front(placeholders: &mut Vec<String>, placeholder: String) {
    placeholders.insert(0, placeholder);
    placeholders.truncate(GENERATIONS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in(expires_ms: Option<u64>, refresh: Option<&str>) -> SignIn {
        SignIn {
            service: "anthropic".to_owned(),
            host: "login.test".to_owned(),
            account: None,
            client: None,
            client_secret: None,
            refresh: refresh.map(|text| SecretText::new(text.to_owned())),
            accesses: vec!["a".to_owned()],
            refreshes: vec!["r".to_owned()],
            ids: Vec::new(),
            told: String::new(),
            got_ms: 1_000_000,
            expires_ms,
        }
    }

    #[test]
    fn a_token_is_due_when_a_tenth_of_its_time_is_left_and_at_most_five_minutes() {
        let short = sign_in(Some(1_010_000), Some("r"));
        assert_eq!(short.due_ms(), Some(1_009_000));
        assert_eq!(short.standing(1_008_999), Standing::Good);
        assert_eq!(short.standing(1_009_000), Standing::Due);
        assert_eq!(short.standing(1_010_000), Standing::Over);
        assert_eq!(short.changes_ms(1_009_000), Some(1_010_000));
        let day = 24 * 3600 * 1000;
        let long = sign_in(Some(1_000_000 + day), Some("r"));
        assert_eq!(long.due_ms(), Some(1_000_000 + day - 300_000));
        // What nothing can be had for is used until it is over.
        let alone = sign_in(Some(1_010_000), None);
        assert_eq!(alone.standing(1_009_999), Standing::Good);
        assert_eq!(alone.standing(1_010_000), Standing::Over);
        assert_eq!(sign_in(None, Some("r")).standing(u64::MAX), Standing::Good);
    }

    #[test]
    fn the_last_few_placeholders_go_on() {
        let mut all = Vec::new();
        for text in ["1", "2", "3", "4"] {
            put_in_front(&mut all, text.to_owned());
        }
        assert_eq!(all, ["4", "3", "2"]);
    }
}
