//! Tools that make and remove many files, with host and guest at work on one tree in turn.

use crate::clients::installed;
use crate::setting::{Setting, cache};
use sbx_e2e::debian::Debian;
use sbx_e2e::installation::run;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a build's files the way Maven and javac do, and checks what the other side made.
const BUILD: &str = include_str!("build.py");

struct Stage {
    setting: Setting,
    workspace: PathBuf,
    /// Programs in many languages, and npm, which the guest reads.
    programs: PathBuf,
    npm: PathBuf,
}

impl Stage {
    fn set() -> Self {
        let setting = super::quick();
        let installation = &setting.installation;
        let workspace = installation.folder("work-builds").unwrap();
        let debian = Debian::new(installation, &cache()).unwrap();
        let npm = installation.folder("npm").unwrap();
        // The checkout may lie where the installation's user cannot look.
        let copied = Command::new("cp")
            .arg("-rL")
            .arg(installed().join("node/node_modules/npm/."))
            .arg(&npm)
            .status();
        assert!(copied.unwrap().success());
        let read_only = |folder: &Path| format!("{}:ro", folder.display());
        let (work, programs) = (workspace.display().to_string(), read_only(&debian.folder));
        let create = [
            "create",
            "shell",
            &work,
            &programs,
            &read_only(&npm),
            "--name",
            "builds",
            "--memory",
            "2g",
            "--cpus",
            "2",
        ];
        installation.sbx(create).success().unwrap();
        Self {
            setting,
            workspace,
            programs: debian.tree,
            npm,
        }
    }

    fn guest(&self, line: &str) -> String {
        let line = format!("set -e; {line}");
        let seen = self.setting.inside("builds", &line);
        seen.trim().to_owned()
    }

    /// As the installation's user, in the workspace.
    fn host(&self, line: &str) -> String {
        let line = format!("set -e; {line}");
        let installation = &self.setting.installation;
        let mut command = installation.program("/bin/bash", ["-c", &line]);
        command.current_dir(&self.workspace);
        run(command, b"").success().unwrap().trim().to_owned()
    }

    /// What the host did is seen inside after this.
    fn settle() {
        std::thread::park_timeout(std::time::Duration::from_secs(1));
    }

    fn folder(&self, name: &str) -> PathBuf {
        let path = self.workspace.join(name);
        std::fs::create_dir(&path).unwrap();
        self.setting.installation.own(&path).unwrap();
        path
    }

    fn write(&self, path: &Path, text: &str) {
        self.setting
            .installation
            .write(path, text.as_bytes())
            .unwrap();
    }
}

#[test]
fn git_npm_cargo_and_a_java_like_build_work_from_both_sides_in_turn() {
    let stage = Stage::set();
    let mut start = std::time::Instant::now();
    let mut took = |what: &str| {
        println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
        start = std::time::Instant::now();
    };
    git(&stage);
    took("git");
    java_like(&stage);
    took("java-like");
    npm(&stage);
    took("npm");
    cargo(&stage);
    took("cargo");
}

/// Whoever commits, merges or collects garbage, the other finds it whole and has nothing to commit.
fn git(stage: &Stage) {
    let identity = "export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t.example GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t.example; cd repo";
    let (guest, host) = (
        |line: &str| stage.guest(&format!("{identity}; {line}")),
        |line: &str| stage.host(&format!("{identity}; {line}")),
    );
    stage.folder("repo");
    host(
        "git init -q -b main; for n in $(seq 100); do mkdir -p d$((n % 7)); echo $n > d$((n % 7))/f$n; done; git add .; git commit -qm first",
    );
    Stage::settle();
    assert_eq!(guest("git status --porcelain; git ls-files | wc -l"), "100");
    guest(
        "git switch -qc guest; for n in $(seq 3); do echo guest$n > d1/guest$n; git add .; git commit -qm guest$n; done",
    );
    assert_eq!(host("git status --porcelain"), "");
    host(
        "git switch -q main; echo host > d2/host; git rm -q d3/f10; git add .; git commit -qm host; git merge -q --no-edit guest",
    );
    Stage::settle();
    assert_eq!(guest("git status --porcelain; git ls-files | wc -l"), "103");
    guest("git gc -q --prune=now; git switch -qc late; git mv d1 moved; git commit -qm moved");
    assert_eq!(
        host("git fsck --strict --no-dangling 2>&1; git status --porcelain; ls moved | wc -l"),
        "18"
    );
    host("git switch -q main; git repack -adq; git worktree add -q ../tree late");
    Stage::settle();
    assert_eq!(
        guest(
            "git fsck --strict --no-dangling 2>&1; git status --porcelain; cd ../tree; git status --porcelain; git log --oneline late | wc -l"
        ),
        "7"
    );
    guest("git worktree remove ../tree; git stash list; git clone -q . ../clone");
    assert_eq!(
        host("ls ..; git -C ../clone status --porcelain; git -C ../clone fsck 2>&1"),
        "clone\nrepo"
    );
}

