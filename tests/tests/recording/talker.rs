//! Sessions that have something to record.

use std::time::Duration;

use interceptor_engine::event::{Event, FlowTime, Kind};
use interceptor_engine::journal::Journal;
use interceptor_policy::verdict::Severity;
use interceptor_user::recorder::Recorder;
use uuid::Uuid;

/// A session that says so many things, each a command with an alert now and then.
pub(crate) struct Talker {
    journal: Journal,
    said: u64,
}

impl Talker {
    pub(crate) fn new() -> Self {
        Self {
            journal: Journal::new(Uuid::now_v7(), Some("run-1".into())),
            said: 0,
        }
    }

    pub(crate) fn id(&self) -> String {
        self.journal.session().to_string()
    }

    pub(crate) fn event(&mut self, kind: Kind, line: &str) -> Event {
        self.said += 1;
        let exchange = matches!(kind, Kind::Command).then_some(self.said);
        self.journal
            .event(FlowTime(self.said * 700), kind, exchange, line)
    }

    pub(crate) fn open(&mut self) -> Event {
        self.event(Kind::Open, "psql to orders-db")
            .with_meta(r#"{"agent":"bot","target":"orders-db","process":{"pid":7}}"#.to_owned())
    }

    pub(crate) fn close(&mut self) -> Event {
        self.event(Kind::Close, "done")
            .with_meta(r#"{"seconds":3,"worst":"block"}"#.to_owned())
    }

    pub(crate) fn command(&mut self) -> Event {
        let text = format!("SELECT {}", self.said);
        // Some are so long that they are compressed.
        let times = if self.said.is_multiple_of(16) { 80 } else { 1 };
        let event = self
            .event(Kind::Command, &text)
            .with_data(text.repeat(times).into_bytes());
        if self.said.is_multiple_of(10) {
            event.with_alert(Severity::High)
        } else {
            event
        }
    }
}

/// Records, waiting for room as a flow does.
pub(crate) async fn say(recorder: &Recorder, event: Event) {
    let mut events = vec![event];
    while recorder.record(&mut events).is_err() {
        recorder.room().await;
    }
}

/// One session of `count` commands, said over at least `time`.
pub(crate) async fn talk(recorder: Recorder, count: u64, time: Duration) -> String {
    let mut talker = Talker::new();
    say(&recorder, talker.open()).await;
    for _ in 0..count {
        say(&recorder, talker.command()).await;
        let pause = time / u32::try_from(count).unwrap_or(1);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    say(&recorder, talker.close()).await;
    talker.id()
}

pub(crate) async fn together(
    recorder: &Recorder,
    talkers: usize,
    count: u64,
    time: Duration,
) -> Vec<String> {
    let tasks: Vec<_> = (0..talkers)
        .map(|_| tokio::spawn(talk(recorder.clone(), count, time)))
        .collect();
    let mut sessions = Vec::new();
    for task in tasks {
        sessions.push(task.await.expect("a talker"));
    }
    sessions
}
