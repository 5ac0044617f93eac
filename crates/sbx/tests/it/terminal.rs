//! What is asked on a terminal, and that nothing is with `--no-input`.

use crate::world::World;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};

/// Runs a command on a terminal at which somebody answers every question with Control-D.
pub(crate) fn at_terminal(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    typing(world, arguments, "")
}

/// As [`at_terminal`], with something typed before.
fn typing(world: &World, arguments: &[&str], keys: &str) -> (Option<i32>, String) {
    let terminal = Terminal::new();
    let mut child = terminal.spawn(world.command(arguments));
    let mut master = terminal.master;
    master.write_all(keys.as_bytes()).unwrap();
    master.write_all(&[4; 3]).unwrap();
    let mut text = Vec::new();
    // Ends with EIO when the last one at the terminal has gone.
    let _end = master.read_to_end(&mut text);
    let code = child.wait().unwrap().code();
    (code, String::from_utf8_lossy(&text).into_owned())
}

/// A terminal, from the side of whoever sits at it.
pub(crate) struct Terminal {
    pub(crate) master: File,
    name: CString,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let master = File::from(master);
        let terminal = Self { master, name };
        // Progress is drawn on a terminal that has a width and can move about.
        let size = Winsize {
            ws_row: 50,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(terminal.open(), size).unwrap();
        terminal
    }

    /// A program's side of it.
    pub(crate) fn open(&self) -> File {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        File::from(rustix::fs::open(&self.name, flags, Mode::empty()).unwrap())
    }

    /// Runs a command on it. The terminal ends with the command.
    pub(crate) fn spawn(&self, mut command: Command) -> Child {
        command.env("TERM", "xterm");
        command.stdin(self.open());
        command.stdout(self.open()).stderr(self.open());
        command.spawn().unwrap()
    }
}

#[test]
fn no_input_never_prompts() {
    let world = World::new();
    world.plant("planted");
    let cases: &[(&[&str], &str)] = &[
        (&["create", "shell"], "Which network policy"),
        (&["run", "shell"], "Which network policy"),
        (&["secret", "set", "anthropic"], "(not shown)"),
        (&["rm", "planted"], "[y/N]"),
    ];
    for (arguments, question) in cases {
        let (code, text) = at_terminal(&world, arguments);
        assert!(text.contains(question), "{arguments:?}: {text}");
        assert_eq!(code, Some(1), "{arguments:?}: {text}");
        let silent = [&["--no-input"], *arguments].concat();
        let (code, text) = at_terminal(&world, &silent);
        assert!(!text.contains(question), "{silent:?}: {text}");
        assert!(
            text.contains("error: ") && text.contains("try: "),
            "{silent:?}: {text}"
        );
        assert_eq!(code, Some(1), "{silent:?}: {text}");
    }
    assert_eq!(world.sbx(&["ls", "-q"]).ok(), "planted\n");
}

#[test]
fn no_secret_is_removed_unasked() {
    let world = World::with_policy();
    let set = ["secret", "set", "anthropic"];
    world.sbx_with_input(&set, "a-value-0123456789").ok();
    for arguments in [&["anthropic"][..], &["--all"], &["--all", "--no-input"]] {
        let command = [&["secret", "rm"], arguments].concat();
        world.sbx(&command).refused("needs a confirmation");
    }
    let (code, text) = at_terminal(&world, &["--no-input", "secret", "rm", "--all"]);
    assert!(text.contains("needs a confirmation"), "{text}");
    assert_eq!(code, Some(1));
    let (code, text) = at_terminal(&world, &["secret", "rm", "--all"]);
    let question = "Remove all secrets of (global)? [y/N]";
    assert!(text.contains(question), "{text}");
    assert_eq!(code, Some(1), "silence was taken for a yes");
    assert_eq!(world.sbx(&["secret", "ls", "-q"]).ok(), "anthropic\n");
}

#[test]
fn blanks_around_a_typed_value_are_refused_as_around_a_piped_one_and_not_left_out() {
    let world = World::with_policy();
    let set = ["secret", "set", "anthropic"];
    for value in [" a-value-0123456789\n", "a-value-0123456789 \n"] {
        world
            .sbx_with_input(&set, value)
            .refused("spaces around it");
        let (code, text) = typing(&world, &set, value);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("spaces around it"), "{text}");
    }
    let (code, text) = typing(&world, &set, "a-value-0123456789\n");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_signal_at_a_hidden_question_ends_the_command_and_the_terminal_echoes_again() {
    let world = World::with_policy();
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15), (Signal::HUP, 1)] {
        let terminal = Terminal::new();
        let side = terminal.open();
        let echoes = || {
            let modes = tcgetattr(&side).unwrap().local_modes;
            modes.contains(LocalModes::ECHO)
        };
        let mut child = terminal.spawn(world.command(&["secret", "set", "anthropic"]));
        let mut asked = Vec::new();
        while !String::from_utf8_lossy(&asked).contains("(not shown)") {
            let mut byte = [0];
            (&terminal.master).read_exact(&mut byte).unwrap();
            asked.extend(byte);
        }
        assert!(!echoes(), "{signal:?}");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + number));
        assert!(echoes(), "{signal:?}");
    }
    assert_eq!(world.sbx(&["secret", "ls", "-q"]).ok(), "");
}
