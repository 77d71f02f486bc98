use proptest::prelude::*;

use super::*;

const RULES: &str = "
version: 1
rules:
  - name: no-drop
    match: { postgres: { statement: [DROP] } }
    verdict: block
  - name: ssn
    match: { postgres: { tables: [users] } }
    mask:
      - { columns: [\"users.ssn\"], with: redact }
";

/// What an agent sends and a server answers, in rounds.
fn rounds() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut select = Vec::new();
    description(&mut select, &[("n", 0, 0, 23, 0)]);
    for n in 0..50 {
        row(&mut select, &[Some(n.to_string().as_bytes())]);
    }
    complete(&mut select, "SELECT 50");
    ready(&mut select, TransactionStatus::Idle);

    let mut refused = Vec::new();
    error(&mut refused, "42601", "syntax error");
    ready(&mut refused, TransactionStatus::Idle);

    let mut masked = Vec::new();
    empty(&mut masked, b"12");
    description(&mut masked, &[("ssn", 0, 0, 25, 0)]);
    row(&mut masked, &[Some(b"078-05-1120")]);
    row(&mut masked, &[None]);
    complete(&mut masked, "SELECT 2");
    ready(&mut masked, TransactionStatus::Idle);

    let mut noticed = Vec::new();
    NoticeBuilder::error("00000", "x").encode_notice(&mut noticed);
    complete(&mut noticed, "SET");
    ready(&mut noticed, TransactionStatus::Idle);
    vec![
        (query("SELECT n FROM generate_series(0, 49) n"), select),
        (query("DROP TABLE x"), refused),
        (
            [
                parse("", "SELECT ssn FROM users"),
                bind("", ""),
                execute(""),
                sync(),
            ]
            .concat(),
            masked,
        ),
        (query("SET work_mem = '4MB'"), noticed),
    ]
}

/// To the agent, to the server, and on record.
type Everything = (Vec<u8>, Vec<u8>, Vec<(Kind, Option<u64>, String)>);

/// Everything that comes out when both streams are cut like this.
fn outcome(cuts: &[usize]) -> Everything {
    let mut talk = Talk::new(RULES);
    let mut cuts = cuts.iter().copied().cycle();
    for (agent, server) in rounds() {
        for (side, bytes) in [(Side::Downstream, agent), (Side::Upstream, server)] {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let n = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len());
                talk.feed(side, &rest[..n]);
                rest = &rest[n..];
            }
        }
    }
    assert!(talk.end.is_none(), "{:?}", talk.end);
    let events = talk
        .events
        .iter()
        .map(|event| {
            (
                event.kind,
                event.exchange,
                String::from_utf8_lossy(&event.data).into_owned(),
            )
        })
        .collect();
    (talk.to_agent, talk.to_server, events)
}

#[test]
fn any_single_cut_gives_the_same_bytes() {
    let whole = outcome(&[usize::MAX]);
    assert!(!whole.0.is_empty());
    for size in 1..200 {
        assert_eq!(outcome(&[size]), whole, "chunks of {size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunking_gives_the_same_bytes_and_the_same_record(cuts in proptest::collection::vec(1_usize..400, 1..20)) {
        prop_assert_eq!(outcome(&cuts), outcome(&[usize::MAX]));
    }

    #[test]
    fn no_bytes_of_either_side_make_it_panic(
        agent in proptest::collection::vec(any::<u8>(), 0..300),
        server in proptest::collection::vec(any::<u8>(), 0..300),
        tags in proptest::collection::vec(proptest::sample::select(b"QPBDECHSFdcfXTDCIZEN12t3nsGHWVAKRS".to_vec()), 0..12),
    ) {
        let mut talk = Talk::new(RULES);
        talk.agent(&query("SELECT ssn FROM users"));
        let mut framed = Vec::new();
        for tag in tags {
            framed.extend(message(tag, server.get(..20).unwrap_or(&server)));
        }
        talk.feed(Side::Upstream, &framed);
        talk.feed(Side::Downstream, &framed);
        talk.feed(Side::Downstream, &agent);
        talk.feed(Side::Upstream, &server);
    }
}

#[test]
fn rows_that_no_rule_touches_are_ranges_of_the_input() {
    let mut talk = Talk::new("version: 1\nrules: []\n");
    talk.agent(&query("SELECT 1"));
    let (_, server) = rounds().remove(0);
    let mut out = Outbox::default();
    talk.session
        .handle_bytes(FlowTime(1), Side::Upstream, &server, &mut out);
    assert_eq!(out.downstream, [Piece::Input(0..server.len())]);
}

#[test]
fn a_row_of_a_gigabyte_passes_in_bounded_memory() {
    let mut talk = Talk::new("version: 1\nrules: []\n");
    talk.agent(&query("SELECT big FROM t"));
    let mut start = Vec::new();
    description(&mut start, &[("big", 0, 0, 25, 0)]);
    talk.server(&start);
    let size: u32 = 1 << 30;
    let mut head = vec![b'D'];
    head.extend_from_slice(&(size + 4).to_be_bytes());
    talk.server(&head);
    let chunk = vec![b'x'; 1 << 20];
    let mut passed = 0;
    for _ in 0..(size as usize / chunk.len()) {
        let mut out = Outbox::default();
        talk.session
            .handle_bytes(FlowTime(1), Side::Upstream, &chunk, &mut out);
        assert_eq!(out.downstream, [Piece::Input(0..chunk.len())]);
        passed += chunk.len();
    }
    assert_eq!(passed, size as usize);
    assert!(talk.session.up.kept.is_empty());
}

#[test]
fn a_row_too_long_to_be_masked_is_refused_and_not_buffered() {
    let mut talk = Talk::new(RULES);
    talk.agent(&query("SELECT ssn FROM users"));
    let mut start = Vec::new();
    description(&mut start, &[("ssn", 0, 0, 25, 0)]);
    start.extend_from_slice(&[b'D', 0x40, 0, 0, 0]);
    talk.server(&start);
    assert!(matches!(talk.end, Some(End::Refused(_))));
    assert!(talk.session.up.kept.is_empty());
}

#[test]
fn the_record_of_an_execution_begins_with_its_columns() {
    let mut talk = Talk::new("version: 1\nrules: []\n");
    let asked = [
        parse("", "SELECT n FROM t"),
        message(b'D', b"S\0"),
        bind("", ""),
        execute(""),
        sync(),
    ];
    talk.agent(&asked.concat());
    let mut reply = Vec::new();
    empty(&mut reply, b"1");
    reply.extend(message(b't', &[0, 0]));
    description(&mut reply, &[("n", 0, 0, 23, 0)]);
    empty(&mut reply, b"2");
    row(&mut reply, &[Some(b"1")]);
    complete(&mut reply, "SELECT 1");
    ready(&mut reply, TransactionStatus::Idle);
    talk.server(&reply);
    let result = talk.events.iter().find(|e| e.kind == Kind::Result).unwrap();
    assert_eq!(tags(&messages(&result.data)), "TD");
}
