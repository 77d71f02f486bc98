//! A Cluster: what belongs to one key goes as one transaction to the node that has its
//! slot, to all nodes at once.
//!
//! A slot that moves refuses a whole transaction, so entries of a session never
//! overtake each other on the way: it is sent again where the key is now. The shared
//! streams have a mark each, in their own slot; while that moves, they wait: the two
//! keys may be on two nodes then, and a stream that is written where it has not
//! arrived yet would be two.
//!
//! Spec: Redis manual, pages `reference/cluster-spec` (slots, hash tags, MOVED, ASK)
//! and `commands/cluster-slots`.

use std::collections::{BTreeMap, HashMap};

use redis::{Connection, RedisResult, Value};
use uuid::Uuid;

use super::{
    Batch, Fault, Followers, PATIENCE, Place, begin, exec, failed, fence, hset, is_no_stream,
    number_of, transaction,
};
use crate::recorder::place::Kind;
use crate::recorder::resp::Stream;

const SLOTS: u16 = 16384;

/// How often in one go a batch follows slots that move.
const ROUNDS: usize = 5;

/// A node's host and port.
type Address = (String, u16);

/// The nodes, and what they have.
pub(in super::super) struct Cluster {
    place: Place,
    prefix: String,
    hosts: String,
    host: String,
    /// First and last slot of a range, and who has it.
    ranges: Vec<(u16, u16, Address)>,
    nodes: HashMap<Address, Node>,
    /// Broken connections of ours that nodes may still be reading from.
    fences: HashMap<Address, i64>,
    /// Keys of the batch of which it is not known whether they were done, and the
    /// mark that would say so.
    unsure: BTreeMap<Vec<u8>, String>,
    /// Keys that are at another node than the one that has their slot.
    asks: BTreeMap<Vec<u8>, Address>,
}

struct Node {
    connection: Connection,
    id: Option<i64>,
    followers: Followers,
}

/// What a node did of a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Did {
    /// Some of it was done by the connection that there is now; the rest was there.
    wrote: bool,
    /// How many of its replicas have it, where they were asked along with it.
    have: Option<u64>,
}

/// What a transaction came to: its results, why it was refused, or why that is not known.
type Answer = Result<Result<Vec<Value>, Fault>, Fault>;

/// What of a batch belongs to one key.
#[derive(Default)]
struct Group {
    key: Vec<u8>,
    indices: Vec<usize>,
    /// A stream that is shared, and the key of its mark.
    shared: Option<(Stream, String)>,
    is_sign: bool,
    /// It goes to a node that does not have the slot yet.
    asked: bool,
}

