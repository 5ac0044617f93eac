//! The chunks of a body, byte by byte: the other half of [`super::framing`].

use super::framing::{Fault, is_token};
use crate::limits;

/// A body in chunks (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chunk {
    step: Step,
    /// Of the current chunk: its size while that is read, then what is left of it.
    left: u64,
    /// Digits of the size.
    digits: u32,
    /// Bytes of extensions in the body so far.
    extensions: usize,
    /// Bytes of trailers so far.
    trailers: usize,
    /// Lines of them.
    trailer_lines: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
    End,
}

impl Chunk {
    /// Whether the body is over.
    pub(super) fn is_over(&self) -> bool {
        self.step == Step::End
    }

    /// How many of the bytes may go on: all, up to the end of the body.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() && self.step != Step::End {
            if self.step == Step::Data {
                let rest = bytes.len() - at;
                let passed = rest.min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= passed as u64;
                at += passed;
                if self.left == 0 {
                    self.step = Step::DataReturn;
                }
                continue;
            }
            self.step = self.next(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn next(&mut self, byte: u8) -> Result<Step, Fault> {
        match self.step {
            Step::Size => self.size(byte),
            Step::Extension => match byte {
                b'\r' => Ok(Step::SizeEnd),
                byte if byte.is_ascii_control() && byte != b'\t' => Err(Fault::ChunkExtension),
                _ => {
                    self.extensions += 1;
                    let room = self.extensions <= limits::CHUNK_EXTENSIONS;
                    room.then_some(Step::Extension).ok_or(Fault::ChunkExtension)
                }
            },
            Step::SizeEnd => match (byte, self.left) {
                (b'\n', 0) => Ok(Step::TrailerLine),
                (b'\n', _) => Ok(Step::Data),
                _ => Err(Fault::LineEnd),
            },
            Step::DataReturn if byte == b'\r' => Ok(Step::DataEnd),
            Step::DataEnd if byte == b'\n' => {
                self.digits = 0;
                Ok(Step::Size)
            }
            Step::LastEnd if byte == b'\n' => Ok(Step::End),
            Step::TrailerLine if byte == b'\r' => Ok(Step::LastEnd),
            Step::TrailerLine | Step::TrailerName | Step::TrailerValue | Step::TrailerEnd => {
                self.trailer(byte)
            }
            _ => Err(Fault::ChunkEnd),
        }
    }

    fn size(&mut self, byte: u8) -> Result<Step, Fault> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            self.digits += 1;
            // 15 digits are less than 2^60.
            if self.digits > 15 {
                return Err(Fault::ChunkSize);
            }
            self.left = self.left << 4 | u64::from(digit);
            return Ok(Step::Size);
        }
        match byte {
            b';' if self.digits > 0 => Ok(Step::Extension),
            b'\r' if self.digits > 0 => Ok(Step::SizeEnd),
            _ => Err(Fault::ChunkSize),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<Step, Fault> {
        self.trailers += 1;
        if self.trailers > limits::TRAILER_BYTES {
            return Err(Fault::Trailer);
        }
        match (self.step, byte) {
            (Step::TrailerLine | Step::TrailerName, byte) if is_token(byte) => {
                Ok(Step::TrailerName)
            }
            (Step::TrailerValue, b'\r') => Ok(Step::TrailerEnd),
            (Step::TrailerName, b':') | (Step::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => {
                Ok(Step::TrailerValue)
            }
            (Step::TrailerEnd, b'\n') => {
                self.trailer_lines += 1;
                let room = self.trailer_lines <= limits::TRAILERS;
                room.then_some(Step::TrailerLine).ok_or(Fault::Trailer)
            }
            _ => Err(Fault::Trailer),
        }
    }
}
