//! `after` and `rate`: what was before decides what is now.

use super::*;

fn write() -> Say {
    say("INSERT", Class::Write)
}

const READ_THEN_WRITE: &str = "rules:
  - { name: reads-secrets, match: { postgres: { tables: [secrets] } }, tag: read-secrets }
  - { name: sends, match: { postgres: { class: write }, after: { tag: read-secrets, within: 10m } }, verdict: kill }
";

#[test]
fn what_is_harmless_one_by_one_is_refused_in_that_order() {
    let rules = rules(READ_THEN_WRITE);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    assert_eq!(session.says(write(), at(0)), "allow");
    let read = session.judge(select().table("secrets"), at(1));
    assert_eq!(word(&read), "allow");
    assert_eq!(read.tags, ["read-secrets".into()]);
    assert_eq!(session.says(select(), at(2)), "allow");
    let sent = session.judge(write(), at(3));
    assert_eq!(verdict(&sent), ("kill", Some("sends")));
}

#[test]
fn a_tag_is_over_when_its_time_is() {
    let rules = rules(READ_THEN_WRITE);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let _ = session.judge(select().table("secrets"), at(0));
    assert_eq!(session.says(write(), at(599)), "kill");
    assert_eq!(session.says(write(), at(600)), "allow");
}

#[test]
fn a_new_session_is_no_way_around_a_principals_tags_and_is_around_a_sessions() {
    let of = |by: &str| {
        rules(&READ_THEN_WRITE.replace("within: 10m", &format!("within: 10m, by: {by}")))
    };
    for (by, expected) in [("principal", "kill"), ("session", "allow")] {
        let (rules, memory) = (of(by), Memory::new());
        let mut first = Session::new(&memory, &rules, &allowing());
        let _ = first.judge(select().table("secrets"), at(0));
        let mut second = Session::new(&memory, &rules, &allowing());
        assert_eq!(second.says(write(), at(1)), expected, "{by}");
        assert_eq!(first.says(write(), at(1)), "kill", "{by}");
        let mut other = allowing();
        other.principal.uid = 1001;
        let mut other = Session::new(&memory, &rules, &other);
        assert_eq!(other.says(write(), at(1)), "allow", "{by}");
    }
}

#[test]
fn the_exchange_that_leaves_a_tag_is_not_after_itself() {
    let rules = rules(
        "rules:
  - { name: once, match: { postgres: { class: read }, after: { tag: seen } }, verdict: block }
  - { name: mark, match: { postgres: { class: read } }, tag: seen }
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    assert_eq!(session.says(select(), at(0)), "allow");
    assert_eq!(session.says(select(), at(1_000_000)), "block");
}

#[test]
fn what_is_refused_leaves_no_tag_and_yet_its_rule_applied() {
    let rules = rules(
        "rules:
  - { name: no-drop, match: { postgres: { statement: DROP } }, verdict: block, tag: dropped }
  - { name: tagged, match: { postgres: { class: read }, after: { tag: dropped } }, verdict: kill }
  - { name: tried, match: { postgres: { class: write }, after: { rule: no-drop } }, verdict: kill }
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let dropped = session.judge(say("DROP TABLE", Class::Ddl), at(0));
    assert_eq!(word(&dropped), "block");
    assert_eq!(dropped.tags, []);
    assert_eq!(session.says(select(), at(1)), "allow");
    assert_eq!(session.says(write(), at(1)), "kill");
}

#[test]
fn what_is_held_leaves_its_tags_when_it_is_released() {
    let rules = rules(
        "rules:
  - { name: ask, match: { postgres: { tables: [secrets] } }, verdict: hold, tag: read-secrets }
  - { name: sends, match: { postgres: { class: write }, after: { tag: read-secrets } }, verdict: kill }
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let held = session.judge(select().table("secrets"), at(0));
    assert_eq!(word(&held), "hold");
    assert_eq!(session.says(write(), at(1)), "allow");
    session.standing.tag(&held.tags, at(2));
    assert_eq!(session.says(write(), at(3)), "kill");
}

#[test]
fn what_a_preview_asks_it_does_not_remember() {
    let rules = rules(READ_THEN_WRITE);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let _ = session.preview(select().table("secrets"), at(0));
    assert_eq!(session.says(write(), at(1)), "allow");
    let _ = session.judge(select().table("secrets"), at(2));
    assert_eq!(word(&session.preview(write(), at(3))), "kill");
}

const THREE_A_MINUTE: &str = "rules:
  - { name: often, match: { postgres: { class: read }, rate: { over: 3, per: 1m } }, verdict: block }
";

#[test]
fn the_exchange_over_the_rate_is_refused_and_the_window_slides() {
    let rules = rules(THREE_A_MINUTE);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    for second in [0, 10, 20] {
        assert_eq!(session.says(select(), at(second)), "allow", "{second}");
    }
    assert_eq!(session.says(select(), at(59)), "block");
    // Of the last minute are now those at 10, 20, 59.
    assert_eq!(session.says(select(), at(60)), "block");
    assert_eq!(session.says(select(), at(140)), "allow");
}

#[test]
fn a_rate_counts_only_what_the_rest_of_the_match_holds_for() {
    let rules = rules(THREE_A_MINUTE);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    for _ in 0..10 {
        assert_eq!(session.says(write(), at(0)), "allow");
    }
    for _ in 0..3 {
        assert_eq!(session.says(select(), at(1)), "allow");
    }
    assert_eq!(session.says(write(), at(2)), "allow");
    assert_eq!(session.says(select(), at(2)), "block");
}

#[test]
fn a_message_of_several_statements_counts_once() {
    let rules = rules(THREE_A_MINUTE);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let message = [select(), select(), select(), select()];
    for _ in 0..3 {
        assert_eq!(word(&session.judge_all(&message, at(0))), "allow");
    }
    assert_eq!(word(&session.judge_all(&message, at(0))), "block");
}

#[test]
fn what_is_refused_counts_and_what_is_previewed_does_not() {
    let both = format!(
        "{THREE_A_MINUTE}  - {{ name: no, match: {{ postgres: {{ tables: [t] }} }}, verdict: block }}\n"
    );
    let rules = rules(&both);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    for _ in 0..3 {
        assert_eq!(session.says(select().table("t"), at(0)), "block");
    }
    assert_eq!(session.says(select(), at(0)), "block");
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    for _ in 0..10 {
        assert_eq!(word(&session.preview(select(), at(0))), "allow");
    }
    assert_eq!(session.says(select(), at(0)), "allow");
}

#[test]
fn the_rate_of_an_exception_counts_what_the_rule_is_of() {
    let rules = rules(
        "rules:
  - name: reads-but-not-too-many
    match: { postgres: { class: read } }
    unless: { rate: { over: 2, per: 1m } }
    verdict: allow
  - { name: writes, match: { postgres: { class: write } }, verdict: allow }
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &subject());
    for _ in 0..10 {
        assert_eq!(session.says(write(), at(0)), "allow");
    }
    assert_eq!(session.says(select(), at(0)), "allow");
    assert_eq!(session.says(select(), at(0)), "allow");
    assert_eq!(session.says(select(), at(0)), "block");
    assert_eq!(session.says(select(), at(60)), "allow");
}

#[test]
fn what_an_exception_excepts_the_rate_of_the_match_does_not_count() {
    let rules = rules(
        "rules:
  - name: often
    match: { postgres: { class: read }, rate: { over: 2, per: 1m } }
    unless: { postgres: { tables: [scratch] } }
    verdict: block
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    for _ in 0..10 {
        assert_eq!(session.says(select().table("scratch"), at(0)), "allow");
    }
    for expected in ["allow", "allow", "block"] {
        assert_eq!(session.says(select().table("t"), at(1)), expected);
    }
}

#[test]
fn of_two_sessions_at_once_only_so_many_pass() {
    const ROUNDS: u64 = 500;
    let rules =
        rules("rules: [{ name: once, match: { rate: { over: 1, per: 1s } }, verdict: block }]\n");
    let memory = Memory::new();
    let round = std::sync::Barrier::new(4);
    let allowed = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut session = Session::new(&memory, &rules, &allowing());
                    (0..ROUNDS)
                        .filter(|second| {
                            round.wait();
                            session.says(select(), at(*second)) == "allow"
                        })
                        .count()
                })
            })
            .collect();
        let counts = sessions.into_iter().map(|session| session.join().unwrap());
        counts.sum::<usize>()
    });
    // One of each second.
    assert_eq!(allowed as u64, ROUNDS);
}

