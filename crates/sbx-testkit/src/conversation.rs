//! What a request to a model says about the conversation so far, whichever provider's API carries it.

use crate::script::Expect;

/// The state of a conversation.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// Tool results that came back, all turns together.
    pub(crate) results: usize,
    /// The results of the latest message that carried any.
    pub(crate) latest: Vec<ToolResult>,
    /// Answers of the model after the latest result, or from the start if there is none.
    pub(crate) spoken: usize,
}

/// One tool result.
#[derive(Debug)]
pub(crate) struct ToolResult {
    pub(crate) is_error: bool,
    pub(crate) text: String,
}

impl Conversation {
    /// Tool results came back together.
    pub(crate) fn returned(&mut self, results: Vec<ToolResult>) {
        if !results.is_empty() {
            self.results += results.len();
            self.latest = results;
            self.spoken = 0;
        }
    }

    /// Looks at an expectation; the error says what came instead.
    pub(crate) fn check(&self, expect: &Expect) -> Result<String, String> {
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
