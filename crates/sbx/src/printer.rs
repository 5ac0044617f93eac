//! The one place that prints: data on standard output, everything else on standard error.

use crate::exit::Exit;
use crate::table::{safe, safe_json};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sbx_wire::api::Progress;
use sbx_wire::report::{Blame, Report};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

/// Prints, and knows whether a person is watching.
#[derive(Debug)]
pub(crate) struct Printer {
    debug: bool,
    bar: Option<ProgressBar>,
    last_step: String,
    /// Why data is missing where it was to go; the first reason.
    unwritten: Option<String>,
}

impl Printer {
    pub(crate) fn new(debug: bool) -> Self {
        Self {
            debug,
            bar: None,
            last_step: String::new(),
            unwritten: None,
        }
    }

    /// A line of data. A reader that has gone away is not an error of ours: the rest is dropped. What finds no room is
    /// one at the end of the command ([`Printer::conclude`]).
    pub(crate) fn line(&mut self, text: &str) {
        let _over = self.line_to_reader(text);
    }

    /// [`Printer::line`] for output without end. False: there is no use in more.
    pub(crate) fn line_to_reader(&mut self, text: &str) -> bool {
        self.finish_progress();
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{text}").and_then(|()| out.flush());
        if let Err(error) = &written
            && error.kind() != ErrorKind::BrokenPipe
        {
            self.unwritten.get_or_insert_with(|| error.to_string());
        }
        written.is_ok()
    }

    /// How a command ends whose work ended like this: what is missing in its data must not look like all of it.
    pub(crate) fn conclude(&mut self, exit: Exit) -> Exit {
        match self.unwritten.take() {
            Some(why) => self.report(&unwritten("the output", &why)),
            None => exit,
        }
    }

    /// One JSON document, indented.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Report> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Report::bug("json", format!("cannot print JSON: {error}")))?;
        self.line(&safe_json(&text));
        Ok(())
    }

    /// A line for the person at the terminal. What it says may have been named by anybody.
    pub(crate) fn notice(&mut self, text: &str) {
        let _reader_gone = self.notice_to_reader(text);
    }

    /// [`Printer::notice`], where it matters whether it went anywhere. False: nobody reads it.
    pub(crate) fn notice_to_reader(&mut self, text: &str) -> bool {
        self.finish_progress();
        writeln!(std::io::stderr().lock(), "{}", safe(text)).is_ok()
    }

    /// A line under `--debug`.
    pub(crate) fn debug(&mut self, text: &str) {
        if self.debug {
            self.notice(&format!("debug: {text}"));
        }
    }

    /// An error in two lines, and its exit code. What a program said of it follows the first, further in than any line of
    /// ours begins.
    pub(crate) fn report(&mut self, report: &Report) -> Exit {
        let mut lines = report.message.lines();
        self.notice(&format!("error: {}", lines.next().unwrap_or_default()));
        for line in lines {
            self.notice(&format!("    {line}"));
        }
        match (&report.hint, report.blame) {
            (Some(hint), _) => self.notice(&format!("  try: {hint}")),
            (None, Blame::Bug) => {
                self.notice("  try: `sbx daemon status` names the log; please report this");
            }
            (None, _) => {}
        }
        Exit::Failure
    }

    /// Shows progress: a line that changes on a terminal, one line a step elsewhere.
    pub(crate) fn progress(&mut self, progress: &Progress) {
        if !std::io::stderr().is_terminal() {
            if self.last_step != progress.step {
                self.last_step.clone_from(&progress.step);
                let _reader_gone = writeln!(std::io::stderr().lock(), "{} …", safe(&progress.step));
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let count = if progress.total > 0 {
            format!(" {}/{}", progress.done, progress.total)
        } else {
            String::new()
        };
        let text = format!("{}{count} {}", progress.step, progress.detail);
        bar.set_message(safe(&text));
    }

    /// Removes the progress line.
    pub(crate) fn finish_progress(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Data that finds no place on our side: a full disk, say. `what` it is, as a sentence begins.
pub(crate) fn unwritten(what: &str, why: &str) -> Report {
    Report::environment(
        "output",
        format!("{what} cannot be written here: {why}"),
        "free space, or send the output elsewhere",
    )
}
