//! What runs on the host is not written from inside, what is hidden is not seen, and git works all the same
//! (attack cases 76 and 77).

use crate::setting::Setting;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Git's daily work in block mode: new repositories, clones, commits, branches, worktrees and submodules.
const GIT: &str = r"
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=protocol.file.allow GIT_CONFIG_VALUE_0=always
git init -q -b main lib
cd lib; echo lib > lib.txt; git add .; git commit -q -m lib; cd ..
git init -q -b main app
cd app
git config user.name agent
git config pull.rebase true
echo app > app.txt; git add .; git commit -q -m app
git checkout -q -b work; echo more >> app.txt; git commit -q -a -m more
git checkout -q main; git merge -q --no-ff -m merge work
git worktree add -q ../tree work
cd ../tree; git status --short; echo tree > tree.txt; git add .; git commit -q -m tree; cd ../app
git worktree remove ../tree
git gc -q
cd ..
git clone -q app copy
cd copy; git log --oneline | wc -l; git remote add other ../lib; git fetch -q other; cd ..
rm -rf copy lib/nothing
echo done";

/// Submodules write `.gitmodules`, which the level `block` protects; git's own way of writing it passes.
const SUBMODULE: &str = r"
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=protocol.file.allow GIT_CONFIG_VALUE_0=always
cd app
git submodule --quiet add ../lib vendor/lib
git commit -q -m submodule
cat vendor/lib/lib.txt
git submodule status | wc -l
cat vendor/lib/.git";

/// Each line must fail, and change nothing.
const ATTACKS: &[&str] = &[
    "echo evil > .git/hooks/pre-commit",
    "echo evil > .git/hooks/host",
    "mkdir .githooks",
    "rm .git/hooks/host",
    "chmod +x .git/hooks/host",
    "sudo sh -c 'echo evil > .git/hooks/post-merge'",
    "mv .git away",
    "mkdir -p new/hooks && echo evil > new/hooks/post-merge && mv new plain/.git",
    "echo evil > new/x; ln new/x .git/hooks/post-merge",
    "ln -s /tmp/evil .git/hooks/post-merge",
    "ln -s ../new plain/.git",
    "echo '[alias]' >> .git/config",
    "git config core.hooksPath /tmp/evil",
    "git config core.fsmonitor ./evil",
    "git config alias.st '!evil'",
    "git config include.path ../evil",
    "echo 'gitdir: new' > plain/.git",
    "echo evil > .envrc",
    "mkdir .vscode",
    "mkdir -p .github/workflows",
    "echo evil > CLAUDE.md",
    "echo x > .env",
    "mv new/x .env",
    "cat .env",
    "ls .env",
    "git show :.env > .env",
    "echo evil > tracked.key",
    "rm tracked.key",
];

