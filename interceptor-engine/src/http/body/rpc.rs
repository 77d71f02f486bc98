//! JSON-RPC, and the Model Context Protocol that is made of it.
//!
//! Every JSON-RPC message is read as one of the Model Context Protocol: nothing
//! in a message tells them apart that its sender could not leave out.
//!
//! Spec: JSON-RPC 2.0; Model Context Protocol 2025-06-18, "Base protocol" and
//! "Server features / Tools".

use interceptor_policy::operation::http::{Json, McpMessage};
use serde_json::Value;

use super::shared;

/// Readings of one message, where its keys are there several times.
const READINGS: usize = 16;

/// The ids of the requests in a body, for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ids {
    /// In order; none for notifications.
    pub ids: Vec<Value>,
    /// Whether they came in a list.
    pub batch: bool,
}

fn each(documents: &[Json]) -> impl Iterator<Item = &Json> {
    documents.iter().flat_map(|document| match document {
        Json::List(batch) => batch.as_slice(),
        one => std::slice::from_ref(one),
    })
}

fn is_rpc(message: &Json) -> bool {
    message.at("jsonrpc").next().is_some()
}

/// The ids of what a body asks; `None` where it is no JSON-RPC.
#[must_use]
pub fn ids(documents: &[Json]) -> Option<Ids> {
    let mut found = Ids {
        ids: Vec::new(),
        batch: matches!(documents, [Json::List(_)]),
    };
    let mut any = false;
    for message in each(documents).filter(|message| is_rpc(message)) {
        any = true;
        if message.at("method").next().is_none() {
            continue;
        }
        // Of two, the last counts for most.
        if let Some(id) = message.at("id").last().and_then(plain) {
            found.ids.push(id);
        }
    }
    any.then_some(found)
}

/// An id, as it is sent back: a text, a number, nothing else.
fn plain(id: &Json) -> Option<Value> {
    match id {
        Json::Text(text) => Some(Value::from(&**text)),
        Json::Number(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// The messages of a body, each in every reading.
#[must_use]
pub fn messages(documents: &[Json]) -> Vec<McpMessage> {
    let mut found = Vec::new();
    for message in each(documents).filter(|message| is_rpc(message)) {
        let mut methods: Vec<&str> = message.at("method").filter_map(Json::text).collect();
        if methods.is_empty() {
            methods.push("");
        }
        let params: Vec<&Json> = message.at("params").collect();
        let tool: Vec<_> = params
            .iter()
            .flat_map(|params| params.at("name"))
            .filter_map(Json::text)
            .map(shared)
            .collect();
        let mut arguments: Vec<Json> = params
            .iter()
            .flat_map(|params| params.at("arguments"))
            .cloned()
            .collect();
        if arguments.is_empty() {
            arguments.push(Json::Null);
        }
        for method in methods.iter().take(READINGS) {
            for arguments in arguments.iter().take(READINGS) {
                found.push(McpMessage {
                    method: shared(method),
                    tool: if *method == "tools/call" {
                        tool.clone()
                    } else {
                        Vec::new()
                    },
                    arguments: arguments.clone(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Ids>, Vec<McpMessage>) {
        let documents = [Json::parse(text.as_bytes()).unwrap()];
        (ids(&documents), messages(&documents))
    }

    #[test]
    fn a_tool_call_is_read_with_its_arguments_and_its_id() {
        let (ids, messages) = read(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"rm","arguments":{"path":"/"}}}"#,
        );
        assert_eq!(ids.unwrap().ids, [Value::from("a")]);
        assert_eq!(messages.len(), 1);
        assert_eq!(&*messages[0].tool[0], "rm");
        assert_eq!(
            messages[0].arguments.at("path").next().unwrap().text(),
            Some("/")
        );
    }

    #[test]
    fn a_key_that_is_there_twice_is_read_both_ways() {
        let (_, messages) = read(
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"a","name":"b"}}"#,
        );
        let methods: Vec<&str> = messages.iter().map(|message| &*message.method).collect();
        assert_eq!(methods, ["ping", "tools/call"]);
        assert_eq!(messages[1].tool.len(), 2);
    }

    #[test]
    fn notifications_and_answers_have_no_id_to_answer() {
        let (ids, _) = read(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        assert_eq!(ids.unwrap().ids.len(), 0);
        let (ids, messages) = read(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert_eq!(ids.unwrap().ids.len(), 0);
        assert_eq!(&*messages[0].method, "");
    }

    #[test]
    fn a_batch_is_all_of_its_messages_and_what_is_no_rpc_is_none() {
        let (ids, messages) = read(
            r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":2,"method":"b"}]"#,
        );
        let ids = ids.unwrap();
        assert!(ids.batch);
        assert_eq!((ids.ids.len(), messages.len()), (2, 2));
        assert_eq!(read(r#"{"method":"a","id":1}"#), (None, Vec::new()));
    }
}
