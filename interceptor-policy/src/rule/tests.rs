//! The inline tests of a file, read.

use std::net::IpAddr;
use std::time::Duration;

use super::Source;
use super::effects::VERDICTS;
use super::reader::Reader;
use super::written::{RECORDS, RISK_LIMIT};
use super::yaml::{Key, Node, Value};
use crate::operation::sample::Sample;
use crate::testing::{ApprovalExpectation, Before, Exchange, Expect, MaskExpectation, TestCase};
use crate::{DefaultVerdict, Principal, Protocol, Subject, Target};

const TEST: &[&str] = &["name", "given", "postgres", "http", "ssh", "expect"];
const SAMPLE: &[&str] = &[
    "method",
    "url",
    "host",
    "path",
    "headers",
    "body",
    "host_mismatch",
    "response",
];
const GIVEN: &[&str] = &[
    "principal",
    "target",
    "protocol",
    "database",
    "user",
    "after",
    "time",
    "risk",
    "repeat",
];
const EXPECT: &[&str] = &[
    "verdict", "rule", "masks", "observed", "record", "limits", "tags", "approval",
];
/// Most times that one test repeats its exchange.
const REPEAT_LIMIT: u64 = 10_000;
const DEFAULTS: &[(&str, DefaultVerdict)] = &[
    ("allow", DefaultVerdict::Allow),
    ("block", DefaultVerdict::Block),
];

impl<'a> Reader<'a> {
    pub(super) fn test(&mut self, source: &Source, node: &'a Node) -> Option<TestCase> {
        let entries = self.mapping(node, "a test")?;
        let errors = self.report.errors();
        let mut case = TestCase {
            name: String::new(),
            path: source.path.clone(),
            at: node.at,
            subject: Subject {
                principal: Principal {
                    agent: "agent".to_owned(),
                    ..Principal::default()
                },
                target: Target {
                    name: None,
                    host: None,
                    address: Some(IpAddr::from([192, 0, 2, 1])),
                    origin: "192.0.2.1".into(),
                    port: 5432,
                    tls: false,
                    default: DefaultVerdict::Block,
                },
                protocol: Protocol::Postgres,
            },
            asks: Exchange::Sql(String::new()),
            database: "postgres".to_owned(),
            user: "postgres".to_owned(),
            before: Vec::new(),
            unix: 0,
            risk: 0,
            repeat: 1,
            expect: Expect::default(),
        };
        let mut asks = None;
        let mut protocol = None;
        for (key, value) in entries {
            match key.text.as_str() {
                "name" => {
                    case.name = self.line(value, "`name`", 200)?.to_owned();
                    case.at = value.at;
                }
                "given" => {
                    self.given(value, &mut case);
                    if let Value::Map(given) = &value.value {
                        protocol = given.iter().find(|(key, _)| key.text == "protocol");
                    }
                }
                "postgres" | "http" | "ssh" if asks.is_some() => {
                    self.error(
                        key.at,
                        "a test asks about one thing: `postgres`, `http` or `ssh`",
                    );
                }
                "postgres" | "http" | "ssh" => asks = Some(self.exchange(key, value)),
                "expect" => self.expect(value, &mut case.expect),
                _ => self.unknown(key, "a test", TEST),
            }
        }
        for word in ["name", "expect"] {
            self.required(entries, node, word, "the test");
        }
        match asks {
            Some(Some(asks)) => case.asks = asks,
            Some(None) => {}
            None => {
                let at = entries.first().map_or(node.at, |(key, _)| key.at);
                self.error(at, "the test has none of `postgres`, `http` and `ssh`");
            }
        }
        let usual = match &case.asks {
            Exchange::Sql(_) => None,
            Exchange::Http(_) => Some((Protocol::Http, 443)),
            Exchange::Ssh(_) => Some((Protocol::Ssh, 22)),
        };
        if let (Some((usual, port)), None) = (usual, protocol) {
            case.subject.protocol = usual;
            case.subject.target.port = match case.subject.target.port {
                5432 => port,
                other => other,
            };
        }
        (self.report.errors() == errors).then_some(case)
    }

