//! Answers that grow past what they may come to.

use super::*;

const LIMITS: &str = "
version: 1
rules:
  - name: small-answers
    match: { protocol: http }
    limits: { bytes: 100, duration: 5s }
";

#[test]
fn what_is_over_the_limit_never_reaches_the_agent() {
    let mut talk = Talk::new(LIMITS);
    let id = talk.get("/");
    talk.head(id, 200, &[], false);
    talk.data(id, &[b'a'; 60]);
    talk.data(id, &[b'b'; 60]);
    assert_eq!(talk.down.len(), 60);
    assert!(talk.broken && talk.dropped);
    assert_eq!(talk.meta(Kind::Limit)["limit"], "bytes");
    assert_eq!(talk.meta(Kind::Result)["failed"], true);
    assert_eq!(talk.recorded().len(), 60);
}

#[test]
fn an_answer_that_says_that_it_is_too_long_is_not_begun() {
    let mut talk = Talk::new(LIMITS);
    let id = talk.get("/");
    talk.head(id, 200, &[("content-length", "101")], false);
    assert_eq!(talk.status(), 502);
    assert!(talk.dropped && talk.down_ended);
    assert!(talk.text().contains("more than 100 bytes"));
}

#[test]
fn an_answer_that_takes_too_long_is_cut() {
    let mut talk = Talk::new(LIMITS);
    let id = talk.get("/");
    let due = talk.session.deadline(id).unwrap();
    assert_eq!(due.0, talk.now.0 + 5_000_000);
    talk.call(|session, now, out| session.time_is(now, id, out));
    assert!(talk.answer.is_none());
    talk.now = due;
    talk.call(|session, now, out| session.time_is(now, id, out));
    assert_eq!(talk.status(), 502);
    assert_eq!(talk.meta(Kind::Limit)["limit"], "duration");
    assert_eq!(talk.session.deadline(id), None);
}
