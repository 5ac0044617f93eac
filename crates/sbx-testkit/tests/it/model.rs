//! Three APIs, one scripted model.

use sbx_testkit::ModelStandIn;
use sbx_testkit::model::job;
use serde_json::{Value, json};

use crate::client::Client;

const KEY: &str = "key-of-the-test";

/// An API as its clients speak it: path, header with the key, and a request with this much of the conversation.
struct Api {
    agent: &'static str,
    host: &'static str,
    path: &'static str,
    key: String,
    request: fn(usize) -> Value,
}

fn apis() -> [Api; 3] {
    [
        Api {
            agent: "opencode",
            host: "api.openai.com",
            path: "/v1/responses",
            key: format!("authorization: Bearer {KEY}"),
            request: responses,
        },
        Api {
            agent: "copilot",
            host: "api.githubcopilot.com",
            path: "/chat/completions",
            key: format!("authorization: Bearer {KEY}"),
            request: chat,
        },
        Api {
            agent: "gemini",
            host: "generativelanguage.googleapis.com",
            path: "/v1beta/models/gemini-x:streamGenerateContent?alt=sse",
            key: format!("x-goog-api-key: {KEY}"),
            request: gemini,
        },
    ]
}

fn responses(results: usize) -> Value {
    let mut input = vec![json!({ "role": "user", "content": "write" })];
    for call in 0..results {
        let id = format!("call_{call}");
        input.push(
            json!({ "type": "function_call", "call_id": id, "name": "bash", "arguments": "{}" }),
        );
        input.push(
            json!({ "type": "function_call_output", "call_id": id, "output": "it says hello" }),
        );
    }
    let tools = ["apply_patch", "bash"].map(|name| json!({ "type": "function", "name": name }));
    json!({ "model": "gpt-x", "input": input, "tools": tools, "stream": true })
}

fn chat(results: usize) -> Value {
    let mut messages = vec![json!({ "role": "user", "content": "write" })];
    for call in 0..results {
        let id = format!("call_{call}");
        let calls = json!([{ "id": id, "type": "function", "function": { "name": "bash", "arguments": "{}" } }]);
        messages.push(json!({ "role": "assistant", "content": "", "tool_calls": calls }));
        messages.push(json!({ "role": "tool", "tool_call_id": id, "content": "it says hello" }));
    }
    let tools = [json!({ "type": "function", "function": { "name": "bash" } })];
    json!({ "model": "gpt-x", "messages": messages, "tools": tools, "stream": true })
}

fn gemini(results: usize) -> Value {
    let mut contents = vec![json!({ "role": "user", "parts": [{ "text": "write" }] })];
    for _ in 0..results {
        let call = json!({ "functionCall": { "name": "write_file", "args": {} } });
        let back = json!({ "functionResponse": { "name": "write_file", "response": { "output": "it says hello" } } });
        contents.push(json!({ "role": "model", "parts": [call] }));
        contents.push(json!({ "role": "user", "parts": [back] }));
    }
    let tools = ["write_file", "run_shell_command"].map(|name| json!({ "name": name }));
    json!({ "contents": contents, "tools": [{ "functionDeclarations": tools }] })
}

fn start(api: &Api) -> (ModelStandIn, Client) {
    let stand_in = ModelStandIn::start(job(api.agent, KEY, "/w/f", "hello").unwrap()).unwrap();
    let root = stand_in.root_pem().to_owned();
    let client = Client::new(api.host, stand_in.address(), Some(&root));
    (stand_in, client)
}

fn ask(client: &Client, api: &Api, key: &str, request: &Value) -> (u16, String) {
    let body = request.to_string();
    let answer = client.get(api.path, &["-H", key, "--data", &body]);
    (answer.status, answer.body)
}

#[test]
fn every_api_plays_the_turn_that_the_conversation_is_at_and_streams_it() {
    for api in apis() {
        let (stand_in, client) = start(&api);
        for (results, words) in ["I write", "I look", "Done"].into_iter().enumerate() {
            let (status, body) = ask(&client, &api, &api.key, &(api.request)(results));
            assert_eq!(status, 200, "{}: {body}", api.path);
            assert!(body.matches("data: ").count() > 3, "{}: {body}", api.path);
            assert!(
                body.contains(words),
                "{}, {results} results: {body}",
                api.path
            );
        }
        assert!(stand_in.recorder().script_completed(), "{}", api.path);
    }
}

#[test]
fn every_api_refuses_another_key_and_notices_a_result_that_says_something_else() {
    for api in apis() {
        let (stand_in, client) = start(&api);
        let wrong = api.key.replace(KEY, "placeholder");
        let (status, body) = ask(&client, &api, &wrong, &(api.request)(0));
        assert_eq!(status, 401, "{}: {body}", api.path);
        let other: Value = {
            let text = (api.request)(2).to_string().replace("hello", "nothing");
            serde_json::from_str(&text).unwrap()
        };
        let (_, body) = ask(&client, &api, &api.key, &other);
        assert!(
            !stand_in.recorder().failed_assertions().is_empty(),
            "{body}"
        );
    }
}

#[test]
fn every_api_refuses_a_conversation_with_a_call_that_nobody_answered() {
    for api in apis() {
        let (_stand_in, client) = start(&api);
        let mut request = (api.request)(1);
        for list in ["input", "messages", "contents"] {
            if let Some(items) = request[list].as_array_mut() {
                items.pop();
                items.push(
                    json!({ "role": "user", "content": "go on", "parts": [{ "text": "go on" }] }),
                );
            }
        }
        let (status, body) = ask(&client, &api, &api.key, &request);
        assert_eq!(status, 400, "{}: {body}", api.path);
    }
}

#[test]
fn a_socket_is_refused_where_a_request_is_wanted_and_github_says_what_it_does_not_have() {
    let [openai, copilot, _] = apis();
    let (_stand_in, client) = start(&openai);
    let upgrade = client.get(
        openai.path,
        &[
            "-H",
            &openai.key,
            "-H",
            "connection: upgrade",
            "-H",
            "upgrade: websocket",
            "--http1.1",
        ],
    );
    assert_eq!(upgrade.status, 426);
    let user = client.get("/copilot_internal/user", &["-H", &copilot.key]);
    assert_eq!(
        user.json()["endpoints"]["api"],
        "https://api.githubcopilot.com"
    );
    assert_eq!(client.get("/repos/x/y", &[]).json()["status"], "404");
}
