//! What runs on the host is not written from inside (attack cases 74, 76 and 77).

use crate::support::{Bench, ROOT, agent, errno, read_host};
use sbx_workspace::protect::{Level, standard};
use sbx_workspace::{Mode, Rules, Stay};
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use virtiofsd::filesystem::{Extensions, FileSystem as _, SetattrValid};
use virtiofsd::fuse::SetattrIn;

fn bench(level: Level) -> Bench {
    let bench = Bench::guarded(Rules {
        protect: standard(level),
        ..Rules::default()
    });
    for folder in [".git/hooks", ".git/modules", ".git/worktrees", "src"] {
        std::fs::create_dir_all(bench.host(folder)).unwrap();
    }
    bench.host_write(".git/config", "[core]\n\tbare = false\n");
    bench.host_write(".git/hooks/pre-commit", "the host's");
    bench
}

impl Bench {
    fn parent(&self, path: &str) -> (u64, CString) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.node(parent).unwrap(), CString::new(name).unwrap())
    }

    /// Makes a file with this content, as a program inside does.
    fn put(&self, path: &str, text: &str) -> io::Result<u64> {
        let (parent, name) = self.parent(path);
        let (node, handle) = self.create(parent, &name, 0o755, libc::O_RDWR)?;
        let written = self.write(node, handle, text, 0, 0);
        self.release(node, handle);
        written.map(|_| node)
    }

    fn edit(&self, path: &str, text: &str) -> io::Result<()> {
        let node = self.node(path)?;
        let handle = self.open(node, libc::O_WRONLY)?;
        let written = self.write(node, handle, text, 0, 0);
        self.release(node, handle);
        written.map(|_| ())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_with(from, to, 0)
    }

    fn rename_with(&self, from: &str, to: &str, flags: u32) -> io::Result<()> {
        let ((old, old_name), (new, new_name)) = (self.parent(from), self.parent(to));
        self.share
            .rename(agent(), old, &old_name, new, &new_name, flags)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let (parent, name) = self.parent(to);
        let linked = self.share.link(agent(), self.node(from)?, parent, &name);
        linked.map(|_| ())
    }

    fn symlink(&self, text: &CStr, at: &str) -> io::Result<()> {
        let (parent, name) = self.parent(at);
        let made = self
            .share
            .symlink(agent(), text, parent, &name, Extensions::default());
        made.map(|_| ())
    }

    fn make_dir(&self, path: &str) -> io::Result<u64> {
        let (parent, name) = self.parent(path);
        self.mkdir(parent, &name, 0o755)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.parent(path);
        self.share.unlink(agent(), parent, &name)
    }
}

#[track_caller]
fn denied<T>(result: io::Result<T>) {
    assert_eq!(errno(result), libc::EACCES);
}

#[test]
fn attack_76_hooks_are_neither_made_nor_changed_nor_removed() {
    let bench = bench(Level::Standard);
    denied(bench.put(".git/hooks/post-merge", "evil"));
    denied(bench.edit(".git/hooks/pre-commit", "evil"));
    denied(bench.unlink(".git/hooks/pre-commit"));
    denied(bench.symlink(c"/tmp/evil", ".git/hooks/post-checkout"));
    denied(bench.make_dir(".git/hooks/pre-push"));
    let hook = bench.node(".git/hooks/pre-commit").unwrap();
    let mode = SetattrIn {
        mode: 0o755,
        ..Default::default()
    };
    denied(bench.setattr(hook, SetattrValid::MODE, mode));
    denied(bench.setattr(hook, SetattrValid::SIZE, SetattrIn::default()));
    for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
        denied(bench.open(hook, flags | libc::O_TRUNC));
    }
    denied(bench.open(hook, libc::O_WRONLY));
    assert_eq!(bench.content(hook).unwrap(), "the host's");
    assert!(!bench.host(".git/hooks/post-merge").exists());
    let said = bench.said();
    let hook = (
        "create".to_owned(),
        ".git/hooks/post-merge".to_owned(),
        true,
    );
    assert!(said.contains(&hook), "{said:?}");
    assert!(said.iter().all(|(_, _, refused)| *refused), "{said:?}");
}

