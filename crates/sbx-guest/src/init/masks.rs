//! Directories of the sandbox's own disk over those that a share shows for them: at the start, and when one appears
//! ([`sbx_workspace::late_mask`]).

use crate::console;
use crate::files;
use crate::mounts_table;
use sbx_workspace::late_mask::{CONTROL, MAX_WORDS, Word, own_name, path_of};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where they are kept.
const MASKS: &str = "/var/lib/sbx/masks";
/// The agent's user and group.
const AGENT: u32 = 1000;

/// Shares that are followed.
static FOLLOWED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// One of them is followed no more.
static ENDED: Condvar = Condvar::new();

/// Mounts the sandbox's own directory at a path, unless something is mounted there already.
pub(super) fn mount(path: &str) -> io::Result<()> {
    let at = |error: io::Error| io::Error::other(format!("mask at {path}: {error}"));
    if mounts_table::on_top(Path::new(path)).is_some() {
        return Ok(());
    }
    let name = own_name(Path::new(path));
    let name = name.ok_or_else(|| at(io::Error::other("its path is too long")))?;
    let own = Path::new(MASKS).join(name);
    if fs::symlink_metadata(&own).is_err() {
        files::scaffold(Path::new(MASKS), None).map_err(at)?;
        fs::create_dir(&own).map_err(at)?;
        std::os::unix::fs::chown(&own, Some(AGENT), Some(AGENT)).map_err(at)?;
    }
    rustix::mount::mount_bind(&own, path).map_err(|error| at(error.into()))
}

/// Mounts at what appears in a share, from now on, if it has such directories at all.
pub(super) fn follow(share: &Path) {
    let mut following = followed();
    if following.contains(share) {
        return;
    }
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(share.join(CONTROL));
    // Most shares have none.
    let Ok(control) = control else { return };
    let root = share.to_owned();
    let spawned = std::thread::Builder::new()
        .name("masks".into())
        .spawn(move || {
            if let Err(error) = serve(&root, &control) {
                console::say(&format!("masks in {}: {error}", root.display()));
            }
            drop(control);
            followed().remove(&root);
            ENDED.notify_all();
        });
    match spawned {
        Ok(_) => {
            following.insert(share.to_owned());
        }
        Err(error) => console::say(&format!("no thread for masks: {error}")),
    }
}

/// Ends the following of a share that is to be unmounted, which its open file keeps busy. The caller has a limit of its
/// own for all of it.
pub(super) fn leave(share: &Path) {
    if !followed().contains(share) {
        return;
    }
    let mut word = Vec::new();
    Word::Leave.put(&mut word);
    let control = OpenOptions::new().write(true).open(share.join(CONTROL));
    if control.and_then(|mut file| file.write_all(&word)).is_ok() {
        let _gone = ENDED.wait_while(followed(), |followed| followed.contains(share));
    }
}

fn followed() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(share: &Path, mut control: &File) -> io::Result<()> {
    let mut words = kept(share);
    loop {
        if !words.is_empty() {
            control.write_all(&words)?;
        }
        let mut buffer = vec![0; MAX_WORDS];
        let count = control.read(&mut buffer)?;
        words = Vec::new();
        for word in Word::all(&buffer[..count]) {
            match word {
                Word::Mount(path) => answer(share, path).put(&mut words),
                Word::End => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Mounts at a path of a share; what there is to say of it.
fn answer<'a>(share: &Path, path: &'a str) -> Word<'a> {
    let whole = share.join(path);
    let mounted = whole.to_str().map(mount);
    match mounted {
        Some(Ok(())) => {
            console::debug(&format!("mask at {}", whole.display()));
            Word::Mounted(path)
        }
        Some(Err(error)) => {
            console::say(&error.to_string());
            Word::Failed(path)
        }
        None => Word::Failed(path),
    }
}

/// What is on the disk for paths of a share, from earlier starts.
fn kept(share: &Path) -> Vec<u8> {
    let mut words = Vec::new();
    let names = fs::read_dir(MASKS).into_iter().flatten().flatten();
    for name in names {
        let Ok(name) = name.file_name().into_string() else {
            continue;
        };
        let path = PathBuf::from(path_of(&name));
        let below = path.strip_prefix(share).ok().and_then(Path::to_str);
        let Some(below) = below.filter(|below| !below.is_empty()) else {
            continue;
        };
        let before = words.len();
        Word::Kept(below).put(&mut words);
        if words.len() > MAX_WORDS {
            words.truncate(before);
            break;
        }
    }
    words
}
