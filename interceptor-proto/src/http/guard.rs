//! A strict reader of one HTTP/1 connection, in front of a lenient one.
//!
//! Whoever forwards messages must read them as the next one does, or a message
//! can be hidden in another's body. So the bytes of either side go through here
//! first: only what has one reading comes out, unchanged. A head comes out when
//! it is whole and was accepted; a body as it comes.
//!
//! Any cutting of the stream into pieces gives the same bytes out and the same
//! error. Nothing is decoded here, and no message is kept.
//!
//! Spec: RFC 9112; RFC 9110, sections 7.8 and 9.3.6.

use std::collections::VecDeque;

use super::chunk::{CHUNK_LINE_LIMIT, EXTENSIONS_LIMIT, chunk_line};
use super::cut::{Cutter, Until};
use super::error::{HttpError, Part};
use super::framing::{After, Asked, Framing, Next, is_head_only};
use super::head::{FIELD_LIMIT, HEAD_LIMIT, RequestHead, ResponseHead, TRAILERS_LIMIT, fields};

/// Bytes kept while a change of protocol is asked for.
const SWITCH_LIMIT: usize = 64 << 10;

/// Where in a body the stream is.
#[derive(Debug)]
enum Body {
    /// So many bytes are left.
    Length(u64),
    /// In a chunk's first line, so many bytes of extensions behind.
    ChunkLine(Cutter, usize),
    /// In a chunk's data.
    ChunkData(u64, usize),
    /// Behind a chunk's data: so many bytes of its end have come.
    ChunkEnd(usize, usize),
    /// In the trailers.
    Trailers(Cutter),
    /// Everything is body.
    UntilClose,
}

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It wants more.
    More,
    /// It is over.
    Done,
}

impl Body {
    fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::ChunkLine(chunk_cutter(), 0),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    fn take(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Progress, HttpError> {
        loop {
            match self {
                Self::Length(left) => {
                    pass(left, input, out);
                    return Ok(if *left == 0 {
                        Progress::Done
                    } else {
                        Progress::More
                    });
                }
                Self::UntilClose => {
                    out.extend_from_slice(input);
                    *input = &[];
                    return Ok(Progress::More);
                }
                Self::ChunkLine(cutter, extensions) => {
                    let Some(line) = cutter.take(input)? else {
                        return Ok(Progress::More);
                    };
                    let bare = line.strip_suffix(b"\r\n").unwrap_or(&line);
                    let (size, extension) = chunk_line(bare)?;
                    let extensions = *extensions + extension;
                    if extensions > EXTENSIONS_LIMIT {
                        let limit = EXTENSIONS_LIMIT;
                        return Err(HttpError::ChunkExtensions { limit });
                    }
                    out.extend_from_slice(&line);
                    *self = if size == 0 {
                        let (until, part) = (Until::EmptyLine, Part::Trailers);
                        Self::Trailers(Cutter::new(until, part, TRAILERS_LIMIT))
                    } else {
                        Self::ChunkData(size, extensions)
                    };
                }
                Self::ChunkData(left, extensions) => {
                    pass(left, input, out);
                    if *left > 0 {
                        return Ok(Progress::More);
                    }
                    *self = Self::ChunkEnd(0, *extensions);
                }
                Self::ChunkEnd(seen, extensions) => {
                    let [byte, rest @ ..] = *input else {
                        return Ok(Progress::More);
                    };
                    if b"\r\n".get(*seen) != Some(byte) {
                        return Err(HttpError::ChunkEnd);
                    }
                    out.push(*byte);
                    *input = rest;
                    *seen += 1;
                    if *seen == 2 {
                        *self = Self::ChunkLine(chunk_cutter(), *extensions);
                    }
                }
                Self::Trailers(cutter) => {
                    let Some(trailers) = cutter.take(input)? else {
                        return Ok(Progress::More);
                    };
                    let read = fields(&trailers, Part::Trailers, FIELD_LIMIT)?;
                    if let Some(index) = read.iter().position(is_head_only) {
                        return Err(HttpError::Trailer { index: index + 1 });
                    }
                    out.extend_from_slice(&trailers);
                    return Ok(Progress::Done);
                }
            }
        }
    }

    fn part(&self) -> Part {
        match self {
            Self::ChunkLine(..) => Part::ChunkLine,
            Self::Trailers(_) => Part::Trailers,
            _ => Part::Body,
        }
    }
}

fn chunk_cutter() -> Cutter {
    Cutter::new(Until::Line, Part::ChunkLine, CHUNK_LINE_LIMIT)
}

fn head_cutter() -> Cutter {
    Cutter::new(Until::EmptyLine, Part::Head, HEAD_LIMIT)
}

/// Passes on at most `left` bytes.
fn pass(left: &mut u64, input: &mut &[u8], out: &mut Vec<u8>) {
    let most = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(input.len());
    let (now, rest) = input.split_at_checked(most).unwrap_or((input, &[]));
    out.extend_from_slice(now);
    *input = rest;
    *left -= now.len() as u64;
}

/// Where in a connection the stream is.
#[derive(Debug)]
enum State {
    Head(Cutter),
    Body(Body, Next),
    /// A change of protocol is asked for; what has come since.
    Switching(Vec<u8>),
    /// Another protocol.
    Opaque,
    /// Refused.
    Over,
}

/// What an agent sends.
#[derive(Debug)]
pub struct RequestGuard {
    state: State,
}

impl Default for RequestGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestGuard {
    /// At a connection's start.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Head(head_cutter()),
        }
    }

    /// Takes the next bytes, and appends to `out` what is accepted by now. Where
    /// it refuses, `out` has what was accepted before the byte that it refuses.
    ///
    /// # Errors
    /// What is wrong; nothing is accepted behind it.
    pub fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), HttpError> {
        let result = self.take(&mut input, out);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    fn take(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), HttpError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Head(cutter) => {
                    let Some(head) = cutter.take(input)? else {
                        return Ok(());
                    };
                    let (framing, next) = RequestHead::parse(&head)?.framing()?;
                    out.extend_from_slice(&head);
                    self.state = State::Body(Body::new(framing), next);
                    self.settle(out)?;
                }
                State::Body(body, next) => {
                    if body.take(input, out)? == Progress::Done {
                        self.state = behind(*next);
                    }
                }
                State::Switching(kept) => {
                    if kept.len() + input.len() > SWITCH_LIMIT {
                        let limit = SWITCH_LIMIT;
                        return Err(HttpError::Impatient { limit });
                    }
                    kept.extend_from_slice(input);
                    *input = &[];
                }
                State::Opaque => {
                    out.extend_from_slice(input);
                    *input = &[];
                }
                State::Over => return Err(HttpError::Over),
            }
        }
        Ok(())
    }

    /// Goes behind a body that has no bytes.
    fn settle(&mut self, out: &mut Vec<u8>) -> Result<(), HttpError> {
        if let State::Body(body, next) = &mut self.state
            && body.take(&mut &[][..], out)? == Progress::Done
        {
            self.state = behind(*next);
        }
        Ok(())
    }

    /// Whether what comes now is kept until the other side has answered a wish
    /// to change the protocol.
    #[must_use]
    pub fn waits_for_switch(&self) -> bool {
        matches!(self.state, State::Switching(_))
    }

    /// Whether another protocol is spoken, and nothing is read any more.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// The protocol was changed: what came since the wish is passed on, and all
    /// that comes.
    pub fn switched(&mut self, out: &mut Vec<u8>) {
        if let State::Switching(kept) = &mut self.state {
            out.append(kept);
            self.state = State::Opaque;
        }
    }

    /// The protocol stays: what came since the wish is read as HTTP.
    ///
    /// # Errors
    /// As of [`Self::feed`].
    pub fn refused_switch(&mut self, out: &mut Vec<u8>) -> Result<(), HttpError> {
        let State::Switching(kept) = &mut self.state else {
            return Ok(());
        };
        let kept = std::mem::take(kept);
        self.state = State::Head(head_cutter());
        self.feed(&kept, out)
    }

    /// The agent closed its side.
    ///
    /// # Errors
    /// Where that was in the middle of a message.
    pub fn eof(&self) -> Result<(), HttpError> {
        ended(&self.state)
    }
}

