//! Which target a destination belongs to.
//!
//! The kernel gives an address, the configuration has names: so hosts are looked
//! up at the start and again every half minute, the way the agents' own libraries
//! look them up (`/etc/hosts` counts). An address stays for ten minutes after it
//! was last seen: a name with many addresses shows some of them at a time, and an
//! agent may use one that it was told earlier. A host that cannot be looked up
//! keeps what it had; without any it matches nothing, and its destinations fall
//! to `intercept.default`.
//!
//! The most specific target wins: a single address before a network, a longer
//! prefix before a shorter, then one with a port before one for all; between
//! equals the first in the file.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::{Place, Target};
use crate::net::{Host, Origin};

/// How often hosts are looked up.
const REFRESH: Duration = Duration::from_secs(30);
/// How long an address stays after it was last seen.
const KEPT: Duration = Duration::from_secs(600);
/// Most addresses of one host; more are nobody's ordinary service.
const MOST: usize = 1024;

/// All configured targets.
#[derive(Debug)]
pub struct TargetTable {
    targets: Vec<Target>,
    hosts: RwLock<HashMap<String, HashMap<IpAddr, Instant>>>,
}

impl TargetTable {
    /// A table that has looked nothing up yet.
    #[must_use]
    pub fn new(targets: Vec<Target>) -> Self {
        let hosts = targets
            .iter()
            .filter(|target| target.via.is_none())
            .filter_map(Target::host)
            .map(|host| (host.to_owned(), HashMap::new()))
            .collect();
        Self {
            targets,
            hosts: RwLock::new(hosts),
        }
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The one of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name == name)
    }

    /// The one that a destination belongs to; `looked_up` is the name by which the agent
    /// was told its address here.
    #[must_use]
    pub fn resolve(&self, origin: &Origin, looked_up: Option<&str>) -> Option<&Target> {
        let address = origin.address().map(|address| address.to_canonical());
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let mut best: Option<((u8, bool), &Target)> = None;
        for target in &self.targets {
            if target.port.is_some_and(|port| port != origin.port)
                || target.via.as_deref() != origin.via.as_deref()
            {
                continue;
            }
            let bits = match (&target.place, address) {
                // What a name means there, the machine there says.
                (Place::Host(host), _) if target.via.is_some() => origin
                    .name()
                    .filter(|name| name.eq_ignore_ascii_case(host))
                    .map(|_| u8::MAX),
                (Place::Host(host), Some(address)) => {
                    let known = hosts
                        .get(host)
                        .is_some_and(|known| known.contains_key(&address));
                    let told = looked_up.is_some_and(|name| name.eq_ignore_ascii_case(host));
                    // Of two hosts at one address, the one that the agent looked up.
                    match (known, told) {
                        (_, true) => Some(u8::MAX),
                        (true, false) => Some(max_bits(address)),
                        (false, false) => None,
                    }
                }
                (Place::Network(network), Some(address)) => {
                    network.contains(&address).then(|| network.prefix_len())
                }
                (Place::Socket(socket), None) => match &origin.host {
                    Host::Socket(path) => (socket.text() == **path).then_some(u8::MAX),
                    _ => None,
                },
                (_, None) | (Place::Socket(_), Some(_)) => None,
            };
            let Some(bits) = bits else { continue };
            let rank = (bits, target.port.is_some());
            if best.is_none_or(|(before, _)| rank > before) {
                best = Some((rank, target));
            }
        }
        best.map(|(_, target)| target)
    }

    /// The one address of a target, for a listener that leads to it: looked up
    /// now, an IPv4 address before others.
    ///
    /// # Errors
    /// When its host cannot be looked up, or it is not one address and port.
    pub async fn address_of(&self, target: &Target) -> io::Result<SocketAddr> {
        let many = || io::Error::other(format!("target {:?} is not one address", target.name));
        let port = target.port.ok_or_else(many)?;
        match &target.place {
            Place::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                Ok(SocketAddr::new(network.addr(), port))
            }
            Place::Network(_) | Place::Socket(_) => Err(many()),
            Place::Host(host) => {
                let found: Vec<_> = tokio::net::lookup_host((host.as_str(), port))
                    .await?
                    .collect();
                self.keep(host, found.iter().map(SocketAddr::ip), Instant::now());
                found
                    .iter()
                    .find(|one| one.is_ipv4())
                    .or(found.first())
                    .copied()
                    .ok_or_else(|| io::Error::other(format!("{host} has no address")))
            }
        }
    }

    /// Looks all hosts up once.
    pub async fn refresh(&self) {
        let hosts: Vec<String> = {
            let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
            hosts.keys().cloned().collect()
        };
        for host in hosts {
            match tokio::net::lookup_host((host.as_str(), 0)).await {
                Ok(found) => self.keep(&host, found.map(|one| one.ip()), Instant::now()),
                Err(error) => tracing::warn!(host, %error, "a target's host cannot be looked up"),
            }
        }
    }

    /// Looks all hosts up, again and again.
    pub async fn keep_fresh(&self) {
        let mut ticks = tokio::time::interval(REFRESH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.refresh().await;
        }
    }

    fn keep(&self, host: &str, found: impl Iterator<Item = IpAddr>, now: Instant) {
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = hosts.get_mut(host) else {
            return;
        };
        known.retain(|_, seen| now.saturating_duration_since(*seen) < KEPT);
        for address in found {
            let address = address.to_canonical();
            if known.len() < MOST || known.contains_key(&address) {
                known.insert(address, now);
            }
        }
    }
}