#[test]
fn attack_76_moving_things_about_does_not_get_around_a_rule() {
    let bench = bench(Level::Standard);
    bench.put("evil", "evil").unwrap();
    // Into place, and away from it.
    denied(bench.rename("evil", ".git/hooks/post-merge"));
    denied(bench.rename(".git/hooks/pre-commit", "mine"));
    denied(bench.rename_with("evil", ".git/hooks/pre-commit", libc::RENAME_EXCHANGE));
    // The directory with all that is in it, away and back.
    denied(bench.rename(".git", "away"));
    denied(bench.rename(".git/hooks", ".git/held"));
    bench.make_dir("new").unwrap();
    bench.make_dir("new/hooks").unwrap();
    bench.put("new/hooks/post-merge", "evil").unwrap();
    denied(bench.rename("new", "src/.git"));
    denied(bench.rename("new/hooks", ".git/modules/hooks"));
    denied(bench.rename_with("new", ".git", libc::RENAME_EXCHANGE));
    bench.make_dir("plain").unwrap();
    denied(bench.rename_with("plain", ".git", libc::RENAME_EXCHANGE));
    // A directory that is harmless when it gets the name is none for the node that was open before.
    let hooks = bench
        .make_dir("later")
        .and_then(|_| bench.make_dir("later/hooks"))
        .unwrap();
    // Something was made in it, so that it is known what the rules say there.
    bench.put("later/hooks/x", "").unwrap();
    bench.unlink("later/hooks/x").unwrap();
    bench.rename("later", "src/.git").unwrap();
    let made = bench.create(hooks, c"post-merge", 0o755, libc::O_RDWR);
    denied(made);
    // The parent's name is no way either.
    bench.rename("src", "source").unwrap();
    denied(bench.create(hooks, c"post-merge", 0o755, libc::O_RDWR));
    denied(bench.put("source/.git/hooks/x", "evil"));
}

#[test]
fn attack_76_links_do_not_get_around_a_rule() {
    let bench = bench(Level::Standard);
    bench.put("evil", "evil").unwrap();
    denied(bench.link("evil", ".git/hooks/post-merge"));
    denied(bench.link(".git/hooks/pre-commit", "alias"));
    denied(bench.link(".git/config", "alias"));
    // Symbolic ones, in place of a directory whose content is protected.
    bench.make_dir("real").unwrap();
    denied(bench.symlink(c"../real", "src/.git"));
    denied(bench.symlink(c"../real", ".git/modules/x"));
    denied(bench.symlink(c"beside", ".git/modules/hooks"));
    // Git's own trial.
    bench.symlink(c"testing", ".git/modules/tXyz").unwrap();
    bench.symlink(c"real", "s").unwrap();
    denied(bench.rename("s", "src/.git"));
    denied(bench.link("s", "src/.git"));
    denied(bench.rename("s", ".git/modules/x"));
    denied(bench.link("s", ".git/modules/x"));
    bench.make_dir("made").unwrap();
    bench.symlink(c"../real", "made/hooks").unwrap();
    denied(bench.rename("made", "src/.git"));
}

