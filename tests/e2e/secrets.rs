//! Secrets of every kind at work in one machine, and nowhere in it or beside it. (A key of a service: `agent_job`; the
//! login of a registry: `clients`; an SSH key: `ssh_agent`.)

use crate::setting::Setting;
use sbx_e2e::nowhere::{Sought, is_nowhere};
use sbx_testkit::authorisation::Options;
use sbx_testkit::aws::Key;
use sbx_testkit::{AuthorisationStandIn, AwsStandIn, EchoUpstream};
use serde_json::{Value, json};
use std::net::SocketAddr;

const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const AWS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const S3: &str = "bucket.s3.us-east-1.amazonaws.com";
const STS: &str = "sts.us-east-1.amazonaws.com";
/// Hosts of secrets of the user's own.
const KEPT: &str = "kept.example";
const FETCHED: &str = "fetched.example";
const KEPT_VALUE: &str = "kept-REAL-7d1f0c9be4a25836-of-the-host";
const FETCHED_VALUE: &str = "fetched-REAL-0b6e94d27f31c85a-of-the-host";
/// Where somebody signs in, and what the tokens are good for.
const LOGIN: &str = "platform.claude.com";
const API: &str = "api.anthropic.com";

/// What stands in for the outside.
struct Outside {
    aws: AwsStandIn,
    own: EchoUpstream,
    login: AuthorisationStandIn,
}

impl Outside {
    fn start() -> Self {
        let key = Key {
            access_key_id: ID.to_owned(),
            secret: AWS_KEY.to_owned(),
            session_token: None,
        };
        let login = AuthorisationStandIn::start(Options {
            names: vec![LOGIN.to_owned(), API.to_owned()],
            ..Options::default()
        });
        Self {
            aws: AwsStandIn::start(key, &[S3, STS]).unwrap(),
            own: EchoUpstream::start_tls(&[KEPT, FETCHED]).unwrap(),
            login: login.unwrap(),
        }
    }

    /// Its names lead to it, it is trusted, and rules allow all of it but STS.
    fn lead(&self, setting: &Setting) {
        let roots = setting
            .installation
            .folder("trust")
            .unwrap()
            .join("roots.pem");
        let pem = [
            self.aws.root_pem(),
            self.own.root_pem().unwrap(),
            self.login.root_pem(),
        ];
        setting
            .installation
            .write(&roots, pem.concat().as_bytes())
            .unwrap();
        let at = |name: &str, address: SocketAddr| {
            (format!("{name}:443"), Value::from(address.to_string()))
        };
        let overrides: serde_json::Map<_, _> = [
            at(S3, self.aws.address()),
            at(STS, self.aws.address()),
            at(KEPT, self.own.address()),
            at(FETCHED, self.own.address()),
            at(LOGIN, self.login.address()),
            at(API, self.login.address()),
        ]
        .into_iter()
        .collect();
        for words in [
            [
                "settings",
                "set",
                "upstream.overrides",
                &Value::from(overrides).to_string(),
            ],
            [
                "settings",
                "set",
                "upstream.extraRoots",
                &roots.display().to_string(),
            ],
            [
                "policy",
                "allow",
                "network",
                &[S3, KEPT, FETCHED, LOGIN, API].join(","),
            ],
        ] {
            setting.installation.sbx(words).success().unwrap();
        }
    }

