//! Fields of a protobuf message, cut and written.
//!
//! Format: Protocol Buffers, "Encoding". Groups, which nobody writes any more, are
//! not read.

/// It is not protobuf, or not as it is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// How deep messages may be nested.
pub(super) const DEPTH: usize = 64;

/// A field's value as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'m> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'m [u8]),
    Fixed32(u32),
}

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'m> {
    pub(super) number: u32,
    pub(super) value: Value<'m>,
    /// All of it, as it was written.
    pub(super) raw: &'m [u8],
}

/// Reads a variable-length number from the front.
pub(super) fn varint(input: &[u8]) -> Result<(u64, &[u8]), Damaged> {
    let mut value = 0_u64;
    for (index, byte) in input.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * u32::try_from(index).map_err(|_| Damaged)?;
        if shift == 63 && bits > 1 {
            return Err(Damaged);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok((value, input.get(index + 1..).unwrap_or_default()));
        }
    }
    Err(Damaged)
}

/// The first field; `None` at the end.
pub(super) fn field(input: &[u8]) -> Result<Option<(Field<'_>, &[u8])>, Damaged> {
    if input.is_empty() {
        return Ok(None);
    }
    let (tag, rest) = varint(input)?;
    let number = u32::try_from(tag >> 3).map_err(|_| Damaged)?;
    if number == 0 || number > (1 << 29) - 1 {
        return Err(Damaged);
    }
    let (value, rest) = match tag & 7 {
        0 => {
            let (value, rest) = varint(rest)?;
            (Value::Varint(value), rest)
        }
        1 => {
            let (bytes, rest) = rest.split_first_chunk::<8>().ok_or(Damaged)?;
            (Value::Fixed64(u64::from_le_bytes(*bytes)), rest)
        }
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).map_err(|_| Damaged)?;
            let (bytes, rest) = rest.split_at_checked(length).ok_or(Damaged)?;
            (Value::Bytes(bytes), rest)
        }
        5 => {
            let (bytes, rest) = rest.split_first_chunk::<4>().ok_or(Damaged)?;
            (Value::Fixed32(u32::from_le_bytes(*bytes)), rest)
        }
        _ => return Err(Damaged),
    };
    let used = input.len() - rest.len();
    let raw = input.get(..used).unwrap_or_default();
    let field = Field { number, value, raw };
    Ok(Some((field, rest)))
}

/// Every field, in order.
pub(super) fn fields(mut input: &[u8]) -> Result<Vec<Field<'_>>, Damaged> {
    let mut all = Vec::new();
    while let Some((one, rest)) = field(input)? {
        all.push(one);
        input = rest;
    }
    Ok(all)
}

/// Writes a variable-length number.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// Writes a field that has a length.
pub(super) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes a zero in the place of a number.
pub(super) fn put_zero(field: &Field<'_>, out: &mut Vec<u8>) {
    let number = u64::from(field.number) << 3;
    match field.value {
        Value::Varint(_) => {
            put_varint(number, out);
            out.push(0);
        }
        Value::Fixed64(_) => {
            put_varint(number | 1, out);
            out.extend_from_slice(&[0; 8]);
        }
        Value::Fixed32(_) => {
            put_varint(number | 5, out);
            out.extend_from_slice(&[0; 4]);
        }
        Value::Bytes(_) => put_bytes(field.number, &[], out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_manual_are_read() {
        let read = fields(&[0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i']).unwrap();
        assert_eq!(read[0].value, Value::Varint(150));
        assert_eq!(read[1].value, Value::Bytes(b"hi"));
        assert_eq!(read[1].number, 2);
    }

    #[test]
    fn what_is_no_message_is_none() {
        for bytes in [
            &[0x00, 0x01][..],
            &[0x08],
            &[0x12, 0x05, b'h'],
            &[0x0b],
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02,
            ],
        ] {
            assert_eq!(fields(bytes), Err(Damaged), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_they_were_written(value: u64, behind: Vec<u8>) {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            out.extend_from_slice(&behind);
            prop_assert_eq!(varint(&out), Ok((value, &behind[..])));
        }
    }
}
