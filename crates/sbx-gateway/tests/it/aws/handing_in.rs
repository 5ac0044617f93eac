//! Keys that end soon: who is handed one, and what becomes of requests that are signed with it. The daemon is played here.

use std::io::{BufRead, BufReader, Write};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Request;
use sbx_testkit::aws::Issued;
use sbx_wire::gateway::{Answer, Command, Credential, HandedIn, SHORT_LIVED, Withdrawn};
use sbx_wire::secret::SecretText;
use sbx_wire::time::rfc3339;

use super::{BUCKET, Call, STS, credential, real, setup};
use crate::lab::{Lab, get, h1, run, send, text};

pub(crate) const TOKEN: &str = "token-of-the-sandbox-0123456789abcdef";
const PLACE: &str = "http://169.254.170.2/sbx/aws";
const LIFE: Duration = Duration::from_mins(15);

/// A credential whose keys of these ids were handed in.
pub(crate) fn handing_in(issued: &[Issued]) -> Credential {
    let mut credential = credential(&real(None));
    let ids = issued.iter().map(|one| one.key.access_key_id.clone());
    let aws = credential.aws.as_mut().unwrap();
    aws.handed_in = Some(HandedIn {
        token: TOKEN.to_owned(),
        ids: ids.collect(),
    });
    credential
}

/// As the daemon tells it.
pub(crate) fn document(issued: &Issued) -> String {
    let key = &issued.key;
    serde_json::json!({
        "AccessKeyId": key.access_key_id,
        "SecretAccessKey": key.secret,
        "Token": key.session_token,
        "Expiration": rfc3339(issued.end_s),
    })
    .to_string()
}

/// Answers every question with the next of these, and with the last from then on. Ends with the gateway.
pub(crate) fn daemon(lab: &Lab, documents: Vec<Result<String, String>>) -> JoinHandle<usize> {
    let control = lab.control();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(control.try_clone().unwrap()).lines();
        let mut command = Command::AwaitValue;
        let mut asked = 0;
        loop {
            let line = serde_json::to_string(&command).unwrap();
            let said = (&control).write_all(format!("{line}\n").as_bytes());
            let Some(Ok(answer)) = lines.next().filter(|_| said.is_ok()) else {
                return asked;
            };
            let Answer::ValueNeeded { service } = serde_json::from_str(&answer).unwrap() else {
                panic!("{answer}")
            };
            assert_eq!(service, SHORT_LIVED);
            let next = documents.get(asked).or(documents.last()).unwrap().clone();
            asked += 1;
            command = Command::Value {
                service,
                problem: next.as_ref().err().cloned(),
                value: next.ok().map(SecretText::new),
            };
        }
    })
}

async fn ask(lab: &Lab, method: &str, place: &str, tokens: &[&str]) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(place);
    for token in tokens {
        request = request.header("authorization", *token);
    }
    let request = request.header("host", "169.254.170.2");
    let request = request.body(bytes::Bytes::new().into()).unwrap();
    let answer = send(&mut h1(lab.proxy().await).await, request).await;
    text(answer.unwrap()).await
}

/// What is answered to a program that shows this token.
pub(crate) async fn ask_for_key(lab: &Lab, token: &str) -> (u16, String) {
    ask(lab, "GET", PLACE, &[token]).await
}

#[test]
fn a_key_is_handed_to_who_shows_the_token_and_to_nobody_else() {
    let (standin, setup) = setup(None);
    let issued = standin.issue(LIFE);
    let setup = setup.send_to("other.test:80", standin.address());
    let lab = setup
        .bind(handing_in(std::slice::from_ref(&issued)))
        .start();
    let told = vec![
        Ok(document(&issued)),
        Err("STS refuses it: AccessDenied".to_owned()),
    ];
    let _daemon = daemon(&lab, told);
    run(async {
        for tokens in [&[][..], &["another"], &[TOKEN, TOKEN], &[&TOKEN[1..]]] {
            let (status, answer) = ask(&lab, "GET", PLACE, tokens).await;
            assert_eq!(status, 403, "{tokens:?}: {answer}");
            let record = lab.one_record("key-not-handed-in", "169.254.170.2").await;
            assert!(!record.allowed);
            lab.forget_records();
        }
        assert_eq!(ask(&lab, "POST", PLACE, &[TOKEN]).await.0, 403);
        lab.forget_records();
        let (status, answer) = ask(&lab, "GET", PLACE, &[TOKEN]).await;
        assert_eq!((status, answer), (200, document(&issued)));
        let record = lab.one_record("key-handed-in", "169.254.170.2").await;
        assert_eq!(record.credential.as_deref(), Some("aws"));
        assert!(record.allowed);
        let (status, answer) = ask(&lab, "GET", PLACE, &[TOKEN]).await;
        assert_eq!(status, 502);
        assert!(answer.contains("STS refuses it: AccessDenied"), "{answer}");
        lab.one_record("credential-unavailable", "169.254.170.2")
            .await;
        // Everything else there is an address that no rule opens, and the token is for nobody else.
        let other = "http://169.254.170.2/latest/meta-data/";
        assert_eq!(ask(&lab, "GET", other, &[]).await.0, 403);
        lab.forget_records();
        let mut elsewhere = get("http://other.test/", "other.test");
        let shown = hyper::header::HeaderValue::from_static(TOKEN);
        elsewhere.headers_mut().insert("authorization", shown);
        let answer = send(&mut h1(lab.proxy().await).await, elsewhere).await;
        assert_eq!(text(answer.unwrap()).await.0, 403);
        lab.one_record("placeholder-to-unbound-host", "other.test")
            .await;
    });
}

