//! Endpoints with names of their own: what the user said of them is signed for, and nothing else.

use sbx_testkit::AwsStandIn;
use sbx_testkit::aws::chunked;
use sbx_wire::gateway::{Answer, AwsScope, Command, Credential};

use super::{BUCKET, Call, REGION, STS, credential, deliver, placeholder, real, setup_at};
use crate::lab::{Lab, Setup, run};

/// A bucket of a store with the interface of S3.
pub(crate) const STORE: &str = "bucket.s3.store.test";
/// An endpoint inside of a VPC.
const QUEUE: &str = "queue.corp.test";
const GARAGE: &str = "garage";
const FORM: &str = "application/x-www-form-urlencoded";

/// The key, for hosts that are of this service and region.
pub(crate) fn bound(hosts: &str, service: &str, region: &str) -> Credential {
    let mut credential = credential(&real(None));
    credential.hosts = vec![hosts.to_owned()];
    credential.aws.as_mut().unwrap().scope = Some(AwsScope {
        service: service.to_owned(),
        region: region.to_owned(),
    });
    credential
}

pub(crate) fn own() -> (AwsStandIn, Setup) {
    let (standin, setup) = setup_at(None, &[STORE, QUEUE, STS]);
    let setup = setup.bind(credential(&real(None)));
    let setup = setup.bind(bound("**.s3.store.test", "s3", GARAGE));
    (standin, setup.bind(bound(QUEUE, "sqs", REGION)))
}

fn town() -> (AwsStandIn, Lab) {
    let (standin, setup) = own();
    (standin, setup.start())
}

fn at_store(method: &'static str, path: &str) -> Call {
    Call {
        region: GARAGE,
        ..Call::new(method, STORE, path, "s3")
    }
}

fn form(body: &str) -> Call {
    let call = at_store("POST", "/").with("content-type", FORM);
    call.body(body.to_owned()).hashed()
}