    fn given(&mut self, node: &'a Node, case: &mut TestCase) {
        for (key, value) in self.mapping(node, "`given`").unwrap_or_default() {
            match key.text.as_str() {
                "principal" => self.given_principal(value, &mut case.subject.principal),
                "target" => self.given_target(value, &mut case.subject.target),
                "protocol" => {
                    if let Some(protocol) = self.word(value, "`protocol`", Protocol::NAMES) {
                        case.subject.protocol = protocol;
                    }
                }
                "database" => self.set(value, "`database`", &mut case.database),
                "user" => self.set(value, "`user`", &mut case.user),
                "after" => {
                    for item in self.items(value, "`after`").unwrap_or_default() {
                        case.before.extend(self.before(item));
                    }
                }
                "time" => case.unix = self.stamp(value).unwrap_or(0),
                "risk" => {
                    let number = self.number(value, "`risk`", RISK_LIMIT);
                    case.risk = number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
                }
                "repeat" => match self.number(value, "`repeat`", REPEAT_LIMIT) {
                    Some(0) => self.error(value.at, "`repeat` must be at least 1"),
                    Some(number) => case.repeat = u32::try_from(number).unwrap_or(1),
                    None => {}
                },
                _ => self.unknown(key, "`given`", GIVEN),
            }
        }
    }

    /// A statement, or a request of HTTP or SSH.
    fn exchange(&mut self, key: &Key, node: &'a Node) -> Option<Exchange> {
        match key.text.as_str() {
            "http" => self.sample(node).map(Box::new).map(Exchange::Http),
            "ssh" => self.ssh_sample(node).map(Box::new).map(Exchange::Ssh),
            _ => {
                let sql = self.text(node, "`postgres`")?;
                Some(Exchange::Sql(sql.to_owned()))
            }
        }
    }

    /// An earlier exchange: `{ postgres: …, ago: 5m }`.
    fn before(&mut self, node: &'a Node) -> Option<Before> {
        let entries = self.mapping(node, "an earlier exchange")?;
        let mut exchange = None;
        let mut ago = Duration::ZERO;
        for (key, value) in entries {
            match key.text.as_str() {
                "postgres" | "http" | "ssh" => exchange = Some(self.exchange(key, value)?),
                "ago" => ago = self.span(value, "`ago`")?,
                _ => {
                    let known = ["postgres", "http", "ssh", "ago"];
                    self.unknown(key, "an earlier exchange", &known);
                }
            }
        }
        if exchange.is_none() {
            self.error(
                node.at,
                "the earlier exchange has none of `postgres`, `http` and `ssh`",
            );
        }
        exchange.map(|exchange| Before { exchange, ago })
    }

    /// A request: `{ method: POST, url: "https://host/path", body: … }`.
    fn sample(&mut self, node: &'a Node) -> Option<Sample> {
        let mut sample = Sample::default();
        let mut url = false;
        for (key, value) in self.mapping(node, "`http`")? {
            let what = format!("`{}`", key.text);
            match key.text.as_str() {
                "method" => self.set(value, &what, &mut sample.method),
                "url" => {
                    url = true;
                    if !sample.set_url(self.text(value, &what)?) {
                        self.report.error(
                            value.at,
                            "`url` has no host",
                            Some("write it as in https://host/path?query".to_owned()),
                        );
                    }
                }
                "host" if !url => self.set(value, &what, &mut sample.host),
                "path" if !url => self.set(value, &what, &mut sample.path),
                "host" | "path" => self.error(key.at, "`url` says the host and the path already"),
                "headers" => sample.headers = self.sample_headers(value)?,
                "body" => {
                    let body = match &value.value {
                        Value::Map(_) | Value::List(_) => as_json(value).to_string(),
                        _ => self.text(value, &what)?.to_owned(),
                    };
                    sample.body = Some(body);
                }
                "host_mismatch" => {
                    sample.host_mismatch = self.boolean(value, &what).unwrap_or(false);
                }
                "response" => sample.response = self.sample_response(value),
                _ => self.unknown(key, "`http`", SAMPLE),
            }
        }
        if sample.host.is_empty() {
            self.report.error(
                node.at,
                "the request has no host",
                Some("give it a `url`, or `host` and `path`".to_owned()),
            );
        }
        Some(sample)
    }