    fn object(&self, name: &str) -> Option<String> {
        let object = self.aws.object("bucket", name);
        object.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn aws_notes(&self) -> Vec<String> {
        let requests = self.aws.recorder().requests().into_iter();
        requests.map(|request| request.note).collect()
    }

    /// What a host of the user's own was sent as its token, in the request for its name.
    fn token_at(&self, host: &str) -> Option<String> {
        let mut requests = self.own.recorder().requests().into_iter();
        let request = requests.find(|request| request.path.ends_with(host));
        request?.header("x-token").map(str::to_owned)
    }
}

fn store(setting: &Setting, value: &str, words: &[&str]) {
    let words = [&["secret"][..], words].concat();
    let stored = setting
        .installation
        .sbx_in(setting.root(), value.as_bytes(), words);
    stored.success().unwrap();
}

/// Puts something into a bucket. curl signs it, with the key of these words.
fn put(key: &str, name: &str, more: &str) -> String {
    format!(
        "curl -sS --fail-with-body --aws-sigv4 aws:amz:us-east-1:s3 --user {key} {more} \
         -X PUT --data-binary 'made inside' https://{S3}/{name}"
    )
}

#[test]
fn attack_59_secrets_of_every_kind_do_their_work_inside_and_are_nowhere() {
    let setting = Setting::ordinary("deny-all");
    let outside = Outside::start();
    outside.lead(&setting);
    // Where the user keeps it is the user's affair.
    let source = setting.installation.folder("of-the-user").unwrap();
    let file = source.join("token");
    setting
        .installation
        .write(&file, FETCHED_VALUE.as_bytes())
        .unwrap();
    let command = format!("cat {}", file.display());
    store(&setting, &format!("{ID}:{AWS_KEY}"), &["set", "aws"]);
    store(
        &setting,
        KEPT_VALUE,
        &["set-custom", "--host", KEPT, "--env", "KEPT"],
    );
    let fetched = [
        "set-custom",
        "--host",
        FETCHED,
        "--env",
        "FETCHED",
        "--command",
        &command,
    ];
    store(&setting, "", &fetched);
    setting.shell("secrets");

    let placeholder = "\"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\"";
    outside.login.agree("code-1", "a@one.test");
    let sign_in =
        json!({ "grant_type": "authorization_code", "code": "code-1", "client_id": "client-1" });
    let said = setting.inside(
        "secrets",
        &format!(
            "set -e
             {}
             curl -sSf -o /dev/null -H \"x-token: $KEPT\" https://{KEPT}/{KEPT}
             curl -sSf -o /dev/null -H \"x-token: $FETCHED\" https://{FETCHED}/{FETCHED}
             curl -sSf -H 'content-type: application/json' -d '{sign_in}' https://{LOGIN}/v1/oauth/token > ~/signed-in
             token=$(grep -o '\"access_token\": *\"[^\"]*' ~/signed-in | sed 's/.*\"//')
             curl -sSf -H \"authorization: Bearer $token\" https://{API}/v1/models
             echo; echo $token; echo $KEPT; echo $FETCHED; echo $AWS_SECRET_ACCESS_KEY
             sync",
            put(placeholder, "signed-again", "")
        ),
    );
    assert_eq!(
        outside.object("signed-again").as_deref(),
        Some("made inside")
    );
    assert_eq!(outside.token_at(KEPT).as_deref(), Some(KEPT_VALUE));
    assert_eq!(outside.token_at(FETCHED).as_deref(), Some(FETCHED_VALUE));
    assert!(said.contains("a@one.test"), "{said}");
    let shown: Vec<&str> = said.lines().rev().take(4).collect();
    let [aws, fetched, kept, token] = shown[..] else {
        panic!("{said}")
    };
    let issued = outside.login.tokens();
    assert!(
        issued.len() >= 2 && !issued.iter().any(|real| said.contains(real)),
        "{said}"
    );

    let mut secrets = vec![
        ("the key of AWS", AWS_KEY),
        ("what is kept", KEPT_VALUE),
        ("what is fetched", FETCHED_VALUE),
    ];
    secrets.extend(
        issued
            .iter()
            .map(|real| ("a token of a sign-in", real.as_str())),
    );
    let sought = Sought {
        secrets: &secrets,
        placeholders: &[
            ("that of AWS", aws),
            ("that of what is fetched", fetched),
            ("that of what is kept", kept),
            ("that of a token", token),
        ],
        kept_by_user: &[&source],
    };
    println!("{}", is_nowhere(&setting.installation, &sought).unwrap());
    keys_that_end_soon_are_handed_in_and_withdrawn(&setting, &outside);
}

/// The weaker mode: here the machine holds keys, but not the one that they were made with.
fn keys_that_end_soon_are_handed_in_and_withdrawn(setting: &Setting, outside: &Outside) {
    store(
        setting,
        &format!("{ID}:{AWS_KEY}"),
        &["set", "aws", "--force", "--short-lived"],
    );
    // A machine that runs keeps the variables that it was started with.
    let stop = ["stop", "secrets"];
    setting.installation.sbx(stop).success().unwrap();
    // Asked for with and without the proxy.
    let with_a_key = |line: &str| {
        format!(
            "set -e
             test -z \"$AWS_SECRET_ACCESS_KEY\"
             for way in env 'env -u http_proxy -u HTTP_PROXY'; do
             document=$($way curl -sS --fail-with-body -H \"Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN\" \
                        \"$AWS_CONTAINER_CREDENTIALS_FULL_URI\")
             done
             field() {{ printf %s \"$document\" | grep -o \"\\\"$1\\\": *\\\"[^\\\"]*\" | sed 's/.*\"//'; }}
             {line}"
        )
    };
    let key = "\"$(field AccessKeyId):$(field SecretAccessKey)\"";
    let token = "-H \"x-amz-security-token: $(field Token)\"";
    setting.inside(
        "secrets",
        &with_a_key(&format!(
            "{}; printf '%s\\n' {key} \"$(field Token)\" > ~/kept; sync",
            put(key, "short-lived", token)
        )),
    );
    assert_eq!(
        outside.object("short-lived").as_deref(),
        Some("made inside")
    );
    assert_eq!(
        outside.aws_notes(),
        ["verified s3", "verified sts", "verified s3"]
    );
    let issued = setting.inside("secrets", "head -n 1 ~/kept | cut -d: -f2-");
    let sought = Sought {
        secrets: &[("the key of AWS", AWS_KEY)],
        placeholders: &[("the key that was handed in", issued.trim())],
        kept_by_user: &[],
    };
    println!("{}", is_nowhere(&setting.installation, &sought).unwrap());

    let removed = ["secret", "rm", "aws", "--force"];
    setting.installation.sbx(removed).success().unwrap();
    let again = format!(
        "{{ read -r key; read -r token; }} < ~/kept\n{}",
        put(
            "\"$key\"",
            "withdrawn",
            "-H \"x-amz-security-token: $token\""
        )
    );
    for line in [again, with_a_key("true")] {
        let refused = setting.installation.inside("secrets", &line);
        assert!(!refused.ok(), "{refused}");
    }
    assert_eq!(outside.object("withdrawn"), None);
    assert_eq!(outside.aws_notes().len(), 3);
}
