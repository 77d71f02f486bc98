//! Which verdict wins, and what is added up.

use interceptor_policy::verdict::{RecordLevel, Severity};

use super::*;

/// Rules that all hold, with these effects.
fn effects(effects: &[&str]) -> Arc<RuleSet> {
    let mut yaml = "rules:\n".to_owned();
    for (index, effect) in effects.iter().enumerate() {
        yaml.push_str(&format!(
            "  - {{ name: r{index}, match: {{}}, {effect} }}\n"
        ));
    }
    rules(&yaml)
}

#[test]
fn the_strictest_verdict_wins_in_any_order() {
    for (rank, pair) in [["block", "allow"], ["kill", "allow"], ["kill", "block"]]
        .iter()
        .enumerate()
    {
        for order in [[0, 1], [1, 0]] {
            let verdicts = order.map(|at| format!("verdict: {}", pair[at]));
            let rules = effects(&[&verdicts[0], &verdicts[1]]);
            let judged = decide(&rules, &subject(), select());
            assert_eq!(word(&judged), pair[0], "{rank} {order:?}");
            assert_eq!(judged.applied.len(), 2);
        }
    }
}

#[test]
fn without_a_verdict_the_targets_default_decides() {
    let rules = effects(&["risk: 1"]);
    let refused = decide(&rules, &subject(), select());
    assert_eq!(verdict(&refused), ("block", None));
    assert_eq!(word(&decide(&rules, &allowing(), select())), "allow");
}

#[test]
fn no_rules_at_all_leave_it_to_the_default() {
    let rules = Arc::new(RuleSet::load(&[]).unwrap());
    assert_eq!(word(&decide(&rules, &subject(), select())), "block");
    assert_eq!(word(&decide(&rules, &allowing(), select())), "allow");
}

#[test]
fn an_allow_rule_overrules_a_blocking_default() {
    let rules = effects(&["verdict: allow"]);
    assert_eq!(word(&decide(&rules, &subject(), select())), "allow");
}

#[test]
fn a_refusal_names_its_rule_and_tells_its_message() {
    let rules = effects(&["verdict: allow", "verdict: block, message: ask the dba"]);
    let judged = decide(&rules, &subject(), select());
    let Verdict::Block(refusal) = judged.verdict else {
        panic!("{judged:?}");
    };
    assert_eq!(refusal.rule.as_deref(), Some("r1"));
    assert_eq!(&*refusal.message, "ask the dba");
}

#[test]
fn a_message_of_several_statements_is_refused_for_the_strictest_of_them() {
    let rules = rules(
        "rules:
  - { name: reads, match: { postgres: { class: read } }, verdict: allow }
  - { name: drops, match: { postgres: { statement: DROP } }, verdict: kill }
",
    );
    let scope = rules.scope(&subject());
    let drop = || say("DROP TABLE", Class::Ddl);
    let write = || say("INSERT", Class::Write);
    assert_eq!(word(&decide_in(&scope, "", &[select(), select()])), "allow");
    for order in [[select(), write()], [write(), select()]] {
        assert_eq!(word(&decide_in(&scope, "", &order)), "block");
    }
    for order in [[write(), drop()], [drop(), write()]] {
        let judged = decide_in(&scope, "", &order);
        assert_eq!(verdict(&judged), ("kill", Some("drops")));
    }
}

#[test]
fn a_refusal_by_a_rule_is_named_before_one_by_default() {
    let rules = rule("match: { postgres: { statement: DROP } }, verdict: block");
    let drop = || say("DROP TABLE", Class::Ddl);
    for both in [[select(), drop()], [drop(), select()]] {
        let judged = decide_in(&rules.scope(&subject()), "", &both);
        assert_eq!(verdict(&judged), ("block", Some("r")));
    }
}

#[test]
fn an_empty_query_is_allowed_where_nothing_else_is() {
    let rules = effects(&["risk: 1"]);
    assert_eq!(
        word(&decide_in(&rules.scope(&subject()), " ", &[])),
        "allow"
    );
}

#[test]
fn what_could_not_be_read_is_allowed_by_no_default_and_no_broad_rule() {
    let unread = || say("SELECT", Class::Unclassified);
    let none = effects(&["risk: 1"]);
    assert_eq!(word(&decide(&none, &allowing(), unread())), "block");
    for match_ in [
        "{}",
        "{ postgres: {} }",
        "{ postgres: { statement: SELECT } }",
        "{ postgres: { class: { not: ddl } } }",
        "{ postgres: { class: { not: { not: unclassified } } } }",
    ] {
        assert!(!allows(match_, unread()), "{match_}");
        let rules = rule(&format!("match: {match_}, verdict: allow"));
        assert_eq!(
            word(&decide(&rules, &allowing(), unread())),
            "block",
            "{match_}"
        );
    }
    for match_ in [
        "{ postgres: { class: unclassified } }",
        "{ postgres: { class: [read, unclassified] } }",
    ] {
        assert!(allows(match_, unread()), "{match_}");
    }
}

