//! What is refused, where, and with which fix.

use interceptor_policy::diagnostic::{Diagnostic, Level};

use super::*;

/// Faults of a file, `version` line included: line 2 is the yaml's first.
fn faults(yaml: &str) -> Vec<Diagnostic> {
    match RuleSet::load(&[source("rules/x.yaml", yaml)]) {
        Ok(rules) => rules.warnings().iter().cloned().collect(),
        Err(faults) => faults.iter().cloned().collect(),
    }
}

/// The one fault of a file, and the text that its caret is under.
fn fault(yaml: &str) -> (Diagnostic, String) {
    let faults = faults(yaml);
    let [fault] = faults.as_slice() else {
        panic!("{yaml}: {faults:#?}");
    };
    let at = fault.at;
    let under = fault
        .source
        .chars()
        .skip(at.column as usize - 1)
        .take(at.width as usize)
        .collect();
    (fault.clone(), under)
}

/// A fault of a rule `{ name: r, … }`: its message, its help, and what it is under.
fn refused(rule: &str, message: &str, help: &str, under: &str) {
    expect(
        &format!("rules:\n  - {{ name: r, {rule} }}"),
        Level::Error,
        message,
        help,
        under,
    );
}

/// As [`refused`], of what is only warned of.
fn warned(rule: &str, message: &str, help: &str, under: &str) {
    expect(
        &format!("rules:\n  - {{ name: r, {rule} }}"),
        Level::Warning,
        message,
        help,
        under,
    );
}

fn expect(yaml: &str, level: Level, message: &str, help: &str, under: &str) {
    let (fault, marked) = fault(yaml);
    assert_eq!(fault.level, level, "{yaml}: {fault}");
    assert!(fault.message.contains(message), "{yaml}: {fault}");
    assert!(
        fault.help.as_deref().unwrap_or("").contains(help),
        "{yaml}: {fault}"
    );
    assert!(
        marked.starts_with(under),
        "{yaml}: under `{marked}`: {fault}"
    );
}

#[test]
fn a_fault_is_shown_with_its_line_a_caret_and_the_fix() {
    let (fault, _) = fault(
        "rules:
  - name: no-drop
    match:
      postgers: { statement: DROP }
    verdict: block",
    );
    assert_eq!(
        fault.to_string(),
        "error: unknown field `postgers` in `match`
 --> rules/x.yaml:5:7
  |
5 |       postgers: { statement: DROP }
  |       ^^^^^^^^
  = help: did you mean `postgres`?
"
    );
}

#[test]
fn all_faults_of_all_files_are_told_at_once_in_order() {
    let files = [
        source("b.yaml", "rules: [{ name: x, match: {}, verdict: no }]"),
        source(
            "a.yaml",
            "rule: []\nrules: [{ name: y, match: { principal: { agnt: x } }, verdict: block }]",
        ),
    ];
    let faults = RuleSet::load(&files).unwrap_err();
    let places: Vec<_> = faults
        .iter()
        .map(|fault| (fault.path.to_str().unwrap(), fault.at.line))
        .collect();
    assert_eq!(places, [("a.yaml", 2), ("a.yaml", 3), ("b.yaml", 2)]);
    assert_eq!(faults.errors(), 3);
}

#[test]
fn an_unknown_field_names_the_nearest_known_one_everywhere() {
    refused(
        "mtach: {}, match: {}, verdict: block",
        "unknown field `mtach`",
        "`match`",
        "mtach",
    );
    refused(
        "match: { principal: { agnet: x } }, verdict: block",
        "`agnet`",
        "`agent`",
        "agnet",
    );
    refused(
        "match: { target: { nmae: x } }, verdict: block",
        "`nmae`",
        "`name`",
        "nmae",
    );
    refused(
        "match: { postgres: { table: x } }, verdict: block",
        "`table`",
        "`tables`",
        "table",
    );
    refused(
        "match: { postgres: { tables: { nto: x } } }, verdict: block",
        "`nto`",
        "`not`",
        "nto",
    );
    refused(
        "match: {}, mask: [{ column: x, with: hash }]",
        "`column`",
        "`columns`",
        "column",
    );
    refused(
        "match: {}, mask: [{ columns: x, with: { partail: {} } }]",
        "`partail`",
        "`partial`",
        "partail",
    );
    expect("ruels: []", Level::Error, "`ruels`", "`rules`", "ruels");
    expect(
        "tests: [{ name: t, postgres: x, expects: {}, expect: { verdict: allow } }]",
        Level::Error,
        "`expects`",
        "`expect`",
        "expects",
    );
    expect(
        "tests: [{ name: t, postgres: x, expect: { verdct: allow } }]",
        Level::Error,
        "`verdct`",
        "`verdict`",
        "verdct",
    );
}

