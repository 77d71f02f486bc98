//! Hiding one value so that it stays a value of its type.

use interceptor_policy::mask::{DetectPlan, Masked};
use interceptor_policy::{MaskKey, Transform};
use interceptor_proto::pg::types::TypeKind;

use super::plan::ColumnPlan;

/// What a transform left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The new value was appended.
    Value,
    /// NULL; nothing of use was appended.
    Null,
}

/// What the detectors found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detected {
    /// Nothing; nothing was appended.
    Nothing,
    /// Something, and this is in its place.
    Hidden(Written),
}

/// Appends the hidden form of `value` to `out`.
pub(super) fn hide(
    transform: &Transform,
    value: &[u8],
    column: &ColumnPlan,
    key: &MaskKey,
    out: &mut Vec<u8>,
) -> Written {
    match column.kind {
        TypeKind::Text => written(transform.apply(value, key, out)),
        // A type that is not built in arrives as text unless the agent asked for
        // its binary form, which nobody here can write.
        TypeKind::Other if !column.binary => written(transform.apply(value, key, out)),
        TypeKind::Integer { size } => {
            hide_integer(transform, value, size.into(), column.binary, key, out)
        }
        TypeKind::Json | TypeKind::Jsonb => hide_json(transform, value, column, key, out),
        TypeKind::Uuid => hide_uuid(transform, value, column.binary, key, out),
        _ => Written::Null,
    }
}

/// Appends `value` with everything that the detectors find in it hidden.
pub(super) fn detect(
    plan: &DetectPlan,
    value: &[u8],
    column: &ColumnPlan,
    key: &MaskKey,
    out: &mut Vec<u8>,
) -> Detected {
    let binary_only = column.binary
        && !matches!(
            column.kind,
            TypeKind::Text | TypeKind::Json | TypeKind::Jsonb | TypeKind::Other | TypeKind::Array
        );
    // Digits of a number in binary format are looked at as the number they are.
    if binary_only {
        let TypeKind::Integer { size } = column.kind else {
            return Detected::Nothing;
        };
        let Some(number) = read_integer(value, size.into()) else {
            return Detected::Nothing;
        };
        return match plan.scan(number.to_string().as_bytes()).into_iter().next() {
            None => Detected::Nothing,
            Some(hit) => Detected::Hidden(hide_integer(
                hit.transform,
                value,
                size.into(),
                true,
                key,
                out,
            )),
        };
    }
    let hits = plan.scan(value);
    let Some(first) = hits.first() else {
        return Detected::Nothing;
    };
    let in_part = match column.kind {
        TypeKind::Text | TypeKind::Json | TypeKind::Jsonb => true,
        TypeKind::Other => !column.binary,
        _ => false,
    };
    if !in_part {
        return Detected::Hidden(match column.kind {
            TypeKind::Integer { size } => {
                hide_integer(first.transform, value, size.into(), column.binary, key, out)
            }
            _ => Written::Null,
        });
    }
    let start = out.len();
    let mut done = 0;
    for hit in &hits {
        out.extend_from_slice(value.get(done..hit.range.start).unwrap_or_default());
        let found = value.get(hit.range.clone()).unwrap_or_default();
        if hit.transform.apply(found, key, out) == Masked::Null {
            out.truncate(start);
            return Detected::Hidden(Written::Null);
        }
        done = hit.range.end;
    }
    out.extend_from_slice(value.get(done..).unwrap_or_default());
    if matches!(column.kind, TypeKind::Json | TypeKind::Jsonb) {
        // A number or a key that was hit may have left text that is no JSON.
        let written = out.get(start..).unwrap_or_default();
        let json = written
            .strip_prefix(&[1_u8])
            .filter(|_| is_binary_jsonb(column))
            .unwrap_or(written);
        if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_err() {
            out.truncate(start);
            return Detected::Hidden(hide_json(&Transform::Redact, value, column, key, out));
        }
    }
    Detected::Hidden(Written::Value)
}

