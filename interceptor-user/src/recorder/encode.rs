//! Events to commands: which stream gets what.
//!
//! Everything that has a session goes to `session:{ID}`, under an entry ID that
//! follows from the event alone, so that an entry sent twice is refused the second
//! time. The shared streams (`live`, `alerts`, `sessions`) take the server's IDs,
//! since many hosts write there; that a batch reaches them once is the store's
//! business.
//!
//! `live` is for eyes, so it gets no more lines than [`LIVE_RATE`] a second: half of
//! what an event costs Redis would go there, for lines that nobody can read. What is
//! left out is counted in a line of its own; alerts are never left out, and every
//! event is in its session's stream.
//!
//! State is kept for each open session: the chain's value, and who it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use interceptor_engine::chain::{Fields, Hasher, Head, gap_end};
use interceptor_engine::event::{Event, FlowTime, Kind, opened_ms};
use interceptor_engine::evidence::statement::{SessionHead, Signed, State};
use interceptor_engine::packed::{self, Packer};
use interceptor_policy::verdict::Severity;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Alert;
use super::evidence::{HEADS_AT_ONCE, Leavings, Signer};
use super::resp::{Commands, Decimal, Stream, bulk};
use super::spool::Note;

/// Lines of `live` a second, over time, and how many at once.
const LIVE_RATE: f64 = 5_000.0;
const LIVE_BURST: f64 = 10_000.0;

/// Makes commands of events; one for each recorder.
pub(super) struct Encoder {
    host: String,
    prefix: String,
    /// `XADD <live> MAXLEN ~ n *`, encoded.
    live: Vec<u8>,
    /// `XADD <alerts> *`, encoded.
    alerts: Vec<u8>,
    /// `XADD <sessions> *`, encoded.
    sessions: Vec<u8>,
    /// Lines that `live` may get now, and since when that is known.
    live_lines: f64,
    refilled: Instant,
    left_out: u64,
    open: HashMap<Uuid, Session>,
    hasher: Hasher,
    /// Compresses long `data`; `None` where that is configured so.
    packer: Option<Packer>,
    /// The writer is behind, so nothing is compressed.
    in_haste: bool,
    signer: Signer,
    /// Sessions that this batch added to, and those that it ended.
    touched: Vec<Uuid>,
    ended: Vec<Note>,
}

/// What is remembered of an open session.
struct Session {
    /// Its id, in text.
    id: String,
    /// `XADD <key>`, encoded.
    add: Vec<u8>,
    /// Milliseconds since 1970, as its UUIDv7 says.
    opened_ms: u64,
    /// Of its last entry; entry IDs never go back.
    last_ms: u64,
    agent: String,
    target: String,
    run: Option<Arc<str>>,
    head: Head,
    /// Its next event's number.
    next_seq: u64,
    /// The same, when its head was last signed.
    signed: u64,
    /// Of its last event.
    at: FlowTime,
    /// It is among those that the batch touched.
    touched: bool,
}

