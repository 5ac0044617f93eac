//! What a request to the Messages API says about the conversation so far.

use std::collections::BTreeSet;

use serde_json::Value;

use super::script::Expect;

/// The state of a conversation, read from the `messages` of a request.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Tool results that came back, all turns together.
    pub(super) results: usize,
    /// The results of the latest message that carried any.
    pub(super) latest: Vec<ToolResult>,
    /// Answers of the model after the latest result, or from the start if there is none.
    pub(super) spoken: usize,
}

/// One tool result.
#[derive(Debug)]
pub(super) struct ToolResult {
    pub(super) is_error: bool,
    pub(super) text: String,
}

impl Conversation {
    /// Reads the messages and checks them as the original does: roles are known, every tool call is
    /// answered by a result in the message after it, and no result comes without a call.
    pub(super) fn read(messages: &[Value]) -> Result<Self, String> {
        let mut state = Self::default();
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
                        results.push(ToolResult::read(block));
                    }
                    if let Some(id) = open.first() {
                        return Err(format!(
                            "messages.{index}: `tool_use` ids were found without `tool_result` blocks \
                             immediately after: {id}"
                        ));
                    }
                    if !results.is_empty() {
                        state.results += results.len();
                        state.latest = results;
                        state.spoken = 0;
                    }
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

    /// Looks at an expectation; the error says what came instead.
    pub(super) fn check(&self, expect: &Expect) -> Result<String, String> {
        if self.latest.is_empty() {
            return Err("no tool result came back".to_owned());
        }
        if let Some(odd) = self
            .latest
            .iter()
            .find(|result| result.is_error != expect.is_error)
        {
            let should = if expect.is_error {
                "an error"
            } else {
                "no error"
            };
            return Err(format!("the tool result should be {should}: {}", odd.text));
        }
        let all: Vec<&str> = self
            .latest
            .iter()
            .map(|result| result.text.as_str())
            .collect();
        let all = all.join("\n");
        if let Some(text) = expect.contains.iter().find(|text| !all.contains(*text)) {
            return Err(format!("the tool result lacks {text:?}: {all}"));
        }
        if let Some(text) = expect.lacks.iter().find(|text| all.contains(*text)) {
            return Err(format!("the tool result contains {text:?}: {all}"));
        }
        Ok(all)
    }
}

impl ToolResult {
    fn read(block: &Value) -> Self {
        let text = match &block["content"] {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect::<Vec<_>>()
                .join("\n"),
            _ => String::new(),
        };
        Self {
            is_error: block["is_error"] == true,
            text,
        }
    }
}
