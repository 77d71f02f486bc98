use super::*;

/// `Parse`, `Bind`, `Execute` of an unnamed statement.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", ""), execute("")].concat()
}

#[test]
fn a_refused_statement_in_a_pipeline_skips_to_the_sync_as_any_error_does() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(
        &[
            run("SELECT 1"),
            run("DROP TABLE orders"),
            run("SELECT 2"),
            sync(),
        ]
        .concat(),
    );
    let sent = talk.server_got();
    assert_eq!(tags(&sent), "PBEPBEPBES");
    assert!(
        sent.iter()
            .all(|(_, body)| !String::from_utf8_lossy(body).contains("DROP"))
    );

    let mut answer = Vec::new();
    empty(&mut answer, b"12");
    complete(&mut answer, "SELECT 1");
    error(&mut answer, "42601", "syntax error");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    let got = talk.agent_got();
    assert_eq!(tags(&got), "12CEZ");
    assert_eq!(field(&got[3].1, b'C'), "42501");

    // The next round is as if nothing had happened.
    talk.agent(&[run("SELECT 3"), sync()].concat());
    assert_eq!(tags(&talk.server_got()), "PBES");
    let mut answer = Vec::new();
    empty(&mut answer, b"12");
    complete(&mut answer, "SELECT 1");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    assert_eq!(tags(&talk.agent_got()), "12CZ");
    assert!(talk.end.is_none());
}

#[test]
fn a_name_keeps_its_meaning_when_the_server_never_comes_to_its_new_one() {
    let mut talk = Talk::new(
        "
version: 1
rules:
  - name: no-delete
    match: { postgres: { statement: [DELETE] } }
    verdict: block
",
    );
    talk.agent(&[parse("s", "SELECT 1"), sync()].concat());
    let mut answer = Vec::new();
    empty(&mut answer, b"1");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    // An error first, then a new meaning for `s` that the server skips.
    talk.agent(
        &[
            parse("x", "SELEC"),
            parse("s", "INSERT INTO t VALUES (1)"),
            sync(),
        ]
        .concat(),
    );
    let mut answer = Vec::new();
    error(&mut answer, "42601", "syntax error");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    talk.events.clear();
    talk.agent(&[bind("", "s"), execute(""), sync()].concat());
    let command = talk
        .events
        .iter()
        .find(|e| e.kind == Kind::Command)
        .unwrap();
    assert_eq!(command.data, b"SELECT 1");
}

#[test]
fn a_prepared_statement_is_judged_again_by_the_rules_in_force() {
    let mut talk = Talk::new("version: 1\nrules: []\n");
    talk.agent(&[parse("s", "DROP TABLE orders"), sync()].concat());
    assert!(String::from_utf8_lossy(&talk.to_server).contains("DROP"));
    let mut answer = Vec::new();
    empty(&mut answer, b"1");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    talk.agent_got();
    talk.server_got();

    talk.session.set_scope(scope(NO_DROP));
    talk.agent(&[bind("", "s"), execute(""), sync()].concat());
    let sent = talk.server_got();
    assert_eq!(tags(&sent), "BES");
    assert_ne!(sent[1].1, execute("")[5..]);
    let mut answer = Vec::new();
    empty(&mut answer, b"2");
    error(&mut answer, "34000", "portal does not exist");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    let got = talk.agent_got();
    assert_eq!(tags(&got), "2EZ");
    assert_eq!(field(&got[1].1, b'C'), "42501");
}

#[test]
fn a_portal_that_nobody_bound_is_not_executed() {
    let mut talk = Talk::new("version: 1\nrules: []\n");
    talk.agent(&[execute("secret"), sync()].concat());
    let sent = talk.server_got();
    assert_ne!(sent[0].1, execute("secret")[5..]);
}

#[test]
fn a_statement_that_is_only_prepared_is_on_record() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&[parse("", "SELECT 1"), message(b'D', b"S\0"), sync()].concat());
    assert_eq!(talk.kinds(), [Kind::Command]);
    assert!(talk.events[0].line.contains("SELECT 1"));
}

#[test]
fn sql_prepare_and_execute_are_judged_by_what_they_run() {
    let mut talk = Talk::new("version: 1\nrules: []\n");
    talk.agent(&query("PREPARE p AS DELETE FROM t"));
    let mut answer = Vec::new();
    complete(&mut answer, "PREPARE");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    talk.server_got();
    talk.session.set_scope(scope(
        "
version: 1
rules:
  - name: no-delete
    match: { postgres: { statement: [DELETE] } }
    verdict: block
",
    ));
    talk.agent(&query("EXECUTE p"));
    assert!(!String::from_utf8_lossy(&talk.to_server).contains("EXECUTE"));
    talk.server_got();
    talk.agent(&query("EXECUTE unknown_name"));
    assert!(!String::from_utf8_lossy(&talk.to_server).contains("EXECUTE"));
}
