//! Pins on disk, so that a gateway that was restarted still knows which addresses the guest holds: a line for each
//! answer, newest last, and all of it written anew once it has grown.
//!
//! A line is the second until which it counts (since 1970), the name, and its addresses, separated by blanks. What is
//! no such line, is too long or belongs to nobody's policy any more is left out: a pin only ever adds to what may be
//! dialled.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sbx_policy::HostName;

use crate::limits;

/// Bytes that are left of what is written anew.
const MOST_REWRITTEN: usize = 2 * 1024 * 1024;
const _: () = assert!(MOST_REWRITTEN as u64 <= limits::PIN_FILE / 2);

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// For how much longer it counts.
    pub left: Duration,
    /// The name.
    pub name: HostName,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
}

impl Line {
    fn print(&self, now: u64, to: &mut String) {
        let until = now + self.left.as_secs();
        // Writing to a text cannot fail.
        let _ = write!(to, "{until} {}", self.name);
        for address in &self.addresses {
            let _ = write!(to, " {address}");
        }
        to.push('\n');
    }

    fn parse(text: &str, now: u64) -> Option<Self> {
        let mut words = text.split(' ');
        let until: u64 = words.next()?.parse().ok()?;
        let name = HostName::parse(words.next()?).ok()?;
        let addresses: Result<Vec<Ipv4Addr>, _> = words
            .take(limits::PINNED_ADDRESSES + 1)
            .map(str::parse)
            .collect();
        let addresses = addresses.ok()?;
        let fits = (1..=limits::PINNED_ADDRESSES).contains(&addresses.len());
        // A clock that was set back must not make pins live longer than they ever could.
        let longest = limits::PIN_TTL + limits::PIN_GRACE;
        let left = Duration::from_secs(until.saturating_sub(now)).min(longest);
        fits.then_some(Self {
            left,
            name,
            addresses,
        })
    }
}

/// The open file.
#[derive(Debug)]
pub struct PinFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// Size from which on it is written anew.
    limit: u64,
}

impl PinFile {
    /// Opens or makes the file. What it holds comes back oldest first; what cannot be used is said in the log.
    ///
    /// # Errors
    /// The system's, and a file that is not a regular one.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Line>)> {
        let mut file = append(path)?;
        let size = file.metadata()?.len();
        let mut lines = Vec::new();
        if size > limits::PIN_FILE {
            tracing::warn!(size, "the pins on disk are too many: left out");
            file.set_len(0)?;
        } else {
            let mut bytes = Vec::new();
            Read::by_ref(&mut file)
                .take(limits::PIN_FILE)
                .read_to_end(&mut bytes)?;
            lines = read(&bytes);
        }
        let size = file.metadata()?.len();
        let pins = Self {
            path: path.to_owned(),
            file,
            size,
            limit: limits::PIN_FILE / 2,
        };
        Ok((pins, lines))
    }

    /// Adds a line. True: it is time for [`PinFile::rewrite`].
    ///
    /// # Errors
    /// The system's; nothing half-written counts then.
    pub fn append(&mut self, line: &Line) -> io::Result<bool> {
        let mut text = String::new();
        line.print(seconds(), &mut text);
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            // A disk that is full may have taken a part.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += text.len() as u64;
        Ok(self.size > self.limit)
    }

    /// Puts these lines in place of all others, or leaves everything as it is. Of more than half a file's worth the
    /// first are left out.
    ///
    /// # Errors
    /// The system's.
    pub fn rewrite(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::new();
        let now = seconds();
        for line in lines {
            line.print(now, &mut text);
        }
        let surplus = text.len().saturating_sub(MOST_REWRITTEN);
        if surplus > 0 {
            let cut = text[surplus..]
                .find('\n')
                .map_or(text.len(), |at| surplus + at + 1);
            text.drain(..cut);
        }
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        let _ = std::fs::remove_file(&new);
        let mut file = append(Path::new(&new))?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&new, &self.path)?;
        self.file = file;
        self.size = text.len() as u64;
        // Written anew only after as much again was added: the work stays in proportion.
        self.limit = (2 * self.size).max(limits::PIN_FILE / 8);
        Ok(())
    }
}

