//! A frame: one batch of commands as it stands in the spool.
//!
//! ```text
//! offset  bytes  what (numbers are little-endian)
//!      0      4  "ICF1"
//!      4      4  CRC-32 (IEEE) of everything from offset 8 to the frame's end
//!      8      4  bytes behind the header
//!     12      8  the frame's number; the next frame of the spool has the next one
//!     20      4  commands
//!     24      4  notes
//!     28      4  1: the notes tell of every open session, and not only of those that the commands touch
//!     32         for each command: its length (4), the stream that it adds to (1)
//!                for each note: see [`Note`]
//!                the commands, as Redis is sent them
//! ```
//!
//! The notes are what a daemon that finds the spool of a dead one has to know of its
//! sessions to end them on record: the numbers and the chain go on from there.

use nom::Parser as _;
use nom::bytes::complete::{tag, take};
use nom::multi::count;
use nom::number::complete::{le_u8, le_u32, le_u64};
use uuid::Uuid;

use super::super::resp::{Commands, Stream};

/// Bytes of a frame's header.
pub(in super::super) const HEADER: usize = 32;

/// What a frame begins with.
pub(in super::super) const MAGIC: &[u8; 4] = b"ICF1";
/// Behind magic and checksum.
const CHECKED: usize = 8;
/// The notes tell of every open session.
const WHOLE: u32 = 1;
/// The least that a command or a note takes; a count that asks for more than there is
/// is refused before anything is reserved for it.
const LEAST: usize = 5;

/// What is to be known of a session to go on with it.
///
/// ```text
/// 16  the session    8  number of its next event    8  time of its last one (µs since it opened)
///  8  milliseconds of its last entry's ID           32  its chain's value    1  1: closed
///  4 + n  agent      4 + n  target                  4 + n  run
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Note {
    pub(in super::super) session: Uuid,
    pub(in super::super) next_seq: u64,
    pub(in super::super) at: u64,
    pub(in super::super) last_ms: u64,
    pub(in super::super) head: [u8; 32],
    pub(in super::super) closed: bool,
    pub(in super::super) agent: String,
    pub(in super::super) target: String,
    pub(in super::super) run: String,
}

/// A frame that was read back.
#[derive(Debug, Default)]
pub(in super::super) struct Frame {
    pub(in super::super) number: u64,
    pub(in super::super) commands: Commands,
    pub(in super::super) notes: Vec<Note>,
    /// The notes tell of every open session.
    pub(in super::super) whole: bool,
    /// Bytes that it takes in the spool.
    pub(in super::super) length: u64,
}

/// Why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Bad {
    /// Nothing was written here.
    Nothing,
    /// Something was, and it is no whole frame.
    Broken,
}

/// Appends a frame to `out`.
pub(in super::super) fn write(
    out: &mut Vec<u8>,
    number: u64,
    commands: &Commands,
    notes: &[Note],
    whole: bool,
) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&short(commands.len()).to_le_bytes());
    out.extend_from_slice(&short(notes.len()).to_le_bytes());
    out.extend_from_slice(&(if whole { WHOLE } else { 0 }).to_le_bytes());
    for (length, stream) in commands.lengths() {
        out.extend_from_slice(&short(length).to_le_bytes());
        out.push(stream.code());
    }
    for note in notes {
        write_note(out, note);
    }
    out.extend_from_slice(commands.bytes());

    let length = short(out.len() - start - HEADER).to_le_bytes();
    patch(out, start + CHECKED, length);
    let sum = crc32fast::hash(out.get(start + CHECKED..).unwrap_or_default());
    patch(out, start + MAGIC.len(), sum.to_le_bytes());
}

