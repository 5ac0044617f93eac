//! Keys of AWS, in the forms in which the host has them.

use crate::services::MAX_SECRET;
use sbx_credentials::sigv4::Keys;
use sbx_wire::secret::SecretText;
use serde::Deserialize;

/// What a `credential_process` writes (AWS SDKs and Tools Reference Guide, "Process credential provider"), as
/// `aws configure export-credentials` does.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Process {
    access_key_id: SecretText,
    secret_access_key: SecretText,
    session_token: Option<SecretText>,
}

/// The same as STS answers it, e.g. `aws sts get-session-token`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sts {
    credentials: Process,
}

/// The key as the gateway takes it: `ACCESS_KEY_ID:SECRET_ACCESS_KEY`, with `:SESSION_TOKEN` behind it if it has one. The
/// error: what is wrong with it, without its subject and without anything of it.
pub(crate) fn key(text: &SecretText) -> Result<SecretText, String> {
    if text.expose().len() > MAX_SECRET {
        return Err("is longer than 64 KiB".to_owned());
    }
    let plain = if text.expose().trim_start().starts_with('{') {
        of_json(text.expose()).ok_or(
            "is JSON, and not as the aws command writes a key (AccessKeyId, SecretAccessKey)",
        )?
    } else {
        text.clone()
    };
    Keys::parse(plain.expose()).map_err(|problem| problem.to_string())?;
    Ok(plain)
}

fn of_json(text: &str) -> Option<SecretText> {
    let process = serde_json::from_str::<Process>(text);
    let Process {
        access_key_id: id,
        secret_access_key: secret,
        session_token: token,
    } = process
        .or_else(|_| serde_json::from_str::<Sts>(text).map(|sts| sts.credentials))
        .ok()?;
    let (id, secret) = (id.expose(), secret.expose());
    Some(SecretText::new(match &token {
        Some(token) => format!("{id}:{secret}:{}", token.expose()),
        None => format!("{id}:{secret}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "ASIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY:token/+=";

    fn key_of(text: &str) -> Result<String, String> {
        key(&SecretText::new(text.to_owned())).map(|key| key.expose().to_owned())
    }

    #[test]
    fn a_key_is_taken_as_the_aws_command_writes_it() {
        let process = r#"{"Version": 1, "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
            "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "SessionToken": "token/+=", "Expiration": "2026-01-01T00:00:00Z"}"#;
        let sts = format!(r#"{{"Credentials": {process}}}"#);
        for text in [PLAIN, process, &sts] {
            assert_eq!(key_of(text).as_deref(), Ok(PLAIN));
        }
        let lasting = process
            .replace("ASIA", "AKIA")
            .replace(r#""SessionToken": "token/+=","#, r#""SessionToken": null,"#);
        assert_eq!(
            key_of(&lasting).unwrap(),
            "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
        );
    }

    #[test]
    fn what_is_no_key_is_said_without_repeating_it() {
        for (text, why) in [
            ("", "is not ACCESS_KEY_ID:"),
            ("wJalrXUtnFEMI", "is not ACCESS_KEY_ID:"),
            ("wJalrXUtnFEMI:AKIAIOSFODNN7EXAMPLE", "access key id"),
            ("{}", "is JSON"),
            (r#"{"AccessKeyId": "wJalrXUtnFEMI"}"#, "is JSON"),
            (PLAIN.rsplit_once(':').unwrap().0, "no session token"),
            (&format!("{PLAIN}\n"), "cannot be one"),
        ] {
            let problem = key_of(text).unwrap_err();
            assert!(problem.contains(why), "{text}: {problem}");
            assert!(
                !problem.contains("wJalr") && !problem.contains("IOSFO"),
                "{problem}"
            );
        }
    }
}
