//! A guest that speaks FUSE over vhost-user to the real server, beside another one that must not notice.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sbx_testkit::virtio_fs::{Client, Error, Fate, ROOT};
use sbx_workspace::Rules;
use tempfile::TempDir;

use crate::process::{Server, command, start_with};
use crate::support::said;

/// A server, its folder with `root` and `outside`, and its guest.
pub(crate) struct Guest {
    pub(crate) fs: Client,
    pub(crate) server: Server,
    folder: TempDir,
    log: Box<dyn Read>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// With arguments of the server's.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::serving(prepared(), arguments)
    }

    /// On a folder that was prepared.
    pub(crate) fn serving(folder: TempDir, arguments: &[&str]) -> Self {
        Self::start(folder, arguments, 0)
    }

    /// On a folder that was prepared, under rules; what is said goes to a file beside the root.
    pub(crate) fn guarded(folder: TempDir, rules: &Rules) -> Self {
        let (rules, events) = (
            serde_json::to_string(rules).unwrap(),
            folder.path().join("events"),
        );
        let arguments = ["--rules", &rules, "--events", events.to_str().unwrap()];
        Self::serving(folder, &arguments)
    }

    /// What was said: action, path, and whether it was refused.
    pub(crate) fn said(&self) -> Vec<(String, String, bool)> {
        said(&self.folder.path().join("events"))
    }

    /// With features of the device beyond what is needed.
    pub(crate) fn taking(features: u64) -> Self {
        Self::start(prepared(), &[], features)
    }

    /// Another server of the same folder, with another guest, after the first has ended.
    pub(crate) fn after(before: Self) -> Self {
        let Self {
            fs,
            mut server,
            folder,
            ..
        } = before;
        drop(fs);
        assert!(server.0.wait().unwrap().success());
        Self::start(folder, &[], 0)
    }

    fn start(folder: TempDir, arguments: &[&str], features: u64) -> Self {
        let (server, _, log) = start_with(command(folder.path()).args(arguments));
        let fs = Client::connect_with(&folder.path().join("s"), features).unwrap();
        Self {
            fs,
            server,
            folder,
            log: Box::new(log),
        }
    }

    /// A path of the shared directory, on the host.
    pub(crate) fn host(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    /// A path beside it.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.folder.path().join("outside").join(path)
    }

    /// The node at a path of single components.
    pub(crate) fn node(&mut self, path: &str) -> Result<u64, Error> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(ROOT, |parent, name| Ok(self.fs.lookup(parent, name)?.node))
    }

    /// A path's directory, and its last component.
    pub(crate) fn place<'a>(&mut self, path: &'a str) -> Result<(u64, &'a [u8]), Error> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.node(parent)?, name.as_bytes()))
    }

    /// Makes a file with this content, or writes over the one that is there.
    pub(crate) fn put(&mut self, path: &str, content: &str) -> Result<(), Error> {
        let (parent, name) = self.place(path)?;
        let flags = libc::O_RDWR.cast_unsigned() | libc::O_TRUNC.cast_unsigned();
        let (file, handle) = self.fs.create(parent, name, 0o755, flags)?;
        let written = self.fs.write(file.node, handle, 0, content.as_bytes());
        self.fs.release(file.node, handle)?;
        written.map(drop)
    }

    pub(crate) fn make_dir(&mut self, path: &str) -> Result<u64, Error> {
        let (parent, name) = self.place(path)?;
        Ok(self.fs.mkdir(parent, name, 0o755)?.node)
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str, flags: u32) -> Result<(), Error> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        self.fs.rename2(from, to, flags)
    }

    pub(crate) fn link(&mut self, file: &str, at: &str) -> Result<(), Error> {
        let (node, (parent, name)) = (self.node(file)?, self.place(at)?);
        self.fs.link(node, parent, name).map(drop)
    }

    /// Everything in the shared directory: what is a directory, a file with its content, a link with its text, or another
    /// thing; and the permissions.
    pub(crate) fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut picture = BTreeMap::new();
        let mut waiting = vec![self.host("")];
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                let what = if meta.is_dir() {
                    waiting.push(path.clone());
                    "directory".to_owned()
                } else if meta.is_file() {
                    String::from_utf8(std::fs::read(&path).unwrap()).unwrap()
                } else if meta.is_symlink() {
                    format!("-> {}", path.read_link().unwrap().display())
                } else {
                    format!("{:?}", meta.file_type())
                };
                let mode = meta.permissions().mode();
                picture.insert(path, format!("{mode:o} {what}"));
            }
        }
        picture
    }

    /// A file's node and a handle to read and write it.
    pub(crate) fn file(&mut self, name: &str) -> (u64, u64) {
        let (mode, flags) = (0o644, libc::O_RDWR.cast_unsigned());
        let (entry, handle) = self.fs.create(ROOT, name, mode, flags).unwrap();
        (entry.node, handle)
    }

    /// The server serves on, and nobody outside has noticed anything.
    #[track_caller]
    pub(crate) fn assert_unharmed(&mut self, what: &str) {
        assert_eq!(self.server.0.try_wait().unwrap(), None, "{what}: it ended");
        let attr = self.fs.getattr(ROOT);
        assert!(attr.is_ok(), "{what}: the root is {attr:?}");
        assert_outside(self.folder.path(), what);
    }

    /// The server has ended, not well, and its last words have this in them.
    #[track_caller]
    pub(crate) fn assert_ended_saying(mut self, words: &str, what: &str) {
        drop(self.fs);
        assert!(!self.server.0.wait().unwrap().success(), "{what}");
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        assert!(log.contains(words), "{what}: {log}");
        assert_outside(self.folder.path(), what);
    }

    /// What came of a chain is an answer, or the end of this server; it never leaves its guest without a word.
    #[track_caller]
    pub(crate) fn assert_ended_or_unharmed(&mut self, fate: Fate, what: &str) {
        match fate {
            Fate::Back(_) => self.assert_unharmed(what),
            Fate::Ended => {
                self.server.0.wait().unwrap();
                assert_outside(self.folder.path(), what);
            }
            Fate::Silent => panic!("{what}: neither answered nor ended"),
        }
    }
}

/// A folder with a directory to share and one beside it.
pub(crate) fn prepared() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["root", "outside"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("outside/secret"), "outside").unwrap();
    folder
}

#[track_caller]
fn assert_outside(folder: &Path, what: &str) {
    let found = tree(&folder.join("outside"));
    let expected = BTreeMap::from([("secret".to_owned(), "outside".to_owned())]);
    assert_eq!(found, expected, "{what}: something outside has changed");
}

/// Names and contents of a directory of files.
fn tree(folder: &Path) -> BTreeMap<String, String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let content = std::fs::read_to_string(entry.path()).unwrap_or_default();
            (entry.file_name().into_string().unwrap(), content)
        })
        .collect()
}

/// The error number of a request that must be refused.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Error>) -> Errno {
    match result {
        Err(Error::Refused(errno)) => errno,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the request succeeded"),
    }
}
