//! A log that a guest cannot make grow for ever.

use std::io::{self, Write};

use crate::limits::MAX_LOG;

/// Writes up to [`MAX_LOG`] bytes, says that it was the last, and drops the rest: what is logged later was provoked by
/// the guest.
#[derive(Debug)]
pub struct BoundedLog<W> {
    to: W,
    left: usize,
}

impl<W> BoundedLog<W> {
    /// An empty log.
    pub fn new(to: W) -> Self {
        Self { to, left: MAX_LOG }
    }
}

impl<W: Write> Write for BoundedLog<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(bytes.len());
        }
        if bytes.len() > self.left {
            self.left = 0;
            self.to.write_all(b"(the log is full)\n")?;
            return Ok(bytes.len());
        }
        let written = self.to.write(bytes)?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_ends_at_its_bound() {
        let mut log = BoundedLog::new(Vec::new());
        for _ in 0..MAX_LOG / 1000 + 50 {
            log.write_all(&[b'x'; 1000]).unwrap();
        }
        assert!(log.to.len() <= MAX_LOG + 100);
        assert!(log.to.ends_with(b"(the log is full)\n"));
    }
}
