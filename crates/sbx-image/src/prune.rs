//! What is left in a cache besides images: builds that were interrupted, kernels and initial RAM disks that nobody can use
//! any more.

use crate::initramfs::{FOLDER, UNFINISHED};
use crate::small::SmallRequest;
use crate::store::Store;
use crate::{ImageError, build};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Age of an unfinished initial RAM disk that nobody writes any more; writing one takes a fraction of a second.
const ABANDONED: Duration = Duration::from_mins(10);

/// What may go, and what may not.
#[derive(Debug)]
pub struct Leftovers<'a> {
    /// The cache folder.
    pub cache: &'a Path,
    /// The program `sbx-image-worker`: what a build has left belongs to many users.
    pub worker: &'a Path,
    /// Kernels that can be used.
    pub kernels: &'a [SmallRequest],
    /// Initial RAM disks that can be used; `None`: nobody knows, so none is removed.
    pub initramfs: Option<&'a [PathBuf]>,
    /// Only to be named.
    pub dry_run: bool,
}

impl Leftovers<'_> {
    /// Removes them, and returns their names below the cache folder. What is being built is left alone, and so is the
    /// interrupted build of a kernel that can be used: the next one goes on from there.
    ///
    /// # Errors
    /// The first that could not be removed.
    pub fn remove(&self) -> Result<Vec<String>, ImageError> {
        let kept: Vec<String> = self.kernels.iter().map(SmallRequest::key).collect();
        let (images, kernels) = (Store::new(self.cache), Store::kernels(self.cache));
        let named = |folder: &str, names: Vec<String>| {
            let below = names.into_iter().map(|name| format!("{folder}/{name}"));
            below.collect::<Vec<_>>()
        };
        let mut gone = named(
            "images",
            interrupted(self.worker, &images, &[], self.dry_run)?,
        );
        gone.extend(named(
            "kernels",
            interrupted(self.worker, &kernels, &kept, self.dry_run)?,
        ));
        let unused = if self.kernels.is_empty() {
            // Without an image nobody knows; the next one is likely to want what took so long to build.
            Vec::new()
        } else if self.dry_run {
            kernels.unused(&kept)?
        } else {
            kernels.prune(&kept)?
        };
        gone.extend(named("kernels", unused));
        gone.extend(named(FOLDER, self.initramfs()?));
        Ok(gone)
    }

    fn initramfs(&self) -> Result<Vec<String>, ImageError> {
        let (Some(kept), dir) = (self.initramfs, self.cache.join(FOLDER)) else {
            return Ok(Vec::new());
        };
        let mut gone = Vec::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let old = || {
                let modified = entry.metadata().and_then(|meta| meta.modified());
                let age = modified.ok().and_then(|time| time.elapsed().ok());
                age.is_some_and(|age| age > ABANDONED)
            };
            let goes = if name.ends_with(UNFINISHED) {
                old()
            } else {
                path.extension().is_some_and(|kind| kind == "cpio") && !kept.contains(&path)
            };
            if !goes {
                continue;
            }
            if !self.dry_run {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(ImageError::io("remove", &path)(error));
                    }
                    _ => {}
                }
            }
            gone.push(name);
        }
        gone.sort();
        Ok(gone)
    }
}

/// Removes what interrupted builds of others than `kept` left, a gigabyte and more each, and returns the folders' names.
pub(crate) fn interrupted(
    worker: &Path,
    store: &Store,
    kept: &[String],
    dry_run: bool,
) -> Result<Vec<String>, ImageError> {
    let mut gone = Vec::new();
    for key in store.interrupted() {
        if kept.contains(&key) {
            continue;
        }
        let Some(_lock) = store.try_lock(&key)? else {
            continue; // it is being built
        };
        let dir = store.building(&key);
        if !dry_run {
            build::remove(worker, &dir)?;
            let _ = fs::remove_file(store.log_path(&key)); // nobody asks for it any more
        }
        gone.extend(
            dir.file_name()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    gone.sort();
    Ok(gone)
}