#[test]
fn an_unknown_word_names_the_nearest_known_one() {
    refused("match: {}, verdict: blok", "`blok`", "`block`", "blok");
    refused(
        "match: { postgres: { class: wirte } }, verdict: block",
        "`wirte`",
        "`write`",
        "wirte",
    );
    refused(
        "match: { postgres: { where: mising } }, verdict: block",
        "`mising`",
        "`missing`",
        "mising",
    );
    refused(
        "match: { protocol: postgers }, verdict: block",
        "`postgers`",
        "`postgres`",
        "postgers",
    );
    refused(
        "match: { postgres: { statement: TRUNCTAE } }, verdict: block",
        "TRUNCTAE",
        "TRUNCATE",
        "TRUNCTAE",
    );
    refused(
        "match: {}, mask: [{ detect: credit_crad, with: hash }]",
        "`credit_crad`",
        "credit_card",
        "credit_crad",
    );
    refused(
        "match: {}, mask: [{ detect: jwt, with: redcat }]",
        "transform",
        "redact",
        "redcat",
    );
    refused("match: {}, record: ful", "`ful`", "`full`", "ful");
    refused("match: {}, severity: hihg", "`hihg`", "`high`", "hihg");
    refused(
        "match: {}, verdict: block, mode: obsrve",
        "`obsrve`",
        "`observe`",
        "obsrve",
    );
}

#[test]
fn what_could_never_be_of_an_ssh_request_is_told() {
    for (matches, message, help, under) in [
        (
            "{ program: 'rm -rf' }",
            "without arguments",
            "`arguments`",
            "'rm -rf'",
        ),
        (
            "{ kind: exec, sftp: { path: /x } }",
            "no request has all",
            "",
            "{",
        ),
        (
            "{ forward: { host: h }, program: ls }",
            "no request has all",
            "",
            "{",
        ),
        (
            "{ forward: { host: h, socket: /s } }",
            "of a host or of a socket",
            "",
            "{",
        ),
    ] {
        let rule = format!("match: {{ ssh: {matches} }}, verdict: block");
        warned(&rule, message, help, under);
    }
    for (matches, message, help, under) in [
        ("{ progam: rm }", "`progam`", "`program`", "progam"),
        ("{ kind: exce }", "`exce`", "`exec`", "exce"),
        ("{ stdin: pipe }", "`pipe`", "`piped`", "pipe"),
        ("{ sftp: { operation: delete } }", "`delete`", "", "delete"),
        ("{ sftp: { paths: /x } }", "`paths`", "`path`", "paths"),
        ("{ forward: { hots: h } }", "`hots`", "`host`", "hots"),
        ("{ opaque: yes please }", "true or false", "", "yes please"),
    ] {
        let rule = format!("match: {{ ssh: {matches} }}, verdict: block");
        refused(&rule, message, help, under);
    }
    warned(
        "match: { protocol: http, ssh: { kind: exec } }, verdict: block",
        "another protocol",
        "drop `protocol`",
        "{",
    );
}

