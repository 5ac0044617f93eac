//! What was tried: one line of JSON each, in a file that the supervisor's side reads.

use crate::limits::{EVENT_AGAIN_MS, LAST_EVENTS, MAX_EVENT_BYTES, MAX_EVENTS};
use sbx_workspace::Mode;
use sbx_workspace::event::{Action, Event};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::time::SystemTime;

/// The file, and what it says already. The same file and action are said once, and, where the change was made, again
/// after a while: somebody may have been told of the first one and looked. So a guest that tries on and on fills neither
/// the disk nor the reader's screen, and nothing that is refused takes room from what is made.
#[derive(Debug)]
pub(crate) struct Events {
    file: Option<File>,
    said: RefCell<Said>,
}

#[derive(Debug, Default)]
struct Said {
    refused: Budget,
    made: Budget,
    hasher: RandomState,
    bytes: usize,
}

/// Of one mode.
#[derive(Debug, Default)]
struct Budget {
    /// When something was said last. The key is of the path and the action, which are as long as the guest likes.
    known: HashMap<u64, u64>,
    lines: usize,
    full: bool,
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
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix_ms = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        self.say_at(unix_ms, action, mode, path, why);
    }

    fn say_at(&self, unix_ms: u64, action: Action, mode: Mode, path: &[u8], why: String) {
        let mut said = self.said.borrow_mut();
        let said = &mut *said;
        let hash = said.hasher.hash_one((path, action));
        let (budget, room) = match mode {
            Mode::Block => (&mut said.refused, MAX_EVENT_BYTES),
            Mode::Report => (&mut said.made, 2 * MAX_EVENT_BYTES - LAST_EVENTS),
        };
        let last = budget.known.get(&hash);
        let again = |last: &u64| mode == Mode::Report && unix_ms.abs_diff(*last) >= EVENT_AGAIN_MS;
        if budget.full || !last.is_none_or(again) {
            return;
        }
        budget.full = budget.lines >= MAX_EVENTS;
        let mut event = Event::full(unix_ms, mode);
        if !budget.full {
            budget.lines += 1;
            budget.known.insert(hash, unix_ms);
            let path = String::from_utf8_lossy(path).into_owned();
            tracing::info!(%action, ?mode, path = %path.escape_debug(), why, "guarded");
            event = Event {
                path,
                action,
                why,
                ..event
            };
        }
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        let mut line = line(&event);
        if said.bytes.saturating_add(line.len()) > room {
            budget.full = true;
        }
        if budget.full {
            line = self::line(&Event::full(unix_ms, mode));
            // Without room for that either, an earlier start has said it: that refusals are not said takes no room from the
            // other.
            let last = match mode {
                Mode::Block => 2 * MAX_EVENT_BYTES - LAST_EVENTS / 2,
                Mode::Report => 2 * MAX_EVENT_BYTES,
            };
            if said.bytes.saturating_add(line.len()) > last {
                return;
            }
        }
        said.bytes += line.len();
        // One that cannot be written is in the log, if that has room; the refusal stands.
        if let Err(error) = file.write_all(&line) {
            tracing::warn!(%error, "an event is lost");
        }
    }
}

fn line(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
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

    /// What stands in the file, and how much of it is of a mode.
    fn count(file: &mut File, mode: Mode) -> (usize, usize) {
        let events = lines(file);
        let of_mode = events.iter().filter(|event| event.mode == mode);
        let (full, others): (Vec<_>, Vec<_>) = of_mode.partition(|event| event.is_full());
        (others.len(), full.len())
    }

    #[test]
    fn a_process_says_so_many_events_each_once_and_a_file_has_room_for_so_many_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        let say = |events: &Events, mode, path: String| {
            events.say_at(1, Action::Write, mode, path.as_bytes(), String::new());
        };
        let start = |file: &File| Events::new(Some(file.try_clone().unwrap()));
        let events = start(&file);
        for number in 0..MAX_EVENTS + 50 {
            say(
                &events,
                Mode::Block,
                (number % (MAX_EVENTS + 20)).to_string(),
            );
        }
        assert_eq!(count(&mut file, Mode::Block), (MAX_EVENTS, 1));
        assert_eq!(events.said.borrow().refused.known.len(), MAX_EVENTS);
        // What is made has room of its own, also beside a list of refusals that is full.
        say(&events, Mode::Report, "made".to_owned());
        assert_eq!(count(&mut file, Mode::Report), (1, 0));
        // Another process goes on in the same file.
        let events = start(&file);
        for number in 0..MAX_EVENTS {
            say(&events, Mode::Block, format!("{number:0200}"));
        }
        let (refused, full) = count(&mut file, Mode::Block);
        assert!(
            refused > MAX_EVENTS - 20 && refused < 2 * MAX_EVENTS,
            "{refused}"
        );
        assert_eq!(full, 2);
        let bound = MAX_EVENT_BYTES as u64;
        let length = file.metadata().unwrap().len();
        assert!((bound - 400..bound + 400).contains(&length), "{length}");
        for number in 0..MAX_EVENTS {
            say(&events, Mode::Report, format!("{number:0200}"));
        }
        let (made, full) = count(&mut file, Mode::Report);
        assert!(made > 2000 && full == 1, "{made}");
        // However often it is started: what is read of it has a bound.
        for _ in 0..200 {
            let events = start(&file);
            say(&events, Mode::Report, "late".to_owned());
            say(&events, Mode::Block, "late".to_owned());
        }
        let length = file.metadata().unwrap().len();
        assert!(length <= 2 * bound, "{length}");
    }

    #[test]
    fn that_refusals_are_not_said_takes_no_room_from_what_is_made() {
        let mut file = tempfile::tempfile().unwrap();
        let say = |file: &File, mode, path: &str| {
            let events = Events::new(Some(file.try_clone().unwrap()));
            events.say_at(1, Action::Write, mode, path.as_bytes(), String::new());
        };
        // As far as changes that are made may go, but for the next one.
        let long = "x".repeat(3000);
        let room = (2 * MAX_EVENT_BYTES - LAST_EVENTS - 1000) as u64;
        while file.metadata().unwrap().len() + 3200 < room {
            say(&file, Mode::Report, &long);
        }
        for _ in 0..200 {
            say(&file, Mode::Block, "refused");
        }
        assert_eq!(count(&mut file, Mode::Report).1, 0);
        say(&file, Mode::Report, &long);
        say(&file, Mode::Report, &long);
        assert!(count(&mut file, Mode::Report).1 >= 1);
    }

    #[test]
    fn what_is_made_is_said_again_after_a_while_and_what_is_refused_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        let events = Events::new(Some(file.try_clone().unwrap()));
        let mut said = |unix_ms: u64| {
            for mode in [Mode::Block, Mode::Report] {
                let path = format!("{mode:?}");
                events.say_at(unix_ms, Action::Write, mode, path.as_bytes(), String::new());
            }
            (
                count(&mut file, Mode::Block).0,
                count(&mut file, Mode::Report).0,
            )
        };
        let start = 1_000_000;
        assert_eq!(said(start), (1, 1));
        assert_eq!(said(start + EVENT_AGAIN_MS - 1), (1, 1));
        assert_eq!(said(start + EVENT_AGAIN_MS), (1, 2));
        // The clock was set back.
        assert_eq!(said(1), (1, 3));
    }
}
