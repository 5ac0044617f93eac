//! A terminal with a command at it, for tests and measurements: what a person would see, and type.

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// See the module. Ends the command when it is dropped.
pub struct Terminal {
    child: Child,
    master: File,
    output: Receiver<Vec<u8>>,
    emulator: vt100::Parser,
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Terminal {
    /// Starts the command on a new terminal, which is its controlling one.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn open(command: &Command, rows: u16, cols: u16) -> Result<Self, String> {
        let (master, slave) = pair(rows, cols).map_err(|error| format!("terminal: {error}"))?;
        let failed = |error: std::io::Error| format!("terminal: {error}");
        // It makes the terminal the controlling one, so that changes of size are signalled.
        let mut at_it = Command::new("setsid");
        at_it
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        at_it.env_clear();
        at_it.envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        if let Some(folder) = command.get_current_dir() {
            at_it.current_dir(folder);
        }
        at_it.env("TERM", "xterm-256color");
        at_it.stdin(slave.try_clone().map_err(failed)?);
        at_it.stdout(slave.try_clone().map_err(failed)?);
        at_it.stderr(slave);
        let child = at_it.spawn().map_err(|error| format!("setsid: {error}"))?;
        // Ours are closed with it: the terminal ends when the command does.
        drop(at_it);
        let (sender, output) = channel();
        let mut reader = master.try_clone().map_err(failed)?;
        std::thread::spawn(move || {
            let mut piece = [0; 16 << 10];
            // Ends with EIO when the last one at the terminal has gone.
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                if sender.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            master,
            output,
            emulator: vt100::Parser::new(whole(rows), whole(cols), 1000),
        })
    }

    /// What a person sees.
    pub fn screen(&self) -> &vt100::Screen {
        self.emulator.screen()
    }

    /// The text on the screen.
    pub fn shown(&self) -> String {
        self.screen().contents()
    }

    /// What is seen, in a form that can be compared: each letter with how it looks, the cursor, and what keys,
    /// mouse and pastes do. What is left behind where nothing is written does not count.
    pub fn picture(&self) -> String {
        let screen = self.screen();
        let (rows, cols) = screen.size();
        let modes = (
            screen.alternate_screen(),
            screen.hide_cursor(),
            screen.input_mode_formatted(),
        );
        let mut all = format!("{modes:?} {:?}\n", screen.cursor_position());
        for row in 0..rows.get() {
            for col in 0..cols.get() {
                if let Some(cell) = screen.cell(row, col)
                    && !cell.contents().trim().is_empty()
                {
                    let colours = (cell.fgcolor(), cell.bgcolor());
                    let ink = (cell.bold(), cell.underline(), cell.inverse());
                    let _ = writeln!(all, "{row} {col} {} {colours:?} {ink:?}", cell.contents());
                }
            }
        }
        all
    }

    /// Waits until the screen is as wanted.
    ///
    /// # Errors
    /// What it shows instead when the time is over or the command has ended.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&vt100::Screen) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            if wanted(self.screen()) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.emulator.process(&bytes),
                Err(why) => {
                    let why = match why {
                        RecvTimeoutError::Timeout => format!("not within {limit:?}"),
                        RecvTimeoutError::Disconnected => "the command ended".to_owned(),
                    };
                    return Err(format!(
                        "{what}: {why}; the screen shows:\n{}",
                        self.shown()
                    ));
                }
            }
        }
    }

    /// Waits until this text is on the screen.
    ///
    /// # Errors
    /// As for [`Self::until`].
    pub fn until_text(&mut self, text: &str, limit: Duration) -> Result<(), String> {
        self.until(text, limit, |screen| screen.contents().contains(text))
    }

    /// Types.
    ///
    /// # Errors
    /// When nobody is at the terminal any more.
    pub fn type_in(&mut self, keys: &str) -> Result<(), String> {
        self.master
            .write_all(keys.as_bytes())
            .map_err(|error| format!("typing: {error}"))
    }

    /// Changes the size of the window.
    ///
    /// # Errors
    /// When the system does not.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<(), String> {
        self.emulator
            .screen_mut()
            .set_size(whole(rows), whole(cols));
        tcsetwinsize(&self.master, size(rows, cols)).map_err(|error| error.to_string())
    }

    /// Process id of the program of this name that was started at the terminal.
    pub fn process(&self, name: &str) -> Option<u32> {
        descendant(self.child.id(), name)
    }

    /// Waits for the command's end and returns its exit code.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ended(&mut self, limit: Duration) -> Result<Option<i32>, String> {
        let deadline = Instant::now() + limit;
        loop {
            // What still comes is taken: a full terminal would hold it up.
            match self.output.recv_timeout(Duration::from_millis(20)) {
                Ok(bytes) => {
                    self.emulator.process(&bytes);
                    continue;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status.code());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "it does not end; the screen shows:\n{}",
                    self.shown()
                ));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Without its terminal the command ends as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn whole(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap_or(NonZero::<u16>::MIN)
}

fn size(rows: u16, cols: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn pair(rows: u16, cols: u16) -> rustix::io::Result<(File, File)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    tcsetwinsize(&master, size(rows, cols))?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(&name, flags, Mode::empty())?;
    Ok((File::from(master), File::from(slave)))
}

fn descendant(pid: u32, name: &str) -> Option<u32> {
    let process = Path::new("/proc").join(pid.to_string());
    let comm = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    if comm.trim_end() == name {
        return Some(pid);
    }
    let children = process.join("task").join(pid.to_string()).join("children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .find_map(|child| descendant(child, name))
}
