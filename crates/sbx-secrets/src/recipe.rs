//! Values that are not stored but fetched: only how to fetch them is stored.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How a value is fetched, and how often.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What gives it.
    pub origin: Origin,
    /// How long it is used.
    pub refresh: Refresh,
}

impl Recipe {
    /// What a list says in the place of the value: where it comes from and how often; of a command, which may have something
    /// secret in it, only the program, and not even that where it is not plainly one.
    pub fn shown(&self) -> String {
        let how = match self.refresh {
            Refresh::OnDemand => "on demand".to_owned(),
            Refresh::Every(seconds) => format!("every {seconds} s"),
        };
        match &self.origin {
            Origin::Command(line) => {
                format!("{} ... ({how})", program(line).unwrap_or("command"))
            }
            Origin::OnePassword { reference, .. } => format!("{reference} ({how})"),
            Origin::AwsSecretsManager { arn, .. } => format!("{arn} ({how})"),
        }
    }
}

/// The program that a command line starts, behind the variables that it sets for it. `None`: the line is more than
/// that; quotes, say, whose words may belong to anything.
fn program(line: &str) -> Option<&str> {
    let of = |text: &str, further: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || further.contains(c))
    };
    // A value of several words, or with a command behind it, would have something else look like the program.
    let is_variable = |word: &&str| {
        word.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && of(name, "_") && of(value, "._-+/~:@%,=")
        })
    };
    let word = line.split_whitespace().find(|word| !is_variable(word))?;
    of(word, "._-+/~").then_some(word)
}

/// A command may have something secret in it.
impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.origin.name())
    }
}

/// What gives a value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// Standard output of a command line of the host's shell.
    Command(String),
    /// The command line client of 1Password.
    OnePassword {
        /// `op://VAULT/ITEM/FIELD`.
        reference: String,
        /// The account that was chosen when it was stored (`OP_ACCOUNT`).
        account: Option<String>,
    },
    /// The command line client of AWS.
    AwsSecretsManager {
        /// ARN of the secret.
        arn: String,
        /// The profile that was chosen when it was stored (`AWS_PROFILE`).
        profile: Option<String>,
    },
}

impl Origin {
    /// What a list says holds the value.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::OnePassword { .. } => "1Password",
            Self::AwsSecretsManager { .. } => "AWS Secrets Manager",
        }
    }

    /// Reads a reference. `variable` gives a variable of whoever stores it.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn of_reference(
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, &'static str> {
        if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            return Err("the reference is too long or has control characters");
        }
        let chosen = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(path) = text.strip_prefix("op://") {
            let parts: Vec<&str> = path.split('/').collect();
            if !(3..=4).contains(&parts.len()) || parts.iter().any(|part| part.is_empty()) {
                return Err("a reference of 1Password is op://VAULT/ITEM/FIELD");
            }
            return Ok(Self::OnePassword {
                reference: text.to_owned(),
                account: chosen("OP_ACCOUNT"),
            });
        }
        if region(text).is_some() {
            return Ok(Self::AwsSecretsManager {
                arn: text.to_owned(),
                profile: chosen("AWS_PROFILE"),
            });
        }
        Err(
            "a reference is op://VAULT/ITEM/FIELD or the ARN of a secret in AWS Secrets Manager \
             (arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME)",
        )
    }

    /// Reads a command line.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn of_command(text: &str) -> Result<Self, &'static str> {
        if text.trim().is_empty() || text.len() > MAX_TEXT || text.contains('\0') {
            return Err("the command is empty, too long, or has a NUL in it");
        }
        Ok(Self::Command(text.to_owned()))
    }
}

/// Longest command or reference, bytes.
const MAX_TEXT: usize = 4096;

/// The region in the ARN of a secret.
pub(crate) fn region(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(7, ':');
    let partition = |part: &str| part == "aws" || part.starts_with("aws-");
    let is_arn =
        parts.next()? == "arn" && partition(parts.next()?) && parts.next()? == "secretsmanager";
    let region = parts.next()?;
    let is_region = !region.is_empty()
        && region
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let account = parts.next()?;
    let is_secret = account.bytes().all(|byte| byte.is_ascii_digit())
        && parts.next()? == "secret"
        && parts.next().is_some_and(|name| !name.is_empty());
    (is_arn && is_region && !region.starts_with('-') && is_secret).then_some(region)
}

