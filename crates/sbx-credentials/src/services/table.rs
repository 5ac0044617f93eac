//! One row a service. "Not confirmed": neither the vendor's documents nor a client that was run say so.

use super::{Form, Part, Scheme, Service, issuing};
use crate::shape::{
    Alphabet::{Base32, Base62, Hex, UrlSafe},
    Piece::{GithubChecksum, Random, Text},
    Shape,
};

const BEARER: Scheme = Scheme::Header {
    name: "authorization",
    format: "Bearer %s",
};

/// A form for a model's API.
const fn model(hosts: &'static [&'static str], scheme: Scheme) -> Form {
    Form {
        hosts,
        scheme,
        conversation: true,
        yields: false,
    }
}

/// A form for any other API.
const fn api(hosts: &'static [&'static str], scheme: Scheme) -> Form {
    Form {
        hosts,
        scheme,
        conversation: false,
        yields: false,
    }
}

const fn key(names: &'static [&'static str], shape: Shape) -> Part {
    Part {
        import: names,
        guest: names,
        shape,
        optional: false,
    }
}

/// A token of GitHub's OAuth applications: the command line clients take it everywhere, which they do not do with the older
/// personal ones.
const GITHUB_TOKEN: Shape = &[Text("gho_"), Random(Base62, 30), GithubChecksum];

/// The hosts of AWS, in all its parts that [`crate::sigv4::Endpoint`] knows: which key is good in which of them the account
/// says, and each of them says itself which region and service a request is signed for.
const AWS: &[&str] = &[
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".api.amazonwebservices.com.cn",
    ".api.amazonwebservices.eu",
    ".api.aws",
    "*.lambda-url.*.on.aws",
];

/// Bedrock's models and agents among them, behind a VPC's own names too.
const AWS_MODELS: &[&str] = &[
    "bedrock-agent-runtime*.*.amazonaws.com",
    "bedrock-agent-runtime*.*.amazonaws.com.cn",
    "bedrock-agent-runtime*.*.amazonaws.eu",
    "bedrock-agent-runtime*.*.api.amazonwebservices.com.cn",
    "bedrock-agent-runtime*.*.api.amazonwebservices.eu",
    "bedrock-agent-runtime*.*.api.aws",
    "bedrock-mantle*.*.api.aws",
    "bedrock-runtime*.*.amazonaws.com",
    "bedrock-runtime*.*.amazonaws.com.cn",
    "bedrock-runtime*.*.amazonaws.eu",
    "bedrock-runtime*.*.api.amazonwebservices.com.cn",
    "bedrock-runtime*.*.api.amazonwebservices.eu",
    "bedrock-runtime*.*.api.aws",
    "*.bedrock-agent-runtime*.*.vpce.amazonaws.com",
    "*.bedrock-agent-runtime*.*.vpce.amazonaws.com.cn",
    "*.bedrock-runtime*.*.vpce.amazonaws.com",
    "*.bedrock-runtime*.*.vpce.amazonaws.com.cn",
];

