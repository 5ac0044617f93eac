//! The table of services, row by row as it is promised: a host, a variable or a header that is lost or added is noticed.

use sbx_credentials::services::{Part, Scheme, Service, TABLE};

/// A service, its variables, and what is written for which hosts.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static [&'static str])],
);

const BEARER: &str = "authorization: Bearer %s";
const LOGIN: &str = "authorization: Basic x-access-token:%s";

const ROWS: &[Row] = &[
    (
        "anthropic",
        &["ANTHROPIC_API_KEY"],
        &[(
            "x-api-key: %s",
            &[
                "api.anthropic.com",
                "console.anthropic.com",
                "claude.ai",
                "mcp-proxy.anthropic.com",
            ],
        )],
    ),
    (
        "copilot",
        &["COPILOT_GITHUB_TOKEN"],
        &[
            (
                BEARER,
                &[
                    "api.githubcopilot.com",
                    "api.individual.githubcopilot.com",
                    "api.business.githubcopilot.com",
                    "api.enterprise.githubcopilot.com",
                    "copilot.github.com",
                ],
            ),
            (BEARER, &["api.github.com"]),
        ],
    ),
    (
        "cursor",
        &["CURSOR_API_KEY"],
        &[(
            BEARER,
            &[
                "api2.cursor.sh",
                "api3.cursor.sh",
                "repo42.cursor.sh",
                "cursor.com",
            ],
        )],
    ),
    ("devin", &["DEVIN_API_KEY"], &[(BEARER, &["api.devin.ai"])]),
    (
        "droid",
        &["FACTORY_API_KEY"],
        &[(
            BEARER,
            &["api.factory.ai", "app.factory.ai", "relay.factory.ai"],
        )],
    ),
    (
        "github",
        &["GH_TOKEN", "GITHUB_TOKEN"],
        &[
            (BEARER, &["api.github.com", "raw.githubusercontent.com"]),
            // Gists are fetched by git, as what lies at the other is.
            (LOGIN, &["github.com", "gist.github.com"]),
            (BEARER, &["copilot.github.com", "api.githubcopilot.com"]),
        ],
    ),
    (
        "google",
        &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        &[(
            "x-goog-api-key: %s",
            &[
                "generativelanguage.googleapis.com",
                "oauth2.googleapis.com",
                "aiplatform.googleapis.com",
                "vertexai.googleapis.com",
            ],
        )],
    ),
    ("groq", &["GROQ_API_KEY"], &[(BEARER, &["api.groq.com"])]),
    (
        "mistral",
        &["MISTRAL_API_KEY"],
        &[(BEARER, &["api.mistral.ai"])],
    ),
    (
        "nebius",
        &["NEBIUS_API_KEY"],
        &[(
            BEARER,
            &["api.studio.nebius.com", "api.tokenfactory.nebius.com"],
        )],
    ),
    (
        "openai",
        &["OPENAI_API_KEY"],
        &[(
            BEARER,
            &[
                "api.openai.com",
                "openai.com",
                "chatgpt.com",
                "www.chatgpt.com",
            ],
        )],
    ),
    (
        "openrouter",
        &["OPENROUTER_API_KEY"],
        &[(BEARER, &["openrouter.ai"])],
    ),
    ("xai", &["XAI_API_KEY"], &[(BEARER, &["api.x.ai"])]),
];

fn written(scheme: Scheme) -> String {
    match scheme {
        Scheme::Header { name, format } => format!("{name}: {format}"),
        Scheme::Basic { user } => format!("authorization: Basic {user}:%s"),
        Scheme::Sigv4 => "a signature".to_owned(),
    }
}

fn forms(service: &Service) -> Vec<(String, Vec<&str>)> {
    let forms = service.forms.iter();
    let forms = forms.map(|form| (written(form.scheme), form.hosts.to_vec()));
    forms.collect()
}

#[test]
fn every_service_has_the_hosts_the_variables_and_the_headers_that_are_promised() {
    let names: Vec<&str> = TABLE.iter().map(|service| service.name).collect();
    let mut promised: Vec<&str> = ROWS.iter().map(|(name, ..)| *name).collect();
    promised.push("aws");
    promised.sort_unstable();
    assert_eq!(names, promised);
    for (name, variables, hosts) in ROWS {
        let service = Service::find(name).unwrap();
        let [Part { import, guest, .. }] = service.parts else {
            panic!("{name} has one key")
        };
        assert_eq!(import, variables, "{name}");
        assert_eq!(guest, variables, "{name}");
        let promised: Vec<_> = hosts
            .iter()
            .map(|(header, hosts)| ((*header).to_owned(), hosts.to_vec()))
            .collect();
        assert_eq!(forms(service), promised, "{name}");
    }
}

#[test]
fn the_key_of_aws_has_its_three_variables_and_the_hosts_of_every_part_of_aws() {
    let aws = Service::find("aws").unwrap();
    let parts = aws.parts.iter();
    let variables: Vec<_> = parts.map(|part| (part.import, part.guest)).collect();
    let id: &[&str] = &["AWS_ACCESS_KEY_ID"];
    let secret: &[&str] = &["AWS_SECRET_ACCESS_KEY"];
    assert_eq!(
        variables,
        [
            (id, id),
            (secret, secret),
            (&["AWS_SESSION_TOKEN"][..], &[][..])
        ]
    );
    let [models, others] = aws.forms else {
        panic!("models and others")
    };
    assert_eq!(
        (models.scheme, others.scheme),
        (Scheme::Sigv4, Scheme::Sigv4)
    );
    assert_eq!(
        others.hosts,
        [
            ".amazonaws.com",
            ".amazonaws.com.cn",
            ".amazonaws.eu",
            ".api.amazonwebservices.com.cn",
            ".api.amazonwebservices.eu",
            ".api.aws",
            "*.lambda-url.*.on.aws",
        ]
    );
    assert_eq!(models.hosts.len(), 17);
}
