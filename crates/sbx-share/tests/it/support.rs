//! A shared directory, a place outside it, and a guest that asks directly.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::ReadWriteFlags;
use sbx_share::{Bounds, GuestOwner, Share};
use sbx_workspace::event::Event;
use sbx_workspace::{Mode, Rules};
use tempfile::TempDir;
use virtiofsd::filesystem::{
    Context, DirectoryIterator as _, Entry, Extensions, FileSystem as _, SetattrValid,
    ZeroCopyReader, ZeroCopyWriter,
};
use virtiofsd::fuse::{Attr, SetattrIn};
use virtiofsd::oslib::{ReadvFlags, WritevFlags};

pub(crate) const ROOT: u64 = 1;

/// An agent's request: uid and gid 1000, process 42.
pub(crate) fn agent() -> Context {
    Context {
        uid: 1000.into(),
        gid: 1000.into(),
        pid: 42,
    }
}

/// The same from guest root.
pub(crate) fn guest_root() -> Context {
    Context {
        uid: 0.into(),
        gid: 0.into(),
        pid: 42,
    }
}

pub(crate) struct Bench {
    folder: TempDir,
    pub(crate) share: Share,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(
            false,
            Bounds {
                nodes: 100_000,
                handles: 500,
                directories: 4,
            },
        )
    }

    pub(crate) fn read_only() -> Self {
        Self::with(
            true,
            Bounds {
                nodes: 100_000,
                handles: 500,
                directories: 4,
            },
        )
    }

    pub(crate) fn with(read_only: bool, bounds: Bounds) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        std::fs::write(folder.path().join("outside/secret"), "outside").unwrap();
        let share = Share::with_bounds(
            &folder.path().join("root"),
            GuestOwner::default(),
            read_only,
            bounds,
        )
        .unwrap();
        Self { folder, share }
    }

    /// Under these rules; what is said goes to a file beside the root.
    pub(crate) fn guarded(rules: Rules) -> Self {
        let bench = Self::new();
        let Self { folder, share } = bench;
        let events = File::create(folder.path().join("events")).unwrap();
        let share = share.guarded(rules, Some(events)).unwrap();
        Self { folder, share }
    }

    /// Another server of the same directory, as after a restart.
    pub(crate) fn again(&self) -> Share {
        let bounds = Bounds {
            nodes: 100_000,
            handles: 500,
            directories: 4,
        };
        let root = self.folder.path().join("root");
        Share::with_bounds(&root, GuestOwner::default(), false, bounds).unwrap()
    }

    /// What was said: action, path, and whether it was refused.
    pub(crate) fn said(&self) -> Vec<(String, String, bool)> {
        said(&self.folder.path().join("events"))
    }

    /// A path of the shared directory, on the host.
    pub(crate) fn host(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    /// A path beside it.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.folder.path().join("outside").join(path)
    }

    pub(crate) fn host_write(&self, path: &str, content: &str) {
        std::fs::write(self.host(path), content).unwrap();
    }

    pub(crate) fn lookup(&self, parent: u64, name: &CStr) -> io::Result<Entry> {
        match self.share.lookup(agent(), parent, name)? {
            entry if entry.inode == 0 => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            entry => Ok(entry),
        }
    }

    /// The node at a path of single components.
    pub(crate) fn node(&self, path: &str) -> io::Result<u64> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |parent, name| {
                let entry = self.lookup(parent, &CString::new(name).unwrap())?;
                Ok(entry.inode)
            })
    }

    pub(crate) fn attr(&self, node: u64) -> io::Result<Attr> {
        self.share
            .getattr(agent(), node, None)
            .map(|(attr, _)| attr)
    }

    pub(crate) fn open(&self, node: u64, flags: i32) -> io::Result<u64> {
        let (handle, _) = self
            .share
            .open(agent(), node, false, flags.cast_unsigned())?;
        Ok(handle.unwrap())
    }

    pub(crate) fn create(
        &self,
        parent: u64,
        name: &CStr,
        mode: u32,
        flags: i32,
    ) -> io::Result<(u64, u64)> {
        let flags = (flags | libc::O_CREAT).cast_unsigned();
        let created = self.share.create(
            agent(),
            parent,
            name,
            mode,
            false,
            flags,
            0,
            Extensions::default(),
        )?;
        Ok((created.0.inode, created.1.unwrap()))
    }

    pub(crate) fn mkdir(&self, parent: u64, name: &CStr, mode: u32) -> io::Result<u64> {
        Ok(self
            .share
            .mkdir(agent(), parent, name, mode, 0, Extensions::default())?
            .inode)
    }

    pub(crate) fn write(
        &self,
        node: u64,
        handle: u64,
        text: &str,
        offset: u64,
        flags: i32,
    ) -> io::Result<usize> {
        let size = u32::try_from(text.len()).unwrap();
        let flags = flags.cast_unsigned();
        let from = Buffer(text.as_bytes().to_vec());
        self.share.write(
            agent(),
            node,
            handle,
            from,
            size,
            offset,
            None,
            false,
            false,
            flags,
        )
    }

    pub(crate) fn read(&self, node: u64, handle: u64) -> io::Result<String> {
        let mut to = Buffer(Vec::new());
        self.share
            .read(agent(), node, handle, &mut to, 4096, 0, None, 0)?;
        Ok(String::from_utf8(to.0).unwrap())
    }

    pub(crate) fn release(&self, node: u64, handle: u64) {
        self.share
            .release(agent(), node, 0, handle, false, false, None)
            .unwrap();
    }

    /// Opens, reads and closes.
    pub(crate) fn content(&self, node: u64) -> io::Result<String> {
        let handle = self.open(node, libc::O_RDONLY)?;
        let text = self.read(node, handle);
        self.release(node, handle);
        text
    }

    pub(crate) fn setattr(
        &self,
        node: u64,
        valid: SetattrValid,
        attr: SetattrIn,
    ) -> io::Result<Attr> {
        self.share
            .setattr(agent(), node, attr, None, valid)
            .map(|(attr, _)| attr)
    }

    /// All names of a directory, as a guest collects them: a few entries at a time, always from where it stopped.
    pub(crate) fn list(&self, node: u64, step: usize) -> io::Result<Vec<String>> {
        let handle = self.share.opendir(agent(), node, 0)?.0.unwrap();
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let mut entries = self.share.readdir(agent(), node, handle, 4096, offset)?;
            let mut taken = 0;
            while taken < step {
                let Some(entry) = entries.next() else { break };
                names.push(entry.name.to_str().unwrap().to_owned());
                offset = entry.offset;
                taken += 1;
            }
            if taken == 0 {
                break;
            }
        }
        self.share.releasedir(agent(), node, 0, handle)?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }
}

