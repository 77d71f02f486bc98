//! The tests that stand in rule files.

use interceptor_policy::testing::{self, Outcome};

use super::*;

/// A reader of SQL for which the text is the tag, and `#` begins a table.
fn classify(text: &str) -> Sql {
    let mut say = Say::default();
    for word in text.split_whitespace() {
        match (word, word.strip_prefix('#')) {
            ("SELECT", _) => say = say.and("SELECT", Class::Read),
            ("DROP", _) => say = say.and("DROP TABLE", Class::Ddl),
            (_, Some(name)) => say = say.table(name),
            _ => {}
        }
    }
    Sql {
        statements: vec![say.0],
        resolved: false,
    }
}

const RULES: &str = "rules:
  - { name: reads, match: { postgres: { class: read } }, verdict: allow }
  - { name: no-drop, match: { principal: { agent: 'deploy-*' }, postgres: { statement: DROP } }, verdict: block }
  - { name: hides, match: { postgres: { tables: users } }, mask: [{ columns: users.ssn, with: hash }, { detect: jwt, with: redact }] }
  - { name: watches, match: { postgres: { tables: users } }, severity: low, mode: observe }
  - { name: quiet, match: { postgres: { tables: noise } }, record: metadata }
";

fn outcome(test: &str) -> Outcome {
    let rules = rules(&format!("{RULES}tests:\n  - {{ name: t, {test} }}\n"));
    testing::run(&rules.tests()[0], &rules, classify)
}

fn passes(test: &str) {
    let outcome = outcome(test);
    assert!(outcome.passed(), "{test}: {:?}", outcome.failures);
}

fn fails(test: &str, with: &str) {
    let outcome = outcome(test);
    assert!(!outcome.passed(), "passes: {test}");
    assert!(outcome.failures[0].contains(with), "{:?}", outcome.failures);
}

#[test]
fn a_test_expects_a_verdict() {
    passes("postgres: SELECT, expect: { verdict: allow }");
    fails("postgres: SELECT, expect: { verdict: block }", "got allow");
    fails(
        "postgres: DROP, expect: { verdict: allow }",
        "no rule allowed it",
    );
}

#[test]
fn a_test_says_whose_session_it_is_and_is_of_a_blocking_target_otherwise() {
    passes("postgres: DROP, expect: { verdict: block }");
    fails("postgres: DROP, expect: { rule: no-drop }", "got none");
    passes(
        "given: { principal: { agent: deploy-bot }, target: { default: allow } }, postgres: DROP, expect: { verdict: block, rule: no-drop }",
    );
    passes("given: { target: { default: allow } }, postgres: DROP, expect: { verdict: allow }");
}

#[test]
fn a_test_expects_the_rule_that_refuses_or_one_that_applies() {
    passes("postgres: 'SELECT #users', expect: { rule: reads }");
    passes("postgres: 'SELECT #users', expect: { rule: hides }");
    fails(
        "postgres: 'SELECT #orders', expect: { rule: hides }",
        "expected rule hides",
    );
    fails(
        "given: { principal: { agent: deploy-bot } }, postgres: 'SELECT DROP', expect: { rule: reads }",
        "got no-drop",
    );
}

#[test]
fn a_test_expects_masks_by_column_and_detector_with_and_without_their_transform() {
    for masks in [
        "[users.ssn, jwt]",
        "{ users.ssn: hash, jwt: redact }",
        "[public.users.ssn]",
    ] {
        passes(&format!(
            "postgres: 'SELECT #users', expect: {{ masks: {masks} }}"
        ));
    }
    fails(
        "postgres: 'SELECT #users', expect: { masks: [users.name] }",
        "users.name",
    );
    fails(
        "postgres: 'SELECT #users', expect: { masks: { jwt: hash } }",
        "got redact",
    );
    fails(
        "postgres: 'SELECT #users', expect: { masks: [email] }",
        "not",
    );
    fails(
        "postgres: 'SELECT #orders', expect: { masks: [users.ssn] }",
        "not",
    );
}