#[test]
fn what_is_asked_of_the_past_and_of_people_says_what_it_lacks() {
    for (rule, message, help, under) in [
        (
            "match: {}, verdict: block, approval: { from: [x] }",
            "a rule that holds",
            "verdict: hold",
            "approval",
        ),
        (
            "match: {}, verdict: hold, approval: { quorum: 0 }",
            "at least 1",
            "",
            "0",
        ),
        (
            "match: {}, verdict: hold, approval: { form: [x] }",
            "`form`",
            "`from`",
            "form",
        ),
        (
            "match: {}, verdict: hold, approval: { timeout: 5 }",
            "no time span",
            "30s",
            "5",
        ),
        (
            "match: {}, verdict: hold, approval: { mode: tikcet }",
            "`tikcet`",
            "`ticket`",
            "tikcet",
        ),
        (
            "match: {}, verdict: { kill: { principal: 0s } }",
            "a millisecond",
            "",
            "0s",
        ),
        (
            "match: {}, verdict: { kill: {} }",
            "whom",
            "principal: 15m",
            "{",
        ),
        ("match: {}, verdict: { kil: {} }", "`kil`", "`kill`", "kil"),
        (
            "match: {}, limits: { rows: 5, byts: 3 }",
            "`byts`",
            "`bytes`",
            "byts",
        ),
        (
            "match: {}, limits: { bytes: 10 mb }",
            "no number of bytes",
            "10MiB",
            "10 mb",
        ),
        ("match: {}, limits: {}", "limits nothing", "", "{"),
        (
            "match: {}, verdict: block, unresolved: block",
            "names tables",
            "",
            "unresolved",
        ),
        (
            "match: {}, verdict: block, masked_in_predicate: block",
            "masks columns",
            "",
            "masked_in",
        ),
        (
            "match: {}, mask: [{ columns: x, with: hash }], unresolved: allow",
            "`allow`",
            "block",
            "allow",
        ),
        (
            "match: {}, mask: [{ columns: x, with: hash, direction: request }]",
            "another statement",
            "verdict: block",
            "request",
        ),
        ("match: {}, tag: []", "empty", "", "["),
        (
            "match: { after: { within: 5m } }, verdict: block",
            "neither a `tag` nor a `rule`",
            "",
            "{",
        ),
        (
            "match: { after: { tag: x, rule: r } }, verdict: block",
            "both",
            "",
            "{",
        ),
        (
            "match: { after: { rule: rr } }, verdict: block",
            "does not exist",
            "`r`",
            "{",
        ),
        (
            "match: { rate: { over: 5 } }, verdict: block",
            "in how much time",
            "per: 1m",
            "{",
        ),
        (
            "match: { rate: { over: 5, per: 1x } }, verdict: block",
            "no time span",
            "",
            "1x",
        ),
        (
            "match: { risk: { under: 5 } }, verdict: block",
            "`under`",
            "",
            "under",
        ),
        (
            "match: { time: { zone: UTC } }, verdict: block",
            "neither `weekdays` nor",
            "",
            "{",
        ),
        (
            "match: { time: { weekdays: [monday] } }, verdict: block",
            "`monday`",
            "mon",
            "monday",
        ),
        (
            "match: { time: { between: '9-17' } }, verdict: block",
            "time of day",
            "09:00-17:30",
            "'9-17'",
        ),
        (
            "match: { time: { between: '09:00-17:00', zone: Europe/Berln } }, verdict: block",
            "no time zone",
            "`Europe/Berlin`",
            "Europe/Berln",
        ),
    ] {
        refused(rule, message, help, under);
    }
    for (risk, message, under) in [
        ("{ halflife: 5m }", "`halflife`", "halflife"),
        ("{ thresholds: [{ at: 5 }] }", "no `verdict`", "at"),
        (
            "{ thresholds: [{ at: 0, verdict: block }] }",
            "always reached",
            "{",
        ),
        (
            "{ thresholds: [{ at: 5, verdict: allow }] }",
            "cannot allow",
            "{",
        ),
        (
            "{ thresholds: [{ at: 5, verdict: block, approval: {} }] }",
            "that holds",
            "approval",
        ),
    ] {
        expect(&format!("risk: {risk}"), Level::Error, message, "", under);
    }
    expect(
        "rules: [{ name: r, match: { after: { tag: x } }, verdict: block }]",
        Level::Warning,
        "no rule leaves the tag `x`",
        "",
        "{",
    );
}

#[test]
fn a_score_that_nothing_adds_to_is_warned_of() {
    let asks = "match: { risk: { over: 5 } }, verdict: block";
    assert_eq!(
        two(asks, "match: {}, severity: low"),
        ["no rule gives points: the score is always 0"]
    );
    assert_eq!(two(asks, "match: {}, risk: 1"), Vec::<String>::new());
}

#[test]
fn bad_patterns_are_refused_where_they_stand() {
    refused(
        "match: { principal: { agent: '[a' } }, verdict: block",
        "bad glob",
        "",
        "'[a'",
    );
    refused(
        "match: { principal: { agent: { regex: '(a' } } }, verdict: block",
        "bad regular expression",
        "",
        "'(a'",
    );
    refused(
        "match: {}, mask: [{ pattern: ['EMP-\\d{6}', '(a'], with: hash }]",
        "bad regular expression",
        "",
        "'(a'",
    );
    refused(
        "match: {}, mask: [{ pattern: 'x*', with: hash }]",
        "the empty text",
        "",
        "'x*'",
    );
    refused(
        "match: { target: { address: 10.0.0.0/33 } }, verdict: block",
        "no network",
        "10.0.0.0/8",
        "10.0.0.0/33",
    );
    refused(
        "match: { postgres: { tables: a.b.c } }, verdict: block",
        "too many parts",
        "",
        "a.b.c",
    );
    refused(
        "match: { postgres: { columns: a..b } }, verdict: block",
        "empty",
        "",
        "a..b",
    );
    refused(
        "match: { target: { port: 70000 } }, verdict: block",
        "between 0 and 65535",
        "",
        "70000",
    );
    refused(
        "match: { postgres: { tables: [] } }, verdict: block",
        "empty list",
        "",
        "[",
    );
    refused(
        "match: { principal: { agent: 7 } }, verdict: block",
        "must be text",
        "quotes",
        "7",
    );
    refused(
        "match: { postgres: { database: '' } }, verdict: block",
        "is empty",
        "",
        "''",
    );
}

