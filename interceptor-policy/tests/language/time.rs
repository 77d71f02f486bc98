//! `time`, and whose groups and claims a principal has.

use super::*;

/// 2026-01-05 is a Monday.
fn monday(hour: i64) -> Moment {
    Moment {
        monotonic: 0,
        unix: 1_767_571_200 + hour * 3600,
    }
}

#[test]
fn a_rule_may_hold_at_some_hours_only() {
    let rules = rule(
        "match: { time: { weekdays: [mon, tue], between: '09:00-17:30', zone: Europe/Berlin } },
          verdict: allow",
    );
    let mut session = Session::new(&Memory::new(), &rules, &subject());
    assert_eq!(session.says(select(), monday(7)), "block");
    assert_eq!(session.says(select(), monday(8)), "allow");
    assert_eq!(session.says(select(), monday(16)), "allow");
    assert_eq!(session.says(select(), monday(17)), "block");
    assert_eq!(session.says(select(), monday(24 + 10)), "allow");
    assert_eq!(session.says(select(), monday(48 + 10)), "block");
}

#[test]
fn an_exception_may_be_of_the_hour() {
    let rules = rule("match: {}, unless: { time: { between: '22:00-06:00' } }, verdict: block");
    let mut session = Session::new(&Memory::new(), &rules, &allowing());
    assert!(session.scope.can_allow());
    assert_eq!(session.says(select(), monday(12)), "block");
    assert_eq!(session.says(select(), monday(23)), "allow");
    assert_eq!(session.says(select(), monday(5)), "allow");
}

#[test]
fn explain_says_what_time_it_is() {
    let rules = rule("match: { time: { between: '09:00-10:00' } }, verdict: block");
    let scope = rules.scope(&allowing());
    let sql = sql(&[select()]);
    let said = scope.explain_at(&message(&sql, ""), &Standing::default(), monday(12));
    assert!(
        said[0].because.contains("time is mon 12:00 UTC"),
        "{said:?}"
    );
}

#[test]
fn who_is_in_a_group_is_in_it_whatever_else_they_are_in() {
    let mut member = subject();
    member.principal.groups = vec!["users".into(), "dba".into()];
    let says = |match_: &str, subject: &Subject| {
        let rules = rule(&format!(
            "match: {{ principal: {{ groups: {match_} }} }}, verdict: allow"
        ));
        word(&decide(&rules, subject, select())) == "allow"
    };
    assert!(says("dba", &member));
    assert!(says("[wheel, dba]", &member));
    assert!(says("{ all: [users, dba] }", &member));
    assert!(!says("wheel", &member));
    assert!(!says("{ not: dba }", &member));
    assert!(says("{ not: wheel }", &member));
    // Nothing is known of whom no group is known.
    assert!(!says("{ not: wheel }", &subject()));
}

#[test]
fn a_claim_is_what_a_verified_token_says() {
    let mut known = subject();
    known.principal.claims.insert("team".into(), "infra".into());
    for form in ["claims: { team: 'inf*' }", "claims.team: infra"] {
        let rules = rule(&format!(
            "match: {{ principal: {{ {form} }} }}, verdict: allow"
        ));
        assert_eq!(word(&decide(&rules, &known, select())), "allow", "{form}");
        assert_eq!(
            word(&decide(&rules, &subject(), select())),
            "block",
            "{form}"
        );
    }
}
