//! What must hold for SSH before its keys, and for its file transfer.
//!
//! The oracles take the line apart by splitting, and put packets together again from
//! their fields by the specification's layouts.

use crate::ssh::identification::{self, of_client, of_server};
use crate::ssh::packet::{self, DISCONNECT, Disconnect};
use crate::ssh::sftp::{self, Answer, Request};

/// Reads an identification, a client's and a server's, and at every cut.
pub fn ssh_identification(input: &[u8]) {
    let client = of_client(input);
    let server = of_server(input);
    if let Ok((rest, found)) = &client {
        // Who may say nothing before it says the same as who may.
        assert_eq!(server.as_ref(), Ok(&(*rest, *found)));
    }
    for read in [of_client, of_server] {
        let whole = read(input);
        for cut in 0..input.len().min(600) {
            let part = input.get(..cut).unwrap_or_default();
            match (read(part), &whole) {
                (Err(nom::Err::Incomplete(_)), _) => {}
                // An answer stands, whatever follows.
                (Ok((_, part)), whole) => {
                    assert!(whole.as_ref().is_ok_and(|(_, whole)| *whole == part));
                }
                (Err(_), whole) => assert!(whole.is_err()),
            }
        }
    }
    let Ok((rest, found)) = server else {
        return;
    };
    let used = input.get(..input.len() - rest.len()).unwrap_or_default();
    assert!(used.ends_with(b"\n"));
    let line = used.strip_suffix(b"\n").unwrap_or(used);
    let line = line
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    assert_eq!(found.line.as_bytes(), line);
    assert!(line.len() < identification::LIMIT);
    let comment = found.comment.map(|comment| format!(" {comment}"));
    let again = format!(
        "SSH-{}-{}{}",
        found.version,
        found.software,
        comment.unwrap_or_default()
    );
    assert_eq!(again, found.line);
    assert!(!found.software.is_empty() && !found.software.contains(' '));
}

