//! Who makes commits: the user's name and address for git inside, and the key that signs them, where they are signed with a
//! key of the SSH agent. Nothing else of the user's settings enters a sandbox.

use crate::daemon::Daemon;
use crate::git::{Most, git};
use crate::settings;
use sbx_wire::guest::GuestFile;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Settings of the machine, below those of its users and repositories. It is the guest's: what is set there inside stays.
const SYSTEM: &str = "/etc/gitconfig";
/// Ours, which that one includes.
const FILE: &str = "/etc/sbx/gitconfig";
const WANTED: &str = "^(user\\.(name|email|signingkey)|gpg\\.format|(commit|tag)\\.gpgsign)$";
/// Most bytes of all settings, of one value, and of a public key.
const MAX_SETTINGS: u64 = 64 << 10;
const MAX_VALUE: usize = 1 << 10;
const MAX_KEY: u64 = 16 << 10;
/// Beginnings of the kinds of public keys.
const KINDS: [&str; 3] = ["ssh-", "ecdsa-", "sk-"];

/// Ours, written anew at each start: also where the user has no settings any more. And what includes it.
pub(crate) fn files(daemon: &Daemon) -> [GuestFile; 2] {
    let arguments = [
        "config",
        "--global",
        "--includes",
        "--null",
        "--get-regexp",
        WANTED,
    ];
    // Fails as well if there are none.
    let found = git(Path::new("/"), &arguments, Most::bytes(MAX_SETTINGS)).unwrap_or_default();
    let found = settings(&found);
    let ssh = settings::ssh(daemon.store().settings());
    let signs = ssh.is_ok_and(|ssh| ssh.enabled);
    let key = || public_key(found.get("user.signingkey")?, &home()?);
    let key = if signs { key() } else { None };
    [
        guest_file(FILE, text(&found, key.as_deref()), false),
        guest_file(SYSTEM, include(FILE), true),
    ]
}

fn guest_file(path: &str, text: String, only_if_missing: bool) -> GuestFile {
    GuestFile {
        path: path.to_owned(),
        content: text.into_bytes(),
        mode: 0o644,
        owner: 0,
        only_if_missing,
    }
}

/// Settings that take in another file's.
fn include(path: &str) -> String {
    format!("[include]\n\tpath = {path}\n")
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}

/// `KEY LF VALUE NUL`, or `KEY NUL` for one that is simply set. The last one counts.
fn settings(printed: &[u8]) -> BTreeMap<String, String> {
    let texts = printed
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok());
    texts
        .filter(|entry| !entry.is_empty())
        .map(|entry| entry.split_once('\n').unwrap_or((entry, "true")))
        .filter(|(_, value)| value.len() <= MAX_VALUE && !value.contains(char::is_control))
        .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
        .collect()
}

/// The public key that `user.signingkey` names: `key::` and the key itself, or a file beside which it lies.
fn public_key(named: &str, home: &Path) -> Option<String> {
    if let Some(key) = named.strip_prefix("key::") {
        return one_key(key);
    }
    if let Some(key) = one_key(named) {
        return Some(key);
    }
    let path = match named.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => PathBuf::from(named),
    };
    let beside = PathBuf::from(format!("{}.pub", path.display()));
    [beside, path].iter().find_map(|path| {
        let file = path
            .is_absolute()
            .then(|| std::fs::File::open(path).ok())??;
        let text = std::io::read_to_string(std::io::Read::take(file, MAX_KEY)).ok()?;
        one_key(&text)
    })
}

/// The kind and the key, without a comment.
fn one_key(text: &str) -> Option<String> {
    let mut fields = text.split_ascii_whitespace();
    let (kind, key) = (fields.next()?, fields.next()?);
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let known = KINDS.iter().any(|known| kind.starts_with(known));
    (known && plain(kind) && plain(key)).then(|| format!("{kind} {key}"))
}

