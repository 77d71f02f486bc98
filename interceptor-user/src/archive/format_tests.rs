use super::*;
use interceptor_engine::chain::{Fields, Hasher, Head as Chain};

const SESSION: &str = "0199a000-0000-7000-8000-000000000000";

/// A chained recording.
fn events(count: u64) -> Vec<StreamEntry> {
    let mut chain = Chain::START;
    let mut hasher = Hasher::default();
    let event = |seq: u64| {
        let number = seq.to_string();
        let data = vec![0, 13, 10, 255, b'$', seq as u8];
        let fields = Fields {
            session: SESSION.as_bytes(),
            seq: number.as_bytes(),
            at: b"0",
            kind: b"note",
            data: &data,
            ..Fields::default()
        };
        chain = hasher.next(chain, &fields);
        let pairs: [(&str, &[u8]); 5] = [
            ("seq", number.as_bytes()),
            ("at", b"0"),
            ("kind", b"note"),
            ("data", &data),
            ("chain", &chain.to_hex()),
        ];
        StreamEntry {
            id: format!("7-{}", seq + 1),
            fields: pairs
                .map(|(name, value)| (name.to_owned(), value.to_vec()))
                .into(),
        }
    };
    (0..count).map(event).collect()
}

fn head() -> Head {
    Head {
        session: SESSION.to_owned(),
        archived: "2026-11-30T00:00:00Z".to_owned(),
        host: "h".to_owned(),
        version: "1".to_owned(),
    }
}

fn opening() -> StreamEntry {
    StreamEntry {
        id: "9-0".to_owned(),
        fields: vec![("event".to_owned(), b"open".to_vec())],
    }
}

fn object(count: u64) -> (Vec<u8>, Written) {
    let mut writer = Writer::new(Vec::new(), &head()).unwrap();
    writer.sessions(&[opening()]).unwrap();
    for event in events(count) {
        writer.event(&event).unwrap();
    }
    writer.finish().unwrap()
}

fn fault(bytes: &[u8]) -> Fault {
    match check(bytes, SESSION) {
        Err(Unread::Fault(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

/// The records in an object, changed, and packed again.
fn changed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut plain = zstd::decode_all(bytes).unwrap();
    change(&mut plain);
    zstd::encode_all(&plain[..], 3).unwrap()
}

fn replace(plain: &mut Vec<u8>, from: &str, to: &str) {
    let at = plain
        .windows(from.len())
        .position(|window| window == from.as_bytes())
        .unwrap();
    plain.splice(at..at + from.len(), to.bytes());
}

#[test]
fn what_was_written_is_read_byte_for_byte() {
    let (bytes, written) = object(300);
    let mut reader = Reader::new(&bytes[..], SESSION).unwrap();
    assert_eq!(reader.head(), &head());
    assert_eq!(
        reader.next_record().unwrap(),
        Some(Record::Sessions(opening()))
    );
    for event in events(300) {
        assert_eq!(reader.next_record().unwrap(), Some(Record::Event(event)));
    }
    let end = reader.next_record().unwrap();
    assert_eq!(end, Some(Record::End(written.end.clone())));
    assert_eq!(reader.next_record().unwrap(), None);
    assert_eq!(reader.sha256(), written.sha256);
    let (sha, end) = check(&bytes[..], SESSION).unwrap();
    assert_eq!((sha, end), (written.sha256, written.end));
}

/// However much of an object is there, less than all of it is never taken for it.
#[test]
fn a_part_of_an_object_is_no_object() {
    let (bytes, _) = object(20);
    for len in 0..bytes.len() {
        assert!(
            matches!(fault(&bytes[..len]), Fault::Cut | Fault::Foreign),
            "{len} of {} bytes",
            bytes.len()
        );
    }
    let longer = [&bytes[..], b"x"].concat();
    assert_eq!(fault(&longer), Fault::Behind);
    let twice = [&bytes[..], &bytes[..]].concat();
    assert_eq!(fault(&twice), Fault::Behind);
}

#[test]
fn no_bit_can_be_turned() {
    let (whole, written) = object(5);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            // Some say nothing of what is in it (RFC 8878, 3.1.1.1): then the object reads
            // as it did, and is another all the same.
            if let Ok((sha, end)) = check(&bytes[..], SESSION) {
                assert_eq!(end, written.end, "byte {at}, bit {bit}");
                assert_ne!(sha, written.sha256, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn what_was_changed_with_care_is_found_too() {
    let (bytes, _) = object(5);
    let replaced = |from: &str, to: &str| fault(&changed(&bytes, |plain| replace(plain, from, to)));
    assert!(matches!(
        replaced("$4\r\nnote", "$4\r\nnoto"),
        Fault::Recording(_)
    ));
    assert_eq!(
        replaced("archive\r\n$1\r\n1", "archive\r\n$1\r\n2"),
        Fault::Version("2".into())
    );
    assert_eq!(
        replaced("interceptor-archive", "interceptor-archivf"),
        Fault::Foreign
    );
    assert_eq!(
        replaced("$4\r\nnote", "$999999999999\r\nnote"),
        Fault::Shape
    );
    assert_eq!(replaced("$4\r\nnote", "$99999999\r\nnote"), Fault::Cut);
    let other = SESSION.replace("0199", "0198");
    assert_eq!(
        replaced(SESSION, &other),
        Fault::OtherSession(other.clone())
    );
}

/// The hash of an object says nothing of the recording in it: who makes an object can
/// make that, too.
#[test]
fn a_recording_that_is_not_as_it_was_recorded_is_no_better_in_an_object() {
    let mut writer = Writer::new(Vec::new(), &head()).unwrap();
    let mut events = events(5);
    events.remove(2);
    for event in &events {
        writer.event(event).unwrap();
    }
    let (bytes, _) = writer.finish().unwrap();
    assert!(matches!(fault(&bytes), Fault::Recording(_)));
}