#[test]
fn a_rule_has_a_name_a_match_and_an_effect() {
    expect(
        "rules: [{ match: {}, verdict: block }]",
        Level::Error,
        "no `name`",
        "",
        "match",
    );
    refused("verdict: block", "no `match`", "match: {}", "name");
    refused("match: {}", "does nothing", "verdict", "name");
    expect(
        "rules: [{ name: a b, match: {}, verdict: block }]",
        Level::Error,
        "letters",
        "",
        "a b",
    );
}

#[test]
fn masks_that_hide_nothing_are_refused() {
    refused("match: {}, mask: []", "`mask` is empty", "", "[");
    refused(
        "match: {}, mask: [{ columns: [], with: hash }]",
        "empty",
        "",
        "[",
    );
    refused("match: {}, mask: [{ with: hash }]", "says none of", "", "");
    refused("match: {}, mask: [{ detect: jwt }]", "with", "redact", "");
    refused(
        "match: {}, mask: [{ columns: x, detect: jwt, with: hash }]",
        "names one of",
        "two masks",
        "detect",
    );
    refused(
        "match: {}, mask: [{ columns: x, with: { partial: {} } }]",
        "keeps nothing",
        "redact",
        "",
    );
}

#[test]
fn what_could_never_be_of_a_request_is_told_when_the_rules_are_read() {
    for (http, message, help, under) in [
        ("{ methd: GET }", "`methd`", "`method`", "methd"),
        ("{ headr.accept: x }", "`headr.accept`", "", "headr"),
        (
            "{ header.'a b': x }",
            "no name of a header",
            "",
            "header.'a b'",
        ),
        ("{ header: {} }", "names none", "", "{"),
        ("{ status: 42 }", "between 100 and 599", "", "42"),
        ("{ status: 9xx }", "no status", "4xx", "9xx"),
        ("{ status: { ovr: 1 } }", "`ovr`", "known here", "ovr"),
        ("{ body: { customer: x } }", "`/customer`", "", "customer"),
        ("{ body: { '/a*': x } }", "stands alone", "", "'/a*'"),
        ("{ body: {} }", "points at nothing", "", "{"),
        ("{ grpc: { servce: x } }", "`servce`", "`service`", "servce"),
        ("{ mcp: { tol: x } }", "`tol`", "`tool`", "tol"),
        ("{ graphql: { field: x } }", "`field`", "`fields`", "field"),
        ("{ websocket: 1 }", "true or false", "", "1"),
    ] {
        let rule = format!("match: {{ http: {http} }}, verdict: block");
        refused(&rule, message, help, under);
    }
    for (rule, message, help, under) in [
        (
            "match: { http: { method: get } }, verdict: block",
            "capitals",
            "`GET`",
            "get",
        ),
        (
            "match: { http: { host: 'https://x.y' } }, verdict: block",
            "no scheme",
            "",
            "'https",
        ),
        (
            "match: { http: { host: 'x.y:80' } }, verdict: block",
            "port",
            "",
            "'x.y",
        ),
        (
            "match: { http: { path: admin } }, verdict: block",
            "begins with `/`",
            "",
            "admin",
        ),
        (
            "match: { http: { content_type: json } }, verdict: block",
            "without parameters",
            "",
            "json",
        ),
        (
            "match: { protocol: postgres, http: {} }, verdict: block",
            "another protocol",
            "`http` implies",
            "{",
        ),
        (
            "match: { postgres: {}, http: {} }, verdict: block",
            "several protocols",
            "two rules",
            "{",
        ),
        (
            "match: { http: { status: 200 } }, verdict: allow",
            "allows nothing",
            "",
            "verdict",
        ),
        (
            "match: { http: {} }, mask: [{ columns: a.b, with: hash }]",
            "only PostgreSQL",
            "json",
            "{",
        ),
        (
            "match: { postgres: {} }, mask: [{ json: /a, with: hash }]",
            "only HTTP",
            "",
            "{",
        ),
        (
            "match: { http: { status: 200 } }, mask: [{ json: /a, with: hash, direction: request }]",
            "sent already",
            "",
            "request",
        ),
    ] {
        warned(rule, message, help, under);
    }
    for (mask, message, under) in [
        ("{ json: a, with: hash }", "no JSON pointer", "a"),
        (
            "{ header: 'a b', with: hash }",
            "no name of a header",
            "'a b'",
        ),
        ("{ json: /a, with: hash, direction: up }", "`up`", "up"),
        (
            "{ columns: a.b, with: hash, direction: request }",
            "is not masked",
            "request",
        ),
    ] {
        refused(&format!("match: {{}}, mask: [{mask}]"), message, "", under);
    }
    for matches in ["{ postgres: {} }", "{ protocol: [postgres, ssh] }"] {
        let mask = "mask: [{ detect: jwt, with: hash, direction: request }]";
        refused(
            &format!("match: {matches}, {mask}"),
            "is not masked",
            "",
            "request",
        );
    }
}

