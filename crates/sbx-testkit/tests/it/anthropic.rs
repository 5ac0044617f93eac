use sbx_testkit::anthropic::{Block, Fault, Turn};
use sbx_testkit::{AnthropicStandIn, Script};
use serde_json::{Value, json};

use crate::client::{Answer, Client};

const KEY: &str = "sk-ant-api03-test";

fn script() -> Script {
    Script::write_and_run(
        KEY,
        "/work/hello.txt",
        "hello\nworld\n",
        "cat hello.txt",
        "world",
    )
}

fn start(script: Script) -> (AnthropicStandIn, Client) {
    let stand_in = AnthropicStandIn::start(script).unwrap();
    let root = stand_in.root_pem().to_owned();
    let client = Client::new("api.anthropic.com", stand_in.address(), Some(&root));
    (stand_in, client)
}

fn first() -> Vec<Value> {
    vec![json!({ "role": "user", "content": "write hello.txt" })]
}

/// A conversation that goes on: the model's calls, and a result for each.
fn then(mut messages: Vec<Value>, calls: &[Value], result: &str, is_error: bool) -> Vec<Value> {
    messages.push(json!({ "role": "assistant", "content": calls }));
    let results: Vec<Value> = calls
        .iter()
        .filter(|call| call["type"] == "tool_use")
        .map(|call| json!({ "type": "tool_result", "tool_use_id": call["id"], "content": result, "is_error": is_error }))
        .collect();
    messages.push(json!({ "role": "user", "content": results }));
    messages
}

fn request(messages: &[Value], stream: bool) -> Value {
    json!({
        "model": "claude-opus-4-5", "max_tokens": 1000, "stream": stream, "messages": messages,
        "tools": [{ "name": "Write", "input_schema": {} }, { "name": "Bash", "input_schema": {} }],
    })
}

fn post(client: &Client, body: &Value, more: &[&str]) -> Answer {
    let body = body.to_string();
    let mut args = vec![
        "-H",
        "anthropic-version: 2023-06-01",
        "-H",
        "content-type: application/json",
    ];
    args.extend(["--data", &body]);
    args.extend(more);
    client.get("/v1/messages?beta=true", &args)
}

fn with_key(client: &Client, body: &Value, more: &[&str]) -> Answer {
    let mut args = vec!["-H", "x-api-key: sk-ant-api03-test"];
    args.extend(more);
    post(client, body, &args)
}

fn events(body: &str) -> Vec<Value> {
    let mut events = Vec::new();
    for frame in body.split_terminator("\n\n") {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        events.push(data);
    }
    events
}

/// Puts a streamed answer together again, as a client does.
fn assembled(events: &[Value]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut inputs: Vec<String> = Vec::new();
    for event in events {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                blocks.push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                let index = usize::try_from(event["index"].as_u64().unwrap()).unwrap();
                let delta = &event["delta"];
                let part = delta["text"]
                    .as_str()
                    .or(delta["partial_json"].as_str())
                    .unwrap();
                inputs[index].push_str(part);
            }
            _ => {}
        }
    }
    for (block, text) in blocks.iter_mut().zip(inputs) {
        match block["type"].as_str().unwrap() {
            "text" => block["text"] = json!(text),
            _ => block["input"] = serde_json::from_str(&text).unwrap(),
        }
    }
    blocks
}

#[test]
fn streamed_answer_has_the_events_of_the_original_in_order_over_both_versions() {
    let (stand_in, client) = start(script());
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = with_key(&client, &request(&first(), true), &[flag]);
        assert_eq!(
            (answer.code, answer.status, answer.version.as_str()),
            (0, 200, version)
        );
        assert!(answer.has_header("content-type: text/event-stream; charset=utf-8"));
        let events = events(&answer.body);
        let mut kinds: Vec<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
        kinds.dedup();
        assert_eq!(
            kinds,
            [
                "message_start",
                "content_block_start",
                "ping",
                "content_block_delta",
                "content_block_stop",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
            ]
        );
        let pieces = events
            .iter()
            .filter(|e| e["delta"]["type"] == "input_json_delta")
            .count();
        assert!(pieces > 3, "the tool input came in {pieces} pieces");
        let end = events
            .iter()
            .find(|e| e["type"] == "message_delta")
            .unwrap();
        assert_eq!(end["delta"]["stop_reason"], "tool_use");
        let blocks = assembled(&events);
        assert_eq!(blocks[1]["name"], "Write");
        assert_eq!(
            blocks[1]["input"],
            json!({ "file_path": "/work/hello.txt", "content": "hello\nworld\n" })
        );
    }
    assert_eq!(
        stand_in.recorder().requests()[0].header("x-api-key"),
        Some(KEY)
    );
}