impl Cluster {
    pub(super) fn new(place: Place, prefix: &str, host: &str) -> Self {
        Self {
            place,
            prefix: prefix.to_owned(),
            hosts: format!("{prefix}:hosts"),
            host: host.to_owned(),
            ranges: Vec::new(),
            nodes: HashMap::new(),
            fences: HashMap::new(),
            unsure: BTreeMap::new(),
            asks: BTreeMap::new(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The key of a shared stream's marks; in the stream's slot.
    fn mark_key(&self, stream: &str) -> String {
        format!("{0}:writers:{{{0}:{stream}}}", self.prefix)
    }

    pub(super) fn commit(&mut self, batch: &mut Batch, sign: Option<&str>) -> Result<(), Fault> {
        let mut sign = sign;
        let mut told = None;
        for _ in 0..ROUNDS {
            self.learn()?;
            told = self.round(batch, &mut sign);
            match &told {
                None => break,
                // Nothing but the way was wrong.
                Some(Fault::Moved) => self.ranges.clear(),
                Some(Fault::Ask { .. }) => {}
                Some(_) => {
                    self.ranges.clear();
                    break;
                }
            }
        }
        match told {
            Some(fault) => Err(fault),
            None => {
                self.unsure.clear();
                batch.done();
                Ok(())
            }
        }
    }

    /// Asks who has which slots, where that is not known.
    fn learn(&mut self) -> Result<(), Fault> {
        if !self.ranges.is_empty() {
            return Ok(());
        }
        let place = self.place.clone();
        let Kind::Cluster(nodes, _) = place.kind() else {
            return Err(Fault::Other("not a Cluster".to_owned()));
        };
        let known = self.nodes.keys().cloned();
        let mut candidates: Vec<Address> = known.collect();
        candidates.extend(nodes.seeds.iter().cloned());
        let mut last = Fault::Away("no node is known".to_owned());
        for address in candidates {
            match self.node(&address).and_then(|node| ranges(node, &address)) {
                Ok(ranges) if covers(&ranges) => {
                    place.note(ranges.iter().map(|(_, _, address)| address.clone()));
                    self.ranges = ranges;
                    return Ok(());
                }
                Ok(_) => last = Fault::Busy("CLUSTERDOWN".to_owned()),
                Err(fault) => {
                    self.broken(&address, &fault);
                    last = fault;
                }
            }
        }
        Err(last)
    }

    /// The connection to a node.
    fn node(&mut self, address: &Address) -> Result<&mut Connection, Fault> {
        if !self.nodes.contains_key(address) {
            let Kind::Cluster(nodes, _) = self.place.kind() else {
                return Err(Fault::Other("not a Cluster".to_owned()));
            };
            let ready = || -> RedisResult<Node> {
                let mut connection = nodes.connect(&address.0, address.1, PATIENCE)?;
                redis::cmd("PING").exec(&mut connection)?;
                if let Some(old) = self.fences.get(address) {
                    fence(&mut connection, *old);
                }
                let id = redis::cmd("CLIENT").arg("ID").query(&mut connection).ok();
                Ok(Node {
                    connection,
                    id,
                    followers: Followers::default(),
                })
            };
            let node = ready().map_err(|error| Fault::of(&error))?;
            self.fences.remove(address);
            self.nodes.insert(address.clone(), node);
        }
        match self.nodes.get_mut(address) {
            Some(node) => Ok(&mut node.connection),
            None => Err(Fault::Away("not connected".to_owned())),
        }
    }

    fn broken(&mut self, address: &Address, fault: &Fault) {
        if fault.is_connection() {
            self.drop_node(address);
        }
    }

    fn drop_node(&mut self, address: &Address) {
        if let Some(node) = self.nodes.remove(address)
            && let Some(id) = node.id
        {
            self.fences.insert(address.clone(), id);
        }
    }

    /// Sends what is left of the batch once; the first fault.
    fn round(&mut self, batch: &mut Batch, sign: &mut Option<&str>) -> Option<Fault> {
        let mut first = None;
        let note = |fault: Fault, first: &mut Option<Fault>| {
            let is_way = |fault: &Fault| matches!(fault, Fault::Moved | Fault::Ask { .. });
            // Anything else is worth more to tell, and to wait for.
            if first.as_ref().is_none_or(is_way) {
                *first = Some(fault);
            }
        };
        let mut by_node: BTreeMap<Address, Vec<Group>> = BTreeMap::new();
        for mut group in self.groups(batch, sign.is_some()) {
            let asked = self.asks.remove(&group.key);
            group.asked = asked.is_some();
            match asked.or_else(|| self.owner(&group.key)) {
                Some(address) => by_node.entry(address).or_default().push(group),
                None => note(Fault::Moved, &mut first),
            }
        }
        let mut done: Vec<usize> = Vec::new();
        let mut partly = false;
        // Nodes that did something.
        let mut did = BTreeMap::new();
        // All are sent to before the first is waited for.
        let mut sent = Vec::new();
        for (address, mut groups) in by_node {
            match self.send(batch, &address, &mut groups, *sign, &mut done) {
                Ok(asked) => sent.push((address, groups, asked)),
                Err(fault) => {
                    self.broken(&address, &fault);
                    note(fault, &mut first);
                }
            }
        }
        for (address, groups, asked) in sent {
            let (answered, have) = self.receive(&address, groups, asked);
            let results = answered.iter().filter_map(|(_, answer)| match answer {
                Ok(Ok(results)) => Some(results),
                _ => None,
            });
            for results in results {
                let done = results.iter();
                let wrote = done
                    .into_iter()
                    .any(|one| !matches!(one, Value::ServerError(_)));
                let node: &mut Did = did.entry(address.clone()).or_default();
                node.wrote |= wrote;
                node.have = have;
            }
            for (group, answer) in answered {
                let answer = match answer {
                    Ok(Ok(results)) => self.sort_out(batch, &address, &group, &results).map(Ok),
                    Ok(Err(refused)) => Ok(Err(refused)),
                    Err(fault) => Err(fault),
                };
                match answer {
                    Ok(Ok(failed)) => {
                        if group.is_sign {
                            *sign = None;
                        }
                        self.unsure.remove(&group.key);
                        partly |= !failed.is_empty();
                        let is_failed = |index: &usize| failed.iter().any(|(one, _)| one == index);
                        done.extend(group.indices.iter().filter(|index| !is_failed(index)));
                        if let Some((_, fault)) = failed.into_iter().next() {
                            note(fault, &mut first);
                        }
                    }
                    Ok(Err(fault)) => {
                        self.unsure.remove(&group.key);
                        match &fault {
                            Fault::Ask { node } if group.shared.is_none() => {
                                if let Some(address) = address_of(node, &address) {
                                    self.asks.insert(group.key, address);
                                }
                                note(fault, &mut first);
                            }
                            Fault::Ask { .. } => {
                                note(Fault::Busy("TRYAGAIN".to_owned()), &mut first);
                            }
                            _ => note(fault, &mut first),
                        }
                    }
                    Err(fault) => note(fault, &mut first),
                }
            }
        }
        if let Some(fault) = self.follow(batch, did, &done) {
            note(fault, &mut first);
            return first;
        }
        done.sort_unstable();
        batch
            .commands
            .retain(|index, _| done.binary_search(&index).is_err());
        if partly {
            batch.part += 1;
        }
        first
    }

    /// Waits for the replicas of the nodes that did something; where one does not
    /// follow, everything of the batch counts as not known to be done, and goes again
    /// to whoever has it then: the node itself may be gone for good.
    fn follow(
        &mut self,
        batch: &Batch,
        did: BTreeMap<Address, Did>,
        done: &[usize],
    ) -> Option<Fault> {
        let mut first = None;
        for (address, did) in did {
            if let Err(fault) = self.follow_one(&address, did) {
                self.broken(&address, &fault);
                first.get_or_insert(fault);
            }
        }
        if first.is_some() {
            for index in done {
                if let Some(key) = batch.commands.key(*index) {
                    self.unsure.insert(key.to_vec(), batch.mark());
                }
            }
        }
        first
    }

    fn follow_one(&mut self, address: &Address, did: Did) -> Result<(), Fault> {
        let Some(node) = self.nodes.get_mut(address) else {
            return Err(Fault::Away("the connection broke".to_owned()));
        };
        let followers = &mut node.followers;
        followers.follow(&mut node.connection, did.have, did.wrote)
    }

    fn owner(&self, key: &[u8]) -> Option<Address> {
        let slot = slot(key);
        let range = self
            .ranges
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot));
        range.map(|(_, _, address)| address.clone())
    }

    /// The batch by keys, in order within each.
    fn groups(&self, batch: &Batch, sign: bool) -> Vec<Group> {
        let mut groups: BTreeMap<&[u8], Group> = BTreeMap::new();
        for (index, stream) in batch.commands.streams().enumerate() {
            let Some(key) = batch.commands.key(index) else {
                continue;
            };
            let group = groups.entry(key).or_insert_with(|| {
                let shared = Stream::SHARED.iter().find(|(shared, _)| *shared == stream);
                Group {
                    key: key.to_vec(),
                    shared: shared.map(|(stream, name)| (*stream, self.mark_key(name))),
                    ..Group::default()
                }
            });
            group.indices.push(index);
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        if sign {
            groups.push(Group {
                key: self.hosts.as_bytes().to_vec(),
                is_sign: true,
                ..Group::default()
            });
        }
        groups
    }

    /// Sends the groups of one node, but for those that are known to be done; whether it
    /// was asked for its replicas along with them.
    fn send(
        &mut self,
        batch: &Batch,
        address: &Address,
        groups: &mut Vec<Group>,
        sign: Option<&str>,
        done: &mut Vec<usize>,
    ) -> Result<bool, Fault> {
        let mut todo = Vec::with_capacity(groups.len());
        for mut group in groups.drain(..) {
            if self.done_before(batch, address, &group)? {
                // Its mark is written again all the same: a replica can be waited for
                // only behind something that this connection wrote.
                done.append(&mut group.indices);
            }
            todo.push(group);
        }
        *groups = todo;
        let mut buffer = Vec::new();
        for group in groups.iter() {
            if group.asked {
                buffer.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
            }
            begin(&mut buffer);
            for index in &group.indices {
                buffer.extend_from_slice(batch.commands.command(*index).unwrap_or_default());
            }
            if let Some((_, mark)) = &group.shared {
                hset(&mut buffer, mark, &batch.writer.to_string(), &batch.mark());
                self.unsure.insert(group.key.clone(), batch.mark());
            }
            if let (true, Some(sign)) = (group.is_sign, sign) {
                hset(&mut buffer, &self.hosts, &self.host, sign);
            }
            exec(&mut buffer);
        }
        self.node(address)?;
        let Some(node) = self.nodes.get_mut(address) else {
            return Err(Fault::Away("not connected".to_owned()));
        };
        let asked = node.followers.ask(&mut buffer);
        let sent = node.connection.send_packed_command(&buffer);
        sent.map(|()| asked).map_err(|error| Fault::of(&error))
    }

    /// Whether a mark says that a group was done. Entries of sessions tell for
    /// themselves.
    fn done_before(
        &mut self,
        batch: &Batch,
        address: &Address,
        group: &Group,
    ) -> Result<bool, Fault> {
        let Some((stream, key)) = &group.shared else {
            return Ok(false);
        };
        let wanted = self.unsure.get(&group.key).cloned();
        if wanted.is_none() && !(batch.inherited && batch.unsure) {
            return Ok(false);
        }
        let prefix = self.prefix.clone();
        let writer = batch.writer.to_string();
        let connection = self.node(address)?;
        let look = || -> RedisResult<bool> {
            let mark: Option<String> = redis::cmd("HGET").arg(key).arg(writer).query(connection)?;
            let is_done = match &wanted {
                Some(wanted) => mark.as_ref() == Some(wanted),
                None => batch.is_done_by(mark.as_deref()),
            };
            Ok(is_done && !is_no_stream(connection, &prefix, *stream)?)
        };
        look().map_err(|error| Fault::of(&error))
    }

    /// Reads what the groups of one node came to. All of it, before the node is asked
    /// anything else: answers come in the order of questions. What the connection did
    /// not live to tell is not known.
    fn receive(
        &mut self,
        address: &Address,
        groups: Vec<Group>,
        asked: bool,
    ) -> (Vec<(Group, Answer)>, Option<u64>) {
        let mut lost: Option<Fault> = None;
        let mut answered = Vec::with_capacity(groups.len());
        for group in groups {
            let answer = match &lost {
                Some(fault) => Err(fault.clone()),
                None => self.receive_one(address, &group),
            };
            if let (Err(fault), None) = (&answer, &lost) {
                self.drop_node(address);
                lost = Some(fault.clone());
            }
            answered.push((group, answer));
        }
        let mut have = None;
        if asked && lost.is_none() {
            match self.node(address).and_then(Followers::answer) {
                Ok(count) => have = Some(count),
                Err(_) => self.drop_node(address),
            }
        }
        (answered, have)
    }

    fn receive_one(&mut self, address: &Address, group: &Group) -> Answer {
        let count =
            group.indices.len() + usize::from(group.shared.is_some()) + usize::from(group.is_sign);
        let connection = self.node(address)?;
        if group.asked {
            connection
                .recv_response()
                .map_err(|error| Fault::of(&error))?;
        }
        transaction(connection, count)
    }

    /// What of a group that was done was not.
    fn sort_out(
        &mut self,
        batch: &Batch,
        address: &Address,
        group: &Group,
        results: &[Value],
    ) -> Result<Vec<(usize, Fault)>, Fault> {
        let sorted = self
            .node(address)
            .and_then(|connection| failed(connection, &batch.commands, &group.indices, results));
        sorted.inspect_err(|fault| self.broken(address, fault))
    }

    pub(super) fn reached(&mut self, writer: Uuid) -> Result<Option<u64>, Fault> {
        let mut highest = None;
        for (_, name) in Stream::SHARED {
            let key = self.mark_key(name);
            let mark: Option<String> = self.ask(&key, |connection| {
                redis::cmd("HGET")
                    .arg(&key)
                    .arg(writer.to_string())
                    .query(connection)
            })?;
            highest = highest.max(mark.as_deref().and_then(number_of));
        }
        Ok(highest)
    }

    pub(super) fn forget(&mut self, writer: Uuid) -> Result<(), Fault> {
        for (_, name) in Stream::SHARED {
            let key = self.mark_key(name);
            self.ask(&key, |connection| {
                redis::cmd("HDEL")
                    .arg(&key)
                    .arg(writer.to_string())
                    .exec(connection)
            })?;
        }
        Ok(())
    }

    /// Asks the node that has `key`.
    fn ask<T>(
        &mut self,
        key: &str,
        ask: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, Fault> {
        self.learn()?;
        let address = self.owner(key.as_bytes()).ok_or(Fault::Moved)?;
        let answer = self
            .node(&address)
            .and_then(|connection| ask(connection).map_err(|error| Fault::of(&error)));
        if let Err(fault) = &answer {
            self.broken(&address, fault);
            self.ranges.clear();
        }
        answer
    }
}

/// The slot of a key.
fn slot(key: &[u8]) -> u16 {
    let tag = key
        .iter()
        .position(|byte| *byte == b'{')
        .and_then(|open| key.get(open + 1..))
        .and_then(|rest| {
            rest.split(|byte| *byte == b'}')
                .next()
                .filter(|tag| tag.len() < rest.len())
        })
        .filter(|tag| !tag.is_empty());
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS
}

/// `HOST:PORT`, where an empty host is the answering node's own.
fn address_of(text: &str, own: &Address) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = if host.is_empty() { &own.0 } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

/// Asks a node who has which slots.
fn ranges(connection: &mut Connection, own: &Address) -> Result<Vec<(u16, u16, Address)>, Fault> {
    let answer: Value = redis::cmd("CLUSTER")
        .arg("SLOTS")
        .query(connection)
        .map_err(|error| Fault::of(&error))?;
    let Value::Array(rows) = answer else {
        return Err(Fault::Other("CLUSTER SLOTS".to_owned()));
    };
    let range = |row: &Value| -> Option<(u16, u16, Address)> {
        let Value::Array(row) = row else { return None };
        let number = |value: Option<&Value>| match value {
            Some(Value::Int(number)) => u16::try_from(*number).ok(),
            _ => None,
        };
        let Some(Value::Array(node)) = row.get(2) else {
            return None;
        };
        let host = match node.first() {
            Some(Value::BulkString(host)) if !host.is_empty() => {
                String::from_utf8_lossy(host).into_owned()
            }
            _ => own.0.clone(),
        };
        let port = number(node.get(1))?;
        Some((number(row.first())?, number(row.get(1))?, (host, port)))
    };
    Ok(rows.iter().filter_map(range).collect())
}

/// Whether somebody has every slot.
fn covers(ranges: &[(u16, u16, Address)]) -> bool {
    let slots: u32 = ranges
        .iter()
        .map(|(first, last, _)| u32::from(last.saturating_sub(*first)) + 1)
        .sum();
    slots >= u32::from(SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification, and from `CLUSTER KEYSLOT`.
    #[test]
    fn slots_are_the_specifications() {
        assert_eq!(slot(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{foo}bar"), slot(b"foo"));
        assert_eq!(slot(b"x{foo}{bar}"), slot(b"foo"));
        assert_ne!(slot(b"foo{}{bar}"), slot(b"bar"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_ne!(slot(b"a{b"), slot(b"b"));
    }

    #[test]
    fn a_mark_is_in_its_streams_slot() {
        let place = Place::open("redis+cluster://a").unwrap();
        let cluster = Cluster::new(place, "interceptor", "h");
        for (_, name) in Stream::SHARED {
            let stream = format!("interceptor:{name}");
            assert_eq!(
                slot(cluster.mark_key(name).as_bytes()),
                slot(stream.as_bytes())
            );
        }
    }
}
