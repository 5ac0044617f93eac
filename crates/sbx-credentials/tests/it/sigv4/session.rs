//! Keys that end soon: how STS is asked, and what is taken of its answers.

use http::HeaderMap;
use sbx_credentials::sigv4::{
    Ask, Claim, Digest, Endpoint, Head, Keys, NoSession, Payload, Placeholder, Session, Timestamp,
};

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const ROLE: &str = "arn:aws:iam::123456789012:role/agents";
/// 2015-08-30T12:36:00Z
const NOW: u64 = 1_440_938_160;

fn ask(region: &'static str, role: Option<&'static str>) -> Ask<'static> {
    let name = "box";
    Ask { region, role, name }
}

fn time() -> Timestamp {
    Timestamp::parse("20150830T123600Z").unwrap()
}

fn keys(token: &str) -> Keys {
    Keys::parse(&format!("{ID}:{SECRET}{token}")).unwrap()
}

/// Whether the service would take it.
fn verifies(host: &str, headers: &HeaderMap, body: &str) -> bool {
    let head = Head {
        method: "POST",
        path: "/",
        query: None,
        host,
        headers,
    };
    let endpoint = Endpoint::of(host).unwrap();
    let claim = Claim::of(&head).unwrap().unwrap();
    let real = Placeholder {
        access_key_id: ID.to_owned(),
        secret: SECRET.to_owned().into(),
    };
    claim.check(&endpoint, &real, NOW).unwrap();
    let digest = Digest::of(body.as_bytes());
    claim
        .verify(&endpoint, &head, Payload::Whole, Some(digest), &real)
        .is_ok()
}

#[test]
fn what_sts_is_asked_is_signed_for_its_region() {
    for (region, role, token, suffix) in [
        ("us-east-1", None, "", "amazonaws.com"),
        ("cn-north-1", None, "", "amazonaws.com.cn"),
        ("eusc-de-east-1", None, "", "amazonaws.eu"),
        ("us-gov-west-1", Some(ROLE), "", "amazonaws.com"),
        ("eu-west-1", Some(ROLE), ":to/ken", "amazonaws.com"),
    ] {
        let request = ask(region, role).request(&keys(token), time()).unwrap();
        assert_eq!(request.host, format!("sts.{region}.{suffix}"));
        assert_eq!(Endpoint::of(&request.host).unwrap().region(), region);
        assert!(
            verifies(&request.host, &request.headers, &request.body),
            "{region}"
        );
        assert!(!verifies(&request.host, &request.headers, "another"));
        assert!(request.body.contains("&DurationSeconds=900"));
        let session = request.headers.get("x-amz-security-token");
        assert_eq!(session.is_some(), !token.is_empty());
        assert!(!format!("{:?}{}", request.headers, request.body).contains(SECRET));
    }
    let request = ask("eu-west-1", Some(ROLE)).request(&keys(""), time());
    let body = request.unwrap().body;
    assert!(
        body.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fagents")
            && body.ends_with("&RoleSessionName=sbx-box"),
        "{body}"
    );
}

#[test]
fn sts_is_not_asked_for_what_it_would_not_give() {
    let asked = |region, token| ask(region, None).request(&keys(token), time()).err();
    assert_eq!(asked("us-east-1", ":token"), Some(NoSession::Temporary));
    for region in [
        "",
        "evil.test/",
        "us-east-1.evil",
        "s3.us-east-1",
        "global",
        "us-iso-east-1",
    ] {
        let wanted = NoSession::Region(region.to_owned());
        assert_eq!(asked(region, ""), Some(wanted), "{region}");
    }
}

fn answer(end: &str) -> String {
    format!(
        "<GetSessionTokenResponse><GetSessionTokenResult><Credentials>
          <AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>
          <SessionToken>to/ken+==</SessionToken><Expiration>{end}</Expiration>
        </Credentials></GetSessionTokenResult></GetSessionTokenResponse>"
    )
}

#[test]
fn a_session_is_read_as_sts_writes_it_and_told_as_programs_read_it() {
    let session = Session::of_answer(200, &answer("2015-08-30T12:51:00Z"), NOW).unwrap();
    assert_eq!(session.access_key_id(), "ASIAIOSFODNN7EXAMPLE");
    assert_eq!(session.end_s(), NOW + 900);
    let document: serde_json::Value = serde_json::from_str(&session.document()).unwrap();
    assert_eq!(
        document,
        serde_json::json!({
            "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
            "SecretAccessKey": SECRET,
            "Token": "to/ken+==",
            "Expiration": "2015-08-30T12:51:00Z",
        })
    );
    assert!(!format!("{session:?}").contains("IOSFO"));
}

#[test]
fn what_is_no_session_is_refused_without_repeating_it() {
    let good = answer("2015-08-30T12:51:00Z");
    let twice = format!("{good}{good}");
    for (text, why) in [
        (answer("2015-08-30T13:51:00Z"), NoSession::End),
        (answer("2015-08-30T12:36:00Z"), NoSession::End),
        (answer("tomorrow"), NoSession::Answer),
        (String::new(), NoSession::Answer),
        (twice, NoSession::Answer),
        (good.replace("to/ken+==", ""), NoSession::Answer),
        (good.replace("to/ken+==", "a<b/>c"), NoSession::Answer),
        (good.replace("ASIA", "ASIA:"), NoSession::Answer),
    ] {
        let found = Session::of_answer(200, &text, NOW);
        assert_eq!(found.err(), Some(why), "{text}");
    }
    let denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>wJalr</Message></Error></ErrorResponse>";
    let refused = |status, text| {
        Session::of_answer(status, text, NOW)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(403, denied), "STS refuses it: AccessDenied");
    assert_eq!(
        refused(500, "<Code>wJ alr</Code>"),
        "STS refuses it: status 500"
    );
}
