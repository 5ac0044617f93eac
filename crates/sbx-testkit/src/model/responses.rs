//! OpenAI's Responses API.

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
    let mut ask = Ask {
        model: request["model"]
            .as_str()
            .ok_or("Missing required parameter: 'model'.")?
            .to_owned(),
        stream: request["stream"] == true,
        ..Ask::default()
    };
    let format = &request["text"]["format"];
    if format["type"] == "json_schema" {
        ask.schema = Some(format["schema"].clone());
    }
    tools(&request["tools"], None, &mut ask.tools);
    let empty = Vec::new();
    let input = request["input"].as_array().unwrap_or(&empty);
    for item in input
        .iter()
        .filter(|item| item["type"] == "additional_tools")
    {
        tools(&item["tools"], None, &mut ask.tools);
    }
    ask.conversation = conversation(input)?;
    Ok(ask)
}

/// Adds the tools of a list, also those of the groups in it.
fn tools(list: &Value, namespace: Option<&str>, to: &mut Vec<Tool>) {
    for tool in list.as_array().into_iter().flatten() {
        let Some(name) = tool["name"].as_str() else {
            continue;
        };
        if tool["type"] == "namespace" {
            tools(&tool["tools"], Some(name), to);
            continue;
        }
        to.push(Tool {
            name: name.to_owned(),
            text: tool["type"] == "custom",
            namespace: namespace.map(str::to_owned),
        });
    }
}

/// Every call is answered, and what answers no call is refused, as by the original.
fn conversation(input: &[Value]) -> Result<Conversation, String> {
    let mut state = Conversation::default();
    let mut open: Vec<&str> = Vec::new();
    let mut results = Vec::new();
    let mut speaking = false;
    for item in input {
        let kind = item["type"].as_str().unwrap_or("message");
        let id = item["call_id"].as_str().unwrap_or_default();
        if !kind.ends_with("_output") {
            state.returned(std::mem::take(&mut results));
        }
        let spoken = match kind {
            "function_call" | "custom_tool_call" => {
                open.push(id);
                true
            }
            "function_call_output" | "custom_tool_call_output" => {
                let known = open.iter().position(|call| *call == id);
                let known = known.ok_or(format!("No tool call found for call output {id}."))?;
                open.swap_remove(known);
                results.push(ToolResult {
                    is_error: false,
                    text: text(&item["output"]),
                });
                false
            }
            "message" => item["role"] == "assistant",
            "reasoning" => speaking,
            _ => false,
        };
        if spoken && !speaking {
            state.spoken += 1;
        }
        speaking = spoken;
    }
    state.returned(results);
    match open.first() {
        Some(id) => Err(format!("No tool output found for call {id}.")),
        None => Ok(state),
    }
}

/// An output is a string or a list of parts.
fn text(output: &Value) -> String {
    match output {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        other => other.to_string(),
    }
}

/// The answer, as one object or as a stream of events.
pub(super) fn reply(answer: Answer, recorder: Recorder) -> Reply {
    if !answer.stream {
        let body = response(&answer, "completed", &items(&answer));
        answer.done(&recorder);
        return http::json(StatusCode::OK, &body);
    }
    let (mut sender, reply) = http::streamed(StatusCode::OK, "text/event-stream; charset=utf-8");
    tokio::spawn(async move {
        let mut events = Events {
            to: &mut sender,
            number: 0,
        };
        if send(&answer, &mut events).await.is_some() {
            answer.done(&recorder);
        }
    });
    reply.with_header("cache-control", "no-cache")
}

/// A stream of numbered events.
struct Events<'a> {
    to: &'a mut Stream,
    number: u64,
}

impl Events<'_> {
    /// `None`: the reader went away.
    async fn send(&mut self, kind: &str, mut event: Value) -> Option<()> {
        event["type"] = json!(kind);
        event["sequence_number"] = json!(self.number);
        self.number += 1;
        let frame = format!("event: {kind}\ndata: {event}\n\n");
        self.to.send_data(Bytes::from(frame)).await.ok()
    }
}

