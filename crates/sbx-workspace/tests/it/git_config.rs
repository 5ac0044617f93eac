//! Git's settings: read as git reads them, and what may be set.

use proptest::prelude::*;
use sbx_workspace::git_config::{ConfigError, Place, check, check_modules, parse};
use std::path::Path;
use std::process::Command;

fn judged(new: &str, old: Option<&str>) -> Result<(), ConfigError> {
    let place = Place {
        root: Path::new("/w/p"),
        directory: &[b".git"],
    };
    check(place, new.as_bytes(), old.map(str::as_bytes))
}

fn refused(new: &str) -> Vec<String> {
    match judged(new, None) {
        Err(ConfigError::Unsafe(names)) => names,
        other => panic!("{new}: {other:?}"),
    }
}

#[test]
fn settings_that_run_something_are_refused_by_name() {
    for (text, name) in [
        ("[core]\nhooksPath = /tmp/x", "core.hookspath"),
        ("[core] sshCommand = sh", "core.sshcommand"),
        ("[CORE]\n\tfsmonitor = ./evil", "core.fsmonitor"),
        ("[core]\neditor=vi\\\n m", "core.editor"),
        ("[core]\npager", "core.pager"),
        ("[core]\nworktree = ../../..", "core.worktree"),
        ("[core]\nworktree = /home", "core.worktree"),
        ("[core]\nworktree = ../link", "core.worktree"),
        ("[filter \"x\"]\nclean = evil", "filter.x.clean"),
        ("[filter \"lfs\"]\nclean = evil", "filter.lfs.clean"),
        ("[filter.lfs]\nclean = evil", "filter.lfs.clean"),
        ("[diff \"x\"]\ncommand = evil", "diff.x.command"),
        ("[diff]\nexternal = evil", "diff.external"),
        ("[merge \"x\"]\ndriver = evil", "merge.x.driver"),
        ("[include]\npath = evil", "include.path"),
        (
            "[includeIf \"gitdir:/\"]\npath = evil",
            "includeif.gitdir:/.path",
        ),
        ("[alias]\nst = !evil", "alias.st"),
        ("[credential]\nhelper = evil", "credential.helper"),
        ("[gpg]\nprogram = evil", "gpg.program"),
        ("[url \"evil\"]\ninsteadOf = x", "url.evil.insteadof"),
        ("[remote \"o\"]\nuploadpack = evil", "remote.o.uploadpack"),
        ("[remote \"o\"]\nurl = ext::sh -c evil", "remote.o.url"),
        ("[remote \"o\"]\nurl = --upload-pack=x", "remote.o.url"),
        ("[submodule \"s\"]\nupdate = !evil", "submodule.s.update"),
        ("[remote \"o\"]\nurl = ext://sh -c evil", "remote.o.url"),
        ("[remote \"o\"]\nurl = a-b::x", "remote.o.url"),
        ("[remote \"o\"]\nurl = ::x", "remote.o.url"),
        // A push there would run what is there.
        ("[remote \"o\"]\npushurl = ./evil.git", "remote.o.pushurl"),
        (
            "[remote \"o\"]\npushurl = /w/p/evil.git",
            "remote.o.pushurl",
        ),
        (
            "[remote \"o\"]\npushurl = file:///w/p/x",
            "remote.o.pushurl",
        ),
        ("[remote \"o\"]\npushurl = file:x", "remote.o.pushurl"),
        ("[remote \"o\"]\npushurl = a/b:c", "remote.o.pushurl"),
        ("[remote \"o\"]\npushurl = a@b/c", "remote.o.pushurl"),
        ("[branch \"m\"]\nremote = ../evil", "branch.m.remote"),
        ("[branch \"m\"]\nremote = ..", "branch.m.remote"),
        ("[branch \"m\"]\npushRemote = ./evil", "branch.m.pushremote"),
        ("[branch \"m\"]\npushRemote = ~/evil", "branch.m.pushremote"),
        ("[remote]\npushDefault = evil/x", "remote.pushdefault"),
        ("[branch \"m\"]\nremote = ext::sh", "branch.m.remote"),
        ("[remote]\npushDefault = ext::sh", "remote.pushdefault"),
        ("[gc]\nrecentObjectsHook = evil", "gc.recentobjectshook"),
        ("[hook \"x\"]\ncommand = evil", "hook.x.command"),
        ("[protocol]\nallow = always", "protocol.allow"),
    ] {
        assert_eq!(refused(text), [name], "{text}");
    }
}

#[test]
fn settings_that_agents_make_are_allowed() {
    let text = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n\
        [user]\n\tname = A \"B\" C\n\temail = a@b\n[remote \"origin\"]\n\turl = https://x.example/r.git\n\
        \tfetch = +refs/heads/*:refs/remotes/origin/*\n\turl = git@x.example:a/b\n[branch \"main\"]\n\tremote = origin\n\
        \tmerge = refs/heads/main\n[submodule \"a/b\"]\n\tactive = true\n\turl = ../x\n[pull]\n\trebase = true\n\
        [branch \"a\"]\n\tremote = .\n\tpushRemote = my-fork\n[branch \"b\"]\n\tremote = https://x.example/r.git\n\
        [branch \"c\"]\n\tremote = ssh://git@x.example:22/r\n[remote]\n\tpushDefault = up.stream\n\
        [remote \"p\"]\n\turl = ../lib\n\turl = /w/p/app\n\turl = file:///w/p/app\n\tpushurl = git@x.example:a/b\n\
        \tpushurl = [::1]:r\n\tpushurl = x.example:~/r\n\
        [core]\n\tfsmonitor = true\n[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\
        [extensions]\n\tworktreeConfig = true\n";
    assert_eq!(judged(text, None), Ok(()));
}

