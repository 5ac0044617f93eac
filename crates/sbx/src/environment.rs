//! `-e KEY=VALUE`, `-e KEY` (copied from the host) and `--env-file`.

use sbx_wire::report::Report;
use std::path::PathBuf;

/// Variables for the sandbox, as flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct EnvironmentArgs {
    /// Set a variable: KEY=VALUE, or KEY to copy it from this environment; repeatable
    #[arg(short = 'e', long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file of KEY=VALUE lines; repeatable, later files win, --env wins over files
    #[arg(long = "env-file", value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl EnvironmentArgs {
    /// The variables in order: later ones win.
    pub(crate) fn resolve(&self) -> Result<Vec<(String, String)>, Report> {
        let mut variables = Vec::new();
        for file in &self.env_file {
            let text = std::fs::read_to_string(file).map_err(|error| {
                Report::user(
                    "env-file",
                    format!("cannot read {}: {error}", file.display()),
                    "name a readable file of KEY=VALUE lines",
                )
            })?;
            for line in text.lines().map(str::trim) {
                if !line.is_empty() && !line.starts_with('#') {
                    variables.extend(parse(line)?);
                }
            }
        }
        for item in &self.env {
            variables.extend(parse(item)?);
        }
        Ok(variables)
    }
}

/// `given` over `defaults`: each variable once, the user's word counts.
pub(crate) fn over(
    mut defaults: Vec<(String, String)>,
    given: Vec<(String, String)>,
) -> Vec<(String, String)> {
    defaults.retain(|(name, _)| !given.iter().any(|(other, _)| other == name));
    defaults.extend(given);
    defaults
}

fn parse(item: &str) -> Result<Option<(String, String)>, Report> {
    let (key, value) = match item.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (item, std::env::var(item).ok()),
    };
    let usable = !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    if !usable {
        return Err(Report::user(
            "env",
            format!("{item:?} does not name an environment variable"),
            "write KEY=VALUE with KEY of letters, digits and '_'",
        ));
    }
    if value.as_ref().is_some_and(|value| value.contains('\0')) {
        return Err(Report::user(
            "env",
            format!("the value of {key} holds a NUL byte"),
            "remove it",
        ));
    }
    Ok(value.map(|value| (key.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variable_is_given_once_and_the_user_s_word_counts() {
        let list = |text: &str| -> Vec<(String, String)> {
            text.split(' ')
                .filter_map(|item| parse(item).unwrap())
                .collect()
        };
        assert_eq!(over(list("A=1 B=2"), list("C=3 A=4")), list("B=2 C=3 A=4"));
    }

    #[test]
    fn values_may_hold_equal_signs_and_names_may_not_hold_blanks() {
        assert_eq!(parse("A=b=c").unwrap(), Some(("A".into(), "b=c".into())));
        assert_eq!(parse("SBX_SURELY_NOT_SET_ANYWHERE").unwrap(), None);
        assert!(parse("A B=c").is_err());
        assert!(parse("=c").is_err());
        assert!(parse("1A=c").is_err());
    }
}
