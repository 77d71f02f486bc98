//! One question: what it asks, and whether it may be asked.
//!
//! A question is also a message to whoever runs the domain, so what fits into it is
//! bounded: how long a name is, how often and for how many names below one domain a run
//! may ask, and for which types.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

use crate::config::{Dns, Named};
use crate::handover;

/// A question as it was read.
#[derive(Clone, Debug)]
pub struct Question {
    /// The agent's number for it.
    pub id: u16,
    /// What it asks, as it was written.
    pub query: Query,
    /// The name: lower case, without the last dot.
    pub name: String,
    /// How long an answer may be in a datagram.
    pub room: usize,
}

impl Question {
    /// Reads one. An error has the answer that says what is wrong, where there is
    /// enough to answer to.
    ///
    /// # Errors
    /// When it is no question, or more than one.
    pub fn read(bytes: &[u8]) -> Result<Self, Option<Box<Message>>> {
        let Ok(message) = Message::from_vec(bytes) else {
            let id = bytes.first_chunk().copied().map(u16::from_be_bytes);
            let wrong = |id| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            return Err(id.map(wrong).map(Box::new));
        };
        let (id, op_code) = (message.metadata.id, message.metadata.op_code);
        if message.metadata.message_type != MessageType::Query {
            return Err(None);
        }
        let refused = |code| Err(Some(Box::new(Message::error_msg(id, op_code, code))));
        if op_code != OpCode::Query {
            return refused(ResponseCode::NotImp);
        }
        let [query] = message.queries.as_slice() else {
            return refused(ResponseCode::FormErr);
        };
        if query.query_class() != DNSClass::IN {
            return refused(ResponseCode::Refused);
        }
        let name = query.name().to_lowercase().to_ascii();
        Ok(Self {
            id,
            name: name.trim_end_matches('.').to_owned(),
            query: query.clone(),
            room: usize::from(message.max_payload()).clamp(512, 4096),
        })
    }

    /// An answer without records.
    #[must_use]
    pub fn answer(&self, code: ResponseCode) -> Message {
        let mut message = Message::error_msg(self.id, OpCode::Query, code);
        message.metadata.recursion_desired = true;
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        message
    }
}

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is asked for the agent.
    Ask,
    /// There is no such thing for an agent; nothing is wrong with asking.
    Nothing,
    /// It is refused, with this code, and on record.
    Refuse(ResponseCode, String),
}

/// How long questions are counted for their number.
const MINUTE: Duration = Duration::from_secs(60);
/// How long names below a domain are counted.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Domains that are counted for one run, at most.
const DOMAINS: usize = 1024;

/// What one run has asked lately.
#[derive(Debug)]
pub struct Asked {
    minute: (Instant, u32),
    hour: (Instant, HashMap<String, HashSet<u64>>),
}

