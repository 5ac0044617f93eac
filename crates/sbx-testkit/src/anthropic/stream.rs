//! An answer of the model as server-sent events or as one JSON object.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::api::error_body;
use crate::http::{self, Reply, Stream};
use crate::recorder::{Event, Recorder};
use crate::script::Block;

/// How a stream breaks after its first piece of content.
#[derive(Debug)]
pub(super) enum Broken {
    Error { kind: String, message: String },
    Cut,
}

/// One answer, ready to be sent.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) request_id: String,
    pub(super) model: String,
    pub(super) input_tokens: usize,
    pub(super) content: Vec<Block>,
    pub(super) stop_reason: String,
    pub(super) delay: Duration,
    pub(super) seq: u64,
    /// Index of the scripted turn and whether it is the last; none for other answers.
    pub(super) turn: Option<(usize, bool)>,
    pub(super) broken: Option<Broken>,
}

/// The reader went away.
struct Gone;

impl Message {
    /// The answer as one JSON object. A stream fault becomes a plain error.
    pub(super) fn whole(self, recorder: &Recorder) -> Reply {
        match &self.broken {
            Some(Broken::Cut) => return Reply::Hangup,
            Some(Broken::Error { kind, message }) => {
                let body = error_body(kind, message, &self.request_id);
                return http::json(StatusCode::INTERNAL_SERVER_ERROR, &body);
            }
            None => {}
        }
        let content: Vec<Value> = self
            .content
            .iter()
            .enumerate()
            .map(|(index, block)| match block {
                Block::Text { text } => json!({ "type": "text", "text": text }),
                Block::ToolUse { name, input } => json!({
                    "type": "tool_use", "id": self.tool_id(index), "name": name, "input": input,
                }),
            })
            .collect();
        let body = json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": self.stop_reason, "stop_sequence": null,
            "usage": self.usage(self.output_tokens()),
        });
        self.done(recorder);
        http::json(StatusCode::OK, &body)
    }

    /// The answer as a stream of events with pauses.
    pub(super) fn stream(self, recorder: Recorder) -> Reply {
        let (mut sender, reply) =
            http::streamed(StatusCode::OK, "text/event-stream; charset=utf-8");
        tokio::spawn(async move {
            match self.send(&mut sender).await {
                Ok(true) => self.done(&recorder),
                Ok(false) => http::cut(sender).await,
                Err(Gone) => {}
            }
        });
        reply.with_header("cache-control", "no-cache")
    }

    /// Sends everything; false means that the stream is to be cut.
    async fn send(&self, to: &mut Stream) -> Result<bool, Gone> {
        let start = json!({ "type": "message_start", "message": {
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": self.usage(1),
        }});
        event(to, &start).await?;
        for (index, block) in self.content.iter().enumerate() {
            let (opened, deltas) = self.pieces(index, block);
            let opened =
                json!({ "type": "content_block_start", "index": index, "content_block": opened });
            event(to, &opened).await?;
            if index == 0 {
                event(to, &json!({ "type": "ping" })).await?;
            }
            for delta in deltas {
                tokio::time::sleep(self.delay).await;
                let delta =
                    json!({ "type": "content_block_delta", "index": index, "delta": delta });
                event(to, &delta).await?;
                match &self.broken {
                    Some(Broken::Cut) => return Ok(false),
                    Some(Broken::Error { kind, message }) => {
                        event(to, &error_body(kind, message, &self.request_id)).await?;
                        return Ok(true);
                    }
                    None => {}
                }
            }
            event(to, &json!({ "type": "content_block_stop", "index": index })).await?;
        }
        let end = json!({
            "type": "message_delta",
            "delta": { "stop_reason": self.stop_reason, "stop_sequence": null },
            "usage": self.usage(self.output_tokens()),
        });
        event(to, &end).await?;
        event(to, &json!({ "type": "message_stop" })).await?;
        Ok(true)
    }

    /// The opening of a block and the deltas that fill it.
    fn pieces(&self, index: usize, block: &Block) -> (Value, Vec<Value>) {
        match block {
            Block::Text { text } => {
                let deltas = split(text).map(|part| json!({ "type": "text_delta", "text": part }));
                (json!({ "type": "text", "text": "" }), deltas.collect())
            }
            Block::ToolUse { name, input } => {
                let delta =
                    |part: &str| json!({ "type": "input_json_delta", "partial_json": part });
                let input = input.to_string();
                // The original's first delta is empty.
                let deltas = std::iter::once("")
                    .chain(split(&input))
                    .map(delta)
                    .collect();
                let opened = json!({ "type": "tool_use", "id": self.tool_id(index), "name": name, "input": {} });
                (opened, deltas)
            }
        }
    }

    fn tool_id(&self, index: usize) -> String {
        // 1000 blocks in one answer is beyond any script.
        id("toolu_01", self.seq * 1000 + index as u64)
    }

    fn usage(&self, output_tokens: usize) -> Value {
        json!({
            "input_tokens": self.input_tokens, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": output_tokens, "service_tier": "standard",
        })
    }

    fn output_tokens(&self) -> usize {
        let sizes = self.content.iter().map(|block| match block {
            Block::Text { text } => tokens(text.len()),
            Block::ToolUse { input, .. } => tokens(input.to_string().len()),
        });
        sizes.sum()
    }

    fn done(&self, recorder: &Recorder) {
        if let (Some((turn, last)), None) = (self.turn, &self.broken) {
            recorder.push(Event::TurnDone { turn, last });
        }
    }
}

async fn event(to: &mut Stream, data: &Value) -> Result<(), Gone> {
    let name = data["type"].as_str().unwrap_or("error");
    let frame = format!("event: {name}\ndata: {data}\n\n");
    to.send_data(Bytes::from(frame)).await.map_err(|_| Gone)
}

/// Cuts a text into pieces of at least 8 and at most an eighth of its characters, so that every answer
/// worth the name comes in several pieces, cut anywhere between two characters.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    let size = (text.chars().count() / 8).max(8);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .char_indices()
            .nth(size)
            .map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(piece)
    })
}

/// About four bytes make a token; exact figures do not matter to clients.
pub(crate) fn tokens(bytes: usize) -> usize {
    bytes / 4 + 1
}

/// An identifier of the original's shape: the prefix and 22 letters or digits, different for each `seq`.
pub(crate) fn id(prefix: &str, seq: u64) -> String {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    // A fixed multiplier spreads small numbers over all digits; uniqueness comes from it being odd.
    let mut rest = u128::from(seq).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let mut out = prefix.to_owned();
    for _ in 0..22 {
        let digit = usize::try_from(rest % 58).expect("a remainder of 58 fits");
        out.push(char::from(ALPHABET[digit]));
        rest /= 58;
    }
    out
}
