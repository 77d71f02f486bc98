//! Which containers have a name or a label: what Docker and Podman say.
//!
//! Both speak one API at a Unix socket of root's. They are asked for the list of containers
//! and nothing else; what a container's cgroup is says the cgroup tree ([`super::selector`]),
//! by the id. Whoever may tell an engine what a container is named is root as good as.
//!
//! Not here: containerd's own API (gRPC). Its containers are known by id, or by the cgroup.
//!
//! Spec: Docker's Engine API, `GET /containers/json`.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::selector;

/// How long an engine may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// For how long its answer is good.
const FRESH: Duration = Duration::from_secs(3);
/// The same, where there is the cgroup of a container that is not in it.
const SOON: Duration = Duration::from_millis(50);
/// The longest list.
const LONGEST: u64 = 32 << 20;

/// What is said of a container instead of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought<'a> {
    /// Its name.
    Name(&'a str),
    /// A label, with a value or with any.
    Label(&'a str, Option<&'a str>),
}

impl<'a> Sought<'a> {
    /// What a selector's text means; `None` where that is an id.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some(label) = text.strip_prefix("label=") {
            return Some(match label.split_once('=') {
                Some((key, value)) => Self::Label(key, Some(value)),
                None => Self::Label(label, None),
            });
        }
        (!selector::is_id(text)).then_some(Self::Name(text))
    }

    /// Whether it can be anything's.
    pub(super) fn is_plain(self) -> bool {
        match self {
            Self::Label(key, _) => !key.is_empty(),
            Self::Name(name) => {
                let mut characters = name.chars();
                characters
                    .next()
                    .is_some_and(|first| first.is_ascii_alphanumeric())
                    && characters.all(|one| one.is_ascii_alphanumeric() || "_.-".contains(one))
            }
        }
    }

    fn is(self, container: &Container) -> bool {
        match self {
            Self::Name(name) => container
                .names
                .iter()
                .flatten()
                .any(|one| one.strip_prefix('/').unwrap_or(one) == name),
            Self::Label(key, value) => container
                .labels
                .iter()
                .flatten()
                .any(|(has, is)| has == key && value.is_none_or(|value| value == is)),
        }
    }
}

/// A container, as an engine lists it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: String,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

/// The engines of this host.
#[derive(Debug)]
pub struct Engines {
    sockets: Vec<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    containers: Vec<Container>,
    silent: Option<String>,
}

impl Engines {
    /// Those that listen at these sockets; one that is not there is no engine.
    #[must_use]
    pub fn new(sockets: Vec<PathBuf>) -> Self {
        Self {
            sockets,
            known: Mutex::default(),
        }
    }

    /// The cgroups of the containers that are meant.
    ///
    /// # Errors
    /// When there is none, or an engine does not answer.
    pub(super) fn cgroups(&self, root: &Path, text: &str) -> anyhow::Result<Vec<PathBuf>> {
        let sought = Sought::parse(text).context("this is an id")?;
        let there = selector::containers(root);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |id: &String| known.containers.iter().all(|one| one.id != *id);
        let good_for = match known.silent.is_some() || there.keys().any(is_new) {
            true => SOON,
            false => FRESH,
        };
        if known.asked.is_none_or(|asked| asked.elapsed() > good_for) {
            *known = self.ask();
        }
        let meant = known.containers.iter().filter(|one| sought.is(one));
        let found: Vec<PathBuf> = meant
            .filter_map(|container| there.get(&container.id).cloned())
            .collect();
        match &known.silent {
            _ if !found.is_empty() => Ok(found),
            Some(why) => bail!("container {text} is not known: {why}"),
            None => bail!(
                "no container that runs is meant by {text}, as the engines at {} say; it is there while it runs",
                self.line()
            ),
        }
    }

    fn line(&self) -> String {
        let sockets: Vec<String> = self
            .sockets
            .iter()
            .map(|socket| socket.display().to_string())
            .collect();
        sockets.join(", ")
    }

    fn ask(&self) -> Known {
        let mut known = Known::default();
        for socket in &self.sockets {
            match list(socket) {
                Ok(containers) => known.containers.extend(containers),
                Err(error) => {
                    let is_none = error.downcast_ref::<io::Error>().is_some_and(|error| {
                        matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                        )
                    });
                    if !is_none {
                        known.silent = Some(format!(
                            "the engine at {} does not say: {error:#}",
                            socket.display()
                        ));
                    }
                }
            }
        }
        known.asked = Some(Instant::now());
        known
    }
}

/// Asks one engine. HTTP/1.0, so that the answer comes in one piece and ends with the
/// connection.
fn list(socket: &Path) -> anyhow::Result<Vec<Container>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /containers/json?all=true HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer
        .split_at_checked(end.context("its answer has no head")?)
        .unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    let status = head.split_whitespace().nth(1);
    ensure!(
        status == Some("200"),
        "it answers {}",
        status.unwrap_or("nothing")
    );
    let body = body.get(4..).unwrap_or_default();
    serde_json::from_slice(body).context("its list cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_is_a_name_or_a_label() {
        assert_eq!(Sought::parse("0123456789ab"), None);
        assert_eq!(Sought::parse("web"), Some(Sought::Name("web")));
        assert_eq!(Sought::parse("abc"), Some(Sought::Name("abc")));
        let label = |key, value| Some(Sought::Label(key, value));
        assert_eq!(Sought::parse("label=agent"), label("agent", None));
        assert_eq!(Sought::parse("label=a=b=c"), label("a", Some("b=c")));
        assert!(!Sought::Name("-x").is_plain() && !Sought::Name("a/b").is_plain());
        assert!(!Sought::Label("", None).is_plain());
    }

    #[test]
    fn a_name_is_meant_whole_and_a_label_by_its_value_where_one_is_given() {
        let text = r#"[
            {"Id": "1", "Names": ["/web"], "Labels": {"agent": "yes"}, "State": "running"},
            {"Id": "2", "Names": ["/web2", "/other/web"], "Labels": {}},
            {"Id": "3", "Names": null, "Labels": null}
        ]"#;
        let all: Vec<Container> = serde_json::from_str(text).unwrap();
        let ids = |sought: Sought<'_>| -> String {
            let meant = all.iter().filter(|one| sought.is(one));
            meant.map(|one| one.id.as_str()).collect()
        };
        assert_eq!(ids(Sought::Name("web")), "1");
        assert_eq!(ids(Sought::Name("we")), "");
        assert_eq!(ids(Sought::Label("agent", None)), "1");
        assert_eq!(ids(Sought::Label("agent", Some("yes"))), "1");
        assert_eq!(ids(Sought::Label("agent", Some("no"))), "");
        assert_eq!(ids(Sought::Label("age", None)), "");
    }
}