/// The error number of a request that must fail.
#[track_caller]
pub(crate) fn errno<T>(result: io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("the request succeeded"),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

/// What a file of events says: action, path, and whether it was refused.
pub(crate) fn said(events: &Path) -> Vec<(String, String, bool)> {
    let text = std::fs::read_to_string(events).unwrap();
    let events = text
        .lines()
        .map(|line| serde_json::from_str::<Event>(line).unwrap());
    events
        .map(|event| {
            let refused = event.mode == Mode::Block;
            (event.action.to_string(), event.path, refused)
        })
        .collect()
}

pub(crate) fn read_host(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Stands for the guest's buffers.
pub(crate) struct Buffer(pub(crate) Vec<u8>);

impl ZeroCopyReader for Buffer {
    fn write_to_file_at(
        &mut self,
        f: &File,
        count: usize,
        off: u64,
        flags: Option<WritevFlags>,
    ) -> io::Result<usize> {
        let append = flags.is_some_and(|flags| flags.contains(WritevFlags::RWF_APPEND));
        let flags = if append {
            ReadWriteFlags::APPEND
        } else {
            ReadWriteFlags::empty()
        };
        Ok(rustix::io::pwritev2(
            f,
            &[io::IoSlice::new(&self.0[..count])],
            off,
            flags,
        )?)
    }
}

impl ZeroCopyWriter for Buffer {
    fn read_from_file_at(
        &mut self,
        f: &File,
        count: usize,
        off: u64,
        _: Option<ReadvFlags>,
    ) -> io::Result<usize> {
        let mut buffer = vec![0; count];
        let read = rustix::io::pread(f, &mut buffer, off)?;
        self.0.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}
