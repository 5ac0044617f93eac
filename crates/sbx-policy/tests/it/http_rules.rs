//! Rules with method and path, and the paths they are asked about.

use sbx_policy::{
    Evaluator, HttpMatchError, HttpRequest, Inspection, IntentKind, Methods, PathError,
    PathPattern, PolicyDocument, ReasonCode, RequestPath, Rule, RuleError,
};

use crate::support::{ask, http_rule, intent, rule};

fn request(rules: &[Rule], method: &str, path: &str) -> bool {
    let evaluator = Evaluator::new(&PolicyDocument::new(1, rules.to_vec()));
    let request = HttpRequest::parse(method, path).unwrap();
    evaluator
        .decide(&intent("api.test").with_http(request))
        .is_allowed()
}

fn connection(rules: &[Rule], kind: IntentKind) -> sbx_policy::Verdict {
    let evaluator = Evaluator::new(&PolicyDocument::new(1, rules.to_vec()));
    let mut intent = intent("api.test");
    intent.kind = kind;
    evaluator.decide(&intent)
}

#[test]
fn a_network_allow_covers_every_request() {
    let rules = [rule("a", "allow api.test")];
    assert!(request(&rules, "DELETE", "/x"));
    assert!(request(&rules, "PROPFIND", "/x"));
    assert_eq!(
        connection(&rules, IntentKind::Tls).inspection,
        Inspection::NotNeeded
    );
}

#[test]
fn an_http_allow_covers_matching_requests_and_nothing_else() {
    let rules = [http_rule("a", "allow api.test", "GET,head", "/repos/*")];
    assert!(request(&rules, "GET", "/repos/x?q=1"));
    assert!(!request(&rules, "POST", "/repos/x"));
    assert!(
        !request(&rules, "get", "/repos/x"),
        "methods of requests are case-sensitive"
    );
    assert!(!request(&rules, "GET", "/repos/x/y"));
    let tls = connection(&rules, IntentKind::Tls);
    assert!(tls.is_allowed());
    assert_eq!(tls.inspection, Inspection::Required);
    for kind in [IntentKind::Opaque, IntentKind::Http] {
        assert_eq!(connection(&rules, kind).reason, ReasonCode::NotInspectable);
    }
}

#[test]
fn an_http_deny_carves_out_of_a_network_allow() {
    let rules = [
        rule("a", "allow api.test"),
        http_rule("d", "deny api.test", "ANY", "/admin/**"),
    ];
    assert!(request(&rules, "GET", "/public"));
    for path in [
        "/admin",
        "/admin/",
        "/admin/x",
        "/x/../admin",
        "//admin",
        "/ADMIN/x",
        "/admin;a=b/x",
        "/admin%2Fx",
        "/admin%2fx",
        "/%2Fadmin/x",
        "/admin\\x",
        "/admin%5cx",
        "/;v/admin/x",
        "/%2F;v/admin",
        "/admin;a%2Fb/x",
        "/;a%2Fb/admin",
        "/%3bv/ADMIN%2Fx",
    ] {
        assert!(!request(&rules, "GET", path), "{path}");
    }
    assert_eq!(
        connection(&rules, IntentKind::Tls).inspection,
        Inspection::Required
    );
    assert!(!connection(&rules, IntentKind::Opaque).is_allowed());
}

#[test]
fn a_deny_covers_a_method_in_every_case_and_an_allow_in_its_own() {
    let rules = [
        rule("a", "allow api.test"),
        http_rule("d", "deny api.test", "DELETE", "/x"),
    ];
    for method in ["DELETE", "delete", "Delete"] {
        assert!(!request(&rules, method, "/x"), "{method}");
        assert!(request(&rules, method, "/y"), "{method}");
    }
    assert!(request(&rules, "get", "/x") && request(&rules, "purge", "/x"));
    let rules = [http_rule("a", "allow api.test", "DELETE", "/x")];
    assert!(request(&rules, "DELETE", "/x") && !request(&rules, "delete", "/x"));
}

