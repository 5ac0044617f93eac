//! Questions to the person at the terminal. Without a terminal, or with `--no-input`, a question is an error
//! that names the command to run instead.

use crate::signals::Signals;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use sbx_wire::report::Report;
use std::io::{BufRead, IsTerminal, StderrLock, Write};
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;

/// Whether questions may be asked.
pub(crate) fn possible(no_input: bool) -> bool {
    !no_input && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks yes or no; enter alone is no.
pub(crate) fn confirm(question: &str) -> bool {
    matches!(
        ask(&format!("{question} [y/N] ")).as_deref(),
        Some("y" | "Y" | "yes")
    )
}

/// Asks for one of `options`, by number or by its first word; enter alone is `default`.
pub(crate) fn choose<'a>(question: &str, options: &[&'a str], default: usize) -> Option<&'a str> {
    let mut text = format!("{question}\n");
    for (index, option) in options.iter().enumerate() {
        let mark = if index == default { "*" } else { " " };
        text.push_str(&format!("{mark} {}. {option}\n", index + 1));
    }
    let answer = ask(&format!("{text}> "))?;
    if answer.is_empty() {
        return options.get(default).copied();
    }
    let by_number = answer
        .parse::<usize>()
        .ok()
        .and_then(|n| options.get(n.checked_sub(1)?));
    by_number
        .or_else(|| {
            options
                .iter()
                .find(|o| o.split_whitespace().next() == Some(answer.as_str()))
        })
        .copied()
}

/// Reads a value that is not echoed: the whole line, as from a pipe. From then on signals that end the command go to
/// `leave`; whoever drops this at one has the terminal as it was.
pub(crate) async fn hidden(
    question: &str,
    leave: mpsc::Sender<SignalKind>,
) -> Result<String, Report> {
    // They stay caught: what was once caught does not end a process by itself any more.
    let signals = Signals::catch();
    tokio::spawn(async move { leave.send(signals.any().await).await });
    let quiet = Quiet::enter();
    let question = question.to_owned();
    // A thread that still reads does not hold up the end of the command.
    let answer = tokio::task::spawn_blocking(move || line(&question)).await;
    drop(quiet);
    let answer = answer.ok().flatten();
    let answer = answer.map(|line| line.trim_end_matches(['\r', '\n']).to_owned());
    answer.ok_or_else(|| Report::user("no-value", "no value was typed", "run the command again"))
}

/// A terminal that does not echo; it does again, on a new line, when this is dropped.
struct Quiet(Option<Termios>);

impl Quiet {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_modes.remove(LocalModes::ECHO);
            let _still_echoing = tcsetattr(stdin, OptionalActions::Now, &quiet);
        }
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _gone = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
            let _gone = writeln!(std::io::stderr());
        }
    }
}

fn ask(question: &str) -> Option<String> {
    line(question).map(|line| line.trim().to_owned())
}

/// What is typed, with the line's end; `None`: nobody types any more.
fn line(question: &str) -> Option<String> {
    let ask = |mut err: StderrLock<'_>| write!(err, "{question}").and_then(|()| err.flush());
    // Others write there while this one waits.
    ask(std::io::stderr().lock()).ok()?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).ok()?;
    (read > 0).then_some(line)
}
