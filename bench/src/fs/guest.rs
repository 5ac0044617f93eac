//! `bench fs --guest`: what programs in a guest wait for. The share and QEMU's virtiofsd in C, each with a copy of one
//! repository, are devices of the same machine; packages are installed where `node_modules` is masked, on the share, and
//! on the machine's own disk.
//!
//! Without virtualisation most of the time is the emulated guest's own, the same on every side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use sbx_e2e::Installation;

use super::AGENT;
use super::server::{Server, available};
use crate::figure::Figure;
use crate::front;
use crate::tool::{cache, output};

/// Turns of each side.
const ROUNDS: usize = 3;
/// Files of the repository.
const FOLDERS: usize = 500;
const FILES_EACH: usize = 100;
/// Packages that are installed, and files of each.
const PACKAGES: usize = 40;
const PARTS: usize = 100;
/// What the peer has open besides, git's own files among it.
const SPARE: usize = 3000;
/// Name of the server in C among those of the benchmark, and what its device is called inside.
const PEER: &str = "virtiofsd-c";
/// What is installed, inside.
const PACKED: &str = "/tmp/packed";
/// A folder on the machine's own disk.
const OWN: &str = "/home/agent/own";

/// Seconds by place.
type Seconds = BTreeMap<&'static str, Vec<f64>>;

pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let root = tempfile::Builder::new()
        .prefix("sbx-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let installation = Installation::new(root.path(), &cache("")?, None)?;
    let work = installation.folder("work")?;
    eprintln!("under emulation this takes half an hour");
    let measured = measure(&installation, root.path(), &work);
    installation.tear_down();
    measured
}

fn measure(installation: &Installation, root: &Path, work: &Path) -> Result<Vec<Figure>, String> {
    let repository = work.join("repository");
    let folders = folders();
    make_repository(&repository, folders)?;
    let npm = put_npm(work)?;
    let peer = Peer::start(root, &repository)?;
    let front = front::put(root, peer.as_ref().map(Peer::device).unwrap_or_default())?;
    front::start_daemon(installation, &front)?;
    let shown = work.display().to_string();
    let mask = ["--mask", "masked/node_modules"];
    let create = [
        "create", "shell", "--name", "bench", "--memory", "2g", "--cpus", "2", &shown,
    ];
    installation.sbx(create.into_iter().chain(mask)).success()?;
    let guest = Guest { installation, work };
    let thousands = folders * FILES_EACH / 1000;
    let mut figures = Vec::new();
    if peer.is_some() {
        figures.push(guest.git_status(&format!("git_status_{thousands}k_s"))?);
    }
    if npm {
        figures.extend(guest.npm_installs()?);
    }
    Ok(figures)
}

/// A repository of many files, in which nothing is to be committed.
fn make_repository(folder: &Path, folders: usize) -> Result<(), String> {
    let fail = |error: std::io::Error| error.to_string();
    for number in 0..folders {
        let inner = folder.join(format!("d{number}"));
        std::fs::create_dir_all(&inner).map_err(fail)?;
        for file in 0..FILES_EACH {
            std::fs::write(inner.join(format!("f{file}")), format!("{number} {file}\n"))
                .map_err(fail)?;
        }
    }
    let place = folder.display().to_string();
    // Nothing is packed in the background.
    let with = [
        "-c",
        "user.name=b",
        "-c",
        "user.email=b@b.example",
        "-c",
        "gc.auto=0",
        "-c",
        "maintenance.auto=false",
    ];
    let all: [&[&str]; 4] = [
        &["init", "-q"],
        &["add", "."],
        &["commit", "-q", "-m", "all"],
        &["gc", "-q"],
    ];
    for words in all {
        output("git", &[&["-C", &place][..], &with, words].concat())?;
    }
    Ok(())
}

/// The peer with its copy of the repository. It ends with the value.
struct Peer {
    socket: PathBuf,
    _server: Server,
}

impl Peer {
    /// `None`: it cannot be had here, which was said.
    fn start(root: &Path, repository: &Path) -> Result<Option<Self>, String> {
        let kinds = available()?;
        let Some(kind) = kinds.iter().find(|kind| kind.name == PEER) else {
            return Ok(None);
        };
        let folder = root.join("peer");
        let tree = folder.join("tree");
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let (from, to) = (repository.display().to_string(), tree.display().to_string());
        output("cp", &["-a", &from, &to])?;
        // It shows owners as they are.
        output("chown", &["-R", &format!("{AGENT}:{AGENT}"), &to])?;
        let server = Server::start(kind, &folder)?;
        Ok(Some(Self {
            socket: server.listening()?,
            _server: server,
        }))
    }

    fn device(&self) -> Vec<String> {
        let channel = format!("socket,id=peer,path={}", self.socket.display());
        let device =
            serde_json::json!({"driver": "vhost-user-fs-pci", "chardev": "peer", "tag": PEER});
        vec![
            "-chardev".into(),
            channel,
            "-device".into(),
            device.to_string(),
        ]
    }
}

/// Folders of the repository: the peer keeps each file open that its guest knows, and may have no more open than the machine
/// lets a process have. Ours has no such need.
fn folders() -> usize {
    let limit = getrlimit(Resource::Nofile).maximum;
    let most = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let folders = FOLDERS.min(most.saturating_sub(SPARE) / (FILES_EACH + 1));
    if folders < FOLDERS {
        let files = folders * FILES_EACH;
        eprintln!("note: {files} files, since a process may have {most} open here");
    }
    folders
}

