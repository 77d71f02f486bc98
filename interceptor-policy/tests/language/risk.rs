//! Points, the score, and what it leads to.

use super::*;

const RISKY: &str = "rules:
  - { name: writes, match: { postgres: { class: write } }, risk: 30 }
risk:
  half_life: 10m
  thresholds:
    - { at: 50, verdict: hold, message: slow down, approval: { from: [security] } }
    - { at: 100, verdict: kill }
";

fn write() -> Say {
    say("INSERT", Class::Write)
}

#[test]
fn a_score_adds_up_and_leads_to_a_hold_and_then_to_the_end() {
    let mut session = Session::new(&Memory::new(), &rules(RISKY), &allowing());
    let first = session.judge(write(), at(0));
    assert_eq!((word(&first), first.risk, first.score), ("allow", 30, 30));
    let second = session.judge(write(), at(0));
    assert_eq!(second.score, 60);
    assert_eq!(verdict(&second), ("hold", Some("risk>=50")));
    let Verdict::Hold(hold) = &second.verdict else {
        panic!("{second:?}");
    };
    assert_eq!(&*hold.reason.message, "slow down");
    assert_eq!(&*hold.approval.requirements[0].rule, "risk>=50");
    assert_eq!(hold.approval.requirements[0].from, ["security".into()]);
    assert_eq!(session.says(write(), at(0)), "hold");
    let last = session.judge(write(), at(0));
    assert_eq!(verdict(&last), ("kill", Some("risk>=100")));
}

#[test]
fn a_threshold_is_reached_by_exactly_its_points() {
    for (points, expected) in [(49, "allow"), (50, "block"), (51, "block")] {
        let rules = rules(&format!(
            "rules: [{{ name: r, match: {{}}, risk: {points} }}]
risk: {{ thresholds: [{{ at: 50, verdict: block }}] }}
"
        ));
        let mut session = Session::new(&Memory::new(), &rules, &allowing());
        assert_eq!(session.says(select(), at(0)), expected, "{points}");
    }
}

#[test]
fn a_score_is_the_principals_and_fades() {
    let (rules, memory) = (rules(RISKY), Memory::new());
    let mut first = Session::new(&memory, &rules, &allowing());
    let _ = first.judge(write(), at(0));
    let mut second = Session::new(&memory, &rules, &allowing());
    assert_eq!(second.judge(write(), at(0)).score, 60);
    // Harmless by itself, and of who has been risky.
    assert_eq!(second.says(select(), at(1)), "hold");
    assert_eq!(second.judge(select(), at(600)).score, 30);
    assert_eq!(second.says(select(), at(600)), "allow");
}

#[test]
fn an_attempt_adds_its_points_and_a_preview_does_not() {
    let refusing = RISKY.replace("risk: 30", "risk: 30, verdict: block");
    let mut session = Session::new(&Memory::new(), &rules(&refusing), &allowing());
    assert_eq!(session.preview(write(), at(0)).score, 30);
    assert_eq!(session.judge(write(), at(0)).score, 30);
    assert_eq!(session.judge(select(), at(0)).score, 30);
}

#[test]
fn a_threshold_makes_nothing_milder() {
    let mut session = Session::new(&Memory::new(), &rules(RISKY), &subject());
    for _ in 0..2 {
        assert_eq!(verdict(&session.judge(write(), at(0))), ("block", None));
    }
}

#[test]
fn a_rule_asks_for_the_score_before_its_exchange() {
    let rules = rules(
        "rules:
  - { name: writes, match: { postgres: { class: write } }, risk: 30 }
  - { name: risky, match: { risk: { over: 29 } }, verdict: block }
",
    );
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    assert_eq!(session.says(write(), at(0)), "allow");
    assert_eq!(session.says(select(), at(0)), "block");
    assert_eq!(session.says(select(), at(600)), "allow");
}

#[test]
fn a_threshold_may_ban() {
    let rules = rules(
        "rules: [{ name: r, match: {}, risk: 60 }]
risk: { thresholds: [{ at: 100, verdict: { kill: { principal: 5m } } }] }
",
    );
    let memory = Memory::new();
    let mut session = Session::new(&memory, &rules, &allowing());
    let _ = session.judge(select(), at(0));
    assert_eq!(session.says(select(), at(0)), "kill");
    assert!(memory.banned(&allowing().principal, at(1)).is_some());
}

#[test]
fn what_all_files_say_of_risk_is_united_and_must_agree() {
    let load = |second: &str| RuleSet::load(&[source("a.yaml", RISKY), source("b.yaml", second)]);
    let more = "risk: { half_life: 10m, thresholds: [{ at: 20, verdict: block }] }\n";
    let rules = Arc::new(load(more).unwrap());
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    let judged = session.judge(write(), at(0));
    assert_eq!(verdict(&judged), ("block", Some("risk>=20")));
    let faults = load("risk: { half_life: 5m }\n").unwrap_err();
    let fault = faults.iter().next().unwrap();
    assert_eq!(fault.path.to_str(), Some("b.yaml"));
    assert!(fault.message.contains("another `half_life`"), "{fault}");
    assert!(
        fault.help.as_deref().unwrap().contains("a.yaml:5"),
        "{fault}"
    );
}

#[test]
fn points_are_counted_where_no_threshold_asks_for_them() {
    let (rules, memory) = (rule("match: {}, risk: 7"), Memory::new());
    let mut session = Session::new(&memory, &rules, &allowing());
    let _ = session.judge(select(), at(0));
    assert_eq!(session.judge(select(), at(0)).score, 14);
}
