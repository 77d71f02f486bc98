//! The open questions of this host.
//!
//! A flow that waits has its end of a channel here; a ticket has none, and is
//! found again by its digest when the same principal asks for the very same.
//! Everything is bounded: more questions than that are refused, never forgotten.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use interceptor_engine::hold::{Decision, Question};
use interceptor_policy::HoldMode;
use interceptor_policy::approval::{Answer, Approved, Outcome, Tally};
use tokio::sync::{Notify, oneshot};

use super::facts::{Answered, Context, Facts, State};
use super::store::Mirror;

/// Most questions that are open at once.
const OPEN_LIMIT: usize = 10_000;
/// Most tickets of one agent.
const TICKETS_LIMIT: usize = 100;
/// Closed questions that can still be shown from memory.
const CLOSED_KEPT: usize = 256;
/// How often tickets are looked at whose time may be over.
const SWEEP: Duration = Duration::from_secs(1);
/// Shortest part of a name that stands for the whole.
const SHORT: usize = 4;

/// The open questions of this host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    mirror: Mirror,
    ending: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<String, Entry>,
    /// Tickets by digest.
    tickets: HashMap<String, String>,
    closed: VecDeque<Facts>,
    /// Open questions of a daemon before this one, which answers them itself.
    elsewhere: HashSet<String>,
}

#[derive(Debug)]
struct Entry {
    facts: Facts,
    tally: Tally,
    /// The flow that waits; `None` for a ticket.
    waiter: Option<oneshot::Sender<Decision>>,
}

