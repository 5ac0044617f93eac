//! House rules that no compiler checks: file sizes, forbidden strings, ignored tests, loggers
//! that may panic.

use crate::run::{Failure, Result};
use std::fs;
use std::process::Command;

/// Hard limit on the body of a file, in lines: what stands before its test module.
const MAX_BODY: usize = 800;

/// Checks every file that git knows.
pub(crate) fn check() -> Result {
    let mut found = Vec::new();
    for file in files()? {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        if std::path::Path::new(&file)
            .extension()
            .is_some_and(|kind| kind == "rs")
        {
            found.extend(rust(&file, &text));
        }
        found.extend(strings(&file, &text));
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!("house rules are broken:\n  {}", found.join("\n  ")),
        "see CONTRIBUTING.md, House rules",
    ))
}

fn files() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .output()
        .map_err(|error| Failure::new(format!("cannot run git: {error}"), "apt-get install git"))?;
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(list
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

fn rust(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let body = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count();
    if body > MAX_BODY {
        found.push(format!(
            "{file}: the body has {body} lines, the limit is {MAX_BODY}"
        ));
    }
    // In two parts, so that this file has no logger.
    let logger = concat!("tracing_subscriber::", "fmt()");
    if text.contains(logger) && !text.contains(".log_internal_errors(false)") {
        found.push(format!(
            "{file}: a logger that cannot write says so on standard error, and panics where that fails too; it needs log_internal_errors(false)"
        ));
    }
    for (index, line) in text.lines().enumerate() {
        // A test that another test runs in a process of its own is not ignored.
        let ignored = line.trim_start().starts_with("#[ignore");
        if ignored && !line.contains("= \"run by") {
            found.push(format!("{file}:{}: a test is ignored", index + 1));
        }
    }
    found
}

/// Host names of package registries: presets cover them by domain patterns, and nothing else may name them.
fn strings(file: &str, text: &str) -> Vec<String> {
    if file == "Cargo.lock" {
        return Vec::new();
    }
    // Written in two parts so that this file does not contain what it looks for.
    let hosts = [
        ("registry.npm", "js"),
        ("static.cra", "tes.io"),
        ("index.cra", "tes.io"),
        ("files.python", "hosted"),
        ("deb.deb", "ian.org"),
        ("security.deb", "ian.org"),
    ];
    hosts
        .iter()
        .map(|(a, b)| format!("{a}{b}"))
        .filter(|host| text.contains(host.as_str()))
        .map(|host| format!("{file}: names the registry host {host}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_names_a_registry_or_may_end_by_its_log_is_found() {
        let long = "x\n".repeat(MAX_BODY + 1);
        assert_eq!(rust("a.rs", &long).len(), 1);
        assert_eq!(rust("a.rs", &format!("x\n#[cfg(test)]\n{long}")).len(), 0);
        assert_eq!(rust("a.rs", "#[ignore]").len(), 1);
        assert_eq!(
            rust("a.rs", "#[ignore = \"run by the test above\"]").len(),
            0
        );
        let logger = concat!("tracing_subscriber::", "fmt()");
        assert_eq!(rust("a.rs", logger).len(), 1);
        let quiet = format!("{logger}.log_internal_errors(false)");
        assert_eq!(rust("a.rs", &quiet).len(), 0);
        assert_eq!(
            strings("a.md", &["https://registry.npm", "js.org"].concat()).len(),
            1
        );
        assert_eq!(strings("a.md", ".npmjs.org").len(), 0);
    }
}