impl Asked {
    /// Nothing yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            minute: (now, 0),
            hour: (now, HashMap::new()),
        }
    }

    /// What was counted, for the next daemon.
    #[must_use]
    pub fn hand_over(&self, cgroup: u64, now: Instant) -> handover::Asked {
        let below = self.hour.1.iter();
        handover::Asked {
            cgroup,
            minute: (now.saturating_duration_since(self.minute.0), self.minute.1),
            hour: now.saturating_duration_since(self.hour.0),
            below: below
                .map(|(domain, names)| (domain.clone(), names.iter().copied().collect()))
                .collect(),
        }
    }

    /// What the daemon before counted.
    #[must_use]
    pub fn take_over(asked: handover::Asked, now: Instant) -> Self {
        let since = |age| now.checked_sub(age).unwrap_or(now);
        let below = asked.below.into_iter();
        Self {
            minute: (since(asked.minute.0), asked.minute.1),
            hour: (
                since(asked.hour),
                below
                    .map(|(domain, names)| (domain, names.into_iter().collect()))
                    .collect(),
            ),
        }
    }

    /// Judges a question, and counts it.
    pub fn judge(
        &mut self,
        question: &Question,
        limits: &Dns,
        hosts: &[&str],
        now: Instant,
    ) -> Ruling {
        match question.query.query_type() {
            RecordType::A
            | RecordType::AAAA
            | RecordType::CNAME
            | RecordType::PTR
            | RecordType::SRV
            | RecordType::MX
            | RecordType::NS
            | RecordType::SOA => {}
            // They lead to HTTP/3 and to hidden names of hosts, which are not for agents.
            RecordType::HTTPS | RecordType::SVCB => return Ruling::Nothing,
            other => {
                let why = format!("questions of type {other} are not asked for agents");
                return Ruling::Refuse(ResponseCode::Refused, why);
            }
        }
        let name = question.name.as_str();
        let mut allowed = limits.names.iter().any(|one| match one {
            Named::Any => true,
            Named::Targets => hosts.iter().any(|host| host.eq_ignore_ascii_case(name)),
            Named::Name(own) => own == name,
            Named::Below(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
        });
        // What is asked of an address has no name of the agent's in it.
        let reverse = name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa");
        if !allowed && reverse {
            return Ruling::Refuse(ResponseCode::NXDomain, String::new());
        }
        allowed &= !name.is_empty();
        if !allowed {
            let why = "`dns.names` does not list it".to_owned();
            return Ruling::Refuse(ResponseCode::NXDomain, why);
        }
        if name.len() > limits.longest {
            let why = format!(
                "a name of {} bytes; `dns.longest` is {}",
                name.len(),
                limits.longest
            );
            return Ruling::Refuse(ResponseCode::Refused, why);
        }
        if now.saturating_duration_since(self.minute.0) >= MINUTE {
            self.minute = (now, 0);
        }
        self.minute.1 = self.minute.1.saturating_add(1);
        if self.minute.1 > limits.per_minute {
            let why = format!(
                "more than {} questions in a minute (`dns.per_minute`)",
                limits.per_minute
            );
            return Ruling::Refuse(ResponseCode::Refused, why);
        }
        if self.is_one_too_many(name, limits.below_domain, now) {
            let why = format!(
                "more than {} names below {} in an hour (`dns.below_domain`)",
                limits.below_domain,
                domain_of(name)
            );
            return Ruling::Refuse(ResponseCode::Refused, why);
        }
        Ruling::Ask
    }

    fn is_one_too_many(&mut self, name: &str, most: usize, now: Instant) -> bool {
        let (since, domains) = &mut self.hour;
        if now.saturating_duration_since(*since) >= HOUR {
            *since = now;
            domains.clear();
        }
        let domain = domain_of(name);
        if domains.len() >= DOMAINS && !domains.contains_key(domain) {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let known = domains.entry(domain.to_owned()).or_default();
        if known.contains(&hasher.finish()) {
            return false;
        }
        if known.len() >= most {
            return true;
        }
        known.insert(hasher.finish());
        false
    }
}

/// The last two labels.
fn domain_of(name: &str) -> &str {
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let (_, second) = (dots.next(), dots.next());
    second.and_then(|at| name.get(at + 1..)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Name;

    fn asking(name: &str, kind: RecordType) -> Question {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        Question::read(&message.to_vec().unwrap()).unwrap()
    }

    fn limits(names: &[Named]) -> Dns {
        Dns {
            names: names.to_vec(),
            longest: 60,
            per_minute: 20,
            below_domain: 5,
            ..Dns::default()
        }
    }

    fn ruled(names: &[Named], name: &str, kind: RecordType) -> Ruling {
        let now = Instant::now();
        let hosts = ["db.internal"];
        Asked::new(now).judge(&asking(name, kind), &limits(names), &hosts, now)
    }

    fn code(ruling: &Ruling) -> Option<ResponseCode> {
        match ruling {
            Ruling::Refuse(code, _) => Some(*code),
            _ => None,
        }
    }

    #[test]
    fn names_are_asked_for_where_they_are_listed() {
        let targets = [Named::Targets];
        assert_eq!(ruled(&targets, "DB.internal.", RecordType::A), Ruling::Ask);
        let nobody = ruled(&targets, "evil.test.", RecordType::A);
        assert_eq!(code(&nobody), Some(ResponseCode::NXDomain));
        let below = [Named::Below("corp.test".to_owned())];
        assert_eq!(ruled(&below, "a.corp.test.", RecordType::AAAA), Ruling::Ask);
        for other in ["corp.test.", "acorp.test.", "corp.test.evil."] {
            let ruling = ruled(&below, other, RecordType::A);
            assert_eq!(code(&ruling), Some(ResponseCode::NXDomain), "{other}");
        }
        assert_eq!(ruled(&[Named::Any], "x.test.", RecordType::A), Ruling::Ask);
    }

    #[test]
    fn types_that_carry_anything_are_not_asked_for() {
        for kind in [RecordType::TXT, RecordType::NULL, RecordType::ANY] {
            let ruling = ruled(&[Named::Any], "x.test.", kind);
            assert_eq!(code(&ruling), Some(ResponseCode::Refused), "{kind}");
        }
        let https = ruled(&[Named::Any], "x.test.", RecordType::HTTPS);
        assert_eq!(https, Ruling::Nothing);
    }

    #[test]
    fn a_domain_does_not_hear_many_names_nor_long_ones_nor_often() {
        let limits = limits(&[Named::Any]);
        let now = Instant::now();
        let mut asked = Asked::new(now);
        let mut ask = |name: &str, now| {
            let question = asking(name, RecordType::A);
            asked.judge(&question, &limits, &[], now)
        };
        for n in 0..5 {
            assert_eq!(ask(&format!("n{n}.evil.test."), now), Ruling::Ask);
        }
        assert!(code(&ask("n5.evil.test.", now)).is_some());
        assert_eq!(ask("n1.evil.test.", now), Ruling::Ask, "one that it heard");
        assert_eq!(ask("n6.evil.test.", now + HOUR), Ruling::Ask);
        let long = format!("{}.test.", "a".repeat(58));
        assert!(code(&ask(&long, now + HOUR)).is_some());
        let later = now + HOUR + MINUTE;
        for _ in 0..20 {
            assert_eq!(ask("x.test.", later), Ruling::Ask);
        }
        assert!(code(&ask("x.test.", later)).is_some());
        assert_eq!(ask("x.test.", later + MINUTE), Ruling::Ask);
    }

    #[test]
    fn what_is_no_question_is_answered_or_dropped_and_never_passed_on() {
        assert!(matches!(Question::read(b""), Err(None)));
        assert!(matches!(Question::read(b"\x01\x02x"), Err(Some(_))));
        let mut two = Message::query();
        for name in ["a.test.", "b.test."] {
            two.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        }
        assert!(matches!(
            Question::read(&two.to_vec().unwrap()),
            Err(Some(_))
        ));
        let answer = two.into_response().to_vec().unwrap();
        assert!(matches!(Question::read(&answer), Err(None)));
    }
}
