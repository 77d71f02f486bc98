//! What a rule that holds asks for, and when that is answered.
//!
//! A [`Hold`] carries the permit that it keeps back. It gives it up to an
//! [`Approved`], which only a [`Tally`] makes when the people whom the rules
//! asked for have answered.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::rule::spoken;
use crate::verdict::{Permit, Refusal};

/// How an exchange waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldMode {
    /// The exchange is kept open until there is an answer.
    #[default]
    Wait,
    /// It is refused at once with a ticket, and passes once when it is asked
    /// again after the ticket was approved.
    Ticket,
}

impl HoldMode {
    /// The name that rules use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Ticket => "ticket",
        }
    }
}

/// What silence means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnTimeout {
    /// It is let pass.
    Allow,
    /// It is refused.
    #[default]
    Block,
}

impl OnTimeout {
    /// The name that rules use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
        }
    }
}

/// Who has to say yes for one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The rule, or a name for the risk threshold that holds.
    pub rule: Arc<str>,
    /// Groups of which an answerer must be in one; empty for any approver.
    pub from: Vec<Arc<str>>,
    /// How many different people; at least 1.
    pub quorum: u32,
}

impl fmt::Display for Requirement {
    /// Who is asked, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from.as_slice() {
            [] => write!(f, "{} of any approver", self.quorum),
            groups => write!(f, "{} of {}", self.quorum, groups.join(", ")),
        }
    }
}

/// Everything that the rules which hold one exchange ask for together: every
/// requirement is to be met, the shortest patience and the strictest word for
/// silence win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Who has to say yes; never empty.
    pub requirements: Vec<Requirement>,
    /// How long the question stands.
    pub timeout: Duration,
    /// What silence means.
    pub on_timeout: OnTimeout,
    /// How the exchange waits.
    pub mode: HoldMode,
}

impl Approval {
    /// How long a question stands where no rule says it.
    pub const TIMEOUT: Duration = Duration::from_secs(5 * 60);

    /// One rule's wish.
    #[must_use]
    pub fn of(requirement: Requirement) -> Self {
        Self {
            requirements: vec![requirement],
            timeout: Self::TIMEOUT,
            on_timeout: OnTimeout::Block,
            mode: HoldMode::Wait,
        }
    }

    /// Both wishes.
    pub fn unite(&mut self, other: &Self) {
        for requirement in &other.requirements {
            if !self.requirements.contains(requirement) {
                self.requirements.push(requirement.clone());
            }
        }
        self.timeout = self.timeout.min(other.timeout);
        self.on_timeout = self.on_timeout.max(other.on_timeout);
        self.mode = self.mode.max(other.mode);
    }
}

impl fmt::Display for Approval {
    /// In one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(" and ")?;
            }
            write!(f, "{requirement}")?;
        }
        write!(
            f,
            ", {}, {} on silence, {}",
            spoken(self.timeout),
            self.on_timeout.name(),
            self.mode.name()
        )
    }
}

/// An exchange that a person decides: the permit, kept back.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is held is asked about, or refused"]
pub struct Hold {
    /// Why it is held, and what the agent is told; also why it is refused when
    /// the answer is no.
    pub reason: Refusal,
    /// What is asked for.
    pub approval: Arc<Approval>,
    permit: Permit,
}

impl Hold {
    #[allow(dead_code, reason = "rules that hold come with the rule language")]
    pub(crate) fn new(reason: Refusal, approval: Arc<Approval>) -> Self {
        Self {
            reason,
            approval,
            permit: Permit(()),
        }
    }

    /// Gives up the permit to those who may have it.
    pub fn release(self, _approved: Approved) -> Permit {
        self.permit
    }
}

/// One person's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who, as the host or a signature says; the same person counts once.
    pub by: Arc<str>,
    /// User id on the host of the agent, where the answer was given there.
    pub uid: Option<u32>,
    /// The groups that the person is in.
    pub groups: Vec<Arc<str>>,
    /// Yes or no.
    pub approves: bool,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// Proof that everybody who had to said yes, or that silence means yes and it
/// has been silent for long enough. Only [`Tally`] makes one.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an approval is spent on what it approves"]
pub struct Approved(());

/// What the answers so far come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not enough answers.
    Waiting,
    /// Everybody who had to said yes.
    Approved(Approved),
    /// Somebody said no; who, and why.
    Denied {
        /// Who.
        by: Arc<str>,
        /// Why.
        reason: Option<String>,
    },
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncounted {
    /// The agent's own user answered.
    Own,
    /// The answerer is in none of the groups that are asked.
    NotAsked,
    /// The same person has said so already.
    Again,
}

impl Uncounted {
    /// In words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Own => "the agent's own user may not answer for it",
            Self::NotAsked => "none of your groups is asked",
            Self::Again => "you have answered already",
        }
    }
}

/// Counts answers to one question.
#[derive(Clone, Debug)]
pub struct Tally {
    approval: Arc<Approval>,
    agent_uid: u32,
    answers: Vec<Answer>,
}

impl Tally {
    /// Most answers that are kept.
    const LIMIT: usize = 256;

    /// A tally for a question about what a process of `agent_uid` wants to do.
    #[must_use]
    pub fn new(approval: Arc<Approval>, agent_uid: u32) -> Self {
        Self {
            approval,
            agent_uid,
            answers: Vec::new(),
        }
    }

