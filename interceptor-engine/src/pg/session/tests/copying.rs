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

/// What the agent gets of these rows of a `COPY` that `sql` asks for.
fn copied(sql: &str, binary: bool, rows: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut talk = Talk::new(SSN);
    talk.agent(&query(sql));
    let mut response = copy_response(b'H', 2);
    if binary && let Some(format) = response.get_mut(5) {
        *format = 1;
    }
    let mut reply = response;
    for row in rows {
        reply.extend(message(b'd', row));
    }
    empty(&mut reply, b"c");
    complete(&mut reply, "COPY 2");
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    let got = talk.agent_got();
    let rows = got.into_iter().filter(|(tag, _)| *tag == b'd');
    rows.map(|(_, body)| body).collect()
}

#[test]
fn a_copy_is_masked_in_every_format() {
    let csv = copied(
        "COPY users (ssn, name) TO STDOUT (FORMAT csv, HEADER)",
        false,
        &[
            b"ssn,name\n",
            b"078-05-1120,\"a \"\"quoted\"\", one\"\n",
            b"\"078-05\n-1120\",x\n",
            b",\"\"\n",
        ],
    );
    assert_eq!(csv[0], b"ssn,name\n");
    assert_eq!(csv[1], b"\"[redacted]\",\"a \"\"quoted\"\", one\"\n");
    assert_eq!(csv[2], b"\"[redacted]\",x\n");
    assert_eq!(csv[3], b",\"\"\n", "NULL stays NULL");
    let text = copied(
        "COPY users (ssn, name) TO STDOUT (DELIMITER '|', NULL 'none')",
        false,
        &[b"078\\|05|a\\|b\n", b"none|x\n"],
    );
    assert_eq!(text[0], b"[redacted]|a\\|b\n");
    assert_eq!(text[1], b"none|x\n");
    let computed = copied(
        "COPY (SELECT name, nullif(ssn, 'a guess') FROM users) TO STDOUT",
        false,
        &[b"x\t\\N\n", b"x\t078-05-1120\n"],
    );
    assert_eq!(computed[0], b"x\t[redacted]\n");
    assert_eq!(computed[1], b"x\t[redacted]\n");
    let mut first = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    first.extend_from_slice(b"\0\x02\0\0\0\x03078\0\0\0\x01x");
    let binary = copied(
        "COPY users (ssn, name) TO STDOUT (FORMAT binary)",
        true,
        &[&first, b"\xff\xff"],
    );
    assert!(binary[0].ends_with(b"\0\x02\xff\xff\xff\xff\0\0\0\x01x"));
    assert_eq!(binary[1], b"\xff\xff");
}

#[test]
fn a_copy_row_of_other_columns_than_were_listed_never_passes() {
    for row in [
        &b"078-05-1120\n"[..],
        b"a\tb\t078-05-1120\n",
        b"078-05-1120",
    ] {
        let got = copied("COPY users (ssn, name) TO STDOUT", false, &[row]);
        assert!(got.is_empty(), "{got:?}");
    }
}

#[test]
fn a_copy_that_cannot_be_masked_is_refused() {
    for sql in [
        "COPY users TO STDOUT",
        "COPY (SELECT * FROM users) TO STDOUT",
        "COPY (SELECT u.*, 1 FROM users u) TO STDOUT (FORMAT csv)",
        "COPY users (id, ssn) TO STDOUT (ENCODING 'latin1')",
        "COPY users (id, ssn) TO STDOUT (SOMETHING 'new')",
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
