//! Calls that are answered with credentials, by service. "Not confirmed": neither the vendor's documents nor a client that
//! was run say so.

use super::{Consent, Endpoint, Kept, Refreshed};

/// Names of the token in an answer of OAuth 2.0.
const ACCESS: &[&str] = &["access_token", "accessToken"];

/// One that is refused.
const fn refused(host: &'static str, methods: &'static str, path: &'static str) -> Endpoint {
    Endpoint {
        host,
        methods,
        path,
        kept: None,
    }
}

/// One whose answer is kept, whichever method it takes.
const fn kept(host: &'static str, path: &'static str, kept: &'static Kept) -> Endpoint {
    Endpoint {
        host,
        methods: "ANY",
        path,
        kept: Some(kept),
    }
}

/// A token endpoint that refreshes what it issued.
const fn oauth(
    resources: &'static [&'static str],
    host: &'static str,
    path: &'static str,
    client: Option<&'static str>,
    json: bool,
) -> Kept {
    Kept {
        sign_in: true,
        resources,
        conversation: true,
        token: ACCESS,
        refreshed: Some(Refreshed {
            host,
            path,
            client,
            json,
        }),
    }
}

const CLAUDE: &[&str] = &[
    "api.anthropic.com",
    "claude.ai",
    "mcp-proxy.anthropic.com",
    "platform.claude.com",
    "console.anthropic.com",
];
const CLAUDE_PATH: &str = "/v1/oauth/token";
const CLAUDE_CODE: Option<&str> = Some("9d1c250a-e61b-44d9-88ed-5944d1962f5e");

const CLAUDE_KEPT: Kept = oauth(
    CLAUDE,
    "platform.claude.com",
    CLAUDE_PATH,
    CLAUDE_CODE,
    true,
);

/// Claude Code signs in at the first, older ones at the second; the next two are other names of the same, which other
/// clients use. Who has an account without a subscription has a key made.
pub(super) const ANTHROPIC: &[Endpoint] = &[
    kept("platform.claude.com", CLAUDE_PATH, &CLAUDE_KEPT),
    kept(
        "console.anthropic.com",
        CLAUDE_PATH,
        &oauth(
            CLAUDE,
            "console.anthropic.com",
            CLAUDE_PATH,
            CLAUDE_CODE,
            true,
        ),
    ),
    kept("api.anthropic.com", CLAUDE_PATH, &CLAUDE_KEPT),
    kept("claude.ai", CLAUDE_PATH, &CLAUDE_KEPT),
    kept(
        "api.anthropic.com",
        "/api/oauth/claude_cli/create_api_key",
        &Kept {
            sign_in: true,
            resources: CLAUDE,
            conversation: true,
            token: &["raw_key"],
            refreshed: None,
        },
    ),
];

const COPILOT_HOSTS: &[&str] = &[".githubcopilot.com", "copilot.github.com"];

/// The token that Copilot's clients have a token of GitHub exchanged for.
pub(super) const COPILOT: &[Endpoint] = &[kept(
    "api.github.com",
    "/copilot_internal/v2/token",
    &Kept {
        sign_in: true,
        resources: COPILOT_HOSTS,
        conversation: true,
        token: &["token"],
        refreshed: None,
    },
)];

const CURSOR_HOSTS: &[&str] = &[
    "api2.cursor.sh",
    "api3.cursor.sh",
    "repo42.cursor.sh",
    "cursor.com",
];
const CURSOR_KEPT: Kept = oauth(
    CURSOR_HOSTS,
    "api2.cursor.sh",
    "/oauth/token",
    Some("KbZUR41cY7W6zRSdpIUJ7I7mLYBKOCmB"),
    true,
);

/// The refresh and the exchange of a key are not confirmed.
pub(super) const CURSOR: &[Endpoint] = &[
    kept("api2.cursor.sh", "/auth/poll", &CURSOR_KEPT),
    kept("api2.cursor.sh", "/oauth/token", &CURSOR_KEPT),
    kept(
        "api2.cursor.sh",
        "/auth/exchange_user_api_key",
        &CURSOR_KEPT,
    ),
];

/// Factory has its users signed in by WorkOS. Not confirmed.
pub(super) const DROID: &[Endpoint] = &[kept(
    "api.workos.com",
    "/user_management/authenticate",
    &oauth(
        &["api.factory.ai", "app.factory.ai", "relay.factory.ai"],
        "api.workos.com",
        "/user_management/authenticate",
        None,
        true,
    ),
)];

const GITHUB_HOSTS: &[&str] = &[
    "api.github.com",
    "github.com",
    "gist.github.com",
    "raw.githubusercontent.com",
    "uploads.github.com",
    ".githubcopilot.com",
    "copilot.github.com",
];

