//! Batches of which it is not known whether they were done.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use anyhow::Result;
use interceptor_engine::event::Event;
use interceptor_tests::eventually;
use interceptor_user::recorder::{Recorder, RecorderTask};

use super::SOON;
use super::store::{Store, all_there_once};
use super::talker::Talker;
use super::wire::Wire;

/// A recorder over a wire, connected, and a session of 20 commands to record.
fn over(wire: &Wire, store: &Store) -> Result<(Recorder, RecorderTask, String, Vec<Event>)> {
    let (recorder, task) = store.recorder_as(wire.url(), 1 << 20)?;
    eventually("the recorder to connect", SOON, || {
        Ok(recorder.status().connected)
    })?;
    let mut talker = Talker::new();
    let mut events = vec![talker.open()];
    events.extend((0..20).map(|_| talker.command()));
    events.push(talker.close());
    Ok((recorder, task, talker.id(), events))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_is_lost_is_not_written_twice() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    wire.state.cut.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_cut)?;
    assert_eq!(store.session(&session)?.len(), 22, "it was done");
    wire.state.is_cut.store(false, SeqCst);
    task.close(SOON).await?;
    all_there_once(&store, &[session], 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_written_once_even_when_its_mark_is_gone() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    wire.state.cut.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_cut)?;
    store.run(&["HSET", "interceptor:hosts", "test-host", "{}"])?;
    wire.state.is_cut.store(false, SeqCst);
    task.close(SOON).await?;
    assert_eq!(store.session(&session)?.len(), 22);
    Ok(())
}

/// What failed alone in a batch must not be taken for done because the batch was.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_in_a_batch_whose_answer_is_lost_is_done_later() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    store.run(&["SET", "interceptor:alerts", "x"])?;
    wire.state.cut.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_cut)?;
    wire.state.is_cut.store(false, SeqCst);
    eventually("WRONGTYPE", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("WRONGTYPE"))
    })?;
    // And once more, for the batch of what is left.
    wire.state.cut.store(true, SeqCst);
    wire.wait(&wire.state.is_cut)?;
    wire.state.is_cut.store(false, SeqCst);
    eventually("WRONGTYPE", SOON, || {
        let fault = recorder.status().last_fault.unwrap_or_default();
        Ok(fault.contains("WRONGTYPE"))
    })?;
    store.run(&["DEL", "interceptor:alerts"])?;
    task.close(SOON).await?;
    all_there_once(&store, &[session], 20)
}

/// A request can lie in the network, or in a server that hangs, for longer than the
/// recorder waits, and be read after the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_after_it_was_given_up_is_not_done() -> Result<()> {
    let store = Store::start()?;
    let wire = Wire::to(&store)?;
    let (recorder, task, session, mut events) = over(&wire, &store)?;
    wire.state.hold.store(true, SeqCst);
    recorder.record(&mut events)?;
    wire.wait(&wire.state.is_held)?;
    eventually("the batch to be sent again", SOON, || {
        Ok(recorder.status().queued_bytes == 0)
    })?;
    wire.state.is_held.store(false, SeqCst);
    std::thread::sleep(Duration::from_millis(300));
    task.close(SOON).await?;
    all_there_once(&store, &[session], 20)
}
