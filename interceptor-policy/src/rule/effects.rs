//! What a rule does, but for its masks: verdict, approval, limits, tags.

use std::sync::Arc;
use std::time::Duration;

use super::RuleVerdict;
use super::reader::Reader;
use super::yaml::{Node, Value};
use crate::approval::{Approval, HoldMode, OnTimeout, Requirement};
use crate::verdict::Limits;

/// The verdicts that rules give and tests expect.
pub(super) const VERDICTS: &[(&str, RuleVerdict)] = &[
    ("allow", RuleVerdict::Allow),
    ("hold", RuleVerdict::Hold),
    ("block", RuleVerdict::Block),
    ("kill", RuleVerdict::Kill),
];
const APPROVAL: &[&str] = &["from", "quorum", "timeout", "on_timeout", "mode"];
const LIMITS: &[&str] = &["rows", "bytes", "duration"];
const MODES: &[(&str, HoldMode)] = &[("wait", HoldMode::Wait), ("ticket", HoldMode::Ticket)];
const SILENCES: &[(&str, OnTimeout)] = &[("allow", OnTimeout::Allow), ("block", OnTimeout::Block)];
/// Most people who may be asked for one exchange.
const QUORUM_LIMIT: u64 = 64;
const WORD_LIMIT: usize = 64;

/// A verdict as it is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WrittenVerdict {
    pub(super) verdict: Option<RuleVerdict>,
    /// With `kill: { principal: … }`.
    pub(super) ban: Option<Duration>,
}

impl<'a> Reader<'a> {
    pub(super) fn verdict(&mut self, node: &'a Node) -> WrittenVerdict {
        let Value::Map(entries) = &node.value else {
            return WrittenVerdict {
                verdict: self.word(node, "`verdict`", VERDICTS),
                ban: None,
            };
        };
        let ban = match entries.as_slice() {
            [(key, value)] if key.text == "kill" => self.ban(value),
            [(key, _)] => {
                self.unknown(key, "`verdict`", &["kill"]);
                None
            }
            _ => {
                self.report.error(
                    node.at,
                    "`verdict` takes a word, or one mapping",
                    Some("as in `kill: { principal: 15m }`".to_owned()),
                );
                None
            }
        };
        WrittenVerdict {
            verdict: ban.map(|_| RuleVerdict::Kill),
            ban,
        }
    }

    fn ban(&mut self, node: &'a Node) -> Option<Duration> {
        let mut ban = None;
        for (key, value) in self.mapping(node, "`kill`")? {
            match key.text.as_str() {
                "principal" => ban = Some(self.span(value, "`principal`")),
                _ => self.unknown(key, "`kill`", &["principal"]),
            }
        }
        if ban.is_none() {
            self.report.error(
                node.at,
                "`kill` does not say whom, and for how long",
                Some("write `kill: { principal: 15m }`, or `kill` alone".to_owned()),
            );
        }
        ban.flatten()
    }

    /// Who is asked, in the name of a rule or a threshold.
    pub(super) fn approval(&mut self, node: &'a Node, rule: &Arc<str>) -> Option<Approval> {
        let mut approval = asking_anybody(rule);
        let mut requirement = Requirement {
            rule: Arc::clone(rule),
            from: Vec::new(),
            quorum: 1,
        };
        for (key, value) in self.mapping(node, "`approval`")? {
            match key.text.as_str() {
                "from" => requirement.from = self.words(value, "`from`")?,
                "quorum" => {
                    let number = self.number(value, "`quorum`", QUORUM_LIMIT)?;
                    if number == 0 {
                        self.error(value.at, "`quorum` must be at least 1");
                        return None;
                    }
                    requirement.quorum = u32::try_from(number).ok()?;
                }
                "timeout" => approval.timeout = self.span(value, "`timeout`")?,
                "on_timeout" => approval.on_timeout = self.word(value, "`on_timeout`", SILENCES)?,
                "mode" => approval.mode = self.word(value, "`mode`", MODES)?,
                _ => self.unknown(key, "`approval`", APPROVAL),
            }
        }
        approval.requirements = vec![requirement];
        Some(approval)
    }

    pub(super) fn limits(&mut self, node: &'a Node) -> Option<Limits> {
        let mut limits = Limits::default();
        let entries = self.mapping(node, "`limits`")?;
        for (key, value) in entries {
            match key.text.as_str() {
                "rows" => limits.rows = self.number(value, "`rows`", u64::MAX >> 1),
                "bytes" => limits.bytes = self.size(value, "`bytes`"),
                "duration" => limits.duration = self.span(value, "`duration`"),
                _ => self.unknown(key, "`limits`", LIMITS),
            }
        }
        if entries.is_empty() {
            self.error(node.at, "`limits` limits nothing");
        }
        Some(limits)
    }

    /// One name, or a list of them, or a `$name` of a list.
    pub(super) fn words(&mut self, node: &'a Node, what: &str) -> Option<Vec<Arc<str>>> {
        let nodes = self.flat(node, what)?;
        let mut words: Vec<Arc<str>> = Vec::new();
        for node in nodes {
            let word = self.line(node, what, WORD_LIMIT)?;
            if !words.iter().any(|known| **known == *word) {
                words.push(word.into());
            }
        }
        Some(words)
    }
}

/// What a rule asks that holds and does not say whom to ask.
pub(super) fn asking_anybody(rule: &Arc<str>) -> Approval {
    Approval::of(Requirement {
        rule: Arc::clone(rule),
        from: Vec::new(),
        quorum: 1,
    })
}
