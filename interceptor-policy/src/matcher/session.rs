//! Fields that do not change in a session: who, on what, in which protocol.

use ipnet::IpNet;

use super::text::Text;
use super::{Matcher, Mode};
use crate::{Protocol, Subject};

/// A number, as a leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Is(u64),
    Over(u64),
}

impl Number {
    pub(crate) const fn holds(self, number: u64) -> bool {
        match self {
            Self::Is(is) => number == is,
            Self::Over(over) => number > over,
        }
    }
}

/// Where a fact that is text comes from.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Agent,
    User,
    Group,
    Exe,
    CommandLine,
    Cgroup,
    Unit,
    Container,
    Label(String),
    Claim(String),
    TargetName,
    Host,
}

impl Fact {
    fn of<'s>(&self, subject: &'s Subject) -> Option<&'s str> {
        let principal = &subject.principal;
        match self {
            Self::Agent => Some(&principal.agent),
            Self::User => principal.user.as_deref(),
            Self::Group => principal.group.as_deref(),
            Self::Exe => principal.exe.as_deref(),
            Self::CommandLine => principal.command_line.as_deref(),
            Self::Cgroup => principal.cgroup.as_deref(),
            Self::Unit => principal.unit.as_deref(),
            Self::Container => principal.container.as_deref(),
            Self::Label(name) => principal.labels.get(name).map(String::as_str),
            Self::Claim(name) => principal.claims.get(name).map(String::as_str),
            Self::TargetName => subject.target.name.as_deref(),
            Self::Host => subject.target.host.as_deref(),
        }
    }
}

/// What one field asks for.
#[derive(Debug)]
pub(crate) enum Asks {
    Text(Fact, Matcher<Text>),
    /// Of each leaf, whether one of the groups is that.
    Groups(Matcher<Text>),
    Uid(Matcher<Number>),
    Address(Matcher<IpNet>),
    Port(Matcher<Number>),
    Tls(bool),
    Protocol(Matcher<Protocol>),
}

/// One field of `principal`, `target`, or `protocol`.
#[derive(Debug)]
pub(crate) struct SessionField {
    /// `principal.agent`
    pub(crate) name: String,
    /// What it asks for, as it was written.
    pub(crate) shown: String,
    pub(crate) asks: Asks,
}

impl SessionField {
    pub(crate) fn holds(&self, mode: Mode, subject: &Subject) -> bool {
        match &self.asks {
            // Host names have no case; everything else has.
            Asks::Text(fact @ Fact::Host, matcher) => {
                matcher.holds_for(mode, fact.of(subject), |text, is, _| text.loose(is))
            }
            Asks::Text(fact, matcher) => {
                matcher.holds_for(mode, fact.of(subject), |text, is, _| text.exact(is))
            }
            // To be in a group is certain, whatever other groups there are: so
            // all that is asked is asked of the set. A process has at least one;
            // of whom no group is known, nothing is known.
            Asks::Groups(matcher) => {
                let groups = &subject.principal.groups;
                let known = (!groups.is_empty()).then_some(groups);
                matcher.holds_for(mode, known, |text, groups, _| {
                    groups.iter().any(|group| text.exact(group))
                })
            }
            Asks::Uid(matcher) => matcher.holds(mode, &|number, _| {
                number.holds(u64::from(subject.principal.uid))
            }),
            Asks::Address(matcher) => match subject.target.address {
                Some(address) => {
                    let address = address.to_canonical();
                    matcher.holds(mode, &|network, _| network.contains(&address))
                }
                // It may be any, so what forbids one forbids this, and what allows
                // one does not allow it.
                None => mode == Mode::May,
            },
            Asks::Port(matcher) => {
                matcher.holds(mode, &|n, _| n.holds(u64::from(subject.target.port)))
            }
            Asks::Tls(is) => subject.target.tls == *is,
            Asks::Protocol(matcher) => {
                matcher.holds(mode, &|protocol, _| *protocol == subject.protocol)
            }
        }
    }

    /// What it is, for a person.
    pub(crate) fn is(&self, subject: &Subject) -> String {
        match &self.asks {
            Asks::Text(fact, _) => fact
                .of(subject)
                .map_or_else(|| "not known".to_owned(), |is| format!("`{is}`")),
            Asks::Groups(_) => match subject.principal.groups.as_slice() {
                [] => "not known".to_owned(),
                groups => groups.join(", "),
            },
            Asks::Uid(_) => subject.principal.uid.to_string(),
            Asks::Address(_) => subject.target.address.map_or_else(
                || "not known".to_owned(),
                |address| address.to_canonical().to_string(),
            ),
            Asks::Port(_) => subject.target.port.to_string(),
            Asks::Tls(_) => subject.target.tls.to_string(),
            Asks::Protocol(_) => subject.protocol.name().to_owned(),
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct SessionMatch {
    pub(crate) fields: Vec<SessionField>,
}

impl SessionMatch {
    /// Whether it could hold for a session of a protocol.
    pub(crate) fn can_be(&self, protocol: Protocol) -> bool {
        self.fields.iter().all(|field| match &field.asks {
            Asks::Protocol(matcher) => matcher.holds(Mode::May, &|leaf, _| *leaf == protocol),
            _ => true,
        })
    }

    pub(crate) fn holds(&self, mode: Mode, subject: &Subject) -> bool {
        self.fields.iter().all(|field| field.holds(mode, subject))
    }
}
