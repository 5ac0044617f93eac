//! From the doors to the daemon and back: something that it is handed, one at a time, and what it makes of it.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};

/// What is on its way, and where to say that it was taken and what became of it.
#[derive(Debug)]
struct Handed<Q, A> {
    what: Q,
    taken: oneshot::Sender<()>,
    answer: oneshot::Sender<A>,
}

/// See the module.
#[derive(Debug)]
pub struct Desk<Q, A> {
    handed: mpsc::Sender<Handed<Q, A>>,
    taken: Mutex<mpsc::Receiver<Handed<Q, A>>>,
}

/// Nobody took it in time, or whoever did said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

impl<Q, A> Default for Desk<Q, A> {
    fn default() -> Self {
        let (handed, taken) = mpsc::channel(1);
        let taken = Mutex::new(taken);
        Self { handed, taken }
    }
}

impl<Q, A> Desk<Q, A> {
    /// Hands it to the daemon, which has to take it within the one limit, and waits for what becomes of it, as long as the
    /// other.
    pub async fn hand(&self, what: Q, take: Duration, deal: Duration) -> Result<A, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let (taken, was_taken) = oneshot::channel();
        let handed = Handed {
            what,
            taken,
            answer,
        };
        let hand_over = async {
            self.handed.send(handed).await.ok()?;
            was_taken.await.ok()
        };
        let handed_over = tokio::time::timeout(take, hand_over).await;
        handed_over.ok().flatten().ok_or(Unanswered)?;
        let dealt_with = tokio::time::timeout(deal, answered).await;
        dealt_with.map_err(|_| Unanswered)?.map_err(|_| Unanswered)
    }

    /// The next that somebody still waits for.
    pub async fn next(&self) -> Taken<Q, A> {
        let mut taken = self.taken.lock().await;
        loop {
            match taken.recv().await {
                Some(handed) if !handed.answer.is_closed() => {
                    let Handed {
                        what,
                        taken,
                        answer,
                    } = handed;
                    let _ = taken.send(());
                    return Taken { what, answer };
                }
                Some(_) => {}
                // The sender lives as long as we do.
                None => std::future::pending().await,
            }
        }
    }
}

/// What the daemon was handed. Dropped without a word it is unanswered.
#[derive(Debug)]
pub struct Taken<Q, A> {
    /// What it is.
    pub what: Q,
    answer: oneshot::Sender<A>,
}

impl<Q, A> Taken<Q, A> {
    /// What became of it.
    pub fn answer(self, answer: A) {
        // Whoever asked may have stopped waiting.
        let _ = self.answer.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_handed_over_is_taken_once_and_its_end_is_told() {
        let desk = Desk::default();
        let daemon = async {
            let taken = desk.next().await;
            assert_eq!(taken.what, "x");
            taken.answer(1);
            desk.next().await.answer(2);
            drop(desk.next().await);
        };
        let doors = async {
            let first = desk.hand("x", LIMIT, LIMIT).await;
            let second = desk.hand("y", LIMIT, LIMIT).await;
            (first, second, desk.hand("z", LIMIT, LIMIT).await)
        };
        let (outcome, ()) = tokio::join!(doors, daemon);
        assert_eq!(outcome, (Ok(1), Ok(2), Err(Unanswered)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_daemon_it_is_said_and_what_nobody_waits_for_is_not_taken_later() {
        let desk = Desk::default();
        for _ in 0..3 {
            assert_eq!(desk.hand("old", LIMIT, LIMIT).await, Err(Unanswered));
        }
        let (answer, what) = tokio::join!(desk.hand("new", LIMIT, LIMIT), async {
            let taken = desk.next().await;
            let what = taken.what;
            taken.answer(());
            what
        });
        assert_eq!((answer, what), (Ok(()), "new"));
    }
}
