//! The `mask` of a rule.

use std::sync::Arc;

use super::http::is_header_name;
use super::reader::Reader;
use super::yaml::{Node, Value};
use crate::diagnostic::At;
use crate::mask::{Detector, Direction, MaskEntry, MaskWhat, Pattern, Transform};

const MASK: &[&str] = &[
    "columns",
    "json",
    "header",
    "detect",
    "pattern",
    "with",
    "direction",
];
const DIRECTIONS: &[(&str, Direction)] = &[
    ("response", Direction::Response),
    ("request", Direction::Request),
];
const TRANSFORMS: &str =
    "one of redact, hash, null, partial, { partial: { keep_last: 4 } }, { constant: text }";

impl<'a> Reader<'a> {
    pub(super) fn masks(&mut self, node: &'a Node) -> Option<Vec<MaskEntry>> {
        let items = self.items(node, "`mask`")?;
        if items.is_empty() {
            self.error(node.at, "`mask` is empty, and hides nothing");
        }
        let read: Vec<_> = items.iter().map(|item| self.mask(item)).collect();
        read.into_iter().collect()
    }

    fn mask(&mut self, node: &'a Node) -> Option<MaskEntry> {
        let mut what = None;
        let mut with = None;
        let mut direction = None;
        let mut whole = true;
        for (key, value) in self.mapping(node, "a mask")? {
            match key.text.as_str() {
                "columns" | "json" | "header" | "detect" | "pattern" if what.is_some() => {
                    self.report.error(
                        key.at,
                        "one mask names one of `columns`, `json`, `header`, `detect` and `pattern`",
                        Some("write two masks".to_owned()),
                    );
                    whole = false;
                }
                "columns" => what = Some(self.mask_columns(value)),
                "json" => what = Some(self.mask_json(value)),
                "header" => what = Some(self.mask_header(value)),
                "detect" => what = Some(self.mask_detect(value)),
                "pattern" => what = Some(self.mask_pattern(value)),
                "with" => with = Some(self.transform(value)),
                "direction" => {
                    let read = self.word(value, "`direction`", DIRECTIONS);
                    direction = read.map(|read| (read, value.at));
                }
                _ => {
                    self.unknown(key, "a mask", MASK);
                    whole = false;
                }
            }
        }
        if what.is_none() && whole {
            self.error(
                node.at,
                "the mask says none of `columns`, `json`, `header`, `detect` and `pattern`",
            );
        }
        if with.is_none() {
            self.report.error(
                node.at,
                "the mask does not say `with` what",
                Some(TRANSFORMS.to_owned()),
            );
        }
        let what = what??;
        if let Some((Direction::Request, at)) = direction
            && matches!(what, MaskWhat::Columns(_))
        {
            self.no_sql_is_masked(at);
        }
        Some(MaskEntry {
            what,
            with: with??,
            direction: direction
                .map(|(direction, _)| direction)
                .unwrap_or_default(),
        })
    }

    /// A statement in which a part is replaced is another statement, and nobody
    /// knows which.
    pub(super) fn no_sql_is_masked(&mut self, at: At) {
        self.report.error(
            at,
            "what an agent sends in SQL is not masked: it would be another statement",
            Some("refuse it instead: match it, with `verdict: block`".to_owned()),
        );
    }