/// Cuts packets off, and puts a disconnect together again.
pub fn ssh_packet(input: &[u8]) {
    let mut rest = input;
    while let Ok((after, read)) = packet::packet(rest) {
        let raw = rest.get(..rest.len() - after.len()).unwrap_or_default();
        assert_eq!(raw.len() % 8, 0);
        assert!(raw.len() >= 16);
        let [a, b, c, d, padding, payload @ ..] = raw else {
            return;
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        assert_eq!(raw.len(), usize::try_from(length).unwrap_or_default() + 4);
        assert!(*padding >= 4 && length <= packet::LIMIT);
        let end = payload.len() - usize::from(*padding);
        let payload = payload.get(..end).unwrap_or_default();
        assert_eq!(payload, [&[read.kind], read.body].concat());
        let short = raw.get(..raw.len() - 1).unwrap_or_default();
        assert!(matches!(
            packet::packet(short),
            Err(nom::Err::Incomplete(_))
        ));
        if read.kind == DISCONNECT
            && let Ok(told) = Disconnect::parse(read.body)
        {
            disconnect(&told);
        }
        rest = after;
    }
}

/// What is told reads back: all of it, or as much as is said at most.
fn disconnect(told: &Disconnect) {
    let bytes = told.encode();
    let again = packet::packet(&bytes);
    assert!(again.as_ref().is_ok_and(|(rest, _)| rest.is_empty()));
    let read = again.map(|(_, read)| Disconnect::parse(read.body));
    assert!(matches!(&read, Ok(Ok(read)) if read.reason == told.reason));
    if let Ok(Ok(read)) = read {
        let whole = told.description.len() <= 1024;
        assert!(!whole || read.description == told.description);
    }
}

/// Reads packets of the file transfer protocol as requests and as answers.
pub fn ssh_sftp(input: &[u8]) {
    let mut rest = input;
    while let Ok((after, frame)) = sftp::packet(rest) {
        let used = rest.len() - after.len();
        assert_eq!(rest.get(..used), Some(frame.raw));
        let length = frame.raw.get(..4).and_then(|four| four.try_into().ok());
        let length = length.map(u32::from_be_bytes).unwrap_or_default();
        assert!(length <= sftp::LIMIT);
        assert_eq!(
            frame.raw.len(),
            usize::try_from(length).unwrap_or_default() + 4
        );
        assert_eq!(
            frame.raw.get(4..),
            Some(&[&[frame.kind], frame.body].concat()[..])
        );
        let short = frame.raw.get(..used - 1).unwrap_or_default();
        assert!(matches!(sftp::packet(short), Err(nom::Err::Incomplete(_))));
        let asked = Request::parse(&frame);
        let answered = Answer::parse(&frame);
        // Nobody can take the one for the other.
        assert!(asked.is_err() || answered.is_err());
        if let Ok(asked) = asked {
            request(frame.kind, frame.body, &asked);
        }
        match answered {
            Ok(Answer::Handle { id, handle: data } | Answer::Data { id, data }) => {
                assert_eq!(frame.body, made(id, &[data]));
            }
            Ok(Answer::Status { id, code }) => {
                let again = [id.to_be_bytes(), code.to_be_bytes()].concat();
                assert!(frame.body.starts_with(&again));
            }
            _ => {}
        }
        rest = after;
    }
    // What refuses is read back by whoever asked.
    let id = input.first_chunk().map(|four| u32::from_be_bytes(*four));
    let id = id.unwrap_or_default();
    let words = String::from_utf8_lossy(input);
    let refusal = sftp::encode_status(id, sftp::PERMISSION_DENIED, &words);
    let read = sftp::packet(&refusal);
    assert!(read.as_ref().is_ok_and(|(rest, _)| rest.is_empty()));
    let read = read.map(|(_, frame)| Answer::parse(&frame));
    let code = sftp::PERMISSION_DENIED;
    assert_eq!(read, Ok(Ok(Answer::Status { id, code })));
}

/// An id and texts, each behind its length.
fn made(id: u32, texts: &[&[u8]]) -> Vec<u8> {
    let mut made = id.to_be_bytes().to_vec();
    for text in texts {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        made.extend(length.to_be_bytes());
        made.extend_from_slice(text);
    }
    made
}

/// The body is what the fields make, and attributes where they may be.
fn request(kind: u8, body: &[u8], read: &Request<'_>) {
    let (again, attributes) = match *read {
        Request::Init { version } => {
            assert_eq!(kind, 1);
            assert!(body.starts_with(&version.to_be_bytes()));
            return;
        }
        Request::Open { id, path, flags } => (with(made(id, &[path]), &flags.to_be_bytes()), true),
        Request::Setstat { id, path } | Request::Mkdir { id, path } => (made(id, &[path]), true),
        Request::Fsetstat { id, handle } => (made(id, &[handle]), true),
        Request::Close { id, handle }
        | Request::Fstat { id, handle }
        | Request::Readdir { id, handle } => (made(id, &[handle]), false),
        Request::Lstat { id, path }
        | Request::Opendir { id, path }
        | Request::Remove { id, path }
        | Request::Rmdir { id, path }
        | Request::Realpath { id, path }
        | Request::Stat { id, path }
        | Request::Readlink { id, path } => (made(id, &[path]), false),
        Request::Read {
            id,
            handle,
            offset,
            length,
        } => {
            let made = with(made(id, &[handle]), &offset.to_be_bytes());
            (with(made, &length.to_be_bytes()), false)
        }
        Request::Write {
            id,
            handle,
            offset,
            data,
        } => {
            let made_ = with(made(id, &[handle]), &offset.to_be_bytes());
            (
                with(made_, made(0, &[data]).get(4..).unwrap_or_default()),
                false,
            )
        }
        Request::Rename { id, from, to } => (made(id, &[from, to]), false),
        Request::Symlink { id, target, link } => (made(id, &[target, link]), false),
        Request::Extended { id, name, body } => (with(made(id, &[name]), body), false),
    };
    match attributes {
        // Their flags at least.
        true => assert!(body.starts_with(&again) && body.len() >= again.len() + 4),
        false => assert_eq!(body, again),
    }
}

fn with(mut made: Vec<u8>, more: &[u8]) -> Vec<u8> {
    made.extend_from_slice(more);
    made
}
