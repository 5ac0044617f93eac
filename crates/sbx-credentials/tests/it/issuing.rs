//! The calls that are answered with credentials, one by one: the tests of case 58 go through the table, and one that is lost
//! there would be lost here.

use sbx_credentials::services::TABLE;

/// Service, methods, host and path, and whether the answer is kept or the call refused.
const CALLS: &[(&str, &str, &str, &str, bool)] = &[
    (
        "anthropic",
        "ANY",
        "platform.claude.com",
        "/v1/oauth/token",
        true,
    ),
    (
        "anthropic",
        "ANY",
        "console.anthropic.com",
        "/v1/oauth/token",
        true,
    ),
    (
        "anthropic",
        "ANY",
        "api.anthropic.com",
        "/v1/oauth/token",
        true,
    ),
    ("anthropic", "ANY", "claude.ai", "/v1/oauth/token", true),
    (
        "anthropic",
        "ANY",
        "api.anthropic.com",
        "/api/oauth/claude_cli/create_api_key",
        true,
    ),
    (
        "copilot",
        "ANY",
        "api.github.com",
        "/copilot_internal/v2/token",
        true,
    ),
    ("cursor", "ANY", "api2.cursor.sh", "/auth/poll", true),
    ("cursor", "ANY", "api2.cursor.sh", "/oauth/token", true),
    (
        "cursor",
        "ANY",
        "api2.cursor.sh",
        "/auth/exchange_user_api_key",
        true,
    ),
    (
        "droid",
        "ANY",
        "api.workos.com",
        "/user_management/authenticate",
        true,
    ),
    (
        "github",
        "ANY",
        "github.com",
        "/login/oauth/access_token",
        true,
    ),
    (
        "github",
        "ANY",
        "api.github.com",
        "/app/installations/*/access_tokens",
        true,
    ),
    (
        "github",
        "PATCH",
        "api.github.com",
        "/applications/*/token",
        false,
    ),
    (
        "github",
        "POST",
        "api.github.com",
        "/applications/*/token/scoped",
        false,
    ),
    (
        "github",
        "POST",
        "api.github.com",
        "/app-manifests/*/conversions",
        false,
    ),
    (
        "github",
        "POST",
        "api.github.com",
        "/**/actions/runners/registration-token",
        false,
    ),
    (
        "github",
        "POST",
        "api.github.com",
        "/**/actions/runners/remove-token",
        false,
    ),
    (
        "github",
        "POST",
        "api.github.com",
        "/**/actions/runners/generate-jitconfig",
        false,
    ),
    ("google", "ANY", "oauth2.googleapis.com", "/token", true),
    (
        "google",
        "ANY",
        "oauth2.mtls.googleapis.com",
        "/token",
        true,
    ),
    (
        "google",
        "ANY",
        "www.googleapis.com",
        "/oauth2/*/token",
        true,
    ),
    (
        "google",
        "ANY",
        "accounts.google.com",
        "/o/oauth2/**/token",
        true,
    ),
    (
        "google",
        "POST",
        "generativelanguage.googleapis.com",
        "/*/auth_tokens",
        false,
    ),
    (
        "google",
        "POST",
        "generativelanguage.googleapis.com",
        "/*/authTokens",
        false,
    ),
    ("openai", "ANY", "auth.openai.com", "/oauth/token", true),
    ("openai", "ANY", "auth0.openai.com", "/oauth/token", true),
    (
        "openai",
        "POST",
        "api.openai.com",
        "/v1/organization/admin_api_keys",
        false,
    ),
    (
        "openai",
        "POST",
        "api.openai.com",
        "/v1/organization/projects/*/service_accounts",
        false,
    ),
    (
        "openai",
        "POST",
        "api.openai.com",
        "/v1/realtime/client_secrets",
        false,
    ),
    (
        "openai",
        "POST",
        "api.openai.com",
        "/v1/realtime/sessions",
        false,
    ),
    (
        "openai",
        "POST",
        "api.openai.com",
        "/v1/realtime/transcription_sessions",
        false,
    ),
    (
        "openai",
        "POST",
        "api.openai.com",
        "/v1/chatkit/sessions",
        false,
    ),
    (
        "openrouter",
        "ANY",
        "openrouter.ai",
        "/api/v1/auth/keys",
        true,
    ),
    ("openrouter", "POST", "openrouter.ai", "/api/v1/keys", false),
    (
        "xai",
        "POST",
        "api.x.ai",
        "/v1/realtime/client_secrets",
        false,
    ),
];

#[test]
fn every_call_that_is_answered_with_a_credential_is_in_the_table() {
    let calls = TABLE.iter().flat_map(|service| {
        let calls = service.issuing.iter();
        calls.map(|one| {
            (
                service.name,
                one.methods,
                one.host,
                one.path,
                one.kept.is_some(),
            )
        })
    });
    let calls: Vec<_> = calls.collect();
    assert_eq!(calls, CALLS);
}

#[test]
fn what_a_service_issues_under_one_home_is_kept_in_one_way() {
    let mut aliases = 0;
    for service in TABLE {
        let kept = || {
            service
                .issuing
                .iter()
                .filter_map(|one| Some((one, one.kept?)))
        };
        for (one, how) in kept() {
            aliases += usize::from(one.home() != one.host);
            for (other, other_how) in kept().filter(|(other, _)| other.home() == one.home()) {
                let what = format!("{} {} and {}", service.name, one.path, other.path);
                assert_eq!(format!("{how:?}"), format!("{other_how:?}"), "{what}");
            }
        }
    }
    assert!(aliases >= 5, "{aliases}");
}
