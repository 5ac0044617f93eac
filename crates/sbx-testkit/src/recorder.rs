//! What the stand-ins saw.
//!
//! One [`Recorder`] may be shared by several stand-ins, so that the order between them is kept. Events
//! live in memory and, when a file is given, as one JSON object per line in it.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

/// One thing that happened at a stand-in.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A TCP connection was accepted, before any byte of it was read.
    Connected {
        /// Which stand-in: `anthropic`, `http`, `tcp` or `dns`.
        server: &'static str,
        /// Address of the client.
        peer: SocketAddr,
    },
    /// A TLS handshake ended, with the error if it failed.
    Handshake {
        /// Which stand-in.
        server: &'static str,
        /// Server name that the client asked for, if it sent one.
        sni: Option<String>,
        /// Application protocol agreed on: `h2` or `http/1.1`.
        alpn: Option<String>,
        /// Why the handshake failed.
        error: Option<String>,
    },
    /// An HTTP request, written down once its body was read or counted to the end.
    Request(Request),
    /// The answer to the request of the same `seq` started with this status.
    Answered {
        /// `seq` of the request.
        seq: u64,
        /// HTTP status.
        status: u16,
    },
    /// A frame of a WebSocket arrived.
    Frame {
        /// `seq` of the request that opened it.
        seq: u64,
        /// Its first byte: final bit, reserved bits, opcode.
        first: u8,
        /// Its payload, unmasked; what is not UTF-8 is replaced lossily.
        text: String,
    },
    /// A scripted expectation was looked at.
    Assertion {
        /// Index of the turn it belongs to, from 0.
        turn: usize,
        /// Whether it held.
        passed: bool,
        /// What was expected and what came.
        detail: String,
    },
    /// A scripted turn was answered in full, to the last byte.
    TurnDone {
        /// Index of the turn, from 0.
        turn: usize,
        /// Whether it was the script's last.
        last: bool,
    },
    /// A DNS question.
    Query {
        /// Queried name, lower case, no trailing dot.
        name: String,
        /// Record type, such as `A`.
        kind: String,
        /// `udp` or `tcp`.
        transport: &'static str,
        /// Answer code, such as `NoError` or `NXDomain`.
        code: String,
    },
    /// A TCP connection ended after this many payload bytes (below TLS) in each direction.
    Closed {
        /// Which stand-in.
        server: &'static str,
        /// Bytes from the client.
        received: u64,
        /// Bytes to the client.
        sent: u64,
    },
}

/// An HTTP request as it arrived.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    /// Number of the request at this recorder, from 1.
    pub seq: u64,
    /// Which stand-in.
    pub server: &'static str,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Method in capitals.
    pub method: String,
    /// Request target as received (origin form on HTTP/1.1, with authority on HTTP/2).
    pub uri: String,
    /// Path without the query.
    pub path: String,
    /// Header names (lower case) and values in order of arrival. Values that are not UTF-8 are replaced
    /// lossily.
    pub headers: Vec<(String, String)>,
    /// Length of the body in bytes, also where the body itself is not kept.
    pub body_bytes: u64,
    /// The body if it was kept: JSON where it parses as such, otherwise a string.
    pub body: Option<Value>,
    /// What the stand-in took the request for, such as `turn 0`, `side` or `telemetry`.
    pub note: String,
}

impl Request {
    /// First value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// One line of the record: when, and what.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Collects events of one or several stand-ins. Clones share the same record.
#[derive(Debug, Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: Mutex<Vec<Entry>>,
    file: Mutex<Option<File>>,
    next_seq: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    changed: watch::Sender<u64>,
    condvar: std::sync::Condvar,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not hide what was recorded before it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// A recorder that keeps its events in memory only.
    pub fn new() -> Self {
        Self::with_file(None)
    }

