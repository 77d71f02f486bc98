//! The thread that brings the spool to Redis.
//!
//! First what dead processes left, oldest first, then this process's own, frame by
//! frame. Sessions that a dead process did not end are ended on record, once
//! everything of theirs is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interceptor_engine::chain::Head;
use interceptor_policy::verdict::Severity;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Alert;
use super::encode::Alerts;
use super::evidence::Leavings;
use super::fault::Fault;
use super::queue::{Lost, Queue};
use super::resp::{self, Commands, Stream};
use super::spool::{BadFolder, Cursor, Damage, Frame, Item, Left, Next, Spool};
use super::store::{Batch, Store};
use super::trouble::{Trouble, What};
use super::writer::{Told, alerts_dropped, lower_priority};

/// An idle recorder gives a sign of life so often, a busy one every second.
const SIGN_OF_LIFE: Duration = Duration::from_secs(60);
const BUSY_SIGN: Duration = Duration::from_secs(1);

/// How soon it is looked whether what was sent on can be removed.
const SOON: Duration = Duration::from_millis(20);

/// How long the end waits for the writer's, to leave word of what is wrong.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How often it is looked whether another process died.
const LOOK: Duration = Duration::from_secs(5);

/// The sender.
pub(super) struct Sender {
    pub(super) queue: Arc<Queue>,
    pub(super) told: Arc<Told>,
    pub(super) spool: Arc<Spool>,
    pub(super) store: Store,
    /// Where alerts go that come when the writer has ended.
    pub(super) alerts: Alerts,
    /// This host's sign of life without the time; a JSON object without its end.
    pub(super) facts: Arc<Mutex<String>>,
    /// Set when nobody waits for the rest any more.
    pub(super) abandoned: Arc<AtomicBool>,
    pub(super) last_sign: Option<Instant>,
    /// What is sent, and removed when the ends of its sessions are in the spool.
    pub(super) sent_on: Vec<SentOn>,
    /// What other processes left and cannot be taken over, once it was told.
    pub(super) told_bad: BTreeSet<PathBuf>,
}

/// A dead process's spool, all of it sent.
pub(super) struct SentOn {
    left: Left,
    damaged: Vec<PathBuf>,
    /// Stands for the ends of its sessions.
    ticket: u64,
}

impl Sender {
    /// Works until everything is sent and nothing will come, or abandoned.
    pub(super) fn run(mut self) {
        lower_priority();
        self.work();
        // What keeps Redis from it now is told by whoever sends the rest.
        let since = Instant::now();
        while !self.spool.is_finished() && since.elapsed() < LAST_WORD {
            std::thread::sleep(SOON);
        }
        self.tell_late();
    }

