//! Limits, tags and bans.

use std::time::Duration;

use super::*;

#[test]
fn the_smallest_of_each_limit_wins() {
    let rules = rules(
        "rules:
  - { name: a, match: {}, limits: { rows: 100, bytes: 10MiB } }
  - { name: b, match: {}, limits: { rows: 1000, bytes: 64KiB, duration: 1m30s } }
  - { name: c, match: { postgres: { class: write } }, limits: { rows: 1 } }
",
    );
    let limits = decide(&rules, &allowing(), select()).limits;
    assert_eq!(limits.rows, Some(100));
    assert_eq!(limits.bytes, Some(65_536));
    assert_eq!(limits.duration, Some(Duration::from_secs(90)));
    assert!(decide(&rules, &subject(), select()).limits.is_empty());
}

#[test]
fn a_limit_makes_things_stricter_and_applies_where_the_match_may_hold() {
    let rules = rule("match: { postgres: { tables: [public.users] } }, limits: { rows: 1 }");
    let limits = |table: &str| decide(&rules, &allowing(), select().table(table)).limits;
    assert_eq!(limits("users").rows, Some(1));
    assert_eq!(limits("other.users").rows, None);
}

#[test]
fn tags_are_united_each_once() {
    let rules = rules(
        "lists: { marks: [x, y] }
rules:
  - { name: a, match: {}, tag: $marks }
  - { name: b, match: {}, tag: [y, z] }
",
    );
    let tags = decide(&rules, &allowing(), select()).tags;
    assert_eq!(tags, ["x".into(), "y".into(), "z".into()]);
}

#[test]
fn a_ban_ends_every_session_of_the_principal_for_its_time() {
    let rules =
        rule("match: { postgres: { statement: DROP } }, verdict: { kill: { principal: 15m } }");
    let memory = Memory::new();
    let mut first = Session::new(&memory, &rules, &allowing());
    let mut second = Session::new(&memory, &rules, &allowing());
    assert_eq!(second.says(select(), at(0)), "allow");
    let killed = first.judge(say("DROP TABLE", Class::Ddl), at(0));
    assert_eq!(word(&killed), "kill");
    assert_eq!(killed.ban, Some(Duration::from_secs(900)));
    let principal = &allowing().principal;
    let left = memory.banned(principal, at(300));
    assert_eq!(left, Some(Duration::from_secs(600)));
    // Sessions that were opened before it are no way around it.
    let told = second.judge(select(), at(300));
    assert_eq!(verdict(&told), ("kill", Some("r")));
    let Verdict::Kill(refusal) = told.verdict else {
        panic!("{told:?}");
    };
    assert_eq!(&*refusal.message, "banned for another 10m");
    assert_eq!(memory.banned(principal, at(900)), None);
    assert_eq!(second.says(select(), at(900)), "allow");
}

#[test]
fn a_ban_outlives_the_rules_that_gave_it() {
    let rules = rule("match: {}, verdict: { kill: { principal: 1h } }");
    let memory = Memory::new();
    let mut session = Session::new(&memory, &rules, &allowing());
    let _ = session.judge(select(), at(0));
    let plain = rule("match: {}, verdict: allow");
    let mut later = Session::new(&memory, &plain, &allowing());
    assert_eq!(later.says(select(), at(1)), "kill");
}

#[test]
fn a_preview_and_an_observing_rule_ban_nobody() {
    let memory = Memory::new();
    let principal = &allowing().principal;
    let rules = rule("match: {}, verdict: { kill: { principal: 1h } }");
    let previewed = Session::new(&memory, &rules, &allowing()).preview(select(), at(0));
    assert_eq!(word(&previewed), "kill");
    assert_eq!(memory.banned(principal, at(0)), None);
    let observing = rule("match: {}, verdict: { kill: { principal: 1h } }, mode: observe");
    let mut session = Session::new(&memory, &observing, &allowing());
    assert_eq!(session.says(select(), at(0)), "allow");
    assert_eq!(memory.banned(principal, at(0)), None);
}