#[test]
fn attack_74_a_file_with_names_that_nobody_has_shown_is_not_written() {
    let bench = bench(Level::Standard);
    std::fs::hard_link(bench.outside("secret"), bench.host("outside")).unwrap();
    std::fs::hard_link(bench.host(".git/hooks/pre-commit"), bench.host("hook")).unwrap();
    denied(bench.edit("outside", "evil"));
    let outside = bench.node("outside").unwrap();
    denied(bench.setattr(outside, SetattrValid::MODE, SetattrIn::default()));
    denied(bench.edit("hook", "evil"));
    let node = bench.node("hook").unwrap();
    denied(bench.setattr(node, SetattrValid::SIZE, SetattrIn::default()));
    // Its protected name makes it a protected file under the other one, for good.
    bench.node(".git/hooks/pre-commit").unwrap();
    denied(bench.edit("hook", "evil"));
    denied(bench.link("hook", "third"));
    assert_eq!(read_host(bench.outside("secret")), "outside");
    // Two names in the tree, both seen: an ordinary file.
    bench.put("a", "a").unwrap();
    bench.link("a", "b").unwrap();
    bench.edit("b", "b").unwrap();
    assert_eq!(read_host(bench.host("a")), "b");
}

#[test]
fn attack_76_git_settings_are_written_by_git_only_and_run_nothing() {
    let bench = bench(Level::Standard);
    denied(bench.edit(".git/config", "[alias]"));
    // As git does it.
    bench
        .put(
            ".git/config.lock",
            "[core]\n\tbare = false\n[user]\n\tname = agent\n",
        )
        .unwrap();
    let lock = bench.node(".git/config.lock").unwrap();
    let held = bench.open(lock, libc::O_RDWR).unwrap();
    let held_by_another = std::fs::File::options()
        .write(true)
        .open(bench.host(".git/config.lock"))
        .unwrap();
    bench.rename(".git/config.lock", ".git/config").unwrap();
    let name = "[core]\n\tbare = false\n[user]\n\tname = agent\n";
    assert_eq!(read_host(bench.host(".git/config")), name);
    // Whoever still has the lock open has a file without a name, also by way of another share.
    let _anywhere = bench.write(lock, held, "[alias]\nx = !evil\n", 0, 0);
    held_by_another
        .write_at(b"[alias]\nx = !evil\n", 0)
        .unwrap();
    assert_eq!(read_host(bench.host(".git/config")), name);
    assert_eq!(
        bench.content(bench.node(".git/config").unwrap()).unwrap(),
        name
    );
    assert_eq!(
        bench.content(lock).unwrap(),
        name,
        "the renamed file is the one in place"
    );
    // Not so.
    bench
        .put(".git/config.lock", "[core]\n\tsshCommand = evil\n")
        .unwrap();
    denied(bench.rename(".git/config.lock", ".git/config"));
    assert_eq!(read_host(bench.host(".git/config")), name);
    bench.unlink(".git/config.lock").unwrap();
    let large = format!("#{}\n", "x".repeat(1 << 20));
    bench.put(".git/config.lock", &large).unwrap();
    denied(bench.rename(".git/config.lock", ".git/config"));
    denied(bench.symlink(c"/tmp/evil", ".git/config.worktree"));
    denied(
        bench
            .put("src/config", "x")
            .and_then(|_| bench.link("src/config", ".git/config.worktree")),
    );
    let said = bench.said();
    let refused = ("configure".to_owned(), ".git/config".to_owned(), true);
    assert!(said.contains(&refused), "{said:?}");
    // A repository can go, and its settings with it.
    bench.unlink(".git/config").unwrap();
}

#[test]
fn a_new_repository_can_be_made_and_removed() {
    let bench = bench(Level::Block);
    for folder in [
        "p",
        "p/.git",
        "p/.git/hooks",
        "p/.git/info",
        "p/.git/objects",
    ] {
        bench.make_dir(folder).unwrap();
    }
    bench
        .put("p/.git/hooks/pre-commit.sample", "#!/bin/sh")
        .unwrap();
    denied(bench.rename("p/.git/hooks/pre-commit.sample", "p/.git/hooks/pre-commit"));
    bench.put("p/.git/HEAD", "ref: refs/heads/main\n").unwrap();
    bench
        .put("p/.git/config.lock", "[core]\n\tbare = false\n")
        .unwrap();
    bench.rename("p/.git/config.lock", "p/.git/config").unwrap();
    // Git's trial of whether modes are kept.
    let config = bench.node("p/.git/config").unwrap();
    let mode = SetattrIn {
        mode: 0o755,
        ..Default::default()
    };
    bench.setattr(config, SetattrValid::MODE, mode).unwrap();
    for file in ["hooks/pre-commit.sample", "HEAD", "config"] {
        bench.unlink(&format!("p/.git/{file}")).unwrap();
    }
    let git = bench.node("p/.git").unwrap();
    for folder in [c"hooks", c"info", c"objects"] {
        bench.share.rmdir(agent(), git, folder).unwrap();
    }
    let project = bench.node("p").unwrap();
    bench.share.rmdir(agent(), project, c".git").unwrap();
    assert_eq!(
        bench
            .said()
            .iter()
            .filter(|(action, ..)| action != "rename")
            .count(),
        0
    );
}

