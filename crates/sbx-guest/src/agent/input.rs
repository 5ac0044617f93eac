//! Standard input of a session: bytes that the host sent and the program has not taken yet, within the
//! stream's window.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::termios::{LocalModes, SpecialCodeIndex};
use sbx_wire::guest::WINDOW;
use std::collections::VecDeque;

/// Where the bytes go.
#[derive(Debug)]
enum Sink {
    /// The program is being started: they wait.
    Later,
    /// A pipe.
    Pipe(OwnedFd),
    /// The terminal.
    Terminal(OwnedFd),
    /// Nowhere: the program has no input, closed it, or was told its end.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Input {
    sink: Sink,
    buffer: VecDeque<u8>,
    /// Bytes that the host may still send.
    window: u32,
    /// Passed on (or dropped) but not yet granted again.
    owed: u32,
    eof: bool,
    /// The last byte that came did not end a line.
    mid_line: bool,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            sink: Sink::Later,
            buffer: VecDeque::new(),
            window: WINDOW,
            owed: 0,
            eof: false,
            mid_line: false,
        }
    }
}

impl Input {
    /// The program runs, and this is its input, if it has one.
    pub(super) fn open(&mut self, fd: Option<OwnedFd>, terminal: bool) {
        self.sink = match fd {
            Some(fd) if terminal => Sink::Terminal(fd),
            Some(fd) => Sink::Pipe(fd),
            None => Sink::Closed,
        };
        if self.eof {
            self.eof = false;
            self.end();
        }
        self.flush();
    }

    /// Takes bytes from the host. `false`: more than the window allows.
    pub(super) fn push(&mut self, data: &[u8]) -> bool {
        let length = u32::try_from(data.len()).ok();
        let Some(window) = length.and_then(|length| self.window.checked_sub(length)) else {
            return false;
        };
        self.window = window;
        self.buffer.extend(data);
        if let Some(last) = data.last() {
            self.mid_line = !matches!(last, b'\n' | b'\r');
        }
        true
    }

    /// No more comes. A terminal gets its end-of-file character, twice in the middle of a line, where the
    /// first one only hands the line over (`termios(3)`, VEOF).
    pub(super) fn end(&mut self) {
        if std::mem::replace(&mut self.eof, true) {
            return;
        }
        let Sink::Terminal(fd) = &self.sink else {
            return;
        };
        let (eof, lines) = match rustix::termios::tcgetattr(fd) {
            Ok(now) => (
                now.special_codes[SpecialCodeIndex::VEOF],
                now.local_modes.contains(LocalModes::ICANON),
            ),
            Err(_) => (4, true),
        };
        self.buffer.push_back(eof);
        if lines && self.mid_line {
            self.buffer.push_back(eof);
        }
    }

    /// Drops everything and takes no more.
    pub(super) fn close(&mut self) {
        let count = self.buffer.len();
        self.buffer.clear();
        self.sink = Sink::Closed;
        self.owe(count);
    }

    /// What has to become writable for the buffered bytes.
    pub(super) fn waiting(&self) -> Option<BorrowedFd<'_>> {
        match &self.sink {
            Sink::Pipe(fd) | Sink::Terminal(fd) if !self.buffer.is_empty() => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// Writes as far as it goes.
    pub(super) fn flush(&mut self) {
        loop {
            let written = match &self.sink {
                Sink::Later => return,
                Sink::Closed => return self.close(),
                Sink::Pipe(_) if self.buffer.is_empty() => {
                    if self.eof {
                        self.close();
                    }
                    return;
                }
                Sink::Terminal(_) if self.buffer.is_empty() => return,
                Sink::Pipe(fd) | Sink::Terminal(fd) => {
                    rustix::io::write(fd, self.buffer.as_slices().0)
                }
            };
            match written {
                Ok(count) => {
                    self.buffer.drain(..count);
                    self.owe(count);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // The program closed its end: what it did not want is gone.
                Err(_) => self.close(),
            }
        }
    }

    /// Counts bytes as passed on, as far as the host sent them (an end-of-file character is ours).
    fn owe(&mut self, count: usize) {
        let room = WINDOW - self.window - self.owed;
        self.owed += u32::try_from(count).unwrap_or(u32::MAX).min(room);
    }

    /// Bytes to grant the host now: in quarters of the window, or all that is owed when nothing is left.
    pub(super) fn grant(&mut self) -> Option<u32> {
        if self.owed == 0 || (self.owed < WINDOW / 4 && !self.buffer.is_empty()) {
            return None;
        }
        self.window += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// An input with a pipe that holds little, and the program's end of it.
    fn piped() -> (Input, std::io::PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut input = Input::default();
        input.open(Some(writer.into()), false);
        (input, reader)
    }

    #[test]
    fn the_window_is_granted_again_only_for_what_was_passed_on() {
        let (mut input, mut reader) = piped();
        assert!(input.push(&vec![1; WINDOW as usize]));
        assert!(!input.push(&[1]), "over the window");
        input.flush();
        let first = input.grant().unwrap();
        assert!(first < WINDOW && input.waiting().is_some());
        let mut taken = vec![0; first as usize];
        reader.read_exact(&mut taken).unwrap();
        input.flush();
        assert!(input.push(&vec![1; first as usize]));
        assert!(!input.push(&[1]));
    }

    #[test]
    fn input_nobody_takes_is_dropped_and_granted() {
        let (mut input, reader) = piped();
        drop(reader);
        assert!(input.push(&[1; 1000]));
        input.flush();
        assert_eq!(
            (input.grant(), input.waiting().is_none()),
            (Some(1000), true)
        );
        assert!(input.push(&[1; 1000]));
        input.flush();
        assert_eq!(input.grant(), Some(1000));
    }

    #[test]
    fn end_reaches_the_pipe_after_the_bytes_even_when_it_came_first() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut input = Input::default();
        assert!(input.push(b"early"));
        input.end();
        input.open(Some(writer.into()), false);
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "early");
    }
}