impl Encoder {
    pub(super) fn new(host: &str, prefix: &str, live_entries: u64, signer: Signer) -> Self {
        let add = |key: &str, rest: &[&[u8]]| {
            let mut out = Vec::new();
            bulk(&mut out, b"XADD");
            bulk(&mut out, format!("{prefix}:{key}").as_bytes());
            for part in rest {
                bulk(&mut out, part);
            }
            out
        };
        Self {
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            live: add(
                "live",
                &[b"MAXLEN", b"~", Decimal::new(live_entries).as_bytes(), b"*"],
            ),
            alerts: add("alerts", &[b"*"]),
            sessions: add("sessions", &[b"*"]),
            live_lines: LIVE_BURST,
            refilled: Instant::now(),
            left_out: 0,
            open: HashMap::new(),
            hasher: Hasher::default(),
            packer: None,
            in_haste: false,
            signer,
            touched: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// The same, that compresses long `data`.
    pub(super) fn packing(mut self, packer: Packer) -> Self {
        self.packer = Some(packer);
        self
    }

    /// Says whether the writer is behind: flows that wait for it cost more than bytes do.
    pub(super) fn hurry(&mut self, in_haste: bool) {
        self.in_haste = in_haste;
    }

    /// Begins a batch: `live` may get what the time since the last one allows, and
    /// is told what it did not get; and heads are signed where that is due.
    pub(super) fn begin(&mut self, now: Instant, out: &mut Commands) {
        for id in self.touched.drain(..) {
            if let Some(session) = self.open.get_mut(&id) {
                session.touched = false;
            }
        }
        self.ended.clear();
        for signed in self.signer.unsent(now) {
            add_statement(&self.sessions, &signed, out);
        }
        if self.signer.is_due(now) {
            self.sign_heads(out);
        }
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.live_lines = LIVE_BURST.min(self.live_lines + passed * LIVE_RATE);
        if self.left_out > 0 && self.live_lines >= 1.0 {
            let left_out = std::mem::take(&mut self.left_out);
            let line = format!("{left_out} lines left out; the sessions' own streams have them");
            let pairs: [(&[u8], &[u8]); 3] = [
                (b"host", self.host.as_bytes()),
                (b"kind", b"left_out"),
                (b"line", line.as_bytes()),
            ];
            out.begin(Stream::Live, 6 + 2 * pairs.len());
            out.encoded(&self.live);
            for (name, value) in pairs {
                out.part(name);
                out.part(value);
            }
        }
    }

    /// Whether `live` gets the event's line.
    fn is_live(&mut self, event: &Event) -> bool {
        if event.line.is_empty() {
            return false;
        }
        if self.live_lines < 1.0 && event.alert.is_none() {
            self.left_out += 1;
            return false;
        }
        self.live_lines -= 1.0;
        true
    }

    /// Appends what `event` comes to.
    pub(super) fn event(&mut self, event: &Event, out: &mut Commands) {
        let is_live = self.is_live(event);
        let prefix = &self.prefix;
        let session = self
            .open
            .entry(event.session)
            .or_insert_with(|| Session::new(event.session, prefix));
        let meta = match event.kind {
            Kind::Open | Kind::Close => serde_json::from_str(&event.meta).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        if event.kind == Kind::Open {
            session.agent = text_at(&meta, "agent");
            session.target = text_at(&meta, "target");
        }

        let packer = self.packer.as_mut().filter(|_| !self.in_haste);
        let packed = packer.and_then(|packer| packer.pack(&event.data));
        let seq = Decimal::new(event.seq);
        let at = Decimal::new(event.at.0);
        let exchange = event.exchange.map(Decimal::new);
        let fields = Fields {
            session: session.id.as_bytes(),
            seq: seq.as_bytes(),
            at: at.as_bytes(),
            kind: event.kind.name().as_bytes(),
            exchange: exchange.as_ref().map_or(&[], Decimal::as_bytes),
            run: event.run.as_deref().unwrap_or_default().as_bytes(),
            line: event.line.as_bytes(),
            data: packed.unwrap_or(&event.data),
            meta: event.meta.as_bytes(),
            coding: packed.map_or(&[], |_| packed::CODING),
            sealed: event.sealed.bytes(),
        };
        session.head = self.hasher.next(session.head, &fields);
        let ms = session.opened_ms.saturating_add(event.at.0 / 1000);
        session.last_ms = session.last_ms.max(ms);
        let last = gap_end(&fields).unwrap_or(event.seq);
        session.next_seq = last.saturating_add(1);
        session.at = event.at;
        if session.run.is_none() {
            session.run.clone_from(&event.run);
        }
        if !std::mem::replace(&mut session.touched, true) {
            self.touched.push(event.session);
        }

        add_entry(session, event.seq, &fields, out);
        if is_live {
            add_live(&self.live, session, event, &fields, out);
        }
        if let Some(severity) = event.alert {
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
            add_pairs(Stream::Alerts, &self.alerts, &pairs, out);
        }
        if matches!(event.kind, Kind::Open | Kind::Close) {
            let closed = (event.kind == Kind::Close).then(|| session.state(event.session));
            let signed = closed.map(|head| self.signer.close(head));
            let who = (self.host.as_str(), &*session);
            add_session(&self.sessions, who, event, &meta, signed.as_ref(), out);
        }
        if event.kind == Kind::Close
            && let Some(session) = self.open.remove(&event.session)
        {
            self.ended.push(Note {
                closed: true,
                ..session.note(event.session)
            });
        }
    }

    /// Ends a session that its daemon could not end, since it was killed.
    pub(super) fn lost(&mut self, note: &Note, out: &mut Commands) {
        let session = Session::resumed(note, &self.prefix);
        let line = "the daemon was lost, and the session with it";
        let seconds = note.at / 1_000_000;
        let meta = json!({
            "reason": line, "lost": true, "duration_us": note.at, "seconds": seconds,
        });
        let event = Event {
            session: note.session,
            run: session.run.clone(),
            seq: note.next_seq,
            at: FlowTime(note.at),
            kind: Kind::Close,
            exchange: None,
            line: line.to_owned(),
            data: Vec::new(),
            meta: meta.to_string(),
            sealed: interceptor_engine::event::Sealed::Nothing,
            alert: Some(Severity::Medium),
        };
        self.open.insert(note.session, session);
        self.event(&event, out);
    }

    /// Sends on what dead writers signed and did not bring to their spools.
    pub(super) fn left(&mut self, left: &Leavings, out: &mut Commands) {
        for signed in self.signer.left(left) {
            add_statement(&self.sessions, &signed, out);
        }
    }

    /// What a daemon after this one has to know of the sessions that the batch
    /// touched, or of all open ones and those that it ended.
    pub(super) fn notes(&self, whole: bool) -> Vec<Note> {
        let note = |(id, session): (&Uuid, &Session)| session.note(*id);
        if whole {
            return self.open.iter().map(note).collect();
        }
        let touched = self.touched.iter();
        let open = touched.filter_map(|id| Some((id, self.open.get(id)?)));
        open.map(note).chain(self.ended.iter().cloned()).collect()
    }

    /// Appends an alert that belongs to no session.
    pub(super) fn alert(&mut self, alert: &Alert, out: &mut Commands) {
        let pairs = [
            (&b"host"[..], self.host.as_bytes()),
            (b"severity", alert.severity.name().as_bytes()),
            (b"kind", alert.kind.as_bytes()),
            (b"line", alert.line.as_bytes()),
            (b"meta", alert.meta.as_bytes()),
        ];
        add_pairs(Stream::Alerts, &self.alerts, &pairs, out);
    }

    /// Signs the heads of all sessions that went on since they were last signed. Where
    /// there are none, the statements since then get one that comes after them.
    pub(super) fn sign_heads(&mut self, out: &mut Commands) {
        let mut heads = Vec::new();
        for (id, session) in &mut self.open {
            if session.signed != session.next_seq {
                session.signed = session.next_seq;
                heads.push(SessionHead {
                    state: State::Open,
                    ..session.state(*id)
                });
            }
        }
        heads.sort_unstable_by_key(|head| head.session);
        for heads in heads.chunks(HEADS_AT_ONCE) {
            let signed = self.signer.heads(heads);
            add_statement(&self.sessions, &signed, out);
        }
        if self.signer.is_unconfirmed() {
            let signed = self.signer.heads(&[]);
            add_statement(&self.sessions, &signed, out);
        }
    }

    /// How long until [`Encoder::begin`] has heads to sign.
    pub(super) fn until_heads(&self, now: Instant) -> Duration {
        self.signer.until_due(now)
    }

    /// What was encoded until now will not be lost with this process any more.
    pub(super) fn delivered(&mut self) {
        self.signer.delivered();
    }

    /// How many sessions are open.
    pub(super) fn sessions(&self) -> usize {
        self.open.len()
    }
}

impl Session {
    fn new(id: Uuid, prefix: &str) -> Self {
        let opened_ms = opened_ms(id);
        let id = id.to_string();
        let mut add = Vec::new();
        bulk(&mut add, b"XADD");
        bulk(&mut add, format!("{prefix}:session:{{{id}}}").as_bytes());
        Self {
            id,
            add,
            opened_ms,
            last_ms: 0,
            agent: String::new(),
            target: String::new(),
            run: None,
            head: Head::START,
            next_seq: 0,
            at: FlowTime::default(),
            touched: false,
            signed: 0,
        }
    }

    /// How far it is, as if nothing followed.
    fn state(&self, session: Uuid) -> SessionHead {
        SessionHead {
            session,
            events: self.next_seq,
            chain: self.head,
            state: State::Closed,
        }
    }

    /// As another process left it.
    fn resumed(note: &Note, prefix: &str) -> Self {
        Self {
            last_ms: note.last_ms,
            agent: note.agent.clone(),
            target: note.target.clone(),
            run: (!note.run.is_empty()).then(|| note.run.as_str().into()),
            head: Head::from_bytes(note.head),
            next_seq: note.next_seq,
            at: FlowTime(note.at),
            ..Self::new(note.session, prefix)
        }
    }

    fn note(&self, id: Uuid) -> Note {
        Note {
            session: id,
            next_seq: self.next_seq,
            at: self.at.0,
            last_ms: self.last_ms,
            head: self.head.to_bytes(),
            closed: false,
            agent: self.agent.clone(),
            target: self.target.clone(),
            run: self.run.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

fn add_entry(session: &Session, seq: u64, fields: &Fields<'_>, out: &mut Commands) {
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

fn add_live(add: &[u8], session: &Session, event: &Event, fields: &Fields<'_>, out: &mut Commands) {
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
fn add_session(
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
fn add_statement(add: &[u8], signed: &Signed, out: &mut Commands) {
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

fn text_at(meta: &Value, name: &str) -> String {
    meta.get(name).map(flat).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use interceptor_engine::journal::Journal;

    /// Lines of `live` among the commands, and all commands.
    fn count(commands: &mut Commands) -> (usize, usize) {
        let all = commands.len();
        commands.retain(|_, stream| stream == Stream::Live);
        (commands.len(), all)
    }

    #[test]
    fn live_gets_what_eyes_can_follow_alerts_and_a_count_of_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path(), "h", Duration::from_secs(60), |_| true).unwrap();
        let mut encoder = Encoder::new("h", "p", 100, signer);
        let mut journal = Journal::new(Uuid::nil(), None);
        let mut event = || journal.event(FlowTime(0), Kind::Note, None, "line");
        let mut out = Commands::default();
        let start = encoder.refilled;
        for _ in 0..10_100 {
            encoder.event(&event(), &mut out);
        }
        encoder.event(&event().with_alert(Severity::High), &mut out);
        assert_eq!(
            count(&mut out),
            (10_001, 10_101 + 10_001 + 1),
            "every event is in its session's stream"
        );

        out.clear();
        encoder.begin(start, &mut out);
        out.retain(|_, stream| stream != Stream::Sessions);
        assert!(out.is_empty(), "no time has passed");
        encoder.begin(start + Duration::from_secs(1), &mut out);
        let text = String::from_utf8_lossy(out.bytes()).into_owned();
        assert!(text.contains("100 lines left out"), "{text}");
        for _ in 0..6_000 {
            encoder.event(&event(), &mut out);
        }
        let (live, _) = count(&mut out);
        assert!((4_999..=5_001).contains(&live), "{live}");
    }

    #[test]
    fn what_comes_behind_a_gap_is_numbered_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path(), "h", Duration::from_secs(60), |_| true).unwrap();
        let mut encoder = Encoder::new("h", "p", 100, signer);
        let mut journal = Journal::new(Uuid::now_v7(), None);
        let mut out = Commands::default();
        encoder.event(&journal.event(FlowTime(0), Kind::Open, None, ""), &mut out);
        let gap = journal.event(FlowTime(1), Kind::Gap, None, "");
        encoder.event(&gap.with_meta(r#"{"from":1,"to":7}"#.into()), &mut out);
        assert_eq!(encoder.notes(true)[0].next_seq, 8);
    }
}
