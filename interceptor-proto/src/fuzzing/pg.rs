//! What must hold for PostgreSQL's messages.

use crate::pg::{
    Formats, Values, backend,
    frame::{Frame, frame, head},
    frontend,
    startup::{self, StartupPacket},
    tag,
};

const LIMIT: u32 = 1 << 16;

/// Cuts frames until the bytes run out. Each must equal what its parts encode
/// to; that sums of lengths agree would hold by construction and prove nothing.
pub fn pg_frame(input: &[u8]) {
    each_frame(input, |frame, before| {
        let encoded = framed(frame.tag, frame.body);
        assert_eq!(encoded, frame.raw);
        let head = head(before).ok().flatten();
        assert_eq!(head.map(|head| head.total()), Some(encoded.len()));
    });
}

/// Reads one startup packet, beside PostgreSQL's own way of reading it.
pub fn pg_startup(input: &[u8]) {
    let ours = startup::packet(input, u32::MAX);
    let Some(packet) = whole_packet(input) else {
        assert!(ours.is_err());
        return;
    };
    match ours {
        Ok((rest, read)) => {
            assert_eq!([packet, rest].concat(), input);
            let mut encoded = Vec::new();
            match read {
                StartupPacket::Ssl => startup::encode_ssl_request(&mut encoded),
                StartupPacket::GssEnc => {
                    encoded.extend_from_slice(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]);
                }
                StartupPacket::Cancel(cancel) => assert!(cancel.encode(&mut encoded).is_ok()),
                StartupPacket::Startup(startup) => {
                    assert_eq!(startup.raw, packet);
                    let theirs = postgres_reads(packet);
                    assert_eq!(theirs.as_ref(), Some(&startup.parameters));
                    for (name, _) in &startup.parameters {
                        let last = theirs.iter().flatten().rfind(|(n, _)| n == name);
                        assert_eq!(startup.get(name), last.map(|(_, value)| *value));
                    }
                    assert!(startup.to_builder().encode(&mut encoded).is_ok());
                }
            }
            assert_eq!(encoded, packet);
        }
        Err(error) => {
            assert!(!error.is_incomplete());
            // Stricter than PostgreSQL only where the module says so.
            let is_version_3 = packet.get(4..6) == Some(&[0, 3]);
            let is_terminated = packet.last() == Some(&0);
            assert!(!is_version_3 || !is_terminated || postgres_reads(packet).is_none());
        }
    }
}

/// The packet's bytes if all are there and the length is one that PostgreSQL
/// accepts.
fn whole_packet(input: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*input.first_chunk()?);
    let body = i64::from(length) - 4;
    (4..=10_000).contains(&body).then_some(())?;
    input.get(..length as usize)
}

/// The parameters as `ProcessStartupPacket` walks them, offsets and all.
fn postgres_reads(packet: &[u8]) -> Option<startup::Parameters<'_>> {
    let strlen = |at: usize| -> Option<usize> {
        // Its buffer has a zero byte after the end.
        let tail = packet.get(at..)?;
        Some(tail.iter().position(|b| *b == 0).unwrap_or(tail.len()))
    };
    let length = packet.len();
    let mut offset = 8;
    let mut parameters = Vec::new();
    while offset < length {
        if packet.get(offset) == Some(&0) {
            break;
        }
        let value_offset = offset + strlen(offset)? + 1;
        if value_offset >= length {
            break;
        }
        let name = packet.get(offset..value_offset - 1)?;
        let value = packet.get(value_offset..value_offset + strlen(value_offset)?)?;
        parameters.push((name, value));
        offset = value_offset + value.len() + 1;
    }
    (offset + 1 == length).then_some(parameters)
}

