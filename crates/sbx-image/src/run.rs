//! Running the host's programs: one way to start them, one way to say how they failed.

use crate::ImageError;
use crate::tools::search_path;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{env, io};

/// Longest line that is looked at, bytes; the rest of a longer one counts as the next line.
const MAX_LINE: u64 = 64 << 10;
/// Most bytes taken from a program whose whole output is wanted.
const MAX_OUTPUT: u64 = 1 << 20;
/// Lines kept for the error message, and characters of each.
const TAIL: usize = 4;
const TAIL_WIDTH: usize = 300;
/// What passes through from the caller's environment: the way to the network.
const PASSED: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// A host program with a known environment.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let passed = PASSED
        .iter()
        .filter_map(|name| Some((*name, env::var_os(name)?)));
    command
        .env_clear()
        .env("PATH", search_path())
        .env("HOME", env::var_os("HOME").unwrap_or_else(|| "/".into()))
        .env("LC_ALL", "C.UTF-8")
        .envs(passed.collect::<Vec<_>>())
        .stdin(Stdio::null());
    command
}

/// A program inside the root file system `tree`, with the environment of a boot.
pub(crate) fn chroot(tree: &Path, program: &str) -> Command {
    let mut command = command("chroot");
    command
        .arg(tree)
        .arg(program)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs `command` to its end, handing on every line of output as it comes and writing it to `log`.
pub(crate) fn lines(
    command: &mut Command,
    doing: &'static str,
    log: &mut File,
    on_line: &mut dyn FnMut(&str) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let program = name(command);
    let failed = |error: io::Error| start_failed(&program, doing, &error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    command
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer);
    let mut child = KillOnDrop(command.spawn().map_err(failed)?);
    // The command still holds the writing ends; without this the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tail = Tail::default();
    each_line(reader, |line| {
        let _ = writeln!(log, "{line}"); // the log is a convenience: never a reason to fail
        tail.add(line);
        on_line(line)
    })?;
    let status = child.0.wait().map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(tail.error(program, doing, status))
    }
}

/// Runs `command` to its end and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command, doing: &'static str) -> Result<String, ImageError> {
    let program = name(command);
    let failed = |error: io::Error| start_failed(&program, doing, &error);
    let (mut errors, writer) = io::pipe().map_err(failed)?;
    command.stdout(Stdio::piped()).stderr(writer);
    let mut child = KillOnDrop(command.spawn().map_err(failed)?);
    command.stderr(Stdio::null());
    // Read on a thread of its own, so that neither pipe can fill up while the other is waited for.
    let errors = std::thread::spawn(move || {
        let mut tail = Tail::default();
        let _ = each_line(&mut errors, |line| {
            tail.add(line);
            Ok(())
        });
        tail
    });
    let mut text = Vec::new();
    if let Some(stdout) = child.0.stdout.take() {
        stdout
            .take(MAX_OUTPUT)
            .read_to_end(&mut text)
            .map_err(failed)?;
    }
    let status = child.0.wait().map_err(failed)?;
    let tail = errors.join().unwrap_or_default();
    if !status.success() {
        return Err(tail.error(program, doing, status));
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Calls `on_line` for every line, without its end, of bounded length and valid UTF-8.
pub(crate) fn each_line(
    reader: impl Read,
    mut on_line: impl FnMut(&str) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(ImageError::io("read", Path::new("the output of a program")))? == 0 {
            return Ok(());
        }
        on_line(String::from_utf8_lossy(&line).trim_end())?;
    }
}

/// A child that does not outlive the interest in it.
pub(crate) struct KillOnDrop(pub(crate) Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail only for a child that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines of a program's output, and the errors among them.
#[derive(Default)]
struct Tail {
    last: VecDeque<String>,
    errors: VecDeque<String>,
    disk_full: bool,
}

impl Tail {
    fn add(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        self.disk_full |= line.contains("No space left on device");
        let is_error = ["E:", "W:", "error", "npm error", "npm ERR!"]
            .iter()
            .any(|prefix| line.starts_with(prefix));
        for (keep, lines) in [(true, &mut self.last), (is_error, &mut self.errors)] {
            if keep {
                lines.truncate(TAIL - 1);
                lines.push_front(line.chars().take(TAIL_WIDTH).collect());
            }
        }
    }

    fn error(self, program: String, doing: &'static str, status: ExitStatus) -> ImageError {
        if self.disk_full {
            return ImageError::DiskFull {
                dir: env::current_dir().unwrap_or_default(),
            };
        }
        let lines = if self.errors.is_empty() {
            self.last
        } else {
            self.errors
        };
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
        let tail = if tail.is_empty() {
            "it gave no reason".to_owned()
        } else {
            tail
        };
        ImageError::Tool {
            program,
            doing,
            status: status.to_string(),
            tail,
        }
    }
}

fn name(command: &Command) -> String {
    let path = Path::new(command.get_program());
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn start_failed(program: &str, doing: &'static str, error: &io::Error) -> ImageError {
    ImageError::Tool {
        program: program.to_owned(),
        doing,
        status: "could not be run".to_owned(),
        tail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<(), ImageError> {
        let mut log = tempfile::tempfile().unwrap();
        lines(
            command("sh").args(["-c", script]),
            "testing",
            &mut log,
            &mut |_| Ok(()),
        )
    }

    #[test]
    fn failure_names_the_error_lines_and_not_the_noise() {
        let error =
            shell("echo noise; echo 'E: no such package' >&2; echo more; exit 3").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("E: no such package") && text.contains("exit status: 3"),
            "{text}"
        );
        assert!(!text.contains("noise"), "{text}");
    }

    #[test]
    fn full_disk_is_told_apart() {
        let error = shell("echo 'tar: x: No space left on device' >&2; exit 2").unwrap_err();
        assert_eq!(error.report().code, "disk-full");
    }

    #[test]
    fn output_of_a_program_with_much_to_complain_about_arrives_whole() {
        let script = "yes complaint | head -c 300000 >&2; echo answer";
        assert_eq!(
            output(command("sh").args(["-c", script]), "testing").unwrap(),
            "answer\n"
        );
    }
}
