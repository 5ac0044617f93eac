//! What goes besides images.

use crate::worker::{WORKER, names, request, silent_archive, start, wait_for_end};
use sbx_image::worker::Job;
use sbx_image::{Leftovers, SmallRequest};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

fn leftovers<'a>(cache: &'a Path, kernels: &'a [SmallRequest]) -> Leftovers<'a> {
    Leftovers {
        cache,
        worker: Path::new(WORKER),
        kernels,
        initramfs: None,
        dry_run: false,
    }
}

#[test]
fn interrupted_build_goes_whoever_its_files_belong_to_and_a_running_one_stays() {
    let cache = tempfile::tempdir().unwrap();
    let (listener, archive) = silent_archive();
    let (mut worker, _out) = start(&Job::Ensure(request(cache.path(), &archive)));
    let (connection, _) = listener.accept().unwrap(); // apt asks for the package lists
    assert!(leftovers(cache.path(), &[]).remove().unwrap().is_empty());
    worker.kill().unwrap();
    worker.wait().unwrap();
    wait_for_end(connection);
    let gone = leftovers(cache.path(), &[]).remove().unwrap();
    assert!(
        matches!(&gone[..], [name] if name.starts_with("images/.building-")),
        "{gone:?}"
    );
    let left = names(&cache.path().join("images"));
    assert!(
        matches!(&left[..], [lock] if lock.contains(".lock")),
        "{left:?}"
    );
}

#[test]
fn kernels_that_can_be_used_and_what_was_done_of_them_stay() {
    let cache = tempfile::tempdir().unwrap();
    let request = SmallRequest {
        cache: cache.path().to_owned(),
        stock: "6.12.1".into(),
        archive: None,
    };
    let kernels = cache.path().join("kernels");
    let key = request
        .log()
        .file_stem()
        .unwrap()
        .to_owned()
        .into_string()
        .unwrap();
    for name in [
        &key,
        "small-0",
        &format!(".building-{key}"),
        ".building-small-0",
    ] {
        fs::create_dir_all(kernels.join(name)).unwrap();
    }
    let requests = [request];
    let gone = leftovers(cache.path(), &requests).remove().unwrap();
    assert_eq!(gone, ["kernels/.building-small-0", "kernels/small-0"]);
    assert!(kernels.join(&key).exists() && kernels.join(format!(".building-{key}")).exists());
}

#[test]
fn initial_ram_disks_that_can_be_used_or_are_being_written_stay() {
    let cache = tempfile::tempdir().unwrap();
    let dir = cache.path().join("initramfs");
    fs::create_dir(&dir).unwrap();
    let file = |name: &str| -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, "").unwrap();
        path
    };
    let used = [file("1.cpio")];
    for name in ["2.cpio", "new.tmp", "old.tmp", "other"] {
        file(name);
    }
    let old = File::options()
        .append(true)
        .open(dir.join("old.tmp"))
        .unwrap();
    old.set_modified(SystemTime::now() - Duration::from_hours(1))
        .unwrap();
    assert!(leftovers(cache.path(), &[]).remove().unwrap().is_empty());
    let known = Leftovers {
        initramfs: Some(&used),
        ..leftovers(cache.path(), &[])
    };
    let gone = known.remove().unwrap();
    assert_eq!(gone, ["initramfs/2.cpio", "initramfs/old.tmp"]);
    assert_eq!(names(&dir), ["1.cpio", "new.tmp", "other"]);
}
