//! Looking for texts everywhere on the host that they could have got to: files, disks of machines, memory of processes,
//! command lines, environments.

use memchr::memmem::Finder;
use rustix::fs::SeekFrom;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Read at a time, bytes.
const PIECE: usize = 4 << 20;

/// Texts to look for.
pub struct Search<'a> {
    finders: Vec<Finder<'a>>,
    longest: usize,
}

/// How often each of the texts was found.
pub type Hits = Vec<usize>;

impl<'a> Search<'a> {
    /// For these.
    pub fn new(texts: &[&'a str]) -> Self {
        Self {
            finders: texts.iter().map(|text| Finder::new(*text)).collect(),
            longest: texts.iter().map(|text| text.len()).max().unwrap_or(1),
        }
    }

    /// Counts what ends behind the first `known` bytes: whatever ends within them was counted before.
    fn add(&self, text: &[u8], known: usize, hits: &mut Hits) {
        for (finder, hits) in self.finders.iter().zip(hits) {
            let length = finder.needle().len();
            *hits += finder
                .find_iter(text)
                .filter(|at| at + length > known)
                .count();
        }
    }

    fn none(&self) -> Hits {
        vec![0; self.finders.len()]
    }

    /// In a file, without its holes.
    ///
    /// # Errors
    /// What reading it says.
    pub fn file(&self, path: &Path) -> io::Result<Hits> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut hits = self.none();
        let mut at = 0;
        while at < length {
            let data = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let hole = rustix::fs::seek(&file, SeekFrom::Hole(data))?;
            self.range(&file, data, hole, &mut hits)?;
            at = hole;
        }
        Ok(hits)
    }

    /// In a part of a file. A text that lies over the end of one piece is found in the next.
    fn range(&self, file: &File, from: u64, to: u64, hits: &mut Hits) -> io::Result<()> {
        let mut piece = vec![0; PIECE + self.longest];
        let (mut at, mut kept) = (from, 0);
        while at < to {
            let most = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
            let read = file.read_at(&mut piece[kept..kept + most], at)?;
            if read == 0 {
                break;
            }
            at += read as u64;
            let filled = kept + read;
            self.add(&piece[..filled], kept, hits);
            kept = (self.longest - 1).min(filled);
            piece.copy_within(filled - kept..filled, 0);
        }
        Ok(())
    }

    /// In every file of a folder and below, with the paths where there was any.
    ///
    /// # Errors
    /// The first file that cannot be read, unless it has just gone.
    pub fn folder(&self, folder: &Path) -> Result<Vec<(PathBuf, Hits)>, String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    match self.file(&path) {
                        Ok(hits) if hits.iter().any(|hits| *hits > 0) => found.push((path, hits)),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(format!("{}: {error}", path.display())),
                    }
                }
            }
        }
        Ok(found)
    }

    /// In the memory of a process: what it has written to, also where others share it, as a machine's memory.
    ///
    /// # Errors
    /// Why its memory cannot be read: only root may.
    pub fn memory(&self, pid: u32) -> Result<Hits, String> {
        let text = |error: io::Error| format!("memory of process {pid}: {error}");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(text)?;
        let memory = File::open(format!("/proc/{pid}/mem")).map_err(text)?;
        let mut hits = self.none();
        for line in maps.lines() {
            let Some((range, rest)) = line.split_once(' ') else {
                continue;
            };
            if !rest.starts_with('r') || rest.ends_with("[vvar]") || rest.ends_with("[vsyscall]") {
                continue;
            }
            if rest.contains("/memfd:") {
                // Reading through the map would fill it with pages that nobody has touched.
                let shared = PathBuf::from(format!("/proc/{pid}/map_files/{range}"));
                let found = self.file(&shared).map_err(text)?;
                hits.iter_mut()
                    .zip(found)
                    .for_each(|(all, more)| *all += more);
                continue;
            }
            let bound = |text: &str| u64::from_str_radix(text, 16).ok();
            let bounds = range.split_once('-');
            let bounds = bounds.and_then(|(from, to)| Some((bound(from)?, bound(to)?)));
            let Some((from, to)) = bounds else { continue };
            // Some of what is mapped cannot be read: guards, devices.
            let _ = self.range(&memory, from, to, &mut hits);
        }
        Ok(hits)
    }
}

/// A running process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command line, words separated by spaces.
    pub command: String,
    /// What it was started with, variables separated by NUL.
    pub environment: Vec<u8>,
    /// Whether the kernel keeps other processes of its user from its memory and variables (`PR_SET_DUMPABLE`): its files
    /// in `/proc` belong to root then, unless it is root's anyway.
    pub closed: bool,
}

/// Every process that can be looked at.
pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    pids.filter_map(process).collect()
}

fn process(pid: u32) -> Option<Process> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = String::from_utf8_lossy(&command).replace('\0', " ");
    let owner = fs::metadata(format!("/proc/{pid}/environ")).ok()?.uid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let user: u32 = user.split_whitespace().nth(1)?.parse().ok()?;
    Some(Process {
        pid,
        command: words.trim().to_owned(),
        environment: fs::read(format!("/proc/{pid}/environ")).unwrap_or_default(),
        closed: owner != user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_text_is_found_behind_holes_over_the_end_of_a_piece_and_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let mut file = File::create(&path).unwrap();
        // Longer than what else is looked for, and nearly all of it before the end of a piece.
        let secret = format!(
            "a-needle-that-is-the-longest-text-of-all-{}",
            std::process::id()
        );
        let other = "another-text-to-find";
        let at = 100 * PIECE as u64 + PIECE as u64 - secret.len() as u64 + 3;
        file.write_all(other.as_bytes()).unwrap();
        file.write_all_at(secret.as_bytes(), at).unwrap();
        file.set_len(1 << 33).unwrap();
        let search = Search::new(&[&secret, other, "not there at all"]);
        assert_eq!(search.file(&path).unwrap(), [1, 1, 0]);
        let found = search.folder(folder.path()).unwrap();
        assert_eq!(found, [(path, vec![1, 1, 0])]);
        let memory = search.memory(std::process::id()).unwrap();
        assert!(memory[0] > 0 && memory[1] > 0, "{memory:?}");
    }

    #[test]
    fn a_process_is_seen_with_its_words_and_variables() {
        let own = processes()
            .into_iter()
            .find(|process| process.pid == std::process::id())
            .unwrap();
        assert!(!own.command.is_empty() && !own.environment.is_empty());
    }
}
