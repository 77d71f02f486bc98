//! Calls of language models: which model, which messages, which tools.
//!
//! Told by the path and by the body's shape, whatever the host: the same
//! interfaces are offered by many.
//!
//! Formats: OpenAI's chat completions and responses, Anthropic's messages.

use std::sync::Arc;

use interceptor_policy::operation::http::Json;

/// A call of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelCall {
    /// `openai.chat`, `openai.responses`, `anthropic.messages`.
    pub api: &'static str,
    /// The model's name.
    pub model: String,
    /// Who says how much: role, and bytes of its text.
    pub messages: Vec<Message>,
    /// Tools that the model called before, with their arguments.
    pub tool_calls: Vec<ToolCall>,
    /// Names of the tools that it may call.
    pub tools: Vec<String>,
    /// Whether the answer comes as events.
    pub stream: bool,
}

/// One message of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// Its text.
    pub text: String,
}

/// A tool that the model called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// Its name.
    pub name: String,
    /// Its arguments, as text.
    pub arguments: String,
}

/// The call that a body makes, where it makes one.
#[must_use]
pub fn call(paths: &[Arc<str>], documents: &[Json]) -> Option<ModelCall> {
    let [body] = documents else {
        return None;
    };
    let ends = |end: &str| paths.iter().any(|path| path.ends_with(end));
    let api = if ends("/chat/completions") {
        "openai.chat"
    } else if ends("/v1/messages") {
        "anthropic.messages"
    } else if ends("/responses") && body.at("input").next().is_some() {
        "openai.responses"
    } else {
        return None;
    };
    let model = last_text(body, "model")?;
    let mut call = ModelCall {
        api,
        model: model.to_owned(),
        stream: matches!(body.at("stream").last(), Some(Json::Bool(true))),
        ..ModelCall::default()
    };
    for system in body.at("system").chain(body.at("instructions")) {
        call.say("system", system);
    }
    for messages in body.at("messages").chain(body.at("input")) {
        match messages {
            Json::List(messages) => messages.iter().for_each(|message| call.message(message)),
            one => call.say("user", one),
        }
    }
    for tool in body.at("tools").flat_map(items) {
        let inner = tool.at("function").last().unwrap_or(tool);
        if let Some(name) = last_text(inner, "name").or_else(|| last_text(tool, "type")) {
            call.tools.push(name.to_owned());
        }
    }
    Some(call)
}

fn items(value: &Json) -> &[Json] {
    match value {
        Json::List(items) => items,
        _ => &[],
    }
}

fn last_text<'j>(value: &'j Json, key: &str) -> Option<&'j str> {
    value.at(key).last().and_then(Json::text)
}

impl ModelCall {
    fn message(&mut self, message: &Json) {
        let role = last_text(message, "role").unwrap_or("tool");
        for content in message.at("content").chain(message.at("output")) {
            self.say(role, content);
        }
        // OpenAI's, chat and responses; Anthropic's stand in the content.
        for called in message.at("tool_calls").flat_map(items) {
            self.called(called.at("function").last().unwrap_or(called));
        }
        if last_text(message, "type") == Some("function_call") {
            self.called(message);
        }
    }

    fn say(&mut self, role: &str, content: &Json) {
        let mut text = String::new();
        match content {
            Json::Text(whole) => text.push_str(whole),
            parts => {
                for part in items(parts) {
                    match last_text(part, "type") {
                        Some("tool_use") => self.called(part),
                        _ => {
                            let said =
                                last_text(part, "text").or_else(|| last_text(part, "content"));
                            text.push_str(said.unwrap_or_default());
                        }
                    }
                }
            }
        }
        self.messages.push(Message {
            role: role.to_owned(),
            text,
        });
    }

    fn called(&mut self, call: &Json) {
        let arguments = call
            .at("arguments")
            .chain(call.at("input"))
            .last()
            .map(|arguments| match arguments {
                Json::Text(text) => text.to_string(),
                other => written(other),
            });
        self.tool_calls.push(ToolCall {
            name: last_text(call, "name").unwrap_or_default().to_owned(),
            arguments: arguments.unwrap_or_default(),
        });
    }
}

/// JSON as text again.
fn written(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Number(text) => text.to_string(),
        Json::Text(text) => quoted(text),
        Json::List(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            format!("[{}]", items.join(","))
        }
        Json::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}:{}", quoted(key), written(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, text: &str) -> Option<ModelCall> {
        call(&[path.into()], &[Json::parse(text.as_bytes()).unwrap()])
    }

    #[test]
    fn a_chat_completion_is_read_with_its_messages_and_tools() {
        let call = read(
            "/v1/chat/completions",
            r#"{"model":"gpt-x","stream":true,"messages":[{"role":"system","content":"be"},
                {"role":"user","content":[{"type":"text","text":"hi"}]},
                {"role":"assistant","tool_calls":[{"function":{"name":"ls","arguments":"{\"p\":1}"}}]}],
                "tools":[{"type":"function","function":{"name":"ls"}}]}"#,
        )
        .unwrap();
        assert_eq!(
            (call.api, &*call.model, call.stream),
            ("openai.chat", "gpt-x", true)
        );
        let texts: Vec<&str> = call.messages.iter().map(|m| &*m.text).collect();
        assert_eq!(texts, ["be", "hi"]);
        assert_eq!(call.tools, ["ls"]);
        assert_eq!(call.tool_calls[0].arguments, r#"{"p":1}"#);
    }

    #[test]
    fn anthropics_messages_are_read_with_tool_use_and_its_result() {
        let call = read(
            "/v1/messages",
            r#"{"model":"claude-x","system":"be","messages":[{"role":"assistant","content":[
                {"type":"tool_use","name":"sh","input":{"cmd":"id"}}]},
                {"role":"user","content":[{"type":"tool_result","content":"uid=0"}]}],"tools":[{"name":"sh"}]}"#,
        )
        .unwrap();
        assert_eq!(call.tool_calls[0].name, "sh");
        assert_eq!(call.tool_calls[0].arguments, r#"{"cmd":"id"}"#);
        assert_eq!(call.messages.last().unwrap().text, "uid=0");
        assert_eq!(call.tools, ["sh"]);
    }

    #[test]
    fn responses_are_read_as_text_or_as_items() {
        let call = read("/v1/responses", r#"{"model":"m","input":"hello"}"#).unwrap();
        assert_eq!(call.messages[0].text, "hello");
        let call = read(
            "/v1/responses",
            r#"{"model":"m","input":[{"type":"function_call","name":"f","arguments":"{}"}]}"#,
        )
        .unwrap();
        assert_eq!(call.tool_calls[0].name, "f");
    }

    #[test]
    fn what_is_no_call_of_a_model_is_none() {
        assert_eq!(read("/v1/chat/completions", r#"{"a":1}"#), None);
        assert_eq!(read("/messages", r#"{"model":"m"}"#), None);
    }
}
