//! `policy log --follow`: the gateways' records as they are written.
//!
//! The files are looked at a few times a second, and only while somebody follows. A gateway that begins a new file
//! (a rotation) or a new life (it appends to the same one) costs no record.

use crate::daemon::Daemon;
use crate::image;
use crate::policy_log::{self, Filter, MAX_LINE};
use sbx_wire::api::LogEvent;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Between two looks at files that had nothing new.
const LOOK: Duration = Duration::from_millis(200);
/// Events that wait for a slow client; while they do, nothing is read.
const PENDING: usize = 256;
/// Most bytes of one file that are read at one look.
const CHUNK: usize = 256 << 10;

/// Begins to follow the records of one sandbox, or of all, also of those that are made later. Records that lie there
/// already count when the filter names a time.
pub(crate) fn start(
    daemon: Arc<Daemon>,
    only: Option<String>,
    filter: Filter,
) -> mpsc::Receiver<LogEvent> {
    let (events, receiver) = mpsc::channel(PENDING);
    tokio::spawn(async move {
        let mut ending = daemon.ending.subscribe();
        tokio::select! {
            biased; // a daemon that is about to end does not begin
            _ = ending.wait_for(|ending| *ending) => {}
            () = follow(&daemon, only, filter, &events) => {}
            () = events.closed() => {}
        }
    });
    receiver
}