/// Puts node, npm and packages into the workspace. `false`: the host has none that can be copied, which was said.
fn put_npm(work: &Path) -> Result<bool, String> {
    let found = output(
        "sh",
        &["-c", "readlink -f $(command -v node) && npm root -g"],
    );
    let found = found.unwrap_or_default();
    let mut lines = found.lines().map(PathBuf::from);
    let (Some(node), Some(modules)) = (lines.next(), lines.next()) else {
        eprintln!("note: without npm, which is not installed here");
        return Ok(false);
    };
    let npm = modules.join("npm");
    if !npm.join("bin/npm-cli.js").is_file() {
        eprintln!(
            "note: without npm: what it consists of is not in {}",
            npm.display()
        );
        return Ok(false);
    }
    let tools = work.join("tools");
    let packed = tools.join("packed");
    std::fs::create_dir_all(&packed).map_err(|e| e.to_string())?;
    let to = tools.display().to_string();
    output(
        "cp",
        &[
            "-rL",
            &node.display().to_string(),
            &npm.display().to_string(),
            &to,
        ],
    )?;
    let mut wanted = BTreeMap::new();
    for number in 0..PACKAGES {
        let file = pack(&packed, number)?;
        wanted.insert(format!("p{number}"), format!("file:{PACKED}/{file}"));
    }
    let manifest = serde_json::json!({"name": "bench", "version": "1.0.0", "dependencies": wanted});
    for folder in ["masked", "shared"] {
        let folder = work.join(folder);
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("package.json"), manifest.to_string()))
            .map_err(|e| e.to_string())?;
    }
    Ok(true)
}

/// Packs one package as `npm pack` does. Returns the file's name.
fn pack(folder: &Path, number: usize) -> Result<String, String> {
    let package = folder.join("package");
    let fail = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&package).map_err(fail)?;
    let manifest = serde_json::json!({"name": format!("p{number}"), "version": "1.0.0"});
    std::fs::write(package.join("package.json"), manifest.to_string()).map_err(fail)?;
    for part in 0..PARTS {
        let text = format!(
            "// {number} {part}\n{}",
            "module.exports = 1\n".repeat(part)
        );
        std::fs::write(package.join(format!("part{part}.js")), text).map_err(fail)?;
    }
    let file = format!("p{number}-1.0.0.tgz");
    let place = folder.display().to_string();
    let to = folder.join(&file).display().to_string();
    output("tar", &["-czf", &to, "-C", &place, "package"])?;
    std::fs::remove_dir_all(package).map_err(fail)?;
    Ok(file)
}

struct Guest<'a> {
    installation: &'a Installation,
    work: &'a Path,
}

impl Guest<'_> {
    fn inside(&self, line: &str) -> Result<String, String> {
        self.installation.inside("bench", line).success()
    }

    /// Seconds of a line, by the guest's clock.
    fn seconds(&self, line: &str) -> Result<f64, String> {
        let timed = format!("set -e; a=$EPOCHREALTIME; {{ {line}; }} >&2; echo $a $EPOCHREALTIME");
        let said = self.inside(&timed)?;
        let mut times = said.split_whitespace().map(str::parse::<f64>);
        match (times.next(), times.next()) {
            (Some(Ok(begin)), Some(Ok(end))) => Ok(end - begin),
            _ => Err(format!("no two times in {said:?}")),
        }
    }

    /// Git looks at every file. Before the first time it finds that the index was written elsewhere.
    fn git_status(&self, metric: &str) -> Result<Figure, String> {
        self.inside(&format!(
            "sudo mkdir /mnt/peer && sudo mount -t virtiofs {PEER} /mnt/peer"
        ))?;
        let places = [self.work.join("repository"), "/mnt/peer".into()];
        let mut seconds = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            for (place, seconds) in places.iter().zip(&mut seconds) {
                let status = format!("git -C {} status --porcelain", place.display());
                // By itself, so that its failure is one.
                let took = self.seconds(&format!("said=$({status}); test -z \"$said\""))?;
                eprintln!("git status in {}: {took:.1} s", place.display());
                // The first look writes the index.
                if round > 0 {
                    seconds.push(took);
                }
            }
        }
        let [ours, peer] = seconds;
        Ok(Figure::new(metric, "s", &ours, &peer, PEER))
    }

    fn npm_installs(&self) -> Result<Vec<Figure>, String> {
        let work = self.work.display();
        self.inside(&format!(
            "cp -r {work}/tools/packed {PACKED}; cp -r {work}/tools/node {work}/tools/npm /tmp/; \
             mkdir {OWN}; cp {work}/shared/package.json {OWN}/"
        ))?;
        let masked = format!("{work}/masked");
        let shared = format!("{work}/shared");
        let places = [
            ("masked", masked.as_str()),
            ("share", &shared),
            ("own", OWN),
        ];
        let mut seconds = Seconds::new();
        for _ in 0..ROUNDS {
            for (name, place) in places {
                // Masked, the directory itself stays.
                self.inside(&format!(
                    "cd {place}; rm -rf package-lock.json node_modules 2>/dev/null; true"
                ))?;
                let install = format!(
                    "cd {place}; /tmp/node /tmp/npm/bin/npm-cli.js install --offline --no-audit --no-fund --silent; \
                     test $(find node_modules -name '*.js' | wc -l) = {}",
                    PACKAGES * PARTS
                );
                let took = self.seconds(&install)?;
                eprintln!("npm install, {name}: {took:.1} s");
                seconds.entry(name).or_default().push(took);
            }
        }
        let own = &seconds["own"];
        let beside = |metric, name| Figure::new(metric, "s", &seconds[name], own, "own-disk");
        Ok(vec![
            beside("npm_install_masked_s", "masked"),
            beside("npm_install_share_s", "share"),
        ])
    }
}