    fn sample_response(&mut self, node: &'a Node) -> Option<(u16, Vec<(String, String)>)> {
        let (mut status, mut headers) = (200, Vec::new());
        for (key, value) in self.mapping(node, "`response`")? {
            match key.text.as_str() {
                "status" => {
                    let number = self.number(value, "`status`", 599)?;
                    status = u16::try_from(number).unwrap_or(status);
                }
                "headers" => headers = self.sample_headers(value)?,
                _ => self.unknown(key, "`response`", &["status", "headers"]),
            }
        }
        Some((status, headers))
    }

    fn sample_headers(&mut self, node: &'a Node) -> Option<Vec<(String, String)>> {
        let mut headers = Vec::new();
        for (key, value) in self.mapping(node, "`headers`")? {
            let values = match &value.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(value),
            };
            for value in values {
                let text = self.text(value, &format!("`{}`", key.text))?;
                headers.push((key.text.clone(), text.to_owned()));
            }
        }
        Some(headers)
    }

    /// Seconds since 1970 of a time with its zone.
    fn stamp(&mut self, node: &'a Node) -> Option<i64> {
        let stamp = match &node.value {
            Value::Text(text) => text.parse::<jiff::Timestamp>().ok(),
            _ => None,
        };
        if stamp.is_none() {
            self.report.error(
                node.at,
                "`time` is no point in time",
                Some("write it as in 2026-01-05T10:00:00Z".to_owned()),
            );
        }
        stamp.map(jiff::Timestamp::as_second)
    }

    fn set(&mut self, node: &'a Node, what: &str, into: &mut String) {
        if let Some(text) = self.text(node, what) {
            text.clone_into(into);
        }
    }

    fn given_principal(&mut self, node: &'a Node, principal: &mut Principal) {
        for (key, value) in self.mapping(node, "`principal`").unwrap_or_default() {
            let what = format!("`{}`", key.text);
            let fact = match key.text.as_str() {
                "agent" => {
                    self.set(value, &what, &mut principal.agent);
                    continue;
                }
                "uid" => {
                    let number = self.number(value, &what, u64::from(u32::MAX));
                    principal.uid = number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
                    continue;
                }
                word @ ("labels" | "claims") => {
                    let into = match word {
                        "labels" => &mut principal.labels,
                        _ => &mut principal.claims,
                    };
                    for (name, value) in self.mapping(value, &what).unwrap_or_default() {
                        if let Some(text) = self.text(value, &what) {
                            into.insert(name.text.clone(), text.to_owned());
                        }
                    }
                    continue;
                }
                "groups" => {
                    let groups = self.words(value, &what).unwrap_or_default();
                    principal.groups = groups.iter().map(ToString::to_string).collect();
                    continue;
                }
                "user" => &mut principal.user,
                "group" => &mut principal.group,
                "exe" => &mut principal.exe,
                "command_line" => &mut principal.command_line,
                "cgroup" => &mut principal.cgroup,
                "unit" => &mut principal.unit,
                "container" => &mut principal.container,
                _ => {
                    self.unknown(key, "`principal`", super::matches::PRINCIPAL);
                    continue;
                }
            };
            *fact = self.text(value, &what).map(str::to_owned);
        }
    }

    fn given_target(&mut self, node: &'a Node, target: &mut Target) {
        for (key, value) in self.mapping(node, "`target`").unwrap_or_default() {
            let what = format!("`{}`", key.text);
            match key.text.as_str() {
                "name" => target.name = self.text(value, &what).map(str::to_owned),
                "host" => target.host = self.text(value, &what).map(str::to_owned),
                "address" => match self.text(value, &what).map(str::parse) {
                    Some(Ok(address)) => target.address = Some(address),
                    Some(Err(_)) => self.error(value.at, "no address"),
                    None => {}
                },
                "port" => {
                    let number = self.number(value, &what, u64::from(u16::MAX));
                    target.port = number.and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
                }
                "tls" => target.tls = self.boolean(value, &what).unwrap_or(false),
                "default" => {
                    if let Some(default) = self.word(value, &what, DEFAULTS) {
                        target.default = default;
                    }
                }
                _ => {
                    let known = ["name", "host", "address", "port", "tls", "default"];
                    self.unknown(key, "`target`", &known);
                }
            }
        }
    }

    fn expect(&mut self, node: &'a Node, expect: &mut Expect) {
        let entries = self.mapping(node, "`expect`").unwrap_or_default();
        for (key, value) in entries {
            match key.text.as_str() {
                "verdict" => expect.verdict = self.word(value, "`verdict`", VERDICTS),
                "rule" => {
                    expect.rule = self
                        .text(value, "`rule`")
                        .map(|name| (name.to_owned(), value.at));
                }
                "record" => expect.record = self.word(value, "`record`", RECORDS),
                "limits" => expect.limits = self.limits(value),
                "tags" => {
                    let items = self.items(value, "`tags`").unwrap_or_default();
                    let read = items.iter().map(|item| self.text(item, "`tags`"));
                    expect.tags = read.map(|tag| tag.map(str::to_owned)).collect();
                }
                "approval" => expect.approval = self.expected_approval(value),
                "masks" => expect.masks = self.expected_masks(value),
                "observed" => {
                    for item in self.items(value, "`observed`").unwrap_or_default() {
                        expect
                            .observed
                            .extend(self.text(item, "`observed`").map(str::to_owned));
                    }
                }
                _ => self.unknown(key, "`expect`", EXPECT),
            }
        }
        if entries.is_empty() {
            self.error(node.at, "the test expects nothing");
        }
    }

    /// Written as in a rule; what is left out may be anything.
    fn expected_approval(&mut self, node: &'a Node) -> Option<ApprovalExpectation> {
        let approval = self.approval(node, &"".into())?;
        let entries = self.mapping(node, "`approval`")?;
        let says = |word: &str| entries.iter().any(|(key, _)| key.text == word);
        let requirement = approval.requirements.first()?;
        Some(ApprovalExpectation {
            from: says("from").then(|| requirement.from.clone()),
            quorum: says("quorum").then_some(requirement.quorum),
            timeout: says("timeout").then_some(approval.timeout),
            on_timeout: says("on_timeout").then_some(approval.on_timeout),
            mode: says("mode").then_some(approval.mode),
        })
    }

    /// `[users.ssn, credit_card]`, or `{ users.ssn: redact }`; empty for none at all.
    fn expected_masks(&mut self, node: &'a Node) -> Option<Vec<MaskExpectation>> {
        let mut expected = Vec::new();
        match &node.value {
            Value::List(items) => {
                for item in items {
                    let what = self.text(item, "`masks`")?.to_owned();
                    expected.push(MaskExpectation { what, with: None });
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    let with = match &value.value {
                        Value::Null => "null",
                        _ => self.text(value, "a transform")?,
                    };
                    expected.push(MaskExpectation {
                        what: key.text.clone(),
                        with: Some(with.to_owned()),
                    });
                }
            }
            other => {
                self.wrong_kind(node.at, "`masks`", "a list or a mapping", other);
                return None;
            }
        }
        Some(expected)
    }
}

/// A body that is written as a mapping or a list.
fn as_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::Number => serde_json::Value::Null,
        Value::Bool(is) => (*is).into(),
        Value::Int(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(as_json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| (key.text.clone(), as_json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