#[test]
fn two_rules_of_one_name_are_refused_with_both_places() {
    let files = [
        source("a.yaml", "rules: [{ name: x, match: {}, verdict: block }]"),
        source("b.yaml", "rules: [{ name: x, match: {}, verdict: allow }]"),
    ];
    let faults = RuleSet::load(&files).unwrap_err();
    let fault = faults.iter().next().unwrap();
    assert_eq!(fault.path.to_str(), Some("b.yaml"));
    assert!(
        fault.help.as_deref().unwrap().contains("a.yaml:2"),
        "{fault}"
    );
}

#[test]
fn lists_are_known_by_name_and_used() {
    expect(
        "lists: { pii: [a] }\nrules: [{ name: r, match: { postgres: { tables: $pi } }, verdict: block }, { name: s, match: { postgres: { tables: $pii } }, verdict: block }]",
        Level::Error,
        "unknown list `$pi`",
        "`pii`",
        "$pi",
    );
    expect(
        "lists: { pii: [a] }",
        Level::Warning,
        "used nowhere",
        "$pii",
        "pii",
    );
    let nested = faults(
        "lists: { a: [$b], b: [x] }\nrules: [{ name: r, match: { postgres: { tables: [$a, $b] } }, verdict: block }]",
    );
    assert!(
        nested
            .iter()
            .any(|f| f.message.contains("cannot name another")),
        "{nested:?}"
    );
}

#[test]
fn rules_that_can_never_apply_are_warned_of() {
    let warned = |rule: &str, message: &str| {
        expect(
            &format!("rules:\n  - {{ name: r, {rule} }}"),
            Level::Warning,
            message,
            "",
            "",
        );
    };
    warned(
        "match: { protocol: http, postgres: { class: read } }, verdict: block",
        "never hold",
    );
    warned(
        "match: { postgres: { statement: SELECT, where: missing } }, verdict: block",
        "never hold",
    );
    warned(
        "match: { principal: { agent: { all: [a, b] } } }, verdict: block",
        "never hold",
    );
    warned(
        "match: {}, verdict: allow, message: hello",
        "nobody is told",
    );
    warned(
        "match: { target: { address: 10.0.0.1/8 } }, verdict: block",
        "below its prefix",
    );
    refused(
        "match: {}, unless: {}, verdict: block",
        "never apply",
        "",
        "{",
    );
}

/// Rules `a` and `b`, and what is warned of.
fn two(a: &str, b: &str) -> Vec<String> {
    let yaml = format!("rules:\n  - {{ name: a, {a} }}\n  - {{ name: b, {b} }}\n");
    let faults = faults(&yaml);
    assert!(faults.iter().all(|fault| fault.level == Level::Warning));
    faults.into_iter().map(|fault| fault.message).collect()
}

#[test]
fn a_rule_that_another_always_overrules_is_warned_of() {
    let never = ["`a` never decides: `b` refuses all that it matches"];
    for (narrow, wide) in [
        (
            "{ postgres: { class: read } }",
            "{ postgres: { class: read } }",
        ),
        (
            "{ postgres: { class: read, tables: [users] } }",
            "{ postgres: { class: [read, write] } }",
        ),
        (
            "{ postgres: { statement: DROP TABLE } }",
            "{ postgres: { statement: drop } }",
        ),
        (
            "{ postgres: { tables: [public.users] } }",
            "{ postgres: { tables: [users, orders] } }",
        ),
        (
            "{ principal: { agent: deploy-1 }, postgres: { class: read } }",
            "{ principal: { agent: 'deploy-*' } }",
        ),
        ("{ principal: { labels: { team: x } } }", "{}"),
        (
            "{ protocol: postgres, target: { port: 5432 } }",
            "{ target: { port: [5432, 5433] } }",
        ),
    ] {
        for (mild, strict) in [("allow", "block"), ("allow", "kill"), ("hold", "block")] {
            let narrow = format!("match: {narrow}, verdict: {mild}");
            let wide = format!("match: {wide}, verdict: {strict}");
            assert_eq!(two(&narrow, &wide), never, "{narrow} {wide}");
        }
    }
}

