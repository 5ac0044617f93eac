//! Credentials in all their forms: what the upstream gets for each.

use std::io::{BufRead, BufReader, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::{Answer, Command, Credential, Replace};
use sbx_wire::secret::SecretText;

use crate::lab::{Lab, PLACEHOLDER, SECRET, Setup, anthropic, get, h1, run, send, text};

const API: &str = "api.test";

async fn ask(lab: &Lab, host: &str, path: &str, header: (&'static str, &str)) -> (u16, String) {
    let stream = lab.connect(&format!("{host}:443")).await.unwrap();
    let stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
    let mut request = get(path, host);
    let (name, value) = header;
    let name = hyper::header::HeaderName::from_static(name);
    request.headers_mut().insert(name, value.parse().unwrap());
    let answer = send(&mut h1(stream).await, request).await.unwrap();
    text(answer).await
}

#[test]
fn a_service_has_the_form_that_each_of_its_hosts_wants() {
    let upstream = EchoUpstream::start_tls(&[API, "git.test", "deep.pattern.test"]).unwrap();
    let bearer = Credential {
        service: "github".to_owned(),
        hosts: vec![API.to_owned(), "**.pattern.test".to_owned()],
        header: "authorization".to_owned(),
        format: "Bearer %s".to_owned(),
        ..anthropic(API)
    };
    let basic = Credential {
        hosts: vec!["git.test".to_owned()],
        format: "Basic %s".to_owned(),
        basic_user: Some("x-access-token".to_owned()),
        ..bearer.clone()
    };
    let lab = Setup::new(&["allow api.test", "allow git.test", "allow **.pattern.test"])
        .tls_upstream(API, &upstream)
        .send_to("git.test:443", upstream.address())
        .send_to("deep.pattern.test:443", upstream.address())
        .bind(bearer)
        .bind(basic)
        .start();
    run(async {
        let login = format!("Basic {}", STANDARD.encode(format!("x:{PLACEHOLDER}")));
        let bearer = format!("Bearer {SECRET}");
        let basic = format!(
            "Basic {}",
            STANDARD.encode(format!("x-access-token:{SECRET}"))
        );
        for (host, wanted) in [
            (API, &bearer),
            ("deep.pattern.test", &bearer),
            ("git.test", &basic),
        ] {
            for sent in [("accept", "*/*"), ("authorization", login.as_str())] {
                let (status, _) = ask(&lab, host, "/status?code=200", sent).await;
                assert_eq!(status, 200, "{host}");
                let asked = upstream.recorder().requests();
                assert_eq!(
                    asked.last().unwrap().header("authorization"),
                    Some(wanted.as_str())
                );
                let record = lab.one_record("allow-rule", host).await;
                assert_eq!(record.credential.as_deref(), Some("github"));
                lab.forget_records();
            }
        }
    });
}

#[test]
fn a_custom_secret_is_replaced_where_it_stands_and_only_there() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let custom = Credential {
        service: "custom".to_owned(),
        header: String::new(),
        format: String::new(),
        replace: Some(Replace {
            body: false,
            login: false,
        }),
        value: SecretText::new("va/lue+of it".to_owned()),
        ..anthropic(API)
    };
    let lab = Setup::new(&["allow api.test"])
        .tls_upstream(API, &upstream)
        .bind(custom)
        .start();
    run(async {
        let basic = format!("Basic {}", STANDARD.encode(format!("me:{PLACEHOLDER}")));
        let real = format!("Basic {}", STANDARD.encode("me:va/lue+of it"));
        for (sent, wanted) in [
            (format!("Token {PLACEHOLDER}"), "Token va/lue+of it"),
            (basic, real.as_str()),
            ("Bearer own".to_owned(), "Bearer own"),
        ] {
            let (status, _) = ask(&lab, API, "/status?code=200", ("authorization", &sent)).await;
            assert_eq!(status, 200);
            let asked = upstream.recorder().requests();
            assert_eq!(asked.last().unwrap().header("authorization"), Some(wanted));
        }
        let path = format!("/status?code=200&key={PLACEHOLDER}");
        ask(&lab, API, &path, ("accept", "*/*")).await;
        let asked = upstream.recorder().requests();
        let target = &asked.last().unwrap().uri;
        assert!(target.ends_with("&key=va%2Flue%2Bof%20it"), "{target}");
        while lab.records().len() < 4 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let records = lab.records();
        let injected = records
            .iter()
            .filter(|r| r.credential.as_deref() == Some("custom"));
        assert_eq!(injected.count(), 3, "{records:#?}");
        assert!(
            records.iter().all(|r| !format!("{r:?}").contains("va%2F")),
            "{records:#?}"
        );
    });
}

#[test]
fn a_conversation_may_quote_placeholders_and_they_are_made_unreadable_in_it() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let model = Credential {
        conversation: true,
        ..anthropic(API)
    };
    let forge = Credential {
        service: "github".to_owned(),
        hosts: vec!["git.test".to_owned()],
        placeholder: "gho_16charactersofit".to_owned(),
        ..anthropic(API)
    };
    let lab = Setup::new(&["allow api.test"])
        .tls_upstream(API, &upstream)
        .bind(model)
        .bind(forge)
        .start();
    run(async {
        let said = format!(
            "{{\"said\":\"GH_TOKEN=gho_16charactersofit and {PLACEHOLDER} \\u0067ho_16charactersofit\"}}"
        );
        let long = format!("{}{said}", " ".repeat(90_000));
        for body in [said, long] {
            let stream = lab.connect("api.test:443").await.unwrap();
            let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
            let request = hyper::Request::post("/upload?kept")
                .header("host", API)
                .body(http_body_util::Full::new(bytes::Bytes::from(body.clone())))
                .unwrap();
            let answer = send(&mut h1(stream).await, request).await.unwrap();
            let answer = answer.into_body().collect().await.unwrap().to_bytes();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                answer.contains(&format!("\"received\":{}", body.len())),
                "{answer}"
            );
            lab.records_that(1, |r| r.alert.as_deref() == Some("placeholder-masked"))
                .await;
            lab.forget_records();
        }
        let said = "GH_TOKEN=gho_16charactersofit";
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let request = hyper::Request::post("/echo")
            .header("host", API)
            .body(http_body_util::Full::new(bytes::Bytes::from(said)))
            .unwrap();
        let answer = send(&mut h1(stream).await, request).await.unwrap();
        assert_eq!(text(answer).await.0, 200);
        let asked = upstream.recorder().requests();
        assert_eq!(
            asked.last().unwrap().body,
            Some("GH_TOKEN=xxxxxxxxxxxxxxxxxxxx".into())
        );
        // In the head there is no reason to.
        let (status, _) = ask(&lab, API, "/echo", ("x-note", "gho_16charactersofit")).await;
        assert_eq!(status, 403);
    });
}