#[test]
fn a_statement_of_no_class_counts_as_unread() {
    assert!(!allows("{}", Say::default()));
    assert_eq!(
        word(&decide(&effects(&["risk: 1"]), &allowing(), Say::default())),
        "block"
    );
    assert!(allows(
        "{ postgres: { class: unclassified } }",
        Say::default()
    ));
}

#[test]
fn half_a_statement_read_is_not_allowed_as_what_was_read() {
    let half = || select().and("SELECT", Class::Unclassified);
    assert!(!allows("{ postgres: { class: read } }", half()));
    assert!(!allows("{ postgres: { class: unclassified } }", half()));
    assert!(allows(
        "{ postgres: { class: [read, unclassified] } }",
        half()
    ));
}

#[test]
fn unless_is_an_exception_from_its_own_rule() {
    let rules = rule(
        "match: { postgres: { statement: DROP } }, unless: { postgres: { tables: ['scratch.*'] } }, verdict: block",
    );
    let drop = |name| say("DROP TABLE", Class::Ddl).table(name);
    assert_eq!(
        word(&decide(&rules, &allowing(), drop("scratch.t"))),
        "allow"
    );
    assert_eq!(
        word(&decide(&rules, &allowing(), drop("public.t"))),
        "block"
    );
}

#[test]
fn an_exception_from_a_block_has_to_hold_for_all_tables_and_for_certain() {
    let rules = rule(
        "match: { postgres: { statement: DROP } }, unless: { postgres: { tables: ['scratch.*'] } }, verdict: block",
    );
    let drop = || say("DROP TABLE", Class::Ddl).table("scratch.a");
    let smuggled = decide(&rules, &allowing(), drop().table("public.orders"));
    assert_eq!(word(&smuggled), "block");
    let unqualified = say("DROP TABLE", Class::Ddl).table("a");
    assert_eq!(word(&decide(&rules, &allowing(), unqualified)), "block");
}

#[test]
fn an_exception_from_an_allow_holds_for_one_table_and_where_it_may() {
    let rules = rule(
        "match: { postgres: { class: read } }, unless: { postgres: { tables: ['secret.*'] } }, verdict: allow",
    );
    let word_of = |statement| word(&decide(&rules, &subject(), statement));
    assert_eq!(word_of(select().table("public.a")), "allow");
    assert_eq!(
        word_of(select().table("public.a").table("secret.b")),
        "block"
    );
    assert_eq!(word_of(select().table("a")), "block");
}

#[test]
fn unless_asks_of_the_same_statement_as_the_match() {
    let rules = rule(
        "match: { postgres: { statement: DROP } }, unless: { postgres: { tables: scratch } }, verdict: block",
    );
    let apart = [
        say("DROP TABLE", Class::Ddl).table("public.t"),
        select().table("scratch"),
    ];
    assert_eq!(
        word(&decide_in(&rules.scope(&allowing()), "", &apart)),
        "block"
    );
}

#[test]
fn unless_may_name_the_session_alone_or_both() {
    let by_session =
        rule("match: {}, unless: { principal: { agent: deploy-bot } }, verdict: block");
    assert_eq!(word(&decide(&by_session, &allowing(), select())), "allow");
    let of_another = rule("match: {}, unless: { principal: { agent: coder } }, verdict: block");
    assert_eq!(word(&decide(&of_another, &allowing(), select())), "block");
    let both = rule(
        "match: {}, unless: { principal: { agent: deploy-bot }, postgres: { class: read } }, verdict: block",
    );
    assert_eq!(word(&decide(&both, &allowing(), select())), "allow");
    let write = say("INSERT", Class::Write);
    assert_eq!(word(&decide(&both, &allowing(), write)), "block");
}

#[test]
fn an_observing_rule_is_named_and_changes_nothing() {
    let rules = effects(&[
        "verdict: allow",
        "verdict: kill, risk: 50, record: full, severity: critical, mode: observe",
        "mask: [{ detect: jwt, with: redact }], mode: observe",
    ]);
    let judged = decide(&rules, &subject(), select());
    assert_eq!(word(&judged), "allow");
    assert_eq!(judged.applied, ["r0".into()]);
    assert_eq!(judged.observed, ["r1".into(), "r2".into()]);
    assert!(judged.masks.is_none());
    assert_eq!((judged.risk, judged.severity), (0, None));
    assert!(!rules.scope(&subject()).masks_possible());
}

#[test]
fn risk_points_are_added_up_and_a_rule_counts_once_a_message() {
    let rules = effects(&["risk: 10", "risk: 5", "verdict: allow"]);
    let judged = decide_in(&rules.scope(&subject()), "", &[select(), select()]);
    assert_eq!(judged.risk, 15);
}

