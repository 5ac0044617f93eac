//! What is refused, in words that clients of AWS show.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Request;
use sbx_credentials::services::Service;
use sbx_wire::gateway::{Answer, Command};
use sbx_wire::secret::SecretText;

use super::{
    BEDROCK, BUCKET, CLUSTER, CODEARTIFACT, COGNITO, Call, ECR, ECR_PUBLIC, IAM, OIDC, PORTAL, STS,
    credential, deliver, real, setup, setup_at, town,
};
use crate::lab::{anthropic, run};

#[test]
fn what_is_not_the_placeholder_s_signature_is_refused_in_the_words_of_aws() {
    let (standin, lab) = town(None);
    let call = || Call::new("GET", BUCKET, "/key", "s3").hashed();
    let mut other_key = call();
    other_key.key.access_key_id = "AKIASOMEBODYELSE0001".to_owned();
    let mut other_secret = call();
    other_secret.key.secret = "guessed".to_owned();
    let mut late = call();
    late.time -= Duration::from_mins(16);
    let mut elsewhere = call();
    elsewhere.region = "us-west-2";
    let mut other_service = call();
    other_service.service = "sqs";
    let refused = [
        (other_key, "InvalidClientTokenId"),
        (other_secret, "SignatureDoesNotMatch"),
        (late, "RequestTimeTooSkewed"),
        (elsewhere, "AccessDenied"),
        (other_service, "AccessDenied"),
        (Call::new("GET", CLUSTER, "/api", "sts"), "AccessDenied"),
        (
            Call::new("POST", BEDROCK, "/model/m/converse", "bedrock").named("UNSIGNED-PAYLOAD"),
            "AccessDenied",
        ),
    ];
    run(async {
        for (call, code) in &refused {
            let (status, answer) = call.send(&lab).await;
            assert_eq!(status, 403, "{answer}");
            assert!(
                answer.contains(code) && answer.contains("sbx: "),
                "{code}: {answer}"
            );
            let record = lab.one_record("aws-signature", call.host).await;
            assert!(!record.allowed);
            lab.forget_records();
        }
        for login in [
            "AWS4-ECDSA-P256-SHA256 Credential=x",
            "AWS AKIAPLACEHOLDER00001:c2ln",
        ] {
            let request = Request::get("/key")
                .header("host", BUCKET)
                .header("authorization", login);
            let (status, answer) = deliver(
                &lab,
                BUCKET,
                request.body(bytes::Bytes::new().into()).unwrap(),
            )
            .await;
            assert_eq!(status, 403, "{answer}");
            assert!(
                answer.starts_with("<Error><Code>AccessDenied</Code>"),
                "{answer}"
            );
        }
    });
    assert!(standin.recorder().requests().is_empty());
}

