//! What is wrong with a configuration, all of it at once.

use std::fmt;
use std::path::{Path, PathBuf};

use interceptor_policy::Diagnostic;
use interceptor_policy::diagnostic::{At, Level};
use serde_saphyr::{Error, Location};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error("the configuration is refused\n{0}")]
    Refused(Faults),
}

/// Faults, in the order of the file.
#[derive(Clone, Debug)]
pub struct Faults(pub Vec<Diagnostic>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

/// Collects the faults of one file.
pub(super) struct Report<'a> {
    path: &'a Path,
    lines: Vec<&'a str>,
    faults: Vec<Diagnostic>,
    /// Where secrets stand, by line: first column and width.
    hidden: Vec<(u32, u32, u32)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            lines: text.lines().collect(),
            faults: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// Notes that a secret stands there: no fault on its line will show it.
    pub(super) fn hide(&mut self, at: Location) {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let width = small(at.span().len()).max(1);
        self.hidden
            .push((small(at.line()), small(at.column()), width));
    }

    /// Notes a fault, and what to do about it.
    pub(super) fn error(
        &mut self,
        at: Location,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (line, column) = (small(at.line()), small(at.column()));
        let source = (line as usize)
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
            .map_or_else(String::new, |line| (*line).to_owned());
        // A span over several lines is shown by its first.
        let left = small(source.chars().count() as u64 + 1).saturating_sub(column);
        let width = small(at.span().len()).clamp(1, left.max(1));
        self.faults.push(Diagnostic {
            level: Level::Error,
            path: self.path.to_owned(),
            at: At {
                line,
                column,
                width,
            },
            message: message.into(),
            help: help.into(),
            source,
        });
    }

    /// The fault that kept the text from being read at all. What stands behind it
    /// on its line is not shown, nor are values in the parser's own words: nothing
    /// is known yet of where secrets are.
    pub(super) fn unreadable(&mut self, error: &Error) {
        let at = error.location().unwrap_or(Location::UNKNOWN);
        match error.without_snippet() {
            Error::SerdeUnknownField {
                field, expected, ..
            } => {
                let help = nearest(field, expected)
                    .map(|known| format!("did you mean `{known}`?"))
                    .or_else(|| Some(format!("known here are {}", expected.join(", "))));
                self.error(at, format!("unknown key `{field}`"), help);
            }
            Error::SerdeUnknownVariant {
                variant, expected, ..
            } => {
                let help = format!("it is one of {}", expected.join(", "));
                self.error(at, format!("unknown value `{variant}`"), help);
            }
            Error::SerdeMissingField { field, .. } => {
                self.error(at, format!("the key `{field}` is missing"), None);
            }
            other => {
                let text = other.to_string();
                let first = text.lines().next().unwrap_or_default();
                self.error(at, without_values(without_place(first)), None);
            }
        }
        // A known key is shown; where it is a value that was not understood, that
        // value may be the secret.
        let is_key = matches!(
            error.without_snippet(),
            Error::SerdeUnknownField { .. } | Error::SerdeUnknownVariant { .. }
        );
        for fault in &mut self.faults {
            let before = fault.at.column.saturating_sub(1);
            let key = if is_key { fault.at.width } else { 0 };
            let shown = before.saturating_add(key) as usize;
            if fault.source.chars().count() > shown {
                let mark = if is_key { " …" } else { "…" };
                let kept = fault.source.chars().take(shown);
                fault.source = kept.chain(mark.chars()).collect();
            }
            fault.at.width = if is_key { fault.at.width } else { 1 };
        }
    }

    /// Everything noted, or nothing.
    pub(super) fn finish(mut self) -> Result<(), ConfigError> {
        if self.faults.is_empty() {
            return Ok(());
        }
        for fault in &mut self.faults {
            for (line, column, width) in &self.hidden {
                if fault.at.line == *line {
                    let secret = (*column as usize)..column.saturating_add(*width) as usize;
                    let hide = |(at, one)| {
                        if secret.contains(&(at + 1)) {
                            '·'
                        } else {
                            one
                        }
                    };
                    fault.source = fault.source.chars().enumerate().map(hide).collect();
                }
            }
        }
        self.faults.sort_by_key(|fault| fault.at);
        Err(ConfigError::Refused(Faults(self.faults)))
    }
}

/// The place is shown below the message; the parser writes it into it as well.
fn without_place(message: &str) -> &str {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    match message.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => message.split(" at line ").next().unwrap_or(message),
    }
}

/// The parser quotes values.
fn without_values(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for (index, part) in message.split(['"', '`']).enumerate() {
        out.push_str(if index % 2 == 0 { part } else { "…" });
    }
    out
}

/// The known word that was probably meant.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|one| (strsim::damerau_levenshtein(word, one), *one))
        .filter(|(distance, one)| *distance <= 1.max(one.len().max(word.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, one)| one)
}
