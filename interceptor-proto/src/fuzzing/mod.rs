//! What must hold for any bytes: the bodies of the fuzz targets, which are one
//! line each, and of the tests that run the corpus.
//!
//! Every oracle is written without the code that it checks: a message's fields
//! are put together again by hand, a startup packet is read by a transcription
//! of PostgreSQL's own loop, records are taken apart by arithmetic. That a
//! parser does not panic is a by-product.

mod http;
mod pg;
mod ssh;

pub use http::{http_request, http_response, websocket};
pub use pg::{pg_backend, pg_frame, pg_frontend, pg_startup};
pub use ssh::{ssh_identification, ssh_packet, ssh_sftp};

use crate::{
    detect::{Detection, Wire, detect},
    pg::startup,
    tls,
};

/// Reads a ClientHello; putting it into other records must not change it, and
/// its name must be somewhere in the bytes.
pub fn client_hello(input: &[u8]) {
    let Ok((rest, hello)) = tls::client_hello(input) else {
        return;
    };
    let used = input.get(..input.len() - rest.len()).unwrap_or_default();
    let mut message = Vec::new();
    let mut records = used;
    while let [_, _, _, a, b, after @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*a, *b]));
        message.extend_from_slice(after.get(..length).unwrap_or_default());
        records = after.get(length..).unwrap_or_default();
    }
    let one_record = [
        &[22, 3, 3][..],
        &u16::try_from(message.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
        &message,
    ]
    .concat();
    if message.len() <= 1 << 14 {
        assert_eq!(tls::client_hello(&one_record), Ok((&[][..], hello.clone())));
    }
    if let Some(name) = &hello.server_name {
        let found = message
            .windows(name.len())
            .any(|window| window.eq_ignore_ascii_case(name.as_bytes()));
        assert!(found && !name.is_empty());
    }
    for protocol in &hello.alpn {
        assert!(message.windows(protocol.len()).any(|w| w == protocol));
    }
    if let Some(short) = used.len().checked_sub(1) {
        let cut = tls::client_hello(input.get(..short).unwrap_or_default());
        assert!(matches!(cut, Err(nom::Err::Incomplete(_))));
    }
}

/// Detects at every cut: an answer once given must stand.
pub fn detect_prefixes(input: &[u8]) {
    let mut answer = Detection::NeedMore;
    for cut in (0..=input.len().min(512)).chain([input.len()]) {
        let now = detect(input.get(..cut).unwrap_or_default());
        assert!(answer == Detection::NeedMore || now == answer);
        answer = now;
    }
    match answer {
        Detection::Certain(Wire::PostgresStartup) => {
            let read = startup::packet(input, u32::MAX);
            assert!(!matches!(
                read,
                Err(nom::Err::Failure(crate::pg::PgError::StartupLength { .. }))
            ));
        }
        Detection::Certain(Wire::Http1) => {
            let line = input.split(|b| *b == b'\n').next().unwrap_or_default();
            let text = String::from_utf8_lossy(line);
            assert_eq!(text.split_whitespace().count(), 3);
            assert!(text.contains(" HTTP/1."));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{pg::each_frame, *};
    use crate::pg::{backend, frontend};

    /// Runs a target's assertions over its corpus; an empty one proves nothing.
    fn run(target: &str, check: fn(&[u8])) {
        let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!files.is_empty(), "no corpus in {folder}");
        for file in files {
            check(&std::fs::read(file).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_frames_holds() {
        run("pg_frame", pg_frame);
    }

    #[test]
    fn the_corpus_of_startup_packets_holds() {
        run("pg_startup", pg_startup);
    }

    #[test]
    fn the_corpus_of_client_messages_holds() {
        run("pg_frontend", pg_frontend);
    }

    #[test]
    fn the_corpus_of_server_messages_holds() {
        run("pg_backend", pg_backend);
    }

    #[test]
    fn the_corpus_of_client_hellos_holds() {
        run("client_hello", client_hello);
    }

    #[test]
    fn the_corpus_of_requests_holds() {
        run("http_request", http_request);
    }

    #[test]
    fn the_corpus_of_responses_holds() {
        run("http_response", http_response);
    }

    #[test]
    fn the_corpus_of_frames_of_web_sockets_holds() {
        run("websocket", websocket);
    }

    #[test]
    fn the_corpus_of_identifications_holds() {
        run("ssh_identification", ssh_identification);
    }

    #[test]
    fn the_corpus_of_packets_of_ssh_holds() {
        run("ssh_packet", ssh_packet);
    }

    #[test]
    fn the_corpus_of_file_transfers_holds() {
        run("ssh_sftp", ssh_sftp);
    }

    #[test]
    fn the_corpus_of_first_bytes_holds() {
        run("detect", detect_prefixes);
    }

    /// What real clients and a real server said must be understood to the last
    /// message, or the oracles above look at nothing.
    #[test]
    fn everything_that_was_recorded_from_real_programs_is_understood() {
        let read = |path: &str| {
            std::fs::read(format!("{}/fuzz/corpus/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        let mut sent = std::collections::BTreeSet::new();
        let mut answered = std::collections::BTreeSet::new();
        for name in ["psql", "pgbench", "psycopg", "replication", "raw"] {
            let bytes = read(&format!("pg_frontend/{name}"));
            let mut used = 0;
            each_frame(&bytes, |frame, _| {
                frontend::Message::parse(frame.tag, frame.body).unwrap();
                sent.insert(char::from(frame.tag));
                used += frame.raw.len();
            });
            assert_eq!(used, bytes.len(), "{name}, sent");
            let bytes = read(&format!("pg_backend/{name}"));
            let mut used = 0;
            each_frame(&bytes, |frame, _| {
                backend::Message::parse(frame.tag, frame.body).unwrap();
                answered.insert(char::from(frame.tag));
                used += frame.raw.len();
            });
            assert_eq!(used, bytes.len(), "{name}, answered");
        }
        assert_eq!(sent.iter().collect::<String>(), "BCDEFHPQSXcdfp");
        assert_eq!(
            answered.iter().collect::<String>(),
            "123ACDEGHIKNRSTVWZcdnstv"
        );
    }
}