#[test]
fn nothing_is_warned_of_in_what_ships() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules");
    let sources: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect();
    assert!(sources.len() >= 3, "{}", sources.len());
    let rules = RuleSet::load(&sources).unwrap();
    assert!(rules.warnings().is_empty(), "{}", rules.warnings());
}

#[test]
fn a_rule_that_may_decide_is_not_warned_of() {
    for (a, b) in [
        (
            "match: { postgres: { class: read } }, verdict: allow",
            "match: { postgres: { class: write } }, verdict: block",
        ),
        (
            "match: { postgres: { class: [read, write] } }, verdict: allow",
            "match: { postgres: { class: write } }, verdict: block",
        ),
        (
            "match: { postgres: { class: read } }, verdict: allow",
            "match: { postgres: { class: read, tables: [x] } }, verdict: block",
        ),
        (
            "match: { postgres: { class: read } }, verdict: allow",
            "match: {}, unless: { postgres: { tables: [x] } }, verdict: block",
        ),
        (
            "match: { postgres: { class: read } }, verdict: allow",
            "match: { time: { weekdays: [sat] } }, verdict: block",
        ),
        (
            "match: { postgres: { class: read } }, verdict: allow",
            "match: {}, verdict: block, mode: observe",
        ),
        (
            "match: { postgres: { class: read } }, verdict: allow, risk: 5",
            "match: {}, verdict: block",
        ),
        (
            "match: { postgres: { tables: { not: x } } }, verdict: allow",
            "match: { postgres: { tables: { not: x } } }, verdict: block",
        ),
        (
            "match: { postgres: { tables: [users] } }, verdict: allow",
            "match: { postgres: { tables: [public.users] } }, verdict: block",
        ),
        (
            "match: { principal: { exe: /usr/bin/a/b } }, verdict: allow",
            "match: { principal: { exe: '/usr/bin/*' } }, verdict: block",
        ),
        ("match: {}, verdict: allow", "match: {}, verdict: hold"),
        ("match: {}, risk: 5", "match: {}, risk: 6"),
    ] {
        assert_eq!(two(a, b), Vec::<String>::new(), "{a} {b}");
    }
}

#[test]
fn a_rule_that_is_another_again_is_warned_of() {
    let again = ["`b` is `a` again"];
    assert_eq!(
        two(
            "match: { postgres: { tables: [x, y], class: read } }, verdict: block, message: no",
            "verdict: block, match: { postgres: { class: [read], tables: [y, x] } }, description: d",
        ),
        again
    );
    let yaml = "lists: { both: [x, y] }
rules:
  - { name: a, match: { postgres: { tables: $both } }, risk: 1 }
  - { name: b, match: { postgres: { tables: [x, y] } }, risk: 1 }
";
    let faults = faults(yaml);
    assert_eq!(faults[0].message, again[0]);
    assert!(
        faults[0]
            .help
            .as_deref()
            .unwrap()
            .contains("rules/x.yaml:4")
    );
}

#[test]
fn effects_on_what_is_refused_are_warned_of() {
    for (effect, message) in [
        ("mask: [{ columns: x, with: hash }]", "masks nothing"),
        ("limits: { rows: 1 }", "limits nothing"),
        ("tag: x", "leaves no tag"),
    ] {
        expect(
            &format!("rules:\n  - {{ name: r, match: {{}}, verdict: block, {effect} }}"),
            Level::Warning,
            message,
            "",
            "",
        );
        assert_eq!(
            two(&format!("match: {{}}, {effect}"), "match: {}, risk: 1"),
            Vec::<String>::new()
        );
    }
}

