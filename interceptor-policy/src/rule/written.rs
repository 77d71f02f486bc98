//! A file: its lists, rules and tests.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::effects::{WrittenVerdict, asking_anybody};
use super::reader::{List, Reader};
use super::risk::WrittenRisk;
use super::yaml::{self, Key, Node, Value};
use super::{HttpAsks, Match, Rule, RuleVerdict, Source};
use crate::Protocol;
use crate::diagnostic::Report;
use crate::mask::{Direction, MaskEntry, MaskWhat};
use crate::testing::TestCase;
use crate::verdict::{Limits, RecordLevel, Severity};

const FILE: &[&str] = &["version", "lists", "rules", "risk", "tests"];
const RULE: &[&str] = &[
    "name",
    "description",
    "match",
    "unless",
    "verdict",
    "message",
    "approval",
    "mask",
    "limits",
    "risk",
    "tag",
    "record",
    "severity",
    "mode",
    "unresolved",
    "masked_in_predicate",
];
/// Of which a rule has at least one.
const EFFECTS: &[&str] = &[
    "verdict",
    "mask",
    "limits",
    "risk",
    "tag",
    "record",
    "severity",
    "unresolved",
];
const RECORD: &[(&str, RecordLevel)] = &[
    ("metadata", RecordLevel::Metadata),
    ("commands", RecordLevel::Commands),
    ("full", RecordLevel::Full),
];
const SEVERITY: &[(&str, Severity)] = &[
    ("info", Severity::Info),
    ("low", Severity::Low),
    ("medium", Severity::Medium),
    ("high", Severity::High),
    ("critical", Severity::Critical),
];
/// Most points of one rule; thresholds are in tens to hundreds.
pub(super) const RISK_LIMIT: u64 = 1_000_000;
const NAME_LIMIT: usize = 64;
pub(super) const MESSAGE_LIMIT: usize = 500;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) rules: Vec<Rule>,
    pub(super) tests: Vec<TestCase>,
    pub(super) risk: WrittenRisk,
}

/// Reads one file; what is wrong with it is on the report.
pub(super) fn file(source: &Source, mut report: Report<'_>) -> File {
    let Some(root) = yaml::read(&source.text, &mut report) else {
        return File::default();
    };
    let mut reader = Reader {
        report,
        lists: BTreeMap::new(),
    };
    reader.file(source, &root).unwrap_or_default()
}

impl<'a> Reader<'a> {
    fn file(&mut self, source: &Source, root: &'a Node) -> Option<File> {
        let entries = self.mapping(root, "a rule file")?;
        let mut file = File::default();
        let mut version = None;
        for (key, value) in entries {
            match key.text.as_str() {
                "version" => version = Some(value),
                "lists" => self.read_lists(value),
                "rules" | "tests" => {}
                "risk" => file.risk = self.risk(value),
                _ => self.unknown(key, "a rule file", FILE),
            }
        }
        match version {
            Some(Node {
                value: Value::Int(1),
                ..
            }) => {}
            Some(other) => self.error(other.at, "this program reads `version: 1`"),
            None => self.report.error(
                root.at,
                "the file does not say its `version`",
                Some("begin it with `version: 1`".to_owned()),
            ),
        }
        for (key, value) in entries {
            match key.text.as_str() {
                "rules" => {
                    for node in self.items(value, "`rules`").unwrap_or_default() {
                        file.rules.extend(self.rule(source, node));
                    }
                }
                "tests" => {
                    for node in self.items(value, "`tests`").unwrap_or_default() {
                        file.tests.extend(self.test(source, node));
                    }
                }
                _ => {}
            }
        }
        self.warn_of_unused_lists();
        Some(file)
    }

    fn read_lists(&mut self, node: &'a Node) {
        for (key, value) in self.mapping(node, "`lists`").unwrap_or_default() {
            let Some(items) = self.items(value, &format!("the list `{}`", key.text)) else {
                continue;
            };
            for item in items {
                if matches!(&item.value, Value::Text(text) if text.starts_with('$')) {
                    self.error(item.at, "a list cannot name another list");
                }
            }
            self.lists.insert(
                key.text.as_str(),
                List {
                    at: key.at,
                    items,
                    used: Cell::new(false),
                },
            );
        }
    }

    fn warn_of_unused_lists(&mut self) {
        for (name, list) in &self.lists {
            if !list.used.get() {
                self.report.warning(
                    list.at,
                    format!("the list `{name}` is used nowhere"),
                    Some(format!("use it as `${name}`, or drop it")),
                );
            }
        }
    }

