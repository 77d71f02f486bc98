//! How much was recorded, of what: numbers for metrics.
//!
//! Counted by the writer, a batch at a time, so the data path does not wait for who reads
//! the numbers. Labels are bounded: targets are those that are
//! configured, everything else is `other`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use interceptor_engine::event::{Event, Kind};
use serde_json::Value;
use uuid::Uuid;

/// Sessions whose labels are remembered, at most: more are under way nowhere.
const REMEMBERED: usize = 1 << 20;

/// The words of worst verdicts that are told; others are `other`.
const VERDICTS: [&str; 7] = ["allow", "mask", "limit", "hold", "block", "kill", "ban"];

/// Protocol and target.
type Labels = (String, String);

/// What was recorded since the start.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// The numbers.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Events by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// Bytes of events' data.
    pub bytes: u64,
    /// Events that are alerts, by severity.
    pub alerts: BTreeMap<&'static str, u64>,
    /// Flows that opened, by protocol and target.
    pub opened: BTreeMap<Labels, u64>,
    /// Flows that closed, by protocol, target and their worst verdict.
    pub closed: BTreeMap<(String, String, String), u64>,
    targets: BTreeSet<String>,
    open: HashMap<Uuid, Labels>,
}

/// What a batch comes to.
#[derive(Debug, Default)]
pub(super) struct Seen {
    events: BTreeMap<&'static str, u64>,
    alerts: BTreeMap<&'static str, u64>,
    bytes: u64,
    opened: Vec<(Uuid, String, String)>,
    closed: Vec<(Uuid, String)>,
}

impl Tally {
    /// Says which targets are told apart.
    pub fn set_targets<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.lock().targets = names.into_iter().map(str::to_owned).collect();
    }

    /// The numbers now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counts = self.lock();
        Counts {
            events: counts.events.clone(),
            bytes: counts.bytes,
            alerts: counts.alerts.clone(),
            opened: counts.opened.clone(),
            closed: counts.closed.clone(),
            ..Counts::default()
        }
    }

    /// Adds a batch.
    pub(super) fn add(&self, seen: Seen) {
        let mut counts = self.lock();
        let counts = &mut *counts;
        for (kind, count) in seen.events {
            *counts.events.entry(kind).or_default() += count;
        }
        for (severity, count) in seen.alerts {
            *counts.alerts.entry(severity).or_default() += count;
        }
        counts.bytes += seen.bytes;
        for (session, protocol, target) in seen.opened {
            let target = match counts.targets.contains(&target) {
                true => target,
                false => "other".to_owned(),
            };
            let protocol = match protocol.as_str() {
                "postgres" | "http" | "ssh" | "dns" | "tls" => protocol,
                _ => "other".to_owned(),
            };
            let labels = (protocol, target);
            *counts.opened.entry(labels.clone()).or_default() += 1;
            if counts.open.len() < REMEMBERED {
                counts.open.insert(session, labels);
            }
        }
        for (session, worst) in seen.closed {
            let (protocol, target) = counts
                .open
                .remove(&session)
                .unwrap_or_else(|| ("other".to_owned(), "other".to_owned()));
            let worst = match worst.as_str() {
                "" => "allow",
                worst if VERDICTS.contains(&worst) => worst,
                _ => "other",
            };
            let labels = (protocol, target, worst.to_owned());
            *counts.closed.entry(labels).or_default() += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Looks at an event.
    pub(super) fn see(&mut self, event: &Event) {
        *self.events.entry(event.kind.name()).or_default() += 1;
        self.bytes += event.data.len() as u64;
        if let Some(severity) = event.alert {
            *self.alerts.entry(severity.name()).or_default() += 1;
        }
        if !matches!(event.kind, Kind::Open | Kind::Close) {
            return;
        }
        let meta: Value = serde_json::from_str(&event.meta).unwrap_or(Value::Null);
        let text = |name: &str| {
            let text = meta.get(name).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        if event.kind == Kind::Open {
            self.opened
                .push((event.session, text("protocol"), text("target")));
        } else {
            let worst = match text("worst") {
                worst if worst.is_empty() => text("verdict"),
                worst => worst,
            };
            self.closed.push((event.session, worst));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interceptor_engine::event::FlowTime;
    use interceptor_engine::journal::Journal;

    #[test]
    fn no_name_from_the_network_becomes_a_label() {
        let tally = Tally::default();
        tally.set_targets(["orders-db"]);
        for (target, protocol) in [
            ("orders-db", "postgres"),
            ("evil.example", "x"),
            ("", "tls"),
        ] {
            let mut journal = Journal::new(Uuid::now_v7(), None);
            let meta = serde_json::json!({ "target": target, "protocol": protocol }).to_string();
            let events = [
                journal
                    .event(FlowTime(0), Kind::Open, None, "")
                    .with_meta(meta),
                journal
                    .event(FlowTime(1), Kind::Close, None, "")
                    .with_meta(r#"{"worst":"block"}"#.to_owned()),
            ];
            let mut seen = Seen::default();
            events.iter().for_each(|event| seen.see(event));
            tally.add(seen);
        }
        let counts = tally.counts();
        let opened: Vec<_> = counts
            .opened
            .keys()
            .map(|(p, t)| (p.as_str(), t.as_str()))
            .collect();
        assert_eq!(
            opened,
            [
                ("other", "other"),
                ("postgres", "orders-db"),
                ("tls", "other")
            ]
        );
        let closed = counts
            .closed
            .get(&("postgres".into(), "orders-db".into(), "block".into()));
        assert_eq!(closed, Some(&1));
        assert_eq!(counts.events["open"], 3);
    }
}
