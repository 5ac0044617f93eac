//! The presets decide what people expect of their names.

use std::collections::HashSet;

use sbx_policy::{CreatedVia, Evaluator, PolicyDocument, Preset, preset};

use crate::support::ask;

fn evaluator(which: Preset) -> Evaluator {
    Evaluator::new(&PolicyDocument::new(1, preset(which)))
}

#[test]
fn every_preset_parses_into_valid_global_rules() {
    for which in Preset::ALL {
        for rule in preset(which) {
            rule.validate().unwrap();
            assert_eq!(rule.created_via, CreatedVia::Default);
            assert_eq!(rule.id.len(), 36);
            let distinct: HashSet<_> = rule.resources.iter().collect();
            assert_eq!(
                distinct.len(),
                rule.resources.len(),
                "{:?} repeats itself",
                rule.name
            );
        }
        assert_eq!(which.as_str().parse(), Ok(which));
    }
    assert!("open".parse::<Preset>().is_err());
    assert_eq!(
        Preset::ALL.map(Preset::label),
        ["Open", "Balanced", "Locked Down"]
    );
}

#[test]
fn balanced_has_six_groups() {
    let names: Vec<String> = preset(Preset::Balanced)
        .into_iter()
        .filter_map(|r| r.name)
        .collect();
    assert_eq!(
        names,
        [
            "default-ai-services",
            "default-package-managers",
            "default-code-and-containers",
            "default-cloud-infrastructure",
            "default-os-packages",
            "default-cert-validation",
        ]
    );
}

#[test]
fn balanced_lets_agents_work_and_nothing_else_pass() {
    let evaluator = evaluator(Preset::Balanced);
    for target in [
        "api.anthropic.com",
        "api.openai.com",
        "github.com",
        "api.github.com",
        "api.individual.githubcopilot.com",
        "default.exp-tas.com",
        "dhi.io:80",
        "http://crl3.digicert.com",
        "http://x.lencr.org",
        "packaging.pypa.io",
        "pypa.io",
    ] {
        assert!(ask(&evaluator, target).is_allowed(), "{target}");
    }
    for target in [
        "example.com",
        "http://github.com",
        "github.com:22",
        "anthropic.com",
        "evil-github.com",
        "192.0.2.1",
        "localhost:8080",
        "crl3.digicert.com",
        "github.com.evil.test",
    ] {
        assert!(!ask(&evaluator, target).is_allowed(), "{target}");
    }
    let rule = ask(&evaluator, "api.anthropic.com").rule.unwrap();
    assert_eq!(rule.label(), "default-ai-services");
}

#[test]
fn balanced_covers_what_real_clients_asked_for() {
    let evaluator = evaluator(Preset::Balanced);
    for target in [
        "platform.claude.com",
        "downloads.claude.ai",
        "mcp-proxy.anthropic.com",
        "chatgpt.com",
        "auth.openai.com",
        "ab.chatgpt.com",
        "api.github.com",
        "api.githubcopilot.com",
        "telemetry.individual.githubcopilot.com",
        "default.exp-tas.com",
        "generativelanguage.googleapis.com",
        "cloudcode-pa.googleapis.com",
        "play.googleapis.com",
        "models.opencode.ai",
        "opencode.ai",
        "static.rust-lang.org",
        // apt, in the sandbox as well as in images that are built there.
        "http://ftp.debian.org",
        "https://ftp.debian.org",
        "http://archive.ubuntu.com",
        "http://ports.ubuntu.com",
        // Clients ask names below the home page that people know.
        "index.rubygems.org",
        "api.nuget.org",
        "repo.hex.pm",
        "cdn.cocoapods.org",
        "hackage.haskell.org",
        "dl.k8s.io",
        "cdn01.quay.io",
        "downloads.sourceforge.net",
        "deb.nodesource.com",
        "cdn.playwright.dev",
    ] {
        assert!(ask(&evaluator, target).is_allowed(), "{target}");
    }
    // Telemetry to third parties, plain HTTP to everybody else, and look-alikes.
    for target in [
        "http-intake.logs.us5.datadoghq.com",
        "http://pypi.example",
        "debian.org.evil.test",
        "http://go.dev",
    ] {
        assert!(!ask(&evaluator, target).is_allowed(), "{target}");
    }
}

#[test]
fn open_is_the_public_internet_but_not_the_neighbourhood() {
    let evaluator = evaluator(Preset::AllowAll);
    for target in ["example.com:22", "192.0.2.1:9999", "[2001:db8::1]:80"] {
        assert!(ask(&evaluator, target).is_allowed(), "{target}");
    }
    for target in [
        "10.0.0.1",
        "localhost:80",
        "169.254.169.254:80",
        "[fe80::1]:80",
    ] {
        assert!(!ask(&evaluator, target).is_allowed(), "{target}");
    }
}

#[test]
fn locked_down_has_no_rules() {
    assert!(preset(Preset::DenyAll).is_empty());
}
