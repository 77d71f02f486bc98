//! A replay for a person.

use serde_json::Value;

use super::timeline::{Item, What, flat};
use super::{Entry, escape};
use crate::event::FlowTime;

/// Where the text goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Colours, which only a terminal gets.
    pub colour: bool,
    /// The terminal's width; `None` cuts nothing.
    pub width: Option<usize>,
}

/// Columns under which a statement and what belongs to it stand.
const INDENT: usize = 14;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED_BOLD: &str = "1;31";

/// Facts of the opening that stand first, in this order.
const FIRST: [&str; 8] = [
    "agent",
    "principal",
    "process",
    "target",
    "origin",
    "user",
    "database",
    "at_wall",
];

/// Writes `item`; ends with a line end.
#[must_use]
pub fn render(item: &Item, style: Style) -> String {
    let mut out = Page {
        out: String::new(),
        style,
    };
    match &item.what {
        What::Opened(facts) => {
            out.stamp(item);
            out.paint(BOLD, "session opened");
            out.out.push('\n');
            out.facts(facts);
        }
        What::Closed(facts) => {
            out.stamp(item);
            out.paint(BOLD, "session closed");
            out.out.push('\n');
            out.facts(facts);
        }
        What::Command {
            text,
            verdict,
            parameters,
            step,
        } => {
            out.stamp(item);
            out.verdict(verdict);
            if let Some(step) = step {
                out.paint(DIM, &format!("({step}) "));
            }
            out.block(text);
            for (index, value) in parameters.iter().enumerate() {
                let value = value.as_deref().unwrap_or("NULL");
                out.aside(DIM, &format!("${} = {value}", index + 1));
            }
        }
        What::Verdict {
            verdict,
            rule,
            message,
        } => {
            let by = if rule.is_empty() {
                String::new()
            } else {
                format!(" by rule {rule}")
            };
            let said = match verdict.as_str() {
                "block" => "blocked",
                "kill" => "session killed",
                "" => "verdict",
                other => other,
            };
            let colour = colour_of(verdict);
            out.aside(colour, &format!("{said}{by}: {message}"));
        }
        What::Result {
            tables,
            body,
            tag,
            duration_us,
        } => {
            if let Some(text) = body {
                out.body(text);
            }
            let width = out.style.width;
            for table in tables {
                out.out.push_str(&table.lay_out(width));
            }
            let mut end = escape::line(tag).into_owned();
            if let Some(micros) = duration_us {
                if !end.is_empty() {
                    end.push_str(", ");
                }
                end.push_str(&milliseconds(*micros));
            }
            if !end.is_empty() {
                out.aside(DIM, &end);
            }
        }
        What::Error {
            severity,
            code,
            message,
            detail,
            hint,
        } => {
            let severity = if severity.is_empty() {
                "ERROR"
            } else {
                severity
            };
            let code = if code.is_empty() {
                String::new()
            } else {
                format!(" {code}")
            };
            out.aside(RED, &format!("{severity}{code}: {message}"));
            for (name, text) in [("DETAIL", detail), ("HINT", hint)] {
                if !text.is_empty() {
                    out.aside(DIM, &format!("{name}: {text}"));
                }
            }
        }
        What::Mask { columns, count } => {
            let count = match count {
                None => String::new(),
                Some(1) => " 1 value".to_owned(),
                Some(count) => format!(" {count} values"),
            };
            let columns = if columns.is_empty() {
                String::new()
            } else {
                format!(" in {columns}")
            };
            out.aside(YELLOW, &format!("masked{count}{columns}"));
        }
        What::Body(text) => out.body(text),
        What::Line { kind, line, bytes } => {
            out.stamp(item);
            // Lines of channels begin with that word.
            if !line.starts_with(kind.as_str()) {
                out.paint(DIM, &format!("{kind} "));
            }
            let bytes = if *bytes > 0 && line.is_empty() {
                format!("{bytes} bytes")
            } else {
                String::new()
            };
            out.block(&format!("{line}{bytes}"));
        }
    }
    out.out
}

