use super::*;

/// What a server answers to a text that is no SQL.
fn server_refuses(talk: &mut Talk, status: TransactionStatus) {
    let mut answer = Vec::new();
    error(&mut answer, "42601", "syntax error at or near \"refused\"");
    ready(&mut answer, status);
    talk.server(&answer);
}

#[test]
fn a_refused_statement_never_reaches_the_server_and_the_session_goes_on() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&query("DROP TABLE orders"));
    let sent = talk.server_got();
    assert_eq!(tags(&sent), "Q");
    assert!(!String::from_utf8_lossy(&sent[0].1).contains("DROP"));
    server_refuses(&mut talk, TransactionStatus::Idle);
    let got = talk.agent_got();
    assert_eq!(tags(&got), "EZ");
    assert_eq!(field(&got[0].1, b'C'), "42501");
    assert_eq!(field(&got[0].1, b'M'), "Not today.");
    let hint = field(&got[0].1, b'H');
    assert!(
        hint.contains("no-drop") && hint.contains(&format!("{}/1", Uuid::nil())),
        "{hint}"
    );
    assert_eq!(talk.kinds(), [Kind::Command, Kind::Verdict, Kind::Error]);
    assert!(talk.end.is_none());

    talk.agent(&query("SELECT 1"));
    assert_eq!(talk.server_got(), messages(&query("SELECT 1")));
}

#[test]
fn the_server_says_whether_the_transaction_failed() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&query("DROP TABLE orders"));
    server_refuses(&mut talk, TransactionStatus::Failed);
    let got = talk.agent_got();
    assert_eq!(got[1], (b'Z', b"E".to_vec()));
}

#[test]
fn one_bad_statement_in_a_message_refuses_the_message() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&query("SELECT 1; DROP TABLE orders; SELECT 2"));
    let sent = talk.server_got();
    assert!(!String::from_utf8_lossy(&sent[0].1).contains("SELECT"));
}

#[test]
fn the_words_of_a_forbidden_statement_are_harmless_in_a_string() {
    let mut talk = Talk::new(NO_DROP);
    let asked = query("SELECT 'DROP TABLE orders' -- DROP TABLE orders");
    talk.agent(&asked);
    assert_eq!(talk.to_server, asked);
}

#[test]
fn a_fatal_error_of_the_server_is_not_hidden_behind_a_refusal() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&query("DROP TABLE orders"));
    let mut answer = Vec::new();
    NoticeBuilder::fatal("57P01", "terminating connection").encode_error(&mut answer);
    talk.server(&answer);
    assert_eq!(field(&talk.agent_got()[0].1, b'C'), "57P01");
}

#[test]
fn kill_ends_the_session_with_the_rule_s_message() {
    let mut talk = Talk::new(&NO_DROP.replace("block", "kill"));
    talk.agent(&query("DROP TABLE orders"));
    let got = talk.agent_got();
    assert_eq!(field(&got[0].1, b'S'), "FATAL");
    assert!(matches!(talk.end, Some(End::Refused(_))));
    talk.to_server.clear();
    talk.agent(&query("SELECT 1"));
    assert!(talk.to_server.is_empty());
}

#[test]
fn a_function_called_by_number_is_judged() {
    let mut talk = Talk::new(
        "
version: 1
rules:
  - name: no-large-objects
    match: { postgres: { functions: [lowrite] } }
    verdict: block
",
    );
    let mut call = 955_u32.to_be_bytes().to_vec();
    call.extend_from_slice(&[0; 6]);
    talk.agent(&message(b'F', &call));
    let sent = talk.server_got();
    assert_eq!(sent[0].1[..4], [0; 4]);
    let mut answer = Vec::new();
    error(&mut answer, "42883", "function with OID 0 does not exist");
    ready(&mut answer, TransactionStatus::Idle);
    talk.server(&answer);
    assert_eq!(field(&talk.agent_got()[0].1, b'C'), "42501");
}

#[test]
fn a_setting_that_would_make_statements_unreadable_is_refused() {
    for sql in [
        "SET standard_conforming_strings = off",
        "SET client_encoding = 'SJIS'",
        "SET NAMES 'shift_jis_2004'",
    ] {
        let mut talk = Talk::new(NO_DROP);
        talk.agent(&query(sql));
        assert!(
            !String::from_utf8_lossy(&talk.to_server).contains("SET"),
            "{sql}"
        );
    }
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&query("SET standard_conforming_strings = on"));
    assert!(String::from_utf8_lossy(&talk.to_server).contains("SET"));
}

#[test]
fn bytes_that_are_no_utf_8_are_unclassified_and_so_refused() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&message(b'Q', b"SELECT '\xff'\0"));
    assert!(!String::from_utf8_lossy(&talk.to_server).contains("SELECT"));
}

#[test]
fn a_message_that_breaks_the_protocol_ends_the_session_with_a_reason() {
    for bytes in [
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0xff, 0xff, 0xff, 0xff],
        vec![b'q', 0, 0, 0, 4],
        message(b'Q', b"SELECT 1"),
        message(b'Q', b"SELECT 1\0more"),
        message(b'p', b"secret\0"),
    ] {
        let mut talk = Talk::new(NO_DROP);
        talk.agent(&bytes);
        assert!(talk.to_server.is_empty());
        let got = talk.agent_got();
        assert_eq!(field(&got[0].1, b'C'), "08P01", "{bytes:?}");
        assert!(matches!(talk.end, Some(End::Refused(_))));
    }
}

#[test]
fn a_statement_too_long_to_be_judged_is_refused_before_it_is_buffered() {
    let mut talk = Talk::new(NO_DROP);
    talk.agent(&[b'Q', 0x40, 0, 0, 0, b'S']);
    assert_eq!(field(&talk.agent_got()[0].1, b'C'), "54000");
}