fn behind(next: Next) -> State {
    match next {
        Next::Message => State::Head(head_cutter()),
        Next::Switch => State::Switching(Vec::new()),
    }
}

fn ended(state: &State) -> Result<(), HttpError> {
    match state {
        State::Head(cutter) if !cutter.is_empty() => Err(HttpError::Cut {
            part: cutter.part(),
        }),
        State::Body(Body::UntilClose, _) => Ok(()),
        State::Body(body, _) => Err(HttpError::Cut { part: body.part() }),
        _ => Ok(()),
    }
}

/// What a service sends.
#[derive(Debug)]
pub struct ResponseGuard {
    state: State,
    asked: VecDeque<Asked>,
}

impl Default for ResponseGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl ResponseGuard {
    /// At a connection's start.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Head(head_cutter()),
            asked: VecDeque::new(),
        }
    }

    /// A request with this method is about to be sent.
    pub fn expect(&mut self, method: &str) {
        self.asked.push_back(match method {
            "HEAD" => Asked::Head,
            "CONNECT" => Asked::Connect,
            _ => Asked::Other,
        });
    }

    /// Takes the next bytes, and appends to `out` what is accepted by now.
    ///
    /// # Errors
    /// What is wrong; nothing is accepted behind it.
    pub fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), HttpError> {
        let result = self.take(&mut input, out);
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    fn take(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<(), HttpError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Head(cutter) => {
                    let Some(asked) = self.asked.front().copied() else {
                        return Err(HttpError::Unasked);
                    };
                    let Some(head) = cutter.take(input)? else {
                        return Ok(());
                    };
                    let after = ResponseHead::parse(&head)?.after(asked)?;
                    out.extend_from_slice(&head);
                    self.state = match after {
                        After::Body(Framing::Length(0)) => {
                            self.asked.pop_front();
                            State::Head(head_cutter())
                        }
                        After::Body(framing) => State::Body(Body::new(framing), Next::Message),
                        After::Response => State::Head(head_cutter()),
                        After::Switch => State::Opaque,
                    };
                }
                State::Body(body, _) => {
                    if body.take(input, out)? == Progress::Done {
                        self.asked.pop_front();
                        self.state = State::Head(head_cutter());
                    }
                }
                State::Opaque => {
                    out.extend_from_slice(input);
                    *input = &[];
                }
                State::Switching(_) | State::Over => return Err(HttpError::Over),
            }
        }
        Ok(())
    }

    /// Whether another protocol is spoken, and nothing is read any more.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// The service closed its side.
    ///
    /// # Errors
    /// Where that was in the middle of a message, or an answer is still owed.
    pub fn eof(&self) -> Result<(), HttpError> {
        ended(&self.state)?;
        let owed = matches!(self.state, State::Head(_)) && !self.asked.is_empty();
        if owed {
            return Err(HttpError::Cut { part: Part::Head });
        }
        Ok(())
    }
}
