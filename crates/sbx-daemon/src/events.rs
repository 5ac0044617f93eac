//! The streamed answer of long requests.

use sbx_wire::api::{Event, Progress};
use tokio::sync::mpsc;

/// Events that may wait for a slow client; progress beyond that is dropped, nothing else is.
const PENDING: usize = 64;

/// Where events of one request go. The work goes on when nobody listens any more.
#[derive(Debug, Clone)]
pub(crate) struct Events(mpsc::Sender<Event>);

impl Events {
    /// Sender and receiver.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(PENDING);
        (Self(sender), receiver)
    }

    /// A step of the work.
    pub(crate) fn step(&self, step: &str) {
        self.progress(Progress {
            step: step.to_owned(),
            done: 0,
            total: 0,
            detail: String::new(),
        });
    }

    /// Progress; the newest counts, so one that finds no room is dropped. Can be called anywhere.
    pub(crate) fn progress(&self, progress: Progress) {
        let _ = self.0.try_send(Event::Progress(progress));
    }

    /// Something the user should know, or the end.
    pub(crate) async fn send(&self, event: Event) {
        // The client may have gone.
        let _ = self.0.send(event).await;
    }
}
