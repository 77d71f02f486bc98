//! A message as JSON.
//!
//! Like protobuf's own JSON, and made for rules: members are called as in the
//! `.proto` file, numbers are numbers whatever their width, and a field that counts
//! as zero where it is absent is there as zero. A member that a message has twice
//! stands there twice, so that rules see every reading. What the schema does not
//! know, or where there is none, is called by its number: a text where it is one,
//! a message where it looks like one, base64 otherwise.
//!
//! Format: Protocol Buffers, "ProtoJSON Format".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::schema::{Field as Known, Kind, Shape};
use super::wire::{self, DEPTH, Field, Value};

/// Bytes of the text: a short message may have many fields that are absent.
const TEXT_LIMIT: usize = 8 << 20;

const DAMAGED: &str = "it is no protobuf";
const DEEP: &str = "it is nested too deep";
const LONG: &str = "it has too many fields";

/// What a message says.
pub(super) fn json(shape: Option<&Shape>, message: &[u8]) -> Result<String, &'static str> {
    let mut out = String::new();
    object(shape, message, 0, &mut out)?;
    Ok(out)
}

fn object(
    shape: Option<&Shape>,
    message: &[u8],
    depth: usize,
    out: &mut String,
) -> Result<(), &'static str> {
    if depth >= DEPTH {
        return Err(DEEP);
    }
    let fields = wire::fields(message).map_err(|_| DAMAGED)?;
    let kind = shape.and_then(Shape::message);
    let mut done = std::collections::BTreeSet::new();
    out.push('{');
    let mut first = true;
    for field in &fields {
        if out.len() > TEXT_LIMIT {
            return Err(LONG);
        }
        let known = kind.and_then(|kind| kind.fields.get(&field.number));
        match (shape, known) {
            (Some(shape), Some(known)) if known.repeated => {
                if !done.insert(field.number) {
                    continue;
                }
                let all = fields.iter().filter(|one| one.number == field.number);
                member(&known.name, &mut first, out);
                if shape.is_map(known) {
                    map(shape, known, all, depth, out)?;
                } else {
                    list(shape, known, all, depth, out)?;
                }
            }
            (Some(shape), Some(known)) => {
                done.insert(field.number);
                member(&known.name, &mut first, out);
                value(shape, known, field.value, depth, out)?;
            }
            _ => {
                if !done.insert(field.number) {
                    continue;
                }
                member(&field.number.to_string(), &mut first, out);
                let all: Vec<&Field<'_>> = fields
                    .iter()
                    .filter(|one| one.number == field.number)
                    .collect();
                match all.as_slice() {
                    [one] => unknown(one.value, depth, out)?,
                    all => {
                        out.push('[');
                        for (index, one) in all.iter().enumerate() {
                            if index > 0 {
                                out.push(',');
                            }
                            unknown(one.value, depth, out)?;
                        }
                        out.push(']');
                    }
                }
            }
        }
    }
    if let (Some(kind), Some(shape)) = (kind, shape) {
        let absent = kind
            .fields
            .iter()
            .filter(|(number, known)| known.implicit && !done.contains(number));
        for (_, known) in absent {
            member(&known.name, &mut first, out);
            match known.kind {
                Kind::Text | Kind::Bytes => out.push_str("\"\""),
                Kind::Bool => out.push_str("false"),
                Kind::Enum(of) => enumerated(shape, of, 0, out),
                _ => out.push('0'),
            }
        }
    }
    out.push('}');
    Ok(())
}

fn member(name: &str, first: &mut bool, out: &mut String) {
    if !std::mem::replace(first, false) {
        out.push(',');
    }
    quoted(name, out);
    out.push(':');
}

