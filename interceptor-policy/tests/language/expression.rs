//! `if`: what the fields cannot say.

use super::*;

/// Whether an expression holds for a statement.
fn says(expression: &str, statement: Say) -> bool {
    let judged = judged(expression, "select 1", &[statement]);
    match verdict(&judged) {
        ("block", Some("r")) => true,
        ("allow", None) => false,
        other => panic!("{expression}: {other:?}"),
    }
}

fn judged(expression: &str, text: &str, statements: &[Say]) -> Judgement {
    let rules = blocking(expression);
    decide_in(&rules.scope(&allowing()), text, statements)
}

fn blocking(expression: &str) -> Arc<RuleSet> {
    rules(&format!(
        "rules:
  - name: r
    match:
      if: |
        {expression}
    verdict: block
"
    ))
}

/// What is wrong with an expression: the message, and what the caret is under.
fn refused(expression: &str) -> (String, String) {
    let yaml = format!("rules: [{{ name: r, verdict: block, match: {{ if: '{expression}' }} }}]\n");
    let Err(faults) = RuleSet::load(&[source("x.yaml", &yaml)]) else {
        panic!("{expression}");
    };
    let fault = faults.iter().next().unwrap();
    let under = fault.source.chars().skip(fault.at.column as usize - 1);
    let help = fault.help.as_deref().unwrap_or_default();
    (
        format!("{}; {help}", fault.message),
        under.take(fault.at.width as usize).collect(),
    )
}

#[test]
fn every_field_of_a_match_has_its_name_in_an_expression() {
    let statement = || {
        say("UPDATE", Class::Write)
            .and("SELECT", Class::Read)
            .table("public.users")
            .column("public.users.ssn")
            .function("now")
            .filtered(WhereClause::Missing)
    };
    for expression in [
        "principal.agent == 'deploy-bot'",
        "principal.user == 'coder' && principal.group == 'staff'",
        "principal.uid == 1000 && principal.uid < 1001",
        "principal.exe.endsWith('/psql')",
        "principal.command_line.contains('-h db')",
        "principal.cgroup.startsWith('interceptor/')",
        "principal.unit == 'deploy.service'",
        "principal.container == ''",
        "principal.labels.team == 'platform'",
        "principal.labels['team'] == 'platform'",
        "'team' in principal.labels && has(principal.labels.team)",
        "!has(principal.labels.other) && principal.labels.other == ''",
        "principal.claims.sub == '' && size(principal.groups) == 0",
        "target.name == 'orders-db' && target.host == 'DB.internal'",
        "target.address == '10.0.0.7' && target.port == 5432 && target.tls",
        "protocol == 'postgres' && risk == 0",
        "'UPDATE' in postgres.statement && postgres.statement[0] == 'UPDATE'",
        "postgres.class == ['read', 'write']",
        "'public.users' in postgres.tables",
        "postgres.columns.exists(c, c.endsWith('.ssn'))",
        "postgres.functions.all(f, f == 'now')",
        "postgres.where == 'missing'",
        "postgres.database == 'orders' && postgres.user == 'agent_rw'",
        "postgres.text.matches('^sel.ct') && matches(postgres.text, '1$')",
        "postgres.statements == 1 && !postgres.writes_inside_read",
        "postgres.tables.filter(t, t.startsWith('public.')).size() == 1",
        "postgres.tables.exists_one(t, t == 'public.users') ? true : false",
        "postgres.statements * 2 + 1 == 3",
    ] {
        assert!(says(expression, statement()), "{expression}");
        assert!(
            !says(&format!("!({expression})"), statement()),
            "{expression}"
        );
    }
}

#[test]
fn an_expression_is_asked_of_each_statement_by_itself() {
    let both = [
        say("UPDATE", Class::Write).filtered(WhereClause::Present),
        say("DELETE", Class::Write).filtered(WhereClause::Missing),
    ];
    let of = |tag: &str| {
        let expression = format!("'{tag}' in postgres.statement && postgres.where == 'missing'");
        word(&judged(&expression, "", &both))
    };
    assert_eq!(of("UPDATE"), "allow");
    assert_eq!(of("DELETE"), "block");
}