#[test]
fn what_the_user_said_of_an_endpoint_is_signed_for_there() {
    let (standin, lab) = town();
    let calls = [
        at_store("PUT", "/hashed")
            .body(vec![b'a'; 300_000])
            .hashed(),
        at_store("PUT", "/unsigned")
            .body("small")
            .named("UNSIGNED-PAYLOAD"),
        // As a key of a bucket it is none that is asked for.
        at_store("GET", "/AssumeRole?prefix=a").hashed(),
        Call {
            presigned: true,
            ..at_store("GET", "/hashed")
        },
        form("Action=GetCallerIdentity"),
        Call::new("POST", QUEUE, "/", "sqs").body("{}"),
        // AWS's own hosts beside them are what they were.
        Call::new("GET", STS, "/?Action=GetCallerIdentity", "sts"),
    ];
    run(async {
        for call in &calls {
            let (_, answer) = call.send(&lab).await;
            let asked = standin.recorder().requests();
            let asked = asked.last().unwrap();
            assert_eq!(asked.note, format!("verified {}", call.service), "{answer}");
            let seen = format!("{asked:?}");
            assert!(!seen.contains(&placeholder().access_key_id), "{seen}");
            assert!(
                seen.contains(&format!("/{}/{}/aws4_request", call.region, call.service))
                    || call.presigned,
                "{seen}"
            );
            let record = lab.one_record("allow-rule", call.host).await;
            assert_eq!(record.credential.as_deref(), Some("aws"));
            lab.forget_records();
        }
        let parts = [vec![b'a'; 65_536], b"end".to_vec()];
        let pieces: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let call = at_store("PUT", "/streamed")
            .with("content-encoding", "aws-chunked")
            .with("x-amz-decoded-content-length", "65539")
            .named("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        let (request, seed) = call.sign();
        let body = chunked(&call.signer(), &seed, &pieces).unwrap();
        let (status, answer) = deliver(&lab, STORE, request.map(|_| body.into())).await;
        assert_eq!(status, 200, "{answer}");
    });
    assert_eq!(standin.object("bucket", "hashed").unwrap().len(), 300_000);
    assert_eq!(standin.object("bucket", "streamed").unwrap().len(), 65_539);
}

#[test]
fn what_is_signed_for_another_service_or_region_than_the_endpoint_s_is_refused_in_its_words() {
    let (standin, lab) = town();
    let mut guessed = at_store("GET", "/key").hashed();
    guessed.key.secret = "guessed".to_owned();
    let refused = [
        (
            Call {
                region: REGION,
                ..at_store("GET", "/key").hashed()
            },
            "AccessDenied",
        ),
        (
            Call {
                service: "sqs",
                ..at_store("GET", "/key")
            },
            "AccessDenied",
        ),
        (guessed, "SignatureDoesNotMatch"),
        (Call::new("POST", QUEUE, "/", "s3"), "AccessDenied"),
        (
            Call {
                region: GARAGE,
                ..Call::new("POST", QUEUE, "/", "sqs")
            },
            "AccessDenied",
        ),
    ];
    run(async {
        for (call, code) in &refused {
            let (status, answer) = call.send(&lab).await;
            assert_eq!(status, 403, "{answer}");
            assert!(
                answer.contains(code) && answer.contains("sbx: "),
                "{answer}"
            );
            if call.host == STORE {
                assert!(answer.starts_with("<Error><Code>"), "{answer}");
            }
            lab.one_record("aws-signature", call.host).await;
            lab.forget_records();
        }
    });
    assert!(standin.recorder().requests().is_empty());
}

#[test]
fn a_name_of_aws_means_what_it_says_whatever_the_key_is_bound_as() {
    let (standin, setup) = setup_at(None, &[STS, BUCKET]);
    let lab = setup
        .bind(bound("**.amazonaws.com", "s3", "us-west-2"))
        .start();
    run(async {
        for call in [
            Call {
                region: "us-west-2",
                ..Call::new("GET", STS, "/", "s3").hashed()
            },
            Call {
                region: "us-west-2",
                ..Call::new("GET", BUCKET, "/key", "s3").hashed()
            },
        ] {
            let (status, answer) = call.send(&lab).await;
            assert_eq!(status, 403, "{answer}");
            lab.one_record("aws-signature", call.host).await;
            lab.forget_records();
        }
        // What is asked of STS is still known.
        let call = Call::new("GET", STS, "/?Action=AssumeRole", "sts");
        assert_eq!(call.send(&lab).await.0, 403);
        lab.one_record("credential-issuer", STS).await;
        assert!(standin.recorder().requests().is_empty());
        let call = Call::new("GET", STS, "/?Action=GetCallerIdentity", "sts");
        assert_eq!(call.send(&lab).await.0, 200);
    });
}

#[test]
fn a_store_that_gives_out_keys_at_its_own_host_is_not_asked_for_them() {
    let (standin, lab) = town();
    let streamed = at_store("POST", "/")
        .with("content-type", FORM)
        .with("x-amz-decoded-content-length", "17")
        .named("STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let refused = [
        (
            form("Action=AssumeRole&Version=2011-06-15"),
            "sts:AssumeRole",
            true,
        ),
        (
            form("Version=1&Action=CreateAccessKey"),
            "iam:CreateAccessKey",
            true,
        ),
        (
            at_store("POST", "/?Action=GetSessionToken").hashed(),
            "sts:GetSessionToken",
            true,
        ),
        (
            at_store("POST", "/any/path")
                .with("content-type", FORM)
                .body("Action=AssumeRole")
                .named("UNSIGNED-PAYLOAD"),
            "sts:AssumeRole",
            true,
        ),
        (
            form("Action=AssumeRole").with("content-encoding", "gzip"),
            "A form that is compressed",
            false,
        ),
        (streamed, "A form in chunks", false),
    ];
    run(async {
        for (call, why, issues) in refused {
            let (signed, _) = call.sign();
            let (mut bare, _) = call.sign();
            bare.headers_mut().remove("authorization");
            // What would be in chunks is no form as long as nobody signed it so.
            let asked = if why.ends_with("chunks") {
                vec![signed]
            } else {
                vec![signed, bare]
            };
            for request in asked {
                let (status, answer) = deliver(&lab, STORE, request).await;
                assert_eq!(status, 403, "{why}: {answer}");
                assert!(answer.contains(why), "{answer}");
                let reason = if issues {
                    "credential-issuer"
                } else {
                    "aws-signature"
                };
                lab.one_record(reason, STORE).await;
                lab.forget_records();
            }
        }
    });
    assert!(standin.recorder().requests().is_empty());
}

#[test]
fn what_cannot_be_signed_for_is_no_configuration() {
    let (_standin, setup) = own();
    let lab = setup.start();
    for (service, region) in [("", GARAGE), ("s3", ""), ("s3/x", GARAGE), ("s3", "a\nb")] {
        let mut config = lab.config();
        config.credentials = vec![bound(STORE, service, region)];
        let answer = lab.ask(&Command::Configure(Box::new(config)));
        assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    }
}
