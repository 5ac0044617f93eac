//! What a disk was asked to do, in order, and the disk as it would be after a power cut at any point.
//!
//! QEMU's `blklogwrites` writes the log; the format is that of the kernel's dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock of one sector, then for each request one
//! sector with its description, followed by the data of a write. A request is logged when it is done, so what stands
//! before a flush had been done when the flush was asked for, or was under way together with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// First eight bytes of a log.
const MAGIC: u64 = 0x006a_7366_7773_6872;
/// The only version there is.
const VERSION: u64 = 1;
/// Sectors that a log may have, bytes.
const SECTORS: std::ops::RangeInclusive<u64> = 512..=4096;
/// Largest single request, bytes: QEMU's own limit is below 2 GiB; guests of ours ask for a few MiB.
const LARGEST: u64 = 256 << 20;
const FLUSH: u64 = 1;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;

/// Why a file is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be read.
    #[error("the log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no log of writes: {0}")]
    Format(String),
}

/// One request that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Bytes for the disk.
    Write {
        /// Where on the disk, bytes.
        at: u64,
        /// How many, bytes.
        length: u64,
        /// Where in the log they are, bytes.
        data: u64,
        /// It was on the disk when it was done, whatever came before (`FUA`).
        lasting: bool,
    },
    /// What is there is not needed any more; reads as zeros here.
    Discard {
        /// Where on the disk, bytes.
        at: u64,
        /// How many, bytes.
        length: u64,
    },
    /// Everything that was done before lasts.
    Flush,
}

/// A log that was opened for reading.
#[derive(Debug)]
pub struct WriteLog {
    file: File,
    requests: Vec<Request>,
}

impl WriteLog {
    /// Reads the descriptions. A log whose writer was killed ends with the last flush that it noted.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let (count, sector) = superblock(&file)?;
        let mut requests = Vec::new();
        let mut next = sector;
        for number in 0..count {
            if next.saturating_add(sector) > length {
                break;
            }
            let Some((request, data)) = entry(&file, next, sector)
                .map_err(|why| LogError::Format(format!("request {number}: {why}")))?
            else {
                break;
            };
            next += sector + data;
            if next > length {
                break;
            }
            requests.extend(request);
        }
        Ok(Self { file, requests })
    }

    /// All of them, in order.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// How many requests each power cut leaves that comes right after a flush or a lasting write.
    pub fn cuts(&self) -> Vec<usize> {
        let safe = |request: &Request| {
            matches!(
                request,
                Request::Flush | Request::Write { lasting: true, .. }
            )
        };
        let numbered = self.requests.iter().enumerate();
        numbered
            .filter(|(_, request)| safe(request))
            .map(|(index, _)| index + 1)
            .collect()
    }

    /// The bytes of a write; of any other request none.
    ///
    /// # Errors
    /// Those of the system.
    pub fn data(&self, request: &Request) -> io::Result<Vec<u8>> {
        let Request::Write { length, data, .. } = request else {
            return Ok(Vec::new());
        };
        let mut bytes = vec![0; usize::try_from(*length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, *data)?;
        Ok(bytes)
    }

    /// Does one request to a disk of raw content.
    ///
    /// # Errors
    /// Those of the system.
    pub fn apply(&self, request: &Request, disk: &File) -> io::Result<()> {
        match *request {
            Request::Flush => Ok(()),
            Request::Write { at, .. } => disk.write_all_at(&self.data(request)?, at),
            Request::Discard { at, length } => {
                let zeros = vec![0; 64 << 10];
                let end = (at + length).min(disk.metadata()?.len());
                let mut at = at;
                while at < end {
                    let count = (end - at).min(zeros.len() as u64);
                    let piece = usize::try_from(count).map_err(io::Error::other)?;
                    disk.write_all_at(&zeros[..piece], at)?;
                    at += count;
                }
                Ok(())
            }
        }
    }

    /// What a power cut may leave of the requests from `from` up to the next flush, which nothing had made to last:
    /// `kept` says of each whether it reached the disk. Lasting writes always did.
    ///
    /// # Errors
    /// Those of the system.
    pub fn apply_some(
        &self,
        from: usize,
        disk: &File,
        mut kept: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let rest = self.requests.get(from..).unwrap_or_default();
        for request in rest.iter().take_while(|one| **one != Request::Flush) {
            let lasting = matches!(request, Request::Write { lasting: true, .. });
            if kept() || lasting {
                self.apply(request, disk)?;
            }
        }
        Ok(())
    }
}

/// Number of requests and size of a sector.
fn superblock(file: &File) -> Result<(u64, u64), LogError> {
    let mut bytes = [0; 32];
    file.read_exact_at(&mut bytes, 0)?;
    let [magic, version, count, sector] = words(&bytes);
    // The last field has 32 bits.
    let sector = sector & u64::from(u32::MAX);
    if magic != MAGIC || version != VERSION || !SECTORS.contains(&sector) {
        return Err(LogError::Format(format!(
            "it begins with {magic:#x}, version {version}, sectors of {sector} bytes"
        )));
    }
    Ok((count, sector))
}

/// The request described at `at` and how many bytes of data follow. No request: a mark. `None`: nothing was written
/// here.
fn entry(file: &File, at: u64, sector: u64) -> Result<Option<(Option<Request>, u64)>, String> {
    let mut bytes = [0; 32];
    file.read_exact_at(&mut bytes, at)
        .map_err(|error| error.to_string())?;
    let [place, count, flags, text] = words(&bytes);
    if bytes == [0; 32] {
        return Ok(None);
    }
    if flags & !(FLUSH | FUA | DISCARD | MARK) != 0 {
        return Err(format!("flags {flags:#x}"));
    }
    let bytes_of = |sectors: u64| sectors.checked_mul(sector).ok_or("a place beyond any disk");
    if flags & MARK != 0 {
        let padded = text.checked_next_multiple_of(sector).ok_or("a mark")?;
        return Ok(Some((None, padded)));
    }
    let (from, length) = (bytes_of(place)?, bytes_of(count)?);
    if flags & DISCARD != 0 {
        return Ok(Some((Some(Request::Discard { at: from, length }), 0)));
    }
    if length > LARGEST {
        return Err(format!("{length} bytes at once"));
    }
    if length == 0 {
        return Ok(Some(((flags & FLUSH != 0).then_some(Request::Flush), 0)));
    }
    let write = Request::Write {
        at: from,
        length,
        data: at + sector,
        lasting: flags & FUA != 0,
    };
    Ok(Some((Some(write), length)))
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let word = |index: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
        u64::from_le_bytes(eight)
    };
    [word(0), word(1), word(2), word(3)]
}