    fn work(&mut self) {
        let writer = self.spool.writer();
        let mut cursor = Cursor::default();
        let mut looked: Option<Instant> = None;
        loop {
            // The first sign of life says that this host writes here.
            if self.sign_is_due(SIGN_OF_LIFE) && !self.deliver(&mut Batch::empty(writer)) {
                return;
            }
            self.remove_sent_on();
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                if !self.take_over() {
                    return;
                }
            }
            let patience = if self.sent_on.is_empty() { LOOK } else { SOON };
            match self.spool.next(&mut cursor, patience) {
                Ok(Next::Frame(mut frame)) => {
                    let mut batch = Batch::of(writer, &mut frame, false);
                    if !self.deliver(&mut batch) {
                        return;
                    }
                    self.spool.acknowledge(&frame);
                }
                Ok(Next::Damage(damage)) => self.queue.push_alert(alert(&damage)),
                Ok(Next::Nothing) => {}
                Ok(Next::Finished) => {
                    self.remove_sent_on();
                    if self.tell_late() {
                        continue;
                    }
                    if self.spool.remove_if_sent() {
                        let _ = self.store.forget(writer);
                    }
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the spool cannot be read; trying again");
                    self.told
                        .redis_is(Some(format!("the spool cannot be read: {error}")));
                    if self.abandoned.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::sleep(BUSY_SIGN);
                }
            }
        }
    }

    /// Brings the alerts to the spool that came when its writer had ended; whether there
    /// were any.
    fn tell_late(&mut self) -> bool {
        if !self.spool.is_finished() {
            return false;
        }
        let mut alerts = self.queue.take_alerts();
        let dropped = self.queue.take_dropped();
        if dropped > 0 {
            alerts.push_back(alerts_dropped(dropped));
        }
        let mut commands = Commands::default();
        for alert in &alerts {
            self.alerts.alert(alert, &mut commands);
        }
        if commands.is_empty() {
            return false;
        }
        let done = self.spool.append_late(&commands);
        if let Err(error) = &done {
            tracing::error!(%error, alerts = alerts.len(), "alerts at the end are lost");
        }
        done.is_ok()
    }

    /// Sends on what dead processes left; false when it is abandoned.
    fn take_over(&mut self) -> bool {
        let (left, bad) = match self.spool.left_behind() {
            Ok(left) => left,
            Err(error) => {
                tracing::error!(%error, "what was left in the spool cannot be read");
                return true;
            }
        };
        for BadFolder { path, error } in bad {
            if self.told_bad.insert(path.clone()) {
                self.queue.push_alert(unreadable(&path, &error));
            }
        }
        let mut sent = Vec::new();
        let mut leavings = Leavings::default();
        for one in left {
            let (writer, bytes) = (one.writer(), one.bytes);
            match self.send_on(one, &mut leavings) {
                Ok(Some(one)) => {
                    leavings.writers.insert(writer);
                    sent.push(one);
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::error!(%error, "what was left in the spool cannot be read");
                    self.spool.let_go(bytes);
                }
            }
        }
        if !sent.is_empty() {
            // Stands before the ends of sessions, so their tickets stand for it, too.
            self.queue.push_lost(vec![Lost::Statements(leavings)]);
        }
        // One of them may have ended the sessions of another.
        let closed: BTreeSet<Uuid> = sent
            .iter()
            .flat_map(|(left, _)| left.closed_sessions().iter().copied())
            .collect();
        for (left, damaged) in sent {
            let mut lost = left.open_sessions();
            lost.retain(|note| !closed.contains(&note.session));
            if !lost.is_empty() {
                tracing::warn!(
                    sessions = lost.len(),
                    "sessions of a daemon that was lost are ended"
                );
            }
            let lost = lost.into_iter().map(Box::new).map(Lost::Session);
            let ticket = self.queue.push_lost(lost.collect());
            self.sent_on.push(SentOn {
                left,
                damaged,
                ticket,
            });
        }
        true
    }

    /// Removes what was sent on. Not before the ends of its sessions are in this process's
    /// spool: who is killed in between leaves them to the next one, and an end that is
    /// written twice is one entry.
    fn remove_sent_on(&mut self) {
        let is_written = |one: &mut SentOn| self.queue.are_ended(one.ticket);
        let done: Vec<SentOn> = self.sent_on.extract_if(.., is_written).collect();
        for one in done {
            let (writer, bytes) = (one.left.writer(), one.left.bytes);
            if let Err(error) = one.left.remove(one.damaged) {
                tracing::error!(%error, %writer, "what was sent on cannot be removed from the spool");
            }
            self.spool.let_go(bytes);
            // What stays behind is one field of a hash.
            let _ = self.store.forget(writer);
        }
    }

    fn send_on(
        &mut self,
        mut left: Left,
        leavings: &mut Leavings,
    ) -> std::io::Result<Option<(Left, Vec<PathBuf>)>> {
        let writer = left.writer();
        tracing::info!(%writer, bytes = left.bytes, "sending on what another process left in the spool");
        let mut reached = None;
        if !self.until_done(|sender| {
            reached = sender.store.reached(writer)?;
            Ok(())
        }) {
            return Ok(None);
        }
        let mut damaged: Vec<PathBuf> = Vec::new();
        let mut first = true;
        loop {
            match left.next()? {
                Item::Frame(mut frame) => {
                    note(leavings, &frame);
                    if std::mem::take(&mut first)
                        && let Some(reached) = reached
                        && frame.number > reached.saturating_add(1)
                    {
                        let missing = frame.number - reached - 1;
                        self.queue
                            .push_alert(missing_frames(&writer.to_string(), missing));
                    }
                    if reached.is_some_and(|reached| frame.number < reached) {
                        continue;
                    }
                    if !self.deliver(&mut Batch::of(writer, &mut frame, true)) {
                        return Ok(None);
                    }
                }
                Item::Damage(damage) => {
                    if !damage.torn_tail {
                        damaged.push(damage.segment.clone());
                    }
                    self.queue.push_alert(alert(&damage));
                }
                Item::End => break,
            }
        }
        Ok(Some((left, damaged)))
    }

    fn sign_is_due(&self, after: Duration) -> bool {
        self.last_sign.is_none_or(|last| last.elapsed() >= after)
    }

    /// Brings a batch to Redis, however often it takes; false when it is abandoned.
    fn deliver(&mut self, batch: &mut Batch) -> bool {
        let sign = self.sign_is_due(BUSY_SIGN).then(|| self.sign());
        let signs_only = batch.commands.is_empty();
        let done = self.until_done(|sender| {
            let done = sender.store.commit(batch, sign.as_deref());
            if done.is_err() && signs_only && sender.queue.is_closed() {
                // A sign of life is not worth waiting for at the end.
                return Ok(());
            }
            done
        });
        if done {
            self.told.connected.store(true, Ordering::Relaxed);
            self.told.batches.fetch_add(1, Ordering::Relaxed);
            if sign.is_some() {
                self.last_sign = Some(Instant::now());
            }
        }
        done
    }

    /// Tries until it works; false when it is abandoned.
    fn until_done(&mut self, mut work: impl FnMut(&mut Self) -> Result<(), Fault>) -> bool {
        let mut trouble: Option<Trouble> = None;
        while let Err(fault) = work(self) {
            self.told
                .connected
                .store(self.store.is_connected(), Ordering::Relaxed);
            let text = fault.to_string();
            let mut now = trouble.take().unwrap_or_else(|| Trouble::new(What::Redis));
            now.tell(&text, self.spool.unsent());
            self.told.redis_is(Some(text));
            if self.abandoned.load(Ordering::Relaxed) {
                self.queue.push_alert(now.unended());
                return false;
            }
            self.queue.back_off(now.backoff());
            trouble = Some(now);
        }
        if let Some(trouble) = trouble {
            self.told.redis_is(None);
            self.queue.push_alert(trouble.over());
        }
        true
    }

    fn sign(&self) -> String {
        let seen = OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default();
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = self.spool.writer();
        format!("{facts},\"seen\":\"{seen}\",\"writer\":\"{writer}\"}}")
    }
}