fn host_git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-C"])
        .arg(folder)
        .args(["-c", "user.name=host", "-c", "user.email=h@b"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn attack_76_77_the_host_runs_nothing_that_was_written_inside_and_git_works() {
    let setting = Setting::ordinary("deny-all");
    let workspace = create(&setting);
    attacks_fail(&setting, &workspace);
    git_works(&setting, &workspace);
    what_was_tried_is_said(&setting);
}

/// A repository of the host's with a hook, settings and a secret; and a sandbox for it.
fn create(setting: &Setting) -> PathBuf {
    let workspace = setting.installation.folder("guarded").unwrap();
    for (name, content) in [
        (".env", "SECRET=host\n"),
        ("tracked.key", "committed\n"),
        (".gitignore", ".env\n"),
        ("a.txt", "a\n"),
    ] {
        let path = workspace.join(name);
        setting
            .installation
            .write(&path, content.as_bytes())
            .unwrap();
    }
    host_git(&workspace, &["init", "-q", "-b", "main"]);
    host_git(&workspace, &["add", "."]);
    host_git(&workspace, &["commit", "-q", "-m", "host"]);
    host_git(&workspace, &["config", "core.hooksPath", ".githooks"]);
    let tracked = workspace.join("tracked.key");
    setting
        .installation
        .write(&tracked, b"SECRET=changed\n")
        .unwrap();
    std::fs::create_dir(workspace.join("plain")).unwrap();
    setting
        .installation
        .write(&workspace.join(".git/hooks/host"), b"host")
        .unwrap();
    setting.installation.own_all(&workspace).unwrap();
    let path = workspace.display().to_string();
    let create = [
        "create",
        "shell",
        &path,
        "--name",
        "guarded",
        "--memory",
        "1g",
        "--protect",
        "block",
        "--hide",
        ".env",
        "--hide",
        "*.key",
    ];
    setting.installation.sbx(create).success().unwrap();
    workspace
}

fn attacks_fail(setting: &Setting, workspace: &Path) {
    let config = std::fs::read(workspace.join(".git/config")).unwrap();
    for line in ATTACKS {
        let tried = setting.installation.inside("guarded", line);
        assert!(!tried.ok(), "{line}: {tried}");
    }
    assert_eq!(
        std::fs::read(workspace.join(".git/config")).unwrap(),
        config
    );
    let hooks = std::fs::read_dir(workspace.join(".git/hooks"))
        .unwrap()
        .flatten();
    let hooks = hooks.filter(|entry| entry.path().extension().is_none());
    assert_eq!(hooks.count(), 1, "the host's own");
    assert_eq!(
        std::fs::read_to_string(workspace.join(".env")).unwrap(),
        "SECRET=host\n"
    );
    for absent in [
        ".envrc",
        ".vscode",
        ".github/workflows",
        "CLAUDE.md",
        "plain/.git/hooks",
    ] {
        assert!(!workspace.join(absent).exists(), "{absent}");
    }
    assert_eq!(
        setting.inside("guarded", "ls -A | grep -c '^.env'; true"),
        "0\n"
    );
}

fn git_works(setting: &Setting, workspace: &Path) {
    // A hidden file that git knows is neither deleted nor changed to git, and says what git has.
    let seen = "git status --short -- tracked.key; cat tracked.key; ls tracked.key";
    assert_eq!(setting.inside("guarded", seen), "committed\ntracked.key\n");
    let host = host_git(workspace, &["status", "--short", "--", "tracked.key"]);
    assert_eq!(host, " M tracked.key\n");
    let worked = setting.inside("guarded", GIT);
    assert!(worked.ends_with("done\n"), "{worked}");
    let submodule = setting.inside("guarded", SUBMODULE);
    assert_eq!(submodule, "lib\n1\ngitdir: ../../.git/modules/vendor/lib\n");
    // The host's git agrees with what was done inside.
    let app = workspace.join("app");
    assert_eq!(host_git(&app, &["status", "--short"]), "");
    assert_eq!(
        host_git(&app, &["config", "--local", "user.name"]),
        "agent\n"
    );
    host_git(&app, &["fsck", "--strict"]);
}

fn what_was_tried_is_said(setting: &Setting) {
    let inspect = setting.inspect("guarded");
    assert_eq!(inspect["guard"]["protect"], "block");
    let events = inspect["guard"]["events"].as_array().unwrap();
    let about = |action: &str, path: &str| {
        events.iter().any(|event| {
            event["action"] == action && event["path"] == path && event["mode"] == "block"
        })
    };
    assert!(about("create", ".git/hooks/pre-commit"), "{events:#?}");
    assert!(
        about("configure", ".git/config") && about("create", ".envrc"),
        "{events:#?}"
    );
    assert!(about("create", ".env"), "{events:#?}");

    // Said at the end of `run`, whenever it was tried, and once.
    let run = |line: &str| {
        let words = ["run", "--name", "guarded", "--", "-c", line];
        setting.installation.sbx(words)
    };
    let first = run("true");
    assert!(first.ok() && first.stderr.contains("pre-commit"), "{first}");
    let second = run("echo evil > .git/hooks/post-rewrite; true");
    assert!(second.ok(), "{second}");
    assert!(second.stderr.contains("1 refused, 0 made"), "{second}");
    assert!(
        second.stderr.contains(".git/hooks/post-rewrite"),
        "{second}"
    );

    // Also of a sandbox that goes with it.
    let run = setting.installation.sbx([
        "run",
        "--name",
        "guarded",
        "--rm",
        "--",
        "-c",
        "echo evil > .git/hooks/post-applypatch; true",
    ]);
    assert!(run.ok(), "{run}");
    assert!(run.stderr.contains("1 refused, 0 made"), "{run}");
    assert!(run.stderr.contains(".git/hooks/post-applypatch"), "{run}");
}

/// Each line must fail, and change nothing: places from which the host's git takes hooks and settings because files that
/// were there before say so.
const ELSEWHERE: &[&str] = &[
    "printf '[core]\n\tfsmonitor = ./evil\n' >> .gitconfig",
    "git config -f .gitconfig core.fsmonitor ./evil",
    "git config -f later core.fsmonitor ./evil",
    "echo evil > later",
    "mv evil later",
    "mkdir nested/hk",
    "mkdir tree/.githooks",
    "ln -s ../new tree/.githooks",
    "cp evil scripts/check",
    "rm -f scripts/check && cp evil scripts/check",
    // Elsewhere the same settings and hooks lead elsewhere.
    "mkdir moved && mv .git moved/.git",
    "mv nested moved",
];

#[test]
fn attack_76_the_host_runs_nothing_from_where_its_settings_were_told_to_look() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.installation.folder("elsewhere").unwrap();
    let mark = workspace.join("mark");
    let repository = |below: &str| {
        let path = workspace.join(below);
        std::fs::create_dir_all(&path).unwrap();
        host_git(&path, &["init", "-q", "-b", "main"]);
        host_git(&path, &["commit", "-q", "--allow-empty", "-m", "first"]);
        path
    };
    let top = repository(".");
    host_git(&top, &["config", "include.path", "../.gitconfig"]);
    host_git(
        &top,
        &["config", "includeIf.onbranch:main.path", "../later"],
    );
    // Where that is depends on the host's users.
    let of_somebody = [
        "config",
        "includeIf.onbranch:other.path",
        "~nobody-here/settings",
    ];
    host_git(&top, &of_somebody);
    std::fs::write(top.join(".gitconfig"), "[core]\n\thooksPath = .githooks\n").unwrap();
    host_git(&top, &["worktree", "add", "-q", "tree"]);
    let nested = repository("nested");
    host_git(&nested, &["config", "core.hooksPath", "hk"]);
    std::fs::create_dir(top.join("scripts")).unwrap();
    std::fs::write(top.join("scripts/check"), "#!/bin/sh\n").unwrap();
    let hook = nested.join(".git/hooks/post-commit");
    std::os::unix::fs::symlink("../../../scripts/check", hook).unwrap();
    let evil = format!("#!/bin/sh\ntouch {}\n", mark.display());
    std::fs::write(top.join("evil"), evil).unwrap();
    setting.installation.own_all(&workspace).unwrap();
    let path = workspace.display().to_string();
    let create = [
        "create",
        "shell",
        &path,
        "--name",
        "elsewhere",
        "--memory",
        "1g",
    ];
    let created = setting.installation.sbx(create);
    let notice = "nobody can tell where ~nobody-here/settings is";
    assert!(created.ok() && created.stderr.contains(notice), "{created}");
    for line in ELSEWHERE {
        let line = format!("chmod +x evil; {line}");
        let tried = setting.installation.inside("elsewhere", &line);
        assert!(!tried.ok(), "{line}: {tried}");
    }
    // The host works in each of them, with what was written inside.
    for below in [".", "tree", "nested"] {
        let path = workspace.join(below);
        host_git(&path, &["status", "--short"]);
        host_git(&path, &["commit", "-q", "--allow-empty", "-m", "host"]);
    }
    assert!(!mark.exists());
}

/// Protected names that a repository has: what a checkout inside does about them in block mode.
#[test]
fn in_block_mode_a_checkout_leaves_out_protected_names_and_says_so() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.installation.folder("blocked").unwrap();
    host_git(&workspace, &["init", "-q", "-b", "main"]);
    for name in ["CLAUDE.md", ".gitattributes", "plain"] {
        std::fs::write(workspace.join(name), "* text\n").unwrap();
    }
    host_git(&workspace, &["add", "."]);
    host_git(&workspace, &["commit", "-q", "-m", "all"]);
    setting.installation.own_all(&workspace).unwrap();
    let path = workspace.display().to_string();
    let create = [
        "create",
        "shell",
        &path,
        "--name",
        "blocked",
        "--memory",
        "1g",
        "--protect",
        "block",
    ];
    setting.installation.sbx(create).success().unwrap();
    let clone = setting
        .installation
        .inside("blocked", "git clone -q . copy");
    assert!(
        !clone.ok() && clone.stderr.contains("unable to create file CLAUDE.md"),
        "{clone}"
    );
    assert!(clone.stderr.contains("checkout failed"), "{clone}");
    // The rest is there, and the repository whole; whoever says that he does without them has a clean one.
    let rest = "cd copy; cat plain; git fsck --strict; git sparse-checkout set --no-cone '/*' '!CLAUDE.md' \
        '!.gitattributes'; git reset -q --hard; git status --short; ls -A";
    assert_eq!(setting.inside("blocked", rest), "* text\n.git\nplain\n");
    let inspect = setting.inspect("blocked");
    let events = inspect["guard"]["events"].as_array().unwrap();
    for path in ["copy/CLAUDE.md", "copy/.gitattributes"] {
        let said = events
            .iter()
            .any(|event| event["path"] == path && event["mode"] == "block");
        assert!(said, "{path}: {events:#?}");
    }
}

