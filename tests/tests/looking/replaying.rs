//! `interceptor replay` of sessions that are long, or not over.

use anyhow::Result;
use serde_json::{Value, json};

use super::made::{DAY, MINUTE, Made, Store};

/// Statements of a long session.
const MANY: usize = 20_000;

/// A session whose statements are a second apart; none of it is written at once.
fn long<'a>(store: &'a Store) -> Result<Made<'a>> {
    let mut made = Made::open(store, DAY, "ada", json!({}));
    for number in 0..MANY {
        made.statement(&format!("SELECT {number}"), &["row"])
            .later(998);
        if number % 1000 == 0 {
            made.write()?;
        }
    }
    made.write()?;
    Ok(made)
}

/// The first thing is shown before more than a page or two was read, in each format
/// that can begin at once, however long the session is.
#[test]
fn what_is_shown_first_does_not_wait_for_the_rest() -> Result<()> {
    let store = Store::start()?;
    long(&store)?.close("allow")?;
    for (options, first) in [
        (&["--speed", "1"][..], "SELECT 0"),
        (&["--format", "json", "--speed", "1"], "SELECT 0"),
        (&["--format", "sql", "--speed", "1"], "SELECT 0"),
        (&["--from", "10000"], "SELECT 10000"),
        (
            &["--format", "json", "--speed", "1", "--from", "10000"],
            "SELECT 10000",
        ),
    ] {
        store.clear_calls()?;
        let options = [&["replay", "last", "--idle-limit", "1000"], options].concat();
        let replay = store.follow(&options)?;
        replay.until(first)?;
        let read = store.calls("xrange")? + store.calls("xrevrange")?;
        assert!(read <= 8, "{options:?}: {read} reads");
    }
    // The control: reading all of it takes many more.
    store.clear_calls()?;
    store.ask(&["replay", "last", "--format", "json"])?;
    assert!(store.calls("xrange")? > 10);
    Ok(())
}

#[test]
fn a_replay_from_later_on_has_all_that_was_then_and_finds_what_is_broken() -> Result<()> {
    let store = Store::start()?;
    let id = long(&store)?.close("allow")?;
    let late = ["replay", "last", "--format", "json", "--from", "19000"];
    let objects = store.objects(&late)?;
    // A second each, in which two events are.
    assert_eq!(objects.len(), 2 * 1000 + 1);
    assert_eq!(objects[0]["line"], "SELECT 19000");
    assert_eq!(objects[1]["rows"], json!([["row"]]));
    let key = format!("interceptor:session:{{{id}}}");
    let last: Vec<(String, Vec<String>)> =
        store.asked(&["XREVRANGE", &key, "+", "-", "COUNT", "3"])?;
    store.asked::<()>(&["XDEL", &key, &last[2].0])?;
    let done = store.run(&late)?;
    assert_eq!(done.status.code(), Some(1), "an event is missing");
    Ok(())
}

#[test]
fn a_session_that_runs_is_followed_to_its_close() -> Result<()> {
    let store = Store::start()?;
    let mut made = Made::open(&store, MINUTE, "ada", json!({}));
    made.statement("SELECT 'before'", &["x"]).write()?;
    let mut text = store.follow(&["replay", "last", "--follow"])?;
    let mut objects = store.follow(&["replay", &made.id, "--follow", "--format", "json"])?;
    text.until("before")?;
    objects.until("before")?;
    for number in 1..=3 {
        made.later(20_000)
            .statement(&format!("SELECT 'step {number}'"), &["y"])
            .write()?;
        // Nothing is waited for a second time: each is 20 seconds later on record.
        text.until(&format!("step {number}"))?;
        objects.until(&format!("step {number}"))?;
    }
    assert!(text.child.try_wait()?.is_none() && objects.child.try_wait()?.is_none());
    made.close("allow")?;
    assert!(text.ended()?.success());
    assert!(objects.ended()?.success());
    assert!(text.text().contains("session closed"), "{}", text.text());
    let lines = objects.text();
    assert_eq!(lines.lines().count(), 10);
    for line in lines.lines() {
        serde_json::from_str::<Value>(line)?;
    }
    let done = store.run(&["replay", "last", "--follow", "--format", "har"])?;
    assert_eq!(done.status.code(), Some(2));
    // One that is over ends at once.
    store.ask(&["replay", "last", "--follow", "--instant"])?;
    Ok(())
}
