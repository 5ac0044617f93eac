//! Google's Gemini API.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::play::{Answer, Ask, Tool};
use crate::anthropic::stream::split;
use crate::conversation::{Conversation, ToolResult};
use crate::http::{self, Reply, Stream};
use crate::recorder::Recorder;
use crate::script::Block;

/// Reads a request. Model and streaming are in its path.
pub(super) fn read(request: &Value) -> Result<Ask, String> {
    let contents = request["contents"].as_array();
    let contents = contents.ok_or("GenerateContentRequest.contents: contents is not specified")?;
    let config = &request["generationConfig"];
    let schema = [&config["responseJsonSchema"], &config["responseSchema"]];
    let declared = request["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|tool| {
            tool["functionDeclarations"]
                .as_array()
                .into_iter()
                .flatten()
        });
    let tool = |tool: &Value| {
        Some(Tool {
            name: tool["name"].as_str()?.to_owned(),
            text: false,
            namespace: None,
        })
    };
    Ok(Ask {
        conversation: conversation(contents)?,
        tools: declared.filter_map(tool).collect(),
        schema: schema
            .into_iter()
            .find(|schema| schema.is_object())
            .cloned(),
        ..Ask::default()
    })
}

/// Calls and their answers come in turns, in the same number, as the original demands.
fn conversation(contents: &[Value]) -> Result<Conversation, String> {
    let mut state = Conversation::default();
    let mut open = 0;
    for content in contents {
        let parts = content["parts"].as_array().map_or(&[][..], Vec::as_slice);
        if content["role"] == "model" {
            open = parts
                .iter()
                .filter(|part| part["functionCall"].is_object())
                .count();
            state.spoken += 1;
            continue;
        }
        let answers = parts
            .iter()
            .filter(|part| part["functionResponse"].is_object());
        let results: Vec<ToolResult> = answers
            .map(|part| result(&part["functionResponse"]))
            .collect();
        if results.len() != open {
            return Err(
                "Please ensure that the number of function response parts is equal to the number of \
                 function call parts of the function call turn."
                    .to_owned(),
            );
        }
        open = 0;
        state.returned(results);
    }
    Ok(state)
}

fn result(response: &Value) -> ToolResult {
    let body = &response["response"];
    let error = body["error"].as_str();
    ToolResult {
        is_error: error.is_some(),
        text: error
            .or(body["output"].as_str())
            .map_or_else(|| body.to_string(), str::to_owned),
    }
}

/// The answer, as one object or as a stream of them.
pub(super) fn reply(answer: Answer, recorder: Recorder) -> Reply {
    if !answer.stream {
        let parts = answer
            .content
            .iter()
            .enumerate()
            .map(|(index, block)| match block {
                Block::Text { text } => json!({ "text": text }),
                Block::ToolUse { name, input } => call(&answer, index, name, input),
            });
        let body = body(&answer, &parts.collect::<Vec<_>>(), true);
        answer.done(&recorder);
        return http::json(StatusCode::OK, &body);
    }
    let (mut sender, reply) = http::streamed(StatusCode::OK, "text/event-stream");
    tokio::spawn(async move {
        if send(&answer, &mut sender).await.is_some() {
            answer.done(&recorder);
        }
    });
    reply.with_header("cache-control", "no-cache")
}

/// `None`: the reader went away. Calls are never cut in pieces.
async fn send(answer: &Answer, to: &mut Stream) -> Option<()> {
    for (index, block) in answer.content.iter().enumerate() {
        let parts: Vec<Value> = match block {
            Block::Text { text } => split(text).map(|part| json!({ "text": part })).collect(),
            Block::ToolUse { name, input } => vec![call(answer, index, name, input)],
        };
        for part in parts {
            tokio::time::sleep(answer.delay).await;
            event(to, &body(answer, &[part], false)).await?;
        }
    }
    event(to, &body(answer, &[json!({ "text": "" })], true)).await
}

async fn event(to: &mut Stream, body: &Value) -> Option<()> {
    to.send_data(Bytes::from(format!("data: {body}\r\n\r\n")))
        .await
        .ok()
}

fn call(answer: &Answer, index: usize, name: &str, input: &Value) -> Value {
    json!({ "functionCall": { "id": answer.id("call_", index), "name": name, "args": input } })
}

fn body(answer: &Answer, parts: &[Value], last: bool) -> Value {
    let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    let output = answer.output_tokens();
    json!({
        "candidates": [candidate], "modelVersion": answer.model, "responseId": answer.id("resp", 0),
        "usageMetadata": {
            "promptTokenCount": 100, "candidatesTokenCount": output, "totalTokenCount": 100 + output,
        },
    })
}
