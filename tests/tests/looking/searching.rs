//! `interceptor search`.

use anyhow::Result;
use interceptor_tests::world::{Plan, Shared};
use serde_json::json;

use super::made::{DAY, MINUTE, Made, Store};

#[test]
fn words_are_found_with_where_and_when_they_were_said() -> Result<()> {
    let store = Store::start()?;
    let mut ada = Made::open(&store, 2 * DAY, "ada", json!({"target": "shop"}));
    ada.statement("SELECT 1", &["nothing"]);
    ada.statement("delete\n  from orders where id = 7", &[]);
    let ada = ada.close("allow")?;
    let mut grace = Made::open(&store, MINUTE, "grace", json!({}));
    grace.statement("SELECT note FROM notes", &["please DELETE FROM orders"]);
    let grace = grace.write()?;

    let found = store.ask(&["search", "DELETE FROM orders"])?;
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 2, "{found}");
    assert!(
        lines[0].starts_with(&format!("{grace}/1")),
        "newest first: {found}"
    );
    assert!(lines[1].starts_with(&format!("{ada}/2")), "{found}");
    assert!(
        lines[1].contains("ada  command: «delete from orders» where id = 7"),
        "{found}"
    );
    assert!(!found.contains('\u{1b}'));

    let sessions = |options: &[&str]| -> Result<Vec<String>> {
        let options = [&["--json", "search"], options].concat();
        let done = store.run(&options)?;
        let text = String::from_utf8(done.stdout)?;
        assert_eq!(
            done.status.code(),
            Some(i32::from(text.is_empty())),
            "{options:?}"
        );
        let mut found = Vec::new();
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(line)?;
            found.push(object["agent"].as_str().unwrap().to_owned());
        }
        Ok(found)
    };
    let words = "DELETE FROM orders";
    for (options, expected) in [
        (&[words, "--in", "commands"][..], &["ada"][..]),
        (&[words, "--in", "results"], &["grace"]),
        (&[words, "--since", "1d"], &["grace"]),
        (&[words, "--until", "1d"], &["ada"]),
        (&[words, "--agent", "ada"], &["ada"]),
        (&[words, "--target", "shop"], &["ada"]),
        (&[words, "--case-sensitive"], &["grace"]),
        (&[words, "--limit", "1"], &["grace"]),
        (&["--regex", r"id = \d+$"], &["ada"]),
        (&["id = .", "--agent", "ada"], &[]),
        (&["no such words"], &[]),
    ] {
        assert_eq!(sessions(options)?, expected, "{options:?}");
    }
    for wrong in [&["--regex", "("][..], &[" "], &[words, "--in", "nowhere"]] {
        let done = store.run(&[&["search"], wrong].concat())?;
        assert_eq!(done.status.code(), Some(2), "{wrong:?}");
    }
    Ok(())
}

/// An exchange belongs to its own time, and not to its session's beginning.
#[test]
fn a_session_that_reaches_into_the_time_is_looked_through() -> Result<()> {
    let store = Store::start()?;
    let mut long = Made::open(&store, 3 * DAY, "ada", json!({}));
    let mut open = Made::open(&store, 3 * DAY, "grace", json!({}));
    long.statement("SELECT early", &[])
        .later(3 * DAY - 10 * MINUTE);
    long.statement("SELECT late", &[]).close("allow")?;
    open.later(3 * DAY - 10 * MINUTE)
        .statement("SELECT late", &[]);
    open.write()?;
    let hits = store.objects(&["--json", "search", "select late", "--since", "1h"])?;
    assert_eq!(hits.len(), 2, "{hits:?}");
    let none = store.run(&["search", "select early", "--since", "1h"])?;
    assert_eq!(none.status.code(), Some(1));
    Ok(())
}

/// What was looked for is found before the rest is read.
#[test]
fn no_more_is_read_than_is_needed() -> Result<()> {
    let store = Store::start()?;
    let mut made = Made::open(&store, DAY, "ada", json!({}));
    for number in 0..20_000 {
        made.statement(&format!("SELECT {number}"), &[]);
        if number % 1000 == 0 {
            made.write()?;
        }
    }
    made.close("allow")?;
    store.clear_calls()?;
    store.ask(&["search", "SELECT 3", "--limit", "1"])?;
    let few = store.calls("xrange")?;
    store.clear_calls()?;
    store.ask(&["search", "SELECT 19999"])?;
    let all = store.calls("xrange")?;
    assert_eq!(few, 1);
    assert!(all >= 10, "pages of a bounded size: {all}");
    Ok(())
}

static WORLD: Shared = Shared::new(|| Plan {
    rules: r#"
version: 1
rules:
  - name: ssn-is-hidden
    match: { protocol: postgres }
    mask: [{ columns: ["users.ssn"], with: redact }]
"#,
    ..Plan::default()
});

#[test]
fn what_psql_said_is_found_and_what_was_masked_is_not() -> Result<()> {
    WORLD.test(|world| {
        let psql = "SELECT name, ssn FROM users ORDER BY id;\n";
        world
            .agent("searched")
            .psql(world.postgres.port, psql)?
            .ok()?;
        let (id, _) = world.records()?.only_session_of("searched")?;
        let found = world
            .daemon
            .ask(&["search", "ada lovelace", "--agent", "searched"])?;
        assert!(
            found.contains(&id) && found.contains("«Ada Lovelace»"),
            "{found}"
        );
        let done = world.daemon.command(&["search", "219-09-9999"])?;
        assert_eq!(done.status.code(), Some(1));
        Ok(())
    })
}
