//! Where a Redis is: alone, behind Sentinels, or a Cluster.
//!
//! ```text
//! redis://[USER:PASSWORD@]HOST[:6379][/DB]                       one server
//! redis+unix:///PATH                                             one, by a Unix socket
//! redis+sentinel://[USER:PASSWORD@]HOST[:26379],HOST…/NAME[/DB]   whoever the Sentinels call NAME's master
//! redis+cluster://[USER:PASSWORD@]HOST[:6379],HOST…              a Cluster; some of its nodes
//! ```
//!
//! With `rediss` in front instead of `redis`, over TLS: the server's certificate is
//! checked against the system's authorities, or, with `?ca=FILE` at the end, against
//! those in FILE; `?cert=FILE&key=FILE` is what this program shows of itself.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConfig};
use redis::sentinel::{
    SentinelClient, SentinelClientBuilder, SentinelNodeConnectionInfo, SentinelServerType,
};
use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode,
};

use self::address::Address;
use super::fault::Fault;
use super::nodes;

mod address;
mod link;

pub use address::PlaceError;
pub use link::Link;

/// The standard ports.
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// How long one of several servers has to say where the others are.
const LOOK: Duration = Duration::from_secs(1);

/// Where a Redis is. Cheap to clone.
#[derive(Clone)]
pub struct Place {
    kind: Arc<Kind>,
    text: Arc<str>,
    /// Hosts and ports that the address names.
    nodes: Arc<[(String, u16)]>,
    /// What those hosts were looked up to, and where else servers of the store are, as
    /// those tell.
    addresses: Arc<RwLock<Vec<SocketAddr>>>,
}

pub(super) enum Kind {
    Single(Client),
    /// Sentinels, and how they call the master.
    Sentinel(Mutex<SentinelClient>, String),
    Cluster(Nodes, Box<ClusterClient>),
}

/// How to reach a Cluster's nodes.
pub(super) struct Nodes {
    /// Some of them.
    pub(super) seeds: Vec<(String, u16)>,
    settings: RedisConnectionInfo,
    tls: bool,
    certificates: Option<TlsCertificates>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.text).finish()
    }
}

fn node(host: &str, port: u16, tls: bool) -> ConnectionAddr {
    if tls {
        ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host.to_owned(), port)
    }
}

