//! A running agent and the clients attached to it.

use super::attached::Attached;
use super::screen::Screen;
use super::viewer::{QUEUE, View, Viewer};
use crate::guest::{self, End, Guest, Session};
use crate::state::{State, lock};
use sbx_wire::frame::CHUNK;
use sbx_wire::guest::{TermSize, ToGuest};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Most clients attached at a time.
const MAX_VIEWERS: usize = 16;
/// Input that may wait for the guest, from all clients together.
pub(super) const MAX_INPUT: usize = 1 << 20;
/// Time that the leading client may hold the program up before it is left behind.
const PATIENCE: Duration = Duration::from_millis(500);
/// Output that is worked on at a time: a sequence of a few bytes may ask for as much work as 64 Ki characters.
const SLICE: usize = 512;
/// Time after which others get a turn.
const TURN: Duration = Duration::from_millis(5);

/// An agent on a terminal of its own. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Terminal(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) guest: Guest,
    pub(super) state: State,
    /// Set once it was started.
    pub(super) session: OnceLock<Session>,
    pub(super) inner: Mutex<Inner>,
    /// For whoever waits for the start, or the end in its place.
    pub(super) begun: Notify,
    /// For the task that sends input and sizes: there is some, or none will be wanted.
    pub(super) input: Notify,
    /// For clients whose input did not fit.
    pub(super) room: Notify,
    /// For the task that reads output: the leader has taken its queue, or is another.
    pub(super) taken: Notify,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) screen: Screen,
    /// Which screen it is; it rises with each change.
    pub(super) number: u64,
    pub(super) viewers: BTreeMap<u32, Viewer>,
    pub(super) next: u32,
    pub(super) leader: Option<u32>,
    pub(super) started: bool,
    pub(super) end: Option<End>,
    /// The sandbox is to end with it.
    pub(super) last: bool,
    pub(super) input: VecDeque<u8>,
    /// The size that the program is still to be told.
    untold: Option<TermSize>,
}

impl Terminal {
    pub(super) fn new(guest: Guest, size: TermSize, state: State) -> Self {
        Self(Arc::new(Shared {
            guest,
            state,
            session: OnceLock::new(),
            inner: Mutex::new(Inner {
                screen: Screen::new(size),
                number: 0,
                viewers: BTreeMap::new(),
                next: 0,
                leader: None,
                started: false,
                end: None,
                last: false,
                input: VecDeque::new(),
                untold: None,
            }),
            begun: Notify::new(),
            input: Notify::new(),
            room: Notify::new(),
            taken: Notify::new(),
        }))
    }

    /// Whether the agent has ended.
    pub fn has_ended(&self) -> bool {
        lock(&self.0.inner).end.is_some()
    }

    /// Serves the session until its end.
    pub(super) fn drive(&self, session: Session) {
        let _ = self.0.session.set(session.clone());
        let this = self.clone();
        let typing = session.clone();
        tokio::spawn(async move { this.send_input(&typing).await });
        let this = self.clone();
        tokio::spawn(async move {
            let end = this.read_output(&session).await;
            this.end(end);
        });
    }

    /// `run --rm`: the sandbox ends when the agent has ended.
    pub fn end_the_sandbox_with_it(&self) {
        let ended = {
            let mut inner = lock(&self.0.inner);
            inner.last = true;
            inner.end.is_some()
        };
        self.0.state.update(|snapshot| snapshot.ending |= ended);
    }

    /// Waits until the agent runs.
    ///
    /// # Errors
    /// How it ended instead.
    pub async fn has_started(&self) -> Result<(), End> {
        loop {
            let begun = self.0.begun.notified();
            {
                let inner = lock(&self.0.inner);
                if inner.started {
                    return Ok(());
                }
                if let Some(end) = &inner.end {
                    return Err(end.clone());
                }
            }
            begun.await;
        }
    }

    /// Its size.
    pub fn size(&self) -> TermSize {
        lock(&self.0.inner).screen.size()
    }

    /// The agent has ended, or will never start.
    pub(super) fn end(&self, end: End) {
        let last = {
            let mut inner = lock(&self.0.inner);
            inner.end.get_or_insert(end);
            inner.wake_all();
            inner.last
        };
        self.0.begun.notify_waiters();
        self.0.input.notify_one();
        self.0.room.notify_waiters();
        self.0.state.update(|snapshot| {
            snapshot.agent = false;
            snapshot.ending |= last;
        });
    }

    async fn read_output(&self, session: &Session) -> End {
        loop {
            let started = lock(&self.0.inner).started;
            let item = tokio::select! {
                biased;
                item = session.next() => item,
                // As whoever comes later is told: an agent that has not begun is not waited for.
                why = self.0.state.stands_still(), if !started => {
                    self.0.guest.hang_up(session);
                    return End::Lost(why);
                }
            };
            match item {
                guest::session::Item::Started => {
                    let mut inner = lock(&self.0.inner);
                    inner.started = true;
                    inner.wake_all();
                    self.0.begun.notify_waiters();
                }
                guest::session::Item::Output(stream, data) => {
                    let mut since = Instant::now();
                    for slice in data.chunks(SLICE) {
                        self.await_leader(slice.len()).await;
                        self.show(slice);
                        if since.elapsed() > TURN {
                            tokio::task::yield_now().await;
                            since = Instant::now();
                        }
                    }
                    let bytes = u32::try_from(data.len()).expect("at most a window waits");
                    self.0.guest.passed_on(session, stream, bytes).await;
                }
                guest::session::Item::End(end) => return end,
            }
        }
    }

