//! What a person is asked, and what becomes of it.

use super::*;
use interceptor_policy::approval::{Answer, Outcome, Tally};

const HOLDS: &str = "
version: 1
rules:
  - name: ask-first
    match: { protocol: http }
    verdict: hold
    message: Somebody should look at this.
    approval: { from: [ops] }
";

fn approved(talk: &Talk) -> Decision {
    let question = talk.question.as_ref().unwrap();
    let mut tally = Tally::new(Arc::clone(&question.approval), 1000);
    let answer = Answer {
        by: "ann".into(),
        uid: None,
        groups: vec!["ops".into()],
        approves: true,
        reason: None,
    };
    match tally.add(answer) {
        Ok(Outcome::Approved(approved)) => Decision::Approved {
            approved,
            by: "ann".into(),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_kept_whole_until_a_person_said_yes() {
    let mut talk = Talk::new(HOLDS);
    let id = talk.post(
        "/x?q=1",
        &[("authorization", "Bearer hush")],
        &[b"the ", b"body"],
    );
    assert!(talk.sent.is_none() && talk.answer.is_none());
    assert!(!talk.session.wants_request(id));
    let question = talk.question.as_ref().unwrap();
    assert_eq!(&*question.rule, "ask-first");
    assert!(
        question.text.contains("POST https://api.example/x?q=1"),
        "{}",
        question.text
    );
    assert!(question.text.ends_with("the body"), "{}", question.text);
    assert!(!question.text.contains("hush"));
    let yes = approved(&talk);
    talk.decide(id, yes);
    assert_eq!(talk.up, b"the body");
    assert!(talk.up_ended);
    assert_eq!(talk.sent_field("authorization"), Some("Bearer hush"));
    talk.respond(id, &[], &[b"done"]);
    assert_eq!(talk.text(), "done");
}

#[test]
fn a_no_is_an_answer_and_nothing_is_sent() {
    let mut talk = Talk::new(HOLDS);
    let id = talk.get("/");
    let no = Decision::Denied {
        by: "ann".into(),
        reason: Some("never".into()),
    };
    talk.decide(id, no);
    assert!(talk.sent.is_none());
    assert_eq!(talk.status(), 403);
    assert_eq!(talk.json()["message"], "denied by ann: never");
    assert_eq!(talk.session.under_way(), 0);
}

#[test]
fn a_ticket_is_told_and_the_same_request_has_the_same_digest() {
    let mut talk = Talk::new(HOLDS);
    let send = |talk: &mut Talk, agent: &str, body: &[u8]| {
        let fields = [("user-agent", agent), ("x-what", "1")];
        let id = talk.post("/", &fields, &[body]);
        (id, talk.question.take().unwrap().digest)
    };
    let (id, first) = send(&mut talk, "a", b"x");
    talk.decide(id, Decision::Ticket("T-1".into()));
    assert_eq!(talk.json()["ticket"], "T-1");
    let (_, again) = send(&mut talk, "b", b"x");
    let (_, other) = send(&mut talk, "a", b"y");
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn every_part_of_a_request_that_matters_is_in_its_digest() {
    let digest = |method: &str, uri: &str, fields: &[(&str, &str)]| {
        let mut talk = Talk::new(HOLDS);
        talk.begin(request(method, uri, fields), true);
        talk.question.take().unwrap().digest
    };
    let plain = digest("GET", "/a?b=c", &[("x", "1")]);
    assert_eq!(plain, digest("GET", "/a?b=c", &[("x", "1")]));
    for other in [
        digest("PUT", "/a?b=c", &[("x", "1")]),
        digest("GET", "/a?b=d", &[("x", "1")]),
        digest("GET", "/%61?b=c", &[("x", "1")]),
        digest("GET", "/a?b=c", &[("x", "2")]),
        digest("GET", "/a?b=c", &[("x", "1"), ("y", "")]),
        digest("GET", "https://other.example/a?b=c", &[("x", "1")]),
    ] {
        assert_ne!(plain, other);
    }
}

#[test]
fn a_body_that_is_too_long_to_be_asked_about_is_refused() {
    let mut talk = Talk::new(HOLDS);
    let long = vec![b'x'; 3000];
    talk.post("/", &[], &[&long, &long]);
    assert!(talk.sent.is_none() && talk.question.is_none());
    assert_eq!(talk.status(), 403);
}

#[test]
fn a_question_is_taken_back_where_the_agent_goes_away() {
    let mut talk = Talk::new(HOLDS);
    let id = talk.get("/");
    let yes = approved(&talk);
    talk.call(|session, now, out| session.agent_left(now, id, out));
    assert_eq!(talk.meta(Kind::Approval)["decision"], "withdrawn");
    talk.decide(id, yes);
    assert!(talk.sent.is_none());
}