/// All services, in order of name.
pub const TABLE: &[Service] = &[
    Service {
        name: "anthropic",
        parts: &[key(
            &["ANTHROPIC_API_KEY"],
            &[Text("sk-ant-api03-"), Random(UrlSafe, 93), Text("AA")],
        )],
        forms: &[model(
            &[
                "api.anthropic.com",
                "console.anthropic.com",
                "claude.ai",
                "mcp-proxy.anthropic.com",
            ],
            Scheme::Header {
                name: "x-api-key",
                format: "%s",
            },
        )],
        issuing: issuing::ANTHROPIC,
        consent: None,
    },
    Service {
        name: "aws",
        parts: &[
            key(&["AWS_ACCESS_KEY_ID"], &[Text("AKIA"), Random(Base32, 16)]),
            key(&["AWS_SECRET_ACCESS_KEY"], &[Random(Base62, 40)]),
            Part {
                import: &["AWS_SESSION_TOKEN"],
                guest: &[],
                shape: &[],
                optional: true,
            },
        ],
        forms: &[model(AWS_MODELS, Scheme::Sigv4), api(AWS, Scheme::Sigv4)],
        issuing: &[],
        consent: None,
    },
    Service {
        name: "copilot",
        parts: &[key(&["COPILOT_GITHUB_TOKEN"], GITHUB_TOKEN)],
        forms: &[
            model(
                &[
                    "api.githubcopilot.com",
                    "api.individual.githubcopilot.com",
                    "api.business.githubcopilot.com",
                    "api.enterprise.githubcopilot.com",
                    "copilot.github.com",
                ],
                BEARER,
            ),
            Form {
                yields: true,
                ..api(&["api.github.com"], BEARER)
            },
        ],
        issuing: issuing::COPILOT,
        consent: None,
    },
    Service {
        name: "cursor",
        // The shape is not confirmed.
        parts: &[key(&["CURSOR_API_KEY"], &[Text("key_"), Random(Hex, 64)])],
        forms: &[model(
            &[
                "api2.cursor.sh",
                "api3.cursor.sh",
                "repo42.cursor.sh",
                "cursor.com",
            ],
            BEARER,
        )],
        issuing: issuing::CURSOR,
        consent: None,
    },
    Service {
        name: "devin",
        // Neither host nor shape is confirmed.
        parts: &[key(&["DEVIN_API_KEY"], &[Text("cog_"), Random(Base62, 52)])],
        forms: &[model(&["api.devin.ai"], BEARER)],
        issuing: &[],
        consent: None,
    },
    Service {
        name: "droid",
        // Neither header nor shape is confirmed.
        parts: &[key(
            &["FACTORY_API_KEY"],
            &[Text("fk-"), Random(UrlSafe, 64)],
        )],
        forms: &[model(
            &["api.factory.ai", "app.factory.ai", "relay.factory.ai"],
            BEARER,
        )],
        issuing: issuing::DROID,
        consent: None,
    },
    Service {
        name: "github",
        parts: &[key(&["GH_TOKEN", "GITHUB_TOKEN"], GITHUB_TOKEN)],
        forms: &[
            api(&["api.github.com", "raw.githubusercontent.com"], BEARER),
            api(
                &["github.com", "gist.github.com"],
                Scheme::Basic {
                    user: "x-access-token",
                },
            ),
            Form {
                yields: true,
                ..model(&["copilot.github.com", "api.githubcopilot.com"], BEARER)
            },
        ],
        issuing: issuing::GITHUB,
        consent: None,
    },
    Service {
        name: "google",
        parts: &[key(
            &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
            &[Text("AIza"), Random(UrlSafe, 35)],
        )],
        forms: &[model(
            &[
                "generativelanguage.googleapis.com",
                "oauth2.googleapis.com",
                "aiplatform.googleapis.com",
                "vertexai.googleapis.com",
            ],
            Scheme::Header {
                name: "x-goog-api-key",
                format: "%s",
            },
        )],
        issuing: issuing::GOOGLE,
        consent: None,
    },
    Service {
        name: "groq",
        parts: &[key(&["GROQ_API_KEY"], &[Text("gsk_"), Random(Base62, 52)])],
        forms: &[model(&["api.groq.com"], BEARER)],
        issuing: &[],
        consent: None,
    },
    Service {
        name: "mistral",
        parts: &[key(&["MISTRAL_API_KEY"], &[Random(Base62, 32)])],
        forms: &[model(&["api.mistral.ai"], BEARER)],
        issuing: &[],
        consent: None,
    },
    Service {
        name: "nebius",
        // The shape is not confirmed.
        parts: &[key(
            &["NEBIUS_API_KEY"],
            &[Text("v1."), Random(UrlSafe, 86)],
        )],
        forms: &[model(
            &["api.studio.nebius.com", "api.tokenfactory.nebius.com"],
            BEARER,
        )],
        issuing: &[],
        consent: None,
    },
    Service {
        name: "openai",
        parts: &[key(
            &["OPENAI_API_KEY"],
            &[
                Text("sk-proj-"),
                Random(UrlSafe, 74),
                Text("T3BlbkFJ"),
                Random(UrlSafe, 74),
            ],
        )],
        forms: &[model(
            &[
                "api.openai.com",
                "openai.com",
                "chatgpt.com",
                "www.chatgpt.com",
            ],
            BEARER,
        )],
        issuing: issuing::OPENAI,
        consent: Some(&issuing::CODEX),
    },
    Service {
        name: "openrouter",
        parts: &[key(
            &["OPENROUTER_API_KEY"],
            &[Text("sk-or-v1-"), Random(Hex, 64)],
        )],
        forms: &[model(&["openrouter.ai"], BEARER)],
        issuing: issuing::OPENROUTER,
        consent: None,
    },
    Service {
        name: "xai",
        parts: &[key(&["XAI_API_KEY"], &[Text("xai-"), Random(Base62, 80)])],
        forms: &[model(&["api.x.ai"], BEARER)],
        issuing: issuing::XAI,
        consent: None,
    },
];
