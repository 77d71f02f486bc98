//! What the catalog says of names, and what is done where it does not.

use super::*;

fn decide_resolved(rules: &Arc<RuleSet>, statement: Say, resolved: bool) -> Judgement {
    let sql = Sql {
        resolved,
        ..sql(&[statement])
    };
    rules.scope(&allowing()).decide(&message(&sql, ""))
}

#[test]
fn a_rule_that_makes_things_stricter_looks_through_views() {
    let through = || select().table("public.v").through("public.salaries");
    assert!(blocks(
        "{ postgres: { tables: [public.salaries] } }",
        through()
    ));
    assert!(blocks("{ postgres: { tables: [public.v] } }", through()));
    assert!(!blocks(
        "{ postgres: { tables: [public.other] } }",
        through()
    ));
    // What shows a part of a table is made so that the part may be read.
    assert!(allows("{ postgres: { tables: [public.v] } }", through()));
    assert!(!allows(
        "{ postgres: { tables: [public.salaries] } }",
        through()
    ));
}

#[test]
fn a_rule_may_block_what_the_catalog_does_not_know() {
    let rules = rules(
        "rules:
  - name: r
    match: { postgres: { class: read, tables: [public.users] } }
    risk: 1
    unresolved: block
",
    );
    let of = |statement: Say, resolved| {
        let judged = decide_resolved(&rules, statement, resolved);
        (word(&judged), judged.applied.len())
    };
    assert_eq!(of(select().table("public.orders"), true), ("allow", 0));
    assert_eq!(of(select().table("public.users"), true), ("allow", 1));
    assert_eq!(of(select().unresolved("orders"), true), ("block", 1));
    assert_eq!(of(select().table("public.orders"), false), ("block", 1));
    assert_eq!(of(select(), false), ("allow", 0));
    let write = say("INSERT", Class::Write).table("public.orders");
    assert_eq!(of(write, false), ("allow", 0));
}

#[test]
fn an_exception_is_one_from_blocking_what_is_not_known_too() {
    let rules = rules(
        "rules:
  - name: r
    match: { postgres: { tables: [public.users] } }
    unless: { postgres: { tables: [\"scratch.*\"] } }
    verdict: kill
    unresolved: block
",
    );
    let scratch = decide_resolved(&rules, select().table("scratch.t"), false);
    assert_eq!(word(&scratch), "allow");
    let other = decide_resolved(&rules, select().table("other.t"), false);
    assert_eq!(verdict(&other), ("block", Some("r")));
    let Verdict::Block(refusal) = other.verdict else {
        panic!("{other:?}");
    };
    assert!(refusal.message.contains("catalog"), "{refusal:?}");
}

#[test]
fn a_mask_rule_may_block_what_the_catalog_does_not_know() {
    let rules = rule(
        "match: {}, mask: [{ columns: users.ssn, with: redact }], unresolved: block, mode: observe",
    );
    let judged = decide_resolved(&rules, select().table("t"), false);
    assert_eq!((word(&judged), judged.observed.len()), ("allow", 1));
    let rules = rule("match: {}, mask: [{ columns: users.ssn, with: redact }], unresolved: block");
    assert_eq!(
        word(&decide_resolved(&rules, select().table("t"), false)),
        "block"
    );
    assert_eq!(
        word(&decide_resolved(&rules, select().table("t"), true)),
        "allow"
    );
}

#[test]
fn a_masked_column_may_not_choose_rows_where_the_rule_says_so() {
    let rules = rule(
        "match: { postgres: { class: read } },
          mask: [{ columns: [users.ssn], with: redact }], masked_in_predicate: block",
    );
    let says = |statement: Say| word(&decide(&rules, &allowing(), statement));
    assert_eq!(says(select().column("users.ssn")), "allow");
    assert_eq!(says(select().predicate("users.ssn")), "block");
    assert_eq!(says(select().predicate("ssn")), "block");
    assert_eq!(says(select().predicate("users.name")), "allow");
    assert_eq!(says(select().predicate("orders.ssn")), "allow");
    // `ORDER BY users.*` chooses by all of them, and so many that nobody told
    // them apart may be any.
    assert_eq!(says(select().predicate("*")), "block");
    assert_eq!(says(select().predicate("users.*")), "block");
    let write = say("DELETE", Class::Write).predicate("users.ssn");
    assert_eq!(says(write), "allow");
}

#[test]
fn explain_says_that_a_name_could_not_be_settled() {
    let rules = rule("match: { postgres: { tables: [users] } }, verdict: kill, unresolved: block");
    let scope = rules.scope(&allowing());
    let sql = sql(&[select().table("orders")]);
    let said = scope.explain(&message(&sql, ""));
    assert!(said[0].applied);
    assert!(
        said[0].because.contains("the catalog does not say"),
        "{said:?}"
    );
}
