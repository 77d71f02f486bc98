//! The terminals of a session.

use std::collections::BTreeMap;
use std::fmt;

use super::{channel, is_drawing};
use crate::event::FlowTime;
use crate::replay::{Entry, escape};

/// Terminals that are told of; a session may have more.
const LIMIT: usize = 1024;

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u64,
    /// Rows.
    pub rows: u64,
}

impl Size {
    /// The one in `meta`, where it is there; terminals that say none have 80 by 24.
    pub(super) fn of(meta: &serde_json::Value) -> Option<Self> {
        let number = |name| meta.get(name)?.as_u64();
        let told = |number: u64, usual| if number == 0 { usual } else { number };
        Some(Self {
            columns: told(number("columns")?, 80),
            rows: told(number("rows")?, 24),
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.columns, self.rows)
    }
}

/// A terminal that something was drawn on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its channel.
    pub channel: u64,
    /// `TERM`.
    pub name: String,
    /// Its size when it began.
    pub size: Size,
    /// `shell`, or the command.
    pub what: String,
    /// When it began.
    pub since: FlowTime,
}

impl fmt::Display for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = escape::line(&self.what);
        write!(f, "{} ({what}, {})", self.channel, self.size)
    }
}

/// Which there is to play is not clear.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// There is none.
    #[error("no terminal was drawn on in this session")]
    None,
    /// There are several.
    #[error("this session has several terminals; choose one by --channel: {}", listed(.0))]
    Several(Vec<Terminal>),
    /// That is none.
    #[error("channel {channel} has no terminal; there are {}", listed(.all))]
    Other {
        /// What was wanted.
        channel: u64,
        /// What there is.
        all: Vec<Terminal>,
    },
}

fn listed(all: &[Terminal]) -> String {
    let some = all.iter().take(20).map(ToString::to_string);
    let mut text = some.collect::<Vec<_>>().join(", ");
    if all.len() > 20 {
        text.push_str(&format!(" and {} more", all.len() - 20));
    }
    text
}

/// Finds them, entry by entry.
#[derive(Debug, Default)]
pub struct Terminals {
    asked: BTreeMap<u64, Terminal>,
    drawn: BTreeMap<u64, Terminal>,
    title: String,
    began_ms: u64,
}

impl Terminals {
    /// Takes the next entry.
    pub fn push(&mut self, entry: &Entry) {
        if entry.kind == "open" {
            self.began_ms = entry.meta_number("at_wall_ms").unwrap_or_default();
            let agent = entry.meta_text("agent").unwrap_or("an agent");
            let to = entry.meta_text("target").or(entry.meta_text("origin"));
            self.title = format!("{agent} at {}", to.unwrap_or("a host"));
        }
        let Some(channel) = channel(entry) else {
            return;
        };
        if is_drawing(entry) && !self.drawn.contains_key(&channel) {
            let unknown = || Terminal {
                channel,
                name: String::new(),
                size: Size {
                    columns: 80,
                    rows: 24,
                },
                what: "unknown".to_owned(),
                since: entry.at,
            };
            // What was asked for may stand in a part that is lost.
            let terminal = self.asked.remove(&channel).unwrap_or_else(unknown);
            if self.drawn.len() < LIMIT {
                self.drawn.insert(channel, terminal);
            }
        } else if entry.kind == "command"
            && let Some(meta) = entry.meta.get("terminal")
            && let Some(size) = Size::of(meta)
            && self.asked.len() < LIMIT
        {
            let name = meta.get("name").and_then(serde_json::Value::as_str);
            // A shell's later lines are asked for on the same channel, and are no other terminal.
            self.asked.entry(channel).or_insert_with(|| Terminal {
                channel,
                name: name.unwrap_or_default().to_owned(),
                size,
                what: entry.line.clone(),
                since: entry.at,
            });
        }
    }

    /// Who was where, for a title.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// When the session began, in milliseconds since 1970.
    #[must_use]
    pub fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// The one that is wanted, or the only one.
    ///
    /// # Errors
    /// When that is not one.
    pub fn choose(&self, wanted: Option<u64>) -> Result<&Terminal, Unclear> {
        let all = || self.drawn.values().cloned().collect();
        match (wanted, self.drawn.len()) {
            (_, 0) => Err(Unclear::None),
            (Some(wanted), _) => self.drawn.get(&wanted).ok_or_else(|| Unclear::Other {
                channel: wanted,
                all: all(),
            }),
            (None, 1) => self.drawn.values().next().ok_or(Unclear::None),
            (None, _) => Err(Unclear::Several(all())),
        }
    }
}