impl Place {
    /// Reads an address, and the files that it names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(url: &str) -> Result<Self, PlaceError> {
        if url.starts_with("unix:") || url.starts_with("redis+unix:") {
            let client = Client::open(url)?;
            return Ok(Self::of(client));
        }
        let address = Address::read(url)?;
        let certificates = address.certificates()?;
        match address.kind {
            "" => Self::single(&address, certificates),
            "sentinel" => Self::sentinel(&address, certificates),
            "cluster" => Self::cluster(&address, certificates),
            _ => Err(PlaceError::Form(
                "redis+sentinel and redis+cluster are what there is beside redis and rediss",
            )),
        }
    }

    fn new(kind: Kind, text: String, nodes: Vec<(String, u16)>) -> Self {
        Self {
            kind: Arc::new(kind),
            text: text.into(),
            nodes: nodes.into(),
            addresses: Arc::default(),
        }
    }

    fn of(client: Client) -> Self {
        let address = client.get_connection_info().addr();
        let text = address.to_string();
        let node = match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some((host.clone(), *port))
            }
            _ => None,
        };
        Self::new(Kind::Single(client), text, node.into_iter().collect())
    }

    fn single(
        address: &Address<'_>,
        certificates: Option<TlsCertificates>,
    ) -> Result<Self, PlaceError> {
        let [(host, port)] = address.nodes(REDIS_PORT).try_into().map_err(|_| {
            PlaceError::Form("several hosts are for redis+sentinel:// and redis+cluster://")
        })?;
        if host.is_empty() {
            return Err(PlaceError::Form("there is no host"));
        }
        let info = node(&host, port, address.tls)
            .into_connection_info()?
            .set_redis_settings(address.settings(Address::db(address.path.first())?));
        Ok(Self::of(client(info, certificates)?))
    }

    fn sentinel(
        address: &Address<'_>,
        certificates: Option<TlsCertificates>,
    ) -> Result<Self, PlaceError> {
        let name = address.path.first().ok_or(PlaceError::Form(
            "behind the Sentinels stands the master's name, as in redis+sentinel://HOST:26379/mymaster",
        ))?;
        let settings = address.settings(Address::db(address.path.get(1))?);
        let nodes = address.nodes(SENTINEL_PORT);
        let infos: Vec<ConnectionInfo> = nodes
            .iter()
            .map(|(host, port)| node(host, *port, false).into_connection_info())
            .collect::<RedisResult<_>>()?;
        let mut builder = SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
        if address.tls {
            builder = builder.set_tls_mode(TlsMode::Secure);
        }
        let client = if let Some(certificates) = certificates {
            // The builder alone takes certificates.
            let addresses = nodes.iter().map(|(host, port)| node(host, *port, false));
            let mut all = SentinelClientBuilder::new(addresses, *name, SentinelServerType::Master)?
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates);
            if let Some(user) = &address.user {
                all = all.set_client_to_redis_username(user);
            }
            if let Some(password) = &address.password {
                all = all.set_client_to_redis_password(password);
            }
            all.set_client_to_redis_db(Address::db(address.path.get(1))?)
                .build()?
        } else {
            SentinelClient::build(infos, *name, Some(builder), SentinelServerType::Master)?
        };
        let text = format!("{} by {}", name, list(&nodes));
        let kind = Kind::Sentinel(Mutex::new(client), (*name).to_owned());
        Ok(Self::new(kind, text, nodes))
    }

    fn cluster(
        address: &Address<'_>,
        certificates: Option<TlsCertificates>,
    ) -> Result<Self, PlaceError> {
        if !address.path.is_empty() {
            return Err(PlaceError::Form("a Cluster has one database"));
        }
        let seeds = address.nodes(REDIS_PORT);
        let settings = address.settings(0);
        let infos: Vec<ConnectionInfo> = seeds
            .iter()
            .map(|(host, port)| {
                let info = node(host, *port, address.tls).into_connection_info()?;
                Ok(info.set_redis_settings(settings.clone()))
            })
            .collect::<RedisResult<_>>()?;
        let mut builder = ClusterClient::builder(infos);
        if let Some(certificates) = &certificates {
            builder = builder.tls(TlsMode::Secure).certs(certificates.clone());
        }
        let client = builder.build()?;
        let nodes = Nodes {
            seeds: seeds.clone(),
            settings,
            tls: address.tls,
            certificates,
        };
        let text = format!("the Cluster of {}", list(&seeds));
        Ok(Self::new(
            Kind::Cluster(nodes, Box::new(client)),
            text,
            seeds,
        ))
    }

    /// Connects; each answer may take `patience`.
    ///
    /// # Errors
    /// When nobody answers, or refuses.
    pub fn connect(&self, patience: Duration) -> RedisResult<Link> {
        match &*self.kind {
            Kind::Cluster(_, client) => {
                let config = ClusterConfig::new()
                    .set_connection_timeout(patience)
                    .set_response_timeout(patience);
                let connection = client.get_connection_with_config(config)?;
                connection.set_read_timeout(Some(patience))?;
                Ok(Link::Cluster(Box::new(connection)))
            }
            _ => Ok(Link::Single(Box::new(self.connect_single(patience)?))),
        }
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// Why it does not.
    pub fn answers(&self, patience: Duration) -> Result<(), Fault> {
        let ping = || {
            let mut connection = self.connect(patience)?;
            redis::cmd("PING").query::<String>(&mut connection)
        };
        ping().map(drop).map_err(|error| Fault::of(&error))
    }

    /// Connects to the one server that all keys are on; a Cluster has none.
    pub(super) fn connect_single(&self, patience: Duration) -> RedisResult<Connection> {
        let connection = match &*self.kind {
            Kind::Single(client) => client.get_connection_with_timeout(patience)?,
            Kind::Sentinel(sentinels, _) => {
                // Asked under the lock, and connected to without it.
                let master = sentinels
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_client()?;
                if let ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } =
                    master.get_connection_info().addr()
                {
                    self.note([(host.clone(), *port)]);
                }
                master.get_connection_with_timeout(patience)?
            }
            Kind::Cluster(..) => {
                return Err((redis::ErrorKind::InvalidClientConfig, "a Cluster").into());
            }
        };
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        Ok(connection)
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether keys are on different servers, so that a transaction holds for one
    /// key's slot alone.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(&*self.kind, Kind::Cluster(..))
    }

    /// Whether another server may take over with what was copied to it.
    pub(super) fn fails_over(&self) -> bool {
        !matches!(&*self.kind, Kind::Single(_))
    }

    /// Looks up the hosts that the address names, and asks the first of them that answers
    /// for the others; blocks. What cannot be looked up keeps what it had.
    pub fn look_up(&self) {
        let mut found = Vec::new();
        for (host, port) in self.nodes.iter() {
            match (host.as_str(), *port).to_socket_addrs() {
                Ok(addresses) => found.extend(addresses),
                Err(_) => return,
            }
        }
        let told = self.told();
        let whole = told.is_some() || !self.fails_over();
        for (host, port) in told.unwrap_or_default() {
            found.extend(
                (host.as_str(), port)
                    .to_socket_addrs()
                    .into_iter()
                    .flatten(),
            );
        }
        let mut known = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if whole {
            *known = found;
        } else {
            found.retain(|one| !known.contains(one));
            known.append(&mut found);
        }
    }

    /// The recorder was told of more servers of the store.
    pub(super) fn note(&self, servers: impl IntoIterator<Item = (String, u16)>) {
        let mut found = Vec::new();
        for (host, port) in servers {
            // A name waits until all are looked up.
            if let Ok(ip) = host.parse::<IpAddr>() {
                found.push(SocketAddr::new(ip, port));
            }
        }
        let mut known = self
            .addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        found.retain(|one| !known.contains(one));
        known.append(&mut found);
    }

    /// The servers of the store, as the first one tells that answers.
    fn told(&self) -> Option<Vec<(String, u16)>> {
        match &*self.kind {
            Kind::Single(_) => None,
            Kind::Cluster(nodes, _) => nodes.seeds.iter().find_map(|(host, port)| {
                let mut connection = nodes.connect(host, *port, LOOK).ok()?;
                nodes::of_cluster(&mut connection, host).ok()
            }),
            Kind::Sentinel(_, name) => self.nodes.iter().find_map(|(host, port)| {
                let client = Client::open(node(host, *port, false).into_connection_info().ok()?);
                let mut connection = client.ok()?.get_connection_with_timeout(LOOK).ok()?;
                connection.set_read_timeout(Some(LOOK)).ok()?;
                nodes::of_sentinel(&mut connection, name).ok()
            }),
        }
    }

    /// Whether `origin` is a server of the store: one of the hosts that the address names,
    /// as they were last looked up, or another one that those told of. A loopback address
    /// is as good as another.
    #[must_use]
    pub fn is_at(&self, origin: SocketAddr) -> bool {
        let ip = origin.ip().to_canonical();
        let known = self
            .addresses
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|known| {
            let own = known.ip().to_canonical();
            let same = own == ip || own.is_loopback() && ip.is_loopback();
            same && known.port() == origin.port()
        })
    }

    /// The Unix socket that the address names.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        match &*self.kind {
            Kind::Single(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Unix(path) => Some(path),
                _ => None,
            },
            _ => None,
        }
    }

    /// For people; without credentials.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Nodes {
    /// Connects to one node.
    pub(super) fn connect(
        &self,
        host: &str,
        port: u16,
        patience: Duration,
    ) -> RedisResult<Connection> {
        let info = node(host, port, self.tls)
            .into_connection_info()?
            .set_redis_settings(self.settings.clone());
        let client = client(info, self.certificates.clone())?;
        let connection = client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        Ok(connection)
    }
}

