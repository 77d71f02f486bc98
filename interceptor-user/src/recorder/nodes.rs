//! Which servers a store has, as one of them tells: those that the configuration names,
//! and those that it does not.

use redis::{Connection, RedisResult, Value};

/// A node's own port and this make the port that nodes speak to each other at, where no
/// other is told.
const BUS: u16 = 10_000;

/// Hosts and ports.
type Servers = Vec<(String, u16)>;

/// The nodes of a Cluster, the ports among them at which they speak to each other; `own`
/// is the host of the one that is asked.
pub(super) fn of_cluster(connection: &mut Connection, own: &str) -> RedisResult<Servers> {
    let told: RedisResult<String> = redis::cmd("CLUSTER").arg("NODES").query(connection);
    match told {
        Ok(text) => Ok(nodes(&text, own)),
        // Without the permission for it, those that have slots, and their replicas.
        Err(_) => {
            let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query(connection)?;
            Ok(slots_nodes(&slots, own))
        }
    }
}

/// Redis manual, page `commands/cluster-nodes`: `ID IP:PORT@BUS[,NAME] FLAGS …`, a line a
/// node.
fn nodes(text: &str, own: &str) -> Servers {
    let mut servers = Vec::new();
    for line in text.lines() {
        let Some(address) = line.split(' ').nth(1) else {
            continue;
        };
        let (address, names) = address.split_once(',').unwrap_or((address, ""));
        let (address, bus) = match address.split_once('@') {
            Some((address, bus)) => (address, bus.parse().ok()),
            None => (address, None),
        };
        let Some((ip, port)) = address.rsplit_once(':') else {
            continue;
        };
        let Ok(port) = port.parse::<u16>() else {
            continue;
        };
        let name = names.split(',').next().unwrap_or_default();
        let ip = if ip.is_empty() { own } else { ip };
        for host in [ip, name] {
            if !host.is_empty() && port != 0 {
                servers.extend(ports(host, port, bus));
            }
        }
    }
    servers
}

fn ports(host: &str, port: u16, bus: Option<u16>) -> impl Iterator<Item = (String, u16)> {
    let bus = bus.or_else(|| port.checked_add(BUS));
    let all = [Some(port), bus].into_iter().flatten();
    all.map(|port| (host.to_owned(), port))
}

/// Page `commands/cluster-slots`: rows of first and last slot, and nodes of host, port and
/// more.
fn slots_nodes(slots: &Value, own: &str) -> Servers {
    let mut servers = Vec::new();
    let Value::Array(rows) = slots else {
        return servers;
    };
    for row in rows {
        let Value::Array(row) = row else { continue };
        for node in row.iter().skip(2) {
            let Value::Array(node) = node else { continue };
            let host = match node.first() {
                Some(Value::BulkString(host)) if !host.is_empty() => {
                    String::from_utf8_lossy(host).into_owned()
                }
                _ => own.to_owned(),
            };
            if let Some(Value::Int(port)) = node.get(1)
                && let Ok(port) = u16::try_from(*port)
            {
                servers.extend(ports(&host, port, None));
            }
        }
    }
    servers
}

/// The master that Sentinels call `name`, its replicas, and the other Sentinels.
pub(super) fn of_sentinel(connection: &mut Connection, name: &str) -> RedisResult<Servers> {
    let master: Option<(String, u16)> = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(name)
        .query(connection)?;
    let mut servers: Servers = master.into_iter().collect();
    for others in ["REPLICAS", "SENTINELS"] {
        let told: Vec<std::collections::HashMap<String, String>> = redis::cmd("SENTINEL")
            .arg(others)
            .arg(name)
            .query(connection)?;
        servers.extend(told.into_iter().filter_map(|mut one| {
            let port = one.get("port")?.parse().ok()?;
            Some((one.remove("ip")?, port))
        }));
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_known_with_the_port_that_nodes_use() {
        let text = "07c3 10.0.0.4:30004@31004,host-4 slave e7d1 0 1426238317239 4 connected\n\
                    67ed :30002@31002,,shard-id=x myself,master - 0 0 2 connected 5461-10922\n\
                    aaaa :0@0 noaddr - 0 0 0 disconnected\n\
                    e7d1 2001:db8::1:30001 master,fail - 0 0 1 connected 0-5460\n";
        let all = |pairs: &[(&str, u16)]| -> Servers {
            let pairs = pairs.iter();
            pairs
                .map(|(host, port)| ((*host).to_owned(), *port))
                .collect()
        };
        assert_eq!(
            nodes(text, "own"),
            all(&[
                ("10.0.0.4", 30004),
                ("10.0.0.4", 31004),
                ("host-4", 30004),
                ("host-4", 31004),
                ("own", 30002),
                ("own", 31002),
                ("2001:db8::1", 30001),
                ("2001:db8::1", 40001),
            ])
        );
    }

    #[test]
    fn slots_tell_of_masters_and_their_replicas() {
        let node = |host: &str, port| {
            let host = Value::BulkString(host.as_bytes().to_vec());
            Value::Array(vec![host, Value::Int(port)])
        };
        let row = vec![Value::Int(0), Value::Int(5), node("a", 1), node("", 2)];
        let slots = Value::Array(vec![Value::Array(row)]);
        let found = slots_nodes(&slots, "own");
        assert!(found.contains(&("a".into(), 1)) && found.contains(&("own".into(), 2)));
        assert!(found.contains(&("a".into(), 10_001)));
    }
}