#[test]
fn conversation_with_results_reaches_the_last_turn() {
    let (stand_in, client) = start(script());
    let one = assembled(&events(
        &with_key(&client, &request(&first(), true), &[]).body,
    ));
    let messages = then(first(), &one, "File created", false);
    // The same request twice is the same turn: a client may retry.
    for _ in 0..2 {
        let two = with_key(&client, &request(&messages, false), &[]).json();
        assert_eq!(two["content"][1]["name"], "Bash");
    }
    let two = with_key(&client, &request(&messages, false), &[]).json();
    let calls = two["content"].as_array().unwrap().clone();
    let messages = then(messages, &calls, "hello\nworld", false);
    assert!(!stand_in.recorder().script_completed());
    let three = with_key(&client, &request(&messages, false), &[]).json();
    assert_eq!(three["stop_reason"], "end_turn");
    assert!(
        stand_in.recorder().script_completed(),
        "{:?}",
        stand_in.recorder().entries()
    );
}

#[test]
fn failed_tool_and_missing_text_are_recorded_as_failed_assertions() {
    let (stand_in, client) = start(script());
    let one = assembled(&events(
        &with_key(&client, &request(&first(), true), &[]).body,
    ));
    let failed = then(first(), &one, "EACCES", true);
    let answer = with_key(&client, &request(&failed, false), &[]).json();
    assert_eq!(answer["stop_reason"], "end_turn");
    let good = then(first(), &one, "File created", false);
    let two = with_key(&client, &request(&good, false), &[]).json();
    let calls = two["content"].as_array().unwrap().clone();
    with_key(
        &client,
        &request(&then(good, &calls, "something else", false), false),
        &[],
    );
    let failures = stand_in.recorder().failed_assertions();
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures[0].contains("EACCES") && failures[1].contains("lacks \"world\""));
    assert!(!stand_in.recorder().script_completed());
}

#[test]
fn wrong_or_missing_credentials_get_the_error_of_the_original() {
    let (stand_in, client) = start(script());
    let body = request(&first(), false);
    let cases: [(&[&str], &str); 4] = [
        (&["-H", "x-api-key: proxy-managed"], "invalid x-api-key"),
        (&[], "x-api-key header is required"),
        (
            &["-H", "authorization: Bearer proxy-managed"],
            "Invalid bearer token",
        ),
        (
            &[
                "-H",
                "x-api-key: sk-ant-api03-test",
                "-H",
                "authorization: Bearer proxy-managed",
            ],
            "Invalid bearer token",
        ),
    ];
    for (headers, message) in cases {
        let answer = post(&client, &body, headers);
        assert_eq!(answer.status, 401);
        let error = answer.json();
        assert_eq!(error["type"], "error");
        assert_eq!(
            error["error"],
            json!({ "type": "authentication_error", "message": message })
        );
    }
    // With an `apiKeyHelper` the real client sends its key in both headers.
    let both = [
        "-H",
        "x-api-key: sk-ant-api03-test",
        "-H",
        "authorization: Bearer sk-ant-api03-test",
    ];
    assert_eq!(post(&client, &body, &both).status, 200);
    assert_eq!(stand_in.recorder().requests().len(), 5);
}

