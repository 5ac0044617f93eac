//! The AWS CLI, versions 1 and 2, and the SDK that is part of it (botocore), with a placeholder key.

use std::net::SocketAddr;
use std::time::Duration;

use sbx_testkit::AwsStandIn;

use super::{Standin, Town, Way, installed};
use crate::aws::endpoints;
use crate::aws::handing_in::{TOKEN, daemon, document, handing_in};
use crate::aws::{credential, placeholder, real, setup};

fn town(token: Option<&str>) -> (AwsStandIn, Town) {
    let (standin, setup) = setup(token);
    let address: SocketAddr = standin.address();
    let shown = Standin::program(address, standin.root_pem().to_owned());
    let town = Town::start(setup.bind(credential(&real(token))), shown);
    (standin, town)
}

/// Version 2, of the distribution, in place of version 1. Empty: the distribution has none, as `./dev test` has said.
fn version_2() -> &'static str {
    if !installed().join("aws-cli-2").is_dir() {
        return "";
    }
    "aws() {
        PYTHONPATH=$CLIENTS/aws-cli-2/usr/lib/python3/dist-packages \
            /usr/bin/python3 $CLIENTS/aws-cli-2/usr/bin/aws \"$@\"
    }
    case $(aws --version) in aws-cli/2.*) ;; *) exit 9 ;; esac
    "
}

/// Runs a script with the placeholder in the environment; gives what it wrote.
#[track_caller]
fn run(town: &Town, way: Way, script: &str, success: bool) -> String {
    let key = placeholder();
    let script = format!(
        "export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}
         export AWS_DEFAULT_REGION=eu-west-1 AWS_STS_REGIONAL_ENDPOINTS=regional
         export AWS_EC2_METADATA_DISABLED=true AWS_MAX_ATTEMPTS=1 AWS_PAGER=
         PATH=$CLIENTS/python/bin:$PATH
         {script}",
        key.access_key_id, key.secret
    );
    let outcome = town.run(way, &script, &[]);
    assert_eq!(outcome.success, success, "{way:?}: {}", outcome.output);
    outcome.output
}

#[track_caller]
fn all_verified(standin: &AwsStandIn) {
    let requests = standin.recorder().requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert!(request.note.starts_with("verified "), "{request:?}");
    }
}

#[test]
fn aws_cli_moves_objects_in_one_piece_and_in_parts() {
    let (standin, town) = town(Some("token"));
    for (way, version) in [
        (Way::Forward, ""),
        (Way::Transparent, ""),
        (Way::Forward, version_2()),
        (Way::Transparent, version_2()),
    ] {
        let script = "set -e
            head -c 20000000 /dev/urandom > large
            aws s3 cp --no-progress large s3://bucket/large
            aws s3 cp --no-progress s3://bucket/large back
            cmp large back
            echo small | aws s3 cp - 's3://bucket/a key (of mine)+'
            aws s3 ls s3://bucket/
            aws sts get-caller-identity --query Account --output text";
        let output = run(&town, way, &format!("{version}{script}"), true);
        assert!(output.contains("123456789012"), "{output}");
        assert!(output.contains("20000000 large"), "{output}");
        assert!(output.contains("a%20key%20%28of%20mine%29%2B"), "{output}");
    }
    all_verified(&standin);
}

