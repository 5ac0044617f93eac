//! `kernel.json`: what a small kernel is. Written before the kernel gets its name; without a fitting one there
//! is no kernel.

use crate::ImageError;
use crate::store::{self, Store};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Name of the document.
const FILE: &str = "kernel.json";
/// Name of the kernel: an ELF image with a PVH entry.
pub(crate) const KERNEL: &str = "vmlinux";
/// Version of the document; another one means that the kernel is built again.
const SCHEMA: u32 = 1;
/// A larger document is not one, bytes.
const MAX_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    schema: u32,
    key: String,
    version: String,
    source: String,
    bytes: u64,
}

/// A small kernel that is there. It needs no modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallKernel {
    /// Key.
    pub key: String,
    /// File for `-kernel`, absolute.
    pub file: PathBuf,
    /// Release, as `uname -r` says.
    pub version: String,
    /// Version of the source package that it was built from.
    pub source: String,
}

/// The kernel with this key, when it is whole.
pub(super) fn open(cache: &Path, key: &str) -> Option<SmallKernel> {
    let dir = Store::kernels(cache).dir(key);
    let mut text = Vec::new();
    let file = File::open(dir.join(FILE)).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    let known: Description = serde_json::from_slice(&text).ok()?;
    let file = dir.join(KERNEL);
    let whole = file
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() == known.bytes);
    (known.schema == SCHEMA && known.key == key && whole).then_some(SmallKernel {
        key: known.key,
        file,
        version: known.version,
        source: known.source,
    })
}

/// Gives the kernel in the folder `out`, which is on the cache's file system, its description and its name.
pub(super) fn publish(
    cache: &Path,
    key: &str,
    out: &Path,
    (version, source): (String, String),
) -> Result<SmallKernel, ImageError> {
    let store = Store::kernels(cache);
    let path = out.join(KERNEL);
    let file = File::open(&path).map_err(ImageError::io("open", &path))?;
    file.sync_all().map_err(ImageError::io("write", &path))?;
    let meta = file.metadata().map_err(ImageError::io("read", &path))?;
    let description = Description {
        schema: SCHEMA,
        key: key.to_owned(),
        version,
        source,
        bytes: meta.len(),
    };
    let text = serde_json::to_vec_pretty(&description).map_err(|error| ImageError::Unexpected {
        what: "the kernel's description cannot be written",
        detail: error.to_string(),
    })?;
    store::write_new(&out.join(FILE), &text)?;
    let dir = store.dir(key);
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(ImageError::io("remove", &dir))?;
    }
    store.name_finished(out, &dir)?;
    open(cache, key).ok_or_else(|| ImageError::Unexpected {
        what: "the kernel that was just built cannot be opened",
        detail: key.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(cache: &Path) -> SmallKernel {
        let out = cache.join("out");
        Store::kernels(cache).prepare().unwrap();
        fs::create_dir(&out).unwrap();
        fs::write(out.join(KERNEL), b"kernel").unwrap();
        let names = ("6.12.1-sbx".to_owned(), "6.12.1-1".to_owned());
        publish(cache, "small-1", &out, names).unwrap()
    }

    #[test]
    fn kernel_counts_when_it_is_whole_and_only_then() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(open(cache.path(), "small-1"), None);
        let kernel = published(cache.path());
        assert_eq!(open(cache.path(), "small-1"), Some(kernel.clone()));
        assert_eq!(open(cache.path(), "small-2"), None);
        fs::write(&kernel.file, b"kern").unwrap();
        assert_eq!(open(cache.path(), "small-1"), None);
    }

    #[test]
    fn spoilt_kernel_gives_way_to_a_new_one() {
        let cache = tempfile::tempdir().unwrap();
        let kernel = published(cache.path());
        fs::write(&kernel.file, b"").unwrap();
        assert_eq!(published(cache.path()), kernel);
    }
}
