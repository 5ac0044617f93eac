//! The guest's console: kept on disk up to a bound, its last lines in memory for error messages.
//!
//! A flooding guest starts the file anew again and again; it never fills the host's disk.

use crate::state::lock;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};
use tokio::net::unix::pipe::Receiver;

/// Largest console log, in bytes.
pub const MAX_BYTES: u64 = 4 << 20;
/// Bytes of a line that are looked at for error messages.
const MAX_LINE: usize = 4096;
/// Bytes kept in memory.
const TAIL: usize = 8 << 10;
/// Bytes read from the pipe at a time.
const PIECE: usize = 16 << 10;
/// Pieces after which others get a turn: a console may be written faster than it is read.
const TURN: usize = 16;
/// What the pipe holds (`pipe(7)`), in pieces.
const PIPE: usize = (64 << 10) / PIECE;
const RESTARTED: &[u8] = b"[earlier output dropped: the log reached its limit]\n";

/// See the module.
#[derive(Debug)]
pub struct Console {
    file: File,
    written: u64,
    tail: VecDeque<u8>,
}

impl Console {
    /// Writes into `file`, which must have been opened for appending and is emptied.
    ///
    /// # Errors
    /// When the file cannot be emptied.
    pub fn new(file: File) -> io::Result<Self> {
        file.set_len(0)?;
        Ok(Self {
            file,
            written: 0,
            tail: VecDeque::with_capacity(TAIL),
        })
    }

    /// Takes console output.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().rev().take(TAIL).rev() {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(*byte);
        }
        // A disk that is full costs the log, not the sandbox.
        let _ = self.store(bytes);
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written + bytes.len() as u64 > MAX_BYTES {
            self.file.set_len(0)?;
            self.file.write_all(RESTARTED)?;
            self.written = RESTARTED.len() as u64;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// The last `count` lines that say anything, without control characters, each at most 200 characters.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| both_ends(&clean(line, MAX_LINE)))
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines.split_off(lines.len().saturating_sub(count))
    }
}

/// A long line's beginning and its end: QEMU says first what it was asked for, and then what is wrong with that.
fn both_ends(line: &str) -> String {
    const SHOWN: usize = 120;
    let count = line.chars().count();
    if count <= 2 * SHOWN {
        return line.to_owned();
    }
    let first: String = line.chars().take(SHOWN).collect();
    let last: String = line.chars().skip(count - SHOWN).collect();
    format!("{first} … {last}")
}

/// Text from the guest for people's eyes: no terminal sequences (ECMA-48, 5.4), no other control characters, at
/// most about `limit` bytes.
pub fn clean(text: &str, limit: usize) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            // ESC [ … up to a letter; the tail of any other sequence is harmless text.
            let mut ahead = rest.clone();
            if ahead.next() == Some('[') {
                let _ = ahead.find(|c| matches!(c, '@'..='~'));
                rest = ahead;
            }
        } else if !c.is_control() {
            out.push(c);
        }
        if out.len() >= limit {
            break;
        }
    }
    out
}

/// The console pipe and where its content goes. Clones are the same.
#[derive(Debug, Clone)]
pub struct Feed {
    pipe: Arc<Receiver>,
    console: Arc<Mutex<Console>>,
}

impl Feed {
    /// Connects the two.
    pub fn new(pipe: Receiver, console: Console) -> Self {
        Self {
            pipe: Arc::new(pipe),
            console: Arc::new(Mutex::new(console)),
        }
    }

    /// Copies until the pipe's other end is closed.
    pub async fn run(self) {
        while self.pipe.readable().await.is_ok() && self.drain(TURN) {
            tokio::task::yield_now().await;
        }
    }

    /// Copies what is in the pipe now, up to so many pieces. False: its other end is closed.
    fn drain(&self, pieces: usize) -> bool {
        let mut piece = [0; PIECE];
        for _ in 0..pieces {
            match self.pipe.try_read(&mut piece) {
                Ok(0) => return false,
                Ok(count) => lock(&self.console).push(&piece[..count]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// The last lines that were written so far, see [`Console::last_lines`].
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.drain(PIPE);
        lock(&self.console).last_lines(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A feed from a pipe that holds this much and has room for all of it.
    fn feed(bytes: usize) -> (Feed, io::PipeWriter) {
        let (reader, mut writer) = io::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, bytes).unwrap();
        writer.write_all(&vec![b'x'; bytes]).unwrap();
        let console = Console::new(tempfile::tempfile().unwrap()).unwrap();
        let pipe = Receiver::from_owned_fd(reader.into()).unwrap();
        (Feed::new(pipe, console), writer)
    }

    fn read(feed: &Feed) -> usize {
        usize::try_from(lock(&feed.console).written).unwrap()
    }

    #[tokio::test]
    async fn a_console_that_is_never_silent_holds_nobody_up() {
        let (feed, writer) = feed(1 << 20);
        feed.pipe.readable().await.unwrap();
        assert_eq!(feed.last_lines(1).len(), 1);
        assert_eq!(
            read(&feed),
            PIPE * PIECE,
            "more than it held was waited for"
        );
        tokio::spawn(feed.clone().run());
        let mut before = read(&feed);
        while before < 1 << 20 {
            tokio::task::yield_now().await;
            let now = read(&feed);
            assert!(now - before <= 256 << 10, "others had no turn");
            before = now;
        }
        drop(writer);
    }

    #[test]
    fn flooding_guest_cannot_fill_the_disk_and_its_last_words_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let mut console = Console::new(file).unwrap();
        let flood = vec![b'x'; 64 << 10];
        for _ in 0..3 * MAX_BYTES / flood.len() as u64 {
            console.push(&flood);
            assert!(std::fs::metadata(&path).unwrap().len() <= MAX_BYTES);
        }
        console.push(b"\nKernel panic\x1b[31m - not syncing\r\n\n");
        assert_eq!(console.last_lines(1), ["Kernel panic - not syncing"]);
    }

    #[test]
    fn of_a_long_line_the_beginning_and_the_end_are_shown() {
        let line = format!("qemu: -blockdev {}: Permission denied", "ä".repeat(1000));
        let shown = both_ends(&line);
        assert!(shown.starts_with("qemu: -blockdev ") && shown.ends_with(": Permission denied"));
        assert_eq!(shown.chars().count(), 243);
        assert_eq!(both_ends("short"), "short");
    }
}