#[test]
fn a_deny_covers_every_reading_of_a_path_and_an_allow_one() {
    let covers = |pattern: &str, path: &str| {
        let pattern: PathPattern = pattern.parse().unwrap();
        let path = RequestPath::parse(path).unwrap();
        (pattern.denies(&path), pattern.allows(&path))
    };
    let denied_alone = (true, false);
    assert_eq!(covers("/a/b", "/a%2Fb"), denied_alone);
    assert_eq!(covers("/a/b/c", "/a%2Fb%5Cc"), denied_alone);
    // Parameters are cut off before `%2F` is decoded, or after, or not at all.
    assert_eq!(covers("/a/x", "/a;p%2Fq/x"), denied_alone);
    assert_eq!(covers("/a/q/x", "/a;p%2Fq/x"), denied_alone);
    assert_eq!(covers("/a/c/x", "/a%2Fc;p%2Fq/x"), denied_alone);
    assert_eq!(covers("/a;p/q", "/a;p%2Fq"), denied_alone);
    // The first reading still counts, and nothing is covered that no reading has.
    assert_eq!(covers("/repos/*", "/repos/a%2Fsecret"), (true, true));
    assert_eq!(covers("/a/b", "/a%2Fbc"), (false, false));
    let twice = HttpRequest::parse("GET", "/admin%252Fx");
    assert_eq!(twice, Err(PathError::DoubleEncoding));
}

#[test]
fn an_http_allow_does_not_reopen_a_network_deny() {
    let rules = [
        rule("d", "deny api.test"),
        http_rule("a", "allow api.test", "ANY", "/**"),
    ];
    assert!(!request(&rules, "GET", "/"));
    assert!(!connection(&rules, IntentKind::Tls).is_allowed());
}

#[test]
fn http_rules_take_names_and_tcp_alone() {
    for resource in ["10.0.0.0/8", "192.0.2.1", "localhost:80"] {
        let rule = http_rule("a", &format!("allow {resource}"), "GET", "/");
        assert!(
            matches!(rule.validate(), Err(RuleError::HttpNeedsName(_))),
            "{resource}"
        );
    }
    let both = Rule {
        protocols: sbx_policy::Protocols::ALL,
        ..http_rule("a", "allow a.test", "GET", "/")
    };
    assert_eq!(both.validate(), Err(RuleError::HttpNeedsTcp));
}

#[test]
fn methods_are_a_list_or_any_alone() {
    let text = |list: &str| list.parse::<Methods>().map(|methods| methods.to_string());
    assert_eq!(text("post, GET"), Ok("GET,POST".into()));
    assert_eq!(text("any"), Ok("ANY".into()));
    assert_eq!(text("ANY,GET"), Err(HttpMatchError::AnyBesideOthers));
    assert!(matches!(text("FETCH"), Err(HttpMatchError::Method(_))));
    assert!(text("").is_err());
    assert!(text("GET,").is_err());
}

#[test]
fn path_patterns_are_canonical() {
    for path in [
        "/",
        "/**",
        "/a",
        "/a/*/b",
        "/a/**/b",
        "/model/*-opus-*/invoke",
    ] {
        assert_eq!(path.parse::<PathPattern>().unwrap().to_string(), path);
    }
    for path in [
        "", "a", "/a/", "//", "/a//b", "/a/../b", "/./a", "/a?b", "/a#b", "/a%20b", "/a b", "/a**",
        "/\u{e9}", "/a\\b",
    ] {
        assert!(path.parse::<PathPattern>().is_err(), "{path:?}");
    }
}

