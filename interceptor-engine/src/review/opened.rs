//! Whose session a recording is, from its opening event.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use interceptor_policy::{DefaultVerdict, Moment, Principal, Protocol, Subject, Target};
use serde_json::Value;

use crate::replay::Entry;

/// What a session's opening event says.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Who acted on what; the target's default is not on record.
    pub subject: Subject,
    /// `database` of the startup message.
    pub database: String,
    /// `user` of the startup message.
    pub user: String,
    /// When it opened, by the wall clock.
    pub at: Moment,
    /// The same, for a person.
    pub at_wall: String,
}

impl Opened {
    /// Reads an opening event; `None` where it is none. `default` says what
    /// decides at a target where no rule does.
    #[must_use]
    pub fn read(entry: &Entry, default: &dyn Fn(Option<&str>) -> DefaultVerdict) -> Option<Self> {
        if entry.kind != "open" {
            return None;
        }
        let principal = entry.meta.get("principal").unwrap_or(&Value::Null);
        let text =
            |from: &Value, name: &str| from.get(name).and_then(Value::as_str).map(str::to_owned);
        let protocol = entry.meta_text("protocol")?;
        let protocol = Protocol::NAMES
            .iter()
            .find(|(name, _)| *name == protocol)
            .map(|(_, protocol)| *protocol)?;
        let origin = entry
            .meta_text("origin")
            .and_then(|origin| origin.parse::<SocketAddr>().ok());
        let labels: BTreeMap<String, String> = entry
            .meta
            .get("labels")
            .and_then(|labels| serde_json::from_value(labels.clone()).ok())
            .unwrap_or_default();
        let target = text(&entry.meta, "target");
        let millis = entry.meta_number("at_wall_ms").unwrap_or_default();
        Some(Self {
            subject: Subject {
                principal: Principal {
                    agent: text(&entry.meta, "agent")?,
                    user: text(principal, "user"),
                    uid: principal
                        .get("uid")
                        .and_then(Value::as_u64)
                        .and_then(|uid| u32::try_from(uid).ok())
                        .unwrap_or_default(),
                    group: text(principal, "group"),
                    groups: principal
                        .get("groups")
                        .and_then(|groups| serde_json::from_value(groups.clone()).ok())
                        .unwrap_or_default(),
                    claims: BTreeMap::new(),
                    exe: text(principal, "exe"),
                    command_line: text(principal, "command_line"),
                    cgroup: text(principal, "cgroup"),
                    unit: text(principal, "unit"),
                    container: text(principal, "container"),
                    labels,
                },
                target: Target {
                    default: default(target.as_deref()),
                    name: target,
                    host: text(&entry.meta, "host_name"),
                    address: origin.map(|at| at.ip()),
                    port: origin.map_or(0, |at| at.port()),
                    origin: entry.meta_text("origin").unwrap_or_default().into(),
                    tls: entry
                        .meta
                        .get("tls_downstream")
                        .is_some_and(|tls| !tls.is_null()),
                },
                protocol,
            },
            database: text(&entry.meta, "database").unwrap_or_default(),
            user: text(&entry.meta, "user").unwrap_or_default(),
            at: Moment {
                monotonic: millis.saturating_mul(1000),
                unix: i64::try_from(millis / 1000).unwrap_or_default(),
            },
            at_wall: text(&entry.meta, "at_wall").unwrap_or_default(),
        })
    }
}
