//! Hides in a message what masks hide there.
//!
//! By place, along the names of the schema; by looks, in every text, in bytes that
//! are text, and in numbers. A text gets what the mask puts in its place; a number
//! has no room for that and becomes zero, bytes and messages become empty. Fields
//! that the schema does not know are looked at as where there is none: what looks
//! like a message is looked into, and what is text is looked at as text.
//!
//! All else stays byte for byte.

use interceptor_policy::MaskKey;
use interceptor_policy::mask::{Hidden, JsonState, Masked, Transform};

use super::schema::{Field as Known, Kind, Shape};
use super::text;
use super::wire::{self, DEPTH, Damaged, Field, Value};

/// Digits of the shortest number that detectors are asked about.
const DIGITS: usize = 7;

/// A message with what is hidden hidden, `None` where that is nothing; and how much
/// that was.
pub(super) fn message(
    shape: Option<&Shape>,
    hidden: &Hidden,
    key: &MaskKey,
    bytes: &[u8],
) -> Result<(Option<Vec<u8>>, u64), Damaged> {
    let mut hiding = Hiding {
        hidden,
        key,
        count: 0,
    };
    let place = hidden.json().map(interceptor_policy::mask::JsonMask::root);
    let masked = hiding.message(shape, place.as_ref(), bytes, 0)?;
    Ok((masked, hiding.count))
}

struct Hiding<'h> {
    hidden: &'h Hidden,
    key: &'h MaskKey,
    count: u64,
}

type Place<'a, 'm> = Option<&'a JsonState<'m>>;