/// Every call of this list, whose answer is a credential, with what the record has to say.
fn issuing() -> Vec<(Call, &'static str)> {
    let form = |host, service, body: &str| {
        let call = Call::new("POST", host, "/", service);
        call.with("content-type", "application/x-www-form-urlencoded")
            .body(body.to_owned())
    };
    let target = |host, service, target: &str| {
        let call = Call::new("POST", host, "/", service);
        call.with("content-type", "application/x-amz-json-1.1")
            .with("x-amz-target", target)
            .body("{}")
    };
    let path = |method, host, service, path: &str| Call::new(method, host, path, service);
    let mut calls = Vec::new();
    for action in [
        "AssumeRole",
        "AssumeRoleWithSAML",
        "AssumeRoleWithWebIdentity",
        "AssumeRoot",
        "GetSessionToken",
        "GetFederationToken",
    ] {
        calls.push((
            form(STS, "sts", &format!("Action={action}&Version=2011-06-15")),
            "sts:",
        ));
        calls.push((
            path(
                "GET",
                STS,
                "sts",
                &format!("/?Action={action}&Version=2011-06-15"),
            ),
            "sts:",
        ));
    }
    calls.extend([
        (
            form(IAM, "iam", "Action=CreateAccessKey&Version=2010-05-08"),
            "iam:CreateAccessKey",
        ),
        (
            form(IAM, "iam", "Action=CreateServiceSpecificCredential"),
            "iam:CreateServiceSpecificCredential",
        ),
        (
            target(
                ECR,
                "ecr",
                "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            ),
            "ecr:GetAuthorizationToken",
        ),
        (
            target(
                ECR_PUBLIC,
                "ecr-public",
                "SpencerFrontendService.GetAuthorizationToken",
            ),
            "ecr-public:GetAuthorizationToken",
        ),
        (
            path(
                "POST",
                CODEARTIFACT,
                "codeartifact",
                "/v1/authorization-token?domain=d",
            ),
            "codeartifact:GetAuthorizationToken",
        ),
        (
            path(
                "GET",
                PORTAL,
                "awsssoportal",
                "/federation/credentials?role_name=r&account_id=1",
            ),
            "awsssoportal:GetRoleCredentials",
        ),
        (
            path("POST", OIDC, "sso-oauth", "/token"),
            "sso-oauth:CreateToken",
        ),
        (
            target(
                COGNITO,
                "cognito-identity",
                "AWSCognitoIdentityService.GetCredentialsForIdentity",
            ),
            "cognito-identity:GetCredentialsForIdentity",
        ),
    ]);
    calls
}

#[test]
fn every_call_that_gives_out_credentials_is_refused_signed_or_not() {
    let (standin, lab) = town(None);
    run(async {
        for (call, name) in issuing() {
            let (signed, _) = call.sign();
            let (mut bare, _) = call.sign();
            bare.headers_mut().remove("authorization");
            for request in [signed, bare] {
                let (status, answer) = deliver(&lab, call.host, request).await;
                assert_eq!(status, 403, "{name}: {answer}");
                assert!(
                    answer.contains(name) && answer.contains("gives out credentials"),
                    "{answer}"
                );
                let record = lab.one_record("credential-issuer", call.host).await;
                assert!(!record.allowed);
                lab.forget_records();
            }
        }
    });
    assert!(standin.recorder().requests().is_empty());
}

/// One host of STS, IAM and ECR in each part of AWS, with the region that it names.
const ELSEWHERE: [(&str, &str); 9] = [
    ("sts.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ("iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ("api.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    (
        "sts.cn-northwest-1.api.amazonwebservices.com.cn",
        "cn-northwest-1",
    ),
    ("sts.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
    ("iam.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
    (
        "sts.eusc-de-east-1.api.amazonwebservices.eu",
        "eusc-de-east-1",
    ),
    ("sts.us-east-1.api.aws", "us-east-1"),
    ("sts.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
];

#[test]
fn in_every_part_of_aws_keys_sign_for_its_region_and_calls_that_give_out_credentials_are_refused() {
    let names = ELSEWHERE.map(|(host, _)| host);
    let (standin, setup) = setup_at(None, &names);
    let mut key = credential(&real(None));
    // As the daemon says it.
    let aws = Service::find("aws").unwrap();
    let hosts = aws.forms.iter().flat_map(|form| form.hosts);
    key.hosts = hosts.map(|host| (*host).to_owned()).collect();
    let lab = setup.bind(key).start();
    run(async {
        for (host, region) in ELSEWHERE {
            let service = host.strip_prefix("api.").unwrap_or(host);
            let service = service.split('.').next().unwrap();
            let issues = match service {
                "sts" => "AssumeRole",
                "iam" => "CreateAccessKey",
                _ => "GetAuthorizationToken",
            };
            let call = |action: &str, region: &'static str| Call {
                service,
                region,
                ..Call::new("POST", host, &format!("/?Action={action}"), service)
            };
            let (status, answer) = call(issues, region).send(&lab).await;
            assert_eq!(status, 403, "{host}: {answer}");
            let named = format!("{service}:{issues}");
            assert!(answer.contains(&named), "{host}: {answer}");
            lab.one_record("credential-issuer", host).await;
            lab.forget_records();
            // Another part's region is not signed for.
            let other = if region == "us-east-1" {
                "cn-north-1"
            } else {
                "us-east-1"
            };
            let (status, answer) = call("List", other).send(&lab).await;
            assert_eq!(status, 403, "{host}: {answer}");
            lab.one_record("aws-signature", host).await;
            lab.forget_records();
            assert!(standin.recorder().requests().is_empty());
            let (status, answer) = call("List", region).send(&lab).await;
            assert_eq!(status, 200, "{host}: {answer}");
            let asked = standin.recorder().requests();
            assert_eq!(asked[0].note, format!("verified {service}"), "{host}");
            standin.recorder().clear();
            lab.forget_records();
        }
    });
}

#[test]
fn a_form_that_is_compressed_is_refused() {
    let (standin, lab) = town(None);
    run(async {
        let call = Call::new("POST", STS, "/", "sts")
            .with("content-encoding", "gzip")
            .body("Action=GetCallerIdentity");
        assert_eq!(call.send(&lab).await.0, 403);
    });
    assert!(standin.recorder().requests().is_empty());
}

#[test]
fn a_presigned_url_and_a_token_made_of_one_go_to_nobody_else() {
    let (standin, setup) = setup(None);
    let mut key = credential(&real(None));
    key.hosts = vec![STS.to_owned()];
    // Opened because of something else that is bound there.
    let lab = setup.bind(key).bind(anthropic(CLUSTER)).start();
    // As for a cluster of EKS: a presigned URL of STS as a bearer token, which the cluster would hand to STS.
    let call = Call {
        presigned: true,
        ..Call::new(
            "GET",
            STS,
            "/?Action=GetCallerIdentity&Version=2011-06-15",
            "sts",
        )
    };
    let (request, _) = call.sign();
    let url = format!("https://{STS}{}", request.uri());
    let token = format!("Bearer k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(&url));
    run(async {
        for (path, login) in [("/api", Some(token)), (&format!("/?u={url}"), None)] {
            let mut request = Request::get(path).header("host", CLUSTER);
            if let Some(login) = login {
                request = request.header("authorization", login);
            }
            let request = request.body(bytes::Bytes::new().into()).unwrap();
            let (status, answer) = deliver(&lab, CLUSTER, request).await;
            assert_eq!(status, 403, "{answer}");
            lab.one_record("placeholder-to-unbound-host", CLUSTER).await;
            lab.forget_records();
        }
    });
    assert!(standin.recorder().requests().is_empty());
}

#[test]
fn a_key_that_cannot_sign_is_no_configuration() {
    let (_standin, setup) = setup(None);
    let lab = setup.start();
    let good = credential(&real(None));
    let mut bad = vec![good.clone(); 4];
    bad[0].header = "x-api-key".to_owned();
    bad[1].aws.as_mut().unwrap().placeholder_id = "short".to_owned();
    bad[2].value = SecretText::new("AKIA/EVIL:secret".to_owned());
    bad[3].value = SecretText::new(real(None).secret);
    let configure = |credential| {
        let mut config = lab.config();
        config.credentials = vec![credential];
        lab.ask(&Command::Configure(Box::new(config)))
    };
    for credential in bad {
        let answer = configure(credential);
        assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    }
    assert!(matches!(configure(good), Answer::Configured { .. }));
}