/// The lines of a file. The last one may have been cut by a crash.
fn read(bytes: &[u8]) -> Vec<Line> {
    let now = seconds();
    let mut unusable = 0;
    let mut lines = Vec::new();
    for text in bytes.split(|byte| *byte == b'\n').filter(|t| !t.is_empty()) {
        match std::str::from_utf8(text)
            .ok()
            .and_then(|text| Line::parse(text, now))
        {
            Some(line) if line.left.is_zero() => {}
            Some(line) => lines.push(line),
            None => unusable += 1,
        }
    }
    if unusable > 0 {
        tracing::warn!(unusable, "lines of the pins on disk are none: left out");
    }
    lines
}

/// Never follows a link and never waits: the folder may have been tampered with.
fn append(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, last: u8, minutes: u64) -> Line {
        Line {
            left: Duration::from_mins(minutes),
            name: HostName::parse(name).unwrap(),
            addresses: vec![Ipv4Addr::new(203, 0, 113, last)],
        }
    }

    fn reopened(path: &Path) -> Vec<String> {
        let (_, lines) = PinFile::open(path).unwrap();
        let shown = |line: &Line| format!("{} {}", line.name, line.addresses[0]);
        lines.iter().map(shown).collect()
    }

    #[test]
    fn lines_come_back_and_what_is_over_broken_or_cut_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins");
        let (mut file, lines) = PinFile::open(&path).unwrap();
        assert_eq!(lines, []);
        file.append(&line("a.test", 1, 5)).unwrap();
        file.append(&line("over.test", 2, 0)).unwrap();
        let broken = "9999999999 a..test 203.0.113.3\n9999999999 b.test\n99999999999999999999 b.test 203.0.113.3\n\
                      9999999999 b.test 203.0.113.300\n\n9999999999  203.0.113.3\n\u{0}\n";
        file.file.write_all(broken.as_bytes()).unwrap();
        let many = format!("9999999999 b.test{}\n", " 203.0.113.3".repeat(1000));
        file.file.write_all(many.as_bytes()).unwrap();
        file.file
            .write_all(b"9999999999 \xff.test 203.0.113.3\n")
            .unwrap();
        file.append(&line("c.test", 4, 5)).unwrap();
        file.file.write_all(b"9999999999 d.test 203.0.1").unwrap();
        assert_eq!(
            reopened(&path),
            ["a.test 203.0.113.1", "c.test 203.0.113.4"]
        );
    }

    #[test]
    fn a_line_lives_no_longer_than_a_pin_can() {
        let line = Line::parse("99999999999 a.test 203.0.113.3", seconds()).unwrap();
        assert_eq!(line.left, limits::PIN_TTL + limits::PIN_GRACE);
    }

    #[test]
    fn a_file_that_is_too_large_a_link_and_a_pipe_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins");
        let text = "9999999999 a.test 203.0.113.3\n";
        let count = usize::try_from(limits::PIN_FILE).unwrap() / text.len() + 1;
        std::fs::write(&path, text.repeat(count)).unwrap();
        assert_eq!(reopened(&path), [""; 0]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(PinFile::open(&link).is_err());
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(PinFile::open(&pipe).is_err());
    }

    #[test]
    fn what_was_written_anew_replaces_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins");
        let (mut file, _) = PinFile::open(&path).unwrap();
        let mut added = 0;
        while !file.append(&line("a.test", 1, 5)).unwrap() {
            added += 1;
        }
        assert!(added > 1000);
        // More than fits: the newest are kept.
        let mut many = vec![line("old.test", 1, 5); 100_000];
        many.push(line("new.test", 2, 5));
        file.rewrite(&many).unwrap();
        assert!(file.size <= limits::PIN_FILE / 2);
        assert_eq!(reopened(&path).last().unwrap(), "new.test 203.0.113.2");
        file.rewrite(&[line("b.test", 2, 5)]).unwrap();
        assert!(!file.append(&line("c.test", 3, 5)).unwrap());
        assert_eq!(
            reopened(&path),
            ["b.test 203.0.113.2", "c.test 203.0.113.3"]
        );
    }
}
