//! Recordings of HTTP, looked at again.

use std::path::PathBuf;
use std::sync::Arc;

use ::http::{Request, Response};
use bytes::Bytes;
use interceptor_policy::{DefaultVerdict, MaskKey, Moment, RuleSet, Source, Standing};
use serde_json::json;
use uuid::Uuid;

use super::{Backtest, Finding, Learner, Opened};
use crate::event::FlowTime;
use crate::http::{Bounds, HttpSession, Outbox, Settings};
use crate::journal::Journal;
use crate::outbox::Acting as _;
use crate::replay::Entry;

const NOTHING: &str = "version: 1\nrules: []\n";

fn rules(yaml: &str) -> Arc<RuleSet> {
    let source = Source {
        path: PathBuf::from("rules.yaml"),
        text: yaml.to_owned(),
    };
    Arc::new(RuleSet::load(&[source]).unwrap_or_else(|e| panic!("{e}\n{yaml}")))
}

fn opening() -> Entry {
    Entry {
        kind: "open".to_owned(),
        meta: json!({
            "protocol": "http", "agent": "bot", "target": "api", "origin": "127.0.0.1:443",
            "tls_downstream": {}, "at_wall": "2026-01-01T00:00:00Z", "at_wall_ms": 1,
        }),
        ..Entry::default()
    }
}

/// What a session puts on record of these requests, each with its body, and of the
/// answer's body to each.
fn recorded(yaml: &str, asked: &[(&str, &str, &str, &str)]) -> Vec<Entry> {
    let open = opening();
    let opened = Opened::read(&open, &|_| DefaultVerdict::Allow).unwrap();
    let mut session = HttpSession::new(Settings {
        scope: rules(yaml).scope(&opened.subject),
        standing: Standing::default(),
        opened: Moment::default(),
        key: MaskKey([1; 32]),
        journal: Journal::new(Uuid::nil(), None),
        downstream_tls: true,
        uninspected: false,
        injected: Vec::new(),
        grpc: None,
        bounds: Bounds::default(),
    });
    let mut out = Outbox::default();
    for (n, (method, url, body, answer)) in asked.iter().enumerate() {
        let now = FlowTime(n as u64 * 1000);
        let request = Request::builder().method(*method).uri(*url);
        let request = request.header("content-type", "application/json");
        let head = request.body(()).unwrap().into_parts().0;
        let id = session.begin(now, head, body.is_empty(), false, &mut out);
        if !body.is_empty() {
            session.request_data(now, id, Bytes::from((*body).to_owned()), &mut out);
            session.request_end(now, id, None, &mut out);
        }
        let response = Response::builder().header("content-type", "application/json");
        let head = response.body(()).unwrap().into_parts().0;
        session.response_head(now, id, head, false, &mut out);
        session.response_data(now, id, Bytes::from((*answer).to_owned()), &mut out);
        session.response_end(now, id, None, &mut out);
    }
    session.close(FlowTime(1_000_000), "done", &mut out);
    let entries = out.events.iter().map(|event| Entry {
        seq: event.seq,
        at: event.at,
        kind: event.kind.name().to_owned(),
        exchange: event.exchange,
        line: event.line.clone(),
        data: event.data.clone(),
        meta: serde_json::from_str(&event.meta).unwrap_or_default(),
        ..Entry::default()
    });
    std::iter::once(open).chain(entries).collect()
}

const ASKED: &[(&str, &str, &str, &str)] = &[
    ("GET", "https://api.example/v1/users/17?page=2", "", "{}"),
    ("GET", "https://api.example/v1/users/9d2c", "", "{}"),
    (
        "POST",
        "https://api.example/v1/payments",
        r#"{"amount": 5000}"#,
        r#"{"email": "ada@example.com"}"#,
    ),
];