/// The mark above an entry in which what was sealed is shown, with what of it a person is
/// not shown otherwise; ends with a line end.
#[must_use]
pub fn unmasked(entry: &Entry, style: Style) -> String {
    let out = String::from("── UNMASKED: below stands what is hidden in the recording ──\n");
    let mut page = Page { out, style };
    // Those are shown whole.
    if !matches!(entry.kind.as_str(), "command" | "error") {
        for name in &entry.unmasked {
            let value = entry.meta.get(name).unwrap_or(&Value::Null);
            page.member(name, value);
        }
    }
    page.out
}

struct Page {
    out: String,
    style: Style,
}

impl Page {
    /// When, and in which exchange.
    fn stamp(&mut self, item: &Item) {
        let exchange = item
            .exchange
            .map_or(String::new(), |exchange| format!("#{exchange} "));
        self.paint(DIM, &format!("{}  {exchange}", clock(item.at)));
    }

    fn verdict(&mut self, verdict: &str) {
        if !verdict.is_empty() {
            self.paint(colour_of(verdict), verdict);
            self.out.push(' ');
        }
    }

    /// Text over several lines, the later ones under the first.
    fn block(&mut self, text: &str) {
        let text = text.trim_end();
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.out.push_str(&" ".repeat(INDENT));
            }
            self.out
                .push_str(&escape::lines(line.trim_end_matches('\r')));
            self.out.push('\n');
        }
    }

    /// A member of `meta`, each of its texts in a line: `headers.cookie: …`.
    fn member(&mut self, name: &str, value: &Value) {
        match value {
            Value::Object(inner) => {
                for (inner, value) in inner {
                    self.member(&format!("{name}.{inner}"), value);
                }
            }
            Value::Array(values) => {
                for value in values {
                    match value.as_array().map(Vec::as_slice) {
                        Some([Value::String(inner), value]) => {
                            self.member(&format!("{name}.{inner}"), value);
                        }
                        _ => self.member(name, value),
                    }
                }
            }
            value => self.aside(YELLOW, &format!("{name}: {}", flat(value))),
        }
    }

    /// A body, or a part of one.
    fn body(&mut self, text: &str) {
        for line in text.split('\n') {
            self.aside(DIM, line.trim_end_matches('\r'));
        }
    }

    /// A line that belongs to what stands above.
    fn aside(&mut self, colour: &str, text: &str) {
        self.out.push_str(&" ".repeat(INDENT));
        self.paint(colour, text);
        self.out.push('\n');
    }

    fn facts(&mut self, facts: &[(String, String)]) {
        let widest = facts.iter().map(|(name, _)| name.chars().count()).max();
        let widest = widest.unwrap_or_default().min(24);
        let first = FIRST
            .iter()
            .filter_map(|wanted| facts.iter().find(|(name, _)| name == wanted));
        let rest = facts
            .iter()
            .filter(|(name, _)| !FIRST.contains(&name.as_str()));
        for (name, value) in first.chain(rest) {
            let room = " ".repeat(widest.saturating_sub(name.chars().count()));
            self.out.push_str(&" ".repeat(INDENT));
            self.paint(DIM, name);
            self.out.push_str(&room);
            self.out.push_str("  ");
            self.out.push_str(&escape::line(value));
            self.out.push('\n');
        }
    }

    /// The one place where anything reaches the page with a colour, and escaped.
    fn paint(&mut self, colour: &str, text: &str) {
        let text = escape::line(text);
        if self.style.colour {
            self.out.push_str(&format!("\x1b[{colour}m{text}\x1b[0m"));
        } else {
            self.out.push_str(&text);
        }
    }
}

fn colour_of(verdict: &str) -> &'static str {
    match verdict {
        "allow" => GREEN,
        "block" => RED,
        "kill" => RED_BOLD,
        _ => YELLOW,
    }
}

/// `00:01:02.345`.
#[must_use]
pub fn clock(at: FlowTime) -> String {
    let millis = at.0 / 1000;
    let seconds = millis / 1000;
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        millis % 1000
    )
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1000, micros % 1000)
}
