//! What a request to the Messages API says about the conversation so far.

use std::collections::BTreeSet;

use serde_json::Value;

pub(super) use crate::conversation::Conversation;
use crate::conversation::ToolResult;

/// Reads the messages and checks them as the original does: roles are known, every tool call is
/// answered by a result in the message after it, and no result comes without a call.
pub(super) fn read(messages: &[Value]) -> Result<Conversation, String> {
    let mut state = Conversation::default();
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for (index, message) in messages.iter().enumerate() {
        let blocks = message["content"].as_array().map_or(&[][..], Vec::as_slice);
        match message["role"].as_str() {
            Some("user") => {
                let mut results = Vec::new();
                for block in blocks.iter().filter(|block| block["type"] == "tool_result") {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    if !open.remove(id) {
                        return Err(format!(
                            "messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {id}"
                        ));
                    }
                    results.push(read_result(block));
                }
                if let Some(id) = open.first() {
                    return Err(format!(
                        "messages.{index}: `tool_use` ids were found without `tool_result` blocks \
                             immediately after: {id}"
                    ));
                }
                state.returned(results);
            }
            Some("assistant") => {
                let calls = blocks.iter().filter(|block| block["type"] == "tool_use");
                open.extend(calls.filter_map(|block| block["id"].as_str()));
                state.spoken += 1;
            }
            // Instructions in the middle of a conversation; they say nothing about its state.
            Some("system") => {}
            _ => {
                return Err(format!(
                    "messages.{index}.role: Input should be 'user' or 'assistant'"
                ));
            }
        }
    }
    Ok(state)
}

fn read_result(block: &Value) -> ToolResult {
    let text = match &block["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    };
    ToolResult {
        is_error: block["is_error"] == true,
        text,
    }
}
