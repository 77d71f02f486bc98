//! The top-level `risk` of rule files: how fast points fade, and what a score
//! of so many leads to. What all files say is united.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::effects::asking_anybody;
use super::reader::Reader;
use super::yaml::Node;
use super::{RuleVerdict, Source};
use crate::approval::Approval;
use crate::diagnostic::{At, Diagnostics, Report};
use crate::state::micros;

const RISK: &[&str] = &["half_life", "thresholds"];
const THRESHOLD: &[&str] = &["at", "verdict", "message", "approval"];

/// What the files say of risk.
#[derive(Debug)]
pub(crate) struct Risk {
    /// Microseconds.
    pub(crate) half_life: u64,
    /// Lowest first.
    pub(crate) thresholds: Vec<Threshold>,
}

/// A score, and what it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Threshold {
    pub(crate) at: u32,
    /// `risk>=50`, where a rule would have its name.
    pub(crate) name: Arc<str>,
    pub(crate) verdict: RuleVerdict,
    pub(crate) ban: Option<Duration>,
    pub(crate) message: Arc<str>,
    /// Of one that holds.
    pub(crate) approval: Option<Arc<Approval>>,
}

/// Where no file says it.
const HALF_LIFE: Duration = Duration::from_secs(10 * 60);

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct WrittenRisk {
    pub(super) half_life: Option<(Duration, At)>,
    pub(super) thresholds: Vec<Threshold>,
}

/// What all files say together.
pub(super) fn unite(files: Vec<(&Source, WrittenRisk)>, faults: &mut Diagnostics) -> Risk {
    let mut said: Option<(Duration, At, PathBuf)> = None;
    let mut thresholds = Vec::new();
    for (source, risk) in files {
        thresholds.extend(risk.thresholds);
        let Some((half_life, at)) = risk.half_life else {
            continue;
        };
        match &said {
            None => said = Some((half_life, at, source.path.clone())),
            Some((first, _, _)) if *first == half_life => {}
            Some((_, first, path)) => {
                Report::new(&source.path, &source.text, faults).error(
                    at,
                    "another file says another `half_life`",
                    Some(format!("it is at {}:{}", path.display(), first.line)),
                );
            }
        }
    }
    thresholds.sort_by_key(|threshold| threshold.at);
    Risk {
        half_life: micros(said.map_or(HALF_LIFE, |(half_life, ..)| half_life)),
        thresholds,
    }
}

impl<'a> Reader<'a> {
    pub(super) fn risk(&mut self, node: &'a Node) -> WrittenRisk {
        let mut risk = WrittenRisk::default();
        for (key, value) in self.mapping(node, "`risk`").unwrap_or_default() {
            match key.text.as_str() {
                "half_life" => {
                    let span = self.span(value, "`half_life`");
                    risk.half_life = span.map(|span| (span, value.at));
                }
                "thresholds" => {
                    for item in self.items(value, "`thresholds`").unwrap_or_default() {
                        risk.thresholds.extend(self.threshold(item));
                    }
                }
                _ => self.unknown(key, "`risk`", RISK),
            }
        }
        risk
    }

    fn threshold(&mut self, node: &'a Node) -> Option<Threshold> {
        let entries = self.mapping(node, "a threshold")?;
        self.required(entries, node, "at", "the threshold");
        self.required(entries, node, "verdict", "the threshold");
        let at = entries.iter().find(|(key, _)| key.text == "at")?;
        let at = self.number(&at.1, "`at`", u64::from(u32::MAX))?;
        let at = u32::try_from(at).ok()?;
        if at == 0 {
            self.error(node.at, "a threshold of 0 points is always reached");
            return None;
        }
        let name: Arc<str> = format!("risk>={at}").into();
        let mut verdict = super::effects::WrittenVerdict::default();
        let mut message = None;
        let mut approval = None;
        for (key, value) in entries {
            match key.text.as_str() {
                "at" => {}
                "verdict" => verdict = self.verdict(value),
                "message" => message = self.line(value, "`message`", super::written::MESSAGE_LIMIT),
                "approval" => approval = Some((key.at, self.approval(value, &name)?)),
                _ => {
                    self.unknown(key, "a threshold", THRESHOLD);
                    return None;
                }
            }
        }
        let ban = verdict.ban;
        let verdict = verdict.verdict?;
        if verdict == RuleVerdict::Allow {
            self.report.error(
                node.at,
                "a threshold makes things stricter: it cannot allow",
                Some("one of hold, block, kill".to_owned()),
            );
            return None;
        }
        if let (Some((at, _)), true) = (&approval, verdict != RuleVerdict::Hold) {
            self.error(*at, "`approval` is of a threshold that holds");
            return None;
        }
        let message: Arc<str> = match message {
            Some(message) => message.into(),
            None => format!("too risky: {at} points or more").into(),
        };
        let approval = (verdict == RuleVerdict::Hold).then(|| {
            let approval = approval.map(|(_, approval)| approval);
            Arc::new(approval.unwrap_or_else(|| asking_anybody(&name)))
        });
        Some(Threshold {
            at,
            name,
            verdict,
            ban,
            message,
            approval,
        })
    }
}
