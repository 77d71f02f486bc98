//! `match` and `unless`.

use ipnet::IpNet;

use super::Match;
use super::reader::{Reader, shown};
use super::yaml::{Node, Value};
use crate::Protocol;
use crate::matcher::Matcher;
use crate::matcher::circumstances::CircumstanceMatch;
use crate::matcher::session::{self, Fact, Number, SessionField, SessionMatch};
use crate::matcher::text::{Expression, Glob, Stars, Text};

const FIELDS: &[&str] = &[
    "principal",
    "target",
    "protocol",
    "postgres",
    "http",
    "ssh",
    "after",
    "rate",
    "risk",
    "time",
    "if",
];
pub(super) const PRINCIPAL: &[&str] = &[
    "agent",
    "user",
    "uid",
    "group",
    "exe",
    "command_line",
    "cgroup",
    "unit",
    "container",
    "labels",
    "groups",
    "claims",
];
const TARGET: &[&str] = &["name", "host", "address", "port", "tls"];
impl<'a> Reader<'a> {
    /// A `match` or an `unless` of a rule. `key` is what its `rate` counts by.
    pub(super) fn match_(&mut self, node: &'a Node, what: &str, key: &str) -> Option<Match> {
        let mut whole = true;
        let mut circumstances = Vec::new();
        let mut rate = None;
        let counted = key;
        let mut fields = Vec::new();
        let mut postgres = None;
        let mut http = None;
        let mut ssh = None;
        for (key, value) in self.mapping(node, what)? {
            match key.text.as_str() {
                "principal" => whole &= self.principal(value, &mut fields),
                "target" => whole &= self.target(value, &mut fields),
                "protocol" => match self.protocol(value) {
                    Some(field) => fields.push(field),
                    None => whole = false,
                },
                "postgres" => match self.postgres(value) {
                    Some(read) => postgres = Some(read),
                    None => whole = false,
                },
                "http" => match self.http(value) {
                    Some(read) => http = Some(read),
                    None => whole = false,
                },
                "ssh" => match self.ssh(value) {
                    Some(read) => ssh = Some(read),
                    None => whole = false,
                },
                "rate" => {
                    rate = self.rate(value, counted.into());
                    whole &= rate.is_some();
                }
                word @ ("after" | "risk" | "time" | "if") => {
                    let field = match word {
                        "after" => self.after(value),
                        "risk" => self.score(value),
                        "if" => self.expression(value),
                        _ => self.time(value),
                    };
                    whole &= field.is_some();
                    circumstances.extend(field);
                }
                _ => {
                    self.unknown(key, what, FIELDS);
                    whole = false;
                }
            }
        }
        let session = SessionMatch { fields };
        for (there, word, protocol) in [
            (postgres.is_some(), "postgres", Protocol::Postgres),
            (http.is_some(), "http", Protocol::Http),
            (ssh.is_some(), "ssh", Protocol::Ssh),
        ] {
            if there && !session.can_be(protocol) {
                self.report.warning(
                    node.at,
                    format!(
                        "{what} can never hold: it asks for `{word}` fields of another protocol"
                    ),
                    Some(format!("drop `protocol`; `{word}` implies it")),
                );
            }
        }
        let several = [postgres.is_some(), http.is_some(), ssh.is_some()];
        if several.iter().filter(|there| **there).count() > 1 {
            self.report.warning(
                node.at,
                format!("{what} can never hold: it asks for fields of several protocols"),
                Some("write two rules".to_owned()),
            );
        }
        whole.then_some(Match {
            session,
            postgres,
            http,
            ssh,
            circumstances: CircumstanceMatch::new(circumstances, rate),
        })
    }

