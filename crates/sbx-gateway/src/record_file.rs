//! The file of the records: whole lines, and a size that is not exceeded.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::limits;

/// `egress.jsonl`, and beside it the one before, with the suffix `.1`.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// The file ends in the middle of a line: what comes next has to begin a new one.
    torn: bool,
    /// Size at which it is rotated, in bytes.
    limit: u64,
}

/// Lines that could not be written.
#[derive(Debug)]
pub struct Unwritten {
    /// Bytes that were, whole lines.
    pub written: usize,
    /// What the disk says.
    pub error: io::Error,
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Whether the last line has no end, or may have none: somebody was killed, or the host was, while it was written.
fn is_torn(path: &Path, size: u64) -> bool {
    let Some(at) = size.checked_sub(1) else {
        return false;
    };
    let mut last = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, at));
    read.is_err() || last != *b"\n"
}

impl RecordFile {
    /// Continues the file at `path`, or makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            torn: is_torn(path, size),
            file,
            size,
            limit: limits::RECORD_FILE,
        })
    }

    /// Appends lines: as many as fit with one write, so that readers never see half of one, and the others to a new file.
    ///
    /// # Errors
    /// What the disk says, and how much of it is written all the same. The file ends with a whole line.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let mut written = 0;
        while written < lines.len() {
            match self.write_some(&lines[written..]) {
                Ok(some) => written += some,
                Err(error) => return Err(Unwritten { written, error }),
            }
        }
        Ok(())
    }

    /// Appends lines that fit into one file, and says how many bytes of them are there for good: whole lines.
    fn write_some(&mut self, lines: &[u8]) -> io::Result<usize> {
        let room = self.limit.saturating_sub(self.size);
        let mut fit = whole_lines(lines, usize::try_from(room).unwrap_or(usize::MAX));
        if fit == 0 {
            fit = self.make_room(lines)?;
        }
        self.append(&lines[..fit])
    }

    /// Begins a new file. Bytes of the first line at least, which go to it; or to the old one if there is none.
    fn make_room(&mut self, lines: &[u8]) -> io::Result<usize> {
        let first = memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1);
        if self.size > 0
            && let Err(error) = self.rotate()
        {
            // The file in use goes on, up to twice its size; the next record tries again.
            if self.size + first as u64 > 2 * self.limit {
                return Err(error);
            }
            tracing::warn!(%error, "the records cannot be rotated");
        }
        Ok(first)
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.torn {
            self.append_whole(b"\n")?;
            self.torn = false;
        }
        self.append_whole(lines)
    }

    /// A disk that is nearly full takes a part: its whole lines stay, which somebody may have read already, and what
    /// follows them is taken back.
    fn append_whole(&mut self, lines: &[u8]) -> io::Result<usize> {
        let taken = loop {
            match self.file.write(lines) {
                Ok(taken) => break taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let whole = whole_lines(lines, taken);
        self.size += whole as u64;
        if taken > whole {
            self.torn |= self.file.set_len(self.size).is_err();
        }
        if whole == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(whole)
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
        self.torn = is_torn(&self.path, self.size);
        self.file = file;
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

/// Length of the whole lines at the front that together have at most `most` bytes.
fn whole_lines(lines: &[u8], most: usize) -> usize {
    if lines.len() <= most {
        return lines.len();
    }
    memchr::memrchr(b'\n', &lines[..most]).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// A file that is full after three lines of 200 bytes.
    fn small(path: &Path) -> RecordFile {
        let mut file = RecordFile::open(path).unwrap();
        file.limit = 700;
        file
    }

    fn line(number: u8) -> Vec<u8> {
        let mut line = vec![b'0' + number; 199];
        line.push(b'\n');
        line
    }

    /// What begins the lines of a file.
    fn numbers(path: &Path) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.lines().all(|line| line.len() == 199));
        text.lines().map(|line| &line[..1]).collect()
    }

    #[test]
    fn a_full_file_becomes_the_old_one_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let old = folder.path().join("egress.jsonl.1");
        // One by one, and all together.
        let mut file = small(&path);
        for number in 0..4 {
            file.write(&line(number)).unwrap();
        }
        assert_eq!((numbers(&old), numbers(&path)), ("012".into(), "3".into()));
        let all: Vec<u8> = (4..8).flat_map(line).collect();
        file.write(&all).unwrap();
        assert_eq!((numbers(&old), numbers(&path)), ("345".into(), "67".into()));
    }

    /// As a disk with little room does. Each test has a process of its own, so that this is a limit of nobody else.
    fn with_room_for<T>(bytes: u64, act: impl FnOnce() -> T) -> T {
        let before = getrlimit(Resource::Fsize);
        let little = Rlimit {
            current: Some(bytes),
            ..before
        };
        setrlimit(Resource::Fsize, little).unwrap();
        let done = act();
        setrlimit(Resource::Fsize, before).unwrap();
        done
    }

    #[test]
    fn whole_lines_that_a_nearly_full_disk_took_stay_and_what_follows_them_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let mut file = RecordFile::open(&path).unwrap();
        let all: Vec<u8> = (0..5).flat_map(line).collect();
        let failed = with_room_for(700, || file.write(&all)).unwrap_err();
        assert_eq!((failed.written, &*numbers(&path)), (600, "012"));
        file.write(&all[600..]).unwrap();
        assert_eq!(numbers(&path), "01234");
    }

    #[test]
    fn what_follows_half_a_line_is_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        for (before, after) in [("{\"time", "{\"time\nx\ny\n"), ("z\n", "z\nx\ny\n")] {
            std::fs::write(&path, before).unwrap();
            let mut file = RecordFile::open(&path).unwrap();
            file.write(b"x\n").unwrap();
            file.write(b"y\n").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[test]
    fn a_rotation_that_fails_costs_no_record_and_is_made_up_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let mut file = small(&path);
        // Whatever the new file is called, it cannot be opened.
        let obstacles = ["egress.jsonl.new", "egress.jsonl.1"].map(|name| folder.path().join(name));
        for obstacle in &obstacles {
            std::fs::create_dir(obstacle).unwrap();
        }
        for number in 0..5 {
            file.write(&line(number)).unwrap();
        }
        for obstacle in &obstacles {
            std::fs::remove_dir(obstacle).unwrap();
        }
        file.write(&line(5)).unwrap();
        let found = (numbers(&obstacles[1]), numbers(&path));
        assert_eq!(found, ("01234".into(), "5".into()));
    }

    #[test]
    fn a_file_that_cannot_be_rotated_stops_at_twice_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress.jsonl");
        let mut file = small(&path);
        for name in ["egress.jsonl.new", "egress.jsonl.1"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let written = (0..9).filter(|number| file.write(&line(*number)).is_ok());
        assert_eq!(written.count(), 7);
        assert_eq!(numbers(&path), "0123456");
    }
}
