//! OpenAI's Chat Completions API, which model servers everywhere share.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::play::{Answer, Ask, Tool};
use crate::anthropic::stream::split;
use crate::conversation::{Conversation, ToolResult};
use crate::http::{self, Reply, Stream};
use crate::recorder::Recorder;
use crate::script::Block;

/// Reads a request.
pub(super) fn read(request: &Value) -> Result<Ask, String> {
    let model = request["model"].as_str();
    let messages = request["messages"].as_array();
    let format = &request["response_format"];
    let schema = (format["type"] == "json_schema").then(|| format["json_schema"]["schema"].clone());
    let tool = |tool: &Value| {
        let text = tool["type"] == "custom";
        let definition = if text {
            &tool["custom"]
        } else {
            &tool["function"]
        };
        Some(Tool {
            name: definition["name"].as_str()?.to_owned(),
            text,
            namespace: None,
        })
    };
    Ok(Ask {
        model: model
            .ok_or("you must provide a model parameter")?
            .to_owned(),
        conversation: conversation(messages.ok_or("Missing required parameter: 'messages'.")?)?,
        tools: request["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(tool)
            .collect(),
        schema,
        stream: request["stream"] == true,
    })
}

/// A message with tool calls is followed by one message for each, as the original demands.
fn conversation(messages: &[Value]) -> Result<Conversation, String> {
    let mut state = Conversation::default();
    let mut open: Vec<&str> = Vec::new();
    let mut results = Vec::new();
    for message in messages {
        let role = message["role"].as_str().unwrap_or_default();
        if role == "tool" {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let known = open.iter().position(|call| *call == id);
            let known = known.ok_or(format!(
                "'tool_call_id' of '{id}' not found in 'tool_calls'"
            ))?;
            open.swap_remove(known);
            results.push(ToolResult {
                is_error: false,
                text: text(&message["content"]),
            });
            continue;
        }
        if !open.is_empty() {
            return Err("'tool_calls' must be followed by tool messages".to_owned());
        }
        state.returned(std::mem::take(&mut results));
        if role == "assistant" {
            let calls = message["tool_calls"].as_array().into_iter().flatten();
            open.extend(calls.filter_map(|call| call["id"].as_str()));
            state.spoken += 1;
        }
    }
    state.returned(results);
    Ok(state)
}

fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

/// The answer, as one object or as a stream of chunks.
pub(super) fn reply(answer: Answer, recorder: Recorder) -> Reply {
    if !answer.stream {
        let body = whole(&answer);
        answer.done(&recorder);
        return http::json(StatusCode::OK, &body);
    }
    let (mut sender, reply) = http::streamed(StatusCode::OK, "text/event-stream; charset=utf-8");
    tokio::spawn(async move {
        if send(&answer, &mut sender).await.is_some() {
            answer.done(&recorder);
        }
    });
    reply.with_header("cache-control", "no-cache")
}

/// `None`: the reader went away.
async fn send(answer: &Answer, to: &mut Stream) -> Option<()> {
    let opening = json!({ "role": "assistant", "content": "" });
    chunk(answer, to, Some((opening, Value::Null))).await?;
    let mut calls = 0;
    for (index, block) in answer.content.iter().enumerate() {
        let deltas: Vec<Value> = match block {
            Block::Text { text } => split(text).map(|part| json!({ "content": part })).collect(),
            Block::ToolUse { name, input } => {
                calls += 1;
                call_deltas(answer, calls - 1, &answer.id("call_", index), name, input)
            }
        };
        for delta in deltas {
            tokio::time::sleep(answer.delay).await;
            chunk(answer, to, Some((delta, Value::Null))).await?;
        }
    }
    chunk(answer, to, Some((json!({}), json!(finish(answer))))).await?;
    chunk(answer, to, None).await?;
    to.send_data(Bytes::from_static(b"data: [DONE]\n\n"))
        .await
        .ok()
}

fn call_deltas(answer: &Answer, at: usize, id: &str, name: &str, input: &Value) -> Vec<Value> {
    let (text, argument) = answer.argument(name, input);
    let (kind, field) = if text {
        ("custom", "input")
    } else {
        ("function", "arguments")
    };
    let mut opening = json!({ "index": at, "id": id, "type": kind });
    opening[kind] = json!({ "name": name, field: "" });
    let piece = |part: &str| {
        let mut call = json!({ "index": at });
        call[kind] = json!({ field: part });
        call
    };
    std::iter::once(opening)
        .chain(split(&argument).map(piece))
        .map(|call| json!({ "tool_calls": [call] }))
        .collect()
}

/// One chunk with a choice, or the last one, with the usage.
async fn chunk(answer: &Answer, to: &mut Stream, choice: Option<(Value, Value)>) -> Option<()> {
    let mut body = json!({
        "id": answer.id("chatcmpl-", 0), "object": "chat.completion.chunk", "created": 1_760_000_000,
        "model": answer.model,
    });
    if let Some((delta, finish)) = choice {
        body["choices"] = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
    } else {
        body["choices"] = json!([]);
        body["usage"] = usage(answer);
    }
    to.send_data(Bytes::from(format!("data: {body}\n\n")))
        .await
        .ok()
}

fn finish(answer: &Answer) -> &'static str {
    if answer.calls_tools() {
        "tool_calls"
    } else {
        "stop"
    }
}

fn whole(answer: &Answer) -> Value {
    let mut content = String::new();
    let mut calls = Vec::new();
    for (index, block) in answer.content.iter().enumerate() {
        match block {
            Block::Text { text } => content.push_str(text),
            Block::ToolUse { name, input } => {
                let (text, argument) = answer.argument(name, input);
                let (kind, field) = if text {
                    ("custom", "input")
                } else {
                    ("function", "arguments")
                };
                let mut call = json!({ "id": answer.id("call_", index), "type": kind });
                call[kind] = json!({ "name": name, field: argument });
                calls.push(call);
            }
        }
    }
    let mut message = json!({ "role": "assistant", "content": content });
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    json!({
        "id": answer.id("chatcmpl-", 0), "object": "chat.completion", "created": 1_760_000_000,
        "model": answer.model, "usage": usage(answer),
        "choices": [{ "index": 0, "message": message, "finish_reason": finish(answer) }],
    })
}

fn usage(answer: &Answer) -> Value {
    let output = answer.output_tokens();
    json!({ "prompt_tokens": 100, "completion_tokens": output, "total_tokens": 100 + output })
}