    fn rule(&mut self, source: &Source, node: &'a Node) -> Option<Rule> {
        let entries = self.mapping(node, "a rule")?;
        let errors = self.report.errors();
        // First, since what it counts and whom it asks goes by its name.
        let name = entries
            .iter()
            .find(|(key, _)| key.text == "name")
            .and_then(|(_, node)| Some((Arc::<str>::from(self.name(node)?), node)));
        let known = name
            .as_ref()
            .map_or_else(|| "".into(), |(name, _)| Arc::clone(name));
        let mut description = None;
        let mut matches = None;
        let mut unless = None;
        let mut verdict = WrittenVerdict::default();
        let mut approval = None;
        let mut limits = Limits::default();
        let mut tags = Vec::new();
        let mut message = None;
        let mut masks = Vec::new();
        let mut risk = 0;
        let mut record = None;
        let mut severity = None;
        let mut observe = false;
        let mut unresolved = false;
        let mut masked_in_predicate = false;
        let mut has_match = false;
        for (key, value) in entries {
            match key.text.as_str() {
                "name" => {}
                "description" => description = self.line(value, "`description`", 2000),
                "match" => {
                    has_match = true;
                    matches = self.match_(value, "`match`", &known);
                }
                "unless" => {
                    if matches!(&value.value, Value::Map(entries) if entries.is_empty()) {
                        self.error(
                            value.at,
                            "an empty `unless` always holds: the rule can never apply",
                        );
                    }
                    // No name has a NUL.
                    let counted = format!("{known}\0unless");
                    unless = self.match_(value, "`unless`", &counted);
                }
                "verdict" => verdict = self.verdict(value),
                "message" => message = self.line(value, "`message`", MESSAGE_LIMIT),
                "mask" => masks = self.masks(value).unwrap_or_default(),
                "risk" => risk = self.number(value, "`risk`", RISK_LIMIT).unwrap_or(0),
                "record" => record = self.word(value, "`record`", RECORD),
                "severity" => severity = self.word(value, "`severity`", SEVERITY),
                "mode" => {
                    let words = [("enforce", false), ("observe", true)];
                    observe = self.word(value, "`mode`", &words).unwrap_or(false);
                }
                "unresolved" => unresolved = self.blocks(value, "`unresolved`"),
                "masked_in_predicate" => {
                    masked_in_predicate = self.blocks(value, "`masked_in_predicate`");
                }
                "approval" => approval = Some((key.at, self.approval(value, &known))),
                "limits" => limits = self.limits(value).unwrap_or_default(),
                "tag" => tags = self.words(value, "`tag`").unwrap_or_default(),
                _ => self.unknown(key, "a rule", RULE),
            }
        }
        let first = entries.first().map_or(node.at, |(key, _)| key.at);
        if !entries.iter().any(|(key, _)| key.text == "name") {
            self.error(first, "the rule has no `name`");
        }
        if !has_match {
            self.report.error(
                first,
                "the rule has no `match`",
                Some("`match: {}` holds for everything".to_owned()),
            );
        }
        let has = |word: &&str| entries.iter().any(|(key, _)| key.text == *word);
        if !EFFECTS.iter().any(has) {
            self.report.error(
                first,
                "the rule does nothing",
                Some(format!("give it one of {}", EFFECTS.join(", "))),
            );
        }
        let holds = verdict.verdict == Some(RuleVerdict::Hold);
        if let (Some((at, _)), false) = (&approval, holds) {
            self.report.error(
                *at,
                "`approval` is of a rule that holds",
                Some("give it `verdict: hold`".to_owned()),
            );
        }
        let (name, name_node) = name?;
        let matches: Match = matches?;
        let masks_columns = masks
            .iter()
            .any(|mask| matches!(mask.what, MaskWhat::Columns(_)));
        self.objects_to_something(entries, &matches, masks_columns);
        self.masks_what_there_can_be(entries, &matches, &masks);
        if self.report.errors() > errors {
            return None;
        }
        if let Some((key, _)) = entries.iter().find(|(key, _)| key.text == "message")
            && verdict.verdict.unwrap_or(RuleVerdict::Allow) == RuleVerdict::Allow
        {
            self.report.warning(
                key.at,
                "nobody is told this message: the rule refuses nothing",
                None,
            );
        }
        if verdict.verdict > Some(RuleVerdict::Hold) {
            self.warn_of_lost_effects(entries);
        }
        let message: Arc<str> = match message {
            Some(message) => message.into(),
            None if holds => format!("rule {name} asks a person first").into(),
            None => format!("refused by rule {name}").into(),
        };
        let approval = holds.then(|| {
            let said = approval.and_then(|(_, approval)| approval);
            Arc::new(said.unwrap_or_else(|| asking_anybody(&name)))
        });
        let http = HttpAsks::of(&matches, unless.as_ref());
        self.decides_in_time(entries, http, verdict.verdict);
        Some(Rule {
            name,
            http,
            description: description.map(str::to_owned),
            path: source.path.clone(),
            at: name_node.at,
            matches,
            unless,
            verdict: verdict.verdict,
            ban: verdict.ban,
            approval,
            message,
            masks,
            limits,
            tags,
            risk: u32::try_from(risk).unwrap_or(u32::MAX),
            record,
            severity,
            observe,
            unresolved,
            masked_in_predicate,
            written: self.written(entries),
        })
    }

