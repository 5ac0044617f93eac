//! What left and what was stopped: one JSON line per event in `egress.jsonl`.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sbx_policy::{RuleRef, Target};
use sbx_wire::gateway::{EgressRecord, ProxyKind};

use crate::limits;
use crate::reason::Reason;

/// One event, before it has a time and a sandbox.
#[derive(Debug, Clone)]
pub struct Event {
    /// Name or address as judged.
    pub host: String,
    /// Port; 0 where there is none.
    pub port: u16,
    /// How it left.
    pub proxy: ProxyKind,
    /// Why it was stopped or let through; says also which of the two.
    pub reason: Reason,
    /// The deciding rule.
    pub rule: Option<Arc<RuleRef>>,
    /// HTTP method.
    pub method: Option<String>,
    /// HTTP path without query.
    pub path: Option<String>,
    /// Credential service that was injected.
    pub credential: Option<String>,
    /// Policy generation that decided.
    pub generation: u64,
}

impl Event {
    /// An event about a place.
    pub fn new(target: &Target, proxy: ProxyKind, reason: Reason, generation: u64) -> Self {
        Self::at(
            target.host.to_string(),
            target.port.get(),
            proxy,
            reason,
            generation,
        )
    }

    /// An event about a place that has no target: port 0, or a host that is not one.
    pub fn at(host: String, port: u16, proxy: ProxyKind, reason: Reason, generation: u64) -> Self {
        Self {
            host,
            port,
            proxy,
            reason,
            rule: None,
            method: None,
            path: None,
            credential: None,
            generation,
        }
    }

    /// Adds the deciding rule.
    #[must_use]
    pub fn with_rule(mut self, rule: Option<Arc<RuleRef>>) -> Self {
        self.rule = rule;
        self
    }

    /// Adds what was asked over HTTP.
    #[must_use]
    pub fn with_request(mut self, method: &str, path: &str) -> Self {
        self.method = Some(method.to_owned());
        self.path = Some(path.to_owned());
        self
    }

    fn into_record(self, sandbox: &str) -> EgressRecord {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        EgressRecord {
            time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            sandbox: sandbox.to_owned(),
            kind: "network".to_owned(),
            host: bounded(self.host),
            port: self.port,
            proxy: self.proxy,
            allowed: self.reason.is_allowed(),
            rule: self.rule.as_ref().map(|rule| rule.id.clone()),
            rule_text: self.rule.as_ref().map(|rule| rule.label().to_owned()),
            reason: self.reason.as_str().to_owned(),
            method: self.method.map(bounded),
            path: self.path.map(bounded),
            credential: self.credential,
            generation: self.generation,
        }
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > limits::RECORD_TEXT {
        let mut end = limits::RECORD_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// Places of dropped packets and when each was last recorded.
type Drops = HashMap<(Reason, String, u16), Instant>;

/// Drops that have no record of their own since the last that counted them.
#[derive(Debug, Default)]
struct Untold {
    count: u64,
    sandbox: String,
    generation: u64,
}

/// What the writer is given.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "all but the last item of a process's life are records"
)]
enum Item {
    Record(EgressRecord),
    /// Write what is there and say so.
    Flush(SyncSender<()>),
}

/// The way to the record file. Cheap to share; never blocks.
#[derive(Debug)]
pub struct Records {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
    drops: Mutex<Drops>,
    untold: Arc<Mutex<Untold>>,
}

impl Records {
    /// Opens the file for appending and starts the thread that writes it.
    pub fn open(path: &Path) -> io::Result<(Self, RecordWriter)> {
        let (queue, receiver) = sync_channel(limits::RECORDS);
        let lost = Arc::new(AtomicU64::new(0));
        let untold = Arc::<Mutex<Untold>>::default();
        let file = append(path)?;
        let size = file.metadata()?.len();
        let writer = RecordWriter {
            path: path.to_owned(),
            file,
            size,
            receiver,
            lost: lost.clone(),
            untold: untold.clone(),
            told: None,
            lines: Vec::new(),
            limit: limits::RECORD_FILE,
        };
        Ok((
            Self {
                queue,
                lost,
                drops: Mutex::default(),
                untold,
            },
            writer,
        ))
    }