    fn principal(&mut self, node: &'a Node, into: &mut Vec<SessionField>) -> bool {
        let Some(entries) = self.mapping(node, "`principal`") else {
            return false;
        };
        let mut whole = true;
        for (key, value) in entries {
            let (fact, stars) = match key.text.as_str() {
                "agent" => (Fact::Agent, Stars::Free),
                "user" => (Fact::User, Stars::Free),
                "group" => (Fact::Group, Stars::Free),
                "exe" => (Fact::Exe, Stars::Path),
                "command_line" => (Fact::CommandLine, Stars::Free),
                "cgroup" => (Fact::Cgroup, Stars::Path),
                "unit" => (Fact::Unit, Stars::Free),
                "container" => (Fact::Container, Stars::Free),
                word @ ("labels" | "claims") => {
                    let Some(named) = self.mapping(value, &format!("`{word}`")) else {
                        whole = false;
                        continue;
                    };
                    for (name, value) in named {
                        let fact = match word {
                            "labels" => Fact::Label(name.text.clone()),
                            _ => Fact::Claim(name.text.clone()),
                        };
                        let name = format!("principal.{word}.{}", name.text);
                        whole &= self.session_text(name, fact, Stars::Free, value, into);
                    }
                    continue;
                }
                "uid" => {
                    let matcher = self.numbers(value, "`uid`", u64::from(u32::MAX));
                    let matcher = matcher.map(session::Asks::Uid);
                    whole &= push(into, "principal.uid".to_owned(), value, matcher);
                    continue;
                }
                "groups" => {
                    // Not as other texts: one may be in two groups at once.
                    let matcher = self.matcher(value, "`groups`", &mut |reader, node| {
                        reader.text_leaf(node, "`groups`", Stars::Free)
                    });
                    let matcher = matcher.map(session::Asks::Groups);
                    whole &= push(into, "principal.groups".to_owned(), value, matcher);
                    continue;
                }
                dotted => match dotted.split_once('.') {
                    Some(("labels", label)) if !label.is_empty() => {
                        (Fact::Label(label.to_owned()), Stars::Free)
                    }
                    Some(("claims", claim)) if !claim.is_empty() => {
                        (Fact::Claim(claim.to_owned()), Stars::Free)
                    }
                    _ => {
                        self.unknown(key, "`principal`", PRINCIPAL);
                        whole = false;
                        continue;
                    }
                },
            };
            let name = format!("principal.{}", key.text);
            whole &= self.session_text(name, fact, stars, value, into);
        }
        whole
    }

    fn target(&mut self, node: &'a Node, into: &mut Vec<SessionField>) -> bool {
        let Some(entries) = self.mapping(node, "`target`") else {
            return false;
        };
        let mut whole = true;
        for (key, value) in entries {
            let name = format!("target.{}", key.text);
            let asks = match key.text.as_str() {
                "name" => {
                    whole &= self.session_text(name, Fact::TargetName, Stars::Free, value, into);
                    continue;
                }
                "host" => {
                    whole &= self.session_text(name, Fact::Host, Stars::Free, value, into);
                    continue;
                }
                "address" => self
                    .matcher(value, "`address`", &mut |reader, node| reader.network(node))
                    .map(session::Asks::Address),
                "port" => self
                    .numbers(value, "`port`", u64::from(u16::MAX))
                    .map(session::Asks::Port),
                "tls" => self.boolean(value, "`tls`").map(session::Asks::Tls),
                _ => {
                    self.unknown(key, "`target`", TARGET);
                    None
                }
            };
            whole &= push(into, name, value, asks);
        }
        whole
    }

    fn protocol(&mut self, node: &'a Node) -> Option<SessionField> {
        let matcher = self.matcher(node, "`protocol`", &mut |reader, node| {
            reader.word(node, "`protocol`", Protocol::NAMES)
        })?;
        Some(SessionField {
            name: "protocol".to_owned(),
            shown: shown(node),
            asks: session::Asks::Protocol(matcher),
        })
    }

    fn session_text(
        &mut self,
        name: String,
        fact: Fact,
        stars: Stars,
        node: &'a Node,
        into: &mut Vec<SessionField>,
    ) -> bool {
        let asks = self
            .texts(node, &format!("`{name}`"), stars)
            .map(|matcher| session::Asks::Text(fact, matcher));
        push(into, name, node, asks)
    }