#[test]
fn malformed_requests_get_invalid_request_error() {
    let (_stand_in, client) = start(script());
    let key = ["-H", "x-api-key: sk-ant-api03-test"];
    let answer = client.get("/v1/messages", &[key[0], key[1], "--data", "{}"]);
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json()["error"]["message"],
        "anthropic-version: header is required"
    );
    let orphan =
        json!([{ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "x" }] }]);
    let unanswered = json!([
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "x", "name": "Bash", "input": {} }] },
        { "role": "user", "content": "go on" },
    ]);
    for (messages, part) in [
        (orphan, "unexpected `tool_use_id`"),
        (unanswered, "without `tool_result`"),
    ] {
        let answer = with_key(&client, &request(messages.as_array().unwrap(), false), &[]);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert!(
            answer.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(part)
        );
    }
    let missing = client.get("/api/claude_code/settings", &key);
    assert_eq!(
        (missing.status, &missing.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
    assert_eq!(client.get("/v1/models", &["-I"]).status, 405);
}

#[test]
fn side_requests_get_a_plausible_answer_and_take_no_turn() {
    let (stand_in, client) = start(script());
    let mut side = request(&first(), false);
    side["model"] = json!("claude-haiku-4-5");
    side["tools"] = json!([]);
    assert_eq!(
        with_key(&client, &side, &[]).json()["content"][0]["type"],
        "text"
    );
    side["output_config"] = json!({ "format": { "type": "json_schema", "schema": {
        "type": "object", "properties": { "title": { "type": "string" }, "new": { "type": "boolean" } },
    }}});
    let answer = with_key(&client, &side, &[]).json();
    let text: Value = serde_json::from_str(answer["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(text["title"].is_string() && text["new"].is_boolean());
    let notes: Vec<String> = stand_in
        .recorder()
        .requests()
        .into_iter()
        .map(|r| r.note)
        .collect();
    assert_eq!(notes, ["side", "side"]);
    let turn = with_key(&client, &request(&first(), false), &[]).json();
    assert_eq!(turn["content"][1]["name"], "Write");
}

#[test]
fn scripted_faults_come_once_and_then_the_turn() {
    let overloaded = Fault::Status {
        status: 529,
        kind: "overloaded_error".to_owned(),
        message: "Overloaded".to_owned(),
        headers: [("retry-after".to_owned(), "1".to_owned())].into(),
    };
    let broken = Fault::StreamError {
        kind: "api_error".to_owned(),
        message: "Broken".to_owned(),
    };
    let turn = Turn::of(vec![Block::text(
        "a rather long text that comes in several pieces",
    )])
    .after_fault(overloaded)
    .after_fault(broken)
    .after_fault(Fault::Cut)
    .after_fault(Fault::Hangup);
    let (stand_in, client) = start(Script::new(KEY, vec![turn]));
    let body = request(&first(), true);
    let answer = with_key(&client, &body, &[]);
    assert_eq!(
        (answer.status, answer.has_header("retry-after: 1")),
        (529, true)
    );
    assert_eq!(answer.json()["error"]["type"], "overloaded_error");
    let answer = with_key(&client, &body, &[]);
    assert_eq!(
        events(&answer.body).last().unwrap()["error"]["message"],
        "Broken"
    );
    let answer = with_key(&client, &body, &["--http1.1"]);
    assert_eq!((answer.code, answer.status), (18, 200), "a cut transfer");
    assert!(
        answer.body.contains("content_block_delta"),
        "{}",
        answer.body
    );
    assert_ne!(with_key(&client, &body, &[]).code, 0, "no answer at all");
    assert!(!stand_in.recorder().script_completed());
    let answer = with_key(&client, &body, &[]);
    assert_eq!(events(&answer.body).last().unwrap()["type"], "message_stop");
    assert!(stand_in.recorder().script_completed());
}

#[test]
fn changed_script_changes_the_answer() {
    let (stand_in, client) = start(script());
    let other = Script::write_and_run(KEY, "/work/hello.txt", "changed", "true", "");
    stand_in.set_script(other).unwrap();
    let answer = with_key(&client, &request(&first(), false), &[]).json();
    assert_eq!(answer["content"][1]["input"]["content"], "changed");
}

#[test]
fn stranger_to_the_root_sees_an_untrusted_certificate() {
    let (stand_in, _) = start(script());
    let (other, _) = start(script());
    let pem = other.root_pem();
    let client = Client::new("api.anthropic.com", stand_in.address(), Some(pem));
    assert_eq!(with_key(&client, &request(&first(), false), &[]).code, 60);
    let client = Client::new(
        "other.example",
        stand_in.address(),
        Some(stand_in.root_pem()),
    );
    assert_eq!(with_key(&client, &request(&first(), false), &[]).code, 60);
    assert!(stand_in.recorder().requests().is_empty());
}

#[test]
fn scripts_that_cannot_be_played_are_refused() {
    for (json, reason) in [
        (r#"{"turns":[]}"#, "no turns"),
        (r#"{"turns":[{"content":[]}]}"#, "no content"),
        (
            r#"{"turns":[{"content":[{"type":"tool_use","name":"Bash","input":"ls"}]}]}"#,
            "not an object",
        ),
        (
            r#"{"turns":[{"expect":{},"content":[{"type":"text","text":"x"}]}]}"#,
            "turn 0 expects",
        ),
        (r#"{"turnz":[]}"#, "unknown field"),
    ] {
        let error = Script::from_json(json).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}