#[test]
fn worktrees_and_submodules_name_protected_places_only() {
    let bench = bench(Level::Standard);
    bench.make_dir("wt").unwrap();
    bench
        .put("wt/.git", "gitdir: ../.git/worktrees/wt\n")
        .unwrap();
    assert_eq!(
        read_host(bench.host("wt/.git")),
        "gitdir: ../.git/worktrees/wt\n"
    );
    denied(bench.edit("wt/.git", "gitdir: ../evil\n"));
    let node = bench.node("wt/.git").unwrap();
    let handle = bench.open(node, libc::O_RDWR).unwrap();
    denied(bench.write(node, handle, "x/evil", 8, 0));
    // With what stays of the old one behind it: ../x/.gitorktrees/wt.
    denied(bench.write(node, handle, "gitdir: ../x/.git", 0, 0));
    let size = SetattrIn {
        size: 12,
        ..Default::default()
    };
    denied(bench.setattr(node, SetattrValid::SIZE, size));
    denied(bench.share.fallocate(agent(), node, handle, 0, 0, 100));
    assert_eq!(
        read_host(bench.host("wt/.git")),
        "gitdir: ../.git/worktrees/wt\n"
    );
    bench.put("link", "gitdir: ../evil\n").unwrap();
    denied(bench.rename("link", "src/.git"));
    bench.put("good", "gitdir: ../.git/worktrees/wt\n").unwrap();
    denied(bench.rename("good", "src/.git"));
    // The target was free, so is the name it has now.
    bench.make_dir("sub").unwrap();
    denied(bench.put("sub/.git", "gitdir: ../evil\n"));
    assert_eq!(
        read_host(bench.host("sub/.git")),
        "",
        "made, and nothing in it"
    );
    bench.make_dir(".git/worktrees/wt").unwrap();
    bench.put(".git/worktrees/wt/commondir", "../..\n").unwrap();
    denied(bench.edit(".git/worktrees/wt/commondir", "../../../x"));
}

/// As `git submodule update --init` in a worktree does it.
#[test]
fn submodules_of_a_worktree_are_made_by_git_and_protected_as_others_are() {
    let bench = bench(Level::Block);
    let git = ".git/worktrees/wt/modules/sub";
    for folder in ["wt", "wt/sub", ".git/worktrees/wt"] {
        bench.make_dir(folder).unwrap();
    }
    for folder in [".git/worktrees/wt/modules", git] {
        bench.make_dir(folder).unwrap();
    }
    let link = "gitdir: ../../.git/worktrees/wt/modules/sub\n";
    bench.put("wt/sub/.git", link).unwrap();
    assert_eq!(read_host(bench.host("wt/sub/.git")), link);
    for folder in ["refs", "refs/remotes", "refs/remotes/origin"] {
        bench.make_dir(&format!("{git}/{folder}")).unwrap();
    }
    let branch = format!("{git}/refs/remotes/origin/main");
    bench.put(&branch, "0123").unwrap();
    let (lock, config) = (format!("{git}/config.lock"), format!("{git}/config"));
    let settings = "[core]\n\tbare = false\n\tworktree = ../../../../../wt/sub\n";
    bench.put(&lock, settings).unwrap();
    bench.rename(&lock, &config).unwrap();
    assert_eq!(read_host(bench.host(&config)), settings);
    bench.make_dir(&format!("{git}/hooks")).unwrap();
    denied(bench.put(&format!("{git}/hooks/post-checkout"), "evil"));
    bench.put(&lock, "[core]\n\tfsmonitor = evil\n").unwrap();
    denied(bench.rename(&lock, &config));
    denied(bench.edit(&config, "[core]\n\tfsmonitor = evil\n"));
    denied(bench.edit("wt/sub/.git", "gitdir: ../../evil\n"));
}

