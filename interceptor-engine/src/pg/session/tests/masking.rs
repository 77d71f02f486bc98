use super::*;
use crate::pg::catalog::TableInfo;
use interceptor_proto::pg::backend::notice::code;

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
    talk.server(&answer(&[&[Some(b"7")]], &[("id", 99, 1, INT4, 0)]));
    assert_eq!(values(&talk.agent_got()[1].1), [Some(b"7".to_vec())]);
}

#[test]
fn what_the_server_calls_no_column_of_a_table_may_be_a_function_of_its_row() {
    let mut talk = Talk::new(SSN);
    talk.agent(&query("SELECT u.number FROM users u"));
    talk.server(&answer(&[&[Some(b"7")]], &[("number", 0, 0, TEXT, 0)]));
    assert_eq!(
        values(&talk.agent_got()[1].1),
        [Some(b"[redacted]".to_vec())]
    );
}

#[test]
fn what_is_computed_is_hidden_whole_and_so_is_whether_it_is_null() {
    for with in ["hash", "partial", "redact"] {
        let mut talk = Talk::new(&SSN.replace("redact", with));
        talk.agent(&query("SELECT nullif(ssn, '078-05-1120') FROM users"));
        talk.server(&answer(
            &[&[Some(b"219-09-9999")], &[None]],
            &[("nullif", 0, 0, TEXT, 0)],
        ));
        let got = talk.agent_got();
        let redacted = [Some(b"[redacted]".to_vec())];
        assert_eq!(values(&got[1].1), redacted, "{with}");
        assert_eq!(values(&got[2].1), redacted, "{with}");
    }
}

#[test]
fn each_statement_of_a_message_is_masked_by_its_own_columns() {
    let mut talk = Talk::new(SSN);
    talk.agent(&query(
        "SELECT count(*) FROM orders; SELECT upper(ssn) FROM users",
    ));
    let mut reply = Vec::new();
    for name in ["count", "upper"] {
        description(&mut reply, &[(name, 0, 0, TEXT, 0)]);
        row(&mut reply, &[Some(b"3")]);
        complete(&mut reply, "SELECT 1");
    }
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    let got = talk.agent_got();
    assert_eq!(values(&got[1].1), [Some(b"3".to_vec())]);
    assert_eq!(values(&got[4].1), [Some(b"[redacted]".to_vec())]);
}

#[test]
fn a_masked_value_is_not_put_where_no_mask_follows_it() {
    for sql in [
        "INSERT INTO notes SELECT ssn FROM users",
        "INSERT INTO users (name) SELECT ssn FROM users",
        "CREATE TABLE copy AS SELECT * FROM users",
        "SELECT ssn INTO copy FROM users",
        "UPDATE users SET name = ssn",
        "UPDATE notes n SET text = u.ssn FROM users u",
        "UPDATE users SET (name, note) = (SELECT ssn, id FROM users LIMIT 1)",
        "INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = users.ssn",
        "MERGE INTO notes USING users ON true WHEN NOT MATCHED THEN INSERT (text) VALUES (users.ssn)",
        "WITH w AS (INSERT INTO notes SELECT ssn FROM users RETURNING 1) SELECT * FROM w",
        "CREATE VIEW v AS SELECT ssn FROM users",
        "CREATE MATERIALIZED VIEW v AS SELECT ssn FROM users",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql RETURN (SELECT ssn FROM users LIMIT 1)",
        "CREATE RULE r AS ON UPDATE TO users DO ALSO INSERT INTO notes VALUES (old.ssn)",
        "CREATE TRIGGER t AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION f()",
        "COPY users TO '/tmp/x'",
        "COPY (SELECT ssn FROM users) TO PROGRAM 'cat'",
        "SELECT set_config('a.b', ssn, false) FROM users",
        "SELECT pg_notify('x', ssn) FROM users",
        "SELECT lo_from_bytea(0, ssn::bytea) FROM users",
        "SELECT unknown_function(ssn) FROM users",
        "ALTER TABLE users RENAME COLUMN ssn TO x",
        "ALTER TABLE users RENAME TO people",
        "ALTER TABLE users SET SCHEMA other",
        "ALTER TABLE users ADD x text GENERATED ALWAYS AS (ssn) STORED",
        "ALTER TABLE users ALTER COLUMN name TYPE text USING ssn",
        "ALTER TABLE everybody ATTACH PARTITION users FOR VALUES IN (1)",
        "CREATE PUBLICATION p FOR TABLE users",
        "EXPLAIN ANALYZE INSERT INTO notes SELECT ssn FROM users",
        "PREPARE p AS INSERT INTO notes SELECT ssn FROM users",
        "SELECT most_common_vals FROM pg_stats",
    ] {
        let mut talk = Talk::new(SSN);
        talk.agent(&query(sql));
        assert!(
            String::from_utf8_lossy(&talk.to_server).contains("refused by"),
            "{sql}"
        );
    }
}

