//! Rows out of recorded backend frames.
//!
//! A result's `data` holds whole frames as the agent got them, perhaps over several
//! events. A frame that is split between events is put together up to
//! [`FRAME_LIMIT`]; a longer one is counted and passed over, since no more than a
//! line of it would be shown.
//!
//! A recording may be damaged, so nothing here believes a length.
//!
//! Format: PostgreSQL manual, page `protocol-message-formats`.

pub mod value;

/// The longest frame that is put together.
pub const FRAME_LIMIT: usize = 16 << 20;

/// Tag and length.
const HEADER: usize = 5;

/// A column, as `RowDescription` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type's object id.
    pub type_oid: u32,
    /// Text or binary; `None` where nobody said.
    pub binary: Option<bool>,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The columns of the rows that follow.
    Columns(Vec<Column>),
    /// A row's values; `None` is NULL.
    Row(Vec<Option<&'a [u8]>>),
    /// A piece of a `COPY … TO STDOUT`.
    Copy(&'a [u8]),
    /// One that is longer than [`FRAME_LIMIT`].
    Oversized(u64),
    /// One that cannot be read, or says nothing to show.
    Other,
}

/// Cuts frames out of the bytes of one result.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// The beginning of a frame whose rest is in the next event.
    carry: Vec<u8>,
    /// What is still to come of a frame that is passed over.
    skip: usize,
}

impl Frames {
    /// Whether what was pushed ended with a frame's end.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.carry.is_empty() && self.skip == 0
    }

    /// Hands each frame that `data` completes to `show`.
    pub fn push(&mut self, data: &[u8], mut show: impl FnMut(Frame<'_>)) {
        let skipped = self.skip.min(data.len());
        self.skip -= skipped;
        let fresh = data.get(skipped..).unwrap_or_default();
        let joined;
        let mut rest = if self.carry.is_empty() {
            fresh
        } else {
            joined = [&std::mem::take(&mut self.carry), fresh].concat();
            &joined
        };
        while let Some((&[tag, a, b, c, d], _)) = rest.split_first_chunk::<HEADER>() {
            let declared = u32::from_be_bytes([a, b, c, d]) as usize;
            // The length counts itself and not the tag.
            let total = declared.max(HEADER - 1) + 1;
            if total > FRAME_LIMIT {
                show(Frame::Oversized(total as u64));
                self.skip = total.saturating_sub(rest.len());
                rest = rest.get(total..).unwrap_or_default();
            } else if let Some((frame, after)) = rest.split_at_checked(total) {
                show(read(tag, frame.get(HEADER..).unwrap_or_default()));
                rest = after;
            } else {
                break;
            }
        }
        self.carry = rest.to_vec();
    }
}

fn read(tag: u8, body: &[u8]) -> Frame<'_> {
    match tag {
        b'T' => columns(body).map_or(Frame::Other, Frame::Columns),
        b'D' => row(body).map_or(Frame::Other, Frame::Row),
        b'd' => Frame::Copy(body),
        _ => Frame::Other,
    }
}

fn columns(body: &[u8]) -> Option<Vec<Column>> {
    let (count, mut rest) = body.split_first_chunk()?;
    let mut columns = Vec::new();
    for _ in 0..i16::from_be_bytes(*count) {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (name, after) = rest.split_at_checked(end)?;
        // Table's id 4, attribute 2, type 4, its size 2, its modifier 4, format 2.
        let (fixed, after) = after.get(1..)?.split_first_chunk::<18>()?;
        let &[_, _, _, _, _, _, t0, t1, t2, t3, _, _, _, _, _, _, f0, f1] = fixed;
        columns.push(Column {
            name: String::from_utf8_lossy(name).into_owned(),
            type_oid: u32::from_be_bytes([t0, t1, t2, t3]),
            binary: Some(i16::from_be_bytes([f0, f1]) == 1),
        });
        rest = after;
    }
    Some(columns)
}

fn row(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk()?;
    let mut values = Vec::new();
    for _ in 0..i16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            values.push(None);
            rest = after;
        } else {
            let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
            values.push(Some(value));
            rest = after;
        }
    }
    Some(values)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    pub(crate) fn description(columns: &[(&str, u32, i16)]) -> Vec<u8> {
        let mut body = i16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for (name, oid, format) in columns {
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[0; 7]);
            body.extend_from_slice(&oid.to_be_bytes());
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&format.to_be_bytes());
        }
        frame(b'T', &body)
    }

    pub(crate) fn data_row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = i16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            match value {
                None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
                Some(value) => {
                    body.extend_from_slice(&i32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
        frame(b'D', &body)
    }

    fn shown(parts: &[&[u8]]) -> Vec<String> {
        let mut frames = Frames::default();
        let mut out = Vec::new();
        for part in parts {
            frames.push(part, |frame| out.push(format!("{frame:?}")));
        }
        out
    }

    #[test]
    fn a_result_is_the_same_however_it_was_cut_into_events() {
        let bytes = [
            description(&[("id", 23, 0), ("email", 25, 1)]),
            data_row(&[Some(b"1"), None]),
            data_row(&[Some(b"2"), Some(b"")]),
            frame(b'd', b"1\t2\n"),
        ]
        .concat();
        let whole = shown(&[&bytes]);
        assert_eq!(whole.len(), 4);
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(shown(&[a, b]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_passed_over_and_what_follows_is_shown() {
        let long = frame(b'D', &vec![0; FRAME_LIMIT]);
        let after = data_row(&[None]);
        let (a, b) = long.split_at(1000);
        let out = shown(&[a, b, &after]);
        assert_eq!(
            out,
            [
                format!("Oversized({})", FRAME_LIMIT + HEADER),
                "Row([None])".to_owned()
            ]
        );
    }

    proptest! {
        #[test]
        fn damaged_frames_are_shown_as_such_and_never_panic(
            tag in prop::sample::select(b"TDdx".to_vec()),
            body in prop::collection::vec(any::<u8>(), 0..100),
            tail in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            shown(&[&frame(tag, &body), &tail]);
        }
    }
}