/// Reads the client's messages; what was understood must say all that was sent.
pub fn pg_frontend(input: &[u8]) {
    each_frame(input, |frame, _| {
        use frontend::Message as M;
        let Ok(message) = M::parse(frame.tag, frame.body) else {
            return;
        };
        let mut by_hand = Vec::new();
        let mut encoded = Vec::new();
        let out = &mut encoded;
        let result = match &message {
            M::Query(m) => {
                cstr(&mut by_hand, m.sql);
                m.encode(out)
            }
            M::Parse(m) => {
                cstr(&mut by_hand, m.statement);
                cstr(&mut by_hand, m.sql);
                count(&mut by_hand, m.parameter_types.len());
                by_hand.extend(m.parameter_types.iter().flat_map(u32::to_be_bytes));
                m.encode(out)
            }
            M::Bind(m) => {
                cstr(&mut by_hand, m.portal);
                cstr(&mut by_hand, m.statement);
                formats(&mut by_hand, m.parameter_formats);
                values(&mut by_hand, m.parameters.clone());
                formats(&mut by_hand, m.result_formats);
                m.encode(out)
            }
            M::Describe(m) => {
                subject(&mut by_hand, m.subject);
                m.encode(out)
            }
            M::Close(m) => {
                subject(&mut by_hand, m.subject);
                m.encode(out)
            }
            M::Execute(m) => {
                cstr(&mut by_hand, m.portal);
                by_hand.extend_from_slice(&m.max_rows.to_be_bytes());
                m.encode(out)
            }
            M::FunctionCall(m) => {
                by_hand.extend_from_slice(&m.function.to_be_bytes());
                formats(&mut by_hand, m.argument_formats);
                values(&mut by_hand, m.arguments.clone());
                by_hand.extend_from_slice(&m.result_format.to_be_bytes());
                assert_eq!(by_hand, frame.body);
                return;
            }
            M::CopyFail(m) => {
                cstr(&mut by_hand, m.reason);
                // PostgreSQL does not look past the reason.
                assert!(frame.body.starts_with(&by_hand));
                return;
            }
            M::Flush => {
                out.extend_from_slice(&frontend::FLUSH);
                Ok(())
            }
            M::Sync => {
                out.extend_from_slice(&frontend::SYNC);
                Ok(())
            }
            M::CopyData(data) | M::Password(data) => {
                assert_eq!(*data, frame.body);
                secrets(data);
                return;
            }
            // Nothing of these is looked at.
            M::CopyDone | M::Terminate => return,
        };
        assert_eq!(by_hand, frame.body);
        assert!(result.is_ok());
        assert_eq!(encoded, frame.raw);
    });
}

/// The three readings of tag `p`.
fn secrets(body: &[u8]) {
    let mut encoded = Vec::new();
    if let Ok(password) = frontend::Password::parse(body) {
        assert!(password.encode(&mut encoded).is_ok());
    } else if let Ok(response) = frontend::SaslInitialResponse::parse(body) {
        assert!(response.encode(&mut encoded).is_ok());
    } else {
        let response = frontend::SaslResponse::parse(body);
        assert!(response.encode(&mut encoded).is_ok());
    }
    assert_eq!(encoded, framed(tag::frontend::PASSWORD, body));
}

/// Reads the server's messages; what was understood must say all that was sent.
pub fn pg_backend(input: &[u8]) {
    each_frame(input, |frame, _| {
        if frame.tag == tag::backend::DATA_ROW {
            row(&frame);
        }
        let Ok(message) = backend::Message::parse(frame.tag, frame.body) else {
            return;
        };
        let mut by_hand = Vec::new();
        if backend_body(&mut by_hand, &message) {
            assert_eq!(by_hand, frame.body);
        }
        let mut encoded = Vec::new();
        if encode_backend(&mut encoded, &message) {
            assert_eq!(encoded, frame.raw);
        }
    });
}

/// A row read in one pass and in two must be the same row, or no row to both.
fn row(frame: &Frame<'_>) {
    let one_pass: Result<Vec<_>, _> =
        backend::Columns::new(frame.body).and_then(|columns| columns.collect());
    let two_passes = backend::DataRow::parse(frame.body);
    match (one_pass, two_passes) {
        (Ok(columns), Ok(row)) => {
            assert_eq!(row.columns().collect::<Vec<_>>(), columns);
            let mut encoded = Vec::new();
            let mut builder = backend::DataRowBuilder::new(&mut encoded);
            columns.iter().for_each(|column| builder.column(*column));
            assert!(builder.finish().is_ok());
            assert_eq!(encoded, frame.raw);
        }
        (Err(one), Err(two)) => assert_eq!(one, two),
        (one, two) => assert_eq!(one.is_ok(), two.is_ok()),
    }
}