#[test]
fn an_expression_is_part_of_its_match_and_works_in_an_exception() {
    let rules = rules(
        "rules:
  - { name: a, match: { postgres: { class: read }, if: 'principal.uid > 5' }, verdict: allow }
  - name: b
    match: { postgres: { class: write } }
    unless: { if: \"'scratch.t' in postgres.tables\" }
    verdict: kill
",
    );
    let write = || say("INSERT", Class::Write);
    assert_eq!(word(&decide(&rules, &subject(), select())), "allow");
    assert_eq!(word(&decide(&rules, &subject(), write())), "kill");
    let scratch = decide(&rules, &subject(), write().table("scratch.t"));
    assert_eq!(verdict(&scratch), ("block", None));
}

#[test]
fn the_score_in_an_expression_is_the_one_before_the_exchange() {
    let rules = rules(
        "rules:
  - { name: a, match: {}, risk: 30 }
  - { name: b, match: { if: 'risk >= 30' }, verdict: block }
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    assert_eq!(session.says(select(), at(0)), "allow");
    assert_eq!(session.says(select(), at(0)), "block");
}

#[test]
fn what_has_no_answer_blocks_and_says_so_without_what_was_asked() {
    for (expression, why) in [
        ("postgres.tables[3] == 'x'", "an entry that is not there"),
        (
            "principal.labels[principal.agent] == 'x'",
            "a key that is not there",
        ),
        ("1 / (postgres.statements - 1) == 1", "divides by zero"),
    ] {
        let rules = blocking(expression);
        let secret = select().table("secret_name");
        let judged = decide(&rules, &allowing(), secret);
        let Verdict::Block(refusal) = &judged.verdict else {
            panic!("{expression}: {judged:?}");
        };
        assert_eq!(refusal.rule.as_deref(), Some("r"), "{expression}");
        assert!(refusal.message.contains(why), "{refusal:?}");
        assert!(!refusal.message.contains("secret_name"), "{refusal:?}");
        assert!(!refusal.message.contains("deploy-bot"), "{refusal:?}");
    }
}

#[test]
fn an_allow_rule_or_an_exception_without_an_answer_blocks_too_and_an_observer_observes() {
    let fault = "'postgres.tables[3] == \"x\"'";
    for body in [
        format!("match: {{ if: {fault} }}, verdict: allow"),
        format!("match: {{}}, unless: {{ if: {fault} }}, verdict: allow"),
        format!("match: {{}}, unless: {{ if: {fault} }}, risk: 1"),
    ] {
        let judged = decide(&rule(&body), &allowing(), select());
        assert_eq!(verdict(&judged), ("block", Some("r")), "{body}");
    }
    let observing = rule(&format!(
        "match: {{ if: {fault} }}, verdict: kill, mode: observe"
    ));
    let judged = decide(&observing, &allowing(), select());
    assert_eq!(word(&judged), "allow");
    assert_eq!(judged.observed, ["r".into()]);
}

#[test]
fn what_is_too_long_to_be_asked_about_blocks() {
    let many = (0..129).fold(select(), |say, n| say.table(&format!("t{n}")));
    let judged = judged("'x' in postgres.tables", "", &[many]);
    let Verdict::Block(refusal) = &judged.verdict else {
        panic!("{judged:?}");
    };
    assert!(refusal.message.contains("a list that is too long"));
    let long = "x".repeat((16 << 10) + 1);
    let of = |expression| word(&super::expression::judged(expression, &long, &[select()]));
    assert_eq!(of("postgres.text.contains('y')"), "block");
    assert_eq!(of("postgres.database == 'y'"), "allow");
}

#[test]
fn an_expression_that_says_what_there_is_not_is_refused_where_it_stands() {
    for (expression, message, under) in [
        (
            "postgres.table == \"x\"",
            "there is no `postgres.table`; did you mean `postgres.tables`?",
            "postgres.table",
        ),
        ("principal == \"x\"", "one of principal.agent", "principal"),
        ("user == \"x\"", "there is no `user`", "user"),
        (
            "postgres.text.like(\"x\")",
            "there is no function `like`; there are contains",
            "",
        ),
        (
            "postgres.text.containz(\"x\")",
            "did you mean `contains`?",
            "",
        ),
        (
            "postgres.tables == \"users\"",
            "compares a list with text; write `\"x\" in list`",
            "",
        ),
        ("principal.uid == \"0\"", "compares a number with text", ""),
        ("postgres.tables", "is a list, not true or false", ""),
        (
            "postgres.tables.map(t, t)",
            "does not say true or false",
            "",
        ),
        ("postgres.text.startsWith(1)", "has no answer", ""),
        ("\"x\" in postgres.text", "`in` looks into a list", ""),
        (
            "postgres.tables.exists(t, postgres.columns.exists(c, c == t))",
            "a macro inside of a macro",
            "",
        ),
        (
            "postgres.tables.map(t, t + t).map(t, t + t).size() == 1",
            "goes over a field",
            "",
        ),
        (
            "postgres.text.matches(postgres.database)",
            "must be written out",
            "",
        ),
        ("postgres.text.matches(\"(\")", "bad regular expression", ""),
        (
            "postgres.tables.exists(risk, risk == \"x\")",
            "is a field",
            "",
        ),
        ("postgres.text == ", "cannot be read", ""),
        ("postgres.text == $x", "cannot be read", ""),
        ("{\"a\": 1}.a == 1", "makes a mapping", ""),
        ("has(postgres.text)", "", ""),
        ("principal.uid == 1u && b\"x\" == b\"x\"", "bytes", ""),
        ("true ? 1 : 2", "does not say true or false", ""),
        (
            "timestamp(\"2026-01-01T00:00:00Z\") == 1",
            "no function `timestamp`",
            "",
        ),
    ] {
        let (said, marked) = refused(expression);
        assert!(said.contains(message), "{expression}: {said}");
        assert!(marked.starts_with(under), "{expression}: under {marked}");
    }
}

#[test]
fn an_expression_over_several_lines_is_refused_with_its_own_place() {
    let yaml = "rules:
  - name: r
    match:
      if: |
        true &&
        postgres.nothing == 1
    verdict: block
";
    let faults = RuleSet::load(&[source("x.yaml", yaml)]).unwrap_err();
    let fault = faults.iter().next().unwrap();
    assert!(
        fault
            .message
            .contains("(line 2, column 9 of the expression)")
            || fault
                .message
                .contains("(line 2, column 1 of the expression)"),
        "{fault}"
    );
}

#[test]
fn an_expression_is_bounded_in_length_depth_and_parts() {
    let (said, _) = refused(&format!(
        "true || {}",
        "(".repeat(200) + "true" + &")".repeat(200)
    ));
    assert!(said.contains("too deep"), "{said}");
    let (said, _) = refused(&format!("{}true{}", "(".repeat(2000), ")".repeat(2000)));
    assert!(said.contains("too deep"), "{said}");
    let (said, _) = refused(&["1"; 100].join(" + "));
    assert!(said.contains("too deep"), "{said}");
    let (said, _) = refused(&vec!["principal.uid == 1"; 100].join(" || "));
    assert!(said.contains("more than 256 parts"), "{said}");
    let (said, _) = refused(&format!("postgres.text == \"{}\"", "x".repeat(5000)));
    assert!(said.contains("more than 4096 characters"), "{said}");
}

#[test]
fn an_expression_about_statements_never_holds_where_there_is_none() {
    let rules = blocking("postgres.statements == 0 || true");
    let judged = rules.scope(&allowing()).decide(&Operation::Opaque);
    assert_eq!(word(&judged), "allow");
    let rules = blocking("principal.uid == 1000");
    let judged = rules.scope(&allowing()).decide(&Operation::Opaque);
    assert_eq!(word(&judged), "block");
}

#[test]
fn a_scope_knows_that_an_expression_looks_at_the_text() {
    let looks = blocking("postgres.text.contains('x')");
    assert!(looks.scope(&subject()).is_text_dependent());
    let not = blocking("postgres.database == 'x'");
    assert!(!not.scope(&subject()).is_text_dependent());
}

mod any {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn text_is_taken_or_refused_and_breaks_nothing(
            parts in prop::collection::vec(
                prop::sample::select(&[
                    "(", ")", "[", "]", "!", "-", " && ", " || ", " == ", " + ", " ? ", " : ", ".", ",",
                    "postgres.text", "postgres.tables", "risk", ".exists(", ".map(", "t", "\"x\"", "1",
                    "{", "}", " in ", "matches(", "has(", "size(", "`", "\\", "\n", "null", "0x", "b\"",
                ][..]),
                0..40,
            ),
        ) {
            let text = serde_json::to_string(&parts.concat()).unwrap();
            let yaml = format!("rules: [{{ name: r, match: {{ if: {text} }}, verdict: block }}]\n");
            match RuleSet::load(&[source("x.yaml", &yaml)]) {
                Ok(rules) => drop(decide(&Arc::new(rules), &allowing(), select().table("x"))),
                Err(faults) => prop_assert!(!faults.is_empty()),
            }
        }
    }
}