    /// When a response is there, its request was let pass already.
    fn decides_in_time(
        &mut self,
        entries: &'a [(Key, Node)],
        http: HttpAsks,
        verdict: Option<RuleVerdict>,
    ) {
        let verdict_at = entries.iter().find(|(key, _)| key.text == "verdict");
        if let Some((key, _)) = verdict_at
            && http.response
            && verdict == Some(RuleVerdict::Allow)
        {
            self.report.warning(
                key.at,
                "this allows nothing: when there is a response, its request was let pass already",
                Some("allow the request, and refuse responses that are not to pass".to_owned()),
            );
        }
    }

    /// A mask that hides nothing of what its rule matches is refused or warned of.
    fn masks_what_there_can_be(
        &mut self,
        entries: &'a [(Key, Node)],
        matches: &Match,
        masks: &[MaskEntry],
    ) {
        let Some((
            _,
            Node {
                value: Value::List(items),
                ..
            },
        )) = entries.iter().find(|(key, _)| key.text == "mask")
        else {
            return;
        };
        for (item, mask) in items.iter().zip(masks) {
            let Value::Map(parts) = &item.value else {
                continue;
            };
            let direction = parts.iter().find(|(key, _)| key.text == "direction");
            let requests = mask.direction == Direction::Request;
            if let Some((_, at)) = direction.filter(|_| requests) {
                if !matches.can_be(Protocol::Http) {
                    self.no_sql_is_masked(at.at);
                } else if matches.asks_response() {
                    self.report.warning(
                        at.at,
                        "this masks nothing: when there is a response, its request was sent already",
                        Some("write it as a rule of the request".to_owned()),
                    );
                }
            } else if mask.is_of_http() && !matches.can_be(Protocol::Http) {
                self.report.warning(
                    item.at,
                    "this masks nothing: only HTTP has it, and the rule is of another protocol",
                    None,
                );
            }
            if mask.is_of_sql() && !matches.can_be(Protocol::Postgres) {
                self.report.warning(
                    item.at,
                    "this masks nothing: only PostgreSQL has columns, and the rule is of another protocol",
                    Some("as in `json: [\"/customer/email\"]`".to_owned()),
                );
            }
        }
    }

    /// What is refused has no answer that could be masked or limited.
    fn warn_of_lost_effects(&mut self, entries: &'a [(Key, Node)]) {
        for (key, _) in entries {
            let message = match key.text.as_str() {
                "mask" => "this masks nothing: what the rule applies to is refused",
                "limits" => "this limits nothing: what the rule applies to is refused",
                "tag" => "this leaves no tag: what the rule applies to is refused",
                _ => continue,
            };
            let help = match key.text.as_str() {
                "tag" => "`after: { rule: … }` asks for what was refused, too",
                _ => "write it as a rule of its own, if it is of more",
            };
            self.report.warning(key.at, message, Some(help.to_owned()));
        }
    }

    /// The one word of a key that can only block.
    fn blocks(&mut self, node: &'a Node, what: &str) -> bool {
        self.word(node, what, &[("block", true)]).unwrap_or(false)
    }

    /// What blocks for the names of a rule needs a rule that has some.
    fn objects_to_something(
        &mut self,
        entries: &'a [(Key, Node)],
        matches: &Match,
        masks_columns: bool,
    ) {
        for (key, _) in entries {
            let (lacks, message) = match key.text.as_str() {
                "unresolved" => (
                    !masks_columns && !matches.names_tables(),
                    "`unresolved` is of a rule that names tables or columns",
                ),
                "masked_in_predicate" => (
                    !masks_columns,
                    "`masked_in_predicate` is of a rule that masks columns",
                ),
                _ => continue,
            };
            if lacks {
                self.error(key.at, message);
            }
        }
    }

    /// Names stand in errors, records, and other files.
    fn name(&mut self, node: &'a Node) -> Option<&'a str> {
        let name = self.line(node, "`name`", NAME_LIMIT)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if !name.chars().all(plain) {
            self.error(
                node.at,
                "a rule's `name` is made of letters, digits, `-`, `_`, `.` and `/`",
            );
            return None;
        }
        Some(name)
    }

    /// A key of a test or a rule that was found where it has to be.
    pub(super) fn required(
        &mut self,
        entries: &'a [(Key, Node)],
        node: &Node,
        word: &str,
        what: &str,
    ) {
        if !entries.iter().any(|(key, _)| key.text == word) {
            let at = entries.first().map_or(node.at, |(key, _)| key.at);
            self.error(at, format!("{what} has no `{word}`"));
        }
    }
}

/// The levels of recording.
pub(super) const RECORDS: &[(&str, RecordLevel)] = RECORD;