fn written(masked: Masked) -> Written {
    match masked {
        Masked::Text => Written::Value,
        Masked::Null => Written::Null,
    }
}

fn read_integer(value: &[u8], size: usize) -> Option<i64> {
    match (size, value.len()) {
        (2, 2) => Some(i16::from_be_bytes(value.try_into().ok()?).into()),
        (4, 4) => Some(i32::from_be_bytes(value.try_into().ok()?).into()),
        (8, 8) => Some(i64::from_be_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

fn hide_integer(
    transform: &Transform,
    value: &[u8],
    size: usize,
    binary: bool,
    key: &MaskKey,
    out: &mut Vec<u8>,
) -> Written {
    let number = if binary {
        read_integer(value, size)
    } else {
        std::str::from_utf8(value).ok().and_then(|t| t.parse().ok())
    };
    // A constant stands in for what is no number too (NULL).
    let number = number.or(matches!(transform, Transform::Constant(_)).then_some(0));
    let Some(hidden) = number.and_then(|n: i64| transform.apply_integer(n, bits(size), key)) else {
        return Written::Null;
    };
    if !binary {
        out.extend_from_slice(hidden.to_string().as_bytes());
        return Written::Value;
    }
    match size {
        2 => match i16::try_from(hidden) {
            Ok(hidden) => out.extend_from_slice(&hidden.to_be_bytes()),
            Err(_) => return Written::Null,
        },
        4 => match i32::try_from(hidden) {
            Ok(hidden) => out.extend_from_slice(&hidden.to_be_bytes()),
            Err(_) => return Written::Null,
        },
        _ => out.extend_from_slice(&hidden.to_be_bytes()),
    }
    Written::Value
}

/// `jsonb` in binary format begins with a version byte (`jsonb_send`).
fn is_binary_jsonb(column: &ColumnPlan) -> bool {
    column.binary && column.kind == TypeKind::Jsonb
}

/// A JSON string in the value's place.
fn hide_json(
    transform: &Transform,
    value: &[u8],
    column: &ColumnPlan,
    key: &MaskKey,
    out: &mut Vec<u8>,
) -> Written {
    let mut hidden = Vec::new();
    if transform.apply(value, key, &mut hidden) == Masked::Null {
        return Written::Null;
    }
    let Ok(text) = serde_json::to_vec(&String::from_utf8_lossy(&hidden)) else {
        return Written::Null;
    };
    if is_binary_jsonb(column) {
        out.push(1);
    }
    out.extend_from_slice(&text);
    Written::Value
}

/// A hash keeps a UUID a UUID; everything else makes it NULL.
fn hide_uuid(
    transform: &Transform,
    value: &[u8],
    binary: bool,
    key: &MaskKey,
    out: &mut Vec<u8>,
) -> Written {
    if *transform != Transform::Hash {
        return Written::Null;
    }
    // Both formats of one value must hash alike.
    let bytes = if binary {
        value.try_into().ok().map(uuid::Uuid::from_bytes)
    } else {
        uuid::Uuid::try_parse_ascii(value).ok()
    };
    let Some(bytes) = bytes else {
        return Written::Null;
    };
    let digest = blake3::keyed_hash(&key.0, bytes.as_bytes());
    let Some(first) = digest.as_bytes().first_chunk::<16>() else {
        return Written::Null;
    };
    // Version 8 (RFC 9562, section 5.8): custom contents.
    let hidden = uuid::Builder::from_custom_bytes(*first).into_uuid();
    if binary {
        out.extend_from_slice(hidden.as_bytes());
    } else {
        out.extend_from_slice(hidden.hyphenated().to_string().as_bytes());
    }
    Written::Value
}

fn bits(size: usize) -> u32 {
    match size {
        2 => 16,
        4 => 32,
        _ => 64,
    }
}
