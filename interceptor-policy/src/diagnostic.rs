//! What is wrong with a rule file, where, and the fix.
//!
//! Every check adds to one list instead of stopping at the first fault, so that
//! an operator sees all of them at once. The source line is kept with each, so
//! that a list can be printed when the files are long gone.

use std::fmt;
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The rules are taken; something about them is probably not meant.
    Warning,
    /// The rules are refused.
    Error,
}

impl Level {
    /// The word that is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A place in a file. Lines and columns count from 1; a column is a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Line; 0 for the whole file.
    pub line: u32,
    /// Column of the first character.
    pub column: u32,
    /// How many characters; at least 1.
    pub width: u32,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub at: At,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line of the file.
    pub source: String,
}

/// Faults, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// How many of them refuse the rules.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|d| d.level == Level::Error).count()
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Brings them into the order of files and lines, each once.
    pub(crate) fn sort(&mut self) {
        self.list.sort_by(|a, b| {
            (&a.path, a.at, b.level, &a.message).cmp(&(&b.path, b.at, a.level, &b.message))
        });
        self.list.dedup();
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.level.name(), self.message)?;
        if self.at.line == 0 {
            writeln!(f, "  --> {}", self.path.display())?;
        } else {
            let At {
                line,
                column,
                width,
            } = self.at;
            let gutter = " ".repeat(line.to_string().len());
            writeln!(f, "{gutter}--> {}:{line}:{column}", self.path.display())?;
            writeln!(f, "{gutter} |")?;
            writeln!(f, "{line} | {}", printable(&self.source))?;
            // Under the characters before it stand spaces, one each: tabs were
            // printed as one.
            let indent = " ".repeat(column.saturating_sub(1) as usize);
            let carets = "^".repeat(width.max(1) as usize);
            writeln!(f, "{gutter} | {indent}{carets}")?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "  = help: {help}")?;
        }
        Ok(())
    }
}

/// A terminal must not be steered by a rule file.
fn printable(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Collects the faults of one file.
pub(crate) struct Report<'a> {
    path: &'a Path,
    lines: Vec<&'a str>,
    into: &'a mut Diagnostics,
}

impl<'a> Report<'a> {
    pub(crate) fn new(path: &'a Path, text: &'a str, into: &'a mut Diagnostics) -> Self {
        Self {
            path,
            lines: text.lines().collect(),
            into,
        }
    }

    /// How many errors there are, of this file and those before it.
    pub(crate) fn errors(&self) -> usize {
        self.into.errors()
    }

    /// The line of the file that a place is in.
    pub(crate) fn line(&self, at: At) -> &'a str {
        (at.line as usize)
            .checked_sub(1)
            .and_then(|index| self.lines.get(index).copied())
            .unwrap_or_default()
    }

    pub(crate) fn error(&mut self, at: At, message: impl Into<String>, help: Option<String>) {
        self.add(Level::Error, at, message.into(), help);
    }

    pub(crate) fn warning(&mut self, at: At, message: impl Into<String>, help: Option<String>) {
        self.add(Level::Warning, at, message.into(), help);
    }

    fn add(&mut self, level: Level, mut at: At, message: String, help: Option<String>) {
        let source = self.line(at).to_owned();
        // A span over several lines is shown by its first.
        let left = (source.chars().count() as u32 + 1).saturating_sub(at.column);
        at.width = at.width.clamp(1, left.max(1));
        self.into.push(Diagnostic {
            level,
            path: self.path.to_owned(),
            at,
            message,
            help,
            source,
        });
    }
}

/// The nearest of the known words, for "did you mean".
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&word, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 1.max(k.len().max(word.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| format!("did you mean `{k}`?"))
}