    /// Waits until the leading client has room for so many bytes, for a while; then it is left behind.
    async fn await_leader(&self, bytes: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.0.taken.notified();
            if lock(&self.0.inner).leader_has_room(bytes) {
                return;
            }
            if timeout_at(deadline, taken).await.is_err() {
                lock(&self.0.inner).leave_leader_behind();
                return;
            }
        }
    }

    fn show(&self, output: &[u8]) {
        let mut inner = lock(&self.0.inner);
        let inner = &mut *inner;
        inner.screen.feed(output);
        inner.number += 1;
        let answers = inner.screen.answers();
        let mut answered = false;
        for (id, viewer) in &mut inner.viewers {
            match &mut viewer.view {
                View::Bytes(queue) => {
                    queue.extend_from_slice(output);
                    answered = true;
                }
                // What a leader that has fallen behind does not see, it cannot answer either; it will be there
                // again in a moment, and a program that asks twice is better than one that is told twice.
                View::Restore { .. } => answered |= inner.leader == Some(*id),
                View::Pictures { .. } => {}
            }
            viewer.wake.notify_one();
        }
        if !answered && !answers.is_empty() && inner.input.len() < MAX_INPUT {
            inner.input.extend(answers.as_bytes());
            self.0.input.notify_one();
        }
    }

    /// Sends sizes and input. Nobody else waits for a guest that does not read.
    async fn send_input(&self, session: &Session) {
        loop {
            let some = self.0.input.notified();
            let (input, size) = {
                let inner = lock(&self.0.inner);
                if inner.end.is_some() {
                    return;
                }
                (!inner.input.is_empty(), inner.untold.is_some())
            };
            if !size {
                tokio::select! {
                    biased;
                    () = some => continue,
                    wanted = session.wants_stdin(), if input => if !wanted { return },
                }
            }
            let Ok(room) = self.0.guest.room().await else {
                return;
            };
            if room.send(&self.next_message(session)).is_err() {
                return;
            }
            self.0.room.notify_waiters();
        }
    }

    /// The size that the program is to be told, or else as much input as its window takes.
    fn next_message(&self, session: &Session) -> ToGuest {
        let mut inner = lock(&self.0.inner);
        let id = session.id();
        if let Some(size) = inner.untold.take() {
            return ToGuest::Resize { session: id, size };
        }
        let wanted = inner.input.len().min(CHUNK);
        let count = session.take_stdin_window(wanted);
        let data = inner.input.drain(..count).collect();
        ToGuest::Stdin { session: id, data }
    }

    /// Attaches a client with a terminal of this size. `starter`: it started the agent, so its terminal shows
    /// what the agent's shows: nothing yet. `None`: there are too many.
    pub fn attach(&self, size: TermSize, starter: bool) -> Option<Attached> {
        let (id, wake) = {
            let mut inner = lock(&self.0.inner);
            if inner.viewers.len() >= MAX_VIEWERS {
                return None;
            }
            let id = inner.next;
            inner.next += 1;
            let wake = Arc::new(Notify::new());
            let view = if starter {
                View::Bytes(Vec::new())
            } else {
                View::Restore { history: true }
            };
            let viewer = Viewer {
                size: size.bounded(),
                view,
                told_started: false,
                cleared: false,
                leaving: false,
                wake: wake.clone(),
            };
            inner.viewers.insert(id, viewer);
            inner.leader = Some(id);
            inner.arrange();
            (id, wake)
        };
        self.rearranged();
        Some(Attached {
            terminal: self.clone(),
            id,
            wake,
        })
    }

    /// Tells everybody what changed.
    pub(super) fn rearranged(&self) {
        let attached = {
            let inner = lock(&self.0.inner);
            inner.wake_all();
            u32::try_from(inner.viewers.len()).unwrap_or(u32::MAX)
        };
        self.0.taken.notify_one();
        self.0.input.notify_one();
        self.0.state.update(|snapshot| {
            snapshot.attached = attached;
        });
    }
}

impl Inner {
    fn wake_all(&self) {
        for viewer in self.viewers.values() {
            viewer.wake.notify_one();
        }
    }

    fn leader(&mut self) -> Option<&mut Viewer> {
        self.viewers.get_mut(&self.leader?)
    }

    fn leader_has_room(&mut self, bytes: usize) -> bool {
        match self.leader().map(|viewer| &viewer.view) {
            Some(View::Bytes(queue)) => queue.len() + bytes <= QUEUE,
            _ => true,
        }
    }

    fn leave_leader_behind(&mut self) {
        if let Some(viewer) = self.leader() {
            viewer.view = View::Restore { history: false };
        }
    }

    /// Gives the session its size, which the program is told if it is new, and each client its view.
    pub(super) fn arrange(&mut self) {
        let rows = self.viewers.values().map(|viewer| viewer.size.rows).min();
        let cols = self.viewers.values().map(|viewer| viewer.size.cols).min();
        let before = self.screen.size();
        let size = match (rows, cols) {
            (Some(rows), Some(cols)) => TermSize { rows, cols },
            _ => before,
        };
        if size != before {
            self.screen.resize(size);
            self.untold = Some(size);
            self.number += 1;
        }
        for (id, viewer) in &mut self.viewers {
            let leads = self.leader == Some(*id) && viewer.size == size;
            match (&viewer.view, leads) {
                (View::Pictures { .. }, true) => viewer.view = View::Restore { history: false },
                (View::Bytes(_) | View::Restore { .. }, false) => viewer.view = View::pictures(),
                _ => {}
            }
        }
    }
}