#[test]
fn where_nobody_asked_for_it_no_key_is_handed_in() {
    let (_standin, setup) = setup(None);
    let lab = setup.bind(credential(&real(None))).start();
    run(async {
        assert_eq!(ask(&lab, "GET", PLACE, &[TOKEN]).await.0, 403);
        let records = lab.records();
        assert!(records.iter().all(|one| !one.allowed), "{records:?}");
    });
}

#[test]
fn what_is_signed_with_a_key_that_was_handed_in_goes_on_and_with_no_other() {
    let (standin, setup) = setup(None);
    let (good, other) = (standin.issue(LIFE), standin.issue(LIFE));
    let credential = handing_in(std::slice::from_ref(&good));
    let lab = setup.bind(credential).start();
    let call = |issued: &Issued| Call {
        key: issued.key.clone(),
        ..Call::new("PUT", BUCKET, "/object", "s3")
            .body("body")
            .hashed()
    };
    run(async {
        assert_eq!(call(&good).send(&lab).await.0, 200);
        assert_eq!(standin.recorder().requests()[0].note, "verified s3");
        let record = lab.one_record("allow-rule", BUCKET).await;
        assert_eq!(record.credential, None);
        let presigned = Call {
            presigned: true,
            key: good.key.clone(),
            ..Call::new("GET", BUCKET, "/object", "s3")
        };
        assert_eq!(presigned.send(&lab).await, (200, "body".to_owned()));
        // Its own signature is still verified and made anew.
        let own = Call::new("GET", BUCKET, "/object", "s3").hashed();
        assert_eq!(own.send(&lab).await.0, 200);
        assert_eq!(standin.recorder().requests().len(), 3);

        let (status, answer) = call(&other).send(&lab).await;
        assert_eq!(status, 403);
        assert!(answer.contains("InvalidClientTokenId"), "{answer}");
        // Nobody makes a longer one of it.
        let longer = Call {
            key: good.key.clone(),
            ..Call::new("POST", STS, "/", "sts")
                .with("content-type", "application/x-www-form-urlencoded")
                .body("Action=AssumeRole&DurationSeconds=3600&RoleArn=r&RoleSessionName=s")
        };
        assert_eq!(longer.send(&lab).await.0, 403);
        lab.one_record("credential-issuer", STS).await;
        assert_eq!(standin.recorder().requests().len(), 3);
    });
}

#[test]
fn a_key_that_was_handed_in_is_worth_nothing_once_the_secret_is_removed() {
    let (standin, setup) = setup(None);
    let issued = standin.issue(LIFE);
    let lab = setup
        .bind(handing_in(std::slice::from_ref(&issued)))
        .start();
    let call = Call {
        key: issued.key.clone(),
        ..Call::new("GET", BUCKET, "/?list-type=2", "s3").hashed()
    };
    run(async {
        assert_eq!(call.send(&lab).await.0, 200);
        let mut config = lab.config();
        config.credentials.clear();
        // As the daemon goes on to say.
        config.file.credential_hosts = vec![".amazonaws.com".to_owned()];
        config.withdrawn = vec![Withdrawn {
            service: "aws".to_owned(),
            placeholder: issued.key.access_key_id.clone(),
        }];
        let answer = lab.ask(&Command::Configure(Box::new(config)));
        assert!(matches!(answer, Answer::Configured { .. }), "{answer:?}");
        assert_eq!(call.send(&lab).await.0, 403);
        lab.one_record("credential-withdrawn", BUCKET).await;
    });
    assert_eq!(standin.recorder().requests().len(), 1);
}
