//! What left and what was stopped: one JSON line per event in `egress.jsonl`.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sbx_policy::{RuleRef, Target};
use sbx_wire::gateway::{EgressRecord, ProxyKind};

use crate::limits;
use crate::reason::Reason;
use crate::record_file::RecordFile;

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
    /// What somebody should know besides, a code in kebab-case.
    pub alert: Option<&'static str>,
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
            alert: None,
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
        // Events of requests that are in work are kept.
        self.path = Some(bounded(path).to_owned());
        self
    }

    /// Whether it has to be in the file before anything else happens: what was stopped, and what begins and may then go on
    /// unseen. An allowed request has a connection that was judged, and others around it.
    fn is_urgent(&self) -> bool {
        self.method.is_none() || self.alert.is_some() || !self.reason.is_allowed()
    }

    fn record<'a>(&'a self, sandbox: &'a str, time_ms: u64) -> EgressRecord<&'a str> {
        let rule = self.rule.as_ref();
        EgressRecord {
            time_ms,
            sandbox,
            kind: "network",
            host: bounded(&self.host),
            port: self.port,
            proxy: self.proxy,
            allowed: self.reason.is_allowed(),
            rule: rule.map(|rule| rule.id.as_str()),
            rule_text: rule.map(|rule| rule.label()),
            reason: self.reason.as_str(),
            method: self.method.as_deref().map(bounded),
            path: self.path.as_deref().map(bounded),
            credential: self.credential.as_deref(),
            alert: self.alert,
            generation: self.generation,
        }
    }
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(limits::RECORD_TEXT)]
}

fn now_ms() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(time.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
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

/// Records that found no place, on the disk or in memory, since the last that counted them.
#[derive(Debug)]
struct Lost {
    count: u64,
    first_ms: u64,
    last_ms: u64,
    sandbox: String,
    generation: u64,
}

/// What is on its way to the file.
#[derive(Debug)]
struct Out {
    file: RecordFile,
    /// Whole lines. Those that cannot be written wait here, up to [`room`] and a line.
    lines: Vec<u8>,
    /// When the first of them was added.
    since_ms: u64,
    /// The last attempt to write failed.
    failing: bool,
    lost: Option<Lost>,
}

/// Bytes that may wait before an event is no longer taken. What was let through has more: nothing new is while records
/// cannot be written, so that it began before, and no flood of what was stopped may push it out.
fn room(event: &Event) -> usize {
    if event.reason.is_allowed() {
        limits::RECORDS_WAITING_ALLOWED
    } else {
        limits::RECORDS_WAITING
    }
}

impl Out {
    fn add(&mut self, sandbox: &str, event: &Event, now: u64) {
        if self.lines.is_empty() {
            self.since_ms = now;
        }
        let before = self.lines.len();
        match serde_json::to_writer(&mut self.lines, &event.record(sandbox, now)) {
            Ok(()) => self.lines.push(b'\n'),
            Err(error) => {
                tracing::error!(%error, "a record is lost");
                self.lines.truncate(before);
            }
        }
    }

    fn lose(&mut self, sandbox: &str, event: &Event, now: u64) {
        let lost = self.lost.get_or_insert_with(|| Lost {
            count: 0,
            first_ms: now,
            last_ms: now,
            sandbox: sandbox.to_owned(),
            generation: event.generation,
        });
        lost.count += 1;
        lost.last_ms = now;
    }

    /// Writes what waits, and behind it how much was lost.
    fn write(&mut self) {
        if self.write_lines()
            && let Some(lost) = self.lost.take()
        {
            let seconds = lost.last_ms.abs_diff(lost.first_ms).div_ceil(1000);
            let host = format!("({} records lost within {seconds} s)", lost.count);
            let (proxy, reason) = (ProxyKind::Network, Reason::RecordsLost);
            let event = Event::at(host, 0, proxy, reason, lost.generation);
            self.add(&lost.sandbox, &event, lost.last_ms);
            self.write_lines();
        }
    }

    fn write_lines(&mut self) -> bool {
        let Err(failed) = self.file.write(&self.lines) else {
            self.lines.clear();
            self.failing = false;
            return true;
        };
        self.lines.drain(..failed.written);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(error = %failed.error, "records cannot be written");
        }
        false
    }

    fn waits(&self) -> bool {
        !self.lines.is_empty() || self.lost.is_some()
    }
}