/// Sign-in of an application or a device, tokens of an installation; refused: tokens of an application's users, keys of a
/// new application, runners.
pub(super) const GITHUB: &[Endpoint] = &[
    kept(
        "github.com",
        "/login/oauth/access_token",
        &Kept {
            conversation: false,
            ..oauth(
                GITHUB_HOSTS,
                "github.com",
                "/login/oauth/access_token",
                None,
                false,
            )
        },
    ),
    kept(
        "api.github.com",
        "/app/installations/*/access_tokens",
        &Kept {
            sign_in: true,
            resources: GITHUB_HOSTS,
            conversation: false,
            token: &["token"],
            refreshed: None,
        },
    ),
    refused("api.github.com", "PATCH", "/applications/*/token"),
    refused("api.github.com", "POST", "/applications/*/token/scoped"),
    refused("api.github.com", "POST", "/app-manifests/*/conversions"),
    refused(
        "api.github.com",
        "POST",
        "/**/actions/runners/registration-token",
    ),
    refused("api.github.com", "POST", "/**/actions/runners/remove-token"),
    refused(
        "api.github.com",
        "POST",
        "/**/actions/runners/generate-jitconfig",
    ),
];

const GOOGLE_KEPT: Kept = oauth(
    &[
        "cloudcode-pa.googleapis.com",
        "generativelanguage.googleapis.com",
        "aiplatform.googleapis.com",
        "vertexai.googleapis.com",
        "www.googleapis.com",
        "openidconnect.googleapis.com",
    ],
    "oauth2.googleapis.com",
    "/token",
    None,
    false,
);

/// Of the models' API, and where users sign in to use it: under the name of today, and under those that older libraries and
/// others use.
pub(super) const GOOGLE: &[Endpoint] = &[
    kept("oauth2.googleapis.com", "/token", &GOOGLE_KEPT),
    kept("oauth2.mtls.googleapis.com", "/token", &GOOGLE_KEPT),
    kept("www.googleapis.com", "/oauth2/*/token", &GOOGLE_KEPT),
    kept("accounts.google.com", "/o/oauth2/**/token", &GOOGLE_KEPT),
    refused(
        "generativelanguage.googleapis.com",
        "POST",
        "/*/auth_tokens",
    ),
    refused("generativelanguage.googleapis.com", "POST", "/*/authTokens"),
];

const CODEX_CLIENT: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// What Codex asks for when it signs in itself.
pub(super) const CODEX: Consent = Consent {
    page: "https://auth.openai.com/oauth/authorize",
    token: ("auth.openai.com", "/oauth/token"),
    client: CODEX_CLIENT,
    scope: "openid profile email offline_access",
    more: &[
        ("id_token_add_organizations", "true"),
        ("codex_cli_simplified_flow", "true"),
    ],
    ports: &[1455, 1457],
    callback: "/auth/callback",
};

const OPENAI_HOSTS: &[&str] = &["chatgpt.com", "www.chatgpt.com", "api.openai.com"];

/// Codex signs in at the first; the second is that of older clients. Refused: keys of an organisation, and those for a
/// program in a browser.
pub(super) const OPENAI: &[Endpoint] = &[
    kept(
        "auth.openai.com",
        "/oauth/token",
        &oauth(
            OPENAI_HOSTS,
            "auth.openai.com",
            "/oauth/token",
            Some(CODEX_CLIENT),
            true,
        ),
    ),
    kept(
        "auth0.openai.com",
        "/oauth/token",
        &oauth(OPENAI_HOSTS, "auth0.openai.com", "/oauth/token", None, true),
    ),
    refused("api.openai.com", "POST", "/v1/organization/admin_api_keys"),
    refused(
        "api.openai.com",
        "POST",
        "/v1/organization/projects/*/service_accounts",
    ),
    refused("api.openai.com", "POST", "/v1/realtime/client_secrets"),
    refused("api.openai.com", "POST", "/v1/realtime/sessions"),
    refused(
        "api.openai.com",
        "POST",
        "/v1/realtime/transcription_sessions",
    ),
    refused("api.openai.com", "POST", "/v1/chatkit/sessions"),
];

/// Sign-in of an application; refused: keys that a key for management makes.
pub(super) const OPENROUTER: &[Endpoint] = &[
    kept(
        "openrouter.ai",
        "/api/v1/auth/keys",
        &Kept {
            sign_in: true,
            resources: &["openrouter.ai"],
            conversation: true,
            token: &["key"],
            refreshed: None,
        },
    ),
    refused("openrouter.ai", "POST", "/api/v1/keys"),
];

/// Keys for a program in a browser.
pub(super) const XAI: &[Endpoint] = &[refused("api.x.ai", "POST", "/v1/realtime/client_secrets")];
