//! What the model of a stand-in says, turn by turn, whichever provider's API carries it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A conversation as the model plays it. As JSON: the `--script` file of `sbx-standin-anthropic`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The API key that requests must carry, in their provider's way. None: every request is refused.
    #[serde(default)]
    pub api_key: Option<String>,
    /// The OAuth token that `authorization: Bearer` may carry instead (Anthropic's API).
    #[serde(default)]
    pub bearer: Option<String>,
    /// Pause between two pieces of a streamed answer, in milliseconds. 0 to 60 000.
    #[serde(default = "default_delay")]
    pub delay_ms: u64,
    /// The model's turns, first to last. The state of the conversation in a request chooses the turn.
    pub turns: Vec<Turn>,
}

fn default_delay() -> u64 {
    4
}

/// One answer of the model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// What must hold of the tool results that came back for the turn before. None: they must be there
    /// and must not be errors.
    #[serde(default)]
    pub expect: Option<Expect>,
    /// What goes wrong before the answer, one per request.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What the model says and which tools it calls.
    pub content: Vec<Block>,
    /// `tool_use`, `end_turn`, `max_tokens`, … None: `tool_use` if a tool is called, else `end_turn`.
    #[serde(default)]
    pub stop_reason: Option<String>,
}

/// A piece of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Block {
    /// Words.
    Text {
        /// The words.
        text: String,
    },
    /// A call of one of the client's tools.
    ToolUse {
        /// Name of the tool as the client offers it, such as `Write` or `Bash`.
        name: String,
        /// The arguments. For a tool that takes text instead of JSON: an object whose `input` is the text.
        input: Value,
    },
}

/// An expectation on the tool results of the turn before, all of them together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Whether a result must be (true) or must not be (false) marked as an error.
    pub is_error: bool,
    /// Texts that must occur in the results.
    pub contains: Vec<String>,
    /// Texts that must not occur in the results.
    pub lacks: Vec<String>,
}

/// Something that goes wrong once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An error answer instead of a stream.
    Status {
        /// HTTP status, such as 429 or 529.
        status: u16,
        /// Error type, such as `rate_limit_error` or `overloaded_error`.
        kind: String,
        /// Error message.
        message: String,
        /// Further headers, such as `retry-after`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// The stream starts with 200 and then carries an `error` event and ends.
    StreamError {
        /// Error type.
        kind: String,
        /// Error message.
        message: String,
    },
    /// The connection is cut in the middle of the stream.
    Cut,
    /// The connection is closed without an answer.
    Hangup,
    /// Nothing is sent for this long, then the answer follows as if nothing had happened.
    Stall {
        /// How long, in milliseconds.
        millis: u64,
    },
}

impl Script {
    /// A script with the given key and turns, and the usual pause of 4 ms between pieces.
    pub fn new(api_key: &str, turns: Vec<Turn>) -> Self {
        Self {
            api_key: Some(api_key.to_owned()),
            bearer: None,
            delay_ms: default_delay(),
            turns,
        }
    }

    /// The usual proof that an agent works: it writes `content` to `path` (absolute), runs `command`,
    /// must see `expected` in its output, and says goodbye. Uses Claude Code's `Write` and `Bash` tools.
    pub fn write_and_run(
        api_key: &str,
        path: &str,
        content: &str,
        command: &str,
        expected: &str,
    ) -> Self {
        let write = serde_json::json!({ "file_path": path, "content": content });
        let bash = serde_json::json!({ "command": command, "description": "Check the new file" });
        Self::new(
            api_key,
            vec![
                Turn::of(vec![
                    Block::text("I will write the file."),
                    Block::tool("Write", write),
                ]),
                Turn::of(vec![
                    Block::text("Now I check it."),
                    Block::tool("Bash", bash),
                ]),
                Turn::of(vec![Block::text("Done: the file is written and checked.")])
                    .expecting(&[expected]),
            ],
        )
    }

    /// Reads a script from JSON and checks that it can be played.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let script: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        script.check()?;
        Ok(script)
    }

    /// Names of the tools that the script calls.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &str> {
        self.turns.iter().flat_map(Turn::tools)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.turns.is_empty() {
            return Err("it has no turns".to_owned());
        }
        if self.delay_ms > 60_000 {
            return Err("delay_ms is above 60000".to_owned());
        }
        for (index, turn) in self.turns.iter().enumerate() {
            if turn.content.is_empty() {
                return Err(format!("turn {index} has no content"));
            }
            let inputs = turn.content.iter().filter_map(|block| match block {
                Block::ToolUse { input, .. } => Some(input),
                Block::Text { .. } => None,
            });
            if !inputs.clone().all(Value::is_object) {
                return Err(format!(
                    "turn {index} has a tool input that is not an object"
                ));
            }
            let needs_result = index == 0 && turn.expect.is_some();
            if needs_result {
                return Err(
                    "turn 0 expects tool results, but nothing was called before it".to_owned(),
                );
            }
        }
        Ok(())
    }

    /// The turn for a conversation in which `results` tool results came back and after them the model
    /// spoke `spoken` times without calling a tool. None: no turn of the script leads to that state.
    pub(crate) fn turn_for(&self, results: usize, spoken: usize) -> Option<usize> {
        let mut called = 0;
        let mut candidates = Vec::new();
        for (index, turn) in self.turns.iter().enumerate() {
            if called == results {
                candidates.push(index);
            }
            called += turn.tools().count();
        }
        // A conversation that goes on after its end hears the last words again.
        candidates.get(spoken).or(candidates.last()).copied()
    }
}

impl Turn {
    /// A turn that says and calls this, without faults, with the usual expectations.
    pub fn of(content: Vec<Block>) -> Self {
        Self {
            content,
            ..Self::default()
        }
    }

    /// Adds texts that must occur in the tool results of the turn before.
    #[must_use]
    pub fn expecting(mut self, texts: &[&str]) -> Self {
        let expect = self.expect.get_or_insert_default();
        expect
            .contains
            .extend(texts.iter().map(ToString::to_string));
        self
    }

    /// Adds a fault that happens once before this turn.
    #[must_use]
    pub fn after_fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    fn tools(&self) -> impl Iterator<Item = &str> {
        self.content.iter().filter_map(|block| match block {
            Block::ToolUse { name, .. } => Some(name.as_str()),
            Block::Text { .. } => None,
        })
    }

    pub(crate) fn stop_reason(&self) -> &str {
        match &self.stop_reason {
            Some(reason) => reason,
            None if self.tools().next().is_some() => "tool_use",
            None => "end_turn",
        }
    }
}

impl Block {
    /// Words.
    pub fn text(text: &str) -> Self {
        Self::Text {
            text: text.to_owned(),
        }
    }

    /// A tool call.
    pub fn tool(name: &str, input: Value) -> Self {
        Self::ToolUse {
            name: name.to_owned(),
            input,
        }
    }
}