    /// Writes an event down.
    pub fn push(&self, sandbox: &str, event: Event) {
        let record = Item::Record(event.into_record(sandbox));
        match self.queue.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until what was pushed before is in the file, but not for ever: the disk may hang.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(limits::RECORD_FLUSH);
        }
    }

    /// Writes a dropped packet down, unless one to the same place was a moment ago: a guest can send
    /// millions of them.
    pub fn push_dropped(&self, sandbox: &str, event: Event) {
        let now = Instant::now();
        let key = (event.reason, event.host.clone(), event.port);
        {
            let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
            if drops
                .get(&key)
                .is_some_and(|at| now - *at < limits::DROP_RECORD_EVERY)
            {
                return;
            }
            if drops.len() >= limits::DROP_PLACES {
                drops.retain(|_, at| now - *at < limits::DROP_RECORD_EVERY);
            }
            if drops.len() >= limits::DROP_PLACES {
                let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
                untold.count += 1;
                untold.generation = event.generation;
                sandbox.clone_into(&mut untold.sandbox);
                return;
            }
            drops.insert(key, now);
        }
        self.push(sandbox, event);
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The writing end; run it on a thread of its own.
#[derive(Debug)]
pub struct RecordWriter {
    path: PathBuf,
    file: File,
    size: u64,
    receiver: Receiver<Item>,
    lost: Arc<AtomicU64>,
    untold: Arc<Mutex<Untold>>,
    /// Whole lines on their way to the file.
    lines: Vec<u8>,
    /// When drops without a record of their own were last counted in one.
    told: Option<Instant>,
    /// Size at which the file is rotated, in bytes.
    limit: u64,
}

impl RecordWriter {
    /// Writes until every sender is gone.
    pub fn run(mut self) {
        loop {
            let open = match self.receiver.recv_timeout(limits::DROP_RECORD_EVERY) {
                Ok(item) => {
                    self.take(item);
                    self.take_waiting();
                    true
                }
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            let recently = |at: Instant| at.elapsed() < limits::DROP_RECORD_EVERY;
            if !open || !self.told.is_some_and(recently) {
                self.tell_untold();
            }
            self.write_or_say();
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::error!(lost, "records were lost: the queue was full");
            }
            if !open {
                return;
            }
            Self::let_gather();
        }
    }

    /// Lets more records come before the next is looked for. Whoever pushes one meanwhile need not wake this thread,
    /// which would cost a request more than everything else about its record.
    #[expect(
        clippy::disallowed_methods,
        reason = "time is the condition: what else could end the wait would be a wake-up for each record"
    )]
    fn let_gather() {
        std::thread::sleep(limits::RECORD_GATHER);
    }

