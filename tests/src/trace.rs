//! What a process does to its files, seen from outside by `strace(1)`, and made slower on purpose.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Calls that carry bytes to a file, and those that make them last.
const CALLS: &str =
    "write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,io_submit,io_uring_enter";

/// Attached for as long as it lives. Ended by the end of its standard input, because the tracer may be another
/// user's (`sudo`), whom we cannot signal.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    log: PathBuf,
    pid: u32,
}

/// One system call of the traced process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments as strace writes them, cut to a few hundred bytes; descriptors with their paths.
    pub arguments: String,
    /// What it returned; `None`: it had not returned when the tracer left.
    pub result: Option<i64>,
    /// Place of its beginning among all beginnings and ends.
    pub begun: usize,
    /// Place of its end.
    pub ended: Option<usize>,
}

impl Call {
    /// Whether its first argument is a descriptor of this file.
    pub fn is_on(&self, file: &Path) -> bool {
        let Some((_, rest)) = self.arguments.split_once('<') else {
            return false;
        };
        rest.split_once('>')
            .is_some_and(|(path, _)| Path::new(path) == file)
    }
}

/// Of attaching to every thread.
const ATTEMPTS: u32 = 5;

impl Trace {
    /// Attaches to every thread of `pid`. `delays`: system calls that begin only after this many seconds.
    ///
    /// # Errors
    /// Why the tracer does not run or may not attach.
    pub fn attach(pid: u32, delays: &[&str], seconds: u32, log: &Path) -> Result<Self, String> {
        for _ in 0..ATTEMPTS {
            let trace = Self::attach_once(pid, delays, seconds, log)?;
            // A thread that began while the others were attached to is missed, and so is what it does.
            if is_whole(pid) {
                return Ok(trace);
            }
        }
        Err(format!("some thread of {pid} is not traced"))
    }

    fn attach_once(pid: u32, delays: &[&str], seconds: u32, log: &Path) -> Result<Self, String> {
        let mut words = vec!["strace".to_owned(), "-f".to_owned(), "-y".to_owned()];
        let mut pair = |option: &str, value: String| words.extend([option.to_owned(), value]);
        pair("-s", "64".to_owned());
        pair("-e", format!("trace={CALLS}"));
        if !delays.is_empty() {
            let calls = delays.join(",");
            pair("-e", format!("inject={calls}:delay_enter={seconds}s"));
        }
        pair("-o", log.display().to_string());
        pair("-p", pid.to_string());
        // Only root may trace what it has not started, where the kernel is strict (`ptrace_scope`).
        let program = if rustix::process::getuid().is_root() {
            "sh"
        } else {
            "sudo"
        };
        let mut command = Command::new(program);
        if program == "sudo" {
            command.args(["-n", "sh"]);
        }
        let script = r#""$@" & tracer=$!; read -r _end; kill -TERM "$tracer"; wait "$tracer""#;
        command.args(["-c", script, "sh"]).args(words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        let mut said = String::new();
        let mut errors = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        while !said.contains(" attached") {
            if !matches!(errors.read_line(&mut said), Ok(1..)) {
                return Err(format!("strace cannot attach to {pid}: {said}"));
            }
        }
        // It says something of every further thread, and a pipe that nobody reads would end it (SIGPIPE).
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Ok(Self {
            child,
            log: log.into(),
            pid,
        })
    }

    /// Leaves the process and returns what it did, in the order of beginning.
    ///
    /// # Errors
    /// The record that cannot be read, or does not have everything.
    pub fn end(mut self) -> Result<Vec<Call>, String> {
        if !is_whole(self.pid) {
            return Err(format!("some thread of {} was not traced", self.pid));
        }
        drop(self.child.stdin.take());
        let _left = self.child.wait();
        // Bytes of a guest, escaped by strace.
        let text = fs::read_to_string(&self.log).map_err(|e| format!("the trace: {e}"))?;
        Ok(parse(&text))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _left = self.child.wait();
    }
}

/// Whether every thread of `pid` has a tracer.
fn is_whole(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads.flatten().all(|thread| {
        // One that has ended meanwhile does nothing any more.
        fs::read_to_string(thread.path().join("status"))
            .map_or(true, |status| !status.contains("TracerPid:\t0\n"))
    })
}

/// Lines are `PID NAME(ARGUMENTS) = RESULT`, or in two parts when another thread came between:
/// `PID NAME(ARGUMENTS <unfinished ...>` and `PID <... NAME resumed>REST) = RESULT`.
fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for (place, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if rest.starts_with("<... ") {
            if let Some(call) = open.remove(thread).and_then(|at| calls.get_mut(at)) {
                call.result = result(rest);
                call.ended = Some(place);
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else {
            continue;
        };
        let whole = !arguments.ends_with("<unfinished ...>");
        if !whole {
            open.insert(thread, calls.len());
        }
        calls.push(Call {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            result: if whole { result(arguments) } else { None },
            begun: place,
            ended: whole.then_some(place),
        });
    }
    calls
}

fn result(text: &str) -> Option<i64> {
    // Spaces before it bring short lines to one column.
    let (_, answer) = text.rsplit_once(" = ")?;
    answer.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_put_together_from_their_parts_in_the_order_of_what_happened() {
        let text = "\
71 pwritev(12</a/b.qcow2>, [{iov_base=\"x) = 1\", iov_len=4096}], 1, 0 <unfinished ...>
70  fdatasync(12</a/b.qcow2>)       = 0 (DELAYED)
71 <... pwritev resumed>) = 4096
72 fsync(5</c>) = -1 EIO (Input/output error)
73 fsync(5</c> <unfinished ...>";
        let calls = parse(text);
        let seen: Vec<_> = calls
            .iter()
            .map(|call| (call.name.as_str(), call.result, call.begun, call.ended))
            .collect();
        assert_eq!(
            seen,
            [
                ("pwritev", Some(4096), 0, Some(2)),
                ("fdatasync", Some(0), 1, Some(1)),
                ("fsync", Some(-1), 3, Some(3)),
                ("fsync", None, 4, None),
            ]
        );
        assert!(calls[0].is_on(Path::new("/a/b.qcow2")) && !calls[0].is_on(Path::new("/a/b")));
    }
}