#[test]
fn a_test_says_what_was_before_in_known_words() {
    for (given, message, help, under) in [
        ("after: [{ sql: x }]", "none of `postgres`", "", ""),
        ("after: [{ sql: x }]", "`sql`", "known here", "sql"),
        (
            "time: yesterday",
            "no point in time",
            "2026-01-05T10:00:00Z",
            "yesterday",
        ),
        ("repeat: 0", "at least 1", "", "0"),
        ("repaet: 2", "`repaet`", "`repeat`", "repaet"),
    ] {
        let yaml = format!(
            "tests: [{{ name: t, given: {{ {given} }}, postgres: x, expect: {{ verdict: allow }} }}]"
        );
        let faults = faults(&yaml);
        let fault = faults.iter().find(|fault| fault.message.contains(message));
        let fault = fault.unwrap_or_else(|| panic!("{given}: {faults:#?}"));
        assert!(
            fault.help.as_deref().unwrap_or("").contains(help),
            "{fault}"
        );
        let marked: String = fault
            .source
            .chars()
            .skip(fault.at.column as usize - 1)
            .collect();
        assert!(marked.starts_with(under), "{given}: under {marked}");
    }
}

#[test]
fn a_test_names_a_rule_that_exists() {
    expect(
        "rules: [{ name: no-drop, match: {}, verdict: block }]\ntests: [{ name: t, postgres: x, expect: { rule: no-dorp } }]",
        Level::Error,
        "does not exist",
        "`no-drop`",
        "no-dorp",
    );
}

#[test]
fn a_file_says_its_version() {
    let load = |text: &str| {
        RuleSet::load(&[Source {
            path: "x.yaml".into(),
            text: text.into(),
        }])
    };
    for text in [
        "rules: []",
        "version: 2",
        "version: '1'",
        "",
        "- a",
        "version: 1\nversion: 1",
    ] {
        assert!(load(text).is_err(), "{text}");
    }
    assert!(load("version: 1").is_ok());
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    let (fault, _) = fault("rules:\n  - name: [x");
    assert!(fault.message.starts_with("not valid YAML: "), "{fault}");
    assert!(fault.at.line >= 3, "{fault}");
}

#[test]
fn a_star_without_quotes_is_explained() {
    let (fault, _) = fault("lists:\n  pii: [*.ssn]");
    assert!(
        fault.help.as_deref().unwrap_or("").contains("quotes"),
        "{fault}"
    );
    assert_eq!(fault.at.line, 3, "{fault}");
}

#[test]
fn hostile_files_are_refused_and_bounded() {
    let deep = format!("rules: {}{}", "[".repeat(200), "]".repeat(200));
    let mut bomb = "lists:\n  a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let (this, last) = ((b'a' + level) as char, (b'a' + level - 1) as char);
        let refs = vec![format!("*{last}"); 10].join(", ");
        bomb.push_str(&format!("  {this}: &{this} [{refs}]\n"));
    }
    let long = format!("lists: {{ a: [{}] }}", "x".repeat(2 << 20));
    for yaml in [deep, bomb, long] {
        assert!(RuleSet::load(&[source("x.yaml", &yaml)]).is_err());
    }
}

#[test]
fn control_characters_reach_no_message_and_no_terminal() {
    refused(
        "match: {}, verdict: block, message: \"a\\u001b[31m\"",
        "control",
        "",
        "\"a",
    );
    let (fault, _) = fault("rules:\n  - { name: r, \u{9}mtach: {}, match: {}, verdict: block }");
    assert!(!fault.to_string().contains('\u{9}'), "{fault}");
}