#[test]
fn the_most_complete_recording_wins_and_full_is_the_default() {
    let level = |of: &[&str]| decide(&effects(of), &subject(), select()).record;
    assert_eq!(level(&["risk: 1"]), RecordLevel::Full);
    assert_eq!(level(&["record: metadata"]), RecordLevel::Metadata);
    assert_eq!(
        level(&["record: metadata", "record: commands"]),
        RecordLevel::Commands
    );
    assert_eq!(
        level(&["record: full", "record: metadata"]),
        RecordLevel::Full
    );
}

#[test]
fn one_statement_cannot_lower_the_recording_of_another() {
    let rules = rule("match: { postgres: { tables: noise } }, record: metadata");
    let scope = rules.scope(&allowing());
    let noise = || select().table("noise");
    assert_eq!(
        decide_in(&scope, "", &[noise()]).record,
        RecordLevel::Metadata
    );
    assert_eq!(
        decide_in(&scope, "", &[noise(), select()]).record,
        RecordLevel::Full
    );
    let joined = noise().table("public.users");
    assert_eq!(decide_in(&scope, "", &[joined]).record, RecordLevel::Full);
}

#[test]
fn a_rule_that_also_makes_something_stricter_lowers_the_recording_no_sooner() {
    let rules = rule("match: { postgres: { tables: noise } }, record: metadata, risk: 1");
    let joined = decide(&rules, &allowing(), select().table("noise").table("users"));
    assert_eq!((joined.risk, joined.record), (1, RecordLevel::Full));
    let alone = decide(&rules, &allowing(), select().table("noise"));
    assert_eq!((alone.risk, alone.record), (1, RecordLevel::Metadata));
}

#[test]
fn the_worst_severity_wins() {
    let rules = effects(&["severity: low", "severity: critical", "severity: info"]);
    let judged = decide(&rules, &subject(), select());
    assert_eq!(judged.severity, Some(Severity::Critical));
}

#[test]
fn a_rule_that_allows_and_masks_masks_wherever_it_may_and_allows_only_where_it_must() {
    let rules = rule(
        "match: { postgres: { tables: public.users } }, verdict: allow, mask: [{ columns: ssn, with: hash }]",
    );
    let certain = decide(&rules, &subject(), select().table("public.users"));
    assert_eq!(word(&certain), "allow");
    assert!(certain.masks.is_some());
    let unsure = || select().table("users");
    assert_eq!(word(&decide(&rules, &subject(), unsure())), "block");
    let masked = decide(&rules, &allowing(), unsure());
    assert_eq!(word(&masked), "allow");
    assert!(masked.masks.is_some());
}

#[test]
fn a_session_in_which_nothing_can_be_allowed_is_known_as_such() {
    let can = |rules: &Arc<RuleSet>, subject: &Subject| rules.scope(subject).can_allow();
    let nothing = effects(&["risk: 1"]);
    assert!(!can(&nothing, &subject()));
    assert!(can(&nothing, &allowing()));
    let reads = rule("match: { postgres: { class: read } }, verdict: allow");
    assert!(can(&reads, &subject()));
    let mut opaque = subject();
    opaque.protocol = Protocol::Tls;
    assert!(
        !can(&reads, &opaque),
        "a rule on statements allows nothing else"
    );
    let never = effects(&["verdict: allow", "verdict: kill"]);
    assert!(!can(&never, &allowing()));
    let sometimes = rule("match: { postgres: { class: ddl } }, verdict: block");
    assert!(can(&sometimes, &allowing()));
    let observed = effects(&["verdict: allow, mode: observe"]);
    assert!(!can(&observed, &subject()));
}

#[test]
fn past_sixty_four_rules_each_still_counts() {
    let many: Vec<String> = (0..200).map(|_| "risk: 1".to_owned()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let judged = decide(&effects(&many), &subject(), select());
    assert_eq!(judged.risk, 200);
    assert_eq!(judged.applied.len(), 200);
    assert_eq!(&*judged.applied[199], "r199");
}

#[test]
fn the_digest_tells_rule_sets_apart() {
    let a = effects(&["risk: 1"]);
    assert_eq!(a.digest(), effects(&["risk: 1"]).digest());
    assert_ne!(a.digest(), effects(&["risk: 2"]).digest());
    assert_eq!(a.digest().len(), 64);
}

#[test]
fn the_order_of_files_never_matters() {
    let files = [
        source("b.yaml", "rules: [{ name: b, match: {}, verdict: block }]"),
        source("a.yaml", "rules: [{ name: a, match: {}, verdict: block }]"),
    ];
    let one = Arc::new(RuleSet::load(&files).unwrap());
    let [b, a] = files;
    let other = Arc::new(RuleSet::load(&[a, b]).unwrap());
    assert_eq!(one.digest(), other.digest());
    for rules in [one, other] {
        let judged = decide(&rules, &subject(), select());
        assert_eq!(verdict(&judged), ("block", Some("a")));
    }
}
