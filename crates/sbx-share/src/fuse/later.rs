//! Answers that are not given at once: what they wait for is a directory that has just appeared ([`crate::late`]).

use super::Session;

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Something is mounted at this directory, or nobody believes so any more.
    Mount(usize),
    /// There is something to say to the agent, in at most so many bytes.
    News {
        /// Bytes that he has room for.
        room: usize,
    },
}

/// An answer that is given later.
#[derive(Debug)]
pub struct Waiting {
    unique: u64,
    /// The answer as it is already, without its head.
    answer: Vec<u8>,
    waits: Waits,
}

impl Waiting {
    /// Whether it is the agent who waits.
    pub(crate) fn is_for_news(&self) -> bool {
        matches!(self.waits, Waits::News { .. })
    }
}

/// What came of a request.
#[derive(Debug)]
pub enum Answered {
    /// It was answered with so many bytes, none where nobody waits for an answer.
    Now(u32),
    /// It is to be asked for with [`Session::later`].
    Later(Waiting),
}

impl Session {
    /// Keeps the answer that was made.
    pub(super) fn wait(&self, unique: u64, waits: Waits) -> Answered {
        Answered::Later(Waiting {
            unique,
            answer: self.answer.content().to_vec(),
            waits,
        })
    }

    /// The whole answer for the guest, if its time has come. `at_once`: whatever it waits for.
    pub fn later(&mut self, waiting: &Waiting, at_once: bool) -> Option<&[u8]> {
        let news;
        let content = match waiting.waits {
            Waits::Mount(mask) if at_once || self.share.is_settled(mask) => &waiting.answer,
            Waits::Mount(_) => return None,
            Waits::News { room } => {
                news = self.share.news(waiting.unique, room);
                match &news {
                    Some(news) => news,
                    None if at_once => &waiting.answer,
                    None => return None,
                }
            }
        };
        self.answer.clear();
        self.answer.push_bytes(content);
        Some(self.answer.finish(waiting.unique, 0))
    }
}
