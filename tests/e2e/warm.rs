//! Sandboxes that begin from a snapshot of a booted machine.

use crate::setting::{Setting, cache};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What has to be another thing in every machine, as a shell prints it.
const OWN: &[(&str, &str)] = &[
    ("machine id", "cat /etc/machine-id"),
    ("host name", "hostname"),
    ("boot id", "cat /proc/sys/kernel/random/boot_id"),
    ("kernel's random numbers", "head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'"),
    ("unique ids", "cat /proc/sys/kernel/random/uuid"),
    ("id of the engine's next start", "sudo cat /var/lib/docker/engine-id"),
    ("id of a new container", "docker create --network none own:1 /x"),
    (
        "key that signs its certificates",
        "openssl s_client -proxy gateway.docker.internal:3128 -connect denied.example:443 -servername denied.example -showcerts </dev/null 2>/dev/null \
         | awk '/BEGIN/{n++} n==2' | openssl x509 -noout -pubkey | tail -n +2 | tr -d '\\n'",
    ),
    (
        "first sequence number of a connection",
        "sudo python3 -c \"import socket,struct,threading
raw=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))
raw.bind(('eth0',0)); raw.settimeout(20)
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
s.bind(('0.0.0.0',40000)); s.setblocking(False); s.connect_ex(('192.168.127.1',3128))
while True:
    p=raw.recv(2048)
    if p[12:14]==b'\\x08\\x00' and p[23]==6 and struct.unpack('!H',p[34:36])[0]==40000: print(struct.unpack('!I',p[38:42])[0]); break\"",
    ),
];

/// What has to be the same, so that the comparison above compares machines of one snapshot.
const SAME: &[(&str, &str)] = &[(
    "processes of the engine",
    "pgrep -x dockerd; pgrep -x containerd; cut -d' ' -f22 /proc/$(pgrep -x dockerd)/stat",
)];

fn start(setting: &Setting, name: &str) -> String {
    setting.inspect(name)["start"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn attack_69_two_machines_of_one_snapshot_share_nothing_that_must_differ() {
    let setting = Setting::ordinary("deny-all");
    // Placeholders are given for what is stored.
    let stored = setting.installation.sbx_in(
        Path::new("/"),
        b"sk-ant-api03-a-key-for-whoever-needs-one",
        ["secret", "set", "anthropic"],
    );
    stored.success().unwrap();
    setting.shell("first");
    let names = ["one", "two"];
    let folders = names.map(|name| setting.shell(name));
    for (name, folder) in names.iter().zip(&folders) {
        assert_eq!(
            start(&setting, name),
            "warm",
            "{}",
            setting.installation.logs()
        );
        // The share came to the running machine, and is the sandbox's own.
        setting.inside(name, "echo from inside > made && docker version >/dev/null");
        assert_eq!(
            std::fs::read_to_string(folder.join("made")).unwrap(),
            "from inside\n"
        );
        // An image, for the ids of containers.
        setting.inside(name, "tar -c -C /etc hostname | docker import - own:1");
    }
    let seen = |line| names.map(|name| setting.inside(name, line).trim().to_owned());
    for (what, line) in OWN {
        let [one, two] = seen(line);
        assert!(!one.is_empty() && one != two, "{what}: {one:?} and {two:?}");
        println!("{what}: {one:.40} and {two:.40}");
    }
    for (what, line) in SAME {
        let [one, two] = seen(line);
        assert!(!one.is_empty() && one == two, "{what}: {one:?} and {two:?}");
    }
    // A placeholder of one is worthless in the other.
    let placeholders: BTreeSet<String> = names
        .iter()
        .map(|name| {
            let id = setting.inspect(name)["id"].as_str().unwrap().to_owned();
            let path = setting
                .installation
                .state()
                .join("sandboxes")
                .join(id)
                .join("sandbox.json");
            let record: serde_json::Value =
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            record["placeholders"]["anthropic"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(placeholders.len(), 2);
    // The snapshot's clock stood still, the machine's does not.
    let inside: u64 = setting.inside("one", "date +%s").trim().parse().unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now.abs_diff(inside) <= 2, "{inside} inside, {now} here");

    // A sandbox that was stopped boots from its own disks, with what it wrote.
    setting.inside("one", "echo kept > ~/kept && docker volume create kept");
    setting.installation.sbx(["stop", "one"]).success().unwrap();
    assert_eq!(
        setting.inside("one", "cat ~/kept; docker volume ls -q"),
        "kept\nkept\n"
    );
    assert_eq!(start(&setting, "one"), "cold");
    let ids = names.map(|name| setting.inside(name, "docker info -f '{{.ID}}'"));
    assert_ne!(
        ids[0], ids[1],
        "an engine that started again has an id of its own"
    );
}

/// The snapshot used last.
fn newest() -> PathBuf {
    let root = cache().join("sbx/snapshots");
    let entries = std::fs::read_dir(root).unwrap().flatten();
    let manifests = entries.map(|entry| entry.path().join("snapshot.json"));
    let used = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let newest = manifests.filter(|path| path.is_file()).max_by_key(used);
    newest.unwrap().parent().unwrap().to_owned()
}

#[test]
fn a_snapshot_that_does_not_load_is_given_up_and_the_machine_is_booted() {
    let setting = Setting::ordinary("deny-all");
    setting.shell("first");
    let folder = newest();
    // As after a torn write: the state ends early.
    let state = std::fs::read(folder.join("state")).unwrap();
    setting
        .installation
        .write(&folder.join("state"), &state[..state.len() / 2])
        .unwrap();
    let created = setting.installation.sbx([
        "create", "shell", "--name", "second", "--memory", "1g", "--cpus", "2",
    ]);
    assert!(
        created.stderr.contains("the snapshot did not start"),
        "{created}"
    );
    created.success().unwrap();
    assert_eq!(start(&setting, "second"), "cold");
    assert!(
        setting
            .inside("second", "docker version -f '{{.Server.Version}}'")
            .len()
            > 3
    );
    // It was made without a workspace: nothing of the host is in it, and no process serves any.
    let shares = setting.inside("second", "grep -c virtiofs /proc/mounts || true");
    assert_eq!(shares.trim(), "0");
    let processes = setting.inspect("second")["processes"].clone();
    assert!(
        processes["machine"].is_u64() && processes["share0"].is_null(),
        "{processes}"
    );
    // It is made anew, and serves again.
    setting.await_snapshots();
    assert!(
        !folder.exists() || std::fs::read(folder.join("state")).unwrap().len() > state.len() / 2
    );
    setting.shell("third");
    setting.shell("fourth");
    assert_eq!(start(&setting, "fourth"), "warm");
    // A sandbox needs its snapshot no more: neither while it runs nor to start again.
    std::fs::remove_dir_all(newest()).unwrap();
    setting.inside("fourth", "echo kept > ~/kept && docker version >/dev/null");
    setting
        .installation
        .sbx(["stop", "fourth"])
        .success()
        .unwrap();
    assert_eq!(setting.inside("fourth", "cat ~/kept"), "kept\n");
}
