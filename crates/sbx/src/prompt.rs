//! Questions to the person at the terminal. Without a terminal, or with `--no-input`, a question is an error
//! that names the command to run instead.

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use sbx_wire::report::Report;
use std::io::{BufRead, IsTerminal, Write};

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

/// Reads a value that is not echoed: the whole line, as from a pipe.
pub(crate) fn hidden(question: &str) -> Result<String, Report> {
    let stdin = rustix::stdio::stdin();
    let before = tcgetattr(stdin).ok();
    if let Some(before) = &before {
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let _still_echoing = tcsetattr(stdin, OptionalActions::Now, &quiet);
    }
    let answer = line(question);
    if let Some(before) = &before {
        let _gone = tcsetattr(stdin, OptionalActions::Now, before);
        let _gone = writeln!(std::io::stderr());
    }
    let answer = answer.map(|line| line.trim_end_matches(['\r', '\n']).to_owned());
    answer.ok_or_else(|| Report::user("no-value", "no value was typed", "run the command again"))
}

fn ask(question: &str) -> Option<String> {
    line(question).map(|line| line.trim().to_owned())
}

/// What is typed, with the line's end; `None`: nobody types any more.
fn line(question: &str) -> Option<String> {
    let mut err = std::io::stderr().lock();
    write!(err, "{question}").and_then(|()| err.flush()).ok()?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).ok()?;
    (read > 0).then_some(line)
}
