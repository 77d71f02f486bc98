//! What is held, who is asked, and how it is let go.

use std::time::Duration;

use interceptor_policy::approval::{Answer, OnTimeout, Outcome, Tally};
use interceptor_policy::{Approval, Hold, HoldMode};

use super::*;

fn held(judgement: Judgement) -> Hold {
    match judgement.verdict {
        Verdict::Hold(hold) => hold,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hold_asks_whom_it_names_for_as_long_as_it_says() {
    let rules = rule(
        "match: {}, verdict: hold, message: ask the dba,
            approval: { from: [dba, owners], quorum: 2, timeout: 90s, on_timeout: allow, mode: ticket }",
    );
    let hold = held(decide(&rules, &subject(), select()));
    assert_eq!(&*hold.reason.message, "ask the dba");
    assert_eq!(hold.reason.rule.as_deref(), Some("r"));
    let approval = &*hold.approval;
    assert_eq!(approval.timeout, Duration::from_secs(90));
    assert_eq!(approval.on_timeout, OnTimeout::Allow);
    assert_eq!(approval.mode, HoldMode::Ticket);
    let [requirement] = approval.requirements.as_slice() else {
        panic!("{approval:?}");
    };
    assert_eq!(&*requirement.rule, "r");
    assert_eq!(requirement.from, ["dba".into(), "owners".into()]);
    assert_eq!(requirement.quorum, 2);
}

#[test]
fn a_hold_that_names_nobody_asks_any_approver_and_silence_means_no() {
    let hold = held(decide(
        &rule("match: {}, verdict: hold"),
        &subject(),
        select(),
    ));
    assert_eq!(hold.approval.timeout, Approval::TIMEOUT);
    assert_eq!(hold.approval.on_timeout, OnTimeout::Block);
    assert_eq!(hold.approval.mode, HoldMode::Wait);
    assert_eq!(hold.approval.requirements[0].from, []);
    assert_eq!(hold.approval.requirements[0].quorum, 1);
}

#[test]
fn several_holds_ask_for_everybody_and_the_strictest_of_each_word() {
    let rules = rules(
        "rules:
  - { name: a, match: {}, verdict: hold, approval: { from: [dba], timeout: 10m, on_timeout: allow } }
  - { name: b, match: {}, verdict: hold, approval: { from: [security], timeout: 1m, mode: ticket } }
",
    );
    let hold = held(decide(&rules, &subject(), select()));
    assert_eq!(hold.approval.requirements.len(), 2);
    assert_eq!(hold.approval.timeout, Duration::from_secs(60));
    assert_eq!(hold.approval.on_timeout, OnTimeout::Block);
    assert_eq!(hold.approval.mode, HoldMode::Ticket);
    let mut tally = Tally::new(Arc::clone(&hold.approval), 1000);
    let answer = |by: &str, group: &str| Answer {
        by: by.into(),
        uid: None,
        groups: vec![group.into()],
        approves: true,
        reason: None,
    };
    assert_eq!(tally.add(answer("ann", "dba")), Ok(Outcome::Waiting));
    let Ok(Outcome::Approved(approved)) = tally.add(answer("bob", "security")) else {
        panic!("not approved");
    };
    drop(hold.release(approved));
}

#[test]
fn a_hold_is_stricter_than_an_allow_and_milder_than_a_block() {
    for (other, expected) in [("allow", "hold"), ("block", "block"), ("kill", "kill")] {
        for order in [["hold", other], [other, "hold"]] {
            let rules = rules(&format!(
                "rules:
  - {{ name: a, match: {{}}, verdict: {} }}
  - {{ name: b, match: {{}}, verdict: {} }}
",
                order[0], order[1]
            ));
            assert_eq!(word(&decide(&rules, &subject(), select())), expected);
        }
    }
}

#[test]
fn a_hold_decides_in_place_of_the_default_for_its_own_statement_alone() {
    let rules = rule("match: { postgres: { class: ddl } }, verdict: hold");
    let scope = rules.scope(&subject());
    assert!(scope.can_allow());
    let ddl = || say("CREATE TABLE", Class::Ddl);
    assert_eq!(word(&decide_in(&scope, "", &[ddl()])), "hold");
    assert_eq!(word(&decide_in(&scope, "", &[ddl(), select()])), "block");
    let scope = rules.scope(&allowing());
    assert_eq!(word(&decide_in(&scope, "", &[ddl(), select()])), "hold");
}

#[test]
fn what_is_held_has_its_masks_limits_and_tags_ready() {
    let rules = rules(
        "rules:
  - { name: ask, match: {}, verdict: hold, limits: { rows: 10 }, tag: asked }
  - { name: mask, match: {}, mask: [{ columns: ssn, with: redact }], record: full }
",
    );
    let judged = decide(&rules, &subject(), select());
    assert_eq!(word(&judged), "hold");
    assert!(judged.masks.is_some());
    assert_eq!(judged.limits.rows, Some(10));
    assert_eq!(judged.tags, ["asked".into()]);
}

#[test]
fn nobody_is_asked_about_what_nobody_could_read_unless_the_rule_says_so() {
    let unread = || say("", Class::Unclassified);
    let rules = rule("match: {}, verdict: hold");
    assert_eq!(word(&decide(&rules, &subject(), unread())), "block");
    assert_eq!(word(&decide(&rules, &allowing(), unread())), "block");
    let rules = rule("match: { postgres: { class: unclassified } }, verdict: hold");
    assert_eq!(word(&decide(&rules, &subject(), unread())), "hold");
}
