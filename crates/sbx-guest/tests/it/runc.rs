//! The role in front of `runc`, outside of a machine: there are no roots to give here.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

/// Runs our `runc` from a folder in front of one with a program that says how it was called.
fn runc(dir: &Path, args: &[&str]) -> Output {
    let (first, second) = (dir.join("first"), dir.join("second"));
    for folder in [&first, &second] {
        fs::create_dir_all(folder).unwrap();
    }
    let ours = first.join("runc");
    if !ours.exists() {
        symlink(env!("CARGO_BIN_EXE_sbx-guest"), &ours).unwrap();
    }
    let real = second.join("runc");
    fs::write(&real, "#!/bin/sh\necho real \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", first.display(), second.display());
    let mut command = Command::new(ours);
    command.args(args).env("PATH", path).output().unwrap()
}

#[test]
fn the_real_one_gets_the_same_arguments_and_its_status_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let output = runc(dir.path(), &["--root", "/r", "delete", "--force", "a b"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"real --root /r delete --force a b\n");
}

#[test]
fn a_container_that_cannot_be_given_roots_is_passed_on_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let bundle = dir.path().display().to_string();
    for text in ["", "{", "[]", "{\"mounts\": 1}"] {
        fs::write(&config, text).unwrap();
        let output = runc(dir.path(), &["create", "--bundle", &bundle, "c1"]);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
    }
    fs::remove_file(&config).unwrap();
    let output = runc(dir.path(), &["run", "--bundle", &bundle, "c1"]);
    assert_eq!(output.status.code(), Some(7));
}
