//! The supervisor's own log, bounded like the console's: some of its lines are the guest's.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Largest log, in bytes; when it is reached the log starts anew.
pub const MAX_BYTES: u64 = 4 << 20;

/// A file that never grows beyond [`MAX_BYTES`]. It must have been opened for appending.
#[derive(Debug, Clone)]
pub struct BoundedLog(Arc<Mutex<(File, u64)>>);

impl BoundedLog {
    /// Continues `file`.
    ///
    /// # Errors
    /// When its length cannot be told.
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new((file, length)))))
    }
}

impl Write for BoundedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut guard = crate::state::lock(&self.0);
        let (file, length) = &mut *guard;
        if *length + bytes.len() as u64 > MAX_BYTES {
            file.set_len(0)?;
            *length = 0;
        }
        let count = file.write(bytes)?;
        *length += count as u64;
        Ok(count)
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
