//! What counts as an image.

use crate::sample;
use sbx_image::Store;
use serde_json::Value;
use std::fs;
use std::path::Path;

#[test]
fn layer_lies_on_its_base_and_takes_everything_else_from_it() {
    let dir = tempfile::tempdir().unwrap();
    sample::write(dir.path());
    let image = Store::new(dir.path()).open_key(sample::LAYER).unwrap();
    let images = dir.path().join("images");
    let base = images.join(sample::BASE);
    let layer = images.join(sample::LAYER).join("layer.erofs");
    assert_eq!(image.lowers, [base.join("rootfs.erofs"), layer]);
    assert_eq!(image.kernel, base.join("vmlinux"));
    assert_eq!(image.modules.len(), 2);
}

#[test]
fn cut_or_missing_file_spoils_the_image_and_all_that_lies_on_it() {
    let dir = tempfile::tempdir().unwrap();
    sample::write(dir.path());
    let store = Store::new(dir.path());
    let vmlinux = dir.path().join("images").join(sample::BASE).join("vmlinux");
    fs::write(&vmlinux, "kern").unwrap();
    assert!(store.open_key(sample::BASE).is_none());
    assert!(store.open_key(sample::LAYER).is_none());
    fs::write(&vmlinux, "kernel").unwrap();
    assert!(store.open_key(sample::LAYER).is_some());
    fs::remove_file(&vmlinux).unwrap();
    assert!(store.open_key(sample::LAYER).is_none());
}

/// Says in the manifest of `key` which build it is.
fn set(cache: &Path, key: &str, field: &str, build: &str) {
    let path = cache.join("images").join(key).join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest[field] = build.into();
    fs::write(&path, manifest.to_string()).unwrap();
}

#[test]
fn image_that_was_built_anew_is_not_the_one_that_disks_lie_on() {
    let dir = tempfile::tempdir().unwrap();
    sample::write(dir.path());
    let store = Store::new(dir.path());
    // Of a version that noted no build.
    assert!(store.open_build(sample::BASE, "").is_some());
    assert!(store.open_build(sample::LAYER, "").is_some());
    assert!(store.open_build(sample::BASE, "one").is_none());
    set(dir.path(), sample::BASE, "build", "one");
    assert!(store.open_build(sample::BASE, "one").is_some());
    assert!(store.open_build(sample::BASE, "").is_none());
    // The layer is of another base by now, whatever disks lie on it.
    assert!(store.open_key(sample::LAYER).is_none());
    set(dir.path(), sample::LAYER, "base_build", "one");
    assert!(store.open_build(sample::LAYER, "").is_some());
}

#[test]
fn unfinished_build_and_a_path_are_no_keys() {
    let dir = tempfile::tempdir().unwrap();
    sample::write(dir.path());
    let images = dir.path().join("images");
    fs::rename(
        images.join(sample::BASE),
        images.join(".building-base-test"),
    )
    .unwrap();
    let store = Store::new(dir.path());
    for key in [
        sample::BASE,
        ".building-base-test",
        "../images/claude-test",
        "",
        ".",
    ] {
        assert!(store.open_key(key).is_none(), "{key}");
    }
}

#[test]
fn finishing_steps_are_due_until_they_are_marked_as_done() {
    let dir = tempfile::tempdir().unwrap();
    sample::write(dir.path());
    let image = Store::new(dir.path()).open_key(sample::LAYER).unwrap();
    assert_eq!(image.unfinished()[0].argv, ["claude", "--version"]);
    image.mark_finished("2.0.0").unwrap();
    image.mark_finished("2.0.0").unwrap();
    assert!(image.unfinished().is_empty());
}

#[test]
fn pruning_keeps_what_is_used_and_what_lies_below_it() {
    let dir = tempfile::tempdir().unwrap();
    sample::write(dir.path());
    let store = Store::new(dir.path());
    assert_eq!(
        store.prune(&[sample::LAYER.to_owned()]).unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        store.prune(&[sample::BASE.to_owned()]).unwrap(),
        [sample::LAYER]
    );
    assert!(store.open_key(sample::BASE).is_some());
    assert_eq!(store.prune(&[]).unwrap(), [sample::BASE]);
    assert!(store.open_key(sample::BASE).is_none());
}
