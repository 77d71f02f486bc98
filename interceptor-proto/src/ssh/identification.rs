//! The line that each side begins with.
//!
//! `SSH-protoversion-softwareversion SP comments CR LF`, at most 255 bytes. A
//! server may send other lines before it, a client may not. OpenSSH and others
//! take a line feed alone for the end, so that is taken here too.
//!
//! Spec: RFC 4253, section 4.2.

use nom::{Err, IResult, Needed};

use super::SshError;

/// Bytes of an identification, its end included.
pub const LIMIT: usize = 255;
/// Bytes of a line before it, as OpenSSH has it.
const LINE_LIMIT: usize = 8192;
/// Lines before it, as OpenSSH has it.
const LINES_LIMIT: usize = 1024;

/// What a peer says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identification<'a> {
    /// The whole line, without its end.
    pub line: &'a str,
    /// `2.0` or `1.99`.
    pub version: &'a str,
    /// The program.
    pub software: &'a str,
    /// What stands behind it.
    pub comment: Option<&'a str>,
}

/// A client's: the first thing that it says.
///
/// # Errors
/// `Incomplete` while the line has no end yet; a failure when it is none.
pub fn of_client(input: &[u8]) -> IResult<&[u8], Identification<'_>, SshError> {
    let begun = input.get(..4).unwrap_or(input);
    if !b"SSH-".starts_with(begun) {
        return Err(Err::Failure(SshError::NotIdentification));
    }
    let (rest, line) = line(input, LIMIT)?;
    Ok((rest, read(line)?))
}

/// A server's, with the lines before it.
///
/// # Errors
/// As [`of_client`].
pub fn of_server(input: &[u8]) -> IResult<&[u8], Identification<'_>, SshError> {
    let mut rest = input;
    for _ in 0..LINES_LIMIT {
        let own = rest.starts_with(b"SSH-");
        let (after, line) = line(rest, if own { LIMIT } else { LINE_LIMIT })?;
        if own {
            return Ok((after, read(line)?));
        }
        rest = after;
    }
    Err(Err::Failure(SshError::TooManyLines { limit: LINES_LIMIT }))
}

/// One line without its end.
fn line(input: &[u8], limit: usize) -> IResult<&[u8], &[u8], SshError> {
    let seen = input.get(..limit).unwrap_or(input);
    let Some(end) = memchr::memchr(b'\n', seen) else {
        return Err(if input.len() >= limit {
            Err::Failure(SshError::LineTooLong { limit })
        } else {
            Err::Incomplete(Needed::Unknown)
        });
    };
    let (line, rest) = (
        input.get(..end).unwrap_or_default(),
        input.get(end + 1..).unwrap_or_default(),
    );
    Ok((rest, line.strip_suffix(b"\r").unwrap_or(line)))
}

fn read(line: &[u8]) -> Result<Identification<'_>, Err<SshError>> {
    if !line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(Err::Failure(SshError::Unprintable));
    }
    let not = || Err::Failure(SshError::NotIdentification);
    let line = std::str::from_utf8(line).map_err(|_| Err::Failure(SshError::Unprintable))?;
    let (version, behind) = line
        .strip_prefix("SSH-")
        .and_then(|behind| behind.split_once('-'))
        .ok_or_else(not)?;
    if version != "2.0" && version != "1.99" {
        return Err(Err::Failure(SshError::Version));
    }
    let (software, comment) = match behind.split_once(' ') {
        Some((software, comment)) => (software, Some(comment)),
        None => (behind, None),
    };
    if software.is_empty() {
        return Err(not());
    }
    Ok(Identification {
        line,
        version,
        software,
        comment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whichever_way_it_ends() {
        for end in ["\r\n", "\n"] {
            let sent = format!("SSH-2.0-OpenSSH_9.2p1 Debian-2{end}rest");
            let (rest, found) = of_client(sent.as_bytes()).unwrap();
            assert_eq!(rest, b"rest");
            assert_eq!(found.software, "OpenSSH_9.2p1");
            assert_eq!(found.comment, Some("Debian-2"));
        }
    }

    #[test]
    fn a_cut_line_is_waited_for_and_never_judged() {
        let whole = b"SSH-2.0-x\r\n";
        for cut in 0..whole.len() {
            assert!(matches!(
                of_client(whole.get(..cut).unwrap()),
                Err(Err::Incomplete(_))
            ));
        }
    }

    #[test]
    fn what_is_no_identification_is_refused_as_soon_as_it_shows() {
        assert_eq!(
            of_client(b"SSX"),
            Err(Err::Failure(SshError::NotIdentification))
        );
        assert_eq!(
            of_client(b"SSH-1.5-old\r\n"),
            Err(Err::Failure(SshError::Version))
        );
        assert_eq!(
            of_client(b"SSH-2.0-a\x07\r\n"),
            Err(Err::Failure(SshError::Unprintable))
        );
        assert_eq!(
            of_client(b"SSH-2.0-\r\n"),
            Err(Err::Failure(SshError::NotIdentification))
        );
        let long = [b"SSH-2.0-".to_vec(), vec![b'a'; LIMIT]].concat();
        assert_eq!(
            of_client(&long),
            Err(Err::Failure(SshError::LineTooLong { limit: LIMIT }))
        );
    }

    #[test]
    fn only_a_server_may_say_something_before_it() {
        let sent = b"Authorised use only.\r\nSSH-2.0-x\r\n";
        assert!(of_client(sent).is_err());
        assert_eq!(of_server(sent).unwrap().1.software, "x");
    }
}