#[test]
fn a_test_expects_no_masks_at_all() {
    passes("postgres: 'SELECT #orders', expect: { masks: [] }");
    fails(
        "postgres: 'SELECT #users', expect: { masks: [] }",
        "no mask",
    );
}

#[test]
fn a_test_expects_observing_rules_and_a_level_of_recording() {
    passes("postgres: 'SELECT #users', expect: { observed: [watches] }");
    fails(
        "postgres: 'SELECT #orders', expect: { observed: [watches] }",
        "watches",
    );
    passes("postgres: 'SELECT #noise', expect: { record: metadata }");
    fails(
        "postgres: 'SELECT #users', expect: { record: metadata }",
        "got full",
    );
}

#[test]
fn the_rules_that_applied_are_counted_for_coverage() {
    let outcome = outcome("postgres: 'SELECT #users', expect: { verdict: allow }");
    let mut applied: Vec<&str> = outcome.applied.iter().map(|name| &**name).collect();
    applied.sort_unstable();
    assert_eq!(applied, ["hides", "reads", "watches"]);
}

fn explained(rules: &Arc<RuleSet>, statements: &[Say]) -> Vec<(String, bool, String)> {
    let sql = Sql {
        statements: statements.iter().map(|say| say.0.clone()).collect(),
        resolved: false,
    };
    let operation = Operation::Postgres(PgOperation {
        sql: &sql,
        text: "",
        database: "orders",
        user: "agent_rw",
        meaning: None,
    });
    rules
        .scope(&subject())
        .explain(&operation)
        .into_iter()
        .map(|e| (e.rule.to_string(), e.applied, e.because))
        .collect()
}

#[test]
fn every_rule_says_why_it_did_or_did_not_apply() {
    let rules = rules(
        "rules:
  - { name: a, match: { principal: { agent: coder } }, verdict: block }
  - { name: b, match: { postgres: { class: read } }, verdict: allow }
  - { name: c, match: { postgres: { tables: public.users } }, verdict: allow }
  - { name: d, match: { postgres: { class: read } }, unless: { postgres: { tables: users } }, verdict: block }
  - { name: e, match: { postgres: { tables: orders } }, verdict: kill }
  - { name: f, match: {}, severity: low, mode: observe }
",
    );
    let explained = explained(&rules, &[select().table("users")]);
    let expected = [
        ("a", false, "principal.agent is `deploy-bot`, not `coder`"),
        ("b", true, "postgres.class is read"),
        ("c", false, "not certainly"),
        ("d", false, "`unless` holds: postgres.tables is users"),
        ("e", false, "postgres.tables is users, not `orders`"),
        ("f", true, "it matches everything; it only observes"),
    ];
    for ((rule, applied, because), (name, applies, part)) in explained.iter().zip(expected) {
        assert_eq!((rule.as_str(), *applied), (name, applies), "{because}");
        assert!(because.contains(part), "{name}: {because}");
    }
}

#[test]
fn of_several_statements_an_explanation_names_the_one_it_means() {
    let rules = rule("match: { postgres: { tables: users } }, verdict: block");
    let both = [select().table("orders"), select().table("users")];
    let explained = explained(&rules, &both);
    assert!(
        explained[0].2.starts_with("statement 2: "),
        "{}",
        explained[0].2
    );
}

#[test]
fn an_unread_statement_is_the_reason_why_an_allow_rule_does_not_apply() {
    let rules = rule("match: {}, verdict: allow");
    let explained = explained(&rules, &[say("SELECT", Class::Unclassified)]);
    assert!(!explained[0].1);
    assert!(
        explained[0].2.contains("could not be read"),
        "{}",
        explained[0].2
    );
}

const HISTORY: &str = "rules:
  - { name: reads, match: { postgres: { class: read } }, verdict: allow, limits: { rows: 10, duration: 30s } }
  - { name: mark, match: { postgres: { tables: [users] } }, tag: seen, risk: 20 }
  - { name: after, match: { postgres: { tables: [orders] }, after: { tag: seen, within: 5m } }, verdict: kill }
  - { name: often, match: { postgres: { tables: [often] }, rate: { over: 3, per: 1m } }, verdict: block }
  - { name: nights, match: { postgres: { tables: [dark] }, time: { between: '22:00-06:00' } }, verdict: block }
  - { name: ask, match: { postgres: { tables: [ask] } }, verdict: hold, approval: { from: [dba], quorum: 2, timeout: 1m } }