    fn mask_json(&mut self, node: &'a Node) -> Option<MaskWhat> {
        let nodes = self.flat(node, "`json`")?;
        let read: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                let text = self.text(node, "`json`")?;
                self.pointer(node.at, text).map(Arc::new)
            })
            .collect();
        read.into_iter().collect::<Option<_>>().map(MaskWhat::Json)
    }

    fn mask_header(&mut self, node: &'a Node) -> Option<MaskWhat> {
        let nodes = self.flat(node, "`header`")?;
        let read: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                let name = self.text(node, "`header`")?;
                if !is_header_name(name) {
                    self.error(node.at, format!("`{name}` is no name of a header"));
                    return None;
                }
                Some(Arc::from(name.to_ascii_lowercase()))
            })
            .collect();
        let names = read.into_iter().collect::<Option<_>>();
        names.map(MaskWhat::Headers)
    }

    fn mask_columns(&mut self, node: &'a Node) -> Option<MaskWhat> {
        let nodes = self.flat(node, "`columns`")?;
        let read: Vec<_> = nodes.into_iter().map(|n| self.column(n)).collect();
        let patterns = read.into_iter().map(|p| p.map(Arc::new));
        patterns.collect::<Option<_>>().map(MaskWhat::Columns)
    }

    fn mask_detect(&mut self, node: &'a Node) -> Option<MaskWhat> {
        let nodes = self.flat(node, "`detect`")?;
        let read: Vec<_> = nodes
            .into_iter()
            .map(|n| self.word(n, "`detect`", Detector::NAMES))
            .collect();
        read.into_iter()
            .collect::<Option<_>>()
            .map(MaskWhat::Detect)
    }

    fn mask_pattern(&mut self, node: &'a Node) -> Option<MaskWhat> {
        let nodes = self.flat(node, "`pattern`")?;
        let read: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                let source = self.text(node, "`pattern`")?;
                let pattern = Pattern::new(source);
                let fault = pattern.as_ref().err();
                if let Some(fault) = fault {
                    self.error(node.at, format!("bad regular expression: {fault}"));
                }
                pattern.ok().map(Arc::new)
            })
            .collect();
        let patterns = read.into_iter().collect::<Option<_>>();
        patterns.map(MaskWhat::Patterns)
    }

    fn transform(&mut self, node: &'a Node) -> Option<Transform> {
        let partial = Transform::Partial {
            keep_first: 0,
            keep_last: 4,
        };
        match &node.value {
            Value::Null => Some(Transform::Null),
            Value::Text(text) => match text.as_str() {
                "redact" => Some(Transform::Redact),
                "hash" => Some(Transform::Hash),
                "partial" => Some(partial),
                "null" => Some(Transform::Null),
                _ => self.no_transform(node),
            },
            Value::Map(entries) => match entries.as_slice() {
                [(key, value)] if key.text == "partial" => self.partial(value),
                [(key, value)] if key.text == "constant" => self.constant(value),
                [(key, _)] => {
                    self.unknown(key, "`with`", &["partial", "constant"]);
                    None
                }
                _ => self.no_transform(node),
            },
            _ => self.no_transform(node),
        }
    }

    fn no_transform(&mut self, node: &'a Node) -> Option<Transform> {
        let help = match &node.value {
            Value::Text(text) => {
                crate::diagnostic::nearest(text, ["redact", "hash", "partial", "null", "constant"])
            }
            _ => None,
        };
        self.report.error(
            node.at,
            "no such transform",
            Some(help.unwrap_or_else(|| TRANSFORMS.to_owned())),
        );
        None
    }

    fn constant(&mut self, node: &'a Node) -> Option<Transform> {
        let text = match &node.value {
            Value::Int(number) => number.to_string(),
            _ => self.text(node, "`constant`")?.to_owned(),
        };
        if text.contains('\0') {
            self.error(node.at, "PostgreSQL's text has no NUL");
            return None;
        }
        Some(Transform::Constant(text))
    }

    fn partial(&mut self, node: &'a Node) -> Option<Transform> {
        let (mut keep_first, mut keep_last) = (0, 0);
        for (key, value) in self.mapping(node, "`partial`")? {
            let kept: &mut usize = match key.text.as_str() {
                "keep_first" => &mut keep_first,
                "keep_last" => &mut keep_last,
                _ => {
                    self.unknown(key, "`partial`", &["keep_first", "keep_last"]);
                    return None;
                }
            };
            let number = self.number(value, &format!("`{}`", key.text), 1000)?;
            *kept = usize::try_from(number).ok()?;
        }
        if keep_first + keep_last == 0 {
            self.report.error(
                node.at,
                "`partial` keeps nothing",
                Some("say `keep_first` or `keep_last`, or use `redact`".to_owned()),
            );
            return None;
        }
        Some(Transform::Partial {
            keep_first,
            keep_last,
        })
    }
}