    /// A recorder that also appends each event to `path` as a JSON line. The file is created if missing.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self::with_file(Some(file)))
    }

    fn with_file(file: Option<File>) -> Self {
        Self {
            inner: Arc::new(Inner {
                entries: Mutex::new(Vec::new()),
                file: Mutex::new(file),
                next_seq: AtomicU64::new(1),
                received: AtomicU64::new(0),
                sent: AtomicU64::new(0),
                changed: watch::Sender::new(0),
                condvar: std::sync::Condvar::new(),
            }),
        }
    }

    /// Adds an event. A record file that cannot be written (disk full) is given up; memory still has all.
    pub fn push(&self, event: Event) {
        let entry = Entry {
            at_ms: now_ms(),
            event,
        };
        {
            let mut file = lock(&self.inner.file);
            if let Some(open) = file.as_mut() {
                let written = serde_json::to_vec(&entry)
                    .map_err(io::Error::from)
                    .and_then(|mut line| {
                        line.push(b'\n');
                        open.write_all(&line)
                    });
                if written.is_err() {
                    *file = None;
                }
            }
        }
        lock(&self.inner.entries).push(entry);
        self.inner.changed.send_modify(|count| *count += 1);
        self.inner.condvar.notify_all();
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.inner.next_seq.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.inner
            .received
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.inner.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Everything so far, in order.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.inner.entries).clone()
    }

    /// All HTTP requests so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.collect(|event| match event {
            Event::Request(request) => Some(request.clone()),
            _ => None,
        })
    }

    /// How many TCP connections were accepted.
    pub fn connections(&self) -> usize {
        self.collect(|event| matches!(event, Event::Connected { .. }).then_some(()))
            .len()
    }

    /// How many DNS questions asked for `name` (lower case, no trailing dot), any type.
    pub fn queries_for(&self, name: &str) -> usize {
        let of = |event: &Event| match event {
            Event::Query { name: asked, .. } if asked == name => Some(()),
            _ => None,
        };
        self.collect(of).len()
    }

    /// Bytes received from clients on TCP and UDP, TLS included, also on connections still open.
    pub fn bytes_received(&self) -> u64 {
        self.inner.received.load(Ordering::Relaxed)
    }

    /// Bytes sent to clients, TLS included.
    pub fn bytes_sent(&self) -> u64 {
        self.inner.sent.load(Ordering::Relaxed)
    }

    /// The details of scripted expectations that did not hold.
    pub fn failed_assertions(&self) -> Vec<String> {
        self.collect(|event| match event {
            Event::Assertion {
                passed: false,
                turn,
                detail,
            } => Some(format!("turn {turn}: {detail}")),
            _ => None,
        })
    }

    /// True once a script's last turn was answered and no expectation failed.
    pub fn script_completed(&self) -> bool {
        let last =
            |event: &Event| matches!(event, Event::TurnDone { last: true, .. }).then_some(());
        !self.collect(last).is_empty() && self.failed_assertions().is_empty()
    }

    /// Blocks until `condition` holds on the entries, at most `limit`. Returns whether it held.
    pub fn wait_until(&self, limit: Duration, condition: impl Fn(&[Entry]) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut entries = lock(&self.inner.entries);
        loop {
            if condition(&entries) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            entries = self
                .inner
                .condvar
                .wait_timeout(entries, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The same as [`Recorder::wait_until`] for async callers.
    pub async fn until(&self, limit: Duration, condition: impl Fn(&[Entry]) -> bool) -> bool {
        let mut changed = self.inner.changed.subscribe();
        let watching = async {
            while !condition(&lock(&self.inner.entries)) {
                if changed.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(limit, watching).await.unwrap_or(false)
    }

    /// Forgets everything so far and sets the byte counts to zero. A record file keeps its lines.
    pub fn clear(&self) {
        lock(&self.inner.entries).clear();
        self.inner.received.store(0, Ordering::Relaxed);
        self.inner.sent.store(0, Ordering::Relaxed);
    }

    fn collect<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        lock(&self.inner.entries)
            .iter()
            .filter_map(|entry| pick(&entry.event))
            .collect()
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
