//! Unix sockets of agents: the list that the kernel's programs go by, and what they send
//! here.
//!
//! A target that is a socket gets a listener of its own, its door, with an abstract name that
//! nobody can guess. An abstract name belongs to a network namespace, and no mount or link
//! moves it; the programs send nobody there while the proxy does not listen in the namespace
//! of the agent. So which door it is says where the agent was going, and the kernel's word on
//! the peer, who it is.
//!
//! A door goes from daemon to daemon. Where none hands over, what dead daemons called theirs
//! may be anybody's by now: names are then drawn anew, and stand in the list before the
//! programs send anybody anywhere.
//!
//! What this does not do: look a name up as the agent would. The list holds each socket by
//! the names that it has here; any other goes by `intercept.unix.default`.

use std::collections::BTreeSet;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use interceptor_common::{UNIX_ABSENT, UNIX_OWN, UNIX_REFUSE, UNIX_TO_PATH, UNIX_TO_PROXY};
use interceptor_policy::verdict::Severity;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};
use uuid::Uuid;

use super::House;
use super::serve::{self, Flow};
use crate::agents::Peer;
use crate::config::{Place, Target, UnixSocket};
use crate::handover;
use crate::kernel::Kernel;
use crate::kernel::unix::{Listed, Name};
use crate::net::dialer::{Dialling, Way};
use crate::net::{Host, Origin, Socket, listen};
use crate::recorder::Alert;

/// Asked by the C library for every name and user, who is then found without it. What it
/// looks up for others it looks up outside of interception.
const NAME_CACHE: &str = "/var/run/nscd/socket";
/// How often it is looked what a listed path is a name of.
const REFRESH: Duration = Duration::from_secs(30);

/// Names that are drawn until one is free.
const TRIES: u32 = 8;

/// The listeners for targets that are sockets.
#[derive(Debug)]
pub struct Redirected {
    doors: Vec<Door>,
}

/// One of them.
#[derive(Debug)]
struct Door {
    listener: UnixListener,
    /// As the kernel has it.
    name: Name,
    socket: UnixSocket,
    target: Target,
}

impl Redirected {
    /// Listens, or goes on listening for the daemon before, and puts the list in force.
    ///
    /// Call before the listeners for TCP are made, since the programs send agents here as soon
    /// as those listen; and as long as they do: when a process dies the kernel closes what
    /// was opened last first (Linux 6.18, seen), so that the doors outlive them.
    ///
    /// # Errors
    /// When no name can be bound, or the kernel does not take the list.
    pub fn bind(kernel: &Kernel, house: &House) -> anyhow::Result<Self> {
        let mut doors = Vec::new();
        let targets = house.config.targets.iter();
        for target in targets.filter(|target| target.via.is_none()) {
            let Place::Socket(socket) = &target.place else {
                continue;
            };
            if let Some(why) = kernel.unix() {
                warn!(target = %target.name, "agents reach {socket} directly: {why}");
            }
            let listener: UnixListener = house
                .life
                .sockets
                .get(&format!("door {socket}"), door)
                .with_context(|| format!("listening for {socket}"))?;
            let address = listener.local_addr()?;
            let name = address.as_abstract_name().and_then(Name::of_abstract);
            doors.push(Door {
                listener,
                name: name.with_context(|| format!("the door for {socket} has no name"))?,
                socket: socket.clone(),
                target: target.clone(),
            });
        }
        let redirected = Self { doors };
        kernel.list_unix(&list(house, &redirected.kept()))?;
        Ok(redirected)
    }

    /// Accepts, and keeps the list as the file system is, until the task is dropped.
    pub fn accept(self, house: &Arc<House>) {
        let kept = self.kept();
        for door in self.doors {
            info!(target = %door.target.name, socket = %door.socket, "a socket is intercepted");
            let (life, house) = (&house.life, Arc::clone(house));
            life.while_serving(async move {
                loop {
                    let unix = listen::next(&door.listener).await;
                    let (one, socket) = (Arc::clone(&house), door.socket.clone());
                    let flow = accepted(one, unix, socket, door.target.clone());
                    house.life.connection(flow);
                }
            });
        }
        // Not while it drains: the list is then the next daemon's.
        let (life, house) = (&house.life, Arc::clone(house));
        life.while_serving(async move {
            let mut clock = tokio::time::interval(REFRESH);
            loop {
                clock.tick().await;
                let Some(kernel) = &house.kernel else { return };
                let listed = tokio::task::block_in_place(|| list(&house, &kept));
                if let Err(error) = kernel.list_unix(&listed) {
                    warn!(%error, "the list of Unix sockets stays as it was");
                }
            }
        });
    }

    /// Which socket is behind which door.
    fn kept(&self) -> Vec<(UnixSocket, Name)> {
        let doors = self.doors.iter();
        doors.map(|door| (door.socket.clone(), door.name)).collect()
    }
}

/// Listens under a name that is nobody's yet, whoever may sit on others; 74 of its bits are
/// drawn at random.
fn door() -> io::Result<StdListener> {
    let draw = || {
        let name = format!("interceptor-{}", Uuid::now_v7().simple());
        StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match draw() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => {
                warn!("somebody listens at a door's name already: another one is drawn");
            }
            drawn => return drawn,
        }
    }
}

