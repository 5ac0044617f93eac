//! Codes and tokens.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Options;

/// What tokens look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text with a beginning.
    Opaque,
    /// JSON Web Tokens (RFC 7519), and one that says who signed in.
    Jwt,
}

/// What came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Refreshes that were granted.
    pub refreshes: u32,
    /// Refreshes that were refused or failed.
    pub refused: u32,
    /// Most refreshes at a time.
    pub at_a_time: u32,
    /// Requests with a good access token.
    pub granted: u32,
    /// Requests without one.
    pub denied: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Code {
    pub(super) account: String,
    pub(super) client: Option<String>,
    pub(super) redirect: Option<String>,
    /// S256 of the verifier.
    pub(super) challenge: Option<String>,
}

#[derive(Debug)]
struct Refresh {
    family: u64,
    account: String,
    used: bool,
}

#[derive(Debug)]
struct Access {
    family: u64,
    account: String,
    until: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State(Mutex<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) options: Options,
    pub(super) failing: (u32, u16),
    pub(super) held: bool,
    pub(super) counts: Counts,
    pub(super) given: Vec<String>,
    pub(super) now: u32,
    codes: HashMap<String, Code>,
    refreshes: HashMap<String, Refresh>,
    accesses: HashMap<String, Access>,
    families: u64,
    key: hmac::Key,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        Self(Mutex::new(Inner {
            options,
            failing: (0, 0),
            held: false,
            counts: Counts::default(),
            given: Vec::new(),
            now: 0,
            codes: HashMap::new(),
            refreshes: HashMap::new(),
            accesses: HashMap::new(),
            families: 0,
            key: hmac::Key::new(hmac::HMAC_SHA256, random(32).as_bytes()),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn agree(&self, code: &str, account: &str) {
        let code_of = Code {
            account: account.to_owned(),
            client: None,
            redirect: None,
            challenge: None,
        };
        self.lock().codes.insert(code.to_owned(), code_of);
    }
}

/// Why nothing is issued.
pub(super) type Refused = &'static str;

impl Inner {
    /// A new code for somebody who agreed.
    pub(super) fn code(&mut self, code: Code) -> String {
        let name = random(24);
        self.codes.insert(name.clone(), code);
        name
    }

    /// Whether somebody agreed to the code of this name, which is spent.
    pub(super) fn spend(&mut self, name: &str) -> Option<Code> {
        self.codes.remove(name)
    }

    /// Tokens for a code.
    pub(super) fn exchange(
        &mut self,
        ask: impl Fn(&str) -> Option<String>,
    ) -> Result<Value, Refused> {
        let code = ask("code").and_then(|name| self.spend(&name));
        let code = code.ok_or("invalid_grant")?;
        let is_same =
            |wanted: &Option<String>, name: &str| wanted.is_none() || *wanted == ask(name);
        if !is_same(&code.client, "client_id") || !is_same(&code.redirect, "redirect_uri") {
            return Err("invalid_grant");
        }
        if let Some(challenge) = &code.challenge {
            let verifier = ask("code_verifier").ok_or("invalid_grant")?;
            let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
            if URL_SAFE_NO_PAD.encode(hash) != *challenge {
                return Err("invalid_grant");
            }
        }
        Ok(self.sign_in(&code.account))
    }

    /// Tokens of a new sign-in.
    pub(super) fn sign_in(&mut self, account: &str) -> Value {
        self.families += 1;
        self.issue(self.families, account)
    }

    /// Other tokens for a refresh token.
    pub(super) fn refresh(&mut self, token: &str) -> Result<Value, Refused> {
        let Some(found) = self.refreshes.get_mut(token) else {
            return Err("invalid_grant");
        };
        let (family, account) = (found.family, found.account.clone());
        if std::mem::replace(&mut found.used, true) {
            // Somebody has a copy: nobody goes on with it (RFC 9700, section 4.14.2).
            self.refreshes.retain(|_, one| one.family != family);
            self.accesses.retain(|_, one| one.family != family);
            return Err("invalid_grant");
        }
        // The older access tokens are good no longer, as with those who allow one at a time.
        self.accesses.retain(|_, one| one.family != family);
        self.counts.refreshes += 1;
        Ok(self.issue(family, &account))
    }

    pub(super) fn revoke(&mut self, account: &str) {
        self.refreshes.retain(|_, one| one.account != account);
        self.accesses.retain(|_, one| one.account != account);
    }

    /// Whose access token that is, if it is good.
    pub(super) fn account(&mut self, token: &str) -> Option<String> {
        let found = self.accesses.get(token);
        let found = found.filter(|one| Instant::now() < one.until);
        let account = found.map(|one| one.account.clone());
        match account {
            Some(_) => self.counts.granted += 1,
            None => self.counts.denied += 1,
        }
        account
    }

    fn issue(&mut self, family: u64, account: &str) -> Value {
        let seconds = self.options.lifetime.as_secs();
        let access = self.token("sk-ant-oat01-", account, self.options.lifetime);
        self.keep(family, account, &access);
        let refresh = format!("sk-ant-ort01-{}", random(60));
        let record = Refresh {
            family,
            account: account.to_owned(),
            used: false,
        };
        self.refreshes.insert(refresh.clone(), record);
        self.given.push(refresh.clone());
        let mut answer = json!({
            "token_type": "Bearer",
            "access_token": access,
            "refresh_token": refresh,
            "expires_in": seconds,
            "scope": "user:inference user:profile",
            "account": { "uuid": format!("uuid-of-{account}"), "email_address": account },
        });
        if self.options.style == Style::Jwt {
            let id = self.jwt(account, self.options.lifetime);
            self.given.push(id.clone());
            answer["id_token"] = id.into();
        }
        answer
    }

    /// One token alone.
    pub(super) fn key(&mut self, prefix: &str, account: &str) -> String {
        let key = format!("{prefix}{}", random(44));
        self.families += 1;
        self.keep(self.families, account, &key);
        key
    }

    fn keep(&mut self, family: u64, account: &str, token: &str) {
        self.given.push(token.to_owned());
        let access = Access {
            family,
            account: account.to_owned(),
            until: Instant::now() + self.options.lifetime,
        };
        self.accesses.insert(token.to_owned(), access);
    }

    fn token(&self, prefix: &str, account: &str, lifetime: Duration) -> String {
        match self.options.style {
            Style::Opaque => format!("{prefix}{}", random(72)),
            Style::Jwt => self.jwt(account, lifetime),
        }
    }

    fn jwt(&self, account: &str, lifetime: Duration) -> String {
        let until = SystemTime::now() + lifetime;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = json!({ "alg": "HS256", "typ": "JWT" });
        let claims = json!({
            "sub": format!("user-of-{account}"),
            "email": account,
            "exp": until.as_secs(),
            "jti": random(12),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn random(length: usize) -> String {
    let mut bytes = vec![0; length];
    // A stand-in that has no chance stops the test that asks it.
    assert!(rand::fill(&mut bytes).is_ok(), "no randomness");
    let mut text = URL_SAFE_NO_PAD.encode(bytes);
    text.truncate(length);
    text
}