/// How long a fetched value is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refresh {
    /// It is fetched each time it is needed.
    OnDemand,
    /// So many seconds; another one is fetched before they are over.
    Every(u64),
}

impl Refresh {
    /// That of services, unless something else is said.
    pub const SERVICES: Self = Self::Every(55 * 60);
    /// That of keys of AWS: its command gives keys that are good for another ten minutes at least
    /// (`_DEFAULT_MANDATORY_REFRESH_TIMEOUT` of botocore).
    pub const AWS: Self = Self::Every(10 * 60);
    /// Shortest and longest time, seconds.
    const BOUNDS: std::ops::RangeInclusive<u64> = 10..=7 * 24 * 3600;

    /// How long a value is used, if it is used for longer than one request.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::OnDemand => None,
            Self::Every(seconds) => Some(Duration::from_secs(seconds)),
        }
    }
}

impl FromStr for Refresh {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "on-demand" {
            return Ok(Self::OnDemand);
        }
        let rule =
            "the time between two fetches is on-demand or a time from 10s to 168h, such as 55m";
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[number.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(rule),
        };
        let seconds = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit));
        seconds
            .filter(|seconds| Self::BOUNDS.contains(seconds))
            .map(Self::Every)
            .ok_or(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_of_1password_or_of_aws() {
        let none = |_: &str| None;
        let account = |name: &str| (name == "OP_ACCOUNT").then(|| "work".to_owned());
        let Ok(Origin::OnePassword { account, .. }) = Origin::of_reference("op://v/i/f", account)
        else {
            panic!("no reference of 1Password")
        };
        assert_eq!(account.as_deref(), Some("work"));
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/key-a1B2c3";
        assert_eq!(region(arn), Some("eu-west-1"));
        assert!(Origin::of_reference(arn, none).is_ok());
        for bad in [
            "",
            "op://v/i",
            "op://v//f",
            "op://v/i/f\n",
            "arn:aws:s3:eu-west-1:1:secret:x",
            "arn:aws:secretsmanager:--x:1:secret:x",
            "arn:aws:secretsmanager:eu-west-1:1:secret:",
            "vault://x",
        ] {
            assert!(Origin::of_reference(bad, none).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_a_command_only_a_plain_program_is_shown() {
        let shown = |line: &str| {
            let origin = Origin::of_command(line).unwrap();
            let refresh = Refresh::OnDemand;
            Recipe { origin, refresh }.shown()
        };
        for (line, program) in [
            ("vault kv get -field=k s", "vault"),
            ("VAULT_TOKEN=hvs.SECRET vault kv get s", "vault"),
            (" A=SECRET B=SECRET ~/bin/get-key", "~/bin/get-key"),
            ("A=SECRET", "command"),
            ("A='SECRET SECRET' vault", "command"),
            ("A=\"SECRET SECRET\" vault", "command"),
            ("A=SECRET\\ SECRET vault", "command"),
            ("A=$(echo SECRET) vault", "command"),
            ("A=`echo SECRET` vault", "command"),
            ("A=1;vault SECRET", "command"),
            ("A=1&&vault SECRET", "command"),
            ("$SECRET", "command"),
            ("'SECRET SECRET' x", "command"),
            ("https://u:SECRET@host", "command"),
            ("TOKEN+=SECRET vault", "command"),
            ("echo;SECRET", "command"),
        ] {
            assert_eq!(shown(line), format!("{program} ... (on demand)"), "{line}");
        }
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!("on-demand".parse(), Ok(Refresh::OnDemand));
        assert_eq!("55m".parse(), Ok(Refresh::SERVICES));
        for bad in [
            "",
            "55",
            "9s",
            "169h",
            "1d",
            "m",
            "-5m",
            "99999999999999999999h",
        ] {
            assert!(bad.parse::<Refresh>().is_err(), "{bad}");
        }
    }
}