/// What is listed; what comes first holds where a name is in it twice.
fn list(house: &House, doors: &[(UnixSocket, Name)]) -> Vec<Listed> {
    let config = &house.config;
    let mut listed: Vec<Listed> = Vec::new();
    let mut add = |name: Name, to: Name, verdict: u32| {
        if !listed.iter().any(|one| one.name == name) {
            listed.push(Listed { name, to, verdict });
        }
    };
    for (_, name) in doors {
        add(*name, *name, UNIX_OWN);
    }
    for own in own_sockets(house) {
        for name in names(&own) {
            add(name, name, UNIX_OWN);
        }
    }
    for (socket, door) in doors {
        for name in names(socket) {
            add(name, *door, UNIX_TO_PROXY);
        }
    }
    for socket in &config.intercept.unix.allow {
        let to = canonical(socket).name().or_else(|| socket.name());
        for name in names(socket) {
            add(name, to.unwrap_or(name), UNIX_TO_PATH);
        }
    }
    let cache = UnixSocket::Path(NAME_CACHE.into());
    for name in names(&cache) {
        add(name, name, UNIX_ABSENT);
    }
    for socket in &config.intercept.unix.block {
        for name in names(socket) {
            add(name, name, UNIX_REFUSE);
        }
    }
    listed
}

/// The daemon's own sockets, and its store's.
fn own_sockets(house: &House) -> Vec<UnixSocket> {
    let config = &house.config;
    let mut own = vec![
        config.admin.socket.clone(),
        handover::socket_path(&config.runtime_dir),
    ];
    own.extend(house.recorder.place().socket().map(Path::to_owned));
    own.into_iter().map(UnixSocket::Path).collect()
}

/// The names that a socket has here.
fn names(socket: &UnixSocket) -> Vec<Name> {
    let UnixSocket::Path(path) = socket else {
        return socket.name().into_iter().collect();
    };
    let mut paths = BTreeSet::from([path.clone()]);
    if let UnixSocket::Path(path) = canonical(socket) {
        paths.insert(path);
    }
    // Of one folder, on nearly every machine, and written either way.
    for (one, other) in [("/run", "/var/run"), ("/var/run", "/run")] {
        let is_same = std::fs::canonicalize(one).ok() == std::fs::canonicalize(other).ok();
        let renamed: Vec<PathBuf> = paths
            .iter()
            .filter_map(|path| Some(Path::new(other).join(path.strip_prefix(one).ok()?)))
            .collect();
        if is_same {
            paths.extend(renamed);
        }
    }
    paths
        .into_iter()
        .filter_map(|path| Name::path(&path).ok())
        .collect()
}

/// A socket by the path that no link is in, as far as it is there.
fn canonical(socket: &UnixSocket) -> UnixSocket {
    let UnixSocket::Path(path) = socket else {
        return socket.clone();
    };
    let whole = std::fs::canonicalize(path).ok();
    let folder = || {
        let folder = std::fs::canonicalize(path.parent()?).ok()?;
        Some(folder.join(path.file_name()?))
    };
    UnixSocket::Path(whole.or_else(folder).unwrap_or_else(|| path.clone()))
}

/// The way to a service's socket.
#[derive(Debug)]
struct ToSocket(UnixSocket);

impl Way for ToSocket {
    fn dial(&self) -> Dialling<'_> {
        Box::pin(async {
            let stream = match &self.0 {
                UnixSocket::Path(path) => UnixStream::connect(path).await?,
                UnixSocket::Abstract(name) => {
                    let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
                    stream.set_nonblocking(true)?;
                    UnixStream::from_std(stream)?
                }
            };
            Ok(Socket::Unix(stream))
        })
    }
}

/// Serves one connection to its end.
async fn accepted(house: Arc<House>, unix: UnixStream, socket: UnixSocket, target: Target) {
    let (Some(runs), Ok(peer)) = (house.runs.clone(), Peer::of(&unix)) else {
        return;
    };
    let (pid, uid) = (peer.pid, peer.uid);
    let identity = tokio::task::spawn_blocking(move || runs.identify_peer(&peer)).await;
    let identity = match identity {
        Ok(Ok(identity)) => identity,
        Ok(Err(error)) => {
            warn!(pid, %error, "a connection of nobody who could be looked at: closed");
            return;
        }
        Err(_) => return,
    };
    if identity.run.is_none() {
        let line = format!(
            "a connection to the proxy for {socket} of no agent (pid {pid}, uid {uid}) was closed"
        );
        warn!("{line}");
        house.recorder.alert(Alert {
            severity: Severity::Medium,
            kind: "bypass",
            line,
            meta: json!({"reason": "forged", "pid": pid, "uid": uid, "unix": socket.text()})
                .to_string(),
        });
        return;
    }
    let origin = Origin {
        host: Host::Socket(socket.text().into()),
        port: 0,
        via: None,
    };
    let dialer = house.front.dialer.by(Arc::new(ToSocket(socket)));
    let flow = Flow {
        target: Some(target),
        dialer,
        arrival: "unix",
        ..Flow::new(&house, identity, pid, origin)
    };
    Box::pin(serve::serve(house, flow, Socket::Unix(unix))).await;
}