#[test]
fn attack_76_a_file_that_is_used_as_a_directory_stays_protected() {
    let bench = bench(Level::Block);
    bench.make_dir("wt").unwrap();
    let good = "gitdir: ../.git/worktrees/wt\n";
    let link = bench.put("wt/.git", good).unwrap();
    let settings = bench.node(".git/config").unwrap();
    let (node, handle) = bench
        .create(bench.node("wt").unwrap(), c".git", 0o644, libc::O_RDWR)
        .unwrap();
    for file in [link, settings] {
        for name in [c"x", c".git", c"config"] {
            assert!(bench.lookup(file, name).is_err());
            let made = bench
                .share
                .mkdir(agent(), file, name, 0o755, 0, Extensions::default());
            assert_eq!(errno(made), libc::ENOTDIR);
            assert_eq!(
                errno(bench.create(file, name, 0o644, libc::O_RDWR)),
                libc::ENOTDIR
            );
        }
    }
    denied(bench.write(node, handle, "gitdir: ../evil\n", 0, 0));
    denied(bench.write(node, handle, "x", 1 << 40, 0));
    denied(bench.edit("wt/.git", "gitdir: ../evil\n"));
    denied(bench.edit(".git/config", "[core]\n\tfsmonitor = evil\n"));
    assert_eq!(read_host(bench.host("wt/.git")), good);
}

#[test]
fn attack_76_links_do_not_lead_git_elsewhere() {
    let bench = bench(Level::Standard);
    for folder in ["wt", "evil", "evil/deep", "evil/modules", "evil/modules/x"] {
        bench.make_dir(folder).unwrap();
    }
    // Git follows a link before it goes up: to evil/modules/x, whose hooks are nobody's. There is none.
    denied(bench.symlink(c"../evil/deep", ".git/l"));
    denied(bench.put("wt/.git", "gitdir: ../.git/l/../modules/x\n"));
    // Here its files are, and where a link leads is decided later.
    let settings = "[core]\n\tworktree = ../l\n";
    bench.put(".git/config.lock", settings).unwrap();
    denied(bench.rename(".git/config.lock", ".git/config"));
}

#[test]
fn attack_76_a_worktrees_directory_is_no_repository_of_its_own() {
    let bench = bench(Level::Standard);
    for folder in ["wt", ".git/worktrees/x", ".git/worktrees/x/hooks"] {
        bench.make_dir(folder).unwrap();
    }
    bench
        .put("wt/.git", "gitdir: ../.git/worktrees/x\n")
        .unwrap();
    bench
        .put(".git/worktrees/x/HEAD", "ref: refs/heads/main\n")
        .unwrap();
    denied(bench.put(".git/worktrees/x/config", "[core]\n\tfsmonitor = evil\n"));
    denied(bench.put(".git/worktrees/x/hooks/post-checkout", "evil"));
    bench.put("config", "[core]\n\tfsmonitor = evil\n").unwrap();
    denied(bench.rename("config", ".git/worktrees/x/config"));
    bench.make_dir("y").unwrap();
    bench.rename("config", "y/config").unwrap();
    denied(bench.rename("y", ".git/worktrees/y"));
}

