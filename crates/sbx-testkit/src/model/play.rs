//! Which turn of the script answers a request.

use std::sync::PoisonError;
use std::time::Duration;

use crate::anthropic::side;
use crate::anthropic::stream::{id, tokens};
use crate::conversation::Conversation;
use crate::recorder::{Event, Recorder};
use crate::script::{Block, Expect, Script};

use super::State;

/// The script that is played.
#[derive(Debug)]
pub(crate) struct Play {
    pub(super) script: Script,
}

impl Play {
    pub(super) fn new(script: Script) -> Self {
        Self { script }
    }
}

/// What a request asks of the model, in terms that all APIs share.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) model: String,
    pub(super) conversation: Conversation,
    pub(super) tools: Vec<Tool>,
    /// Schema that the answer has to fit.
    pub(super) schema: Option<serde_json::Value>,
    pub(super) stream: bool,
}

/// A tool that the client offers.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) name: String,
    /// Takes text instead of JSON.
    pub(super) text: bool,
    /// What it is grouped in (Responses API).
    pub(super) namespace: Option<String>,
}

/// An answer of the model.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) seq: u64,
    pub(super) model: String,
    pub(super) content: Vec<Block>,
    pub(super) tools: Vec<Tool>,
    pub(super) delay: Duration,
    pub(super) stream: bool,
    /// Index of the scripted turn and whether it is the last; none for other answers.
    pub(super) turn: Option<(usize, bool)>,
    /// What the request was taken for.
    pub(super) note: String,
}

impl Answer {
    /// Identifier of the `index`th part of the answer.
    pub(super) fn id(&self, prefix: &str, index: usize) -> String {
        // 1000 blocks in one answer is beyond any script.
        id(prefix, self.seq * 1000 + index as u64)
    }

    /// How a tool was offered.
    pub(super) fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// The argument of a call as the client wants it: JSON, or the text in `input`.
    pub(super) fn argument(&self, name: &str, input: &serde_json::Value) -> (bool, String) {
        let text = self.tool(name).is_some_and(|tool| tool.text);
        let argument = if text {
            input["input"].as_str().unwrap_or_default().to_owned()
        } else {
            input.to_string()
        };
        (text, argument)
    }

    pub(super) fn calls_tools(&self) -> bool {
        self.content
            .iter()
            .any(|block| matches!(block, Block::ToolUse { .. }))
    }

    pub(super) fn output_tokens(&self) -> usize {
        let sizes = self.content.iter().map(|block| match block {
            Block::Text { text } => tokens(text.len()),
            Block::ToolUse { input, .. } => tokens(input.to_string().len()),
        });
        sizes.sum()
    }

    pub(super) fn done(&self, recorder: &Recorder) {
        if let Some((turn, last)) = self.turn {
            recorder.push(Event::TurnDone { turn, last });
        }
    }
}

/// Answers what was asked, and looks at the expectations of the turn.
pub(super) fn answer(state: &State, ask: Ask, seq: u64) -> Answer {
    let play = state.play.lock().unwrap_or_else(PoisonError::into_inner);
    let mut answer = Answer {
        seq,
        model: ask.model,
        content: Vec::new(),
        tools: ask.tools,
        delay: Duration::from_millis(play.script.delay_ms),
        stream: ask.stream,
        turn: None,
        note: "side".to_owned(),
    };
    // Titles, routing and the like are asked of the model without tools.
    if answer.tools.is_empty() {
        let text = match &ask.schema {
            Some(schema) => side::fitting(schema).to_string(),
            None => "Scripted session".to_owned(),
        };
        answer.content = vec![Block::text(&text)];
        return answer;
    }
    match scripted(state, &play.script, &ask.conversation, &answer) {
        Ok(index) => {
            answer.content = play.script.turns[index].content.clone();
            answer.turn = Some((index, index + 1 == play.script.turns.len()));
            answer.note = format!("turn {index}");
        }
        Err((turn, detail)) => {
            state.recorder.push(Event::Assertion {
                turn,
                passed: false,
                detail: detail.clone(),
            });
            let text = format!("The stand-in stops here, turn {turn} does not hold: {detail}");
            answer.content = vec![Block::text(&text)];
            answer.note = "off script".to_owned();
        }
    }
    answer
}

fn scripted(
    state: &State,
    script: &Script,
    conversation: &Conversation,
    answer: &Answer,
) -> Result<usize, (usize, String)> {
    let Some(index) = script.turn_for(conversation.results, conversation.spoken) else {
        let detail = format!("no turn follows {} tool results", conversation.results);
        return Err((script.turns.len(), detail));
    };
    if let Some(missing) = script.tools().find(|name| answer.tool(name).is_none()) {
        let offered: Vec<&str> = answer.tools.iter().map(|tool| tool.name.as_str()).collect();
        let detail = format!("the client does not offer the tool {missing}, only {offered:?}");
        return Err((index, detail));
    }
    if conversation.results > 0 && conversation.spoken == 0 {
        let usual = Expect::default();
        let expect = script.turns[index].expect.as_ref().unwrap_or(&usual);
        let detail = conversation
            .check(expect)
            .map_err(|detail| (index, detail))?;
        state.recorder.push(Event::Assertion {
            turn: index,
            passed: true,
            detail,
        });
    }
    Ok(index)
}