fn quoted(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn enumerated(shape: &Shape, of: usize, number: i32, out: &mut String) {
    match shape.enum_name(of, number) {
        Some(name) => quoted(name, out),
        None => out.push_str(&number.to_string()),
    }
}

/// One value of a field that is known.
fn value(
    shape: &Shape,
    known: &Known,
    value: Value<'_>,
    depth: usize,
    out: &mut String,
) -> Result<(), &'static str> {
    match (known.kind, value) {
        (Kind::Text, Value::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| "a text of it is not UTF-8")?;
            quoted(text, out);
        }
        (Kind::Bytes, Value::Bytes(bytes)) => quoted(&STANDARD.encode(bytes), out),
        (Kind::Message(of), Value::Bytes(bytes)) => {
            object(Some(&shape.of(of)), bytes, depth + 1, out)?;
        }
        (Kind::Enum(of), Value::Varint(number)) => enumerated(shape, of, low(number), out),
        (Kind::Bool, Value::Varint(number)) => {
            out.push_str(if number == 0 { "false" } else { "true" });
        }
        (Kind::Int | Kind::Unsigned | Kind::Zigzag | Kind::Float, _) => {
            out.push_str(&number(known, value).ok_or(DAMAGED)?);
        }
        // Written otherwise than it is described: a reader takes it for unknown.
        _ => unknown(value, depth, out)?,
    }
    Ok(())
}

/// The low half, as a reader of 32 bits takes it.
fn low(number: u64) -> i32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// A number as it is written in JSON; `None` where it is none.
pub(super) fn number(known: &Known, value: Value<'_>) -> Option<String> {
    Some(match (known.kind, value) {
        (Kind::Float, Value::Fixed64(bits)) => float(f64::from_bits(bits)),
        (Kind::Float, Value::Fixed32(bits)) => float(f64::from(f32::from_bits(bits))),
        (Kind::Int, Value::Varint(value)) if known.short => low(value).to_string(),
        (Kind::Int, Value::Varint(value) | Value::Fixed64(value)) => {
            value.cast_signed().to_string()
        }
        (Kind::Int, Value::Fixed32(value)) => value.cast_signed().to_string(),
        (Kind::Unsigned, Value::Varint(value)) if known.short => {
            low(value).cast_unsigned().to_string()
        }
        (Kind::Unsigned, Value::Varint(value) | Value::Fixed64(value)) => value.to_string(),
        (Kind::Unsigned, Value::Fixed32(value)) => value.to_string(),
        (Kind::Zigzag, Value::Varint(value)) => {
            let value = if known.short {
                u64::from(low(value).cast_unsigned())
            } else {
                value
            };
            let folded = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
            folded.to_string()
        }
        _ => return None,
    })
}

fn float(value: f64) -> String {
    // JSON has no word for the others.
    match serde_json::Number::from_f64(value) {
        Some(number) => number.to_string(),
        None => format!("\"{value}\""),
    }
}

/// The values of a packed list.
pub(super) fn packed<'m>(known: &Known, bytes: &'m [u8]) -> Result<Vec<Value<'m>>, &'static str> {
    let mut rest = bytes;
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (one, after) = match known.width {
            Some(4) => {
                let (bytes, after) = rest.split_first_chunk::<4>().ok_or(DAMAGED)?;
                (Value::Fixed32(u32::from_le_bytes(*bytes)), after)
            }
            Some(_) => {
                let (bytes, after) = rest.split_first_chunk::<8>().ok_or(DAMAGED)?;
                (Value::Fixed64(u64::from_le_bytes(*bytes)), after)
            }
            None => {
                let (value, after) = wire::varint(rest).map_err(|_| DAMAGED)?;
                (Value::Varint(value), after)
            }
        };
        values.push(one);
        rest = after;
    }
    Ok(values)
}

/// Whether a list of it may be packed.
pub(super) const fn packs(kind: Kind) -> bool {
    !matches!(kind, Kind::Text | Kind::Bytes | Kind::Message(_))
}