#[test]
fn a_value_that_is_asked_for_when_it_is_needed_is_asked_for_each_time() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let on_demand = Credential {
        on_demand: true,
        value: SecretText::new(String::new()),
        ..anthropic(API)
    };
    let lab = Setup::new(&["allow api.test"])
        .tls_upstream(API, &upstream)
        .bind(on_demand)
        .start();
    let control = lab.control();
    let daemon = std::thread::spawn(move || {
        let mut lines = BufReader::new(control.try_clone().unwrap()).lines();
        let mut say = |command: &Command| {
            let line = serde_json::to_string(command).unwrap();
            (&control)
                .write_all(format!("{line}\n").as_bytes())
                .unwrap();
            serde_json::from_str::<Answer>(&lines.next().unwrap().unwrap()).unwrap()
        };
        let mut answer = say(&Command::AwaitValue);
        for (value, problem) in [
            (Some("first-value"), None),
            (None, Some("The command failed")),
            (Some("bad\nvalue"), None),
            (Some("last-value"), None),
        ] {
            let Answer::ValueNeeded { service } = answer else {
                panic!("{answer:?}")
            };
            assert_eq!(service, "anthropic");
            let done = Command::Value {
                service,
                value: value.map(|value| SecretText::new(value.to_owned())),
                problem: problem.map(str::to_owned),
            };
            if value == Some("last-value") {
                let line = serde_json::to_string(&done).unwrap();
                (&control)
                    .write_all(format!("{line}\n").as_bytes())
                    .unwrap();
                return control;
            }
            answer = say(&done);
        }
        unreachable!("the last value was given")
    });
    run(async {
        for (status, written) in [
            (200, Some("first-value")),
            (502, None),
            (502, None),
            (200, Some("last-value")),
        ] {
            let before = upstream.recorder().requests().len();
            let (answered, page) = ask(&lab, API, "/echo", ("x-api-key", PLACEHOLDER)).await;
            assert_eq!(answered, status, "{page}");
            assert!(!page.contains("-value"), "{page}");
            let asked = upstream.recorder().requests();
            assert_eq!(asked.len() - before, usize::from(status == 200));
            if let Some(written) = written {
                assert_eq!(asked.last().unwrap().header("x-api-key"), Some(written));
            }
        }
    });
    drop(daemon.join().unwrap());
}
