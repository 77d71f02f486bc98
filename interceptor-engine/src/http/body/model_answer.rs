//! What a language model answers: its text, and the tools that it calls with which
//! arguments, of a whole answer or of one that came event by event.
//!
//! It is read from what the agent got, after masking, so nothing is here that a mask
//! hides.
//!
//! Formats: OpenAI's chat completions and responses, Anthropic's messages, with their
//! streams.

use std::collections::BTreeMap;

use serde_json::Value;

use super::model::ToolCall;

/// Bytes of an answer that are read.
const LIMIT: usize = 1 << 20;

/// Collects an answer.
#[derive(Debug)]
pub(in crate::http) struct AnswerReader {
    api: &'static str,
    body: Vec<u8>,
    long: bool,
}

/// What a model said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct ModelAnswer {
    pub(in crate::http) api: &'static str,
    pub(in crate::http) model: Option<String>,
    pub(in crate::http) text: String,
    pub(in crate::http) tool_calls: Vec<ToolCall>,
}

/// By its place in the answer, so that what comes in parts is put together.
#[derive(Debug, Default)]
struct Gathered {
    model: Option<String>,
    text: String,
    calls: BTreeMap<(u64, u64), ToolCall>,
}

impl AnswerReader {
    pub(in crate::http) fn new(api: &'static str) -> Self {
        Self {
            api,
            body: Vec::new(),
            long: false,
        }
    }

    /// Takes more of the body, opened and masked.
    pub(in crate::http) fn push(&mut self, bytes: &[u8]) {
        self.long |= self.body.len() + bytes.len() > LIMIT;
        if self.long {
            self.body = Vec::new();
        } else {
            self.body.extend_from_slice(bytes);
        }
    }

    /// What it comes to; `None` where it is no answer of a model.
    pub(in crate::http) fn finish(self, events: bool) -> Option<ModelAnswer> {
        if self.long {
            return None;
        }
        let mut gathered = Gathered::default();
        if events {
            let text = String::from_utf8_lossy(&self.body);
            for event in text.replace("\r\n", "\n").split("\n\n") {
                let data: Vec<&str> = event
                    .lines()
                    .filter_map(|line| line.strip_prefix("data:"))
                    .map(|line| line.strip_prefix(' ').unwrap_or(line))
                    .collect();
                if let Ok(part) = serde_json::from_str(&data.join("\n")) {
                    gathered.event(self.api, &part);
                }
            }
        } else {
            let answer = serde_json::from_slice(&self.body).ok()?;
            gathered.whole(self.api, &answer);
        }
        let found = !gathered.text.is_empty() || !gathered.calls.is_empty();
        found.then(|| ModelAnswer {
            api: self.api,
            model: gathered.model,
            text: gathered.text,
            tool_calls: gathered.calls.into_values().collect(),
        })
    }
}

fn items<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = (u64, &'v Value)> {
    let items = value.get(name).and_then(Value::as_array);
    (0..).zip(items.into_iter().flatten())
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, name: &str, or: u64) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(or)
}

