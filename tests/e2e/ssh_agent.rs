//! The user's SSH agent and git identity, from inside.

use crate::setting::Setting;
use sbx_e2e::nowhere::{Sought, is_nowhere};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// `ssh-agent` of the user, with one key.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Below a program that passes this signal on.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _waited = self.0.wait();
    }
}

impl Agent {
    fn start(setting: &Setting, socket: &Path) -> Self {
        let socket = socket.display().to_string();
        let mut agent = setting
            .installation
            .program("/usr/bin/ssh-agent", ["-D", "-a", &socket]);
        let agent = agent.stdout(Stdio::null()).spawn().unwrap();
        while !Path::new(&socket).exists() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Self(agent)
    }
}

/// Neither the key's file as it is, of which the end is what nobody else has, nor its seed.
fn key_is_nowhere(setting: &Setting, folder: &Path) {
    let file = std::fs::read_to_string(folder.join("id")).unwrap();
    let lines: Vec<&str> = file.lines().collect();
    let [.., private, _, _] = lines[..] else {
        panic!("{file}")
    };
    setting.inside("signs", "sync");
    let sought = Sought {
        secrets: &[("a line of the SSH key", private)],
        kept_by_user: &[folder],
        ..Sought::default()
    };
    println!("{}", is_nowhere(&setting.installation, &sought).unwrap());
}

#[test]
fn commits_inside_have_the_users_name_and_are_signed_by_a_key_that_never_enters() {
    let setting = Setting::ordinary("deny-all");
    let installation = &setting.installation;
    let folder = installation.folder("ssh").unwrap();
    let (socket, key) = (folder.join("agent.sock"), folder.join("id"));
    let key_text = key.display().to_string();
    let _agent = Agent::start(&setting, &socket);
    let run = |name: &str, arguments: &[&str]| {
        let mut command = installation.program(name, arguments);
        command.env("SSH_AUTH_SOCK", &socket);
        let outcome = sbx_e2e::installation::run(command, b"");
        outcome.success().unwrap()
    };
    let new = [
        "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", &key_text,
    ];
    run("/usr/bin/ssh-keygen", &new);
    run("/usr/bin/ssh-add", &["-q", &key_text]);
    let public = std::fs::read_to_string(folder.join("id.pub")).unwrap();
    let public = public.trim();

    // As the user has it on the host.
    let git = installation.folder("config/git").unwrap();
    let config = format!(
        "[user]\n\tname = A Person\n\temail = person@host.example\n\tsigningkey = {key_text}\n\
         [gpg]\n\tformat = ssh\n[commit]\n\tgpgsign = true\n"
    );
    installation
        .write(&git.join("config"), config.as_bytes())
        .unwrap();
    let socket_text = socket.display().to_string();
    for (name, value) in [
        ("ssh.agentForwardingEnabled", "true"),
        ("ssh.agentSocketPath", &socket_text),
    ] {
        installation
            .sbx(["settings", "set", name, value])
            .success()
            .unwrap();
    }
    setting.shell("signs");
    assert_eq!(setting.inside("signs", "ssh-add -L").trim(), public);
    let made = setting.inside(
        "signs",
        "git init -q /tmp/r && cd /tmp/r && git commit -q --allow-empty -m one && \
         git log -1 --format='%an %ae' && git cat-file commit HEAD | grep -c 'BEGIN SSH SIGNATURE'",
    );
    assert_eq!(made, "A Person person@host.example\n1\n");
    let line = format!(
        "cd /tmp/r && echo 'person@host.example {public}' > /tmp/allowed && \
         git -c gpg.ssh.allowedSignersFile=/tmp/allowed verify-commit HEAD 2>&1"
    );
    let verified = setting.inside("signs", &line);
    assert!(verified.contains("Good \"git\" signature"), "{verified}");
    // What a key must not be used for from inside.
    let removed = installation.inside("signs", "ssh-add -D");
    assert!(!removed.ok(), "{removed}");
    assert_eq!(setting.inside("signs", "ssh-add -L").trim(), public);
    let log = installation
        .sbx(["policy", "log", "signs", "--json"])
        .success()
        .unwrap();
    assert!(
        log.contains("signature/git") && log.contains("ssh-signed"),
        "{log}"
    );

    key_is_nowhere(&setting, &folder);

    // Switched off, it is of no use to sessions that go on, and new ones do not look for it.
    installation
        .sbx(["settings", "set", "ssh.agentForwardingEnabled", "false"])
        .success()
        .unwrap();
    let off = installation.inside(
        "signs",
        "echo \"[$SSH_AUTH_SOCK]\"; SSH_AUTH_SOCK=/run/ssh-agent.sock ssh-add -L",
    );
    assert!(off.stdout.starts_with("[]\n") && !off.ok(), "{off}");
}