#[test]
fn what_stays_under_its_mask_is_let_through() {
    for sql in [
        "UPDATE users SET ssn = '078-05-1120' WHERE id = 1",
        "UPDATE users SET ssn = upper(ssn), name = 'x'",
        "UPDATE users SET name = 'x' WHERE ssn = '078-05-1120'",
        "INSERT INTO users (id, ssn) VALUES (1, '078-05-1120')",
        "INSERT INTO users VALUES (1, '078-05-1120')",
        "INSERT INTO users (id, ssn) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn",
        "INSERT INTO users (id, ssn) SELECT id + 1, ssn FROM users",
        "INSERT INTO notes (text) SELECT name FROM users",
        "CREATE TABLE copy AS SELECT id, name FROM users",
        "CREATE VIEW v AS SELECT id FROM users",
        "CREATE INDEX ON users (ssn)",
        "ALTER TABLE users RENAME COLUMN name TO x",
        "ALTER TABLE users ALTER COLUMN ssn TYPE varchar(20) USING ssn::varchar(20)",
        "ALTER TABLE orders RENAME TO orders2",
        "DELETE FROM users WHERE ssn IS NULL",
        "EXPLAIN INSERT INTO notes SELECT ssn FROM users",
        "SELECT pg_notify('x', name) FROM users",
    ] {
        let mut talk = Talk::new(SSN);
        talk.agent(&query(sql));
        assert!(
            !String::from_utf8_lossy(&talk.to_server).contains("refused by"),
            "{sql}"
        );
    }
}

