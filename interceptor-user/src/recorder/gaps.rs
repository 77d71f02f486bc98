//! What is not recorded where `on_full: allow` lets sessions go on without room: how
//! much of each session is missing.

use std::collections::BTreeMap;

use interceptor_engine::event::{Event, Kind};
use interceptor_policy::verdict::Severity;
use serde_json::json;
use uuid::Uuid;

/// Events that were left out, by session.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    sessions: BTreeMap<Uuid, Gap>,
    /// Of all sessions, ever.
    missing: u64,
}

#[derive(Debug)]
struct Gap {
    /// The first event that is missing, without its bytes.
    first: Event,
    to: u64,
    missing: u64,
    /// Openings and ends are kept: they are small, and what is missing is told between
    /// them.
    open: Option<Event>,
    close: Option<Event>,
}

impl Gaps {
    /// Leaves an event out, but for what is kept.
    pub(super) fn leave_out(&mut self, event: Event) {
        let session = event.session;
        if let Some(gap) = self.sessions.get_mut(&session) {
            match event.kind {
                Kind::Close => gap.close = Some(event),
                _ => {
                    gap.to = event.seq;
                    gap.missing += 1;
                    self.missing += 1;
                }
            }
            return;
        }
        let (open, close, missing) = match event.kind {
            Kind::Open => (Some(event.clone()), None, 0),
            Kind::Close => (None, Some(event.clone()), 0),
            _ => (None, None, 1),
        };
        self.missing += missing;
        let first = Event {
            data: Vec::new(),
            meta: String::new(),
            seq: event.seq + u64::from(open.is_some()),
            ..event
        };
        self.sessions.insert(
            session,
            Gap {
                to: first.seq,
                first,
                missing,
                open,
                close,
            },
        );
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// How many events were left out since the start.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// One session's, as events to be recorded in its place.
    pub(super) fn pop(&mut self) -> Option<Vec<Event>> {
        let (_, gap) = self.sessions.pop_first()?;
        let told = (gap.missing > 0).then(|| gap.event());
        Some(
            [gap.open.clone(), told, gap.close]
                .into_iter()
                .flatten()
                .collect(),
        )
    }
}

impl Gap {
    fn event(&self) -> Event {
        let (from, to, missing) = (self.first.seq, self.to, self.missing);
        Event {
            kind: Kind::Gap,
            line: format!("{missing} events are missing here: the spool was full"),
            meta: json!({ "from": from, "to": to, "missing": missing, "reason": "spool full" })
                .to_string(),
            sealed: interceptor_engine::event::Sealed::Nothing,
            alert: Some(Severity::Critical),
            ..self.first.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interceptor_engine::event::FlowTime;
    use interceptor_engine::journal::Journal;

    #[test]
    fn what_is_missing_stands_between_the_opening_and_the_end() {
        let mut journal = Journal::new(Uuid::now_v7(), None);
        let mut gaps = Gaps::default();
        for kind in [Kind::Open, Kind::Command, Kind::Result, Kind::Close] {
            gaps.leave_out(
                journal
                    .event(FlowTime(1), kind, None, "x")
                    .with_data(vec![1]),
            );
        }
        assert_eq!(gaps.missing(), 2);
        let told = gaps.pop().unwrap();
        let seen: Vec<_> = told.iter().map(|event| (event.seq, event.kind)).collect();
        assert_eq!(seen, [(0, Kind::Open), (1, Kind::Gap), (3, Kind::Close)]);
        let meta: serde_json::Value = serde_json::from_str(&told[1].meta).unwrap();
        assert_eq!(
            (&meta["from"], &meta["to"], &meta["missing"]),
            (&1.into(), &2.into(), &2.into())
        );
        assert!(told[1].data.is_empty());
        assert!(gaps.pop().is_none());
    }

    #[test]
    fn a_gap_in_the_middle_has_neither() {
        let mut journal = Journal::new(Uuid::now_v7(), None);
        let mut gaps = Gaps::default();
        let _ = journal.event(FlowTime(1), Kind::Open, None, "x");
        gaps.leave_out(journal.event(FlowTime(1), Kind::Command, None, "x"));
        let told = gaps.pop().unwrap();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].seq, told[0].kind), (1, Kind::Gap));
    }
}