#[test]
fn memory_outlives_the_rules_that_made_it() {
    let (before, memory) = (rules(READ_THEN_WRITE), Memory::new());
    let mut session = Session::new(&memory, &before, &allowing());
    let _ = session.judge(select().table("secrets"), at(0));
    let after = rules(&READ_THEN_WRITE.replace("kill", "block"));
    session.scope = after.scope(&allowing());
    assert_eq!(session.says(write(), at(1)), "block");
}

#[test]
fn who_is_not_remembered_is_refused_where_the_rules_ask_what_was_before() {
    let memory = Memory::with_room_for(1);
    let asking = rules(THREE_A_MINUTE);
    let _first = Session::new(&memory, &asking, &allowing());
    let mut other = allowing();
    other.principal.uid = 1001;
    let mut second = Session::new(&memory, &asking, &other);
    let refused = second.judge(select(), at(0));
    assert_eq!(verdict(&refused), ("block", None));
    let plain = rules(
        "rules:
  - { name: a, match: { postgres: { statement: DROP } }, verdict: block }
  - { name: b, match: { time: { weekdays: [sun] }, if: principal.uid == 1 }, verdict: block }
",
    );
    second.scope = plain.scope(&other);
    assert_eq!(second.says(select(), at(0)), "allow");
}

#[test]
fn an_observing_rule_leaves_nothing_and_counts_for_itself() {
    let rules = rules(
        "rules:
  - { name: mark, match: {}, tag: t, risk: 50, limits: { rows: 1 }, mode: observe }
  - { name: ask, match: {}, verdict: hold, mode: observe }
  - { name: after, match: { after: { tag: t } }, verdict: block }
  - { name: often, match: { rate: { over: 1, per: 1m } }, verdict: kill, mode: observe }
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let first = session.judge(select(), at(0));
    assert_eq!(word(&first), "allow");
    assert_eq!(first.observed, ["mark".into(), "ask".into()]);
    assert_eq!((first.risk, first.score), (0, 0));
    assert_eq!(first.tags, []);
    assert!(first.limits.is_empty());
    let second = session.judge(select(), at(1));
    assert_eq!(word(&second), "allow");
    assert_eq!(
        second.observed,
        ["mark".into(), "ask".into(), "often".into()]
    );
}

#[test]
fn explain_says_why_what_was_before_did_or_did_not_matter() {
    let rules = rules(READ_THEN_WRITE);
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let because = |session: &Session| {
        let sql = sql(&[write()]);
        let said = session
            .scope
            .explain_at(&message(&sql, ""), &session.standing, at(10));
        said[1].because.clone()
    };
    let why = because(&session);
    assert!(
        why.contains("after is not seen from this principal"),
        "{why}"
    );
    let _ = session.judge(select().table("secrets"), at(4));
    let why = because(&session);
    assert!(
        why.contains("after is 6 s ago from this principal"),
        "{why}"
    );
}
