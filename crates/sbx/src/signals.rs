//! Signals that people send to the command. They are meant for the program, once it runs; until then, and when the
//! program does not care, they end the command.

use crate::attach::{Part, terminal_size};
use sbx_wire::session::FromClient;
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// So many interrupts within [`SPAN`] are meant for the command; it gets those at a terminal only when it is not raw.
const MEANT: usize = 3;
/// See [`MEANT`].
const SPAN: Duration = Duration::from_secs(5);
/// Frames that wait for a supervisor that does not read; what comes beyond is left out.
const WAITING: usize = 16;

/// How far the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is no program yet.
    Before,
    /// It runs. `raw`: what is typed at our terminal goes to it, Control-C too.
    Running { raw: bool },
}

/// Signals that are caught from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    caught: mpsc::Receiver<SignalKind>,
    /// Of the tasks that catch them; the channel is never closed.
    _sender: mpsc::Sender<SignalKind>,
    _tasks: JoinSet<()>,
}

impl Signals {
    /// Begins to catch them.
    pub(crate) fn catch() -> Self {
        let (sender, caught) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        for kind in [
            SignalKind::window_change(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ] {
            let sender = sender.clone();
            let Ok(mut stream) = signal(kind) else {
                continue;
            };
            tasks.spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send(kind).await.is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            caught,
            _sender: sender,
            _tasks: tasks,
        }
    }

    /// Passes signals and changes of the terminal's size on, until one of them is to end the command. Returns that
    /// one.
    pub(crate) async fn pass_on(
        mut self,
        frames: mpsc::Sender<FromClient>,
        part: &Part,
        stage: &Cell<Stage>,
    ) -> SignalKind {
        let mut waiting = VecDeque::new();
        let mut interrupts = Interrupts::default();
        loop {
            let kind = tokio::select! {
                Some(kind) = self.caught.recv() => kind,
                Ok(room) = frames.reserve(), if !waiting.is_empty() => {
                    if let Some(frame) = waiting.pop_front() {
                        room.send(frame);
                    }
                    continue;
                }
            };
            let resized = kind == SignalKind::window_change();
            let frame = match stage.get() {
                _ if resized && !part.terminal => continue,
                _ if resized => FromClient::Resize(terminal_size()),
                Stage::Before => return kind,
                Stage::Running { raw: false } if interrupts.are_meant(kind, Instant::now()) => {
                    return kind;
                }
                // When our terminal goes away, an agent stays.
                Stage::Running { .. } if kind == SignalKind::hangup() && part.keys.is_some() => {
                    FromClient::Detach
                }
                Stage::Running { .. } => FromClient::Signal(kind.as_raw_value()),
            };
            if waiting.len() < WAITING {
                waiting.push_back(frame);
            }
        }
    }

    /// Waits for one that is to end the command, while there is no session.
    pub(crate) async fn any(mut self) -> SignalKind {
        loop {
            match self.caught.recv().await {
                Some(kind) if kind != SignalKind::window_change() => return kind,
                _ => {}
            }
        }
    }
}

/// When there were some lately.
#[derive(Debug, Default)]
struct Interrupts(Vec<Instant>);

impl Interrupts {
    /// Takes note of a signal. True: whoever sends so many does not mean the program any more.
    fn are_meant(&mut self, kind: SignalKind, now: Instant) -> bool {
        if kind != SignalKind::interrupt() && kind != SignalKind::terminate() {
            return false;
        }
        self.0.retain(|earlier| now.duration_since(*earlier) < SPAN);
        self.0.push(now);
        self.0.len() >= MEANT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_interrupts_within_some_seconds_are_meant_and_nothing_else_is() {
        let (int, term) = (SignalKind::interrupt(), SignalKind::terminate());
        let start = Instant::now();
        let mut interrupts = Interrupts::default();
        let mut at = |kind, ms| interrupts.are_meant(kind, start + Duration::from_millis(ms));
        for ms in 0..9 {
            assert!(!at(SignalKind::hangup(), ms));
        }
        assert!(!at(int, 10) && !at(term, 20));
        // The first two were long ago.
        assert!(!at(int, 5_100) && !at(int, 10_000));
        assert!(at(term, 10_050));
    }
}
