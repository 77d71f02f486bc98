//! The entries of each stream.

use interceptor_engine::chain::Fields;
use interceptor_engine::event::{Event, Kind};
use interceptor_engine::evidence::statement::Signed;
use interceptor_policy::verdict::Severity;
use serde_json::Value;

use super::session::Session;
use crate::recorder::Alert;
use crate::recorder::resp::{Commands, Decimal, Stream, bulk};

/// `XADD` to a key with what stands before the fields, encoded.
pub(super) fn add_to(prefix: &str, key: &str, rest: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    bulk(&mut out, b"XADD");
    bulk(&mut out, format!("{prefix}:{key}").as_bytes());
    for part in rest {
        bulk(&mut out, part);
    }
    out
}

/// Writes to `alerts`.
pub(in crate::recorder) struct Alerts {
    host: String,
    add: Vec<u8>,
}

impl Alerts {
    pub(in crate::recorder) fn new(host: &str, prefix: &str) -> Self {
        Self {
            host: host.to_owned(),
            add: add_to(prefix, "alerts", &[b"*"]),
        }
    }

    /// An event that is one.
    pub(super) fn event(
        &self,
        severity: Severity,
        session: &Session,
        fields: &Fields<'_>,
        out: &mut Commands,
    ) {
        let pairs = [
            (&b"host"[..], self.host.as_bytes()),
            (b"severity", severity.name().as_bytes()),
            (b"kind", fields.kind),
            (b"session", fields.session),
            (b"seq", fields.seq),
            (b"agent", session.agent.as_bytes()),
            (b"target", session.target.as_bytes()),
            (b"line", fields.line),
            (b"meta", fields.meta),
        ];
        add_pairs(Stream::Alerts, &self.add, &pairs, out);
    }

    /// One that belongs to no session.
    pub(in crate::recorder) fn alert(&self, alert: &Alert, out: &mut Commands) {
        let pairs = [
            (&b"host"[..], self.host.as_bytes()),
            (b"severity", alert.severity.name().as_bytes()),
            (b"kind", alert.kind.as_bytes()),
            (b"line", alert.line.as_bytes()),
            (b"meta", alert.meta.as_bytes()),
        ];
        add_pairs(Stream::Alerts, &self.add, &pairs, out);
    }
}

pub(super) fn add_entry(session: &Session, seq: u64, fields: &Fields<'_>, out: &mut Commands) {
    let pairs = [
        (&b"$3\r\nseq\r\n"[..], fields.seq),
        (b"$2\r\nat\r\n", fields.at),
        (b"$4\r\nkind\r\n", fields.kind),
        (b"$8\r\nexchange\r\n", fields.exchange),
        (b"$3\r\nrun\r\n", fields.run),
        (b"$4\r\nline\r\n", fields.line),
        (b"$4\r\ndata\r\n", fields.data),
        (b"$4\r\nmeta\r\n", fields.meta),
        (b"$6\r\ncoding\r\n", fields.coding),
        (b"$6\r\nsealed\r\n", fields.sealed),
        (b"$5\r\nchain\r\n", &session.head.to_hex()),
    ];
    let present = pairs.iter().filter(|(_, value)| !value.is_empty()).count();
    out.begin(Stream::Session, 3 + 2 * present);
    out.encoded(&session.add);
    // An entry's ID: `<milliseconds>-<seq + 1>`; 0-0 is not allowed.
    let ms = Decimal::new(session.last_ms);
    let counter = Decimal::new(seq.saturating_add(1));
    let mut id = [0; 41];
    let mut len = 0;
    for part in [ms.as_bytes(), b"-", counter.as_bytes()] {
        if let Some(room) = id.get_mut(len..len + part.len()) {
            room.copy_from_slice(part);
            len += part.len();
        }
    }
    out.part(id.get(..len).unwrap_or_default());
    for (name, value) in pairs {
        out.pair(name, value);
    }
}

pub(super) fn add_live(
    add: &[u8],
    session: &Session,
    event: &Event,
    fields: &Fields<'_>,
    out: &mut Commands,
) {
    let alert = event.alert.map_or("", |severity| severity.name());
    let pairs = [
        (&b"$7\r\nsession\r\n"[..], fields.session),
        (b"$3\r\nseq\r\n", fields.seq),
        (b"$4\r\nkind\r\n", fields.kind),
        (b"$5\r\nagent\r\n", session.agent.as_bytes()),
        (b"$5\r\nalert\r\n", alert.as_bytes()),
        (b"$4\r\nline\r\n", fields.line),
    ];
    let present = pairs.iter().filter(|(_, value)| !value.is_empty()).count();
    out.begin(Stream::Live, 6 + 2 * present);
    out.encoded(add);
    for (name, value) in pairs {
        out.pair(name, value);
    }
}

/// The session's opening or close: what this recorder knows, then what `meta` says.
pub(super) fn add_session(
    add: &[u8],
    (host, session): (&str, &Session),
    event: &Event,
    meta: &Value,
    signed: Option<&Signed>,
    out: &mut Commands,
) {
    let signature = signed.map(Signed::fields);
    let chain = session.head.to_hex();
    let events = Decimal::new(event.seq.saturating_add(1));
    let mut pairs: Vec<(&[u8], &[u8])> = vec![
        (b"event", event.kind.name().as_bytes()),
        (b"session", session.id.as_bytes()),
        (b"host", host.as_bytes()),
        (b"agent", session.agent.as_bytes()),
        (b"target", session.target.as_bytes()),
        (b"run", event.run.as_deref().unwrap_or_default().as_bytes()),
        (b"line", event.line.as_bytes()),
    ];
    if event.kind == Kind::Close {
        pairs.push((b"events", events.as_bytes()));
        pairs.push((b"chain", &chain));
    }
    for (name, value) in signature.iter().flatten() {
        pairs.push((name.as_bytes(), value.as_bytes()));
    }
    let rest: Vec<(&String, String)> = meta
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !pairs.iter().any(|(taken, _)| *taken == name.as_bytes()))
        .map(|(name, value)| (name, flat(value)))
        .collect();
    pairs.extend(
        rest.iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    add_pairs(Stream::Sessions, add, &pairs, out);
}

/// A statement that stands for itself.
pub(super) fn add_statement(add: &[u8], signed: &Signed, out: &mut Commands) {
    let signature = signed.fields();
    let mut pairs: Vec<(&[u8], &[u8])> = vec![
        (b"event", b"heads"),
        (b"host", signed.host.as_bytes()),
        (b"heads", signed.body.as_bytes()),
    ];
    let fields = signature.iter();
    pairs.extend(fields.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    add_pairs(Stream::Sessions, add, &pairs, out);
}

/// `XADD <key> *` with the pairs that have a value.
fn add_pairs(stream: Stream, add: &[u8], pairs: &[(&[u8], &[u8])], out: &mut Commands) {
    let present = pairs.iter().filter(|(_, value)| !value.is_empty());
    out.begin(stream, 3 + 2 * present.clone().count());
    out.encoded(add);
    for (name, value) in present {
        out.part(name);
        out.part(value);
    }
}

/// A value as a person reads it: text bare, nothing as nothing, the rest as JSON.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn text_at(meta: &Value, name: &str) -> String {
    meta.get(name).map(flat).unwrap_or_default()
}