    pub(super) fn texts(
        &mut self,
        node: &'a Node,
        what: &str,
        stars: Stars,
    ) -> Option<Matcher<Text>> {
        let matcher = self.matcher(node, what, &mut |reader, node| {
            reader.text_leaf(node, what, stars)
        })?;
        if contradicts(&matcher) {
            self.report.warning(
                node.at,
                format!("{what} can never hold: it asks for two different texts at once"),
                Some("`any` is satisfied by one of several".to_owned()),
            );
        }
        Some(matcher)
    }

    pub(super) fn text_leaf(&mut self, node: &'a Node, what: &str, stars: Stars) -> Option<Text> {
        if let Some(expression) = self.regex(node, what, Expression::new) {
            return expression.map(Text::Regex);
        }
        let source = self.text(node, what)?;
        if source.is_empty() {
            self.error(node.at, format!("{what} is empty"));
            return None;
        }
        self.built(node, "glob", Glob::new(source, stars))
            .map(Text::Glob)
    }

    fn network(&mut self, node: &'a Node) -> Option<IpNet> {
        let source = self.text(node, "`address`")?;
        let network = source.parse::<IpNet>().or_else(|_| {
            source
                .parse()
                .map(|address: std::net::IpAddr| address.into())
        });
        match network {
            Ok(network) => {
                if network.trunc() != network {
                    self.report.warning(
                        node.at,
                        format!("`{source}` has bits set below its prefix"),
                        Some(format!("`{}` is the same network", network.trunc())),
                    );
                }
                Some(network)
            }
            Err(_) => {
                self.report.error(
                    node.at,
                    format!("`{source}` is no address and no network"),
                    Some("write it as in 10.0.0.0/8, 192.0.2.7 or fd00::/8".to_owned()),
                );
                None
            }
        }
    }

    pub(super) fn numbers(
        &mut self,
        node: &'a Node,
        what: &str,
        most: u64,
    ) -> Option<Matcher<Number>> {
        self.matcher(node, what, &mut |reader, node| {
            if let Value::Map(entries) = &node.value {
                let (key, value) = entries.first()?;
                if key.text != "over" {
                    reader.unknown(key, what, &["over", "not", "any", "all"]);
                    return None;
                }
                return reader.number(value, what, most).map(Number::Over);
            }
            reader.number(node, what, most).map(Number::Is)
        })
    }

    /// `{ regex: … }`; `None` when it is something else.
    pub(super) fn regex<T>(
        &mut self,
        node: &'a Node,
        what: &str,
        build: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Value::Map(entries) = &node.value else {
            return None;
        };
        let (key, value) = entries.first()?;
        if key.text != "regex" {
            self.unknown(key, what, &["regex", "not", "any", "all"]);
            return Some(None);
        }
        let Some(source) = self.text(value, "`regex`") else {
            return Some(None);
        };
        Some(self.built(value, "regular expression", build(source)))
    }

    pub(super) fn built<T>(
        &mut self,
        node: &'a Node,
        what: &str,
        built: Result<T, String>,
    ) -> Option<T> {
        match built {
            Ok(built) => Some(built),
            Err(fault) => {
                self.error(node.at, format!("bad {what}: {fault}"));
                None
            }
        }
    }
}

fn push(
    into: &mut Vec<SessionField>,
    name: String,
    node: &Node,
    asks: Option<session::Asks>,
) -> bool {
    let Some(asks) = asks else {
        return false;
    };
    into.push(SessionField {
        name,
        shown: shown(node),
        asks,
    });
    true
}

/// Whether it asks one text to equal two.
fn contradicts(matcher: &Matcher<Text>) -> bool {
    let Matcher::All(inner) = matcher else {
        return false;
    };
    let mut exact = inner.iter().filter_map(|one| match one {
        Matcher::Leaf(Text::Glob(glob)) if glob.is_exact() => Some(glob.source()),
        _ => None,
    });
    match exact.next() {
        Some(first) => exact.any(|other| other != first),
        None => false,
    }
}
