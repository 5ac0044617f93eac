//! The load generator as its user sees it: jobs go in, outcomes come out.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::load::{Job, Outcome, Set};

/// A load generator that runs. It ends with the value.
pub(crate) struct Generator {
    child: Child,
    jobs: Option<ChildStdin>,
    outcomes: BufReader<ChildStdout>,
}

impl Drop for Generator {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Generator {
    /// Starts one with a command for this program, which may run it elsewhere.
    pub(crate) fn start(mut command: Command, set: &Set) -> Result<Self, String> {
        command.args(["part", "load"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start the load generator: {error}"))?;
        let jobs = child.stdin.take();
        let outcomes = child.stdout.take().ok_or("no output")?;
        let mut this = Self {
            child,
            jobs,
            outcomes: BufReader::new(outcomes),
        };
        this.write(set)?;
        Ok(this)
    }

    fn write(&mut self, what: &impl serde::Serialize) -> Result<(), String> {
        let mut line = serde_json::to_string(what).map_err(|e| e.to_string())?;
        line.push('\n');
        let jobs = self.jobs.as_mut().ok_or("no input")?;
        jobs.write_all(line.as_bytes())
            .and_then(|()| jobs.flush())
            .map_err(|error| format!("the load generator has ended: {error}"))
    }

    /// Does one job.
    pub(crate) fn run(&mut self, job: &Job) -> Result<Outcome, String> {
        self.write(job)?;
        let mut line = String::new();
        self.outcomes
            .read_line(&mut line)
            .map_err(|e| e.to_string())?;
        let outcome: Outcome = serde_json::from_str(&line)
            .map_err(|error| format!("the load generator has ended: {error}"))?;
        match outcome.error {
            Some(error) => Err(format!("{job:?}: {error}")),
            None => Ok(outcome),
        }
    }
}
