//! Programs in the sandbox, as a user runs them.

use crate::setting::{Setting, kill};
use sbx_e2e::terminal::Terminal;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Far longer than anything here takes on a terminal, a restart of the machine included.
const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn exec_passes_bytes_statuses_signals_and_terminals_through() {
    let setting = Setting::ordinary("deny-all");
    setting.shell("exec");
    let sbx = |arguments: &[&str]| setting.installation.sbx(arguments.iter().copied());

    // Exit status, 127, 126, killed by a signal.
    assert_eq!(sbx(&["exec", "exec", "sh", "-c", "exit 42"]).code, 42);
    assert_eq!(sbx(&["exec", "exec", "no-such-program"]).code, 127);
    assert_eq!(sbx(&["exec", "exec", "/etc/passwd"]).code, 126);
    assert_eq!(sbx(&["exec", "exec", "sh", "-c", "kill -9 $$"]).code, 137);

    // Both streams apart, and every byte value both ways.
    let both = sbx(&["exec", "exec", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (both.stdout.as_str(), both.stderr.as_str()),
        ("out\n", "err\n")
    );
    // And each by its name, which opens it anew.
    let named = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr";
    let named = ["exec", "-i", "exec", "sh", "-c", named];
    let named = setting.installation.command(named);
    let named = sbx_e2e::installation::run(named, b"in\n");
    assert_eq!(
        (named.stdout.as_str(), named.stderr.as_str()),
        ("in\nout\n", "err\n")
    );
    let bytes: Vec<u8> = (0..3_000_000u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    let cat = setting
        .installation
        .command(["exec", "-i", "exec", "sha256sum"]);
    let summed = sbx_e2e::installation::run(cat, &bytes).success().unwrap();
    let mut own = Command::new("sha256sum");
    own.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut own = own.spawn().unwrap();
    own.stdin.take().unwrap().write_all(&bytes).unwrap();
    let expected = String::from_utf8(own.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(summed, expected);

    // Who, where, with which environment.
    assert_eq!(
        setting.inside("exec", "id -un; id -u; pwd | grep -c work-exec"),
        "agent\n1000\n1\n"
    );
    assert_eq!(
        sbx(&[
            "exec",
            "-u",
            "root",
            "-w",
            "/",
            "exec",
            "sh",
            "-c",
            "id -u; pwd"
        ])
        .stdout,
        "0\n/\n"
    );
    assert_eq!(
        sbx(&["exec", "-e", "A=b c", "exec", "sh", "-c", "echo $A"]).stdout,
        "b c\n"
    );
    assert_eq!(setting.inside("exec", "sudo -n id -u"), "0\n");

    terminals(&setting);
    // A program that nobody reads any more ends (`| head -1`).
    let mut yes = setting.installation.command(["exec", "exec", "yes"]);
    yes.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut yes = yes.spawn().unwrap();
    let mut stdout = yes.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 2]).unwrap();
    drop(stdout);
    assert_eq!(yes.wait().unwrap().code(), Some(141));
    // Several at a time.
    let many: Vec<_> = (0..8)
        .map(|n| {
            let installation = setting.installation.clone();
            std::thread::spawn(move || installation.inside("exec", &format!("sleep 1; echo {n}")))
        })
        .collect();
    for (n, thread) in many.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap().success().unwrap(), format!("{n}\n"));
    }

    // The Docker socket is held from boot: an early call waits for the engine, an exec does not.
    setting
        .installation
        .sbx(["stop", "exec"])
        .success()
        .unwrap();
    let first = sbx(&["exec", "exec", "true"]);
    assert!(first.ok(), "{first}");
    let docker = sbx(&[
        "exec",
        "exec",
        "docker",
        "version",
        "--format",
        "{{.Server.Version}}",
    ]);
    assert!(docker.ok(), "{docker}");
}

#[test]
fn run_finds_the_sandbox_of_the_same_agent_and_workspace_again() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.installation.folder("again").unwrap();
    let run = |line: &str| {
        let path = workspace.display().to_string();
        setting
            .installation
            .sbx(["run", "shell", &path, "--", "-c", line])
            .success()
            .unwrap()
    };
    assert_eq!(run("hostname > /tmp/seen; echo first"), "first\n");
    assert_eq!(run("cmp /tmp/seen /etc/hostname && echo same"), "same\n");
    let listed = setting.installation.sbx(["ls", "-q"]).success().unwrap();
    assert_eq!(listed.lines().count(), 1, "{listed}");
    // The older spelling takes the sandbox's name instead.
    let name = listed.trim();
    let older = setting
        .installation
        .sbx(["run", name, "--", "-c", "echo older"]);
    assert_eq!(older.success().unwrap(), "older\n");
}

