//! What an exchange's `meta` says, read back.

use serde_json::Value;

/// Names with their values, as the record has them.
pub(crate) fn pairs(meta: &Value, name: &str) -> Vec<(String, String)> {
    let list = meta.get(name).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|pair| {
            let text = |at: usize| pair.get(at).and_then(Value::as_str);
            Some((text(0)?.to_owned(), text(1)?.to_owned()))
        })
        .collect()
}

/// A request's address with its query, percent-encoded; `None` where it is not on
/// record.
pub(crate) fn url(meta: &Value) -> Option<String> {
    let mut url = meta.get("url").and_then(Value::as_str)?.to_owned();
    for (index, (name, value)) in pairs(meta, "query").iter().enumerate() {
        url.push(if index == 0 { '?' } else { '&' });
        url.push_str(&encoded(name));
        url.push('=');
        url.push_str(&encoded(value));
    }
    Some(url)
}

/// Percent-encodes what may not stand in a query's name or value.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'[' | b']' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
