//! `interceptor search` with an index: the same is found, and less is read.

use anyhow::Result;
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::eventually;
use serde_json::{Value, json};

use super::made::{DAY, MINUTE, Made, Store};

const KEYS: &str = "interceptor:grams:*";

fn indexing(store: &Store) -> Result<Daemon> {
    store.daemon(&json!({
        "intercept": { "kernel": false },
        "recorder": { "search_index": true },
    }))
}

fn indexed(store: &Store) -> Result<usize> {
    Ok(store.asked::<Vec<String>>(&["KEYS", KEYS])?.len())
}

fn until_indexed(store: &Store, count: usize) -> Result<()> {
    eventually("the index", SOON, || Ok(indexed(store)? == count))
}

/// What is found, and how many sessions were read for it.
fn found(store: &Store, options: &[&str]) -> Result<(Vec<Value>, u64)> {
    store.clear_calls()?;
    let done = store.run(&[&["--json", "search"], options].concat())?;
    let text = String::from_utf8(done.stdout)?;
    let hits = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    Ok((hits, store.calls("xrange")?))
}

#[test]
fn the_same_is_found_with_an_index_and_little_is_read() -> Result<()> {
    let store = Store::with_query_engine()?;
    let searches: &[&[&str]] = &[
        &["DELETE FROM orders"],
        &["orders", "--limit", "1000"],
        &["ders_7"],
        &["from  orders_42"],
        &["o'Brien, \"naïve\" {x}@y-z*"],
        &["naïve"],
        &["ve"],
        &["delete FROM Orders_42", "--case-sensitive"],
        &["please", "--in", "commands"],
        &["please", "--in", "results"],
        &["--regex", "orders_4[23]"],
        &["no such words"],
        &["not closed yet"],
    ];
    for number in 0..60 {
        let mut made = Made::open(&store, DAY - number * 1000, "ada", json!({}));
        made.statement(&format!("delete\nfrom orders_{number}"), &[]);
        if number == 7 {
            made.statement("SELECT 'O''Brien', 'O'brien, \"naïve\" {x}@y-z*'", &[]);
            made.statement("SELECT note FROM notes", &["please wait, for orders_9"]);
        }
        made.close("allow")?;
    }
    // One that goes on, and is in no index.
    let mut open = Made::open(&store, MINUTE, "grace", json!({}));
    open.statement("SELECT 'not closed yet', 'orders_42'", &[]);
    open.write()?;
    let without: Vec<_> = searches
        .iter()
        .map(|options| found(&store, options))
        .collect::<Result<_>>()?;

    let daemon = indexing(&store)?;
    until_indexed(&store, 60)?;
    for (options, (hits, read)) in searches.iter().zip(&without) {
        let (with, now) = found(&store, options)?;
        assert_eq!(&with, hits, "{options:?}");
        assert!(now <= *read, "{options:?}: {now} of {read}");
    }
    let (hits, read) = found(&store, &["from orders_42"])?;
    assert_eq!(hits.len(), 1);
    // A session is read in two steps; that one and the open one are.
    assert!(read <= 4, "{read} steps for 61 sessions");
    let listed = store.ask(&["sessions", "list", "--text", "orders_42"])?;
    assert_eq!(listed.matches("ada").count(), 1, "{listed}");
    assert_eq!(listed.matches("grace").count(), 1, "{listed}");

    // It is closed, and comes to the index.
    open.close("allow")?;
    until_indexed(&store, 61)?;
    assert_eq!(found(&store, &["not closed yet"])?.0.len(), 1);

    // A dropped index is made again; until then all is read.
    store.asked::<()>(&["FT.DROPINDEX", "interceptor:grams"])?;
    assert_eq!(found(&store, &["from orders_42"])?.0.len(), 1);
    eventually("the index again", SOON, || {
        let (hits, read) = found(&store, &["from orders_42"])?;
        assert_eq!(hits.len(), 1);
        Ok(read <= 4)
    })?;
    drop(daemon);
    Ok(())
}

#[test]
fn a_server_without_the_engine_is_told_of_and_read() -> Result<()> {
    let store = Store::start()?;
    let mut made = Made::open(&store, DAY, "ada", json!({}));
    made.statement("SELECT something", &[]);
    made.close("allow")?;
    let _daemon = indexing(&store)?;
    eventually("the alert", SOON, || {
        let alerts: Value = Value::String(format!(
            "{:?}",
            store.asked::<redis::Value>(&["XRANGE", "interceptor:alerts", "-", "+"])?
        ));
        Ok(alerts.to_string().contains("no query engine"))
    })?;
    assert_eq!(found(&store, &["something"])?.0.len(), 1);
    assert_eq!(indexed(&store)?, 0);
    Ok(())
}
