//! The process's own log, bounded: some of its lines are caused by the guest.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

use crate::limits;

/// A log file that begins anew when it has reached [`limits::LOG_FILE`].
#[derive(Debug, Clone)]
pub struct BoundedLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    file: File,
    limit: u64,
}

impl BoundedLog {
    /// Continues the file at `path`, or makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let limit = limits::LOG_FILE;
        Ok(Self(Arc::new(Mutex::new(Inner { file, limit }))))
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked each time: standard error, where panics go, is the same file.
        if inner.file.metadata()?.len() + bytes.len() as u64 > inner.limit {
            inner.file.set_len(0)?;
            (&inner.file).write_all(b"(the log had reached its limit and begins anew)\n")?;
        }
        (&inner.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BoundedLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_below_its_limit_and_keeps_the_newest_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.log");
        std::fs::write(&path, vec![b'o'; 5000]).unwrap();
        let mut log = BoundedLog::open(&path).unwrap();
        log.0.lock().unwrap().limit = 2000;
        for i in 0..500 {
            writeln!(log, "line {i}").unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= 2000);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("line 499\n"), "{text}");
    }
}
