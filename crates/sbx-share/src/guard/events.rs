//! What was tried: one line of JSON each, in a file that the supervisor's side reads.

use crate::limits::{MAX_EVENT_BYTES, MAX_EVENTS};
use sbx_workspace::Mode;
use sbx_workspace::event::{Action, Event};
use std::cell::RefCell;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::time::SystemTime;

/// The file, and what it says already. The same file and action are said once: a guest that tries on and on fills
/// neither the disk nor the reader's screen.
#[derive(Debug)]
pub(crate) struct Events {
    file: Option<File>,
    said: RefCell<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// Of the path and the action, which are as long as the guest likes.
    known: HashSet<u64>,
    hasher: RandomState,
    bytes: usize,
}

impl Events {
    pub(super) fn new(file: Option<File>) -> Self {
        let bytes = file.as_ref().and_then(|file| file.metadata().ok());
        let bytes = bytes.map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(usize::MAX));
        Self {
            file,
            said: RefCell::new(Said {
                bytes,
                ..Said::default()
            }),
        }
    }

    pub(super) fn say(&self, action: Action, mode: Mode, path: &[u8], why: String) {
        let mut said = self.said.borrow_mut();
        let hash = said.hasher.hash_one((path, action));
        if said.known.len() >= MAX_EVENTS || !said.known.insert(hash) {
            return;
        }
        let path = String::from_utf8_lossy(path).into_owned();
        tracing::info!(%action, ?mode, path = %path.escape_debug(), why, "guarded");
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let event = Event {
            unix_ms: since.map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }),
            path,
            action,
            mode,
            why,
        };
        let Ok(mut line) = serde_json::to_vec(&event) else {
            return;
        };
        line.push(b'\n');
        if said.bytes.saturating_add(line.len()) > MAX_EVENT_BYTES {
            return;
        }
        said.bytes += line.len();
        // One that cannot be written is in the log, if that has room; the refusal stands.
        if let Err(error) = file.write_all(&line) {
            tracing::warn!(%error, "an event is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _};

    fn lines(file: &mut File) -> Vec<Event> {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert!(text.ends_with('\n'), "a line was cut");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_process_says_so_many_events_each_once_and_a_file_has_room_for_so_many_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        let say = |events: &Events, path: String| {
            events.say(Action::Write, Mode::Block, path.as_bytes(), String::new());
        };
        let events = Events::new(Some(file.try_clone().unwrap()));
        for number in 0..MAX_EVENTS + 50 {
            say(&events, (number % (MAX_EVENTS + 20)).to_string());
        }
        assert_eq!(lines(&mut file).len(), MAX_EVENTS);
        assert_eq!(events.said.borrow().known.len(), MAX_EVENTS);
        // Another process goes on in the same file.
        let events = Events::new(Some(file.try_clone().unwrap()));
        for number in 0..MAX_EVENTS {
            say(&events, format!("{number:0200}"));
        }
        let said = lines(&mut file);
        assert!(said.len() > MAX_EVENTS && said.len() < 2 * MAX_EVENTS);
        let length = file.metadata().unwrap().len();
        let bound = MAX_EVENT_BYTES as u64;
        assert!((bound - 400..=bound).contains(&length), "{length}");
    }
}