#[test]
fn aws_cli_uses_a_store_that_is_not_aws_s() {
    let (standin, setup) = endpoints::own();
    let address: SocketAddr = standin.address();
    let shown = Standin::program(address, standin.root_pem().to_owned());
    let town = Town::start(setup, shown);
    let script = "set -e
        export AWS_DEFAULT_REGION=garage
        aws configure set default.s3.addressing_style virtual
        store() { aws --endpoint-url https://s3.store.test s3 \"$@\"; }
        head -c 20000000 /dev/urandom > large
        store cp --no-progress large s3://bucket/large
        store cp --no-progress s3://bucket/large back
        cmp large back
        store ls s3://bucket/";
    let output = run(&town, Way::Forward, script, true);
    assert!(output.contains("20000000 large"), "{output}");
    all_verified(&standin);
}

#[test]
fn aws_cli_signs_urls_that_hold_inside() {
    let (standin, town) = town(None);
    let script = "set -e
        # Else it is a signature of version 2, for the host that stands for no region.
        aws configure set default.s3.signature_version s3v4
        aws configure set default.s3.addressing_style virtual
        echo content | aws s3 cp - s3://bucket/shared
        url=$(aws s3 presign s3://bucket/shared)
        curl -sSf \"$url\"";
    for version in ["", version_2()] {
        let output = run(&town, Way::Transparent, &format!("{version}{script}"), true);
        assert!(output.ends_with("content\n"), "{output}");
    }
    all_verified(&standin);
}

#[test]
fn aws_cli_and_its_sdk_talk_to_other_services() {
    let (standin, town) = town(Some("token"));
    let script = r#"set -e
        aws sts get-caller-identity --query Account --output text
        aws bedrock-runtime converse --model-id anthropic.m-v1:0 \
            --messages '[{"role":"user","content":[{"text":"hi"}]}]' --query stopReason --output text
        python - <<'END'
from awscli.botocore.session import Session
client = Session().create_client("bedrock-runtime", region_name="eu-west-1")
messages = [{"role": "user", "content": [{"text": "hi"}]}]
for event in client.converse_stream(modelId="anthropic.m-v1:0", messages=messages)["stream"]:
    if "contentBlockDelta" in event:
        print(event["contentBlockDelta"]["delta"]["text"], end="")
END"#;
    let output = run(&town, Way::Forward, script, true);
    for wanted in ["123456789012", "end_turn", "hello in pieces"] {
        assert!(output.contains(wanted), "{wanted}: {output}");
    }
    all_verified(&standin);
}

#[test]
fn aws_cli_shows_why_something_is_refused() {
    let (standin, town) = town(None);
    let role =
        "aws sts assume-role --role-arn arn:aws:iam::123456789012:role/r --role-session-name some";
    let ecr = "aws ecr get-login-password";
    for (script, wanted) in [
        (role, "sbx: sts:AssumeRole gives out credentials"),
        (ecr, "sbx: ecr:GetAuthorizationToken gives out credentials"),
        (
            "aws iam create-access-key",
            "sbx: iam:CreateAccessKey gives out credentials",
        ),
        (
            "AWS_SECRET_ACCESS_KEY=guessed aws s3 ls s3://bucket/",
            "SignatureDoesNotMatch",
        ),
        (
            "AWS_ACCESS_KEY_ID=AKIASOMEBODYELSE0001 aws sts get-caller-identity",
            "InvalidClientTokenId",
        ),
    ] {
        for version in ["", version_2()] {
            let script = format!("{version}{script}");
            let output = run(&town, Way::Transparent, &script, false);
            assert!(output.contains(wanted), "{wanted}: {output}");
        }
    }
    assert!(standin.recorder().requests().is_empty());
}

#[test]
fn aws_cli_and_its_sdk_hold_keys_that_end_soon_and_ask_for_the_next() {
    let (standin, setup) = setup(None);
    let (first, second) = (
        standin.issue(Duration::from_secs(8)),
        standin.issue(Duration::from_mins(15)),
    );
    let address: SocketAddr = standin.address();
    let shown = Standin::program(address, standin.root_pem().to_owned());
    let credential = handing_in(&[first.clone(), second.clone()]);
    let town = Town::start(setup.bind(credential), shown);
    let _daemon = daemon(&town.lab, vec![Ok(document(&first)), Ok(document(&second))]);
    // As the daemon sets them.
    let script = format!(
        r#"set -e
        unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
        export AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.2/sbx/aws
        export AWS_CONTAINER_AUTHORIZATION_TOKEN={TOKEN}
        python - <<'END'
import time
from awscli.botocore.session import Session
client = Session().create_client("sts", region_name="eu-west-1")
print(client.get_caller_identity()["Account"])
time.sleep(9)
print(client.get_caller_identity()["Account"])
END
        echo content | aws s3 cp - s3://bucket/key
        aws s3 cp s3://bucket/key -
        {}
        aws s3 cp s3://bucket/key -"#,
        version_2()
    );
    let output = run(&town, Way::Transparent, &script, true);
    assert_eq!(output.matches("123456789012").count(), 2, "{output}");
    assert!(output.ends_with("content\n"), "{output}");
    all_verified(&standin);
    let output = run(
        &town,
        Way::Forward,
        &script.replace("sleep(9)", "sleep(0)"),
        true,
    );
    assert!(output.ends_with("content\n"), "{output}");
    all_verified(&standin);
}
