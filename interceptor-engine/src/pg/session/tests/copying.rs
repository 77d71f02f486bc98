use super::*;

const SSN: &str = "
version: 1
rules:
  - name: ssn
    match: { protocol: postgres }
    mask:
      - { columns: [\"users.ssn\"], with: redact }
";

/// `CopyOutResponse` or `CopyInResponse` of text columns.
fn copy_response(tag: u8, columns: u16) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(&columns.to_be_bytes());
    body.extend((0..columns).flat_map(|_| [0, 0]));
    message(tag, &body)
}

#[test]
fn a_masked_column_stays_masked_in_copy_out() {
    let mut talk = Talk::new(SSN);
    talk.agent(&query("COPY users (id, ssn) TO STDOUT"));
    let mut reply = copy_response(b'H', 2);
    reply.extend(message(b'd', b"1\t078-05-1120\n"));
    reply.extend(message(b'd', b"2\t\\N\n"));
    empty(&mut reply, b"c");
    complete(&mut reply, "COPY 2");
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    let got = talk.agent_got();
    assert_eq!(tags(&got), "HddcCZ");
    assert_eq!(got[1].1, b"1\t[redacted]\n");
    assert_eq!(got[2].1, b"2\t\\N\n");
}

#[test]
fn a_copy_that_cannot_be_masked_is_refused() {
    for sql in [
        "COPY users TO STDOUT",
        "COPY users (id, ssn) TO STDOUT (FORMAT csv)",
        "COPY users (id, ssn) TO STDOUT (FORMAT binary)",
        "COPY (SELECT upper(ssn) FROM users) TO STDOUT",
        "COPY (SELECT * FROM users) TO STDOUT",
        "COPY users (id, ssn) TO STDOUT (DELIMITER ',')",
    ] {
        let mut talk = Talk::new(SSN);
        talk.agent(&query(sql));
        assert!(
            !String::from_utf8_lossy(&talk.to_server).contains("COPY"),
            "{sql}"
        );
    }
    let mut talk = Talk::new(SSN);
    talk.agent(&query("COPY users (id) TO STDOUT (FORMAT csv)"));
    assert!(String::from_utf8_lossy(&talk.to_server).contains("COPY"));
}

#[test]
fn a_sync_within_copy_in_is_the_server_s_to_swallow() {
    let mut talk = Talk::new("version: 1\nrules: []\n");
    talk.agent(
        &[
            parse("", "COPY t FROM STDIN"),
            bind("", ""),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    let mut reply = Vec::new();
    empty(&mut reply, b"12");
    reply.extend(copy_response(b'G', 1));
    talk.server(&reply);
    talk.agent(&message(b'd', b"1\n"));
    talk.agent(&[message(b'c', &[]), sync()].concat());
    let mut reply = Vec::new();
    complete(&mut reply, "COPY 1");
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    assert_eq!(tags(&talk.agent_got()), "12GCZ");
    assert!(talk.end.is_none(), "{:?}", talk.end);
    assert!(talk.kinds().contains(&Kind::Input));
    talk.agent(&query("SELECT 1"));
    let mut reply = Vec::new();
    complete(&mut reply, "SELECT 1");
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    assert!(talk.end.is_none());
}
