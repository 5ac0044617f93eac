//! Names that read as absent.

use crate::pattern::{Pattern, PatternError};

/// The file in a workspace that lists hidden names, a pattern on each line.
pub const FILE: &str = ".sbxignore";
/// Largest such file, bytes.
pub const MAX_FILE: usize = 64 << 10;
/// Stands for the names under which secrets are commonly kept.
pub const SECRETS: &str = "@secrets";

/// What [`SECRETS`] stands for.
const LIST: &[&str] = &[
    ".env",
    ".env.*",
    "!.env.example",
    "!.env.sample",
    "!.env.template",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    ".netrc",
    ".pgpass",
    ".npmrc",
    ".pypirc",
    ".aws/",
    ".ssh/",
    ".gnupg/",
    ".kube/",
    "credentials.json",
    "service-account*.json",
    "*.tfvars",
    "*.tfstate",
    "*.tfstate.backup",
];

/// A line of a list that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: '{text}' is no pattern: {error}")]
pub struct LineError {
    /// From 1.
    pub line: usize,
    /// The line, with what a terminal would act on escaped.
    pub text: String,
    /// What about it cannot be meant.
    pub error: PatternError,
}

/// Reads a list: empty lines and those that begin with `#` mean nothing; space at the end of a line neither.
///
/// # Errors
/// The first line that is no pattern. A list that is understood in part would show what it was to hide.
pub fn list(text: &str) -> Result<Vec<Pattern>, LineError> {
    let mut patterns = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // As in gitignore(5), for names that begin with these.
        let plain = line.strip_prefix('\\').filter(|rest| rest.starts_with('#'));
        let plain = plain.unwrap_or(line);
        expand(plain, &mut patterns).map_err(|error| LineError {
            line: number,
            text: line.escape_debug().to_string(),
            error,
        })?;
    }
    Ok(patterns)
}

/// One pattern, or the several that [`SECRETS`] stands for.
///
/// # Errors
/// What about it cannot be meant.
pub fn one(text: &str) -> Result<Vec<Pattern>, PatternError> {
    let mut patterns = Vec::new();
    expand(text, &mut patterns)?;
    Ok(patterns)
}

fn expand(text: &str, patterns: &mut Vec<Pattern>) -> Result<(), PatternError> {
    if text == SECRETS {
        for text in LIST {
            patterns.push(Pattern::parse(text)?);
        }
    } else {
        patterns.push(Pattern::parse(text)?);
    }
    Ok(())
}
