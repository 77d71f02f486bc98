use super::*;

fn limited(limits: &str) -> Talk {
    Talk::new(&format!(
        "
version: 1
rules:
  - name: not-so-much
    match: {{ postgres: {{ class: read }} }}
    limits: {limits}
"
    ))
}

fn rows(count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        row(&mut out, &[Some(b"value")]);
    }
    out
}

fn described() -> Vec<u8> {
    let mut out = Vec::new();
    description(&mut out, &[("a", 0, 0, 25, 0)]);
    out
}

#[test]
fn rows_past_the_limit_never_reach_the_agent_and_an_error_ends_the_answer() {
    let mut talk = limited("{ rows: 3 }");
    talk.agent(&query("SELECT a FROM t"));
    talk.server(&[described(), rows(5)].concat());
    assert!(talk.cancelled);
    let mut end = Vec::new();
    error(&mut end, "57014", "canceling statement due to user request");
    ready(&mut end, TransactionStatus::Failed);
    talk.server(&end);
    let got = talk.agent_got();
    assert_eq!(tags(&got), "TDDDEZ");
    assert_eq!(field(&got[4].1, b'C'), "54000");
    assert!(field(&got[4].1, b'M').contains("more than 3 rows"));
    assert!(talk.kinds().contains(&Kind::Limit));
}

#[test]
fn an_answer_within_its_limits_is_whole() {
    let mut talk = limited("{ rows: 3, bytes: 1MiB }");
    talk.agent(&query("SELECT a FROM t"));
    let mut end = Vec::new();
    complete(&mut end, "SELECT 3");
    ready(&mut end, TransactionStatus::Idle);
    talk.server(&[described(), rows(3), end].concat());
    assert_eq!(tags(&talk.agent_got()), "TDDDCZ");
    assert!(!talk.cancelled);
}

#[test]
fn bytes_are_counted_as_the_agent_gets_them() {
    let mut talk = limited("{ bytes: 100 }");
    talk.agent(&query("SELECT a FROM t"));
    talk.server(&[described(), rows(20)].concat());
    assert!(talk.cancelled);
    let got = talk.to_agent.len();
    assert!(got <= 100, "{got}");
}

#[test]
fn a_command_that_was_done_before_the_cancellation_is_an_error_all_the_same() {
    let mut talk = limited("{ rows: 1 }");
    talk.agent(&query("SELECT a FROM t; SELECT a FROM t"));
    let mut end = Vec::new();
    complete(&mut end, "SELECT 2");
    end.extend(described());
    end.extend(rows(1));
    complete(&mut end, "SELECT 1");
    ready(&mut end, TransactionStatus::Idle);
    talk.server(&[described(), rows(2), end].concat());
    let got = talk.agent_got();
    assert_eq!(tags(&got), "TDEZ");
    assert!(field(&got[2].1, b'M').contains("the command itself is done"));

    talk.agent(&query("SELECT 1"));
    assert!(!talk.to_server.is_empty());
}

#[test]
fn a_pipeline_that_goes_on_behind_a_cut_answer_ends_the_session() {
    let mut talk = limited("{ rows: 1 }");
    let one = |text| [parse("", text), bind("", ""), execute("")].concat();
    talk.agent(&[one("SELECT a FROM t"), one("SELECT b FROM t"), sync()].concat());
    let mut answer = Vec::new();
    empty(&mut answer, b"12");
    answer.extend(rows(2));
    complete(&mut answer, "SELECT 2");
    talk.server(&answer);
    assert!(matches!(talk.end, Some(End::Refused(_))));
}

#[test]
fn a_cut_answer_before_a_sync_leaves_the_session_as_any_error_does() {
    let mut talk = limited("{ rows: 1 }");
    talk.agent(
        &[
            parse("", "SELECT a FROM t"),
            bind("", ""),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    let mut answer = Vec::new();
    empty(&mut answer, b"12");
    answer.extend(rows(2));
    complete(&mut answer, "SELECT 2");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    assert_eq!(tags(&talk.agent_got()), "12DEZ");
    assert!(talk.end.is_none());
}

#[test]
fn an_answer_that_takes_too_long_is_cancelled() {
    let mut talk = limited("{ duration: 5s }");
    talk.agent(&query("SELECT pg_sleep(60)"));
    let due = talk.session.deadline().expect("a deadline");
    assert_eq!(due, FlowTime(5_000_001));
    let mut out = Outbox::default();
    talk.session.handle_time(due, &mut out);
    talk.take(out, &[]);
    assert!(talk.cancelled);
    assert_eq!(talk.session.deadline(), None);
    let mut end = Vec::new();
    error(&mut end, "57014", "canceling statement due to user request");
    ready(&mut end, TransactionStatus::Idle);
    talk.server(&end);
    let got = talk.agent_got();
    assert!(field(&got[0].1, b'M').contains("more than 5000 ms"));
}
