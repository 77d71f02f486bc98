use interceptor_policy::approval::{Answer, Outcome, Tally};

use super::*;

const ASKS: &str = "
version: 1
rules:
  - name: ask-first
    match: { postgres: { class: ddl } }
    verdict: hold
    message: Changes to the schema are asked about.
    approval: { from: [dba] }
";

/// A yes as the shell gives it: counted by the rule language.
fn yes(talk: &Talk) -> Decision {
    let question = talk.question.as_ref().expect("a question");
    let mut tally = Tally::new(Arc::clone(&question.approval), 1000);
    let answer = Answer {
        by: "ann".into(),
        uid: None,
        groups: vec!["dba".into()],
        approves: true,
        reason: None,
    };
    match tally.add(answer) {
        Ok(Outcome::Approved(approved)) => Decision::Approved {
            approved,
            by: "ann".to_owned(),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_of_a_held_statement_goes_upstream_before_a_person_says_yes() {
    let mut talk = Talk::new(ASKS);
    let asked = query("DROP TABLE orders");
    talk.agent(&asked);
    assert!(talk.to_server.is_empty());
    let told = talk.agent_got();
    assert_eq!(tags(&told), "N");
    assert!(field(&told[0].1, b'M').contains("Changes to the schema"));
    assert!(field(&told[0].1, b'H').contains(&talk.question.as_ref().unwrap().id));
    assert_eq!(talk.kinds(), [Kind::Command, Kind::Hold]);

    let decision = yes(&talk);
    talk.decide(decision);
    assert_eq!(talk.to_server, asked);
    assert_eq!(talk.kinds(), [Kind::Command, Kind::Hold, Kind::Approval]);
    let mut answer = Vec::new();
    complete(&mut answer, "DROP TABLE");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    assert_eq!(tags(&talk.agent_got()), "CZ");
}

#[test]
fn what_the_agent_sends_behind_it_waits_in_its_order() {
    let mut talk = Talk::new(ASKS);
    let held = query("DROP TABLE orders");
    let behind = [query("SELECT 1"), query("SELECT 2")].concat();
    talk.agent(&[held.clone(), behind.clone()].concat());
    talk.agent(&query("SELECT 3"));
    assert!(talk.to_server.is_empty());
    let decision = yes(&talk);
    talk.decide(decision);
    assert_eq!(talk.to_server, [held, behind, query("SELECT 3")].concat());
}

#[test]
fn a_no_is_an_error_with_the_reason_and_the_session_goes_on() {
    let mut talk = Talk::new(ASKS);
    talk.agent(&[query("DROP TABLE orders"), query("SELECT 1")].concat());
    talk.to_agent.clear();
    talk.decide(Decision::Denied {
        by: "ann".to_owned(),
        reason: Some("not on a Friday".to_owned()),
    });
    let sent = talk.server_got();
    assert_eq!(tags(&sent), "QQ");
    assert!(!String::from_utf8_lossy(&sent[0].1).contains("DROP"));
    let mut answer = Vec::new();
    error(&mut answer, "42601", "syntax error at or near \"refused\"");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    let got = talk.agent_got();
    assert_eq!(tags(&got), "EZ");
    assert_eq!(field(&got[0].1, b'C'), "42501");
    assert_eq!(field(&got[0].1, b'M'), "denied by ann: not on a Friday");
}

#[test]
fn silence_and_taking_back_are_errors_of_their_own() {
    for (decision, says) in [
        (Decision::TimedOut, "nobody decided in time"),
        (Decision::Cancelled, "canceling statement"),
    ] {
        let mut talk = Talk::new(ASKS);
        talk.agent(&query("DROP TABLE orders"));
        talk.to_agent.clear();
        talk.decide(decision);
        let mut answer = Vec::new();
        error(&mut answer, "42601", "syntax error");
        ready(&mut answer, TransactionStatus::Idle);
        talk.server(&answer);
        let got = talk.agent_got();
        assert_eq!(field(&got[0].1, b'C'), "57014");
        assert!(field(&got[0].1, b'M').contains(says));
    }
}

#[test]
fn a_ticket_is_refused_at_once_and_without_a_notice() {
    let mut talk = Talk::new(&ASKS.replace("[dba] }", "[dba], mode: ticket }"));
    talk.agent(&query("DROP TABLE orders"));
    assert!(talk.to_agent.is_empty());
    talk.decide(Decision::Ticket("t-1".to_owned()));
    let mut answer = Vec::new();
    error(&mut answer, "42601", "syntax error");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    assert!(field(&talk.agent_got()[0].1, b'M').contains("ticket t-1"));
}

#[test]
fn an_execution_is_held_and_its_preparation_is_not() {
    let mut talk = Talk::new(ASKS);
    let prepared = [parse("", "DROP TABLE orders"), bind("", "")].concat();
    talk.agent(&[prepared.clone(), execute(""), sync()].concat());
    assert_eq!(talk.to_server, prepared);
    talk.to_server.clear();
    let decision = yes(&talk);
    talk.decide(decision);
    assert_eq!(tags(&talk.server_got()), "ES");
}

#[test]
fn an_answer_is_bound_to_the_parameters_and_to_what_a_name_stands_for() {
    let digest = |sent: &[u8]| {
        let mut talk = Talk::new(&ASKS.replace("class: ddl", "class: [read, ddl]"));
        talk.agent(sent);
        talk.question.unwrap().digest
    };
    let run = |text: &str, formats: &[u8]| {
        let mut body = vec![0, 0];
        body.extend_from_slice(formats);
        body.extend_from_slice(&[0; 4]);
        digest(&[parse("", text), message(b'B', &body), execute("")].concat())
    };
    let one = run("SELECT 1", &[0, 0]);
    assert_eq!(one, run("SELECT 1", &[0, 0]));
    assert_ne!(one, run("SELECT 2", &[0, 0]));
    assert_ne!(one, run("SELECT 1", &[0, 1, 0, 1]));
    assert_ne!(one, digest(&query("SELECT 1")));
}

#[test]
fn an_agent_that_goes_away_takes_its_question_back() {
    let mut talk = Talk::new(ASKS);
    talk.agent(&query("DROP TABLE orders"));
    let mut out = Outbox::default();
    talk.session
        .handle_eof(FlowTime(3), Side::Downstream, &mut out);
    talk.take(out, &[]);
    assert!(talk.to_server.is_empty());
    assert_eq!(talk.kinds().last(), Some(&Kind::Approval));
    assert!(talk.events.last().unwrap().meta.contains("withdrawn"));
}

#[test]
fn a_notice_waits_for_the_message_that_is_under_way() {
    let mut talk = Talk::new(ASKS);
    talk.agent(&query("SELECT 1"));
    let mut answer = Vec::new();
    description(&mut answer, &[("a", 0, 0, 25, 0)]);
    row(&mut answer, &[Some(b"a long value")]);
    let (first, rest) = answer.split_at(answer.len() - 4);
    talk.server(first);
    talk.agent(&query("DROP TABLE orders"));
    talk.server(rest);
    assert_eq!(tags(&talk.agent_got()), "TDN");
}
