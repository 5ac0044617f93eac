//! The grammar of the policy: what people write, and what requests say.

use std::net::IpAddr;

use sbx_policy::{
    CreatedVia, Decision, Evaluator, Host, HostName, Intent, IntentKind, PathPattern,
    PolicyDocument, Port, Protocols, RequestPath, ResourcePattern, Rule, Scope, Target, Transport,
};

/// What is parsed has one form, which parses to the same again; every line of the text stands for itself.
pub(crate) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines().take(8) {
        names(line);
        paths(line);
        patterns(line);
    }
}

fn names(text: &str) {
    if let Ok(name) = HostName::parse(text) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        assert!(name.as_str().chars().all(plain), "{name}");
        assert!(name.as_str().len() <= 253 && name.labels().all(|l| (1..=63).contains(&l.len())));
        #[cfg(feature = "planted-bug")]
        planted(name.as_str());
        assert_eq!(HostName::parse(name.as_str()), Ok(name));
    }
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()), Ok(host));
    }
    let targets = [
        Target::parse(text),
        Target::parse_authority(text, Port::HTTP),
    ];
    for target in targets.into_iter().flatten() {
        let again = Target::parse_authority(&target.to_string(), Port::HTTPS);
        assert_eq!(again, Ok(target));
    }
}

/// Reached byte by byte only, wherever in the name: no bytes that are tried blindly get here.
#[cfg(feature = "planted-bug")]
fn planted(name: &str) {
    for start in 0..name.len() {
        let mut letters = name.bytes().skip(start);
        if letters.next() == Some(b'b')
            && letters.next() == Some(b'u')
            && letters.next() == Some(b'g')
        {
            panic!("planted");
        }
    }
}

fn paths(text: &str) {
    let _ = text.parse::<PathPattern>();
    if let Ok(path) = RequestPath::parse(text) {
        let sent = path.as_str().to_owned();
        assert!(
            sent.starts_with('/') && !sent.contains("//") && !sent.contains('\\'),
            "{sent}"
        );
        assert!(sent.bytes().all(|byte| byte.is_ascii_graphic()), "{sent:?}");
        for segment in sent.split('/') {
            assert!(!matches!(segment, "." | ".."), "{sent}");
        }
        // What is sent is judged as what was judged.
        assert_eq!(RequestPath::parse(&sent), Ok(path));
    }
}

fn patterns(text: &str) {
    let Ok(pattern) = ResourcePattern::parse(text) else {
        return;
    };
    let shown = pattern.to_string();
    let again = ResourcePattern::parse(&shown);
    assert_eq!(again.as_ref().ok(), Some(&pattern), "{shown}");
    // Whatever it opens, it never opens the cloud's metadata service by accident, and a deny of the same closes it.
    let rule = |decision, id: &str| Rule {
        id: id.to_owned(),
        name: None,
        scope: Scope::Global,
        decision,
        resources: vec![pattern.clone()],
        protocols: Protocols::TCP,
        created_via: CreatedVia::Added,
        http: None,
    };
    let allow = Evaluator::new(&PolicyDocument::new(1, vec![rule(Decision::Allow, "a")]));
    let both = vec![rule(Decision::Allow, "a"), rule(Decision::Deny, "b")];
    let both = Evaluator::new(&PolicyDocument::new(1, both));
    let metadata: IpAddr = [169, 254, 169, 254].into();
    for host in [
        Host::from(metadata),
        Host::parse("web.test").expect("a host"),
    ] {
        let mut intent = Intent::new(
            "fuzz",
            Transport::Tcp,
            IntentKind::Tls,
            host.clone(),
            Port::HTTPS,
        );
        if host.name().is_some() {
            intent.resolved = Some(vec![metadata]);
        }
        if allow.decide(&intent).is_allowed() {
            assert!(shown.contains("169.254.169.254"), "{shown}");
        }
        assert!(!both.decide(&intent).is_allowed(), "{shown}");
    }
}