fn write_note(out: &mut Vec<u8>, note: &Note) {
    out.extend_from_slice(note.session.as_bytes());
    for number in [note.next_seq, note.at, note.last_ms] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&note.head);
    out.push(note.closed.into());
    for text in [&note.agent, &note.target, &note.run] {
        out.extend_from_slice(&short(text.len()).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
}

fn patch(out: &mut [u8], at: usize, value: [u8; 4]) {
    if let Some(place) = out.get_mut(at..at + value.len()) {
        place.copy_from_slice(&value);
    }
}

/// Batches are bounded far below this.
fn short(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// How many bytes the frame takes whose header `bytes` begins with.
pub(in super::super) fn length(bytes: &[u8]) -> Result<usize, Bad> {
    let header = bytes.get(..HEADER).ok_or(Bad::Broken)?;
    if header.iter().all(|byte| *byte == 0) {
        return Err(Bad::Nothing);
    }
    let (_, (_, _, length)) = (tag(&MAGIC[..]), le_u32, le_u32)
        .parse(header)
        .map_err(broken)?;
    Ok(HEADER + usize::try_from(length).map_err(|_| Bad::Broken)?)
}

/// Reads the frame that is all of `bytes`.
pub(in super::super) fn read(bytes: &[u8]) -> Result<Frame, Bad> {
    if length(bytes)? != bytes.len() {
        return Err(Bad::Broken);
    }
    let (checked, (_, sum)) = (tag(&MAGIC[..]), le_u32).parse(bytes).map_err(broken)?;
    if crc32fast::hash(checked) != sum {
        return Err(Bad::Broken);
    }
    let (rest, (_, number, commands, notes, flags)) = (le_u32, le_u64, le_u32, le_u32, le_u32)
        .parse(checked)
        .map_err(broken)?;
    let (commands, notes) = (fits(commands, rest)?, fits(notes, rest)?);
    let (rest, table) = count((le_u32, le_u8), commands)
        .parse(rest)
        .map_err(broken)?;
    let (rest, notes) = count(note, notes).parse(rest).map_err(broken)?;
    let mut lengths = Vec::with_capacity(table.len());
    for (length, stream) in table {
        let length = usize::try_from(length).map_err(|_| Bad::Broken)?;
        lengths.push((length, Stream::from_code(stream).ok_or(Bad::Broken)?));
    }
    Ok(Frame {
        number,
        commands: Commands::from_parts(rest, &lengths).ok_or(Bad::Broken)?,
        notes,
        whole: flags & WHOLE != 0,
        length: bytes.len() as u64,
    })
}

fn fits(count: u32, rest: &[u8]) -> Result<usize, Bad> {
    let count = usize::try_from(count).map_err(|_| Bad::Broken)?;
    if count > rest.len() / LEAST {
        return Err(Bad::Broken);
    }
    Ok(count)
}

fn note(input: &[u8]) -> nom::IResult<&[u8], Note> {
    let (input, (session, next_seq, at, last_ms, head, closed)) =
        (take(16usize), le_u64, le_u64, le_u64, take(32usize), le_u8).parse(input)?;
    let (input, (agent, target, run)) = (text, text, text).parse(input)?;
    Ok((
        input,
        Note {
            session: Uuid::from_slice(session).unwrap_or_default(),
            next_seq,
            at,
            last_ms,
            head: head.try_into().unwrap_or_default(),
            closed: closed != 0,
            agent,
            target,
            run,
        },
    ))
}

fn text(input: &[u8]) -> nom::IResult<&[u8], String> {
    let (input, length) = le_u32(input)?;
    let (input, bytes) = take(length).parse(input)?;
    Ok((input, String::from_utf8_lossy(bytes).into_owned()))
}

fn broken(_: nom::Err<nom::error::Error<&[u8]>>) -> Bad {
    Bad::Broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(count: usize) -> Commands {
        let mut commands = Commands::default();
        for index in 0..count {
            let stream = [
                Stream::Session,
                Stream::Live,
                Stream::Alerts,
                Stream::Sessions,
            ];
            commands.begin(stream[index % 4], 2);
            commands.part(b"XADD");
            commands.part(format!("key-{index}").as_bytes());
        }
        commands
    }

    fn notes() -> Vec<Note> {
        let open = Note {
            session: Uuid::now_v7(),
            next_seq: 7,
            at: 1_000_001,
            last_ms: 1_700_000_000_000,
            head: [9; 32],
            closed: false,
            agent: "bot".into(),
            target: "orders-db".into(),
            run: "run-1".into(),
        };
        let closed = Note {
            closed: true,
            ..Note::default()
        };
        vec![open, closed]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        write(&mut bytes, 41, &batch(9), &notes(), true);
        assert_eq!(length(&bytes), Ok(bytes.len()));
        let frame = read(&bytes).unwrap();
        assert_eq!((frame.number, frame.whole), (41, true));
        assert_eq!(frame.notes[1], notes()[1]);
        assert_eq!(frame.notes[0].agent, "bot");
        assert_eq!(frame.commands.bytes(), batch(9).bytes());
        let streams = |commands: &Commands| commands.lengths().collect::<Vec<_>>();
        assert_eq!(streams(&frame.commands), streams(&batch(9)));
    }

    #[test]
    fn an_empty_place_is_told_from_a_broken_frame() {
        assert_eq!(length(&[0; 64]), Err(Bad::Nothing));
        assert_eq!(length(&[0; 8]), Err(Bad::Broken));
        assert_eq!(length(&[1; 64]), Err(Bad::Broken));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_changed_byte_and_no_cut_goes_unseen(count in 0usize..6, at: usize, flip in 1u8.., cut: usize) {
            let mut bytes = Vec::new();
            write(&mut bytes, 3, &batch(count), &notes(), false);
            let cut = cut % bytes.len();
            prop_assert!(read(&bytes[..cut]).is_err());
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn anything_can_be_read_without_a_panic(bytes: Vec<u8>) {
            let mut framed = MAGIC.to_vec();
            framed.extend(crc32fast::hash(&bytes).to_le_bytes());
            framed.extend(&bytes);
            let _ = (read(&bytes), read(&framed), length(&bytes));
        }
    }
}
