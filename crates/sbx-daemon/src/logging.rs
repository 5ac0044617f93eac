//! The daemon's log: `daemon.log`, and one older file beside it.

use crate::error::io_report;
use sbx_wire::report::Report;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// Size at which the log is put aside and a new one begun, bytes. Two files exist at most.
const ROTATE: u64 = 8 << 20;

/// Sends tracing events to the log.
pub(crate) fn start(path: &Path) -> Result<(), Report> {
    let log = Log::open(path).map_err(|error| io_report("open", path, &error))?;
    tracing_subscriber::fmt()
        // It would say on standard error that it cannot write, and panic where that fails too: on a full disk, say.
        .log_internal_errors(false)
        .with_writer(log)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .try_init()
        .map_err(|error| Report::bug("log", format!("the log cannot be set up: {error}")))
}

struct Log {
    path: PathBuf,
    open: Mutex<(File, u64)>,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            open: Mutex::new(Self::append(path)?),
        })
    }

    fn append(path: &Path) -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }
}

/// One event's way into the log.
struct Line<'a>(&'a Log);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1 > ROTATE {
            let mut old = self.0.path.clone().into_os_string();
            old.push(".1");
            fs::rename(&self.0.path, old)?;
            *open = Log::append(&self.0.path)?;
        }
        open.0.write_all(bytes)?;
        open.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_never_takes_more_than_twice_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        let log = Log::open(&path).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            Line(&log).write_all(&line).unwrap();
        }
        let sizes: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(sizes <= 2 * (ROTATE + (1 << 20)), "{sizes}");
    }
}