fn stay(paths: &[&str], mode: Mode) -> Bench {
    let level = match mode {
        Mode::Block => Level::Standard,
        Mode::Report => Level::Report,
    };
    let stay = paths.iter().map(|path| Stay {
        path: (*path).to_owned(),
        mode,
    });
    let bench = Bench::guarded(Rules {
        protect: standard(level),
        stay: stay.collect(),
        ..Rules::default()
    });
    for folder in [".git", "a/sub/.git", "other/.git", "empty"] {
        std::fs::create_dir_all(bench.host(folder)).unwrap();
    }
    bench
}

/// Git on the host would find `evil/.gitconfig` where it found `.gitconfig`.
#[test]
fn attack_76_a_directory_that_git_looks_from_stays_where_it_is() {
    let bench = stay(&[".git", "a/sub/.git"], Mode::Block);
    bench.make_dir("evil").unwrap();
    for held in [".git", "a/sub/.git", "a/sub", "a"] {
        denied(bench.rename(held, "evil/.git"));
        denied(bench.rename(held, "b"));
        for flags in [0, libc::RENAME_EXCHANGE] {
            denied(bench.rename_with("empty", held, flags));
        }
        denied(bench.rename_with(held, "empty", libc::RENAME_EXCHANGE));
    }
    let said = bench.said();
    let moved = ("rename".to_owned(), "a/sub".to_owned(), true);
    assert!(said.contains(&moved), "{said:?}");
    let events = read_host(bench.host("../events"));
    assert!(events.contains("by where a/sub/.git is"), "{events}");
    // Others go where they like, and come back; and so does what only begins alike.
    bench.make_dir("a/su").unwrap();
    bench.rename("a/su", "a/subs").unwrap();
    bench.rename("other/.git", "evil/.git").unwrap();
    bench.rename("evil/.git", "other/.git").unwrap();
    bench.rename("other", "a/sub/other").unwrap();
    // Nothing keeps a place that is free.
    std::fs::remove_dir(bench.host("a/sub/.git")).unwrap();
    bench.rename("empty", "a/sub/.git").unwrap();
}

#[test]
fn in_report_mode_a_directory_that_git_looks_from_is_moved_and_that_is_said() {
    let bench = stay(&["a/sub/.git"], Mode::Report);
    bench.rename("a", "b").unwrap();
    let moved = ("rename".to_owned(), "a".to_owned(), false);
    assert_eq!(bench.said(), [moved]);
}

/// As the daemon finds them: settings that the repository's include, a directory that they name for hooks, and a git
/// directory of another name.
#[test]
fn attack_76_gits_files_in_other_places_are_protected_as_in_their_own() {
    use sbx_workspace::git_places;
    let mut protect = standard(Level::Standard);
    protect.extend([
        git_places::settings(&["conf", "git"], Mode::Block).unwrap(),
        git_places::hooks_anywhere(&["tools", "hooks"], Mode::Block).unwrap(),
    ]);
    protect.extend(git_places::git_directory(&["store"], Mode::Block).unwrap());
    let rules = Rules {
        protect,
        ..Rules::default()
    };
    let bench = Bench::guarded(rules);
    let evil = "[core]\n\tfsmonitor = evil\n";
    // Not there yet: neither made, nor moved there, nor reached by a link.
    bench.make_dir("conf").unwrap();
    denied(bench.put("conf/git", evil));
    bench.put("x", evil).unwrap();
    denied(bench.rename("x", "conf/git"));
    denied(bench.link("x", "conf/git"));
    bench.make_dir("evil").unwrap();
    bench.put("evil/git", evil).unwrap();
    std::fs::remove_dir(bench.host("conf")).unwrap();
    denied(bench.rename("evil", "conf"));
    denied(bench.symlink(c"evil", "conf"));
    // Git's own way of writing them stays.
    bench.make_dir("conf").unwrap();
    bench.put("conf/git.lock", "[user]\n\tname = a\n").unwrap();
    bench.rename("conf/git.lock", "conf/git").unwrap();
    denied(bench.edit("conf/git", evil));
    bench.put("conf/git.lock", evil).unwrap();
    denied(bench.rename("conf/git.lock", "conf/git"));
    assert_eq!(read_host(bench.host("conf/git")), "[user]\n\tname = a\n");

    for parent in ["", "tree/"] {
        if !parent.is_empty() {
            bench.make_dir("tree").unwrap();
        }
        let at = |below: &str| format!("{parent}{below}");
        bench.make_dir(&at("tools")).unwrap();
        denied(bench.make_dir(&at("tools/hooks")));
        denied(bench.symlink(c"../evil", &at("tools/hooks")));
        denied(bench.rename("evil", &at("tools/hooks")));
    }

    std::fs::create_dir_all(bench.host("store/hooks")).unwrap();
    bench.host_write("store/config", "[core]\n\tbare = true\n");
    denied(bench.put("store/hooks/pre-commit", "evil"));
    denied(bench.edit("store/config", evil));
    denied(bench.symlink(c"../evil/git", "store/index"));
    denied(bench.rename("store", "away"));
}