#[test]
fn the_schema_knows_every_field_and_no_other() {
    let schema: serde_json::Value = serde_json::from_str(interceptor_policy::SCHEMA).unwrap();
    let threshold = "/$defs/risk/properties/thresholds/items/properties";
    let before = "/$defs/test/properties/given/properties/after/items/properties";
    // Where a key stands that nobody knows: what is known there is told.
    for (path, yaml) in [
        ("/properties", "KEY: 1"),
        (
            "/$defs/rule/properties",
            "rules: [{ name: r, match: {}, verdict: block, KEY: 1 }]",
        ),
        (
            "/$defs/match/properties",
            "rules: [{ name: r, match: { KEY: 1 }, verdict: block }]",
        ),
        (
            "/$defs/principal/properties",
            "rules: [{ name: r, match: { principal: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/target/properties",
            "rules: [{ name: r, match: { target: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/postgres/properties",
            "rules: [{ name: r, match: { postgres: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/http/properties",
            "rules: [{ name: r, match: { http: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/http/properties/grpc/properties",
            "rules: [{ name: r, match: { http: { grpc: { KEY: 1 } } }, verdict: block }]",
        ),
        (
            "/$defs/http/properties/graphql/properties",
            "rules: [{ name: r, match: { http: { graphql: { KEY: 1 } } }, verdict: block }]",
        ),
        (
            "/$defs/http/properties/mcp/properties",
            "rules: [{ name: r, match: { http: { mcp: { KEY: 1 } } }, verdict: block }]",
        ),
        (
            "/$defs/ssh/properties",
            "rules: [{ name: r, match: { ssh: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/ssh/properties/sftp/properties",
            "rules: [{ name: r, match: { ssh: { sftp: { KEY: 1 } } }, verdict: block }]",
        ),
        (
            "/$defs/ssh/properties/forward/properties",
            "rules: [{ name: r, match: { ssh: { forward: { KEY: 1 } } }, verdict: block }]",
        ),
        (
            "/$defs/ssh_sample/anyOf/1/properties",
            "tests: [{ ssh: { KEY: 1 } }]",
        ),
        (
            "/$defs/ssh_sample/anyOf/1/properties/sftp/properties",
            "tests: [{ ssh: { sftp: { KEY: 1 } } }]",
        ),
        (
            "/$defs/ssh_sample/anyOf/1/properties/forward/properties",
            "tests: [{ ssh: { forward: { KEY: 1 } } }]",
        ),
        ("/$defs/sample/properties", "tests: [{ http: { KEY: 1 } }]"),
        (
            "/$defs/sample/properties/response/properties",
            "tests: [{ http: { response: { KEY: 1 } } }]",
        ),
        (
            "/$defs/match/properties/after/properties",
            "rules: [{ name: r, match: { after: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/match/properties/rate/properties",
            "rules: [{ name: r, match: { rate: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/match/properties/time/properties",
            "rules: [{ name: r, match: { time: { KEY: 1 } }, verdict: block }]",
        ),
        (
            "/$defs/approval/properties",
            "rules: [{ name: r, match: {}, verdict: hold, approval: { KEY: 1 } }]",
        ),
        (
            "/$defs/limits/properties",
            "rules: [{ name: r, match: {}, limits: { KEY: 1 } }]",
        ),
        (
            "/$defs/mask/properties",
            "rules: [{ name: r, match: {}, mask: [{ KEY: 1 }] }]",
        ),
        ("/$defs/risk/properties", "risk: { KEY: 1 }"),
        (
            threshold,
            "risk: { thresholds: [{ at: 1, verdict: block, KEY: 1 }] }",
        ),
        ("/$defs/test/properties", "tests: [{ KEY: 1 }]"),
        (
            "/$defs/test/properties/given/properties",
            "tests: [{ given: { KEY: 1 } }]",
        ),
        (
            "/$defs/test/properties/given/properties/principal/properties",
            "tests: [{ given: { principal: { KEY: 1 } } }]",
        ),
        (
            "/$defs/test/properties/given/properties/target/properties",
            "tests: [{ given: { target: { KEY: 1 } } }]",
        ),
        (before, "tests: [{ given: { after: [{ KEY: 1 }] } }]"),
        (
            "/$defs/test/properties/expect/properties",
            "tests: [{ expect: { KEY: 1 } }]",
        ),
    ] {
        let faults = faults(&yaml.replace("KEY", "qqqqqqqqqqqqqqqq"));
        let told = faults
            .iter()
            .filter_map(|fault| fault.help.as_deref()?.strip_prefix("known here: "))
            .next();
        let told = told.unwrap_or_else(|| panic!("{yaml}: {faults:#?}"));
        let mut known: Vec<&str> = told.split(", ").collect();
        known.sort_unstable();
        let schema = schema.pointer(path).and_then(serde_json::Value::as_object);
        let schema = schema.unwrap_or_else(|| panic!("{path}"));
        let mut named: Vec<&str> = schema.keys().map(String::as_str).collect();
        named.sort_unstable();
        assert_eq!(known, named, "{path}");
    }
}

mod torn {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = include_str!("../../../rules/pii-masking.yaml");

    proptest! {
        #[test]
        fn a_torn_file_is_taken_or_refused_with_places_that_exist(
            from in 0..WHOLE.len(),
            len in 0_usize..40,
            put in "[ \n:{}\\[\\],\"'$*&a-z-]{0,6}",
        ) {
            let end = (from + len).min(WHOLE.len());
            let head = WHOLE.get(..from).unwrap_or_default();
            let text = format!("{head}{put}{}", WHOLE.get(end..).unwrap_or_default());
            let lines = text.lines().count() as u32;
            let faults = match RuleSet::load(&[Source { path: "x.yaml".into(), text }]) {
                Ok(rules) => rules.warnings().clone(),
                Err(faults) => faults,
            };
            for fault in &faults {
                prop_assert!(fault.at.line <= lines + 1, "{fault}");
                prop_assert!(!fault.to_string().is_empty());
            }
        }
    }
}