risk: { thresholds: [{ at: 50, verdict: hold, approval: { mode: ticket } }] }
";

fn of_history(test: &str) -> Outcome {
    let rules = rules(&format!("{HISTORY}tests:\n  - {{ name: t, {test} }}\n"));
    testing::run(&rules.tests()[0], &rules, classify)
}

#[test]
fn a_test_says_what_was_before_it() {
    for (test, passes) in [
        (
            "given: { after: [{ postgres: 'SELECT #users' }] }, postgres: 'SELECT #orders', expect: { verdict: kill, rule: after }",
            true,
        ),
        (
            "postgres: 'SELECT #orders', expect: { verdict: kill }",
            false,
        ),
        (
            "given: { after: [{ postgres: 'SELECT #users', ago: 4m }] }, postgres: 'SELECT #orders', expect: { verdict: kill }",
            true,
        ),
        (
            "given: { after: [{ postgres: 'SELECT #users', ago: 6m }] }, postgres: 'SELECT #orders', expect: { verdict: allow }",
            true,
        ),
        (
            "given: { repeat: 3 }, postgres: 'SELECT #often', expect: { verdict: allow }",
            true,
        ),
        (
            "given: { repeat: 4 }, postgres: 'SELECT #often', expect: { verdict: block, rule: often }",
            true,
        ),
        (
            "given: { time: '2026-01-05T23:00:00Z' }, postgres: 'SELECT #dark', expect: { rule: nights }",
            true,
        ),
        (
            "given: { time: 2026-01-05T12:00:00Z }, postgres: 'SELECT #dark', expect: { verdict: allow }",
            true,
        ),
        (
            "given: { risk: 40 }, postgres: 'SELECT #users', expect: { verdict: hold, rule: 'risk>=50' }",
            true,
        ),
        (
            "given: { risk: 20 }, postgres: 'SELECT #users', expect: { verdict: allow }",
            true,
        ),
    ] {
        let outcome = of_history(test);
        assert_eq!(outcome.passed(), passes, "{test}: {:?}", outcome.failures);
    }
}

#[test]
fn a_test_expects_limits_tags_and_who_is_asked() {
    for (expect, failure) in [
        (
            "postgres: 'SELECT #users', expect: { limits: { rows: 10 }, tags: [seen] }",
            "",
        ),
        (
            "postgres: 'SELECT #users', expect: { limits: { rows: 11 } }",
            "expected rows to be limited to 11, got 10",
        ),
        (
            "postgres: 'SELECT #users', expect: { limits: { bytes: 1KiB } }",
            "expected bytes to be limited to 1024, got no limit",
        ),
        (
            "postgres: 'SELECT #users', expect: { limits: { duration: 1m } }",
            "limited to 1m, got 30s",
        ),
        (
            "postgres: 'SELECT #users', expect: { tags: [] }",
            "expected no tag, got seen",
        ),
        (
            "postgres: 'SELECT #x', expect: { tags: [seen] }",
            "expected the tag seen, got none",
        ),
        (
            "postgres: 'SELECT #ask', expect: { approval: { from: [dba], quorum: 2, timeout: 1m, mode: wait } }",
            "",
        ),
        (
            "postgres: 'SELECT #ask', expect: { approval: { from: [others] } }",
            "expected another approval than 2 of dba, 1m, block on silence, wait",
        ),
        (
            "postgres: 'SELECT #ask', expect: { approval: { mode: ticket } }",
            "expected another approval",
        ),
        (
            "postgres: SELECT, expect: { approval: {} }",
            "nobody is asked",
        ),
    ] {
        let outcome = of_history(expect);
        assert_eq!(
            outcome.passed(),
            failure.is_empty(),
            "{expect}: {:?}",
            outcome.failures
        );
        let first = outcome.failures.first().map_or("", String::as_str);
        assert!(first.contains(failure), "{expect}: {first}");
    }
}

