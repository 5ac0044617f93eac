//! Values that are asked for when they are needed: from a request, through the daemon's connection, and back. One
//! question at a time for each service; who comes while it is on its way shares its answer.

use std::collections::HashMap;
use std::sync::{Mutex as BlockingMutex, MutexGuard, PoisonError};
use std::time::Duration;

use sbx_wire::secret::SecretText;
use tokio::sync::{Mutex, mpsc, watch};

use crate::limits;

/// A value, or why there is none, for the guest.
pub type Outcome = Result<SecretText, String>;

const NOBODY: &str = "Nobody on the host looks for the value; is the sbx daemon running?";
const NO_ANSWER: &str = "The host gave no answer";

/// How far a question is.
#[derive(Debug, Clone)]
enum State {
    /// Nobody has taken it.
    Put,
    /// The daemon looks for the value.
    Taken,
    Answered(Outcome),
}

type Pending = watch::Receiver<State>;

/// See the module.
#[derive(Debug)]
pub struct Values {
    questions: mpsc::Sender<Question>,
    taken: Mutex<mpsc::Receiver<Question>>,
    asked: BlockingMutex<HashMap<String, Pending>>,
}

/// A question that the daemon was given. Dropped without a word there is no value.
#[derive(Debug)]
pub struct Question {
    /// Service of the credential.
    pub service: String,
    answer: watch::Sender<State>,
}

impl Question {
    /// What the daemon says.
    pub fn answered(self, outcome: Outcome) {
        self.answer.send_replace(State::Answered(outcome));
    }
}

impl Default for Values {
    fn default() -> Self {
        let (questions, taken) = mpsc::channel(limits::VALUES_ASKED);
        Self {
            questions,
            taken: Mutex::new(taken),
            asked: BlockingMutex::default(),
        }
    }
}

impl Values {
    /// Has the daemon find the value.
    pub async fn ask(&self, service: &str) -> Outcome {
        self.ask_within(service, limits::VALUE_TAKEN, limits::VALUE)
            .await
    }

    async fn ask_within(&self, service: &str, taken: Duration, found: Duration) -> Outcome {
        let mut pending = self.pending(service)?;
        let is_taken = pending.wait_for(|state| !matches!(state, State::Put));
        if tokio::time::timeout(taken, is_taken).await.is_err() {
            return Err(NOBODY.to_owned());
        }
        let answered = pending.wait_for(|state| matches!(state, State::Answered(_)));
        match tokio::time::timeout(found, answered).await {
            Ok(Ok(state)) => match &*state {
                State::Answered(outcome) => outcome.clone(),
                State::Put | State::Taken => Err(NO_ANSWER.to_owned()),
            },
            Ok(Err(_)) => Err(NO_ANSWER.to_owned()),
            Err(_) => Err("The host did not find the value in time".to_owned()),
        }
    }

    /// The answer to a question that is on its way already, or to a new one.
    fn pending(&self, service: &str) -> Result<Pending, String> {
        let mut asked = self.lock();
        asked.retain(|_, pending| is_open(pending));
        if let Some(pending) = asked.get(service) {
            return Ok(pending.clone());
        }
        let (answer, pending) = watch::channel(State::Put);
        let question = Question {
            service: service.to_owned(),
            answer,
        };
        let put = self.questions.try_send(question);
        put.map_err(|_| NOBODY.to_owned())?;
        asked.insert(service.to_owned(), pending.clone());
        Ok(pending)
    }

    /// The next question that somebody still waits for.
    pub async fn next(&self) -> Question {
        let mut taken = self.taken.lock().await;
        loop {
            match taken.recv().await {
                // The table has one, and everybody who waits.
                Some(question) if question.answer.receiver_count() > 1 => {
                    question.answer.send_replace(State::Taken);
                    return question;
                }
                Some(_) => {}
                // The sender lives as long as we do.
                None => std::future::pending().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is still no answer, and somebody who may give one.
fn is_open(pending: &Pending) -> bool {
    !matches!(*pending.borrow(), State::Answered(_)) && pending.has_changed().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn text(value: &str) -> SecretText {
        SecretText::new(value.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_asked_for_once_by_all_who_wait_and_again_by_those_who_come_later() {
        let values = Values::default();
        let daemon = async {
            let question = values.next().await;
            assert_eq!(question.service, "a");
            tokio::time::sleep(Duration::from_millis(10)).await;
            question.answered(Ok(text("one")));
            values.next().await.answered(Err("gone".to_owned()));
        };
        let requests = async {
            let ask = || values.ask_within("a", LIMIT, LIMIT);
            let both = tokio::join!(ask(), ask());
            (both, ask().await)
        };
        let (((first, second), third), ()) = tokio::join!(requests, daemon);
        assert_eq!((first, second), (Ok(text("one")), Ok(text("one"))));
        assert_eq!(third, Err("gone".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_daemon_there_is_no_value_and_a_question_nobody_waits_for_is_not_put_later() {
        let values = Values::default();
        for _ in 0..2 * limits::VALUES_ASKED {
            let outcome = values.ask_within("old", LIMIT, LIMIT).await;
            assert_eq!(outcome, Err(NOBODY.to_owned()));
        }
        let daemon = async {
            let question = values.next().await;
            let service = question.service.clone();
            drop(question);
            service
        };
        tokio::time::sleep(LIMIT).await;
        let asked = values.ask_within("new", LIMIT, LIMIT);
        let (outcome, service) = tokio::join!(asked, daemon);
        assert_eq!(service, "new");
        assert_eq!(outcome, Err(NO_ANSWER.to_owned()));
    }
}