#[test]
fn attack_77_what_other_programs_run_is_said_and_in_block_mode_refused() {
    let paths = [
        ".envrc",
        ".mcp.json",
        "CLAUDE.md",
        "x.code-workspace",
        ".gitlab-ci.yml",
        ".gitattributes",
        "AGENTS.md",
        "opencode.json",
        ".cursorrules",
        ".github/copilot-instructions.md",
    ];
    let folders = [
        ".vscode",
        ".claude",
        ".github/workflows",
        ".idea",
        ".codex",
        ".gemini",
        ".opencode",
        ".kiro",
    ];
    let reporting = bench(Level::Standard);
    std::fs::create_dir(reporting.host(".github")).unwrap();
    for path in paths {
        reporting.put(path, "agent's").unwrap();
    }
    for folder in folders {
        reporting.make_dir(folder).unwrap();
        reporting.put(&format!("{folder}/f"), "agent's").unwrap();
    }
    let said = reporting.said();
    assert!(said.iter().all(|(_, _, refused)| !refused), "{said:?}");
    for path in paths.into_iter().chain(folders) {
        assert!(
            said.iter().any(|(_, said, _)| said == path),
            "{path} is not in {said:?}"
        );
    }

    let blocking = bench(Level::Block);
    std::fs::create_dir(blocking.host(".github")).unwrap();
    std::fs::create_dir(blocking.host(".vscode")).unwrap();
    blocking.host_write(".vscode/tasks.json", "the host's");
    for path in paths {
        denied(blocking.put(path, "agent's"));
        assert!(!blocking.host(path).exists());
    }
    for folder in folders.into_iter().filter(|folder| *folder != ".vscode") {
        denied(blocking.make_dir(folder));
    }
    denied(blocking.put(".gitmodules", "agent's"));
    blocking.host_write(".gitmodules.lock", "the host's");
    denied(blocking.edit(".gitmodules.lock", "agent's"));
    denied(blocking.unlink(".gitmodules.lock"));
    denied(blocking.put(".vscode/launch.json", "agent's"));
    denied(blocking.edit(".vscode/tasks.json", "agent's"));
    denied(blocking.rename(".vscode", "x"));
    blocking.make_dir("x").unwrap();
    denied(blocking.rename("x", ".idea"));
}

#[test]
fn without_protection_everything_is_the_guests() {
    let bench = bench(Level::Off);
    bench.put(".git/hooks/post-merge", "mine").unwrap();
    bench.edit(".git/config", "[alias]").unwrap();
    bench.rename(".git", "x").unwrap();
    assert_eq!(bench.said(), []);
}

