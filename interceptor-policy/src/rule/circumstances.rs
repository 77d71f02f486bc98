//! `after`, `rate`, `risk` and `time` of a match.

use std::sync::Arc;

use super::reader::{Reader, shown};
use super::written::RISK_LIMIT;
use super::yaml::{Node, Value};
use crate::diagnostic::At;
use crate::matcher::circumstances::{Asks, CircumstanceField, RateField};
use crate::matcher::clock::{self, Clock, WEEKDAYS};
use crate::matcher::expression::Expression;
use crate::matcher::history::{After, By, Rate, Risk, Trace};
use crate::state::micros;

const AFTER: &[&str] = &["tag", "rule", "within", "by"];
const RATE: &[&str] = &["over", "per", "by"];
const TIME: &[&str] = &["weekdays", "between", "zone"];
const BY: &[(&str, By)] = &[("session", By::Session), ("principal", By::Principal)];
/// Highest rate that can be asked for.
const RATE_LIMIT: u64 = 1_000_000_000;

impl<'a> Reader<'a> {
    pub(super) fn after(&mut self, node: &'a Node) -> Option<CircumstanceField> {
        let (mut tags, mut rules) = (None, None);
        let mut within = None;
        let mut by = By::default();
        for (key, value) in self.mapping(node, "`after`")? {
            match key.text.as_str() {
                "tag" => tags = Some(self.words(value, "`tag`")?),
                "rule" => rules = Some(self.words(value, "`rule`")?),
                "within" => within = Some(micros(self.span(value, "`within`")?)),
                "by" => by = self.word(value, "`by`", BY)?,
                _ => {
                    self.unknown(key, "`after`", AFTER);
                    return None;
                }
            }
        }
        let trace = match (tags, rules) {
            (Some(tags), None) => Trace::Tags(tags),
            (None, Some(rules)) => Trace::Rules(rules),
            (both, _) => {
                let message = match both {
                    Some(_) => "`after` asks for both a `tag` and a `rule`",
                    None => "`after` says neither a `tag` nor a `rule`",
                };
                self.error(node.at, message);
                return None;
            }
        };
        Some(field(
            "after",
            node,
            Asks::After(After { trace, within, by }),
        ))
    }

    pub(super) fn rate(&mut self, node: &'a Node, key: Arc<str>) -> Option<RateField> {
        let (mut over, mut per) = (None, None);
        let mut by = By::default();
        for (key, value) in self.mapping(node, "`rate`")? {
            match key.text.as_str() {
                "over" => over = Some(self.number(value, "`over`", RATE_LIMIT)?),
                "per" => per = Some(micros(self.span(value, "`per`")?)),
                "by" => by = self.word(value, "`by`", BY)?,
                _ => {
                    self.unknown(key, "`rate`", RATE);
                    return None;
                }
            }
        }
        let (Some(over), Some(per)) = (over, per) else {
            self.report.error(
                node.at,
                "`rate` says how many and in how much time",
                Some("as in `rate: { over: 100, per: 1m }`".to_owned()),
            );
            return None;
        };
        Some(RateField {
            shown: shown(node),
            rate: Rate { key, over, per, by },
        })
    }

    pub(super) fn score(&mut self, node: &'a Node) -> Option<CircumstanceField> {
        let numbers = self.numbers(node, "`risk`", RISK_LIMIT)?;
        Some(field("risk", node, Asks::Risk(Risk(numbers))))
    }

    pub(super) fn time(&mut self, node: &'a Node) -> Option<CircumstanceField> {
        let entries = self.mapping(node, "`time`")?;
        let mut clock = Clock {
            weekdays: Vec::new(),
            between: None,
            zone: jiff::tz::TimeZone::UTC,
        };
        for (key, value) in entries {
            match key.text.as_str() {
                "weekdays" => {
                    let days = self.flat(value, "`weekdays`")?;
                    for day in days {
                        clock.weekdays.push(self.word(day, "`weekdays`", WEEKDAYS)?);
                    }
                }
                "between" => clock.between = Some(self.between(value)?),
                "zone" => clock.zone = self.zone(value)?,
                _ => {
                    self.unknown(key, "`time`", TIME);
                    return None;
                }
            }
        }
        if clock.weekdays.is_empty() && clock.between.is_none() {
            self.error(node.at, "`time` says neither `weekdays` nor `between`");
            return None;
        }
        Some(field("time", node, Asks::Time(clock)))
    }

    pub(super) fn expression(&mut self, node: &'a Node) -> Option<CircumstanceField> {
        let source = self.text(node, "`if`")?;
        match Expression::new(source) {
            Ok(expression) => Some(field("if", node, Asks::If(Box::new(expression)))),
            Err(wrong) => {
                let (at, place) = self.inside(node.at, source, wrong.at);
                self.report.error(at, wrong.message + &place, wrong.help);
                None
            }
        }
    }

    /// Where in the file a part of a text stands; where its lines are not those
    /// of the file, which place of the text that is.
    fn inside(&self, at: At, source: &str, part: Option<(usize, usize)>) -> (At, String) {
        let Some((from, width)) = part else {
            return (at, String::new());
        };
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let line: String = self
            .report
            .line(at)
            .chars()
            .skip(at.column.saturating_sub(1) as usize)
            .collect();
        // As it stands, but for a quote before it.
        if let Some(start) = line.find(source).filter(|start| *start <= 1) {
            let at = At {
                column: at.column.saturating_add(small(start + from)),
                width: small(width),
                ..at
            };
            return (at, String::new());
        }
        let before: String = source.chars().take(from).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        (
            at,
            format!(" (line {line}, column {column} of the expression)"),
        )
    }

    fn between(&mut self, node: &'a Node) -> Option<(jiff::civil::Time, jiff::civil::Time)> {
        let read = match &node.value {
            Value::Text(text) => text
                .split_once('-')
                .and_then(|(from, to)| Some((clock::time(from)?, clock::time(to)?))),
            _ => None,
        };
        if read.is_none() {
            self.report.error(
                node.at,
                "`between` is no time of day to another",
                Some("write it as in \"09:00-17:30\", or \"22:00-06:00\"".to_owned()),
            );
        }
        read
    }

    fn zone(&mut self, node: &'a Node) -> Option<jiff::tz::TimeZone> {
        let name = self.text(node, "`zone`")?;
        let zone = clock::zone(name);
        if zone.is_none() {
            let zones = clock::zones();
            let help = crate::diagnostic::nearest(name, zones.iter().map(String::as_str));
            self.report.error(
                node.at,
                format!("there is no time zone `{name}`"),
                help.or_else(|| Some("write it as in Europe/Berlin, or UTC".to_owned())),
            );
        }
        zone
    }
}

fn field(name: &'static str, node: &Node, asks: Asks) -> CircumstanceField {
    CircumstanceField {
        name,
        shown: shown(node),
        at: node.at,
        asks,
    }
}