/// The way to the record file, without a thread between: a gateway that is killed, or brought to its end by its guest, has
/// written down what it did. What was stopped or begins is in the file when [`Records::push`] returns. Allowed requests
/// wait for others that are answered in the same turn: until the thread has nothing else to do
/// ([`Records::write_gathered`]), and at most [`limits::RECORD_GATHER`].
#[derive(Debug)]
pub struct Records {
    out: Mutex<Out>,
    /// Something waits, so that to ask costs nothing.
    waiting: AtomicBool,
    /// The last attempt to write failed; the same.
    failing: AtomicBool,
    drops: Mutex<Drops>,
    untold: Mutex<Untold>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records {
    /// Opens the file for appending.
    pub fn open(path: &Path) -> io::Result<Self> {
        let out = Out {
            file: RecordFile::open(path)?,
            lines: Vec::new(),
            since_ms: 0,
            failing: false,
            lost: None,
        };
        Ok(Self {
            out: Mutex::new(out),
            waiting: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            drops: Mutex::default(),
            untold: Mutex::default(),
        })
    }

    /// Writes an event down. If that cannot be done now it waits, as far as there is room, and is counted beyond that.
    pub fn push(&self, sandbox: &str, event: &Event) {
        let now = now_ms();
        let mut out = lock(&self.out);
        if out.failing {
            // Perhaps there is room again.
            out.write();
        }
        if out.failing && out.lines.len() >= room(event) {
            out.lose(sandbox, event, now);
        } else {
            out.add(sandbox, event, now);
            let old = u128::from(now.abs_diff(out.since_ms)) >= limits::RECORD_GATHER.as_millis();
            let full = out.lines.len() >= limits::RECORDS_WAITING;
            // What failed a moment ago fails again.
            if !out.failing && (event.is_urgent() || old || full) {
                out.write();
            }
        }
        self.note(&out);
    }

    /// Whether what happens now can be written down: false while the disk is full, say. Tries it, if it failed before.
    pub fn can_write(&self) -> bool {
        if !self.failing.load(Ordering::Acquire) {
            return true;
        }
        let mut out = lock(&self.out);
        out.write();
        self.note(&out);
        !out.failing
    }

    fn note(&self, out: &Out) {
        self.waiting.store(out.waits(), Ordering::Release);
        self.failing.store(out.failing, Ordering::Release);
    }

    /// Writes what was gathered: a thread that is about to sleep calls it. Does nothing while the disk takes nothing, which
    /// would cost every sleep a few attempts.
    pub fn write_gathered(&self) {
        if !self.failing.load(Ordering::Acquire) {
            self.write_waiting();
        }
    }

    /// Writes what waits, also if that failed a moment ago.
    pub fn write_waiting(&self) {
        if self.waiting.load(Ordering::Acquire) {
            let mut out = lock(&self.out);
            out.write();
            self.note(&out);
        }
    }

    /// Writes a dropped packet down, unless one to the same place was a moment ago: a guest can send
    /// millions of them.
    pub fn push_dropped(&self, sandbox: &str, event: &Event) {
        let now = Instant::now();
        let key = (event.reason, event.host.clone(), event.port);
        {
            let mut drops = lock(&self.drops);
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
                let mut untold = lock(&self.untold);
                untold.count += 1;
                untold.generation = event.generation;
                sandbox.clone_into(&mut untold.sandbox);
                return;
            }
            drops.insert(key, now);
        }
        self.push(sandbox, event);
    }