#[test]
fn in_report_mode_everything_is_done_and_said() {
    let bench = bench(Level::Report);
    bench.put(".git/hooks/post-merge", "mine").unwrap();
    bench
        .put(".git/config.lock", "[alias]\n\tx = !y\n")
        .unwrap();
    bench.rename(".git/config.lock", ".git/config").unwrap();
    assert_eq!(read_host(bench.host(".git/config")), "[alias]\n\tx = !y\n");
    bench.rename(".git", "x").unwrap();
    let said = bench.said();
    for (action, path) in [
        ("create", ".git/hooks/post-merge"),
        ("configure", ".git/config"),
    ] {
        let event = (action.to_owned(), path.to_owned(), false);
        assert!(said.contains(&event), "{said:?}");
    }
}

#[test]
fn a_rule_of_ones_own_protects_what_is_not_there_yet() {
    let own = sbx_workspace::protect::added("/deploy/", Mode::Block).unwrap();
    let bench = Bench::guarded(Rules {
        protect: vec![own],
        ..Rules::default()
    });
    denied(bench.make_dir("deploy"));
    bench.make_dir("x").unwrap();
    denied(bench.rename("x", "deploy"));
    denied(bench.symlink(c"x", "deploy"));
    bench.put("deployed", "").unwrap();
    assert_eq!(bench.mkdir(ROOT, c"y", 0o755).map(|_| ()).ok(), Some(()));
}

#[test]
fn the_copy_of_gits_settings_is_nobodys_while_it_is_made() {
    let bench = bench(Level::Standard);
    bench.host_write(".git/.sbx-copy-1", "the host's");
    assert_eq!(errno(bench.node(".git/.sbx-copy-1")), libc::ENOENT);
    denied(bench.put(".git/.sbx-copy", "mine"));
    denied(bench.put(".git/.sbx-copy-2", "mine"));
}

/// A share that is killed between giving its copy a name and a place leaves it.
fn leave_copy(bench: &Bench, folder: &str) -> PathBuf {
    let new = bench.host(folder).join(".sbx-copy-new");
    std::fs::write(&new, "[user]\n\tname = a\n").unwrap();
    let inode = std::fs::metadata(&new).unwrap().ino();
    let left = bench.host(folder).join(format!(".sbx-copy-{inode:x}"));
    std::fs::rename(new, &left).unwrap();
    left
}

#[test]
fn a_copy_that_a_killed_share_left_goes_at_the_next_start_or_change_and_no_other_file_does() {
    let bench = bench(Level::Standard);
    bench.host_write(".git/.sbx-copy", "the host's");
    bench.host_write(".git/.sbx-copy-1", "the host's");
    let left = leave_copy(&bench, ".git");
    bench
        .put(".git/config.lock", "[user]\n\tname = a\n")
        .unwrap();
    bench.rename(".git/config.lock", ".git/config").unwrap();
    assert_eq!(read_host(bench.host(".git/config")), "[user]\n\tname = a\n");
    assert!(!left.exists() && !bench.host(".git/config.lock").exists());

    let left = [leave_copy(&bench, ""), leave_copy(&bench, ".git")];
    let rules = Rules {
        protect: standard(Level::Standard),
        ..Rules::default()
    };
    bench
        .again()
        .guarded(rules, None)
        .unwrap()
        .remove_left_over();
    assert_eq!(left.map(|left| left.exists()), [false, false]);
    for others in [".git/.sbx-copy", ".git/.sbx-copy-1"] {
        assert_eq!(read_host(bench.host(others)), "the host's");
    }
}

#[test]
fn a_file_is_written_whose_other_name_lies_in_a_directory_that_the_guest_has_forgotten() {
    let bench = bench(Level::Standard);
    bench.make_dir("d").unwrap();
    let node = bench.put("a", "a").unwrap();
    bench.link("a", "d/b").unwrap();
    let handle = bench.open(node, libc::O_RDWR).unwrap();
    bench.node("d/b").unwrap();
    let directory = bench.node("d").unwrap();
    bench.share.forget(agent(), directory, u64::MAX);
    bench.write(node, handle, "b", 0, 0).unwrap();
    assert_eq!(read_host(bench.host("a")), "b");
}