/// A terminal: size, resize, Ctrl-C; driven through script(1), which gives us one.
fn terminals(setting: &Setting) {
    let sbx_line = |rest: &str| {
        let command = setting
            .installation
            .command(["exec", "-it", "exec", "sh", "-c", rest]);
        let mut line = String::new();
        for word in std::iter::once(command.get_program()).chain(command.get_args()) {
            let _ = write!(line, "'{}' ", word.to_string_lossy().replace('\'', "'\\''"));
        }
        let mut script = Command::new("script");
        script.args([
            "-qec",
            &format!("stty rows 33 cols 101; {line}"),
            "/dev/null",
        ]);
        script
            .env_clear()
            .envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        script
    };
    let sized = sbx_e2e::installation::run(sbx_line("stty size; tty; echo $TERM"), b"");
    assert!(sized.stdout.contains("33 101"), "{sized}");
    assert!(sized.stdout.contains("/dev/pts/"), "{sized}");
    assert!(sized.stdout.contains("xterm-256color"), "{sized}");
    let line = "trap 'echo interrupted; exit 7' INT; echo waiting; while :; do sleep 0.1; done";
    let (text, code) = type_when_waiting(sbx_line(line), b"\x03");
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(code, Some(7), "{text}");
}

/// Runs a command on a terminal, types `keys` once it has printed `waiting`; its output and exit code.
fn type_when_waiting(mut command: Command, keys: &[u8]) -> (String, Option<i32>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    let mut typed = false;
    loop {
        let count = screen.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if !typed && text.contains("waiting") {
            typed = true;
            keyboard.write_all(keys).unwrap();
        }
    }
    (text, child.wait().unwrap().code())
}

/// `sbx` on a terminal of this size.
fn at_terminal(setting: &Setting, arguments: &[&str], rows: u16, cols: u16) -> Terminal {
    let command = setting.installation.command(arguments.iter().copied());
    Terminal::open(&command, rows, cols).unwrap()
}

/// The command is killed as by a lost connection, and everybody has noticed.
fn kill_client(setting: &Setting, name: &str, terminal: &Terminal) {
    kill(terminal.process("sbx").expect("the command runs"));
    setting.wait("nobody is attached", 10, || {
        setting.inspect(name)["attached"] == 0
    });
}

