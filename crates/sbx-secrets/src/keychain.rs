//! The keychain of the user's session, with a time limit on every call: a service that does not answer would hold up its
//! caller for ever.

use sbx_wire::secret::SecretText;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Time for a call while nobody can be asked to unlock it.
pub(crate) const UNATTENDED: Duration = Duration::from_secs(2);
/// Time for a call while somebody may be typing a password into its window.
pub(crate) const ATTENDED: Duration = Duration::from_mins(1);
/// Calls that are not answered, each of which holds a thread, before no further one is made.
const MAX_WAITING: usize = 4;

/// Why a keychain did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There is none.
    Absent(String),
    /// It is locked.
    Locked,
    /// It gave no answer in time.
    Silent,
    /// It has no such entry.
    NoEntry,
    /// It refused.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) => write!(f, "there is no keychain: {why}"),
            Self::Locked => f.write_str("the keychain is locked"),
            Self::Silent => f.write_str("the keychain does not answer"),
            Self::NoEntry => f.write_str("the keychain does not have it any more"),
            Self::Failed(why) => write!(f, "the keychain refused: {why}"),
        }
    }
}

/// A store of values, each an entry of its own. Calls may take as long as they like, and may ask the user for a password;
/// [`Keychain`] sees to both.
pub trait SecretStore {
    /// Whether something has to be unlocked first. Never asks the user.
    ///
    /// # Errors
    /// The store cannot be reached.
    fn is_locked(&self) -> Result<bool, Trouble>;

    /// The value of an entry.
    ///
    /// # Errors
    /// There is none, or the store refuses.
    fn get(&self, id: &str) -> Result<SecretText, Trouble>;

    /// Stores a value. `label`: what people see in the keychain's own list.
    ///
    /// # Errors
    /// The store refuses.
    fn set(&self, id: &str, label: &str, value: &SecretText) -> Result<(), Trouble>;

    /// Removes an entry.
    ///
    /// # Errors
    /// There is none, or the store refuses.
    fn remove(&self, id: &str) -> Result<(), Trouble>;
}

/// Whether somebody sits at a terminal and may see the keychain ask for a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// Yes.
    Present,
    /// No: a locked keychain is an error.
    Absent,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Keychain {
    connect: fn() -> Result<Box<dyn SecretStore>, Trouble>,
    waiting: Arc<AtomicUsize>,
}

impl Keychain {
    /// The keychain that `connect` finds, anew for each call: it may have been restarted meanwhile.
    pub fn new(connect: fn() -> Result<Box<dyn SecretStore>, Trouble>) -> Self {
        Self {
            connect,
            waiting: Arc::default(),
        }
    }

    /// Whether there is one that answers; a locked one does.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn probe(&self) -> Result<(), Trouble> {
        self.call(UNATTENDED, |store| store.is_locked().map(drop))
            .await
    }

    /// The value of an entry.
    ///
    /// # Errors
    /// As [`Trouble`] says.
    pub async fn get(&self, id: &str, person: Person) -> Result<SecretText, Trouble> {
        let id = id.to_owned();
        self.unlocked(person, move |store| store.get(&id)).await
    }

    /// Stores a value.
    ///
    /// # Errors
    /// As [`Trouble`] says. The value may turn up in the keychain all the same, when it answers later.
    pub async fn set(
        &self,
        id: &str,
        label: &str,
        value: SecretText,
        person: Person,
    ) -> Result<(), Trouble> {
        let (id, label) = (id.to_owned(), label.to_owned());
        self.unlocked(person, move |store| store.set(&id, &label, &value))
            .await
    }

    /// Removes an entry. One that is not there is removed.
    ///
    /// # Errors
    /// As [`Trouble`] says.
    pub async fn remove(&self, id: &str, person: Person) -> Result<(), Trouble> {
        let id = id.to_owned();
        let gone = move |store: &dyn SecretStore| match store.remove(&id) {
            Err(Trouble::NoEntry) => Ok(()),
            outcome => outcome,
        };
        self.unlocked(person, gone).await
    }

    async fn unlocked<T: Send + 'static>(
        &self,
        person: Person,
        work: impl FnOnce(&dyn SecretStore) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let limit = match person {
            Person::Present => ATTENDED,
            Person::Absent => UNATTENDED,
        };
        self.call(limit, move |store| {
            // Asked to do something while it is locked, it would open a window on somebody's screen.
            if person == Person::Absent && store.is_locked()? {
                return Err(Trouble::Locked);
            }
            work(store)
        })
        .await
    }

    async fn call<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&dyn SecretStore) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let waiting = self.waiting.clone();
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Trouble::Silent);
        }
        let connect = self.connect;
        let (answer, answered) = oneshot::channel();
        let thread = std::thread::Builder::new().name("keychain".to_owned());
        let spawned = thread.spawn(move || {
            let outcome = connect().and_then(|store| work(&*store));
            waiting.fetch_sub(1, Ordering::Relaxed);
            // Nobody waits for it any more.
            let _late = answer.send(outcome);
        });
        if let Err(error) = spawned {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Trouble::Failed(error.to_string()));
        }
        match tokio::time::timeout(limit, answered).await {
            Err(_) => Err(Trouble::Silent),
            Ok(Err(_)) => Err(Trouble::Failed("its client failed".to_owned())),
            Ok(Ok(outcome)) => outcome,
        }
    }
}