fn client(info: ConnectionInfo, certificates: Option<TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    }
}

fn list(nodes: &[(String, u16)]) -> String {
    let all: Vec<String> = nodes
        .iter()
        .map(|(host, port)| format!("{host}:{port}"))
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for (url, told) in [
            ("127.0.0.1:6379", "scheme"),
            ("http://u:hunter2@x", "scheme"),
            ("redis+moon://u:hunter2@x", "redis+sentinel"),
            ("redis://u:hunter2@x:port", "port"),
            ("redis://u:hunter2@a,b", "several hosts"),
            ("redis://u:hunter2@x/db", "number"),
            ("redis+sentinel://u:hunter2@x", "master's name"),
            ("redis+cluster://u:hunter2@x/2", "one database"),
            ("redis://u:hunter2@x?ca=/nowhere", "/nowhere"),
            ("rediss://u:hunter2@x?cafile=/nowhere", "`ca`"),
            ("redis://", "no host"),
        ] {
            let error = Place::open(url).expect_err(url).to_string();
            assert!(error.contains(told), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn where_it_is_is_known_by_address_and_by_socket() {
        let place = Place::open("redis://u:p@localhost:7001").unwrap();
        let at = |text: &str| place.is_at(text.parse().unwrap());
        assert!(!at("127.0.0.1:7001"), "not looked up yet");
        place.look_up();
        assert!(at("127.0.0.1:7001") && at("[::ffff:127.0.0.1]:7001") && at("127.0.0.9:7001"));
        assert!(!at("127.0.0.1:7002") && !at("10.0.0.1:7001"));
        assert_eq!(place.socket(), None);
        let place = Place::open("redis+cluster://10.0.0.1:7,[2001:db8::1]").unwrap();
        place.look_up();
        assert!(place.is_at("10.0.0.1:7".parse().unwrap()));
        assert!(place.is_at("[2001:db8::1]:6379".parse().unwrap()));
        for url in ["unix:/run/r.sock", "redis+unix:///run/r.sock?db=1"] {
            let place = Place::open(url).unwrap();
            assert_eq!(place.socket(), Some(Path::new("/run/r.sock")), "{url}");
        }
    }

    #[test]
    fn a_place_is_named_without_credentials() {
        for (url, text) in [
            ("redis://u:hunter2@h/1", "h:6379"),
            ("redis+sentinel://u:hunter2@a,b:1/m", "m by a:26379, b:1"),
            (
                "redis+cluster://u:hunter2@a:7,b",
                "the Cluster of a:7, b:6379",
            ),
        ] {
            assert_eq!(Place::open(url).unwrap().text(), text);
        }
    }
}