#[test]
fn an_agent_goes_on_without_its_terminal_and_the_next_one_shows_the_same_screen() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.installation.folder("screens").unwrap();
    let text: String = (1..=500)
        .map(|n| format!("line {n} of a long text\n"))
        .collect();
    setting
        .installation
        .write(&workspace.join("text"), text.as_bytes())
        .unwrap();
    let path = workspace.display().to_string();
    let started = setting.installation.sbx([
        "run", "shell", &path, "-d", "--name", "screens", "--memory", "1g", "--cpus", "2",
    ]);
    assert_eq!(started.success().unwrap(), "screens\n");
    let attach = |rows, cols| at_terminal(&setting, &["run", "--name", "screens"], rows, cols);

    // A program that fills the screen, with attributes and a place in its text.
    let mut first = attach(30, 100);
    first.until_text("$", LIMIT).unwrap();
    first.type_in("less text\r").unwrap();
    first.until_text("line 25 of", LIMIT).unwrap();
    first.type_in("/line 333\r").unwrap();
    // To its last line: what is only half drawn cannot be compared.
    let found = |screen: &vt100::Screen| {
        let (last, prompt) = (screen.size().0.get() - 1, screen.cursor_position());
        screen.cell(0, 0).is_some_and(vt100::Cell::inverse)
            && screen.contents().contains("line 361 of")
            && screen
                .cell(last, 0)
                .is_some_and(|cell| cell.contents() == ":")
            && prompt == (last, 1)
    };
    first.until("the match, highlighted", LIMIT, found).unwrap();
    kill_client(&setting, "screens", &first);
    let shown = setting.inspect("screens");
    assert_eq!(shown["agent_running"], true, "{shown:#}");
    assert_eq!(shown["kept_by"], "sessions", "{shown:#}");

    // Another connection: the same picture, attributes, cursor and modes.
    let mut next = attach(30, 100);
    next.until("the match, highlighted", LIMIT, found).unwrap();
    assert_eq!(next.picture(), first.picture());

    // Two at a time: both see, both type, the smaller one gives the size.
    let mut other = attach(20, 80);
    other.until_text("line 333 of", LIMIT).unwrap();
    other.type_in("q").unwrap();
    // The size changes when the supervisor has heard of it, and keys may be faster: the shell waits for it.
    let sized = |rows, cols| {
        format!(
            "until stty size | grep -qx '{rows} {cols}'; do sleep 0.1; done; echo $(({rows} * {cols})) places\r"
        )
    };
    other.type_in(&sized(20, 80)).unwrap();
    for terminal in [&mut other, &mut next] {
        terminal.until_text("1600 places", LIMIT).unwrap();
    }
    // The keys that leave it, which give the terminal back.
    other.type_in("\x1c").unwrap();
    assert_eq!(other.ended(LIMIT), Ok(Some(0)));
    let left = other.shown();
    assert!(
        left.contains("detached") && left.contains("sbx run --name screens"),
        "{left}"
    );
    next.type_in(&sized(30, 100)).unwrap();
    next.until_text("3000 places", LIMIT).unwrap();
    next.resize(25, 90).unwrap();
    next.type_in(&sized(25, 90)).unwrap();
    next.until_text("2250 places", LIMIT).unwrap();

    // Its end comes to whoever is there, and the sandbox stays, as it was asked to.
    next.type_in("exit 7\r").unwrap();
    assert_eq!(next.ended(LIMIT), Ok(Some(7)));
    setting.wait("held", 10, || {
        setting.inspect("screens")["kept_by"] == "run -d"
    });
    let both = setting
        .installation
        .sbx(["run", "--name", "screens", "-d", "--rm"]);
    assert_eq!(both.code, 2, "{both}");
}

#[test]
fn a_sandbox_that_nothing_keeps_stops_and_one_run_to_be_removed_is_removed() {
    let setting = Setting::ordinary("deny-all");
    // While it is made others wait for the snapshot of its like, longer than it then runs on.
    setting.shell("idle");
    for words in [
        &["stop", "idle"][..],
        &["settings", "set", "sandbox.autoStop", "3s"],
    ] {
        setting.installation.sbx(words).success().unwrap();
    }
    setting.inside("idle", "true");
    let shown = setting.inspect("idle");
    assert!(shown["stops_at"].is_string(), "{shown:#}");
    setting.inside("idle", "echo kept > ~/kept; sleep 15");
    setting.wait("it stops", 60, || {
        setting.inspect("idle")["state"] == "stopped"
    });
    let reason = setting.inspect("idle")["state_reason"].clone();
    assert_eq!(reason, "stopped, because nothing kept it running for 3 s");
    assert_eq!(setting.inside("idle", "cat ~/kept"), "kept\n");

    // Nobody is left who would remove it when it ends: neither its command nor its daemon.
    let workspace = setting.installation.folder("gone").unwrap();
    let path = workspace.display().to_string();
    let arguments = [
        "run", "shell", &path, "--rm", "--name", "gone", "--memory", "1g",
    ];
    let mut first = at_terminal(&setting, &arguments, 24, 80);
    first.until_text("$", LIMIT).unwrap();
    first.type_in("echo $((6 * 7)) times\r").unwrap();
    first.until_text("42 times", LIMIT).unwrap();
    kill_client(&setting, "gone", &first);
    let status = setting
        .installation
        .sbx(["daemon", "status", "--json"])
        .json()
        .unwrap();
    kill(u32::try_from(status["pid"].as_u64().unwrap()).unwrap());
    let mut next = at_terminal(&setting, &["run", "--name", "gone"], 24, 80);
    next.until_text("42 times", LIMIT).unwrap();
    next.type_in("exit 3\r").unwrap();
    assert_eq!(next.ended(LIMIT), Ok(Some(3)));
    setting.wait("it is gone", 60, || {
        !setting
            .installation
            .sbx(["ls", "-q"])
            .success()
            .unwrap()
            .contains("gone")
    });
    assert!(workspace.is_dir());
}
