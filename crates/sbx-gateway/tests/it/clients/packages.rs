//! Package managers and git, against registries that are folders of files.

use std::path::Path;
use std::process::Command;

use sbx_testkit::FileServer;
use sbx_testkit::files::git_repository;

use super::{Job, NAMES, Town, installed, scripts};

/// First line of the page that a denied client gets.
const PAGE: &str = "Blocked by network policy: domain ";

/// Small registries of one package each, all in one folder.
fn registries() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new(installed().join("python/bin/python"))
        .arg(scripts().join("registries.py"))
        .arg(folder.path())
        .args(NAMES)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{text}");
    folder
}

fn secure(folder: &Path) -> FileServer {
    FileServer::start(folder, &NAMES).unwrap()
}

#[test]
fn git_clones_and_pushes() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("hello"), "hello\n").unwrap();
    git_repository(folder.path(), "hello.git", &work).unwrap();
    let server = secure(folder.path());
    // A pack above http.postBuffer is sent in chunks, after a probe.
    Town::of(&server).do_job(&Job {
        script: "set -e
            git clone -q https://$1/git/hello.git clone
            cd clone
            head -c 3000000 /dev/urandom > large
            git add large
            git -c user.name=somebody -c user.email=somebody@example.test commit -qm large
            branch=$(git rev-parse --short HEAD)
            git push -q origin HEAD:refs/heads/$branch
            test $(git ls-remote origin refs/heads/$branch | cut -f1) = $(git rev-parse HEAD)
            echo pushed after $(cat hello)",
        wants: "pushed after hello",
        refusal: PAGE,
        nowhere: "Could not resolve host",
    });
}

#[test]
fn git_lfs_which_is_a_go_program_fetches_a_large_file() {
    let folder = registries();
    let server = secure(folder.path());
    Town::of(&server).do_job(&Job {
        script: "set -e
            git init -q .
            echo 'large filter=lfs diff=lfs merge=lfs -text' > .gitattributes
            size=2000000
            oid=$(head -c $size /dev/zero | sha256sum | cut -d' ' -f1)
            printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%s\\nsize %s\\n' $oid $size > large
            git add -A
            git -c user.name=somebody -c user.email=somebody@example.test commit -qm pointer
            git remote add origin https://$1/git/none
            git config lfs.url https://$1/lfs/$1
            git config lfs.transfer.maxretries 1
            PATH=$PATH:$CLIENTS/debian/usr/bin
            git lfs install --local
            git lfs pull
            test $(wc -c < large) = $size && echo fetched",
        wants: "fetched",
        refusal: "Authorization error",
        nowhere: "no such host",
    });
}

#[test]
fn pip_installs_a_wheel() {
    let folder = registries();
    let server = secure(folder.path());
    Town::of(&server).do_job(&Job {
        script: "set -e
            $CLIENTS/python/bin/pip --isolated install -vv --no-cache-dir --disable-pip-version-check --retries 0 \
                --target t --index-url https://$1/simple sbx-hello
            cd t
            $CLIENTS/python/bin/python -c 'import sbx_hello'",
        wants: "hello from a wheel",
        refusal: "403 Client Error",
        nowhere: "Name or service not known",
    });
}

#[test]
fn npm_installs_a_tarball() {
    let folder = registries();
    let server = secure(folder.path());
    Town::of(&server).do_job(&Job {
        script: "set -e
            npm install --no-fund --no-audit --no-update-notifier --fetch-retries=0 --registry https://$1/npm/$1/ sbx-hello
            node node_modules/sbx-hello/hello.js",
        wants: "hello from a tarball",
        refusal: "403",
        nowhere: "ENOTFOUND",
    });
}

#[test]
fn cargo_fetches_from_a_sparse_registry() {
    let folder = registries();
    let server = secure(folder.path());
    Town::of(&server).do_job(&Job {
        script: "set -e
            mkdir src
            echo 'fn main() {}' > src/main.rs
            printf '[package]\\nname = \"job\"\\nedition = \"2021\"\\n[dependencies]\\nsbx-hello = { version = \"1\", registry = \"here\" }\\n' > Cargo.toml
            export CARGO_HOME=$PWD/home CARGO_NET_RETRY=0 CARGO_REGISTRIES_HERE_INDEX=sparse+https://$1/cargo/$1/
            cargo fetch
            cat home/registry/src/*/sbx-hello-1.0.0/src/lib.rs",
        wants: "hello from a crate",
        refusal: PAGE,
        nowhere: "Could not resolve host",
    });
}

const APT: &str = "set -e
    mkdir -p lists/partial cache/archives/partial
    touch status
    echo \"deb [trusted=yes] $SCHEME://$1/debian stable main\" > sources.list
    cat > apt.conf <<END
Dir::Etc::Parts \"/dev/null\";
Dir::Etc::SourceList \"$PWD/sources.list\";
Dir::Etc::SourceParts \"/dev/null\";
Dir::State::Lists \"$PWD/lists\";
Dir::State::status \"$PWD/status\";
Dir::Cache \"$PWD/cache\";
APT::Sandbox::User \"\";
APT::Update::Post-Invoke \"\";
APT::Update::Error-Mode \"any\";
Acquire::Retries 0;
Acquire::Languages \"none\";
END
    export APT_CONFIG=$PWD/apt.conf
    apt-get -q update
    apt-get -q download sbx-hello
    dpkg-deb --field sbx-hello_1.0_all.deb Description";

#[test]
fn apt_updates_and_downloads_over_https() {
    let folder = registries();
    let server = secure(folder.path());
    Town::of(&server).do_job(&Job {
        script: &format!("SCHEME=https\n{APT}"),
        wants: "hello from a package",
        refusal: "403  Forbidden",
        nowhere: "Could not resolve",
    });
}

#[test]
fn apt_updates_and_downloads_over_plain_http() {
    let folder = registries();
    let server = FileServer::start(folder.path(), &[]).unwrap();
    Town::of(&server).do_job(&Job {
        script: &format!("SCHEME=http\n{APT}"),
        wants: "hello from a package",
        refusal: "403  Forbidden",
        nowhere: "Could not resolve",
    });
}
