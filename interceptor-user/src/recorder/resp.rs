//! Commands in Redis's wire format, one after another in one buffer.
//!
//! Written here and not by the client's `Cmd`, since the recorder sends tens of
//! thousands of commands a second that differ in a few bytes: a session's key is
//! encoded once, numbers never become strings of their own, and a batch is one
//! buffer that is sent again as it is after a failure.
//!
//! Spec: Redis manual, page `reference/protocol-spec` (RESP2; arrays of bulk
//! strings).

use std::ops::Range;

/// Commands, encoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    bytes: Vec<u8>,
    /// Where each begins, and which stream it adds to.
    starts: Vec<(usize, Stream)>,
}

/// The stream that a command adds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// A session's own; its entries' IDs are ours.
    Session,
    Live,
    Alerts,
    Sessions,
}

impl Stream {
    const ALL: [Self; 4] = [Self::Session, Self::Live, Self::Alerts, Self::Sessions];

    /// As the spool has it.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Session => 0,
            Self::Live => 1,
            Self::Alerts => 2,
            Self::Sessions => 3,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.code() == code)
    }

    /// The ones that many sessions and hosts share, and their keys' ends.
    pub(super) const SHARED: [(Self, &str); 3] = [
        (Self::Live, "live"),
        (Self::Alerts, "alerts"),
        (Self::Sessions, "sessions"),
    ];
}

/// A decimal number, written without an allocation.
pub(super) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(super) fn new(mut number: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            // A remainder of ten fits a byte.
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            start = at;
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }
}

/// Appends one bulk string.
pub(super) fn bulk(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'$');
    out.extend_from_slice(Decimal::new(value.len() as u64).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The parts of one command.
pub(super) fn parts(command: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, mut rest) = number(command, b'*')?;
    // A part takes no less than six bytes.
    let mut parts = Vec::with_capacity(count.min(rest.len() / 6));
    for _ in 0..count {
        let (length, behind) = number(rest, b'$')?;
        let (part, behind) = behind.split_at_checked(length)?;
        parts.push(part);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    rest.is_empty().then_some(parts)
}

/// A number behind `mark`, and what follows its line.
fn number(bytes: &[u8], mark: u8) -> Option<(usize, &[u8])> {
    let bytes = bytes.strip_prefix(&[mark])?;
    let end = memchr::memchr(b'\r', bytes)?;
    let (digits, rest) = bytes.split_at_checked(end)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, rest.strip_prefix(b"\r\n")?))
}

impl Commands {
    /// Begins a command of `parts` parts, the name included.
    pub(super) fn begin(&mut self, stream: Stream, parts: usize) {
        self.starts.push((self.bytes.len(), stream));
        self.bytes.push(b'*');
        self.bytes
            .extend_from_slice(Decimal::new(parts as u64).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends a part.
    pub(super) fn part(&mut self, value: &[u8]) {
        bulk(&mut self.bytes, value);
    }

    /// Appends parts that are encoded already.
    pub(super) fn encoded(&mut self, parts: &[u8]) {
        self.bytes.extend_from_slice(parts);
    }

    /// Appends a name and its value, or nothing where the value is empty.
    pub(super) fn pair(&mut self, encoded_name: &[u8], value: &[u8]) {
        if !value.is_empty() {
            self.bytes.extend_from_slice(encoded_name);
            bulk(&mut self.bytes, value);
        }
    }

    /// Commands that lie one after another in `bytes`, of these lengths.
    pub(super) fn from_parts(bytes: &[u8], lengths: &[(usize, Stream)]) -> Option<Self> {
        let mut at = 0_usize;
        let mut starts = Vec::with_capacity(lengths.len());
        for (length, stream) in lengths {
            starts.push((at, *stream));
            at = at.checked_add(*length)?;
        }
        (at == bytes.len()).then(|| Self {
            bytes: bytes.to_vec(),
            starts,
        })
    }

    /// How long each command is, and which stream it adds to.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (usize, Stream)> {
        let ends = self.starts.iter().skip(1).map(|(start, _)| *start);
        let ends = ends.chain(std::iter::once(self.bytes.len()));
        self.starts
            .iter()
            .zip(ends)
            .map(|((start, stream), end)| (end - start, *stream))
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Gives back what a single huge batch took.
    pub(super) fn shrink_to(&mut self, capacity: usize) {
        if self.bytes.capacity() > 2 * capacity {
            self.bytes.shrink_to(capacity);
        }
    }

    /// One of them.
    pub(super) fn command(&self, index: usize) -> Option<&[u8]> {
        self.bytes.get(self.range(index)?)
    }

    /// The key that one of them is for.
    pub(super) fn key(&self, index: usize) -> Option<&[u8]> {
        let command = self.command(index)?;
        let (_, rest) = number(command, b'*')?;
        let (length, rest) = number(rest, b'$')?;
        let rest = rest.get(length..)?.strip_prefix(b"\r\n")?;
        let (length, rest) = number(rest, b'$')?;
        rest.get(..length)
    }

    /// The stream that each adds to.
    pub(super) fn streams(&self) -> impl Iterator<Item = Stream> {
        self.starts.iter().map(|(_, stream)| *stream)
    }

    fn range(&self, index: usize) -> Option<Range<usize>> {
        let (start, _) = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).map(|(start, _)| *start);
        Some(start..end.unwrap_or(self.bytes.len()))
    }

    /// Keeps the commands that `keep` names, in order.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize, Stream) -> bool) {
        let mut kept = Self::default();
        for (index, (_, stream)) in self.starts.iter().enumerate() {
            if keep(index, *stream)
                && let Some(command) = self.range(index).and_then(|range| self.bytes.get(range))
            {
                kept.starts.push((kept.bytes.len(), *stream));
                kept.bytes.extend_from_slice(command);
            }
        }
        *self = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_everybody_writes_them() {
        for number in [0, 1, 9, 10, 99, 100, 12_345, u64::MAX - 1, u64::MAX] {
            assert_eq!(
                Decimal::new(number).as_bytes(),
                number.to_string().as_bytes()
            );
        }
    }

    #[test]
    fn commands_are_encoded_as_the_specification_has_them() {
        let mut commands = Commands::default();
        commands.begin(Stream::Live, 4);
        commands.part(b"XADD");
        commands.part(b"k");
        commands.pair(b"$4\r\nline\r\n", b"a\r\nb");
        commands.pair(b"$4\r\nmeta\r\n", b"");
        assert_eq!(
            commands.bytes(),
            b"*4\r\n$4\r\nXADD\r\n$1\r\nk\r\n$4\r\nline\r\n$4\r\na\r\nb\r\n"
        );
        assert_eq!(
            parts(commands.bytes()).unwrap(),
            [&b"XADD"[..], b"k", b"line", b"a\r\nb"]
        );
        assert_eq!(parts(&commands.bytes()[..20]), None);
    }

    #[test]
    fn retained_commands_stay_whole_and_in_order() {
        let mut commands = Commands::default();
        for name in [&b"A"[..], b"B", b"C"] {
            commands.begin(Stream::Session, 1);
            commands.part(name);
        }
        commands.retain(|index, _| index != 1);
        assert_eq!(commands.bytes(), b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\nC\r\n");
        commands.retain(|index, _| index == 1);
        assert_eq!(commands.bytes(), b"*1\r\n$1\r\nC\r\n");
        assert_eq!(commands.len(), 1);
    }
}