/// The file's text.
fn text(found: &BTreeMap<String, String>, key: Option<&str>) -> String {
    let mut text = "# Written by sbx at each start. Your own: git config --global\n".to_owned();
    let mut put = |section: &str, name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!("[{section}]\n\t{name} = \"{value}\"\n"));
    };
    for (key, name) in [("user.name", "name"), ("user.email", "email")] {
        if let Some(value) = found.get(key) {
            put("user", name, value);
        }
    }
    let with_ssh = found
        .get("gpg.format")
        .is_some_and(|format| format == "ssh");
    if let Some(key) = key.filter(|_| with_ssh) {
        put("gpg", "format", "ssh");
        put("user", "signingkey", &format!("key::{key}"));
        for what in ["commit", "tag"] {
            let set = found.get(&format!("{what}.gpgsign"));
            if set.is_some_and(|value| matches!(value.as_str(), "true" | "yes" | "on" | "1")) {
                put(what, "gpgsign", "true");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &[u8] =
        b"user.name\nA \"B\" \\C\0user.email\na@b.example\0user.signingkey\n~/.ssh/id\0\
        gpg.format\nssh\0commit.gpgsign\0tag.gpgsign\nfalse\0";

    #[test]
    fn name_and_address_are_written_as_git_reads_them_and_keys_only_with_a_public_half() {
        let found = settings(PRINTED);
        let plain = text(&found, None);
        assert!(!plain.contains("sign") && !plain.contains("gpg"), "{plain}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gitconfig");
        std::fs::write(&path, text(&found, Some("ssh-ed25519 AAAA"))).unwrap();
        let read = |key: &str| {
            let mut git = std::process::Command::new("git");
            let output = git.args(["config", "--file"]).arg(&path).arg(key).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert_eq!(read("user.name"), "A \"B\" \\C\n");
        assert_eq!(read("user.email"), "a@b.example\n");
        assert_eq!(read("user.signingkey"), "key::ssh-ed25519 AAAA\n");
        assert_eq!(read("commit.gpgsign"), "true\n");
        assert_eq!(read("tag.gpgsign"), "");
    }

    #[test]
    fn what_is_set_inside_stays_and_counts_more_than_what_comes_from_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let ours = path("ours");
        let start = |name: &str| {
            let found =
                settings(format!("user.name\n{name}\0user.email\na@b.example\0").as_bytes());
            std::fs::write(&ours, text(&found, None)).unwrap();
            let system = guest_file(SYSTEM, include(&ours.display().to_string()), true);
            if !(system.only_if_missing && path("system").exists()) {
                std::fs::write(path("system"), system.content).unwrap();
            }
        };
        let git = |arguments: &[&str]| {
            let mut git = std::process::Command::new("git");
            let git = git.env("GIT_CONFIG_SYSTEM", path("system"));
            let output = git
                .args(["config", "--system", "--includes"])
                .args(arguments);
            String::from_utf8(output.output().unwrap().stdout).unwrap()
        };
        start("First");
        assert_eq!(git(&["user.name"]), "First\n");
        git(&["user.email", "inside@b.example"]);
        git(&["alias.st", "status"]);
        start("Second");
        assert_eq!(git(&["user.name"]), "Second\n");
        assert_eq!(git(&["user.email"]), "inside@b.example\n");
        assert_eq!(git(&["alias.st"]), "status\n");
    }

    #[test]
    fn of_a_signing_key_nothing_but_the_public_half_is_taken() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
        assert_eq!(public_key("~/id", home.path()), None);
        file("id.pub", "ssh-ed25519 AAAA me@home\n");
        let public = Some("ssh-ed25519 AAAA".to_owned());
        assert_eq!(public_key("~/id", home.path()), public);
        assert_eq!(public_key("~/id.pub", home.path()), public);
        assert_eq!(public_key("key::ssh-ed25519 AAAA x", home.path()), public);
        assert_eq!(public_key("id", home.path()), None);
        assert_eq!(public_key("ABCD1234", home.path()), None);
    }
}