#[test]
fn what_was_before_counts_for_coverage() {
    let outcome = of_history(
        "given: { after: [{ postgres: 'SELECT #users' }] }, postgres: DROP, expect: { verdict: block }",
    );
    assert!(outcome.applied.iter().any(|rule| &**rule == "mark"));
}

const WEB: &str = "rules:
  - { name: api, match: { http: { host: api.example.com, path: '/v1/**' } }, verdict: allow, tag: asked }
  - { name: admin, match: { http: { body: { /role: admin } } }, verdict: block }
  - { name: errors, match: { http: { status: 5xx } }, verdict: kill }
  - { name: hide, match: { http: { response_header.x-kind: people } }, mask: [{ json: /email, with: hash }, { header: set-cookie, with: redact }] }
  - { name: in, match: { http: { header.x-team: core } }, mask: [{ detect: email, with: hash, direction: request }] }
  - { name: after, match: { http: { path: /v1/send, method: POST }, after: { tag: asked } }, verdict: block }
";

#[test]
fn a_test_asks_about_a_request_and_its_response() {
    for (test, passes) in [
        (
            "http: { url: 'https://api.example.com/v1/x' }, expect: { verdict: allow, rule: api, masks: [] }",
            true,
        ),
        (
            "http: { host: api.example.com, path: /v1/x }, expect: { verdict: allow }",
            true,
        ),
        (
            "http: { url: 'https://other.example.com/v1/x' }, expect: { verdict: block }",
            true,
        ),
        (
            "http: { url: 'https://api.example.com/v2' }, expect: { verdict: allow }",
            false,
        ),
        (
            "http: { method: POST, url: 'https://api.example.com/v1/x', body: { role: admin } }, expect: { rule: admin }",
            true,
        ),
        (
            "http: { method: POST, url: 'https://api.example.com/v1/x', headers: { content-type: application/x-www-form-urlencoded }, body: role=admin }, expect: { rule: admin }",
            true,
        ),
        (
            "http: { url: 'https://api.example.com/v1/x', response: { status: 502 } }, expect: { verdict: kill, rule: errors }",
            true,
        ),
        (
            "http: { url: 'https://api.example.com/v1/x', response: { headers: { X-Kind: [people] } } }, expect: { verdict: allow, masks: { /email: hash, Set-Cookie: redact }, tags: [asked] }",
            true,
        ),
        (
            "http: { url: 'https://api.example.com/v1/x', headers: { x-team: core } }, expect: { masks: [email] }",
            true,
        ),
        (
            "given: { after: [{ http: { url: 'https://api.example.com/v1/x' }, ago: 1m }] }, http: { method: POST, url: 'https://api.example.com/v1/send' }, expect: { rule: after }",
            true,
        ),
    ] {
        let rules = rules(&format!("{WEB}tests:\n  - {{ name: t, {test} }}\n"));
        let outcome = testing::run(&rules.tests()[0], &rules, classify);
        assert_eq!(outcome.passed(), passes, "{test}: {:?}", outcome.failures);
    }
}

#[test]
fn a_test_asks_about_one_thing_with_a_host() {
    for (test, message) in [
        ("postgres: x, http: { host: h }", "one thing"),
        ("given: {}", "none of `postgres`, `http` and `ssh`"),
        ("http: {}", "no host"),
        ("http: { url: /x }", "`url` has no host"),
        (
            "http: { url: 'http://h/', path: /x }",
            "says the host and the path already",
        ),
        ("http: { host: h, methd: x }", "`methd`"),
        ("ssh: ls, postgres: x", "one thing"),
        ("ssh: {}", "the `exec` has no `command`"),
        ("ssh: { kind: local_forward }", "has no `forward`"),
        ("ssh: { kind: exce, command: ls }", "`exce`"),
    ] {
        let yaml = format!("tests: [{{ name: t, {test}, expect: {{ verdict: allow }} }}]");
        let faults = RuleSet::load(&[source("x.yaml", &yaml)]).unwrap_err();
        assert!(faults.to_string().contains(message), "{test}: {faults}");
    }
}