#[test]
fn a_masked_integer_is_still_an_integer_or_null_in_both_formats() {
    let yaml = SSN.replace("redact", "hash");
    for (format, value) in [(0, &b"1234567"[..]), (1, &[0, 18, 214, 135][..])] {
        let mut talk = Talk::new(&yaml);
        talk.agent(&query("SELECT ssn FROM users"));
        talk.server(&answer(&[&[Some(value)]], &[("ssn", 99, 2, INT4, format)]));
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
fn what_another_session_says_goes_through_detectors() {
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
    for (said, heard) in [
        ("card 4111 1111 1111 1111 ok", "card [redacted] ok"),
        ("nothing of note", "nothing of note"),
    ] {
        let body = [
            &7_u32.to_be_bytes()[..],
            b"channel\0",
            said.as_bytes(),
            b"\0",
        ]
        .concat();
        talk.server(&message(b'A', &body));
        let got = talk.agent_got();
        let expected = [
            &7_u32.to_be_bytes()[..],
            b"channel\0",
            heard.as_bytes(),
            b"\0",
        ]
        .concat();
        assert_eq!(got.last(), Some(&(b'A', expected)));
    }
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

/// What the agent is told when the server answers `sql` with `error`.
fn told(sql: &str, error: NoticeBuilder<'_>) -> String {
    let mut talk = Talk::new(SSN);
    talk.agent(&query(sql));
    let mut reply = Vec::new();
    error.encode_error(&mut reply);
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    let recorded: String = talk
        .events
        .iter()
        .map(|e| format!("{}{}", e.line, e.meta))
        .collect();
    assert!(!recorded.contains("078-05"), "{sql}: {recorded}");
    String::from_utf8_lossy(&talk.to_agent).into_owned()
}

#[test]
fn no_field_of_an_error_quotes_a_masked_value() {
    for (sql, error) in [
        (
            "SELECT ssn::int FROM users",
            NoticeBuilder::error(
                "22P02",
                "invalid input syntax for type integer: \"078-05-1120\"",
            ),
        ),
        (
            "SELECT * FROM users",
            NoticeBuilder::error("P0001", "078-05-1120 was raised").hint("078-05-1120"),
        ),
        (
            "UPDATE users SET name = NULL",
            NoticeBuilder::error("23502", "null value in column \"name\"")
                .detail("Failing row contains (1, null, 078-05-1120)."),
        ),
        (
            "COMMIT",
            NoticeBuilder::error("23505", "duplicate key value")
                .detail("Key (ssn)=(078-05-1120) already exists.")
                .field(code::TABLE, "users"),
        ),
        (
            "SELECT name FROM users",
            NoticeBuilder::error("XX000", "something")
                .field(code::WHERE, "PL/pgSQL function f(078-05-1120)"),
        ),
        (
            "CALL p()",
            NoticeBuilder::error("P0001", "078-05-1120").field(code::CONSTRAINT, "078-05-1120"),
        ),
    ] {
        let told = told(sql, error);
        assert!(!told.contains("078-05"), "{sql}: {told}");
    }
}

#[test]
fn an_error_about_the_statement_itself_stays_whole() {
    let column = told(
        "SELECT ssn, nme FROM users",
        NoticeBuilder::error("42703", "column \"nme\" does not exist")
            .hint("Perhaps you meant \"users.name\".")
            .field(code::POSITION, "13"),
    );
    assert!(column.contains("\"nme\" does not exist") && column.contains("users.name"));
    let key = told(
        "INSERT INTO users (id) VALUES (1)",
        NoticeBuilder::error("23505", "duplicate key value")
            .detail("Key (id)=(1) already exists.")
            .field(code::TABLE, "users"),
    );
    assert!(key.contains("Key (id)=(1)"), "{key}");
    let cancelled = told(
        "SELECT ssn FROM users",
        NoticeBuilder::error("57014", "canceling statement due to user request"),
    );
    assert!(cancelled.contains("due to user request"));
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

#[test]
fn a_card_s_number_in_eight_bytes_is_found_as_one_in_digits_is() {
    let mut talk = Talk::new(
        "
version: 1
rules:
  - name: cards
    match: {}
    mask: [{ detect: credit_card, with: redact }]
",
    );
    talk.agent(
        &[
            parse("", "SELECT n FROM t"),
            binding_binary(),
            execute(""),
            sync(),
        ]
        .concat(),
    );
    let mut answer = Vec::new();
    empty(&mut answer, b"12");
    description(&mut answer, &[("n", 0, 0, 20, 1)]);
    row(
        &mut answer,
        &[Some(&4_111_111_111_111_111_i64.to_be_bytes())],
    );
    row(&mut answer, &[Some(&7_i64.to_be_bytes())]);
    talk.server(&answer);
    let got = talk.agent_got();
    let rows: Vec<_> = got
        .iter()
        .filter(|(tag, _)| *tag == b'D')
        .map(|(_, body)| values(body))
        .collect();
    assert_eq!(rows, [vec![None], vec![Some(7_i64.to_be_bytes().to_vec())]]);
}

/// `Bind` of no parameters that asks for everything in binary.
fn binding_binary() -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&[0, 1, 0, 1]);
    message(b'B', &body)
}
