//! One program in the guest, between the guest channel and the client's socket.
//!
//! Memory per session is bounded: output waits in two buffers of one window each, and a guest that sends
//! beyond its window breaks the protocol.

use crate::state::lock;
use sbx_wire::guest::{ExecError, ExitStatus, Stream, WINDOW};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The program ended.
    Exited(ExitStatus),
    /// It did not start.
    Failed(ExecError),
    /// The machine ended or broke.
    Lost(String),
}

/// Something for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The program runs.
    Started,
    /// Output, at most a window.
    Output(Stream, Vec<u8>),
    /// Last item.
    End(End),
}

#[derive(Debug)]
struct Inner {
    started: bool,
    told_started: bool,
    /// Output that waits for the client: standard output, standard error.
    waiting: [Vec<u8>; 2],
    /// Which of the two got its first waiting byte first.
    first: usize,
    /// Bytes the guest may still send.
    window: [u32; 2],
    /// Bytes we may still send.
    stdin_window: u32,
    end: Option<End>,
    /// The client is gone: output is dropped.
    abandoned: bool,
}

/// See the module. Clones are the same session.
#[derive(Debug, Clone)]
pub struct Session {
    id: u32,
    inner: Arc<Mutex<Inner>>,
    /// For the client: something to write, or the end.
    output: Arc<Notify>,
    /// For the client: more standard input may be sent.
    input: Arc<Notify>,
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl Session {
    pub(super) fn new(id: u32) -> Self {
        let inner = Inner {
            started: false,
            told_started: false,
            waiting: [Vec::new(), Vec::new()],
            first: 0,
            window: [WINDOW; 2],
            stdin_window: WINDOW,
            end: None,
            abandoned: false,
        };
        Self {
            id,
            inner: Arc::new(Mutex::new(inner)),
            output: Arc::default(),
            input: Arc::default(),
        }
    }

    /// Its number in the guest protocol.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn started(&self) {
        lock(&self.inner).started = true;
        self.output.notify_one();
    }

    /// Takes output from the guest. False: it exceeds the window, or is empty (which would cost nothing and so
    /// could be sent without end).
    pub(super) fn push(&self, stream: Stream, data: &[u8]) -> bool {
        let mut inner = lock(&self.inner);
        let at = index(stream);
        let Ok(length @ 1..) = u32::try_from(data.len()) else {
            return false;
        };
        let Some(left) = inner.window[at].checked_sub(length) else {
            return false;
        };
        inner.window[at] = left;
        if !inner.abandoned {
            if inner.waiting[1 - at].is_empty() {
                inner.first = at;
            }
            inner.waiting[at].extend_from_slice(data);
            self.output.notify_one();
        }
        true
    }

    /// The guest has consumed standard input. False: more than it was sent.
    pub(super) fn stdin_credit(&self, bytes: u32) -> bool {
        let mut inner = lock(&self.inner);
        match inner.stdin_window.checked_add(bytes) {
            Some(window @ ..=WINDOW) => {
                inner.stdin_window = window;
                self.input.notify_one();
                true
            }
            _ => false,
        }
    }

    pub(super) fn end(&self, end: End) {
        lock(&self.inner).end.get_or_insert(end);
        self.output.notify_one();
        self.input.notify_one();
    }

    /// Drops what waits and what will come.
    pub(super) fn abandon(&self) {
        let mut inner = lock(&self.inner);
        inner.abandoned = true;
        inner.waiting = [Vec::new(), Vec::new()];
    }

    /// Waits for the end, for whoever does not call [`Session::next`] any more.
    pub(super) async fn ended(&self) {
        while lock(&self.inner).end.is_none() {
            self.output.notified().await;
        }
    }

    /// The next thing for the client. The caller returns the window of an output with [`Session::passed_on`].
    pub async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.take() {
                return item;
            }
            self.output.notified().await;
        }
    }

    fn take(&self) -> Option<Item> {
        let mut inner = lock(&self.inner);
        if inner.started && !inner.told_started {
            inner.told_started = true;
            return Some(Item::Started);
        }
        for at in [inner.first, 1 - inner.first] {
            if !inner.waiting[at].is_empty() {
                inner.first = 1 - at;
                let stream = if at == 0 {
                    Stream::Stdout
                } else {
                    Stream::Stderr
                };
                return Some(Item::Output(stream, std::mem::take(&mut inner.waiting[at])));
            }
        }
        inner.end.clone().map(Item::End)
    }

    /// The client has got this many bytes; the guest may send as many again.
    pub(super) fn passed_on(&self, stream: Stream, bytes: u32) {
        let window = &mut lock(&self.inner).window[index(stream)];
        *window = window.saturating_add(bytes).min(WINDOW);
    }

    /// Waits until the guest takes standard input. False: the session has ended.
    pub async fn wants_stdin(&self) -> bool {
        loop {
            {
                let inner = lock(&self.inner);
                if inner.end.is_some() {
                    return false;
                }
                if inner.stdin_window > 0 {
                    return true;
                }
            }
            self.input.notified().await;
        }
    }

    /// Takes up to `wanted` bytes of the standard input window and returns how many.
    pub fn take_stdin_window(&self, wanted: usize) -> usize {
        let mut inner = lock(&self.inner);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let taken = inner.stdin_window.min(wanted);
        inner.stdin_window -= taken;
        taken as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_beyond_the_window_is_refused_until_it_was_passed_on() {
        let session = Session::new(1);
        let chunk = vec![1; WINDOW as usize / 2];
        assert!(session.push(Stream::Stdout, &chunk));
        assert!(session.push(Stream::Stdout, &chunk));
        assert!(
            !session.push(Stream::Stdout, &[1]),
            "the window was overrun"
        );
        assert!(
            session.push(Stream::Stderr, &[1]),
            "the other stream has its own"
        );
        let Item::Output(Stream::Stdout, data) = session.next().await else {
            panic!("no output")
        };
        assert_eq!(data.len(), WINDOW as usize);
        assert!(
            !session.push(Stream::Stdout, &[1]),
            "taken is not passed on"
        );
        session.passed_on(Stream::Stdout, WINDOW);
        assert!(session.push(Stream::Stdout, &[1]));
    }

    #[tokio::test]
    async fn empty_output_and_credit_for_input_never_sent_are_refused() {
        let session = Session::new(1);
        assert!(!session.push(Stream::Stdout, &[]));
        assert!(!session.stdin_credit(1));
        assert!(session.wants_stdin().await);
        assert_eq!(session.take_stdin_window(10), 10);
        assert!(session.stdin_credit(10));
    }

    #[tokio::test]
    async fn all_output_comes_before_the_end() {
        let session = Session::new(1);
        session.started();
        session.push(Stream::Stderr, b"e");
        session.push(Stream::Stdout, b"o");
        session.end(End::Exited(ExitStatus::Code(3)));
        let mut seen = Vec::new();
        loop {
            let item = session.next().await;
            seen.push(item.clone());
            if matches!(item, Item::End(_)) {
                break;
            }
        }
        assert_eq!(seen[0], Item::Started);
        assert_eq!(seen[1], Item::Output(Stream::Stderr, b"e".to_vec()));
        assert_eq!(seen[2], Item::Output(Stream::Stdout, b"o".to_vec()));
        assert_eq!(seen[3], Item::End(End::Exited(ExitStatus::Code(3))));
    }

    #[tokio::test]
    async fn abandoned_session_keeps_no_output() {
        let session = Session::new(1);
        session.abandon();
        assert!(session.push(Stream::Stdout, &[0; 1000]));
        session.end(End::Lost(String::new()));
        assert!(matches!(session.next().await, Item::End(_)));
    }
}
