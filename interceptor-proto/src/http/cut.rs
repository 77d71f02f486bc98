//! Cuts lines and heads out of a stream, byte by byte.
//!
//! What is cut ends in CR LF, and has no CR and no LF but in such pairs; the
//! first byte that breaks this is the error, wherever the pieces of the stream
//! end. So is the first byte over the limit.

use super::error::{HttpError, Part};

/// What is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// The first line's end.
    Line,
    /// An empty line.
    EmptyLine,
}

/// Collects one line or head.
#[derive(Debug)]
pub(super) struct Cutter {
    kept: Vec<u8>,
    until: Until,
    part: Part,
    limit: usize,
}

impl Cutter {
    pub(super) fn new(until: Until, part: Part, limit: usize) -> Self {
        Self {
            kept: Vec::new(),
            until,
            part,
            limit,
        }
    }

    /// What is being cut.
    pub(super) fn part(&self) -> Part {
        self.part
    }

    /// Whether nothing has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes as much of `input` as belongs to it; what it cut, once it is whole.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, HttpError> {
        let part = self.part;
        while let [byte, rest @ ..] = *input {
            *input = rest;
            let after_cr = self.kept.last() == Some(&b'\r');
            match byte {
                b'\n' if !after_cr => return Err(HttpError::BareLf { part }),
                b'\n' => {}
                _ if after_cr => return Err(HttpError::BareCr { part }),
                _ => {}
            }
            if self.kept.len() >= self.limit {
                let limit = self.limit;
                return Err(HttpError::TooLong { part, limit });
            }
            self.kept.push(*byte);
            let whole = *byte == b'\n'
                && match self.until {
                    Until::Line => true,
                    Until::EmptyLine => self.kept == b"\r\n" || self.kept.ends_with(b"\r\n\r\n"),
                };
            if whole {
                return Ok(Some(std::mem::take(&mut self.kept)));
            }
        }
        Ok(None)
    }
}
