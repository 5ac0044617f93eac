//! Values in memory: fetched or read from the keychain, used for their time, fetched anew before it is over.
//!
//! One fetch at a time for each secret. A value whose time is over is not used, whatever became of the fetch for the next one.

use crate::fetch::{self, Failure};
use crate::keychain::{Keychain, Person};
use crate::recipe::{Recipe, Refresh};
use crate::secret::{Key, Secret, Source};
use sbx_wire::secret::SecretText;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Between a failed attempt and the next one; less for values whose time is short.
const RETRY: Duration = Duration::from_secs(15);
const SOONEST_RETRY: Duration = Duration::from_secs(1);
/// A value is fetched anew when this part of its time is left.
const EARLY: u32 = 10;

/// What a gateway can be given of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// The value.
    Value(SecretText),
    /// It is fetched each time it is needed.
    OnDemand,
    /// It cannot be had; a sentence that the guest may read.
    Unavailable(String),
}

/// See the module.
#[derive(Debug)]
pub struct Values {
    keychain: Keychain,
    states: Mutex<HashMap<Key, State>>,
}

/// What is known about one secret.
#[derive(Debug, Default)]
struct State {
    value: Option<SecretText>,
    /// When the value was had, and when its time is over.
    got: Option<(Instant, Option<Instant>)>,
    problem: Option<Failure>,
    /// When the last attempt ended.
    tried: Option<Instant>,
    /// How many attempts have ended.
    attempts: u64,
    /// Held while one is made.
    flight: Arc<tokio::sync::Mutex<()>>,
}

impl State {
    fn usable(&self, now: Instant) -> Option<&SecretText> {
        let over = self.got.and_then(|(_, over)| over);
        let fresh = over.is_none_or(|over| now < over);
        self.value.as_ref().filter(|_| fresh)
    }

    /// When the next attempt is due; `None`: never. One that is due already may be of any time that has been.
    fn due(&self) -> Option<Instant> {
        let time = self.got.and_then(|(got, over)| Some(over? - got));
        let planned = match (&self.value, self.got) {
            (Some(_), Some((_, None))) => return None,
            (Some(_), Some((_, Some(over)))) => Some(over - time.unwrap_or_default() / EARLY),
            _ => None,
        };
        let retry = time.map_or(RETRY, |time| (time / EARLY).clamp(SOONEST_RETRY, RETRY));
        let soonest = self.problem.as_ref().and(self.tried);
        let soonest = soonest.map(|tried| tried + retry);
        planned.max(soonest).or_else(|| Some(Instant::now()))
    }
}

impl Values {
    /// Nothing is known yet.
    pub fn new(keychain: Keychain) -> Self {
        Self {
            keychain,
            states: Mutex::default(),
        }
    }

    /// The keychain that values are read from.
    pub fn keychain(&self) -> &Keychain {
        &self.keychain
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Key, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is known about a secret, because it was stored anew or removed. An attempt that is being made changes
    /// nothing any more.
    pub fn forget(&self, key: &Key) {
        self.states().remove(key);
    }

    /// Notes a value that was just fetched or stored.
    pub fn note(&self, secret: &Secret, value: SecretText) {
        self.states().remove(&secret.key);
        self.finish(secret, None, Ok(value));
    }

    /// What there is of a secret's value now.
    pub fn held(&self, secret: &Secret) -> Held {
        match &secret.source {
            Source::File(value) => return Held::Value(value.clone()),
            Source::Recipe(Recipe {
                refresh: Refresh::OnDemand,
                ..
            }) => return Held::OnDemand,
            Source::Recipe(_) | Source::Keychain(_) => {}
        }
        let states = self.states();
        let state = states.get(&secret.key);
        if let Some(value) = state.and_then(|state| state.usable(Instant::now())) {
            return Held::Value(value.clone());
        }
        let problem = state.and_then(|state| state.problem.as_ref());
        Held::Unavailable(problem.map_or_else(
            || "its value has not been read yet".to_owned(),
            |problem| problem.sentence.clone(),
        ))
    }

    /// Whether its value is kept in memory between requests.
    pub fn is_kept(&self, secret: &Secret) -> bool {
        match &secret.source {
            Source::File(_) => false,
            Source::Keychain(_) => true,
            Source::Recipe(recipe) => recipe.refresh != Refresh::OnDemand,
        }
    }

    /// When another value is to be fetched; `None`: never.
    pub fn due(&self, secret: &Secret) -> Option<Instant> {
        if !self.is_kept(secret) {
            return None;
        }
        let states = self.states();
        match states.get(&secret.key) {
            Some(state) => state.due(),
            None => Some(Instant::now()),
        }
    }

    /// When the time of its value will be over; `None`: it is, or never will be.
    pub fn over(&self, secret: &Secret) -> Option<Instant> {
        let states = self.states();
        let (_, over) = states.get(&secret.key)?.got?;
        over.filter(|over| Instant::now() < *over)
    }

    /// Fetches the value now. Whoever comes while it is being fetched gets what comes of that.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn fetch(&self, secret: &Secret, person: Person) -> Result<SecretText, Failure> {
        let (flight, attempts) = {
            let mut states = self.states();
            let state = states.entry(secret.key.clone()).or_default();
            (state.flight.clone(), state.attempts)
        };
        let _turn = flight.lock().await;
        if let Some(state) = self.states().get(&secret.key)
            && Arc::ptr_eq(&state.flight, &flight)
            && state.attempts > attempts
        {
            return match (&state.problem, &state.value) {
                (None, Some(value)) => Ok(value.clone()),
                (problem, _) => Err(problem.clone().unwrap_or_else(gone)),
            };
        }
        let outcome = self.attempt(secret, person).await;
        self.finish(secret, Some(&flight), outcome.clone());
        outcome
    }

    async fn attempt(&self, secret: &Secret, person: Person) -> Result<SecretText, Failure> {
        match &secret.source {
            Source::File(value) => Ok(value.clone()),
            Source::Recipe(recipe) => fetch::fetch(recipe, fetch::LIMIT).await,
            Source::Keychain(place) => self
                .keychain
                .get(&place.id, person)
                .await
                .map_err(|trouble| Failure::new(trouble.to_string())),
        }
    }

    /// Notes what came of an attempt, unless the secret has become another one meanwhile.
    fn finish(
        &self,
        secret: &Secret,
        flight: Option<&Arc<tokio::sync::Mutex<()>>>,
        outcome: Result<SecretText, Failure>,
    ) {
        let now = Instant::now();
        let mut states = self.states();
        let state = match flight {
            None => states.entry(secret.key.clone()).or_default(),
            Some(flight) => match states.get_mut(&secret.key) {
                Some(state) if Arc::ptr_eq(&state.flight, flight) => state,
                _ => return,
            },
        };
        state.attempts += 1;
        state.tried = Some(now);
        match outcome {
            Ok(value) => {
                let time = match &secret.source {
                    Source::Recipe(recipe) => recipe.refresh.time(),
                    Source::File(_) | Source::Keychain(_) => None,
                };
                state.value = Some(value);
                state.got = Some((now, time.map(|time| now + time)));
                state.problem = None;
            }
            Err(failure) => state.problem = Some(failure),
        }
    }
}

fn gone() -> Failure {
    Failure::new("it was removed")
}