/// A container with the workspace, made of the machine's own files: no registry is asked.
const HELD: &str = "set -e; (cd /; tar -ch bin/sh bin/mkdir bin/cat bin/sleep $(ldd /bin/mkdir /bin/cat | grep -o '/[^ ]*' | \
    grep -v : | sort -u | sed 's|^/||') | docker import - tiny >/dev/null); \
    docker run -d --name held --network none -v $PWD:/w tiny /bin/sleep 600 >/dev/null";

#[test]
fn masked_directories_are_on_the_sandboxs_own_disk_and_outlive_a_restart() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.installation.folder("masked").unwrap();
    std::fs::create_dir_all(workspace.join("pkg")).unwrap();
    std::fs::create_dir_all(workspace.join("node_modules")).unwrap();
    for (name, content) in [
        ("node_modules/host", "host"),
        ("pkg/package.json", "{}"),
        ("Cargo.toml", ""),
    ] {
        let path = workspace.join(name);
        setting
            .installation
            .write(&path, content.as_bytes())
            .unwrap();
    }
    setting.installation.own_all(&workspace).unwrap();
    let path = workspace.display().to_string();
    let create = [
        "create",
        "shell",
        &path,
        "--name",
        "masked",
        "--memory",
        "1g",
        "--mask",
        "node_modules",
        "--mask",
        "target",
    ];
    setting.installation.sbx(create).success().unwrap();
    let write = "set -e; ls -A node_modules; for d in node_modules pkg/node_modules target; do \
        echo $d > $d/f; mkdir $d/.bin; ln -s ../f $d/.bin/f; done; stat -f -c %T node_modules; rmdir target 2>&1 || true; \
        mv pkg moved 2>&1 || true; ls -A";
    let said = setting.inside("masked", write);
    assert!(
        said.ends_with("Cargo.toml\nnode_modules\npkg\ntarget\n"),
        "{said}"
    );
    assert!(
        !said.contains("fuse") && said.matches("busy").count() == 2,
        "{said}"
    );
    let names = |folder: &str| {
        let entries = std::fs::read_dir(workspace.join(folder)).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    // The host has what it had.
    assert_eq!(names("node_modules"), ["host"]);
    assert_eq!(names("pkg"), ["package.json"]);
    assert_eq!(names("."), ["Cargo.toml", "node_modules", "pkg"]);

    // What appears later, made by a program or by the host, in one go or as cargo does it, or in a container that runs.
    setting.inside("masked", HELD);
    let late = "set -e; for i in $(seq 1 20); do mkdir -p n$i/node_modules/x; echo $i > n$i/node_modules/x/f; done; \
        mkdir -p crate/targetXYZ; touch crate/targetXYZ/CACHEDIR.TAG; \
        mv -T crate/targetXYZ crate/target 2>/dev/null && exit 1; echo built > crate/target/f; \
        mkdir -p copied/made/in; echo moved > copied/made/in/f; mv copied/made copied/node_modules; \
        cat copied/node_modules/in/f; stat -f -c %T n7/node_modules crate/target copied/node_modules; \
        (cd n3 && git init -q && git status --short); \
        docker exec held /bin/sh -c 'mkdir -p /w/c/node_modules/in && cat /w/n9/node_modules/x/f'; \
        ls c/node_modules; docker rm -f held >/dev/null";
    let said = setting.inside("masked", late);
    assert!(
        said.starts_with("moved\n") && !said.contains("fuse"),
        "{said}"
    );
    std::fs::create_dir_all(workspace.join("host/node_modules")).unwrap();
    let path = workspace.join("host/node_modules/f");
    setting.installation.write(&path, b"the host's").unwrap();
    setting.installation.own_all(&workspace).unwrap();
    let looked = "mkdir -p host/node_modules/own; ls host/node_modules";
    assert_eq!(setting.inside("masked", looked), "own\n");
    assert_eq!(names("n20"), Vec::<std::ffi::OsString>::new());
    assert_eq!(names("crate"), ["targetXYZ"]);
    assert_eq!(names("host/node_modules"), ["f"]);
    setting
        .installation
        .sbx(["stop", "masked"])
        .success()
        .unwrap();
    // The read that waits for more is a sleep, not load.
    let again = "sudo grep -h State: /proc/1/task/*/status | grep -c D || true; cat node_modules/f pkg/node_modules/.bin/f target/f n20/node_modules/x/f crate/target/f";
    assert_eq!(
        setting.inside("masked", again),
        "0\nnode_modules\npkg/node_modules\ntarget\n20\nbuilt\n"
    );
}

#[test]
fn a_list_of_hidden_names_that_cannot_be_read_is_an_error_and_nothing_is_made() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.installation.folder("listed").unwrap();
    setting
        .installation
        .write(&workspace.join(".sbxignore"), b".env\n[broken\n")
        .unwrap();
    let path = workspace.display().to_string();
    let create = [
        "create", "shell", &path, "--name", "listed", "--memory", "1g",
    ];
    let refused = setting.installation.sbx(create);
    assert!(
        !refused.ok() && refused.stderr.contains("line 2"),
        "{refused}"
    );
    assert!(refused.stderr.contains("try: "), "{refused}");
    assert_eq!(
        setting.installation.sbx(["ls", "-q"]).success().unwrap(),
        ""
    );
}