    fn take_waiting(&mut self) {
        for _ in 0..limits::RECORDS {
            let Ok(item) = self.receiver.try_recv() else {
                return;
            };
            self.take(item);
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Record(record) => self.add_or_say(&record),
            Item::Flush(done) => {
                self.write_or_say();
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    fn add_or_say(&mut self, record: &EgressRecord) {
        if let Err(error) = self.add(record) {
            tracing::error!(%error, "cannot write a record");
        }
    }

    fn write_or_say(&mut self) {
        if let Err(error) = self.write() {
            tracing::error!(%error, "cannot write records");
        }
    }

    /// One record for all drops that have none of their own.
    fn tell_untold(&mut self) {
        let untold = {
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *untold)
        };
        if untold.count == 0 {
            return;
        }
        self.told = Some(Instant::now());
        let host = format!("({} dropped packets)", untold.count);
        let (proxy, reason) = (ProxyKind::Network, Reason::TooManyPlaces);
        let event = Event::at(host, 0, proxy, reason, untold.generation);
        self.add_or_say(&event.into_record(&untold.sandbox));
    }

    /// Adds a line to those that are written together.
    fn add(&mut self, record: &EgressRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let length = line.len() as u64;
        let before = self.size + self.lines.len() as u64;
        if before > 0 && before + length > self.limit {
            self.write()?;
            if let Err(error) = self.rotate() {
                // The file in use goes on, up to twice its size; the next record tries again.
                if self.size + length > 2 * self.limit {
                    return Err(error);
                }
                tracing::warn!(%error, "the records cannot be rotated");
            }
        }
        self.lines.extend_from_slice(&line);
        Ok(())
    }

    /// Writes the lines. One write for all of them: readers never see half of one.
    fn write(&mut self) -> io::Result<()> {
        let lines = std::mem::take(&mut self.lines);
        if let Err(error) = self.file.write_all(&lines) {
            // A disk that is full may have taken a part.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    /// Begins a new file; the old one gets the suffix `.1`. The new one is opened first, because that is what can
    /// fail: then nothing has changed.
    fn rotate(&mut self) -> io::Result<()> {
        let new = self.beside(".new");
        let file = append(&new)?;
        match std::fs::rename(&self.path, self.beside(".1")) {
            // It was moved by an attempt that failed after this, or somebody has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        std::fs::rename(&new, &self.path)?;
        self.size = file.metadata()?.len();
        self.file = file;
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_becomes_the_old_one_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let (records, mut writer) = Records::open(&path).unwrap();
        writer.limit = 700;
        let target = Target::parse("a.test").unwrap();
        for _ in 0..4 {
            let event = Event::new(&target, ProxyKind::Dns, Reason::AllowRule, 1);
            records.push("box", event);
        }
        drop(records);
        writer.run();
        let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        let old = lines(&folder.path().join("egress.jsonl.1"));
        assert!(old >= 1 && lines(&path) >= 1, "{old}");
        assert_eq!(old + lines(&path), 4);
    }

    #[test]
    fn what_was_pushed_is_in_the_file_after_a_flush() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let (records, writer) = Records::open(&path).unwrap();
        let thread = std::thread::spawn(|| writer.run());
        let target = Target::parse("a.test").unwrap();
        for _ in 0..3 {
            let event = Event::new(&target, ProxyKind::Dns, Reason::AllowRule, 1);
            records.push("box", event);
        }
        records.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        drop(records);
        thread.join().unwrap();
    }

    #[test]
    fn a_rotation_that_fails_costs_no_record_and_is_made_up_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let (records, mut writer) = Records::open(&path).unwrap();
        writer.limit = 700;
        let target = Target::parse("a.test").unwrap();
        let event = Event::new(&target, ProxyKind::Dns, Reason::AllowRule, 1);
        let record = event.into_record("box");
        // Whatever the new file is called, it cannot be opened.
        let obstacles = ["egress.jsonl.new", "egress.jsonl.1"].map(|name| folder.path().join(name));
        for obstacle in &obstacles {
            std::fs::create_dir(obstacle).unwrap();
        }
        for _ in 0..4 {
            writer.add(&record).unwrap();
        }
        for obstacle in &obstacles {
            std::fs::remove_dir(obstacle).unwrap();
        }
        writer.add(&record).unwrap();
        writer.write().unwrap();
        drop(records);
        let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!(lines(&obstacles[1]), 4);
        assert_eq!(lines(&path), 1);
    }

    #[test]
    fn dropped_packets_to_one_place_make_one_record_and_those_beyond_the_places_one_together() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let (records, writer) = Records::open(&path).unwrap();
        for i in 0..2000 {
            let host = format!("10.0.{}.{}", i / 200, i % 200);
            for _ in 0..3 {
                let event = Event::at(host.clone(), 0, ProxyKind::Network, Reason::Icmp, 1);
                records.push_dropped("box", event);
            }
        }
        drop(records);
        writer.run();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), limits::DROP_PLACES + 1);
        let records = text
            .lines()
            .map(|line| serde_json::from_str::<EgressRecord>(line).unwrap());
        let together: Vec<_> = records.filter(|r| r.reason == "too-many-places").collect();
        let untold = 3 * (2000 - limits::DROP_PLACES);
        assert_eq!(together[0].host, format!("({untold} dropped packets)"));
        assert!(!together[0].allowed);
    }
}