/// Puts a message's fields together; false for those that carry none.
fn backend_body(out: &mut Vec<u8>, message: &backend::Message<'_>) -> bool {
    use backend::{Authentication as A, Message as M};
    match message {
        M::Authentication(request) => {
            let (code, data): (u32, Vec<u8>) = match request {
                A::Ok => (0, vec![]),
                A::KerberosV5 => (2, vec![]),
                A::CleartextPassword => (3, vec![]),
                A::Md5Password { salt } => (5, salt.to_vec()),
                A::Gss => (7, vec![]),
                A::GssContinue(data) => (8, data.to_vec()),
                A::Sspi => (9, vec![]),
                A::Sasl(mechanisms) => {
                    let mut list = Vec::new();
                    mechanisms.iter().for_each(|name| cstr(&mut list, name));
                    list.push(0);
                    (10, list)
                }
                A::SaslContinue(data) => (11, data.to_vec()),
                A::SaslFinal(data) => (12, data.to_vec()),
                A::Unknown { code, data } => (*code, data.to_vec()),
            };
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&data);
        }
        M::BackendKeyData(m) => {
            out.extend_from_slice(&m.process_id.to_be_bytes());
            out.extend_from_slice(m.key);
        }
        M::ParameterStatus(m) => {
            cstr(out, m.name);
            cstr(out, m.value);
        }
        M::ReadyForQuery(m) => out.push(match m.status {
            backend::TransactionStatus::Idle => b'I',
            backend::TransactionStatus::InTransaction => b'T',
            backend::TransactionStatus::Failed => b'E',
        }),
        M::RowDescription(m) => {
            count(out, m.len());
            for field in m.fields() {
                cstr(out, field.name);
                out.extend_from_slice(&field.table_oid.to_be_bytes());
                out.extend_from_slice(&field.attribute.to_be_bytes());
                out.extend_from_slice(&field.type_oid.to_be_bytes());
                out.extend_from_slice(&field.type_size.to_be_bytes());
                out.extend_from_slice(&field.type_modifier.to_be_bytes());
                out.extend_from_slice(&field.format.to_be_bytes());
            }
        }
        M::DataRow(m) => values(out, m.columns()),
        M::CommandComplete(m) => cstr(out, m.tag),
        M::ParameterDescription(m) => {
            count(out, m.types.len());
            out.extend(m.types.iter().flat_map(u32::to_be_bytes));
        }
        M::CopyInResponse(m) | M::CopyOutResponse(m) | M::CopyBothResponse(m) => {
            out.push(m.format);
            formats(out, m.column_formats);
        }
        M::ErrorResponse(m) | M::NoticeResponse(m) => {
            for (code, text) in m.fields() {
                out.push(code);
                cstr(out, text);
            }
            out.push(0);
        }
        M::NotificationResponse(m) => {
            out.extend_from_slice(&m.process_id.to_be_bytes());
            cstr(out, m.channel);
            cstr(out, m.payload);
        }
        M::FunctionCallResponse(m) => value(out, m.value),
        M::NegotiateProtocolVersion(m) => {
            let options: Vec<_> = m.unknown_options().collect();
            let count = u32::try_from(options.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&m.version.to_be_bytes());
            out.extend_from_slice(&count.to_be_bytes());
            options.iter().for_each(|name| cstr(out, name));
        }
        M::CopyData(data) => out.extend_from_slice(data),
        M::EmptyQueryResponse
        | M::PortalSuspended
        | M::NoData
        | M::ParseComplete
        | M::BindComplete
        | M::CloseComplete
        | M::CopyDone => {}
    }
    true
}

/// Writes those messages that can be written; false for the others.
fn encode_backend(out: &mut Vec<u8>, message: &backend::Message<'_>) -> bool {
    use backend::Message as M;
    let result = match message {
        M::Authentication(m) => m.encode(out),
        M::BackendKeyData(m) => m.encode(out),
        M::ParameterStatus(m) => m.encode(out),
        M::ReadyForQuery(m) => {
            m.encode(out);
            Ok(())
        }
        M::RowDescription(m) => {
            let fields = m.to_owned_fields();
            backend::RowDescription::encode(fields.iter().map(|field| field.as_field()), out)
        }
        M::CommandComplete(m) => m.encode(out),
        M::NegotiateProtocolVersion(m) => {
            let options: Vec<_> = m.unknown_options().collect();
            backend::NegotiateProtocolVersion::encode(m.version, &options, out)
        }
        _ => return false,
    };
    assert!(result.is_ok());
    true
}

pub(super) fn each_frame(input: &[u8], mut check: impl FnMut(Frame<'_>, &[u8])) {
    let mut rest = input;
    while let Ok((after, frame)) = frame(rest, LIMIT) {
        check(frame, rest);
        rest = after;
    }
}

fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn cstr(out: &mut Vec<u8>, string: &[u8]) {
    out.extend_from_slice(string);
    out.push(0);
}

fn count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

fn formats(out: &mut Vec<u8>, formats: Formats<'_>) {
    count(out, formats.len());
    out.extend(formats.iter().flat_map(i16::to_be_bytes));
}

fn value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => out.extend_from_slice(&[0xff; 4]),
        Some(value) => {
            let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value);
        }
    }
}

fn values(out: &mut Vec<u8>, values: Values<'_>) {
    count(out, values.len());
    values.for_each(|v| value(out, v));
}

fn subject(out: &mut Vec<u8>, subject: frontend::Subject<'_>) {
    match subject {
        frontend::Subject::Statement(name) => {
            out.push(b'S');
            cstr(out, name);
        }
        frontend::Subject::Portal(name) => {
            out.push(b'P');
            cstr(out, name);
        }
    }
}