    /// One record for all drops that have none of their own, and another attempt to write what could not be written; to
    /// be called every [`limits::DROP_RECORD_EVERY`].
    pub fn tell_untold(&self) {
        self.write_waiting();
        let untold = std::mem::take(&mut *lock(&self.untold));
        if untold.count > 0 {
            let host = format!("({} dropped packets)", untold.count);
            let (proxy, reason) = (ProxyKind::Network, Reason::TooManyPlaces);
            let event = Event::at(host, 0, proxy, reason, untold.generation);
            self.push(&untold.sandbox, &event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("egress.jsonl")).unwrap();
        (folder, records)
    }

    fn written(folder: &tempfile::TempDir) -> Vec<EgressRecord> {
        let text = std::fs::read_to_string(folder.path().join("egress.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn event(reason: Reason) -> Event {
        let target = Target::parse("a.test").unwrap();
        Event::new(&target, ProxyKind::Forward, reason, 1)
    }

    #[test]
    fn what_was_stopped_or_begins_is_in_the_file_at_once() {
        let (folder, records) = open();
        records.push("box", &event(Reason::AllowRule));
        assert_eq!(written(&folder).len(), 1);
        records.push("box", &event(Reason::DenyRule).with_request("GET", "/"));
        assert_eq!(written(&folder).len(), 2);
    }

    #[test]
    fn allowed_requests_wait_for_the_thread_to_be_idle_and_no_longer_than_they_may() {
        let (folder, records) = open();
        let request = event(Reason::AllowRule).with_request("GET", "/");
        records.push("box", &request);
        assert_eq!(written(&folder).len(), 0);
        records.write_gathered();
        assert_eq!(written(&folder).len(), 1);
        // Somebody who never sleeps: the file has all but what came within the last moment.
        let until = Instant::now() + 20 * limits::RECORD_GATHER;
        let mut pushed = 1;
        while Instant::now() < until {
            records.push("box", &request);
            pushed += 1;
        }
        let found = written(&folder).len();
        assert!(found > 1, "{found} of {pushed}");
        // And everything that waits goes in front of what does not.
        records.push("box", &event(Reason::DenyRule));
        let all = written(&folder);
        assert_eq!(all.len(), pushed + 1);
        assert_eq!(all.last().map(|record| record.allowed), Some(false));
    }

    /// A folder in place of the next file, and the file in use so large that it takes nothing more.
    fn obstruct(folder: &tempfile::TempDir) -> (Records, std::path::PathBuf) {
        let path = folder.path().join("egress.jsonl");
        let file = std::fs::File::create(&path).unwrap();
        // A hole: it ends in no line, and is longer than it may get.
        file.set_len(2 * limits::RECORD_FILE).unwrap();
        let obstacle = folder.path().join("egress.jsonl.new");
        std::fs::create_dir(&obstacle).unwrap();
        (Records::open(&path).unwrap(), obstacle)
    }

    #[test]
    fn what_cannot_be_written_waits_and_what_finds_no_room_is_counted_in_a_record() {
        for (reason, room) in [
            (Reason::DenyRule, limits::RECORDS_WAITING),
            (Reason::AllowRule, limits::RECORDS_WAITING_ALLOWED),
        ] {
            finds_no_room(reason, room);
        }
    }

    fn finds_no_room(reason: Reason, room: usize) {
        let folder = tempfile::tempdir().unwrap();
        let (records, obstacle) = obstruct(&folder);
        let pushed = 2 * room / 100;
        for _ in 0..pushed {
            records.push("box", &event(reason));
        }
        std::fs::remove_dir(&obstacle).unwrap();
        records.write_waiting();
        let all = written(&folder);
        let (told, kept) = all.split_last().unwrap();
        let wanted = reason.is_allowed();
        assert!(kept.len() > room / 1000 && kept.iter().all(|record| record.allowed == wanted));
        assert_eq!(
            (told.reason.as_str(), told.allowed),
            ("records-lost", false)
        );
        let count = format!("({} records lost within ", pushed - kept.len());
        assert!(told.host.starts_with(&count), "{}", told.host);
        assert_eq!(told.sandbox, "box");
        // Once, and then everything is as before.
        records.push("box", &event(Reason::DenyRule));
        let after = written(&folder);
        assert_eq!(after.len(), all.len() + 1);
        assert_eq!(after.last().unwrap().reason, "deny-rule");
    }

    #[test]
    fn what_was_let_through_is_not_pushed_out_by_what_was_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (records, obstacle) = obstruct(&folder);
        for _ in 0..2 * limits::RECORDS_WAITING / 100 {
            records.push("box", &event(Reason::DenyRule));
        }
        records.push("box", &event(Reason::SshSigned));
        std::fs::remove_dir(&obstacle).unwrap();
        // Who only sleeps does not try again.
        records.write_gathered();
        let size = || folder.path().join("egress.jsonl").metadata().unwrap().len();
        assert_eq!(size(), 2 * limits::RECORD_FILE);
        records.tell_untold();
        let all = written(&folder);
        let [.., signed, told] = &all[..] else {
            panic!("{} records", all.len());
        };
        assert_eq!(
            (&*signed.reason, &*told.reason),
            ("ssh-signed", "records-lost")
        );
    }

    #[test]
    fn long_texts_are_cut_where_a_character_ends() {
        let (folder, records) = open();
        let path = format!("/{}", "ä".repeat(limits::RECORD_TEXT));
        records.push("box", &event(Reason::DenyRule).with_request("GET", &path));
        let record = written(&folder).remove(0);
        assert_eq!(
            record.path.map(|path| path.len()),
            Some(limits::RECORD_TEXT - 1)
        );
    }

    #[test]
    fn dropped_packets_to_one_place_make_one_record_and_those_beyond_the_places_one_together() {
        let (folder, records) = open();
        for i in 0..2000 {
            let host = format!("10.0.{}.{}", i / 200, i % 200);
            for _ in 0..3 {
                let event = Event::at(host.clone(), 0, ProxyKind::Network, Reason::Icmp, 1);
                records.push_dropped("box", &event);
            }
        }
        records.tell_untold();
        records.tell_untold();
        let all = written(&folder);
        assert_eq!(all.len(), limits::DROP_PLACES + 1);
        let together: Vec<_> = all
            .iter()
            .filter(|r| r.reason == "too-many-places")
            .collect();
        let untold = 3 * (2000 - limits::DROP_PLACES);
        assert_eq!(together[0].host, format!("({untold} dropped packets)"));
        assert!(!together[0].allowed);
    }
}