    /// The answers that counted, in order.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Counts one answer. A no from anybody who is asked is final.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn add(&mut self, answer: Answer) -> Result<Outcome, Uncounted> {
        if answer.uid == Some(self.agent_uid) {
            return Err(Uncounted::Own);
        }
        let asked = |requirement: &Requirement| {
            requirement.from.is_empty()
                || answer
                    .groups
                    .iter()
                    .any(|group| requirement.from.contains(group))
        };
        if !self.approval.requirements.iter().any(asked) {
            return Err(Uncounted::NotAsked);
        }
        if self.answers.len() >= Self::LIMIT
            || self.answers.iter().any(|known| known.by == answer.by)
        {
            return Err(Uncounted::Again);
        }
        self.answers.push(answer);
        Ok(self.outcome())
    }

    /// What the answers so far come to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if let Some(no) = self.answers.iter().find(|answer| !answer.approves) {
            return Outcome::Denied {
                by: Arc::clone(&no.by),
                reason: no.reason.clone(),
            };
        }
        let met = self.approval.requirements.iter().all(|requirement| {
            let people: BTreeSet<&str> = self
                .answers
                .iter()
                .filter(|answer| {
                    requirement.from.is_empty()
                        || answer
                            .groups
                            .iter()
                            .any(|group| requirement.from.contains(group))
                })
                .map(|answer| &*answer.by)
                .collect();
            people.len() >= requirement.quorum.max(1) as usize
        });
        if met {
            Outcome::Approved(Approved(()))
        } else {
            Outcome::Waiting
        }
    }

    /// The time is over: an approval where silence means yes and nobody said no.
    #[must_use]
    pub fn silent(&self) -> Option<Approved> {
        let denied = self.answers.iter().any(|answer| !answer.approves);
        (self.approval.on_timeout == OnTimeout::Allow && !denied).then_some(Approved(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(requirements: &[(&[&str], u32)]) -> Tally {
        let requirements = requirements
            .iter()
            .map(|(from, quorum)| Requirement {
                rule: "r".into(),
                from: from.iter().map(|group| Arc::from(*group)).collect(),
                quorum: *quorum,
            })
            .collect();
        let approval = Approval {
            requirements,
            timeout: Approval::TIMEOUT,
            on_timeout: OnTimeout::Block,
            mode: HoldMode::Wait,
        };
        Tally::new(Arc::new(approval), 1000)
    }

    fn answer(by: &str, groups: &[&str], approves: bool) -> Answer {
        Answer {
            by: by.into(),
            uid: Some(1001),
            groups: groups.iter().map(|group| Arc::from(*group)).collect(),
            approves,
            reason: None,
        }
    }

    #[test]
    fn a_quorum_counts_people_and_not_answers() {
        let mut tally = tally(&[(&["dba"], 2)]);
        assert_eq!(
            tally.add(answer("ann", &["dba"], true)),
            Ok(Outcome::Waiting)
        );
        assert_eq!(
            tally.add(answer("ann", &["dba"], true)),
            Err(Uncounted::Again)
        );
        assert!(matches!(
            tally.add(answer("bob", &["dba"], true)),
            Ok(Outcome::Approved(_))
        ));
    }

    #[test]
    fn every_rule_that_holds_has_to_be_satisfied() {
        let mut tally = tally(&[(&["dba"], 1), (&["security"], 1)]);
        assert_eq!(
            tally.add(answer("ann", &["dba"], true)),
            Ok(Outcome::Waiting)
        );
        assert!(matches!(
            tally.add(answer("eve", &["security"], true)),
            Ok(Outcome::Approved(_))
        ));
    }

    #[test]
    fn a_no_is_final_and_who_is_not_asked_does_not_count() {
        let mut tally = tally(&[(&["dba"], 1)]);
        assert_eq!(
            tally.add(answer("mallory", &["interns"], false)),
            Err(Uncounted::NotAsked)
        );
        assert!(matches!(
            tally.add(answer("ann", &["dba"], false)),
            Ok(Outcome::Denied { .. })
        ));
        assert!(matches!(
            tally.add(answer("bob", &["dba"], true)),
            Ok(Outcome::Denied { .. })
        ));
        assert_eq!(tally.silent(), None);
    }

    #[test]
    fn the_agents_own_user_may_not_answer_root_included() {
        for uid in [1000, 0] {
            let approval = Arc::clone(&tally(&[(&[], 1)]).approval);
            let mut tally = Tally::new(approval, uid);
            let own = Answer {
                uid: Some(uid),
                ..answer("agent", &["dba"], true)
            };
            assert_eq!(tally.add(own), Err(Uncounted::Own));
            assert_eq!(tally.outcome(), Outcome::Waiting);
            assert!(matches!(
                tally.add(answer("ann", &["dba"], true)),
                Ok(Outcome::Approved(_))
            ));
        }
    }

    #[test]
    fn silence_means_no_unless_every_rule_says_otherwise() {
        let mut lenient = Approval::of(Requirement {
            rule: "a".into(),
            from: Vec::new(),
            quorum: 1,
        });
        lenient.on_timeout = OnTimeout::Allow;
        assert!(Tally::new(Arc::new(lenient.clone()), 1).silent().is_some());
        let strict = Approval::of(Requirement {
            rule: "b".into(),
            from: Vec::new(),
            quorum: 1,
        });
        lenient.unite(&strict);
        assert!(Tally::new(Arc::new(lenient), 1).silent().is_none());
    }
}
