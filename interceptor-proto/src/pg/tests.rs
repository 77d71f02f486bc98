//! Round trips and hostile input, over every message at once.
//!
//! Messages are made of their fields by [`Made`].

use proptest::{collection::vec, prelude::*};

use super::{
    BINARY, PgError, TEXT,
    backend::{self, NoticeBuilder, Severity},
    frame::{self, frame},
    frontend::{self, Subject},
    made::{Made, answered, bytes, sent, text, values},
    startup::{self, CancelRequest, StartupBuilder, StartupPacket},
    tag,
};
use crate::fuzzing;

/// Whether PostgreSQL ignores what such a message carries.
fn is_lenient(tag: u8) -> bool {
    matches!(
        tag,
        tag::frontend::COPY_DATA
            | tag::frontend::COPY_DONE
            | tag::frontend::COPY_FAIL
            | tag::frontend::PASSWORD
            | tag::frontend::TERMINATE
    )
}

proptest! {
    #[test]
    fn every_message_of_the_client_is_read_and_written_back(raw in sent()) {
        let (_, frame) = frame(&raw, 1 << 20).unwrap();
        prop_assert!(frontend::Message::parse(frame.tag, frame.body).is_ok());
        fuzzing::pg_frontend(&raw);
    }

    #[test]
    fn every_message_of_the_server_is_read_and_written_back(raw in answered()) {
        let (_, frame) = frame(&raw, 1 << 20).unwrap();
        prop_assert!(backend::Message::parse(frame.tag, frame.body).is_ok());
        fuzzing::pg_backend(&raw);
    }

    #[test]
    fn a_message_of_the_client_that_ends_early_or_late_is_refused(raw in sent(), extra: u8) {
        let tag = raw[0];
        prop_assume!(!is_lenient(tag));
        for cut in 5..raw.len() {
            prop_assert!(frontend::Message::parse(tag, &raw[5..cut]).is_err(), "cut at {}", cut);
        }
        let long = [&raw[5..], &[extra]].concat();
        prop_assert!(frontend::Message::parse(tag, &long).is_err());
    }

    #[test]
    fn a_row_that_ends_early_or_late_is_refused_both_ways(columns in values(), extra: u8) {
        let raw = Made::new().values(&columns).0;
        let read = |body: &[u8]| {
            let walked = backend::Columns::new(body).and_then(|c| c.collect::<Result<Vec<_>, _>>().map(|_| ()));
            (walked.is_ok(), backend::DataRow::parse(body).is_ok())
        };
        prop_assert_eq!(read(&raw), (true, true));
        for cut in 0..raw.len() {
            prop_assert_eq!(read(&raw[..cut]), (false, false), "cut at {}", cut);
        }
        prop_assert_eq!(read(&[&raw[..], &[extra]].concat()), (false, false));
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames(
        messages in vec(prop_oneof![sent(), answered()], 1..6),
        cut: prop::sample::Index,
    ) {
        let stream = messages.concat();
        let mut kept = Vec::new();
        let mut frames = Vec::new();
        let (a, b) = stream.split_at(cut.index(stream.len()));
        for read in [a, b] {
            kept.extend_from_slice(read);
            let mut used = 0;
            while let Ok((rest, frame)) = frame(&kept[used..], 1 << 20) {
                frames.push(frame.raw.to_vec());
                used = kept.len() - rest.len();
            }
            kept.drain(..used);
        }
        prop_assert_eq!(frames, messages);
        prop_assert!(kept.is_empty());
    }

    #[test]
    fn corruption_is_read_or_refused_and_never_panics(
        raw in prop_oneof![sent(), answered()],
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut raw = raw;
        for (at, to) in changes {
            let at = at.index(raw.len());
            raw[at] = to;
        }
        fuzzing::pg_frame(&raw);
        fuzzing::pg_frontend(&raw);
        fuzzing::pg_backend(&raw);
        fuzzing::pg_startup(&raw);
    }

    #[test]
    fn every_startup_packet_is_read_and_written_back(
        minor: u16,
        parameters in vec((vec(1u8..=255, 1..20), text()), 0..10),
        after in bytes(),
    ) {
        let made = Made::new().raw(&[0, 3]).raw(&minor.to_be_bytes());
        let made = parameters.iter().fold(made, |m, (n, v)| m.text(n).text(v)).raw(&[0]);
        let raw = [&(made.0.len() as u32 + 4).to_be_bytes()[..], &made.0].concat();
        for cut in 0..raw.len() {
            let read = startup::packet(&raw[..cut], u32::MAX);
            prop_assert!(read.is_err_and(|e| e.is_incomplete()), "cut at {}", cut);
        }
        let bytes = [&raw[..], &after].concat();
        let (rest, packet) = startup::packet(&bytes, u32::MAX).unwrap();
        prop_assert_eq!(rest, &after[..]);
        let StartupPacket::Startup(read) = packet else { panic!("{packet:?}") };
        prop_assert_eq!((read.minor, read.raw), (minor, &raw[..]));
        prop_assert_eq!(read.parameters.len(), parameters.len());
        fuzzing::pg_startup(&bytes);
    }
}

#[test]
fn sixty_five_thousand_parameters_are_walked_in_place() {
    for count in [10_000, u16::MAX.into()] {
        let values = vec![Some(b"x".to_vec()); count];
        let raw = Made::new()
            .text(b"")
            .text(b"")
            .shorts(&[])
            .values(&values)
            .shorts(&[])
            .0;
        let bind = frontend::Bind::parse(&raw).unwrap();
        assert_eq!(bind.parameters.len(), count);
        assert!(bind.parameters.clone().all(|value| value == Some(b"x")));
        assert_eq!(bind.parameters.count(), count);
    }
}

#[test]
fn a_negative_length_is_null_only_when_it_is_minus_one() {
    let row = Made::new().count(1).raw(&(-2i32).to_be_bytes()).0;
    let error = PgError::NegativeLength {
        message: "DataRow",
        length: -2,
    };
    assert_eq!(backend::DataRow::parse(&row), Err(error.clone()));
    let mut columns = backend::Columns::new(&row).unwrap();
    assert_eq!(columns.next(), Some(Err(error)));
    assert_eq!(columns.next(), None);
}

#[test]
fn one_format_is_for_all_and_none_is_text() {
    let of = |codes: &[i16], index| {
        let raw = Made::new()
            .text(b"")
            .text(b"")
            .shorts(codes)
            .values(&[])
            .shorts(&[])
            .0;
        frontend::Bind::parse(&raw)
            .unwrap()
            .parameter_formats
            .of(index)
    };
    assert_eq!(of(&[], 7), Some(TEXT));
    assert_eq!(of(&[BINARY], 7), Some(BINARY));
    assert_eq!(of(&[TEXT, BINARY], 1), Some(BINARY));
    assert_eq!(of(&[TEXT, BINARY], 2), None);
}

#[test]
fn describe_and_close_know_two_kinds() {
    assert_eq!(
        frontend::Describe::parse(b"X\0"),
        Err(PgError::UnknownKind {
            message: "Describe",
            kind: b'X'
        })
    );
    let close = frontend::Close {
        subject: Subject::Portal(b"p"),
    };
    let mut out = Vec::new();
    close.encode(&mut out).unwrap();
    assert_eq!(out, b"C\0\0\0\x07Pp\0");
}

#[test]
fn what_cannot_be_written_leaves_the_buffer_as_it_was() {
    let mut out = b"before".to_vec();
    let zero = frontend::Query { sql: b"a\0b" }.encode(&mut out);
    assert_eq!(zero, Err(PgError::ZeroInString { message: "Query" }));
    let key = CancelRequest {
        process_id: 1,
        key: &[0; 257],
    }
    .encode(&mut out);
    assert_eq!(
        key,
        Err(PgError::KeyLength {
            message: "CancelRequest",
            length: 257
        })
    );
    let long = StartupBuilder::new(0)
        .set(b"user", &[b'a'; 10_000])
        .encode(&mut out);
    assert!(matches!(long, Err(PgError::TooLong { .. })));
    let unnamed = StartupBuilder::new(0).set(b"", b"a").encode(&mut out);
    assert_eq!(unnamed, Err(PgError::StartupLayout));
    let mut row = backend::DataRowBuilder::new(&mut out);
    row.column(Some(b"lost"));
    drop(row);
    let mut row = backend::DataRowBuilder::new(&mut out);
    (0..=u32::from(u16::MAX)).for_each(|_| row.column(None));
    assert!(row.finish().is_err());
    assert_eq!(out, b"before");
}

#[test]
fn of_a_parameter_given_twice_the_last_counts() {
    let mut raw = Vec::new();
    let made = Made::new().raw(&[0, 3, 0, 0]).text(b"user").text(b"agent");
    let made = made
        .text(b"database")
        .text(b"")
        .text(b"user")
        .text(b"postgres")
        .raw(&[0]);
    raw.extend_from_slice(&(made.0.len() as u32 + 4).to_be_bytes());
    raw.extend_from_slice(&made.0);
    let (_, StartupPacket::Startup(startup)) = startup::packet(&raw, u32::MAX).unwrap() else {
        panic!("no startup packet");
    };
    assert_eq!(startup.user(), Some(&b"postgres"[..]));
    assert_eq!(startup.database(), Some(&b"postgres"[..]));
    let mut other = Vec::new();
    startup
        .to_builder()
        .set(b"user", b"agent_rw")
        .encode(&mut other)
        .unwrap();
    let (_, StartupPacket::Startup(other)) = startup::packet(&other, u32::MAX).unwrap() else {
        panic!("no startup packet");
    };
    let expected: startup::Parameters<'_> = vec![(b"user", b"agent_rw"), (b"database", b"")];
    assert_eq!(other.parameters, expected);
}

#[test]
fn only_major_version_3_is_spoken() {
    for (major, minor) in [(0u16, 0u16), (2, 0), (4, 2), (1234, 5677)] {
        let version = [major.to_be_bytes(), minor.to_be_bytes()].concat();
        let raw = [&[0, 0, 0, 9][..], &version, &[0]].concat();
        assert_eq!(
            startup::packet(&raw, u32::MAX),
            Err(nom::Err::Failure(PgError::UnsupportedProtocol {
                major,
                minor
            }))
        );
    }
}

#[test]
fn the_last_byte_of_a_startup_packet_is_the_terminator_and_nothing_else() {
    for end in [&b"`"[..], b"\0\0", b"a\0", b""] {
        let made = Made::new()
            .raw(&[0, 3, 0, 0])
            .text(b"user")
            .text(b"a")
            .raw(end);
        let raw = [&(made.0.len() as u32 + 4).to_be_bytes()[..], &made.0].concat();
        assert_eq!(
            startup::packet(&raw, u32::MAX),
            Err(nom::Err::Failure(PgError::StartupLayout)),
            "{end:?}"
        );
    }
}

#[test]
fn a_list_of_mechanisms_ends_where_its_frame_does() {
    let list = |names: &[u8]| [&10u32.to_be_bytes()[..], names].concat();
    let scram = list(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    let read = backend::Authentication::parse(&scram).unwrap();
    let backend::Authentication::Sasl(mechanisms) = read else {
        panic!("{read:?}")
    };
    assert!(mechanisms.offers(b"SCRAM-SHA-256") && !mechanisms.offers(b"SCRAM"));
    assert_eq!(mechanisms.iter().count(), 2);
    for wrong in [
        &b"SCRAM-SHA-256\0"[..],
        b"SCRAM-SHA-256\0\0x",
        b"a\0\0b\0\0",
        b"a",
    ] {
        assert!(
            backend::Authentication::parse(&list(wrong)).is_err(),
            "{wrong:?}"
        );
    }
}

#[test]
fn replication_is_whatever_postgres_does_not_read_as_false() {
    let asks = |value: &[u8]| {
        let mut raw = Vec::new();
        StartupBuilder::new(0)
            .set(b"replication", value)
            .encode(&mut raw)
            .unwrap();
        match startup::packet(&raw, u32::MAX).unwrap().1 {
            StartupPacket::Startup(startup) => startup.is_replication(),
            other => panic!("{other:?}"),
        }
    };
    for yes in [
        &b"true"[..],
        b"database",
        b"1",
        b"on",
        b"t",
        b"yes",
        b"o",
        b"",
        b"falsey",
        b"2",
    ] {
        assert!(asks(yes), "{yes:?}");
    }
    for no in [&b"false"[..], b"F", b"0", b"off", b"of", b"no", b"n"] {
        assert!(!asks(no), "{no:?}");
    }
}

#[test]
fn a_startup_packet_outside_of_its_lengths_is_refused_at_its_length() {
    for declared in [0u32, 7, 10_005, 1 << 31, u32::MAX] {
        let limit = startup::LENGTH_MAX;
        assert_eq!(
            startup::packet(&declared.to_be_bytes(), u32::MAX),
            Err(nom::Err::Failure(PgError::StartupLength {
                declared,
                limit
            }))
        );
    }
    let longest = 10_004u32.to_be_bytes();
    assert!(startup::packet(&longest, u32::MAX).is_err_and(|e| e.is_incomplete()));
    assert!(startup::packet(&100u32.to_be_bytes(), 99).is_err_and(|e| !e.is_incomplete()));
}

#[test]
fn an_error_says_what_it_was_given_and_cannot_break_the_frame() {
    let long = "é".repeat(20_000);
    let mut out = Vec::new();
    NoticeBuilder::error(super::sqlstate::INSUFFICIENT_PRIVILEGE, "no\0Mforged")
        .detail(&long)
        .hint("rule r")
        .field(0, "never")
        .encode_error(&mut out);
    let (rest, frame) = frame(&out, 1 << 20).unwrap();
    assert_eq!((rest, frame.tag), (&b""[..], tag::backend::ERROR_RESPONSE));
    let notice = backend::Notice::parse(frame.body).unwrap();
    assert_eq!(notice.severity(), Some(&b"ERROR"[..]));
    assert_eq!(notice.sqlstate(), Some(&b"42501"[..]));
    assert_eq!(notice.message(), Some(&b"no Mforged"[..]));
    assert_eq!(
        notice.get(backend::notice::code::HINT),
        Some(&b"rule r"[..])
    );
    let detail = notice.get(backend::notice::code::DETAIL).unwrap();
    assert_eq!(detail.len(), 16 << 10);
    assert!(long.as_bytes().starts_with(detail));
    assert!(!notice.is_fatal());
    assert_eq!(notice.fields().count(), 6);
}

#[test]
fn a_notice_is_no_error_and_only_fatal_is_fatal() {
    let mut out = Vec::new();
    NoticeBuilder::new(Severity::Notice, "00000", "hello").encode_notice(&mut out);
    assert_eq!(out[0], tag::backend::NOTICE_RESPONSE);
    out.clear();
    NoticeBuilder::fatal("57P01", "over").encode_error(&mut out);
    assert!(backend::Notice::parse(&out[5..]).unwrap().is_fatal());
}

#[test]
fn an_error_of_any_number_of_fields_still_fits_its_length() {
    let text = "x".repeat(16 << 10);
    let mut builder = NoticeBuilder::error("42501", "no");
    for _ in 0..1000 {
        builder = builder.field(b'W', &text);
    }
    let mut out = Vec::new();
    builder.encode_error(&mut out);
    assert!(out.len() < 2 << 20);
    assert!(backend::Notice::parse(&out[5..]).is_ok());
}

#[test]
fn rows_are_counted_by_the_last_word_of_a_tag() {
    for (tag, rows) in [
        (&b"SELECT 5"[..], Some(5)),
        (b"INSERT 0 12", Some(12)),
        (b"COPY 18446744073709551615", Some(u64::MAX)),
        (b"CREATE TABLE", None),
        (b"BEGIN", None),
        (b"7", None),
    ] {
        assert_eq!(backend::CommandComplete { tag }.rows(), rows);
    }
}

#[test]
fn no_secret_is_shown_by_debug() {
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        frontend::Password {
            password: b"hunter2"
        },
        frontend::SaslInitialResponse {
            mechanism: b"M",
            data: Some(b"hunter2")
        },
        frontend::SaslResponse { data: b"hunter2" },
        backend::BackendKeyData {
            process_id: 1,
            key: b"hunter2"
        },
    );
    // The bytes as a list, or as text.
    assert!(
        !shown.contains("104") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn what_postgres_does_not_look_at_is_not_looked_at() {
    use frontend::Message as M;
    assert_eq!(M::parse(b'X', b"extra"), Ok(M::Terminate));
    assert_eq!(M::parse(b'c', b"extra"), Ok(M::CopyDone));
    assert!(matches!(M::parse(b'f', b"why\0extra"), Ok(M::CopyFail(f)) if f.reason == b"why"));
    assert!(M::parse(b'S', b"extra").is_err() && M::parse(b'H', b"extra").is_err());
}

#[test]
fn tags_without_a_limit_are_those_without_a_reader() {
    for tag in 0..=255 {
        let unknown = matches!(
            frontend::Message::parse(tag, b""),
            Err(PgError::UnknownTag { .. })
        );
        assert_eq!(tag::frontend::limit(tag).is_none(), unknown, "{tag}");
    }
}

#[test]
fn a_header_is_five_bytes() {
    let empty = Made::new().frame(b'S');
    assert_eq!(empty.len(), frame::HEADER);
    assert_eq!(frame::head(&empty).unwrap().unwrap().body(), 0);
    assert_eq!(empty, frontend::SYNC);
}