#[test]
fn a_submodule_has_its_files_in_its_repository() {
    let at = |directory: &[&[u8]], worktree: &str| {
        let place = Place {
            root: Path::new("/w/p"),
            directory,
        };
        let text = format!("[core]\n\tworktree = {worktree}\n");
        check(place, text.as_bytes(), None).is_ok()
    };
    let module: &[&[u8]] = &[b"a", b".git", b"modules", b"sub"];
    assert!(at(module, "../../../lib/sub"));
    // Outside as soon as the repository is moved up.
    assert!(!at(module, "../../../../sub"));
    assert!(!at(module, "../../../lib/../../../sub"));
    assert!(!at(module, "../../modules"));
    assert!(!at(&[b"a", b".git"], "../sub"));
    // One of a worktree's.
    let module: &[&[u8]] = &[b"a", b".git", b"worktrees", b"wt", b"modules", b"sub"];
    assert!(at(module, "../../../../../wt/lib/sub"));
    assert!(!at(module, "../../../../../../wt/sub"));
    assert!(!at(&[b"a", b".git", b"worktrees", b"wt"], "../../../sub"));
}

#[test]
fn what_was_there_before_may_stay_and_nothing_may_join_it() {
    let old = "[core]\n\thooksPath = .husky\n[alias]\n\tst = status\n";
    assert_eq!(judged(old, Some(old)), Ok(()));
    assert_eq!(
        judged("[alias]\nst=status\n[user]\nname=x", Some(old)),
        Ok(())
    );
    let more = format!("{old}[alias]\n\tst = !evil\n");
    let error = judged(&more, Some(old)).unwrap_err().to_string();
    assert_eq!(error, "alias.st");
    let changed = old.replace(".husky", ".evil");
    assert!(judged(&changed, Some(old)).is_err());
    // What git cannot read says nothing.
    assert!(judged("[alias]\nst = x", Some("[alias]\nst = x\n[broken")).is_err());
}

#[test]
fn modules_name_places_and_addresses_only() {
    let good = "[submodule \"lib/x\"]\n\tpath = lib/x\n\turl = https://x.example/x\n\tbranch = main\n\tshallow = true\n";
    assert_eq!(check_modules(good.as_bytes(), None), Ok(()));
    for bad in [
        "[submodule \"x\"]\nupdate = !evil",
        "[submodule \"../x\"]\npath = x",
        "[submodule \"x\"]\npath = ../x",
        "[submodule \"x\"]\npath = -x",
        "[submodule \"x\"]\nurl = -x",
        "[submodule \"x\"]\nurl = ext::x",
        "[core]\nhooksPath = x",
        "[submodule]\nrecurse = true",
    ] {
        assert!(check_modules(bad.as_bytes(), None).is_err(), "{bad}");
    }
}

#[test]
fn what_git_does_not_read_is_refused_with_its_line() {
    for (text, line) in [
        ("x = 1", 1),
        ("[a]\n1x = 2", 2),
        ("[a]\nx = \"y", 2),
        ("[a]\nx = \\q", 2),
        ("[a\n]", 2),
        ("[a \"b]\n", 2),
        ("[a]\nx ! y", 2),
        ("[a]\nx = \0", 2),
    ] {
        let found = parse(text.as_bytes());
        assert_eq!(found.map_err(|error| error.line), Err(line), "{text:?}");
    }
}

/// What git itself reads from such a file: `name\nvalue\0` each, or an error.
fn gits_reading(file: &Path) -> Option<Vec<u8>> {
    let output = Command::new("git")
        .args(["config", "--list", "-z", "--file"])
        .arg(file)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    output.status.success().then_some(output.stdout)
}

fn ours(bytes: &[u8]) -> Option<Vec<u8>> {
    let entries = parse(bytes).ok()?;
    let mut text = Vec::new();
    for entry in entries {
        text.extend(entry.section.as_bytes());
        if let Some(sub) = &entry.subsection {
            text.push(b'.');
            text.extend(sub);
        }
        text.push(b'.');
        text.extend(entry.key.as_bytes());
        if let Some(value) = &entry.value {
            text.push(b'\n');
            text.extend(value);
        }
        text.push(0);
    }
    Some(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever we accept, git reads in the same way; a file that only we refuse costs nobody anything.
    #[test]
    fn what_is_accepted_is_what_git_reads(
        pieces in proptest::collection::vec(prop_oneof![
            6 => "\\[(core|a\\.b|a \"x\\\\\"y\"|A-1|include)\\]",
            6 => "(path|hooksPath|x1|a-b)( )?=( )?",
            4 => "[a-z \"#;\\\\]{0,6}",
            6 => "\n",
            1 => "\\\\\n",
            1 => "\r\n",
            1 => "\r",
            1 => "\t",
            1 => "\\PC{0,3}",
        ], 0..14),
    ) {
        let text = pieces.concat();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        if let Some(ours) = ours(text.as_bytes()) {
            prop_assert_eq!(Some(ours), gits_reading(file.path()), "{:?}", text);
        }
    }
}
