//! The resolver that agents reach, whichever name server they ask.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use interceptor_engine::event::{Event, Kind};
use interceptor_engine::journal::Journal;
use interceptor_policy::verdict::Severity;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::question::{Asked, Question, Ruling};
use super::{Names, upstream};
use crate::config::Target;
use crate::flow::House;
use crate::flow::serve::{self, Flow};
use crate::handover;
use crate::host::lock;
use crate::kernel;
use crate::net::Socket;

/// Questions that are under way at once; more wait, and their askers ask again.
const AT_ONCE: usize = 256;
/// How long a session stays open behind its last question.
const QUIET: Duration = Duration::from_secs(60);
/// Askers that are remembered, at most.
const ASKERS: usize = 4096;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(30);

/// What is known of everybody who asks for names.
#[derive(Debug)]
pub struct Resolver {
    /// What was answered.
    pub names: Names,
    /// By cgroup.
    askers: Mutex<HashMap<u64, Arc<Mutex<Asker>>>>,
    at_once: Arc<Semaphore>,
    /// Questions that were judged.
    pub asked: AtomicU64,
    /// Of those, that were refused.
    pub refused: AtomicU64,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            names: Names::default(),
            askers: Mutex::default(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            asked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

/// One run's questions.
#[derive(Debug)]
struct Asker {
    asked: Asked,
    last: Instant,
    session: Option<Session>,
}

/// Their session.
#[derive(Debug)]
struct Session {
    flow: Flow,
    journal: Journal,
    exchanges: u64,
    refused: u64,
}

impl Resolver {
    /// Answers questions that come as datagrams, until the task is dropped.
    pub fn accept(house: &Arc<House>, socket: UdpSocket) {
        let (house, socket) = (Arc::clone(house), Arc::new(socket));
        let life = Arc::clone(&house.life);
        life.while_serving(async move {
            let mut buffer = [0; 4096];
            loop {
                let Ok((read, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let Some(bytes) = buffer.get(..read).map(<[u8]>::to_vec) else {
                    continue;
                };
                let Ok(permit) = Arc::clone(&house.dns.at_once).acquire_owned().await else {
                    return;
                };
                let (house, socket) = (Arc::clone(&house), Arc::clone(&socket));
                tokio::spawn(async move {
                    if let Some(answer) = datagram(&house, from, &bytes).await {
                        let _ = socket.send_to(&answer, from).await;
                    }
                    drop(permit);
                });
            }
        });
    }

    /// Ends the sessions of those who have asked nothing for a while.
    pub async fn sweep(house: Arc<House>) {
        loop {
            tokio::time::sleep(QUIET / 4).await;
            let now = Instant::now();
            let mut over = Vec::new();
            {
                let mut askers = lock(&house.dns.askers);
                for asker in askers.values() {
                    let mut asker = lock(asker);
                    if now.saturating_duration_since(asker.last) >= QUIET {
                        over.extend(asker.session.take().map(Session::close));
                    }
                }
                // What it asked counts for an hour.
                askers.retain(|_, asker| {
                    let asker = lock(asker);
                    now.saturating_duration_since(asker.last) < Duration::from_secs(60 * 60)
                });
            }
            for events in over {
                serve::record(&house, events).await;
            }
        }
    }

    /// Puts the end of every session on record, once what is being asked is answered.
    pub async fn end(house: &House) {
        let all = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
        let quiet = house.dns.at_once.acquire_many(all);
        let _quiet = tokio::time::timeout(IDLE / 6, quiet).await;
        let over: Vec<Vec<Event>> = lock(&house.dns.askers)
            .values()
            .filter_map(|asker| lock(asker).session.take().map(Session::close))
            .collect();
        for events in over {
            serve::record(house, events).await;
        }
    }

    /// What was counted of each run, for the next daemon.
    #[must_use]
    pub fn hand_over(&self, now: Instant) -> Vec<handover::Asked> {
        let askers = lock(&self.askers);
        let asked = askers
            .iter()
            .map(|(cgroup, asker)| lock(asker).asked.hand_over(*cgroup, now));
        asked.collect()
    }

    /// Goes on counting where the daemon before stopped.
    pub fn take_over(&self, asked: Vec<handover::Asked>, now: Instant) {
        for one in asked {
            let cgroup = one.cgroup;
            let asker = Asker {
                asked: Asked::take_over(one, now),
                last: now,
                session: None,
            };
            lock(&self.askers).insert(cgroup, Arc::new(Mutex::new(asker)));
        }
    }

    fn asker(&self, cgroup: u64, now: Instant) -> Option<Arc<Mutex<Asker>>> {
        let mut askers = lock(&self.askers);
        if askers.len() >= ASKERS && !askers.contains_key(&cgroup) {
            return None;
        }
        let made = || {
            Arc::new(Mutex::new(Asker {
                asked: Asked::new(now),
                last: now,
                session: None,
            }))
        };
        Some(Arc::clone(askers.entry(cgroup).or_insert_with(made)))
    }
}

impl Session {
    /// A session and its first event.
    fn open(flow: Flow, house: &House) -> (Self, Event) {
        let mut journal = flow.journal();
        let (line, meta) = flow.opening(house, "dns", json!({}));
        let event = journal.event(flow.now(), Kind::Open, None, line);
        let session = Self {
            flow,
            journal,
            exchanges: 0,
            refused: 0,
        };
        (session, event.with_meta(meta))
    }

    /// A question, and why it is refused where somebody is to know.
    fn asked(&mut self, question: &Question, ruling: &Ruling) -> Vec<Event> {
        self.exchanges += 1;
        let (at, exchange) = (self.flow.now(), Some(self.exchanges));
        let kind = question.query.query_type().to_string();
        let asked = format!("{kind} {}", question.name);
        let verdict = match ruling {
            Ruling::Refuse(..) => "block",
            Ruling::Ask | Ruling::Nothing => "allow",
        };
        let meta = json!({"name": question.name, "type": kind, "verdict": verdict});
        let command = self
            .journal
            .event(at, Kind::Command, exchange, asked.clone());
        let mut events = vec![command.with_meta(meta.to_string())];
        if let Ruling::Refuse(code, why) = ruling
            && !why.is_empty()
        {
            self.refused += 1;
            let line = format!("{asked} refused: {why}");
            let meta =
                json!({"verdict": "block", "rule": null, "message": why, "code": code.to_string()});
            let refusal = self.journal.event(at, Kind::Verdict, exchange, line);
            let refusal = refusal.with_meta(meta.to_string());
            events.push(refusal.with_alert(Severity::Medium));
        }
        events
    }

    /// What came of a question.
    fn answered(&mut self, exchange: u64, answer: &Message) -> Event {
        let found: Vec<String> = answer
            .answers
            .iter()
            .map(|one| one.data.to_string())
            .collect();
        let code = answer.metadata.response_code.to_string();
        let line = match found.as_slice() {
            [] => code.clone(),
            found => found.join(", "),
        };
        let meta = json!({"code": code, "answers": found});
        self.journal
            .event(self.flow.now(), Kind::Result, Some(exchange), line)
            .with_meta(meta.to_string())
    }

    fn close(mut self) -> Vec<Event> {
        let now = self.flow.now();
        let worst = if self.refused > 0 { "block" } else { "allow" };
        let meta = json!({
            "reason": "no more questions",
            "duration_us": now.0,
            "seconds": now.0 / 1_000_000,
            "exchanges": self.exchanges,
            "refused": self.refused,
            "worst": worst,
        });
        let line = format!("{} questions, {} refused", self.exchanges, self.refused);
        let event = self.journal.event(now, Kind::Close, None, line);
        vec![event.with_meta(meta.to_string())]
    }
}

/// Who asks, as the kernel says.
async fn who(house: &Arc<House>, origin: kernel::Origin) -> Option<Flow> {
    let runs = house.runs.clone()?;
    let (address, pid) = (origin.address, origin.pid);
    let identity = tokio::task::spawn_blocking(move || runs.identify(&origin))
        .await
        .ok()?
        .inspect_err(|error| warn!(pid, %error, "a question of nobody who could be looked at"))
        .ok()?;
    Some(Flow::new(house, identity, pid, address.into()))
}

async fn datagram(house: &Arc<House>, from: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let kernel = house.kernel.as_ref()?;
    let origin = match kernel.query(from) {
        Ok(Some(origin)) => origin,
        Ok(None) => {
            debug!(%from, "a question that no redirect made is not answered");
            return None;
        }
        Err(error) => {
            warn!(%error, "the kernel does not say who asks for a name");
            return None;
        }
    };
    // Of a cgroup that nobody knows no question is answered, as no connection is served.
    let cgroup = house.runs.as_ref()?.top(origin.cgroup_id)?;
    let (answer, room) = answered(house, cgroup, Some(origin), None, bytes).await?;
    let whole = answer.to_vec().ok()?;
    match whole.len() <= room {
        true => Some(whole),
        // It asks again over TCP.
        false => answer.truncate().to_vec().ok(),
    }
}

/// Serves a connection to a name server.
pub async fn over_tcp(house: &Arc<House>, flow: Flow, cgroup: u64, mut tcp: Socket) {
    let mut flow = Some(flow);
    loop {
        let question = async {
            let length = tcp.read_u16().await?;
            let mut bytes = vec![0; usize::from(length)];
            tcp.read_exact(&mut bytes).await?;
            std::io::Result::Ok(bytes)
        };
        let Ok(Ok(bytes)) = tokio::time::timeout(IDLE, question).await else {
            return;
        };
        let Some((answer, _)) = answered(house, cgroup, None, flow.take(), &bytes).await else {
            return;
        };
        let Ok(whole) = answer.to_vec() else { return };
        let Ok(length) = u16::try_from(whole.len()) else {
            return;
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(whole);
        if tcp.write_all(&framed).await.is_err() {
            return;
        }
    }
}

/// Judges a question, asks it, and puts both on record; also how long the answer may be.
async fn answered(
    house: &Arc<House>,
    cgroup: u64,
    origin: Option<kernel::Origin>,
    flow: Option<Flow>,
    bytes: &[u8],
) -> Option<(Message, usize)> {
    let question = match Question::read(bytes) {
        Ok(question) => question,
        Err(answer) => return answer.map(|answer| (*answer, 512)),
    };
    let now = Instant::now();
    let Some(asker) = house.dns.asker(cgroup, now) else {
        return Some((question.answer(ResponseCode::Refused), question.room));
    };
    let is_open = lock(&asker).session.is_some();
    let flow = match (is_open, flow, origin) {
        (true, ..) => None,
        (false, Some(flow), _) => Some(flow),
        (false, None, Some(origin)) => who(house, origin).await,
        (false, None, None) => return None,
    };
    let here = house.targets.targets().iter();
    let hosts: Vec<&str> = here
        .filter(|target| target.via.is_none())
        .filter_map(Target::host)
        .collect();
    let (ruling, exchange, mut events) = {
        let mut asker = lock(&asker);
        asker.last = now;
        let ruling = asker.asked.judge(&question, &house.config.dns, &hosts, now);
        let mut events = Vec::new();
        if asker.session.is_none() {
            // Whom nobody knows is answered nothing.
            let (session, event) = Session::open(flow?, house);
            asker.session = Some(session);
            events.push(event);
        }
        let session = asker.session.as_mut()?;
        events.extend(session.asked(&question, &ruling));
        (ruling, session.exchanges, events)
    };
    // Not asked before it is on record.
    let hand = || house.recorder.record(&mut events);
    if house.recorder.settled(hand).await.is_err() {
        return Some((question.answer(ResponseCode::ServFail), question.room));
    }
    house.dns.asked.fetch_add(1, Ordering::Relaxed);
    let answer = match &ruling {
        Ruling::Refuse(code, _) => {
            house.dns.refused.fetch_add(1, Ordering::Relaxed);
            return Some((question.answer(*code), question.room));
        }
        Ruling::Nothing => return Some((question.answer(ResponseCode::NoError), question.room)),
        Ruling::Ask => match ask(house, &question).await {
            Ok(answer) => told(house, cgroup, &question, answer),
            Err(error) => {
                debug!(%error, name = question.name, "no name server answers");
                question.answer(ResponseCode::ServFail)
            }
        },
    };
    let mut events: Vec<Event> = lock(&asker)
        .session
        .as_mut()
        .map(|session| session.answered(exchange, &answer))
        .into_iter()
        .collect();
    let _ = house.recorder.record(&mut events);
    Some((answer, question.room))
}

async fn ask(house: &House, question: &Question) -> std::io::Result<Message> {
    match house.config.dns.servers.as_slice() {
        // Read each time: a machine moves from one network to another.
        [] => upstream::ask(&upstream::of_the_system(), &question.query).await,
        servers => upstream::ask(servers, &question.query).await,
    }
}

/// The answer as the agent gets it, what it says kept.
fn told(house: &House, cgroup: u64, question: &Question, from: Message) -> Message {
    let mut answer = question.answer(from.metadata.response_code);
    let name: Arc<str> = question.name.as_str().into();
    let now = Instant::now();
    for record in from.answers {
        match &record.data {
            RData::A(address) => house.dns.names.told(cgroup, address.0.into(), &name, now),
            RData::AAAA(address) => house.dns.names.told(cgroup, address.0.into(), &name, now),
            _ => {}
        }
        // An alias on the way, and what was asked for; nothing else is an answer.
        let kind = record.record_type();
        if kind == question.query.query_type() || kind == RecordType::CNAME {
            answer.add_answer(record);
        }
    }
    for record in from.authorities {
        // How long there is nothing.
        if record.record_type() == RecordType::SOA {
            answer.add_authority(record);
        }
    }
    answer
}
