//! Work that is due for something stored: one attempt for each at a time, and rest until there may be more to do.

use sbx_secrets::Key;
use std::collections::HashSet;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The attempts that go on. They end with the value.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    tasks: JoinSet<Key>,
    busy: HashSet<Key>,
}

impl Attempts {
    /// Whether one goes on for this.
    pub(crate) fn is_busy(&self, key: &Key) -> bool {
        self.busy.contains(key)
    }

    /// Begins one, unless one goes on.
    pub(crate) fn begin(&mut self, key: &Key, attempt: impl Future<Output = ()> + Send + 'static) {
        if self.busy.insert(key.clone()) {
            let key = key.clone();
            self.tasks.spawn(async move {
                attempt.await;
                key
            });
        }
    }

    /// Waits until one is over, something has changed, or it is time. Returns whether something has changed.
    pub(crate) async fn rest(&mut self, changed: &Notify, until: Option<Instant>) -> bool {
        let time = async {
            match until {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = self.tasks.join_next() => {
                match done {
                    Ok(key) => { self.busy.remove(&key); }
                    // One that panicked named no key: all of them count as over.
                    Err(_) => self.busy.clear(),
                }
                false
            }
            () = changed.notified() => true,
            () = time => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_secrets::Scope;
    use std::time::Duration;

    fn key(name: &str) -> Key {
        Key {
            name: name.to_owned(),
            scope: Scope::Global,
        }
    }

    #[tokio::test]
    async fn there_is_one_attempt_at_a_time_and_one_that_panics_holds_nothing_up() {
        let (mut attempts, changed) = (Attempts::default(), Notify::new());
        let hour = Some(Instant::now() + Duration::from_hours(1));
        attempts.begin(&key("slow"), std::future::pending());
        attempts.begin(&key("slow"), async { panic!("a second one") });
        assert!(attempts.is_busy(&key("slow")) && !attempts.is_busy(&key("other")));
        attempts.begin(&key("other"), async {});
        assert!(!attempts.rest(&changed, hour).await);
        assert!(attempts.is_busy(&key("slow")) && !attempts.is_busy(&key("other")));
        attempts.begin(&key("other"), async { panic!("an attempt that panics") });
        assert!(!attempts.rest(&changed, hour).await);
        assert!(!attempts.is_busy(&key("other")));
        changed.notify_one();
        assert!(attempts.rest(&changed, hour).await);
        assert!(!attempts.rest(&changed, Some(Instant::now())).await);
    }
}
