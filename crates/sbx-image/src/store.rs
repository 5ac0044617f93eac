//! Where images live: `<cache>/images/<key>/`, beside them `.building-<key>/`, `<key>.lock` and `<key>.log`.
//!
//! A build works in `.building-<key>` and renames it when everything in it is written and on disk. The lock
//! belongs to the process that holds it, so it goes with a killed one, and the next build clears its remains.

use crate::image::Image;
use crate::manifest::{self, Manifest};
use crate::request::Request;
use crate::{ImageError, recipe};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug, Clone)]
pub struct Store {
    images: PathBuf,
}

impl Store {
    /// The images below a cache folder.
    pub fn new(cache: &Path) -> Self {
        Self {
            images: cache.join("images"),
        }
    }

    /// Small kernels, which follow the same rules, below a cache folder.
    pub(crate) fn kernels(cache: &Path) -> Self {
        Self {
            images: cache.join("kernels"),
        }
    }

    /// The image that `request` asks for, when it is there and whole.
    pub fn open(&self, request: &Request) -> Option<Image> {
        self.open_key(&recipe::image_key(request))
    }

    /// The image with this key, when it is whole and lies on the very build of its base that it was made for.
    pub fn open_key(&self, key: &str) -> Option<Image> {
        let manifest = self.manifest(key)?;
        let base = match &manifest.base {
            Some(base) => {
                let base = self.manifest(base)?;
                Some(Some(base).filter(|base| base.build == manifest.base_build)?)
            }
            None => None,
        };
        Image::resolve(&self.images, manifest, base.as_ref())
    }

    /// The image that the disks of a sandbox lie on: the one of this build, see [`Manifest::build`]. Another one under
    /// the same key would be another file system below them.
    pub fn open_build(&self, key: &str, build: &str) -> Option<Image> {
        self.open_key(key)
            .filter(|image| image.manifest.build == build)
    }

    /// Removes every image that is neither in `keep` nor below one of those, and returns the keys that are
    /// gone. One that is being built is left alone. `keep` are the keys of all sandboxes' images and of the
    /// images that are still to be used.
    pub fn prune(&self, keep: &[String]) -> Result<Vec<String>, ImageError> {
        let mut gone = Vec::new();
        for key in self.unused(keep)? {
            let lock = self.open_lock(&key)?;
            if lock.try_lock().is_err() {
                continue;
            }
            // Renamed first, so that half of it never counts as an image.
            let (dir, building) = (self.dir(&key), self.building(&key));
            fs::rename(&dir, &building).map_err(ImageError::io("rename", &dir))?;
            fs::remove_dir_all(&building).map_err(ImageError::io("remove", &building))?;
            let _ = fs::remove_file(self.log_path(&key)); // nobody asks for it any more
            gone.push(key);
        }
        Ok(gone)
    }

    /// What [`Self::prune`] would remove.
    pub fn unused(&self, keep: &[String]) -> Result<Vec<String>, ImageError> {
        let mut kept: BTreeSet<String> = keep.iter().cloned().collect();
        kept.extend(keep.iter().filter_map(|key| self.manifest(key)?.base));
        let mut keys = self.keys()?;
        keys.retain(|key| !kept.contains(key));
        Ok(keys)
    }