fn arguments(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Gathered {
    fn names(&mut self, answer: &Value) {
        let model = text(answer, "model");
        if !model.is_empty() {
            self.model = Some(model.to_owned());
        }
    }

    /// More of a call: its name once, its arguments in parts.
    fn call(&mut self, at: (u64, u64), name: &str, more: &str) {
        let call = self.calls.entry(at).or_default();
        if !name.is_empty() {
            name.clone_into(&mut call.name);
        }
        call.arguments.push_str(more);
    }

    fn whole(&mut self, api: &str, answer: &Value) {
        self.names(answer);
        match api {
            "openai.chat" => {
                for (index, choice) in items(answer, "choices") {
                    if let Some(message) = choice.get("message") {
                        self.chat(index, message);
                    }
                }
            }
            "openai.responses" => {
                for (index, item) in items(answer, "output") {
                    self.item(index, item);
                }
            }
            _ => {
                for (index, block) in items(answer, "content") {
                    self.text.push_str(text(block, "text"));
                    if text(block, "type").ends_with("tool_use") {
                        let input = block.get("input").map(arguments).unwrap_or_default();
                        self.call((0, index), text(block, "name"), &input);
                    }
                }
            }
        }
    }

    /// A message of a chat, or a part of one.
    fn chat(&mut self, choice: u64, message: &Value) {
        self.text.push_str(text(message, "content"));
        for (index, call) in items(message, "tool_calls") {
            let at = (choice, number(call, "index", index));
            if let Some(function) = call.get("function") {
                let more = function.get("arguments").map(arguments).unwrap_or_default();
                self.call(at, text(function, "name"), &more);
            }
        }
    }

    /// One item of a response.
    fn item(&mut self, index: u64, item: &Value) {
        for (_, part) in items(item, "content") {
            self.text.push_str(text(part, "text"));
        }
        let kind = text(item, "type");
        if kind.ends_with("_call") {
            let name = text(item, "name");
            let name = if name.is_empty() { kind } else { name };
            let given = item.get("arguments").or_else(|| item.get("action"));
            let given = given.map(arguments).unwrap_or_default();
            self.call((0, index), name, &given);
        }
    }

    fn event(&mut self, api: &str, part: &Value) {
        self.names(part);
        match api {
            "openai.chat" => {
                for (index, choice) in items(part, "choices") {
                    if let Some(delta) = choice.get("delta") {
                        self.chat(number(choice, "index", index), delta);
                    }
                }
            }
            "openai.responses" => {
                // Each item comes in parts, and then whole.
                if let Some(response) = part.get("response") {
                    self.names(response);
                }
                if text(part, "type") == "response.output_item.done"
                    && let Some(item) = part.get("item")
                {
                    self.item(number(part, "output_index", 0), item);
                }
            }
            _ => {
                let index = number(part, "index", 0);
                if let Some(message) = part.get("message") {
                    self.names(message);
                }
                if let Some(block) = part.get("content_block") {
                    self.text.push_str(text(block, "text"));
                    if text(block, "type").ends_with("tool_use") {
                        self.call((0, index), text(block, "name"), "");
                    }
                }
                if let Some(delta) = part.get("delta") {
                    self.text.push_str(text(delta, "text"));
                    let more = text(delta, "partial_json");
                    if !more.is_empty() {
                        self.call((0, index), "", more);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(api: &'static str, events: bool, body: &str) -> Option<ModelAnswer> {
        let mut reader = AnswerReader::new(api);
        body.as_bytes().chunks(7).for_each(|part| reader.push(part));
        reader.finish(events)
    }

    #[test]
    fn every_interface_tells_its_text_and_its_calls_whole_and_in_parts() {
        let cases = [
            (
                "openai.chat",
                r#"{"model":"m","choices":[{"message":{"content":"I look","tool_calls":[
                    {"function":{"name":"sh","arguments":"{\"cmd\":\"ls\"}"}}]}}]}"#,
                "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"I \"}}]}\n\n\
                 data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"look\",\"tool_calls\":[\
                 {\"index\":0,\"function\":{\"name\":\"sh\",\"arguments\":\"{\\\"cmd\\\":\"}}]}}]}\n\n\
                 data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\
                 \"function\":{\"arguments\":\"\\\"ls\\\"}\"}}]}}]}\n\ndata: [DONE]\n\n",
            ),
            (
                "openai.responses",
                r#"{"model":"m","output":[{"type":"message","content":[{"type":"output_text","text":"I look"}]},
                    {"type":"function_call","name":"sh","arguments":"{\"cmd\":\"ls\"}"}]}"#,
                "event: response.output_text.delta\r\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"I\"}\r\n\r\n\
                 data: {\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{\"type\":\"message\",\
                 \"content\":[{\"text\":\"I look\"}]}}\n\n\
                 data: {\"type\":\"response.output_item.done\",\"output_index\":1,\"item\":{\"type\":\"function_call\",\
                 \"name\":\"sh\",\"arguments\":\"{\\\"cmd\\\":\\\"ls\\\"}\"}}\n\n\
                 data: {\"type\":\"response.completed\",\"response\":{\"model\":\"m\",\"output\":[]}}\n\n",
            ),
            (
                "anthropic.messages",
                r#"{"model":"m","content":[{"type":"text","text":"I look"},
                    {"type":"tool_use","name":"sh","input":{"cmd":"ls"}}]}"#,
                "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\"}}\n\n\
                 data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"I look\"}}\n\n\
                 data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"name\":\"sh\",\"input\":{}}}\n\n\
                 data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"cmd\\\":\"}}\n\n\
                 data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\\\"ls\\\"}\"}}\n\n",
            ),
        ];
        for (api, whole, events) in cases {
            let expected = ModelAnswer {
                api,
                model: Some("m".to_owned()),
                text: "I look".to_owned(),
                tool_calls: vec![ToolCall {
                    name: "sh".to_owned(),
                    arguments: r#"{"cmd":"ls"}"#.to_owned(),
                }],
            };
            assert_eq!(read(api, false, whole).as_ref(), Some(&expected), "{api}");
            assert_eq!(read(api, true, events), Some(expected), "{api}");
        }
    }

    #[test]
    fn what_is_no_answer_of_a_model_is_none() {
        assert_eq!(read("openai.chat", false, r#"{"error":"no"}"#), None);
        assert_eq!(read("openai.chat", false, "<html>"), None);
        let long = format!(
            r#"{{"choices":[{{"message":{{"content":"{}"}}}}]}}"#,
            "x".repeat(LIMIT)
        );
        assert_eq!(read("openai.chat", false, &long), None);
    }
}
