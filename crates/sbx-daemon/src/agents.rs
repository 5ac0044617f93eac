//! What each agent is given in its sandbox.

use sbx_image::Template;
use sbx_wire::guest::GuestFile;
use sbx_wire::report::Report;

/// The agent with this name.
pub(crate) fn find(name: &str) -> Result<Template, Report> {
    name.parse().map_err(|_| {
        let known: Vec<&str> = Template::ALL
            .iter()
            .map(|template| template.name())
            .collect();
        let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
        Report::user(
            "agent-unknown",
            format!("there is no agent '{shown}'"),
            format!("sbx run {}", known.join("|")),
        )
    })
}

/// Files that the agent finds in its home. `placeholder` gives a service's placeholder.
pub(crate) fn files(
    agent: Template,
    workspaces: &[&str],
    placeholder: impl Fn(&str) -> String,
) -> Vec<GuestFile> {
    match agent {
        Template::Shell => Vec::new(),
        Template::Claude => sbx_image::claude::files(workspaces, &placeholder("anthropic"))
            .into_iter()
            .map(without_key_helper)
            .collect(),
    }
}

/// Claude Code gets the placeholder as a variable, and only while a secret is stored: a helper that always
/// prints it would keep those without a key from signing in, and makes the key travel in two headers.
fn without_key_helper(mut file: GuestFile) -> GuestFile {
    if let Ok(serde_json::Value::Object(mut settings)) = serde_json::from_slice(&file.content)
        && settings.remove("apiKeyHelper").is_some()
    {
        file.content = format!("{:#}\n", serde_json::Value::Object(settings)).into_bytes();
    }
    file
}

/// Variables that the agent needs besides those of every sandbox.
pub(crate) fn variables(agent: Template) -> Vec<(String, String)> {
    match agent {
        Template::Shell => Vec::new(),
        // Telemetry and update checks: nobody asked for them, and they double the time to an answer.
        Template::Claude => {
            vec![(
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC".to_owned(),
                "1".to_owned(),
            )]
        }
    }
}

/// The service whose placeholder its files hold.
pub(crate) fn service(agent: Template) -> Option<&'static str> {
    match agent {
        Template::Shell => None,
        Template::Claude => Some("anthropic"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claude_is_given_its_key_by_variable_only() {
        let files = files(Template::Claude, &["/p"], |_| {
            "sk-ant-api03-0123456789abcdefghijklmnop".to_owned()
        });
        let all: String = files
            .iter()
            .map(|file| String::from_utf8_lossy(&file.content))
            .collect();
        assert!(
            !all.contains("apiKeyHelper") && all.contains("bypassPermissions"),
            "{all}"
        );
        assert!(all.contains("customApiKeyResponses"), "{all}");
    }
}