#[test]
fn path_wildcards_match_by_segment() {
    let allows = |pattern: &str, path: &str| {
        pattern
            .parse::<PathPattern>()
            .unwrap()
            .allows(&RequestPath::parse(path).unwrap())
    };
    assert!(allows("/**", "/") && allows("/**", "/a/b"));
    assert!(allows("/", "/") && !allows("/", "/a"));
    assert!(allows("/a/*", "/a/b") && !allows("/a/*", "/a") && !allows("/a/*", "/a/b/c"));
    assert!(allows("/a/**", "/a/b/c") && allows("/a/**", "/a") && !allows("/a/**", "/ab"));
    assert!(
        allows("/a/**/z", "/a/z") && allows("/a/**/z", "/a/b/c/z") && !allows("/a/**/z", "/a/z/b")
    );
    assert!(
        allows("/m/*-opus-*/x", "/m/claude-opus-4/x") && !allows("/m/*-opus-*/x", "/m/haiku/x")
    );
    assert!(allows("/m/a*b*", "/m/ab") && !allows("/m/a*b*b", "/m/ab"));
    assert!(!allows("/a", "/A"), "an allow is exact in case");
    assert!(
        allows("/@scope*", "/@scope%2fname"),
        "%2F stays inside its segment"
    );
    assert!(!allows("/@scope/name", "/@scope%2fname"));
}

#[test]
fn attack_32_paths_are_normalised_once() {
    for (path, wire) in [
        ("/a/../admin", "/admin"),
        ("//admin", "/admin"),
        ("/a/./b/", "/a/b/"),
        ("/../..", "/"),
        ("/%61dmin", "/admin"),
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/a%3ab", "/a%3Ab"),
        ("/x?../y", "/x"),
        ("/a\\..\\b", ""),
        ("/100%25", "/100%25"),
        ("/%e4%bd%a0", "/%E4%BD%A0"),
        ("/a/..", "/"),
        ("/a\\b", "/a%5Cb"),
    ] {
        match RequestPath::parse(path) {
            Ok(parsed) => assert_eq!(parsed.as_str(), wire, "{path}"),
            Err(error) => assert_eq!((error, wire), (PathError::HiddenDotSegment, ""), "{path}"),
        }
    }
    for (path, error) in [
        ("/%2e%2e/x", PathError::HiddenDotSegment),
        ("/.%2E/x", PathError::HiddenDotSegment),
        ("/a%2f..%2fb", PathError::HiddenDotSegment),
        ("/..;x/admin", PathError::HiddenDotSegment),
        ("/%5c..%5cx", PathError::HiddenDotSegment),
        ("/%252e", PathError::DoubleEncoding),
        ("/%00", PathError::Control),
        ("/a%0d%0ab", PathError::Control),
        ("/a\u{1}b", PathError::Control),
        ("/%c0%ae", PathError::OverLong),
        ("/%e0%80%af", PathError::OverLong),
        ("/%", PathError::BrokenEncoding),
        ("/%4", PathError::BrokenEncoding),
        ("/%zz", PathError::BrokenEncoding),
        ("/a b", PathError::BadCharacter),
        ("/a#b", PathError::BadCharacter),
        ("/\u{e9}", PathError::BadCharacter),
        ("x", PathError::NoSlash),
        ("http://a/", PathError::NoSlash),
        ("", PathError::NoSlash),
    ] {
        assert_eq!(RequestPath::parse(path), Err(error), "{path:?}");
    }
    assert_eq!(
        RequestPath::parse(&"/a".repeat(9000)),
        Err(PathError::TooLong)
    );
}

#[test]
fn what_is_sent_parses_to_what_was_judged() {
    for path in [
        "/a/../b//c/",
        "/%61%2f%3b;x",
        "/\\x",
        "/@s%2Fn",
        "/%e4%bd%a0",
    ] {
        let once = RequestPath::parse(path).unwrap();
        assert_eq!(RequestPath::parse(once.as_str()).unwrap(), once, "{path}");
    }
}

#[test]
fn dns_answers_for_hosts_with_http_rules() {
    let rules = [http_rule("a", "allow api.test", "GET", "/x")];
    let evaluator = Evaluator::new(&PolicyDocument::new(1, rules.to_vec()));
    let mut dns = intent("api.test");
    dns.kind = IntentKind::Dns;
    assert!(evaluator.decide(&dns).is_allowed());
    assert!(!ask(&evaluator, "other.test").is_allowed());
}
