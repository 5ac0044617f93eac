//! From the doors to the daemon: pages that the policy allows, one at a time.

use std::time::Duration;

use sbx_wire::browser::Address;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::limits;

/// A page on its way, and where to say what became of it.
type Offer = (Address, oneshot::Sender<Result<(), String>>);

/// See the module.
#[derive(Debug)]
pub struct Browser {
    offers: mpsc::Sender<Offer>,
    taken: Mutex<mpsc::Receiver<Offer>>,
}

impl Default for Browser {
    fn default() -> Self {
        let (offers, taken) = mpsc::channel(1);
        let taken = Mutex::new(taken);
        Self { offers, taken }
    }
}

impl Browser {
    /// Has the daemon open a page; on error why it was not.
    pub async fn open(&self, address: Address) -> Result<(), String> {
        self.open_within(address, limits::PAGE).await
    }

    async fn open_within(&self, address: Address, limit: Duration) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let handed = async {
            self.offers.send((address, answer)).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(limit, handed).await {
            Ok(Some(outcome)) => outcome,
            _ => Err("nobody on the host takes it; is the sbx daemon running?".to_owned()),
        }
    }

    /// The next page that somebody still waits for.
    pub async fn next(&self) -> Page {
        let mut taken = self.taken.lock().await;
        loop {
            match taken.recv().await {
                Some((address, answer)) if !answer.is_closed() => return Page { address, answer },
                Some(_) => {}
                // The sender lives as long as we do.
                None => std::future::pending().await,
            }
        }
    }
}

/// A page that the daemon was told about. Dropped without a word it counts as not opened.
#[derive(Debug)]
pub struct Page {
    /// Its address.
    pub address: Address,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Page {
    /// What became of it.
    pub fn handled(self, problem: Option<String>) {
        // Whoever asked may have stopped waiting.
        let _ = self.answer.send(problem.map_or(Ok(()), Err));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    fn address(path: &str) -> Address {
        format!("https://a.test/{path}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_taken_once_and_its_end_is_told() {
        let browser = Browser::default();
        let daemon = async {
            let page = browser.next().await;
            assert_eq!(page.address, address("x"));
            page.handled(Some("off".to_owned()));
            browser.next().await.handled(None);
        };
        let program = async {
            let first = browser.open_within(address("x"), LIMIT).await;
            let second = browser.open_within(address("y"), LIMIT).await;
            (first, second)
        };
        let (outcome, ()) = tokio::join!(program, daemon);
        assert_eq!(outcome, (Err("off".to_owned()), Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_daemon_it_is_said_and_a_page_that_nobody_waits_for_is_not_opened_later() {
        let browser = Browser::default();
        for _ in 0..3 {
            assert!(browser.open_within(address("old"), LIMIT).await.is_err());
        }
        let (opened, page) = tokio::join!(browser.open_within(address("new"), LIMIT), async {
            let page = browser.next().await;
            let address = page.address.clone();
            page.handled(None);
            address
        });
        assert_eq!((opened, page), (Ok(()), address("new")));
    }
}