/// Classes that are written under another name and renamed, an archive of them, and all of it removed and made again.
fn java_like(stage: &Stage) {
    let folder = stage.folder("java");
    stage.write(&folder.join("build.py"), BUILD);
    stage.guest("cd java; python3 build.py make 0");
    stage.host("cd java; /usr/bin/python3 build.py check 0");
    stage.host("cd java; /usr/bin/python3 build.py make 1");
    Stage::settle();
    stage.guest("cd java; python3 build.py check 1; python3 build.py make 2");
    stage.host("cd java; /usr/bin/python3 build.py check 2");
}

/// One side installs, the other reads, changes and removes, and the first installs again.
fn npm(stage: &Stage) {
    let folder = stage.folder("npm");
    let manifest = |name: &str, rest: &str| {
        format!("{{\"name\": \"{name}\", \"version\": \"1.0.0\", \"main\": \"index.js\"{rest}}}")
    };
    for (name, rest) in [
        ("left", ""),
        ("right", ", \"bin\": {\"right\": \"index.js\"}"),
    ] {
        let package = folder.join(name);
        std::fs::create_dir(&package).unwrap();
        stage.write(&package.join("package.json"), &manifest(name, rest));
        let text = format!("#!/usr/bin/env node\nmodule.exports = '{name}'\n");
        stage.write(&package.join("index.js"), &text);
        for number in 0..100 {
            let part = format!("part{number}.js");
            stage.write(&package.join(part), &format!("{number}\n"));
        }
        stage.setting.installation.own_all(&package).unwrap();
    }
    let rest = ", \"dependencies\": {\"left\": \"file:left-1.0.0.tgz\", \"right\": \"file:right-1.0.0.tgz\"}";
    stage.write(&folder.join("package.json"), &manifest("app", rest));
    let npm = "cd npm; export npm_config_cache=$PWD/cache npm_config_update_notifier=false";
    let install = "npm install --offline --no-audit --no-fund --silent";
    let all = "find node_modules -type f | wc -l; cat node_modules/right/index.js | tail -1; readlink node_modules/.bin/right";
    let seen = "205\nmodule.exports = 'right'\n../right/index.js";
    stage.host(&format!(
        "{npm}; npm pack --silent ./left ./right >/dev/null; {install}"
    ));
    Stage::settle();
    assert_eq!(stage.guest(&format!("cd npm; {all}")), seen);
    stage.guest("cd npm; echo broken > node_modules/left/index.js; rm -r node_modules/right");
    stage.host(&format!(
        "{npm}; ! npm ls --silent; rm -r node_modules/left; npm ci --offline --silent; npm ls"
    ));
    Stage::settle();
    assert_eq!(
        stage.guest(&format!("cd npm; {all}; rm -r node_modules; ls")),
        format!(
            "{seen}\ncache\nleft\nleft-1.0.0.tgz\npackage-lock.json\npackage.json\nright\nright-1.0.0.tgz"
        )
    );
    let (programs, own) = (stage.programs.display(), stage.npm.display());
    stage.guest(&format!(
        "sudo ln -sfn {programs}/usr/share/nodejs /usr/share/nodejs
         printf '#!/bin/sh\\nLD_LIBRARY_PATH={programs}/usr/lib/x86_64-linux-gnu exec {programs}/usr/bin/node \"$@\"\\n' > /tmp/node
         chmod +x /tmp/node
         {npm}; /tmp/node {own}/bin/npm-cli.js ci --offline --silent"
    ));
    assert_eq!(stage.host(&format!("{npm}; npm ls >&2; {all}")), seen);
    stage.host(&format!(
        "{npm}; rm -r node_modules; {install}; {all}; rm -r cache"
    ));
}

/// The guest edits and runs, the host compiles: a change in the guest is newer than what was built before.
fn cargo(stage: &Stage) {
    let folder = stage.folder("crate");
    let installation = &stage.setting.installation;
    stage.guest("cd crate; mkdir src; printf '[package]\\nname = \"tiny\"\\nedition = \"2024\"\\n[workspace]\\n' > Cargo.toml; echo 'fn main() { println!(\"one\") }' > src/main.rs");
    let build = || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let done = Command::new(cargo)
            .args(["build", "--quiet", "--offline"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_TARGET_DIR")
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        // It ran as us.
        installation.own_all(&folder).unwrap();
        Stage::settle();
    };
    build();
    assert_eq!(stage.guest("cd crate; target/debug/tiny"), "one");
    stage.guest("cd crate; sed -i s/one/two/ src/main.rs");
    build();
    assert_eq!(
        stage.guest("cd crate; target/debug/tiny; rm -r target; ls"),
        "two\nCargo.lock\nCargo.toml\nsrc"
    );
    build();
    assert_eq!(stage.guest("cd crate; target/debug/tiny"), "two");
}