    /// Keys of all images, whole or broken, in order.
    pub fn keys(&self) -> Result<Vec<String>, ImageError> {
        let entries = match fs::read_dir(&self.images) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ImageError::io("read", &self.images)(error)),
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut keys: Vec<String> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| is_key(name))
            .collect();
        keys.sort();
        Ok(keys)
    }

    /// Whether every file of the image with this key is there in its size.
    pub fn is_whole(&self, key: &str) -> bool {
        self.manifest(key).is_some()
    }

    /// Reads and checks one manifest: a file that is missing or has another size spoils the image.
    fn manifest(&self, key: &str) -> Option<Manifest> {
        if !is_key(key) {
            return None;
        }
        let dir = self.images.join(key);
        let mut text = Vec::new();
        let file = File::open(dir.join(manifest::FILE)).ok()?;
        file.take(manifest::MAX_BYTES).read_to_end(&mut text).ok()?;
        let manifest = Manifest::parse(&text).filter(|manifest| manifest.key == key)?;
        let whole = manifest.sizes.iter().all(|(file, size)| {
            dir.join(file)
                .symlink_metadata()
                .is_ok_and(|meta| meta.is_file() && meta.len() == *size)
        });
        whole.then_some(manifest)
    }

    /// Makes the folder of all images.
    pub(crate) fn prepare(&self) -> Result<(), ImageError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.images)
            .map_err(ImageError::io("create", &self.images))
    }

    /// Waits until no other build of `key` runs. `waiting` is called once if there is one.
    pub(crate) fn lock(
        &self,
        key: &str,
        waiting: &mut dyn FnMut() -> Result<(), ImageError>,
    ) -> Result<File, ImageError> {
        let path = self.lock_path(key);
        let file = self.open_lock(key)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => waiting()?,
            Err(TryLockError::Error(error)) => return Err(ImageError::io("lock", &path)(error)),
        }
        file.lock().map_err(ImageError::io("lock", &path))?;
        Ok(file)
    }

    /// The lock of `key`, unless a build holds it.
    pub(crate) fn try_lock(&self, key: &str) -> Result<Option<File>, ImageError> {
        let file = self.open_lock(key)?;
        Ok(file.try_lock().is_ok().then_some(file))
    }

    /// Keys of builds that run or were interrupted.
    pub(crate) fn interrupted(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.images).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| name.strip_prefix(BUILDING).map(str::to_owned))
            .filter(|key| is_key(key))
            .collect()
    }

    fn lock_path(&self, key: &str) -> PathBuf {
        self.images.join(format!("{key}.lock"))
    }

    fn open_lock(&self, key: &str) -> Result<File, ImageError> {
        let path = self.lock_path(key);
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(&path);
        file.map_err(ImageError::io("open", &path))
    }

    /// Where the log of the build of `key` is.
    pub(crate) fn log_path(&self, key: &str) -> PathBuf {
        self.images.join(format!("{key}.log"))
    }

    /// Where the image `key` is built.
    pub(crate) fn building(&self, key: &str) -> PathBuf {
        self.images.join(format!("{BUILDING}{key}"))
    }

    /// Where the image `key` is kept.
    pub(crate) fn dir(&self, key: &str) -> PathBuf {
        self.images.join(key)
    }

    /// A fresh log for the build of `key`.
    pub(crate) fn log(&self, key: &str) -> Result<File, ImageError> {
        let path = self.log_path(key);
        File::create(&path).map_err(ImageError::io("create", &path))
    }

    /// Completes the build of `manifest.key`: sizes, manifest, everything on disk, then the name.
    pub(crate) fn publish(&self, mut manifest: Manifest) -> Result<Image, ImageError> {
        let building = self.building(&manifest.key);
        let mut files = vec![manifest.lower.clone()];
        files.extend(manifest.kernel.iter().map(|kernel| kernel.file.clone()));
        files.extend(
            manifest
                .upper
                .iter()
                .chain(&manifest.docker)
                .map(|disk| disk.file.clone()),
        );
        files.extend(manifest.modules.iter().cloned());
        for name in files {
            let path = building.join(&name);
            let file = File::open(&path).map_err(ImageError::io("open", &path))?;
            file.sync_all().map_err(ImageError::io("write", &path))?;
            let meta = file.metadata().map_err(ImageError::io("read", &path))?;
            manifest.sizes.insert(name, meta.len());
        }
        let text =
            serde_json::to_vec_pretty(&manifest).map_err(|error| ImageError::Unexpected {
                what: "the manifest cannot be written",
                detail: error.to_string(),
            })?;
        write_new(&building.join(manifest::FILE), &text)?;
        self.name_finished(&building, &self.dir(&manifest.key))?;
        self.open_key(&manifest.key)
            .ok_or_else(|| ImageError::Unexpected {
                what: "the image that was just built cannot be opened",
                detail: manifest.key.clone(),
            })
    }

    /// Gives a finished folder, all of which is on disk, its name, for good.
    pub(crate) fn name_finished(&self, from: &Path, to: &Path) -> Result<(), ImageError> {
        fs::rename(from, to).map_err(ImageError::io("rename a finished build to", to))?;
        let parent = File::open(&self.images).map_err(ImageError::io("open", &self.images))?;
        parent
            .sync_all()
            .map_err(ImageError::io("write", &self.images))
    }
}

/// How the name of a build's folder begins.
const BUILDING: &str = ".building-";

/// Keys are names of folders, and nothing else here looks like one: locks and logs have a dot.
fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Writes a file that must not be there yet, down to the disk.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map_err(ImageError::io("create", path))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(ImageError::io("write", path))
}
