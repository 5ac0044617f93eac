//! What gets through.

use std::io::{BufRead, BufReader, Write};

use hyper::Request;
use sbx_testkit::aws::chunked;
use sbx_wire::gateway::{Answer, Command, Withdrawn};
use sbx_wire::secret::SecretText;

use super::{BEDROCK, BUCKET, Call, IAM, STS, credential, placeholder, real, setup, town};
use crate::lab::{PLACEHOLDER, anthropic, h2, run, text};

#[test]
fn what_is_signed_with_the_placeholder_arrives_signed_with_the_real_key() {
    for token in [None, Some("session/token+with==")] {
        let (standin, lab) = town(token);
        let form = "application/x-www-form-urlencoded";
        let calls = [
            Call::new("POST", STS, "/", "sts")
                .with("content-type", form)
                .body("Action=GetCallerIdentity&Version=2011-06-15"),
            Call::new(
                "GET",
                STS,
                "/?Version=2011-06-15&Action=GetCallerIdentity",
                "sts",
            ),
            Call::new(
                "POST",
                BEDROCK,
                "/model/anthropic.m-v1%3A0/converse",
                "bedrock",
            )
            .with("content-type", "application/json")
            .body("{}"),
            Call::new("PUT", BUCKET, "/a%20key/with%28brackets%29", "s3")
                .body("small")
                .named("UNSIGNED-PAYLOAD"),
            Call::new("PUT", BUCKET, "/hashed", "s3")
                .body(vec![b'a'; 300_000])
                .hashed(),
            Call::new(
                "GET",
                BUCKET,
                "/?list-type=2&prefix=a%2Fb&delimiter=%2F",
                "s3",
            )
            .hashed(),
            Call {
                presigned: true,
                ..Call::new("GET", BUCKET, "/hashed", "s3")
            },
            Call {
                presigned: true,
                ..Call::new("PUT", BUCKET, "/presigned?x-id=PutObject", "s3").body("body")
            },
        ];
        run(async {
            for call in &calls {
                let (status, answer) = call.send(&lab).await;
                let asked = standin.recorder().requests();
                let asked = asked.last().unwrap();
                assert_eq!(asked.note, format!("verified {}", call.service), "{answer}");
                assert_eq!(status, 200, "{call:?}: {answer}");
                let seen = format!("{asked:?}");
                let held = placeholder();
                assert!(
                    !seen.contains(&held.access_key_id) && !seen.contains(&held.secret),
                    "{seen}"
                );
                let record = lab.one_record("allow-rule", call.host).await;
                assert_eq!(record.credential.as_deref(), Some("aws"));
                lab.forget_records();
            }
        });
        assert_eq!(standin.object("bucket", "hashed").unwrap().len(), 300_000);
    }
}

#[test]
fn chunks_are_signed_anew_as_they_stream() {
    let (standin, lab) = town(Some("token"));
    let parts = [vec![b'a'; 65_536], vec![b'b'; 1_048_576], b"end".to_vec()];
    let pieces: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let whole = parts.concat();
    let call = Call::new("PUT", BUCKET, "/streamed", "s3")
        .with("content-encoding", "aws-chunked")
        .with("x-amz-decoded-content-length", &whole.len().to_string())
        .named("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let (request, seed) = call.sign();
    let body = chunked(&call.signer(), &seed, &pieces).unwrap();
    let request = request.map(|_| body.into());
    run(async {
        let (status, answer) = super::deliver(&lab, BUCKET, request).await;
        assert_eq!(status, 200, "{answer}");
    });
    assert_eq!(standin.object("bucket", "streamed").unwrap(), whole);
}

#[test]
fn http2_is_signed_as_well() {
    let (standin, lab) = town(None);
    let call = Call::new("GET", BUCKET, "/?list-type=2", "s3").hashed();
    run(async {
        let stream = lab.connect(&format!("{BUCKET}:443")).await.unwrap();
        let stream = lab.tls(stream, BUCKET, &[b"h2"]).await.unwrap();
        let (mut request, _) = call.sign();
        *request.uri_mut() = format!("https://{BUCKET}{}", call.path).parse().unwrap();
        request.headers_mut().remove("host");
        let answer = h2(stream).await.send_request(request).await.unwrap();
        assert_eq!(text(answer).await.0, 200);
    });
    let asked = standin.recorder().requests();
    assert_eq!(
        (asked[0].note.as_str(), asked[0].version.as_str()),
        ("verified s3", "HTTP/2.0")
    );
}

#[test]
fn a_request_without_a_signature_passes_without_a_credential() {
    let (standin, lab) = town(None);
    run(async {
        let request = Request::get("/public")
            .header("host", BUCKET)
            .body(bytes::Bytes::new().into());
        let (status, _) = super::deliver(&lab, BUCKET, request.unwrap()).await;
        assert_eq!(status, 404);
        let record = lab.one_record("allow-rule", BUCKET).await;
        assert_eq!(record.credential, None);
    });
    assert_eq!(standin.recorder().requests()[0].note, "unsigned");
}

#[test]
fn the_real_access_key_id_comes_back_as_the_placeholder() {
    let (_standin, lab) = town(None);
    run(async {
        let call = Call::new(
            "GET",
            IAM,
            "/?Action=ListAccessKeys&Version=2010-05-08",
            "iam",
        );
        let (status, answer) = call.send(&lab).await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains(&placeholder().access_key_id), "{answer}");
        assert!(!answer.contains(&real(None).access_key_id), "{answer}");
    });
}

