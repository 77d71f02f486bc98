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
//!
//! * [`session`] is that state;
//! * [`entries`] writes the entries themselves.

mod entries;
mod session;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use interceptor_engine::chain::{Fields, Hasher, gap_end};
use interceptor_engine::event::{Event, FlowTime, Kind};
use interceptor_engine::evidence::statement::{SessionHead, State};
use interceptor_engine::packed::{self, Packer};
use interceptor_policy::verdict::Severity;
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) use self::entries::Alerts;
use self::entries::{add_entry, add_live, add_session, add_statement, add_to, text_at};
use self::session::Session;
use super::Alert;
use super::evidence::{HEADS_AT_ONCE, Leavings, Signer};
use super::resp::{Commands, Decimal, Stream};
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
    alerts: Alerts,
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

impl Encoder {
    pub(super) fn new(host: &str, prefix: &str, live_entries: u64, signer: Signer) -> Self {
        Self {
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            live: add_to(
                prefix,
                "live",
                &[b"MAXLEN", b"~", Decimal::new(live_entries).as_bytes(), b"*"],
            ),
            alerts: Alerts::new(host, prefix),
            sessions: add_to(prefix, "sessions", &[b"*"]),
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
            self.alerts.event(severity, session, &fields, out);
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
        self.alerts.alert(alert, out);
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
