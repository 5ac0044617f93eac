//! A value from the command line, from standard input or from the keyboard.

use super::Context;
use crate::prompt;
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use std::io::{IsTerminal, Read};

/// Longest secret, bytes.
const MAX_SECRET: u64 = 64 << 10;

/// The value: `given` on the command line, else from standard input or asked for. `command`: what to run instead.
pub(super) async fn obtain(
    context: &mut Context,
    given: Option<String>,
    what: &str,
    command: &str,
) -> Result<SecretText, Report> {
    let text = match given {
        Some(text) => {
            context.printer.notice(
                "warning: a value on the command line can be read by others in the process list",
            );
            text
        }
        None if prompt::possible(context.no_input) => {
            let question = format!("Value for {what} (not shown): ");
            prompt::hidden(&question, context.leave.clone()).await?
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Report::user(
                "no-value",
                format!("a value for '{what}' is needed and prompting is off"),
                format!("{command} < FILE"),
            ));
        }
        None => from_stdin()?,
    };
    let text = SecretText::new(text);
    let value = text.expose().trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(Report::user(
            "no-value",
            format!("no value for '{what}' came in"),
            format!("{command} < FILE"),
        ));
    }
    Ok(SecretText::new(value.to_owned()))
}

/// All of standard input.
pub(super) fn from_stdin() -> Result<String, Report> {
    let refused = |message: String, hint| Report::user("secret-input", message, hint);
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_SECRET + 1)
        .read_to_string(&mut text)
        .map_err(|error| refused(format!("cannot read the value: {error}"), "pass it as text"))?;
    if text.len() as u64 > MAX_SECRET {
        return Err(refused(
            "the value is over 64 KiB".to_owned(),
            "store a shorter one",
        ));
    }
    Ok(text)
}