fn list<'f, 'm: 'f>(
    shape: &Shape,
    known: &Known,
    all: impl Iterator<Item = &'f Field<'m>>,
    depth: usize,
    out: &mut String,
) -> Result<(), &'static str> {
    out.push('[');
    let mut first = true;
    for field in all {
        let values = match field.value {
            Value::Bytes(bytes) if packs(known.kind) => packed(known, bytes)?,
            one => vec![one],
        };
        for one in values {
            if !std::mem::replace(&mut first, false) {
                out.push(',');
            }
            value(shape, known, one, depth, out)?;
        }
    }
    out.push(']');
    Ok(())
}

fn map<'f, 'm: 'f>(
    shape: &Shape,
    known: &Known,
    all: impl Iterator<Item = &'f Field<'m>>,
    depth: usize,
    out: &mut String,
) -> Result<(), &'static str> {
    let Kind::Message(of) = known.kind else {
        return Err(DAMAGED);
    };
    let entry = shape.of(of);
    let Some(kind) = entry.message() else {
        return Err(DAMAGED);
    };
    out.push('{');
    let mut first = true;
    for field in all {
        let Value::Bytes(bytes) = field.value else {
            return Err(DAMAGED);
        };
        let parts = wire::fields(bytes).map_err(|_| DAMAGED)?;
        let name = key(&entry, &parts)?;
        member(&name, &mut first, out);
        let last = parts.iter().rev().find(|one| one.number == 2);
        match (kind.fields.get(&2), last) {
            (Some(known), Some(field)) => value(&entry, known, field.value, depth, out)?,
            (Some(known), None) => match known.kind {
                Kind::Text | Kind::Bytes => out.push_str("\"\""),
                Kind::Bool => out.push_str("false"),
                Kind::Enum(of) => enumerated(&entry, of, 0, out),
                Kind::Message(_) => out.push_str("{}"),
                _ => out.push('0'),
            },
            (None, _) => return Err(DAMAGED),
        }
    }
    out.push('}');
    Ok(())
}

/// An entry's key, as a member is called by it.
pub(super) fn key(entry: &Shape, parts: &[Field<'_>]) -> Result<String, &'static str> {
    let known = entry.message().and_then(|kind| kind.fields.get(&1));
    let known = known.ok_or(DAMAGED)?;
    let last = parts.iter().rev().find(|one| one.number == 1);
    Ok(match (known.kind, last.map(|field| field.value)) {
        (Kind::Text, None) => String::new(),
        (Kind::Text, Some(Value::Bytes(bytes))) => {
            let text = std::str::from_utf8(bytes);
            text.map_err(|_| "a text of it is not UTF-8")?.to_owned()
        }
        (Kind::Bool, None | Some(Value::Varint(0))) => "false".to_owned(),
        (Kind::Bool, Some(Value::Varint(_))) => "true".to_owned(),
        (_, None) => "0".to_owned(),
        (_, Some(value)) => number(known, value).ok_or(DAMAGED)?,
    })
}

/// A value of which nothing says what it is.
fn unknown(value: Value<'_>, depth: usize, out: &mut String) -> Result<(), &'static str> {
    match value {
        Value::Varint(number) => out.push_str(&number.cast_signed().to_string()),
        Value::Fixed64(bits) => out.push_str(&bits.cast_signed().to_string()),
        Value::Fixed32(bits) => out.push_str(&bits.cast_signed().to_string()),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(is_odd) => quoted(text, out),
            _ if is_message(bytes) && depth + 1 < DEPTH => {
                object(None, bytes, depth + 1, out)?;
            }
            Ok(text) => quoted(text, out),
            Err(_) => quoted(&STANDARD.encode(bytes), out),
        },
    }
    Ok(())
}

/// Whether a character is in no text.
pub(super) fn is_odd(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

/// Whether bytes may be a message.
pub(super) fn is_message(bytes: &[u8]) -> bool {
    !bytes.is_empty() && wire::fields(bytes).is_ok()
}
