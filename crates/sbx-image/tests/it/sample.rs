//! A small image, written by hand.

use sbx_image::{Image, Store};
use serde_json::json;
use std::fs;
use std::path::Path;

/// Keys of the base image and of the layer on it.
pub(crate) const BASE: &str = "base-test";
pub(crate) const LAYER: &str = "claude-test";

/// Writes both images into the cache `cache`.
pub(crate) fn write(cache: &Path) {
    let base = cache.join("images").join(BASE);
    let layer = cache.join("images").join(LAYER);
    fs::create_dir_all(base.join("modules")).unwrap();
    fs::create_dir_all(&layer).unwrap();
    let files = [
        ("rootfs.erofs", "root"),
        ("vmlinux", "kernel"),
        ("upper.ext4", "u"),
        ("docker.ext4", "d"),
        ("modules/00-erofs.ko", "first"),
        ("modules/01-overlay.ko", "second"),
    ];
    for (name, content) in files {
        fs::write(base.join(name), content).unwrap();
    }
    fs::write(layer.join("layer.erofs"), "layer").unwrap();
    let sizes: serde_json::Map<_, _> = files
        .iter()
        .map(|(name, content)| ((*name).to_owned(), json!(content.len())))
        .collect();
    let mut manifest = json!({
        "schema": 1, "template": "base", "key": BASE, "base": null, "built_at_unix_s": 0,
        "lower": "rootfs.erofs", "kernel": {"version": "6.12.0", "file": "vmlinux"},
        "modules": ["modules/00-erofs.ko", "modules/01-overlay.ko"],
        "upper": {"file": "upper.ext4", "bytes": 1}, "docker": {"file": "docker.ext4", "bytes": 1},
        "packages": {}, "path": "/usr/bin", "workdir": "/", "agent_command": ["bash", "-l"],
        "finish": [], "sizes": sizes,
    });
    fs::write(base.join("manifest.json"), manifest.to_string()).unwrap();
    manifest["template"] = json!("claude");
    manifest["key"] = json!(LAYER);
    manifest["base"] = json!(BASE);
    manifest["lower"] = json!("layer.erofs");
    for absent in ["kernel", "upper", "docker"] {
        manifest[absent] = json!(null);
    }
    manifest["modules"] = json!([]);
    manifest["finish"] = json!([{"argv": ["claude", "--version"], "user": "agent", "limit_s": 9}]);
    manifest["sizes"] = json!({"layer.erofs": 5});
    fs::write(layer.join("manifest.json"), manifest.to_string()).unwrap();
}

/// The base image.
pub(crate) fn image(cache: &Path) -> Image {
    write(cache);
    Store::new(cache).open_key(BASE).unwrap()
}
