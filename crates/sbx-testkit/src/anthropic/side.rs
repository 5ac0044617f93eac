//! Answers to requests beside the conversation: titles, topics, quota checks.

use serde_json::{Value, json};

/// Says something plausible where the client asks for a title, a topic or a quota check.
const ANSWER: &str = "Scripted session";

/// A plain answer; where the client demands JSON of a schema, the smallest value that fits it.
pub(super) fn answer(request: &Value) -> String {
    let demanded = [
        &request["output_config"]["format"],
        &request["output_format"],
    ];
    match demanded
        .into_iter()
        .find(|format| format["type"] == "json_schema")
    {
        Some(format) => fitting(&format["schema"]).to_string(),
        None => ANSWER.to_owned(),
    }
}

pub(crate) fn fitting(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    let kind = schema["type"].as_str().map(str::to_ascii_lowercase);
    match kind.as_deref() {
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            fields
                .map(|(name, field)| (name.clone(), fitting(field)))
                .collect()
        }
        Some("array") => json!([]),
        Some("boolean") => json!(false),
        Some("integer" | "number") => json!(0),
        Some("null") => Value::Null,
        _ => json!(ANSWER),
    }
}