#[test]
fn a_conversation_that_quotes_another_placeholder_is_signed_without_it() {
    let (standin, setup) = setup(None);
    let everywhere = credential(&real(None));
    let mut model = everywhere.clone();
    model.hosts = vec!["bedrock-runtime*.*.amazonaws.com".to_owned()];
    model.conversation = true;
    let setup = setup.bind(everywhere).bind(model);
    let lab = setup.bind(anthropic("other.test")).start();
    run(async {
        let quoted = format!(r#"{{"text":"it is {PLACEHOLDER}"}}"#);
        let call = Call::new("POST", BEDROCK, "/model/m/converse", "bedrock").body(quoted.clone());
        assert_eq!(call.send(&lab).await.0, 200);
        assert_eq!(standin.recorder().requests()[0].note, "verified bedrock");
        // Elsewhere there is no reason to quote it.
        let call = Call::new("PUT", BUCKET, "/quoted", "s3")
            .body(quoted)
            .hashed();
        assert_eq!(call.send(&lab).await.0, 403);
    });
    assert_eq!(standin.recorder().requests().len(), 1);
}

#[test]
fn a_key_that_is_asked_for_when_it_is_needed_signs_and_one_that_is_none_sends_nothing() {
    let (standin, setup) = setup(Some("token"));
    let mut key = credential(&real(Some("token")));
    let good = std::mem::replace(&mut key.value, SecretText::new(String::new()));
    key.on_demand = true;
    let lab = setup.bind(key).start();
    let control = lab.control();
    let daemon = std::thread::spawn(move || {
        let mut lines = BufReader::new(control.try_clone().unwrap()).lines();
        let say = |command: &Command| {
            let line = serde_json::to_string(command).unwrap();
            (&control)
                .write_all(format!("{line}\n").as_bytes())
                .unwrap();
        };
        say(&Command::AwaitValue);
        for value in [good, SecretText::new("some-other-text".to_owned())] {
            let answer = lines.next().unwrap().unwrap();
            let Answer::ValueNeeded { service } = serde_json::from_str(&answer).unwrap() else {
                panic!("{answer}")
            };
            say(&Command::Value {
                service,
                value: Some(value),
                problem: None,
            });
        }
        control
    });
    run(async {
        let call = Call::new("GET", BUCKET, "/?list-type=2", "s3").hashed();
        assert_eq!(call.send(&lab).await.0, 200);
        assert_eq!(standin.recorder().requests()[0].note, "verified s3");
        let (status, answer) = call.send(&lab).await;
        assert_eq!(status, 502, "{answer}");
        assert!(!answer.contains("some-other-text"), "{answer}");
        lab.one_record("credential-unavailable", BUCKET).await;
    });
    drop(daemon.join().unwrap());
    assert_eq!(standin.recorder().requests().len(), 1);
}

#[test]
fn what_is_signed_with_a_key_that_cannot_be_had_or_was_removed_goes_nowhere() {
    let (standin, setup) = setup(None);
    let mut key = credential(&real(None));
    key.value = SecretText::new(String::new());
    key.unavailable = Some("the keychain is locked".to_owned());
    let lab = setup.bind(key).start();
    run(async {
        let call = Call::new("GET", BUCKET, "/key", "s3").hashed();
        let (status, answer) = call.send(&lab).await;
        assert_eq!(status, 502, "{answer}");
        assert!(answer.contains("the keychain is locked"), "{answer}");
        lab.one_record("credential-unavailable", BUCKET).await;
        lab.forget_records();
        let mut config = lab.config();
        config.credentials.clear();
        // As the daemon goes on to say of what was given once.
        config.file.credential_hosts = vec![".amazonaws.com".to_owned()];
        // Both parts: the id is what a signature shows.
        config.withdrawn = [placeholder().access_key_id, placeholder().secret]
            .map(|placeholder| Withdrawn {
                service: "aws".to_owned(),
                placeholder,
            })
            .into();
        let answer = lab.ask(&Command::Configure(Box::new(config)));
        assert!(matches!(answer, Answer::Configured { .. }), "{answer:?}");
        let mut presigned = call.clone();
        presigned.presigned = true;
        for call in [call, presigned] {
            let (status, answer) = call.send(&lab).await;
            assert_eq!(status, 403, "{answer}");
            assert!(answer.contains("no secret is stored any more"), "{answer}");
            lab.one_record("credential-withdrawn", BUCKET).await;
            lab.forget_records();
        }
    });
    assert!(standin.recorder().requests().is_empty());
}