impl Hiding<'_> {
    fn message(
        &mut self,
        shape: Option<&Shape>,
        place: Place<'_, '_>,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Option<Vec<u8>>, Damaged> {
        if depth >= DEPTH {
            return Err(Damaged);
        }
        let mut out = Vec::new();
        let mut changed = false;
        let mut seen: std::collections::BTreeMap<u32, usize> = std::collections::BTreeMap::new();
        for field in wire::fields(bytes)? {
            let kind = shape.and_then(Shape::message);
            let known = kind.and_then(|kind| kind.fields.get(&field.number));
            let index = seen.entry(field.number).or_default();
            let before = out.len();
            let hid = match (shape, known) {
                (Some(shape), Some(known)) => {
                    self.known(shape, known, place, &field, index, depth, &mut out)?
                }
                _ => self.unknown(&field, depth, &mut out)?,
            };
            *index += 1;
            if hid {
                changed = true;
            } else {
                out.truncate(before);
                out.extend_from_slice(field.raw);
            }
        }
        Ok(changed.then_some(out))
    }

    /// A field that the schema knows; whether anything of it was hidden, and then
    /// what stands in its place is in `out`.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, and each is one fact of it"
    )]
    fn known(
        &mut self,
        shape: &Shape,
        known: &Known,
        place: Place<'_, '_>,
        field: &Field<'_>,
        index: &mut usize,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Damaged> {
        let member = place.map(|place| place.key(&known.name));
        if let Some(transform) = member.as_ref().and_then(JsonState::transform) {
            self.replace(known.kind, field, transform, out);
            return Ok(true);
        }
        if shape.is_map(known) {
            return self.entry(shape, known, member.as_ref(), field, depth, out);
        }
        if !known.repeated {
            return self.value(shape, known, member.as_ref(), field, depth, out);
        }
        if let Value::Bytes(bytes) = field.value
            && text::packs(known.kind)
        {
            return self.packed(known, member.as_ref(), field.number, bytes, index, out);
        }
        let item = member.map(|member| member.index(*index));
        if let Some(transform) = item.as_ref().and_then(JsonState::transform) {
            self.replace(known.kind, field, transform, out);
            return Ok(true);
        }
        self.value(shape, known, item.as_ref(), field, depth, out)
    }

    /// A value that is not hidden whole.
    fn value(
        &mut self,
        shape: &Shape,
        known: &Known,
        place: Place<'_, '_>,
        field: &Field<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Damaged> {
        match (known.kind, field.value) {
            (Kind::Message(of), Value::Bytes(bytes)) => {
                let masked = self.message(Some(&shape.of(of)), place, bytes, depth + 1)?;
                Ok(put(field.number, masked, out))
            }
            (Kind::Text | Kind::Bytes, Value::Bytes(bytes)) => {
                let masked = self.looks(bytes);
                Ok(put(field.number, masked, out))
            }
            (_, Value::Bytes(_)) => self.unknown(field, depth, out),
            (_, value) => {
                let number = text::number(known, value);
                let hits = number.is_some_and(|number| self.is_hit(&number));
                if hits {
                    wire::put_zero(field, out);
                }
                Ok(hits)
            }
        }
    }

    /// One entry of a map.
    fn entry(
        &mut self,
        shape: &Shape,
        known: &Known,
        place: Place<'_, '_>,
        field: &Field<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Damaged> {
        let (Kind::Message(of), Value::Bytes(bytes)) = (known.kind, field.value) else {
            return Err(Damaged);
        };
        let entry = shape.of(of);
        let parts = wire::fields(bytes)?;
        let name = text::key(&entry, &parts).map_err(|_| Damaged)?;
        let member = place.map(|place| place.key(&name));
        let of_value = entry.message().and_then(|kind| kind.fields.get(&2));
        let of_key = entry.message().and_then(|kind| kind.fields.get(&1));
        let mut masked = Vec::new();
        let mut changed = false;
        for part in &parts {
            let before = masked.len();
            let hid = match (part.number, of_key, of_value) {
                (2, _, Some(known)) => match member.as_ref().and_then(JsonState::transform) {
                    Some(transform) => {
                        self.replace(known.kind, part, transform, &mut masked);
                        true
                    }
                    None => {
                        self.value(&entry, known, member.as_ref(), part, depth + 1, &mut masked)?
                    }
                },
                (1, Some(known), _) => {
                    self.value(&entry, known, None, part, depth + 1, &mut masked)?
                }
                _ => self.unknown(part, depth + 1, &mut masked)?,
            };
            changed |= hid;
            if !hid {
                masked.truncate(before);
                masked.extend_from_slice(part.raw);
            }
        }
        Ok(put(field.number, changed.then_some(masked), out))
    }

    /// A list of numbers in one field.
    fn packed(
        &mut self,
        known: &Known,
        place: Place<'_, '_>,
        number: u32,
        bytes: &[u8],
        index: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Damaged> {
        let values = text::packed(known, bytes).map_err(|_| Damaged)?;
        let mut masked = Vec::new();
        let mut changed = false;
        for value in &values {
            let here = place.map(|place| place.index(*index));
            let by_place = here.as_ref().and_then(JsonState::transform).is_some();
            *index += 1;
            if by_place {
                self.count += 1;
            }
            let hide =
                by_place || text::number(known, *value).is_some_and(|number| self.is_hit(&number));
            changed |= hide;
            match *value {
                Value::Varint(one) => wire::put_varint(if hide { 0 } else { one }, &mut masked),
                Value::Fixed64(one) => {
                    masked.extend_from_slice(&(if hide { 0 } else { one }).to_le_bytes());
                }
                Value::Fixed32(one) => {
                    masked.extend_from_slice(&(if hide { 0 } else { one }).to_le_bytes());
                }
                Value::Bytes(_) => return Err(Damaged),
            }
        }
        // The caller counts the field itself.
        *index = index.saturating_sub(1);
        Ok(put(number, changed.then_some(masked), out))
    }

    /// A field of which nothing says what it is.
    fn unknown(
        &mut self,
        field: &Field<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Damaged> {
        let number = match field.value {
            Value::Bytes(bytes) => {
                if text::is_message(bytes)
                    && let Some(masked) = self.message(None, None, bytes, depth + 1)?
                {
                    wire::put_bytes(field.number, &masked, out);
                    return Ok(true);
                }
                let masked = self.looks(bytes);
                return Ok(put(field.number, masked, out));
            }
            Value::Varint(number) | Value::Fixed64(number) => number.to_string(),
            Value::Fixed32(number) => number.to_string(),
        };
        let hits = self.is_hit(&number);
        if hits {
            wire::put_zero(field, out);
        }
        Ok(hits)
    }

    /// A text, or bytes that are one, with what detectors find hidden.
    fn looks(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (masked, hits) = self.hidden.detect()?.hide(bytes, self.key)?;
        self.count += hits as u64;
        Some(masked)
    }

    fn is_hit(&mut self, number: &str) -> bool {
        let hits = number.len() >= DIGITS
            && self
                .hidden
                .detect()
                .is_some_and(|plan| !plan.scan(number.as_bytes()).is_empty());
        self.count += u64::from(hits);
        hits
    }

    /// All of a field is hidden.
    fn replace(&mut self, kind: Kind, field: &Field<'_>, transform: &Transform, out: &mut Vec<u8>) {
        self.count += 1;
        match (kind, field.value) {
            (Kind::Text, Value::Bytes(bytes)) => {
                let mut masked = Vec::new();
                // Where there would be no value, there is no field either.
                if transform.apply(bytes, self.key, &mut masked) == Masked::Text {
                    wire::put_bytes(field.number, &masked, out);
                }
            }
            _ => wire::put_zero(field, out),
        }
    }
}

fn put(number: u32, masked: Option<Vec<u8>>, out: &mut Vec<u8>) -> bool {
    match masked {
        Some(masked) => {
            wire::put_bytes(number, &masked, out);
            true
        }
        None => false,
    }
}