async fn follow(
    daemon: &Daemon,
    only: Option<String>,
    filter: Filter,
    events: &mpsc::Sender<LogEvent>,
) {
    let mut tails: BTreeMap<String, Tail> = BTreeMap::new();
    let (mut first, mut begins) = (filter.since_ms == 0, true);
    loop {
        let sandboxes = match &only {
            None => daemon.sandboxes(),
            Some(name) => match daemon.sandbox(name) {
                Ok(sandbox) => vec![sandbox],
                Err(gone) => {
                    // The client may have gone, too.
                    let _ = events.send(LogEvent::End(gone.message)).await;
                    return;
                }
            },
        };
        tails.retain(|id, _| sandboxes.iter().any(|sandbox| sandbox.id == *id));
        for sandbox in sandboxes {
            let tail = || Tail::new(&sandbox.name, &sandbox.dir, first);
            tails.entry(sandbox.id.clone()).or_insert_with(tail);
        }
        if std::mem::take(&mut begins) && events.send(LogEvent::Following).await.is_err() {
            return;
        }
        first = false;
        let wanted = filter.clone();
        let looked = image::blocking(move || {
            let mut found = Vec::new();
            for tail in tails.values_mut() {
                tail.look(&wanted, &mut found);
            }
            (tails, found)
        });
        let Ok((back, found)) = looked.await else {
            return;
        };
        tails = back;
        let quiet = found.is_empty();
        for event in found {
            if events.send(event).await.is_err() {
                return;
            }
        }
        if quiet {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// One sandbox's records, as far as they were read.
#[derive(Debug)]
struct Tail {
    sandbox: String,
    newest: PathBuf,
    older: PathBuf,
    file: Option<Open>,
    /// Whether the older file comes before the newest one.
    older_first: bool,
}

/// A file of records that is being read.
#[derive(Debug)]
struct Open {
    file: File,
    /// Says whether the path still leads to this file.
    inode: u64,
    offset: u64,
    /// The beginning of a line that is not complete yet.
    line: Vec<u8>,
    /// The line was longer than any record: what follows up to its end is left out.
    overlong: bool,
}

impl Tail {
    /// `skip`: what lies there already does not count.
    fn new(sandbox: &str, dir: &Path, skip: bool) -> Self {
        let (newest, older) = policy_log::paths(dir);
        Self {
            sandbox: sandbox.to_owned(),
            file: Open::at(&newest, true).filter(|_| skip),
            newest,
            older,
            older_first: !skip,
        }
    }

    /// Adds what is new to `found`.
    fn look(&mut self, filter: &Filter, found: &mut Vec<LogEvent>) {
        let Some(open) = &mut self.file else {
            let older = std::mem::take(&mut self.older_first) && inode(&self.older).is_some();
            let path = if older { &self.older } else { &self.newest };
            self.file = Open::at(path, false);
            // No file: the sandbox has not run yet, or the next one is just being put into place.
            if self.file.is_some() {
                self.look(filter, found);
            }
            return;
        };
        if open.read(&self.sandbox, filter, found) || inode(&self.newest) == Some(open.inode) {
            return;
        }
        // Nobody writes to this file any more. What came between the look at its end and the rotation still counts.
        while open.read(&self.sandbox, filter, found) {}
        let finished = open.inode;
        self.file = None;
        if inode(&self.older).is_some_and(|older| older != finished) {
            self.older_first = true;
            found.push(LogEvent::Notice(format!(
                "{}: records come faster than they are read; some may be missing",
                self.sandbox
            )));
        }
    }
}

/// What identifies the file that a path leads to now.
fn inode(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().map(|meta| meta.ino())
}

impl Open {
    fn at(path: &Path, end: bool) -> Option<Self> {
        let (file, size) = policy_log::open(path).ok()?;
        let inode = file.metadata().ok()?.ino();
        Some(Self {
            file,
            inode,
            offset: if end { size } else { 0 },
            line: Vec::new(),
            overlong: false,
        })
    }

    /// Reads on, [`CHUNK`] bytes at most. False: there was nothing.
    fn read(&mut self, sandbox: &str, filter: &Filter, found: &mut Vec<LogEvent>) -> bool {
        let size = self.file.metadata().map_or(0, |meta| meta.len());
        if size < self.offset {
            // A record that the disk had no room for was taken back.
            self.offset = size;
            self.line.clear();
        }
        let mut chunk = vec![0; CHUNK];
        let read = self
            .file
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| self.file.read(&mut chunk));
        let Ok(count @ 1..) = read else {
            return false;
        };
        self.offset += count as u64;
        for piece in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            self.overlong |= self.line.len() + piece.len() > MAX_LINE + 1;
            if self.overlong {
                self.line.clear();
            } else {
                self.line.extend_from_slice(piece);
            }
            if ends {
                let record = policy_log::parse(sandbox, &self.line);
                let record = record.filter(|record| filter.accepts(record));
                found.extend(record.map(|record| LogEvent::Record(Box::new(record))));
                self.line.clear();
                self.overlong = false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = Self(dir);
            fs::create_dir(folder.newest().parent().unwrap()).unwrap();
            folder
        }

        fn newest(&self) -> PathBuf {
            policy_log::paths(self.0.path()).0
        }

        fn write(&self, text: &str) {
            let file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.newest());
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn record(&self, host: &str) {
            self.write(&format!(
                "{{\"time_ms\":1,\"sandbox\":\"x\",\"type\":\"network\",\"host\":\"{host}\",\"port\":1,\"proxy\":\"dns\",\"allowed\":true,\"rule\":null,\"rule_text\":null,\"reason\":\"r\",\"generation\":1}}\n"
            ));
        }

        fn rotate(&self) {
            fs::rename(self.newest(), policy_log::paths(self.0.path()).1).unwrap();
        }

        fn tail(&self, skip: bool) -> Tail {
            Tail::new("box", self.0.path(), skip)
        }
    }

    /// What is new, until there is nothing new any more: hosts, and `!` for a notice.
    fn hosts(tail: &mut Tail) -> String {
        let (mut text, mut quiet) = (String::new(), 0);
        while quiet < 3 {
            let mut found = Vec::new();
            tail.look(&Filter::default(), &mut found);
            quiet = if found.is_empty() { quiet + 1 } else { 0 };
            for event in found {
                match &event {
                    LogEvent::Record(record) => {
                        assert_eq!(record.sandbox, "box");
                        text.push_str(&record.host);
                    }
                    LogEvent::Notice(_) => text.push('!'),
                    LogEvent::Following | LogEvent::End(_) => panic!("{event:?}"),
                }
            }
        }
        text
    }

    #[test]
    fn rotations_cost_no_record() {
        let folder = Folder::new();
        folder.record("a");
        let (mut new, mut all) = (folder.tail(true), folder.tail(false));
        assert_eq!(
            (hosts(&mut new), hosts(&mut all)),
            (String::new(), "a".to_owned())
        );
        folder.record("b");
        folder.rotate();
        // Between the two renames there is no newest file.
        assert_eq!(hosts(&mut new), "b");
        folder.record("c");
        assert_eq!(
            (hosts(&mut new), hosts(&mut all)),
            ("c".to_owned(), "bc".to_owned())
        );
        // A file that came and went meanwhile is found behind the older name, and the doubt is said.
        folder.record("d");
        folder.rotate();
        folder.record("e");
        folder.rotate();
        folder.record("f");
        assert_eq!(hosts(&mut new), "d!ef");
        assert_eq!(hosts(&mut folder.tail(false)), "ef");
    }

    #[test]
    fn half_a_line_waits_for_its_end_and_an_endless_one_is_left_out() {
        let folder = Folder::new();
        let mut tail = folder.tail(true);
        assert_eq!(hosts(&mut tail), "");
        folder.record("a");
        let text = fs::read_to_string(folder.newest()).unwrap();
        let (half, rest) = text.split_at(40);
        folder.write(half);
        assert_eq!(hosts(&mut tail), "a");
        folder.write(rest);
        assert_eq!(hosts(&mut tail), "a");
        folder.write(&"x".repeat(3 * CHUNK));
        assert_eq!(hosts(&mut tail), "");
        assert!(tail.file.as_ref().unwrap().line.len() <= MAX_LINE);
        folder.write("\nnot json\n");
        folder.record("b");
        assert_eq!(hosts(&mut tail), "b");
        // A record that did not fit onto the disk is taken back by its writer.
        folder.write(half);
        assert_eq!(hosts(&mut tail), "");
        let whole = fs::metadata(folder.newest()).unwrap().len() - half.len() as u64;
        fs::OpenOptions::new()
            .write(true)
            .open(folder.newest())
            .unwrap()
            .set_len(whole)
            .unwrap();
        assert_eq!(hosts(&mut tail), "");
        folder.record("c");
        assert_eq!(hosts(&mut tail), "c");
    }
}