fn backtest(yaml: &str, entries: &[Entry]) -> (Vec<(u64, String, &'static str)>, super::Summary) {
    let mut backtest = Backtest::new(rules(yaml), yaml);
    let mut changes = Vec::new();
    for entry in entries {
        if entry.kind == "open" {
            assert!(backtest.begin("s", entry, &|_| DefaultVerdict::Allow));
        } else {
            changes.extend(backtest.entry(entry));
        }
    }
    changes.extend(backtest.end());
    let changes = changes
        .into_iter()
        .filter(Finding::differs)
        .map(|change| (change.exchange, change.was, change.would.unwrap()))
        .collect();
    (changes, backtest.summary().clone())
}

#[test]
fn a_request_is_judged_anew_with_its_query_and_its_body() {
    let entries = recorded(NOTHING, ASKED);
    let (changes, summary) = backtest(
        "
version: 1
rules:
  - name: no-second-page
    match: { http: { query: { page: '2' } } }
    verdict: block
  - name: large-payments
    match: { http: { path: /v1/payments, body: { /amount: { over: 1000 } } } }
    verdict: hold
",
        &entries,
    );
    let allow = "allow".to_owned();
    assert_eq!(changes, [(1, allow.clone(), "block"), (3, allow, "hold")]);
    assert_eq!((summary.sessions, summary.judged), (1, 3));
    assert_eq!(summary.applied["no-second-page"], 1);
}

#[test]
fn what_was_blocked_and_would_pass_is_a_change_too() {
    let blocks = "
version: 1
rules:
  - { name: read-only, match: { http: { method: POST } }, verdict: block }
";
    let entries = recorded(blocks, ASKED);
    let (changes, _) = backtest(NOTHING, &entries);
    assert_eq!(changes, [(3, "block".to_owned(), "allow")]);
    assert!(backtest(blocks, &entries).0.is_empty());
}

#[test]
fn an_answer_is_judged_and_masked_anew() {
    let entries = recorded(NOTHING, ASKED);
    let (changes, summary) = backtest(
        "
version: 1
rules:
  - { name: mail, match: { protocol: http }, mask: [{ detect: email, with: hash }] }
  - { name: fine, match: { http: { status: 200, method: GET } }, verdict: block }
",
        &entries,
    );
    assert_eq!(summary.masked, 1);
    let changed: Vec<u64> = changes.iter().map(|change| change.0).collect();
    assert_eq!(changed, [1, 2]);
}

fn differing(findings: Vec<Finding>) -> usize {
    findings.iter().filter(|finding| finding.differs()).count()
}

#[test]
fn what_is_learned_allows_it_again_and_no_other_method_or_path() {
    let entries = recorded(NOTHING, ASKED);
    let mut learner = Learner::default();
    for entry in &entries {
        if entry.kind == "open" {
            learner.begin(entry);
        } else {
            learner.entry(entry);
        }
    }
    let file = learner.file();
    assert!(file.contains("/v1/users/*"), "{file}");
    let block = |_: Option<&str>| DefaultVerdict::Block;
    let judged = |asked: &[(&str, &str, &str, &str)]| {
        let mut backtest = Backtest::new(rules(&file), &file);
        let mut changes = 0;
        for entry in &recorded(NOTHING, asked) {
            if entry.kind == "open" {
                assert!(backtest.begin("s", entry, &block));
            } else {
                changes += differing(backtest.entry(entry));
            }
        }
        changes + differing(backtest.end())
    };
    assert_eq!(judged(ASKED), 0, "{file}");
    assert_eq!(
        judged(&[("GET", "https://api.example/v1/users/18", "", "")]),
        0
    );
    assert_eq!(
        judged(&[("DELETE", "https://api.example/v1/users/18", "", "")]),
        1
    );
    assert_eq!(judged(&[("GET", "https://api.example/v1/keys", "", "")]), 1);
    assert_eq!(
        judged(&[("GET", "https://other.example/v1/users/17", "", "")]),
        1
    );
}

#[test]
fn what_was_asked_over_ssh_is_judged_anew_as_far_as_it_is_on_record() {
    let open = Entry {
        meta: json!({"protocol": "ssh", "agent": "bot", "origin": "127.0.0.1:22"}),
        ..opening()
    };
    let asked = |line: &str, meta: serde_json::Value| {
        let mut meta = meta;
        meta["verdict"] = "allow".into();
        meta["rules"] = json!([]);
        Entry {
            kind: "command".to_owned(),
            exchange: Some(1),
            line: line.to_owned(),
            meta,
            ..Entry::default()
        }
    };
    let yaml = "
version: 1
rules:
  - { name: no-rm, match: { ssh: { program: rm } }, verdict: block }
  - { name: no-secret, match: { ssh: { sftp: { operation: read, path: '/**/secret' } } }, verdict: block }
  - { name: no-db, match: { ssh: { kind: local_forward, forward: { port: 5432 } } }, verdict: kill }
";
    for (entry, expected) in [
        (
            asked("rm x", json!({"ssh": "exec", "command": "r''m x"})),
            Ok("block"),
        ),
        (
            asked("ls", json!({"ssh": "shell", "command": "ls", "sure": true})),
            Ok("allow"),
        ),
        (asked("a shell", json!({"ssh": "shell"})), Ok("allow")),
        (asked("shell", json!({"ssh": "shell"})), Err("metadata")),
        (asked("exec", json!({"ssh": "exec"})), Err("metadata")),
        (
            asked("x", json!({"ssh": "exec", "command": "rm [redacted]"})),
            Err("hidden"),
        ),
        (
            asked(
                "sftp",
                json!({"ssh": "sftp", "operation": ["read"], "paths": ["/a/secret"]}),
            ),
            Ok("block"),
        ),
        (
            asked(
                "a connection from the server to db:5432",
                json!({"ssh": "local_forward"}),
            ),
            Ok("kill"),
        ),
    ] {
        let mut backtest = Backtest::new(rules(yaml), yaml);
        assert!(backtest.begin("s", &open, &|_| DefaultVerdict::Allow));
        assert!(backtest.entry(&entry).is_empty());
        let found = backtest.end().pop().unwrap();
        match expected {
            Ok(would) => assert_eq!(found.would, Some(would), "{entry:?}"),
            Err(why) => assert!(found.unjudged.unwrap().contains(why), "{entry:?}"),
        }
    }
}
