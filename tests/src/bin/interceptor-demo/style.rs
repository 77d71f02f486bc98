//! How things are shown.

use std::cell::Cell;
use std::io::IsTerminal as _;

pub(crate) const BOLD: &str = "1";
pub(crate) const DIM: &str = "2";
pub(crate) const RED: &str = "31";
pub(crate) const GREEN: &str = "32";
pub(crate) const YELLOW: &str = "33";

/// Colours, on a terminal alone.
pub(crate) struct Style {
    colours: bool,
    titles: Cell<u32>,
}

impl Style {
    pub(crate) fn new() -> Self {
        Self {
            colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            titles: Cell::new(0),
        }
    }

    pub(crate) fn paint(&self, code: &str, text: &str) -> String {
        match self.colours {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    pub(crate) fn line(&self, code: &str, text: &str) {
        println!("{}", self.paint(code, text));
    }

    /// A heading, numbered.
    pub(crate) fn title(&self, text: &str) {
        let number = self.titles.get() + 1;
        self.titles.set(number);
        println!();
        self.line(BOLD, &format!("── {number}. {text} "));
    }

    pub(crate) fn command(&self, text: &str) {
        println!("   {}", self.paint(DIM, &format!("$ {text}")));
    }

    /// A line of a client's, with its errors in colour.
    pub(crate) fn transcript(&self, line: &str) -> String {
        if line.starts_with("ERROR:") || line.starts_with("FATAL:") {
            return self.paint(RED, line);
        }
        if line.starts_with("HINT:") {
            return self.paint(YELLOW, line);
        }
        line.to_owned()
    }

    pub(crate) fn by_kind(&self, kind: &str, line: &str) -> String {
        match kind {
            "verdict" | "error" => self.paint(RED, line),
            "mask" => self.paint(YELLOW, line),
            _ => line.to_owned(),
        }
    }
}