async fn send(answer: &Answer, to: &mut Events<'_>) -> Option<()> {
    let begun = response(answer, "in_progress", &[]);
    to.send("response.created", json!({ "response": begun }))
        .await?;
    to.send("response.in_progress", json!({ "response": begun }))
        .await?;
    let items = items(answer);
    for (index, (block, item)) in answer.content.iter().zip(&items).enumerate() {
        block_events(answer, index, block, item, to).await?;
    }
    let whole = response(answer, "completed", &items);
    to.send("response.completed", json!({ "response": whole }))
        .await
}

async fn block_events(
    answer: &Answer,
    index: usize,
    block: &Block,
    item: &Value,
    to: &mut Events<'_>,
) -> Option<()> {
    let (field, event, text) = match block {
        Block::Text { text } => ("content", "response.output_text", text.clone()),
        Block::ToolUse { name, input } => match answer.argument(name, input) {
            (true, text) => ("input", "response.custom_tool_call_input", text),
            (false, text) => ("arguments", "response.function_call_arguments", text),
        },
    };
    let mut opened = item.clone();
    opened["status"] = json!("in_progress");
    opened[field] = if field == "content" {
        json!([])
    } else {
        json!("")
    };
    let at = json!({ "output_index": index, "item_id": item["id"], "content_index": 0 });
    let with = |name: &str, value: Value| {
        let mut event = at.clone();
        event[name] = value;
        event
    };
    to.send(
        "response.output_item.added",
        json!({ "output_index": index, "item": opened }),
    )
    .await?;
    if field == "content" {
        let part = json!({ "type": "output_text", "text": "", "annotations": [] });
        to.send("response.content_part.added", with("part", part))
            .await?;
    }
    for piece in split(&text) {
        tokio::time::sleep(answer.delay).await;
        to.send(&format!("{event}.delta"), with("delta", json!(piece)))
            .await?;
    }
    let done = if field == "content" { "text" } else { field };
    to.send(&format!("{event}.done"), with(done, json!(text)))
        .await?;
    if field == "content" {
        let part = item["content"][0].clone();
        to.send("response.content_part.done", with("part", part))
            .await?;
    }
    to.send(
        "response.output_item.done",
        json!({ "output_index": index, "item": item }),
    )
    .await
}

fn items(answer: &Answer) -> Vec<Value> {
    let item = |(index, block): (usize, &Block)| match block {
        Block::Text { text } => json!({
            "type": "message", "id": answer.id("msg_", index), "status": "completed", "role": "assistant",
            "content": [{ "type": "output_text", "text": text, "annotations": [] }],
        }),
        Block::ToolUse { name, input } => {
            let (text, argument) = answer.argument(name, input);
            let (kind, field, prefix) = if text {
                ("custom_tool_call", "input", "ctc_")
            } else {
                ("function_call", "arguments", "fc_")
            };
            let mut item = json!({
                "type": kind, "id": answer.id(prefix, index), "call_id": answer.id("call_", index),
                "name": name, "status": "completed",
            });
            item[field] = json!(argument);
            if let Some(namespace) = answer.tool(name).and_then(|tool| tool.namespace.as_ref()) {
                item["namespace"] = json!(namespace);
            }
            item
        }
    };
    answer.content.iter().enumerate().map(item).collect()
}

fn response(answer: &Answer, status: &str, output: &[Value]) -> Value {
    let usage = json!({
        "input_tokens": 100, "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": answer.output_tokens(), "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": 100 + answer.output_tokens(),
    });
    json!({
        "id": answer.id("resp_", 0), "object": "response", "created_at": 1_760_000_000, "status": status,
        "model": answer.model, "output": output, "error": null, "incomplete_details": null,
        "parallel_tool_calls": false, "store": false, "tools": [], "tool_choice": "auto", "metadata": {},
        "usage": if status == "completed" { usage } else { Value::Null },
    })
}