fn max_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, place: Place, port: Option<u16>) -> Target {
        Target {
            name: name.to_owned(),
            place,
            port,
            via: None,
            protocol: None,
            tls: super::super::UpstreamTls::default(),
            credentials: None,
            http: None,
            ssh: crate::config::SshTarget::default(),
            grpc: None,
            default: None,
        }
    }

    fn network(text: &str) -> Place {
        Place::Network(text.parse().unwrap())
    }

    fn resolved(table: &TargetTable, origin: &str) -> Option<String> {
        let origin: SocketAddr = origin.parse().unwrap();
        table
            .resolve(&origin.into(), None)
            .map(|target| target.name.clone())
    }

    #[test]
    fn the_most_specific_target_wins() {
        let table = TargetTable::new(vec![
            target("all", network("10.0.0.0/8"), None),
            target("net", network("10.1.0.0/16"), None),
            target("net-pg", network("10.1.0.0/16"), Some(5432)),
            target("one", network("10.1.2.3/32"), None),
            target("six", network("2001:db8::/32"), None),
        ]);
        let expect = [
            ("10.9.9.9:5432", Some("all")),
            ("10.1.9.9:80", Some("net")),
            ("10.1.9.9:5432", Some("net-pg")),
            ("10.1.2.3:5432", Some("one")),
            ("[::ffff:10.1.2.3]:5432", Some("one")),
            ("[2001:db8::1]:1", Some("six")),
            ("192.0.2.1:5432", None),
        ];
        for (origin, name) in expect {
            assert_eq!(resolved(&table, origin).as_deref(), name, "{origin}");
        }
    }

    #[test]
    fn what_lies_behind_an_ssh_server_is_another_place_than_here() {
        let place = Place::Host("localhost".to_owned());
        let far = Target {
            via: Some("build".to_owned()),
            ..target("far", place.clone(), Some(5432))
        };
        let far_net = Target {
            via: Some("build".to_owned()),
            ..target("far-net", network("10.0.0.0/8"), None)
        };
        let table = TargetTable::new(vec![
            far,
            far_net,
            target("here", place, Some(5432)),
            target("here-net", network("10.0.0.0/8"), None),
        ]);
        table.keep(
            "localhost",
            [IpAddr::from([127, 0, 0, 1])].into_iter(),
            Instant::now(),
        );
        let found = |host: Host, via: Option<&str>| {
            let via = via.map(Into::into);
            let origin = Origin {
                host,
                port: 5432,
                via,
            };
            table
                .resolve(&origin, None)
                .map(|target| target.name.as_str())
        };
        let address = |text: &str| Host::Address(text.parse().unwrap());
        let localhost = || Host::Name("LocalHost".into());
        assert_eq!(found(localhost(), Some("build")), Some("far"));
        assert_eq!(found(localhost(), Some("other")), None);
        assert_eq!(found(address("127.0.0.1"), Some("build")), None);
        assert_eq!(found(address("127.0.0.1"), None), Some("here"));
        assert_eq!(found(address("10.1.1.1"), Some("build")), Some("far-net"));
        assert_eq!(found(address("10.1.1.1"), None), Some("here-net"));
    }

    #[tokio::test]
    async fn a_host_is_known_by_its_addresses_once_it_was_looked_up() {
        let table = TargetTable::new(vec![
            target("local", Place::Host("localhost".to_owned()), Some(5432)),
            target(
                "nowhere",
                Place::Host("no-such-host.invalid".to_owned()),
                None,
            ),
            target("net", network("127.0.0.0/8"), None),
        ]);
        assert_eq!(resolved(&table, "127.0.0.1:5432").as_deref(), Some("net"));
        table.refresh().await;
        assert_eq!(resolved(&table, "127.0.0.1:5432").as_deref(), Some("local"));
        assert_eq!(resolved(&table, "127.0.0.1:5433").as_deref(), Some("net"));
        let local = table.named("local").unwrap();
        assert_eq!(
            table.address_of(local).await.unwrap(),
            "127.0.0.1:5432".parse().unwrap()
        );
    }

    #[test]
    fn an_address_stays_a_while_after_it_was_last_seen() {
        let table = TargetTable::new(vec![target("db", Place::Host("db".to_owned()), None)]);
        let start = Instant::now();
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let other: IpAddr = "10.0.0.2".parse().unwrap();
        table.keep("db", [one].into_iter(), start);
        table.keep("db", [other].into_iter(), start + KEPT / 2);
        assert_eq!(resolved(&table, "10.0.0.1:1").as_deref(), Some("db"));
        table.keep("db", [other].into_iter(), start + KEPT);
        assert_eq!(resolved(&table, "10.0.0.1:1"), None);
        assert_eq!(resolved(&table, "10.0.0.2:1").as_deref(), Some("db"));
    }
}
