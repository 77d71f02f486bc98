use super::*;
use crate::pg::catalog::TableInfo;

const SSN: &str = "
version: 1
rules:
  - name: ssn
    match: { protocol: postgres }
    mask:
      - { columns: [\"users.ssn\"], with: redact }
";

const TEXT: u32 = 25;
const INT4: u32 = 23;

fn users(oid: u32) -> TableInfo {
    TableInfo {
        oid,
        schema: "public".to_owned(),
        name: "users".to_owned(),
        columns: vec![(1, "id".to_owned()), (2, "ssn".to_owned())],
        ..TableInfo::default()
    }
}

fn answer(rows: &[&[Option<&[u8]>]], fields: &[(&str, u32, i16, u32, i16)]) -> Vec<u8> {
    let mut out = Vec::new();
    description(&mut out, fields);
    for values in rows {
        row(&mut out, values);
    }
    complete(&mut out, "SELECT 1");
    ready(&mut out, TransactionStatus::Idle);
    out
}

#[test]
fn a_column_is_masked_by_where_it_comes_from_whatever_it_is_called() {
    let mut talk = Talk::with(SSN, true);
    talk.agent(&query("SELECT id, ssn AS harmless FROM users"));
    let all = answer(
        &[&[Some(b"1"), Some(b"078-05-1120")], &[Some(b"2"), None]],
        &[("id", 99, 1, INT4, 0), ("harmless", 99, 2, TEXT, 0)],
    );
    talk.server(&all);
    assert_eq!(talk.asked, Some(vec![99]));
    assert!(
        talk.agent_got().is_empty(),
        "nothing goes on before the names are known"
    );
    assert!(!talk.session.wants_read(Side::Upstream));
    let mut out = Outbox::default();
    talk.session
        .handle_catalog(FlowTime(2), vec![users(99)], &mut out);
    talk.take(out, &[]);
    let got = talk.agent_got();
    assert_eq!(tags(&got), "TDDCZ");
    assert_eq!(
        values(&got[1].1),
        [Some(b"1".to_vec()), Some(b"[redacted]".to_vec())]
    );
    assert_eq!(values(&got[2].1), [Some(b"2".to_vec()), None]);
    let recorded: Vec<u8> = talk.events.iter().flat_map(|e| e.data.clone()).collect();
    assert!(!String::from_utf8_lossy(&recorded).contains("078-05"));
    assert!(talk.kinds().contains(&Kind::Mask));
}

#[test]
fn without_a_catalog_the_statement_speaks_and_doubt_hides() {
    for sql in [
        "SELECT ssn FROM users",
        "SELECT u.ssn AS x FROM users u",
        "SELECT * FROM users",
        "SELECT upper(ssn) FROM users",
        "SELECT x FROM (SELECT ssn AS x FROM users) s",
    ] {
        let mut talk = Talk::new(SSN);
        talk.agent(&query(sql));
        let name = if sql.contains('*') { "ssn" } else { "x" };
        talk.server(&answer(
            &[&[Some(b"078-05-1120")]],
            &[(name, 0, 0, TEXT, 0)],
        ));
        let got = talk.agent_got();
        assert_eq!(values(&got[1].1), [Some(b"[redacted]".to_vec())], "{sql}");
    }
    let mut talk = Talk::new(SSN);
    talk.agent(&query("SELECT id FROM users"));
    talk.server(&answer(&[&[Some(b"7")]], &[("id", 0, 0, INT4, 0)]));
    assert_eq!(values(&talk.agent_got()[1].1), [Some(b"7".to_vec())]);
}

#[test]
fn a_masked_integer_is_still_an_integer_or_null_in_both_formats() {
    let yaml = SSN.replace("redact", "hash");
    for (format, value) in [(0, &b"1234567"[..]), (1, &[0, 18, 214, 135][..])] {
        let mut talk = Talk::new(&yaml);
        talk.agent(&query("SELECT ssn FROM users"));
        talk.server(&answer(&[&[Some(value)]], &[("ssn", 0, 0, INT4, format)]));
        let got = values(&talk.agent_got()[1].1);
        let hidden = got[0].clone().unwrap();
        assert_ne!(hidden, value);
        if format == 0 {
            String::from_utf8(hidden).unwrap().parse::<i32>().unwrap();
        } else {
            assert_eq!(hidden.len(), 4);
        }
    }
    let mut talk = Talk::new(SSN);
    talk.agent(&query("SELECT ssn FROM users"));
    talk.server(&answer(&[&[Some(b"1234567")]], &[("ssn", 0, 0, INT4, 0)]));
    assert_eq!(values(&talk.agent_got()[1].1), [None]);
}

#[test]
fn a_detector_hides_in_part_what_it_finds_in_any_column() {
    let mut talk = Talk::new(
        "
version: 1
rules:
  - name: cards
    match: { protocol: postgres }
    mask:
      - { detect: [credit_card], with: redact }
",
    );
    talk.agent(&query("SELECT note, n FROM notes"));
    talk.server(&answer(
        &[&[
            Some(b"card 4111 1111 1111 1111 ok"),
            Some(b"4111111111111111"),
        ]],
        &[("note", 0, 0, TEXT, 0), ("n", 0, 0, 20, 0)],
    ));
    let got = values(&talk.agent_got()[1].1);
    assert_eq!(got[0].as_deref(), Some(&b"card [redacted] ok"[..]));
    assert_eq!(got[1], None, "a number has no redacted form but NULL");
}

#[test]
fn an_execution_whose_columns_were_not_described_is_described_first() {
    let mut talk = Talk::new(SSN);
    talk.agent(
        &[
            parse("", "SELECT ssn FROM users"),
            bind("", ""),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&talk.server_got()), "PBDES");
    let mut reply = Vec::new();
    empty(&mut reply, b"12");
    description(&mut reply, &[("ssn", 0, 0, TEXT, 0)]);
    row(&mut reply, &[Some(b"078-05-1120")]);
    complete(&mut reply, "SELECT 1");
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    let got = talk.agent_got();
    assert_eq!(
        tags(&got),
        "12DCZ",
        "the description that we asked for is not the agent's"
    );
    assert_eq!(values(&got[2].1), [Some(b"[redacted]".to_vec())]);
}

#[test]
fn an_error_does_not_quote_what_is_masked() {
    let mut talk = Talk::new(SSN);
    talk.agent(&query("INSERT INTO users (ssn) VALUES ('x')"));
    let mut reply = Vec::new();
    NoticeBuilder::error("23505", "duplicate key value violates unique constraint")
        .detail("Key (ssn)=(078-05-1120) already exists.")
        .encode_error(&mut reply);
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    assert!(!String::from_utf8_lossy(&talk.to_agent).contains("078-05"));
    let recorded: String = talk.events.iter().map(|e| e.meta.clone()).collect();
    assert!(!recorded.contains("078-05"));
}

#[test]
fn a_row_that_does_not_fit_its_description_is_never_passed() {
    let mut talk = Talk::new(SSN);
    talk.agent(&query("SELECT ssn FROM users"));
    let mut reply = Vec::new();
    description(&mut reply, &[("ssn", 0, 0, TEXT, 0)]);
    row(&mut reply, &[Some(b"a"), Some(b"078-05-1120")]);
    talk.server(&reply);
    assert!(!String::from_utf8_lossy(&talk.to_agent).contains("078-05"));
    assert!(matches!(talk.end, Some(End::Refused(_))));
}