/// Notes what a frame has of statements and sessions.
fn note(leavings: &mut Leavings, frame: &Frame) {
    for note in &frame.notes {
        let there = leavings.sessions.entry(note.session);
        let there = there.or_insert((0, Head::START));
        if there.0 <= note.next_seq {
            *there = (note.next_seq, Head::from_bytes(note.head));
        }
    }
    let streams = frame.commands.streams().enumerate();
    for (index, _) in streams.filter(|(_, stream)| *stream == Stream::Sessions) {
        let parts = frame.commands.command(index).and_then(resp::parts);
        let parts = parts.unwrap_or_default();
        let at = parts.iter().position(|part| *part == b"signature");
        let signature = at.and_then(|at| parts.get(at + 1));
        let signature = signature.map(|signature| String::from_utf8_lossy(signature).into_owned());
        leavings.statements.extend(signature);
    }
}

/// What of the spool cannot be read.
fn alert(damage: &Damage) -> Alert {
    let segment = damage.segment.display();
    let (severity, line) = if damage.torn_tail {
        let line = format!(
            "the spool's last {} bytes were being written when the daemon died, and are cut off",
            damage.bytes
        );
        (Severity::Medium, line)
    } else if damage.frames > 0 {
        let line = format!(
            "{} frames are missing in the spool: events are lost",
            damage.frames
        );
        (Severity::Critical, line)
    } else {
        let line = format!(
            "{} bytes of the spool cannot be read: events are lost",
            damage.bytes
        );
        (Severity::Critical, line)
    };
    tracing::error!(%segment, at = damage.at, "{line}");
    Alert {
        severity,
        kind: "recorder",
        line,
        meta: json!({
            "segment": segment.to_string(),
            "at": damage.at,
            "bytes": damage.bytes,
            "frames": damage.frames,
        })
        .to_string(),
    }
}

/// What another process left cannot be taken over.
fn unreadable(path: &Path, error: &std::io::Error) -> Alert {
    let line = "what another daemon left in the spool cannot be read, and stays there".to_owned();
    tracing::error!(path = %path.display(), %error, "{line}");
    Alert {
        severity: Severity::Critical,
        kind: "recorder",
        line,
        meta: json!({ "folder": path.to_string_lossy(), "error": error.to_string() }).to_string(),
    }
}

fn missing_frames(writer: &str, frames: u64) -> Alert {
    let line = format!("{frames} frames are missing in the spool: events are lost");
    tracing::error!(writer, "{line}");
    Alert {
        severity: Severity::Critical,
        kind: "recorder",
        line,
        meta: json!({ "writer": writer, "frames": frames }).to_string(),
    }
}