/// Who asks, and how the agent takes a question back.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Who, where.
    pub context: Context,
    /// Told when the agent asks to cancel.
    pub cancelled: Arc<Notify>,
}

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No open question has that name.
    #[error("no open question is named {0}")]
    Unknown(String),
    /// The name means more than one.
    #[error("{0} is the name of more than one question")]
    Ambiguous(String),
    /// It is answered already, or over.
    #[error("the question is {0} already")]
    Over(&'static str),
    /// The answer does not count.
    #[error("the answer does not count: {0}")]
    Uncounted(&'static str),
    /// The answer is to something else.
    #[error("the answer is to other bytes than those that are held")]
    OtherDigest,
    /// The agent has gone away meanwhile.
    #[error("the agent has gone away; nothing waits for an answer")]
    Gone,
}

type Asking = Pin<Box<dyn Future<Output = Decision> + Send>>;

impl Desk {
    /// A desk whose questions are kept in `mirror` as well.
    #[must_use]
    pub fn new(mirror: Mirror) -> Self {
        Self(Arc::new(Inner {
            table: Mutex::default(),
            mirror,
            ending: AtomicBool::new(false),
        }))
    }

    /// Asks. Dropping the future takes the question back.
    #[must_use]
    pub fn ask(&self, question: &Question, asker: Asker) -> Asking {
        let now = now();
        let facts = Facts::new(question, &asker.context, now);
        let waits = question.approval.mode == HoldMode::Wait;
        let mut table = self.lock();
        if let Some(decision) = self.known(&mut table, &facts, waits, now) {
            return ready(decision);
        }
        if table.open.len() >= OPEN_LIMIT {
            return ready(Decision::Unasked("too many questions are open".to_owned()));
        }
        let mine = |entry: &&Entry| entry.waiter.is_none() && entry.facts.agent == facts.agent;
        if !waits && table.open.values().filter(mine).count() >= TICKETS_LIMIT {
            return ready(Decision::Unasked(
                "too many tickets of this agent are open".to_owned(),
            ));
        }
        let id = facts.id.clone();
        let tally = Tally::new(Arc::clone(&question.approval), facts.uid);
        let (waiter, answer) = oneshot::channel();
        self.0.mirror.asked(&facts);
        if !waits {
            table.tickets.insert(facts.digest.clone(), id.clone());
        }
        let entry = Entry {
            facts,
            tally,
            waiter: waits.then_some(waiter),
        };
        table.open.insert(id.clone(), entry);
        drop(table);
        if !waits {
            return ready(Decision::Ticket(id));
        }
        let guard = TakeBack {
            desk: self.clone(),
            id,
        };
        let patience = question.approval.timeout;
        // Not the rest of it, which would wait along.
        let cancelled = asker.cancelled;
        Box::pin(async move {
            let cancel = cancelled.notified();
            tokio::select! {
                answer = answer => match answer {
                    Ok(decision) => decision,
                    Err(_) => Decision::Unasked("the daemon is ending".to_owned()),
                },
                () = tokio::time::sleep(patience) => guard.desk.silence(&guard.id),
                () = cancel => Decision::Cancelled,
            }
        })
    }

    /// What was said of the very same before: a ticket that was answered.
    fn known(&self, table: &mut Table, facts: &Facts, waits: bool, now: i64) -> Option<Decision> {
        let id = table.tickets.get(&facts.digest)?.clone();
        let entry = table.open.get_mut(&id)?;
        if entry.facts.expires_at <= now {
            self.over(table, &id, now);
            return self.known(table, facts, waits, now);
        }
        match entry.facts.state {
            State::Open if !waits => Some(Decision::Ticket(id)),
            State::Open => {
                self.close(table, &id, State::Withdrawn, "asked again, and waits now");
                None
            }
            State::Approved => {
                let approved = approved(&entry.tally)?;
                let by = said_yes(&entry.facts);
                self.close(table, &id, State::Spent, "asked again, and let pass");
                Some(Decision::Approved {
                    approved,
                    by: format!("{by} (ticket {id})"),
                })
            }
            State::Denied => entry
                .facts
                .answers
                .iter()
                .find(|answer| !answer.approves)
                .map(|answer| Decision::Denied {
                    by: answer.by.clone(),
                    reason: answer.reason.clone(),
                }),
            State::Spent | State::TimedOut | State::Withdrawn => None,
        }
    }

    /// Takes an answer. `name` is a question's name, or the beginning or end of
    /// one; `digest` what the answerer was shown, where that is known.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn answer(
        &self,
        name: &str,
        digest: Option<&str>,
        answer: Answer,
    ) -> Result<Facts, Refused> {
        let now = now();
        let mut table = self.lock();
        let id = find(&table, name)?;
        let Some(entry) = table.open.get_mut(&id) else {
            return Err(Refused::Unknown(name.to_owned()));
        };
        if entry.facts.expires_at <= now && entry.waiter.is_none() {
            self.over(&mut table, &id, now);
            return Err(Refused::Over("over"));
        }
        if entry.facts.state != State::Open {
            return Err(Refused::Over(entry.facts.state.name()));
        }
        if digest.is_some_and(|digest| digest != entry.facts.digest) {
            return Err(Refused::OtherDigest);
        }
        let answered = Answered {
            by: answer.by.to_string(),
            uid: answer.uid,
            groups: answer.groups.iter().map(ToString::to_string).collect(),
            approves: answer.approves,
            reason: answer.reason.clone(),
            at: now,
        };
        let line = format!(
            "{} by {}{}",
            if answer.approves {
                "approved"
            } else {
                "denied"
            },
            answered.by,
            answered
                .reason
                .as_deref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default()
        );
        let outcome = entry
            .tally
            .add(answer)
            .map_err(|uncounted| Refused::Uncounted(uncounted.why()))?;
        entry.facts.answers.push(answered);
        let (decision, state) = match outcome {
            Outcome::Waiting => {
                let facts = entry.facts.clone();
                self.0.mirror.changed(&facts, &line);
                return Ok(facts);
            }
            Outcome::Approved(approved) => (
                Decision::Approved {
                    approved,
                    by: said_yes(&entry.facts),
                },
                State::Approved,
            ),
            Outcome::Denied { by, reason } => (
                Decision::Denied {
                    by: by.to_string(),
                    reason,
                },
                State::Denied,
            ),
        };
        match entry.waiter.take() {
            Some(waiter) => {
                let state = match (waiter.send(decision), state) {
                    (Err(_), _) => State::Withdrawn,
                    (Ok(()), State::Approved) => State::Spent,
                    (Ok(()), other) => other,
                };
                let facts = self.close(&mut table, &id, state, &line);
                match (facts, state) {
                    (Some(facts), State::Spent | State::Denied) => Ok(facts),
                    _ => Err(Refused::Gone),
                }
            }
            None => {
                entry.facts.state = state;
                let good_for = i64::try_from(entry.facts.timeout_s).unwrap_or(i64::MAX);
                entry.facts.expires_at = now.saturating_add(good_for);
                let facts = entry.facts.clone();
                self.0.mirror.changed(&facts, &line);
                Ok(facts)
            }
        }
    }

    /// The open questions, and tickets that wait to be used, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Facts> {
        let table = self.lock();
        let mut list: Vec<Facts> = table.open.values().map(|e| e.facts.clone()).collect();
        list.sort_by(|a, b| (a.asked_at, &a.id).cmp(&(b.asked_at, &b.id)));
        list
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One question, also one that was closed lately.
    ///
    /// # Errors
    /// No such question, or several.
    pub fn show(&self, name: &str) -> Result<Facts, Refused> {
        let table = self.lock();
        match find(&table, name) {
            Ok(id) => table
                .open
                .get(&id)
                .map(|entry| entry.facts.clone())
                .ok_or_else(|| Refused::Unknown(name.to_owned())),
            Err(error) => table
                .closed
                .iter()
                .rev()
                .find(|facts| means(&facts.id, name))
                .cloned()
                .ok_or(error),
        }
    }

    /// Takes over questions of the daemon before this one, as tickets; how many were taken.
    pub fn restore(&self, questions: Vec<Facts>) -> usize {
        let now = now();
        let mut taken = 0;
        let mut table = self.lock();
        for mut facts in questions {
            if facts.expires_at <= now
                || table.open.contains_key(&facts.id)
                || table.elsewhere.contains(&facts.id)
            {
                continue;
            }
            HoldMode::Ticket.name().clone_into(&mut facts.mode);
            let mut tally = Tally::new(Arc::new(facts.approval()), facts.uid);
            for answer in &facts.answers {
                let _ = tally.add(Answer {
                    by: answer.by.as_str().into(),
                    uid: answer.uid,
                    groups: answer
                        .groups
                        .iter()
                        .map(|g| Arc::from(g.as_str()))
                        .collect(),
                    approves: answer.approves,
                    reason: answer.reason.clone(),
                });
            }
            table.tickets.insert(facts.digest.clone(), facts.id.clone());
            let entry = Entry {
                tally,
                waiter: None,
                facts,
            };
            table.open.insert(entry.facts.id.clone(), entry);
            taken += 1;
        }
        taken
    }

    /// Takes over the tickets of the daemon before this one; what its flows still wait for
    /// is its own.
    pub fn take_over(&self, tickets: Vec<Facts>, held: Vec<String>) {
        self.lock().elsewhere.extend(held);
        self.restore(tickets);
    }

    /// Gives the tickets away, since each is good for one use; also the names of the
    /// questions that flows wait for, which stay.
    #[must_use]
    pub fn hand_over(&self) -> (Vec<Facts>, Vec<String>) {
        let mut table = self.lock();
        table.tickets.clear();
        let (held, tickets): (HashMap<_, _>, HashMap<_, _>) = std::mem::take(&mut table.open)
            .into_iter()
            .partition(|(_, entry)| entry.waiter.is_some());
        let names = held.keys().cloned().collect();
        table.open = held;
        let tickets = tickets.into_values().map(|entry| entry.facts).collect();
        (tickets, names)
    }

    /// The daemon ends: what is open stays open for the next one.
    pub fn end(&self) {
        self.0.ending.store(true, Ordering::Release);
    }

    /// Closes tickets whose time is over, as long as the runtime lives.
    pub async fn sweep(self) {
        let mut clock = tokio::time::interval(SWEEP);
        loop {
            clock.tick().await;
            let now = now();
            let mut table = self.lock();
            let late: Vec<String> = table
                .open
                .values()
                .filter(|entry| entry.waiter.is_none() && entry.facts.expires_at <= now)
                .map(|entry| entry.facts.id.clone())
                .collect();
            for id in late {
                self.over(&mut table, &id, now);
            }
        }
    }

    /// A ticket's time is over; where silence means yes, that is an answer.
    fn over(&self, table: &mut Table, id: &str, now: i64) {
        let Some(entry) = table.open.get_mut(id) else {
            return;
        };
        if entry.facts.state == State::Open && entry.tally.silent().is_some() {
            entry.facts.state = State::Approved;
            let good_for = i64::try_from(entry.facts.timeout_s.max(1)).unwrap_or(i64::MAX);
            entry.facts.expires_at = now.saturating_add(good_for);
            let facts = entry.facts.clone();
            self.0
                .mirror
                .changed(&facts, "nobody answered, which means yes");
            return;
        }
        let state = match entry.facts.state {
            State::Open => State::TimedOut,
            // Approved and never used, or denied: done with.
            State::Approved => State::TimedOut,
            other => other,
        };
        self.close(table, id, state, "its time is over");
    }

    /// Nobody answered a flow that waits.
    fn silence(&self, id: &str) -> Decision {
        let mut table = self.lock();
        let silent = table.open.get(id).and_then(|entry| entry.tally.silent());
        match silent {
            Some(approved) => {
                self.close(
                    &mut table,
                    id,
                    State::Spent,
                    "nobody answered, which means yes",
                );
                Decision::Approved {
                    approved,
                    by: "nobody's objection".to_owned(),
                }
            }
            None => {
                self.close(&mut table, id, State::TimedOut, "nobody answered in time");
                Decision::TimedOut
            }
        }
    }

    fn close(&self, table: &mut Table, id: &str, state: State, line: &str) -> Option<Facts> {
        let mut entry = table.open.remove(id)?;
        if table
            .tickets
            .get(&entry.facts.digest)
            .is_some_and(|ticket| ticket == id)
        {
            table.tickets.remove(&entry.facts.digest);
        }
        entry.facts.state = state;
        self.0.mirror.changed(&entry.facts, line);
        if table.closed.len() >= CLOSED_KEPT {
            table.closed.pop_front();
        }
        table.closed.push_back(entry.facts.clone());
        Some(entry.facts)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a question back when the flow that waits is gone.
struct TakeBack {
    desk: Desk,
    id: String,
}

impl Drop for TakeBack {
    fn drop(&mut self) {
        if self.desk.0.ending.load(Ordering::Acquire) {
            return;
        }
        let mut table = self.desk.lock();
        // Closed already where it was answered.
        self.desk.close(
            &mut table,
            &self.id,
            State::Withdrawn,
            "the agent took it back, or went away",
        );
    }
}

fn ready(decision: Decision) -> Asking {
    Box::pin(std::future::ready(decision))
}

fn approved(tally: &Tally) -> Option<Approved> {
    match tally.outcome() {
        Outcome::Approved(approved) => Some(approved),
        Outcome::Waiting => tally.silent(),
        Outcome::Denied { .. } => None,
    }
}

fn said_yes(facts: &Facts) -> String {
    let yes: Vec<&str> = facts
        .answers
        .iter()
        .filter(|answer| answer.approves)
        .map(|answer| answer.by.as_str())
        .collect();
    match yes.as_slice() {
        [] => "nobody's objection".to_owned(),
        names => names.join(", "),
    }
}

fn means(id: &str, name: &str) -> bool {
    id == name || (name.len() >= SHORT && (id.starts_with(name) || id.ends_with(name)))
}

fn find(table: &Table, name: &str) -> Result<String, Refused> {
    if table.open.contains_key(name) {
        return Ok(name.to_owned());
    }
    let mut found = table.open.keys().filter(|id| means(id, name));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id.clone()),
        (None, _) => Err(Refused::Unknown(name.to_owned())),
        (Some(_), Some(_)) => Err(Refused::Ambiguous(name.to_owned())),
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests;
