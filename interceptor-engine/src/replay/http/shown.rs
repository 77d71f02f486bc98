//! Heads of HTTP for a person.

use super::super::Entry;
use super::meta::pairs;

/// Whether a command or its parts are HTTP's.
pub(in crate::replay) fn is_http(entry: &Entry) -> bool {
    let of = |name: &str| entry.meta.get(name).is_some();
    match entry.kind.as_str() {
        "command" => of("method"),
        "result" => of("status"),
        "input" | "output" => of("part") || of("websocket"),
        _ => false,
    }
}

/// A request's line with its query, and its fields below.
pub(in crate::replay) fn head(entry: &Entry) -> String {
    let mut text = entry.line.clone();
    for (index, (name, value)) in pairs(&entry.meta, "query").iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    for (name, value) in pairs(&entry.meta, "headers") {
        text.push_str(&format!("\n{name}: {value}"));
    }
    text
}

/// A response's status, size and fields.
pub(in crate::replay) fn result(entry: &Entry) -> String {
    let whole = entry.line.rsplit_once(" · ");
    // How long it took is shown beside.
    let mut text = whole
        .map_or(entry.line.as_str(), |(line, _)| line)
        .to_owned();
    if let Some(first) = entry.meta_number("first_byte_us") {
        text.push_str(&format!(
            " · first byte after {}.{:03} ms",
            first / 1000,
            first % 1000
        ));
    }
    if let Some(why) = entry.meta_text("unreadable") {
        text.push_str(&format!(" · not read: {why}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::text::{Style, render};
    use super::super::super::{Entry, Timeline};
    use crate::event::FlowTime;
    use serde_json::{Value, json};

    fn shown(entries: &[(&str, &str, &[u8], Value)]) -> String {
        let mut timeline = Timeline::new(10);
        let entries = entries.iter().map(|(kind, line, data, meta)| Entry {
            at: FlowTime(0),
            kind: (*kind).to_owned(),
            exchange: Some(1),
            line: (*line).to_owned(),
            data: data.to_vec(),
            meta: meta.clone(),
            ..Entry::default()
        });
        let items = entries.filter_map(|entry| timeline.push(&entry));
        items.map(|item| render(&item, Style::default())).collect()
    }

    #[test]
    fn an_exchange_is_shown_with_its_head_its_bodies_and_what_it_came_to() {
        let text = shown(&[
            (
                "command",
                "POST https://a.example/x",
                b"",
                json!({"method": "POST", "verdict": "allow", "query": [["q", "1"]], "headers": [["x-y", "z"]]}),
            ),
            ("input", "", b"sent\nit", json!({"part": 1})),
            ("output", "", b"\x1b[2Jgot", json!({"part": 1})),
            (
                "output",
                "",
                b"\xff\xfe\xfd\xfc\xff\xff",
                json!({"part": 2}),
            ),
            (
                "result",
                "200 OK · 9 bytes · 3.500 ms",
                b"",
                json!({"status": 200, "first_byte_us": 1250, "duration_us": 3500}),
            ),
        ]);
        for part in [
            "allow POST https://a.example/x?q=1\n",
            "x-y: z\n",
            "> sent\n",
            "> it\n",
            "< \\x1b[2Jgot\n",
            "< 6 bytes that are no text\n",
            "200 OK · 9 bytes · first byte after 1.250 ms, 3.500 ms\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains('\x1b'));
    }
}
