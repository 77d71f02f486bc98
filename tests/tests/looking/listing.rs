//! `interceptor sessions`.

use anyhow::Result;
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::world::{Plan, Shared};
use serde_json::json;

use super::made::{DAY, MINUTE, Made, Store};

/// Sessions of several kinds; their ids, oldest first.
fn several(store: &Store) -> Result<Vec<String>> {
    let shop = json!({"target": "shop"});
    let mut ids = Vec::new();
    let mut one = Made::open(store, 10 * DAY, "ada", shop.clone());
    ids.push(one.statement("SELECT old", &[]).close("allow")?);
    let mut one = Made::open(
        store,
        3 * DAY,
        "ada",
        json!({"protocol": "http", "target": "api"}),
    );
    ids.push(one.close("block")?);
    let mut one = Made::open(store, 2 * DAY, "grace", shop.clone());
    ids.push(one.statement("DELETE\n FROM  orders", &[]).close("mask")?);
    let mut one = Made::open(store, 60 * MINUTE, "ada", shop);
    ids.push(
        one.statement("DELETE FROM users", &["delete from orders"])
            .close("block")?,
    );
    let mut one = Made::open(store, MINUTE, "ada", json!({}));
    ids.push(one.statement("SELECT 1", &[]).write()?);
    Ok(ids)
}

#[test]
fn sessions_are_listed_by_whatever_is_asked_of_them() -> Result<()> {
    let store = Store::start()?;
    let ids = several(&store)?;
    let listed = |options: &[&str]| -> Result<Vec<usize>> {
        let options = [&["--json", "sessions", "list"], options].concat();
        let mut found = Vec::new();
        for object in store.objects(&options)? {
            let id = object["session"].as_str().unwrap_or_default();
            found.push(ids.iter().position(|one| one == id).unwrap());
        }
        Ok(found)
    };
    let date = |ago: u64| {
        let ms = super::made::now_ms() - ago;
        let moment = time(ms);
        moment[..10].to_owned()
    };
    for (options, expected) in [
        (&[][..], &[4, 3, 2, 1, 0][..]),
        (&["--limit", "2"], &[4, 3]),
        (&["--agent", "grace"], &[2]),
        (
            &["--agent", "grace", "--agent", "ada", "--target", "shop"],
            &[3, 2, 0],
        ),
        (&["--target", "127.0.0.1:5432", "--since", "2h"], &[4, 3]),
        (&["--verdict", "block"], &[3, 1]),
        (
            &["--verdict", "mask,block", "--protocol", "postgres"],
            &[3, 2],
        ),
        (&["--protocol", "http"], &[1]),
        (&["--open"], &[4]),
        (&["--since", "7d"], &[4, 3, 2, 1]),
        (&["--since", "7d", "--until", "30m"], &[3, 2, 1]),
        // A day that was over when the last two began, whatever the time is now.
        (&["--until", &date(DAY + 120 * MINUTE)], &[2, 1, 0]),
        (
            &["--since", &date(3 * DAY), "--until", &date(3 * DAY)],
            &[1],
        ),
        (&["--text", "delete from ORDERS"], &[2]),
        (&["--text", "delete from", "--agent", "ada"], &[3]),
    ] {
        assert_eq!(listed(options)?, expected, "{options:?}");
    }
    Ok(())
}

fn time(ms: u64) -> String {
    let done = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}", ms / 1000), "+%FT%TZ"])
        .output()
        .unwrap();
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn where_nothing_fits_it_is_said_and_where_it_makes_no_sense_it_is_refused() -> Result<()> {
    let store = Store::start()?;
    several(&store)?;
    let done = store.run(&["sessions", "list", "--agent", "nobody", "--verdict", "kill"])?;
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    let told = String::from_utf8(done.stderr)?;
    assert!(
        told.contains("none of 5 sessions fits: agent nobody, verdict kill"),
        "{told}"
    );
    for wrong in [
        &["--since", "soon"][..],
        &["--verdict", "maybe"],
        &["--protocol", "smtp"],
    ] {
        let done = store.run(&[&["sessions", "list"], wrong].concat())?;
        assert_eq!(done.status.code(), Some(2), "{wrong:?}: {done:?}");
    }
    let done = store.run(&["sessions", "list", "--since", "1h", "--until", "2h"])?;
    assert!(!done.status.success());
    Ok(())
}

#[test]
fn what_stands_out_in_a_session_is_shown() -> Result<()> {
    let store = Store::start()?;
    let mut made = Made::open(&store, DAY, "ada", json!({}));
    for number in 1..=30 {
        let line = format!("block by rule-{number}: \x1b[2Jno");
        made.event("verdict", Some(number), &line, b"", &json!({}));
    }
    let id = made.close("block")?;
    let shown = store.ask(&["sessions", "show", &id[24..]])?;
    assert!(
        shown.contains("#20  verdict: block by rule-20: \\x1b[2Jno"),
        "{shown}"
    );
    assert!(
        shown.contains("and 10 more") && !shown.contains("rule-21"),
        "{shown}"
    );
    let shown = &store.objects(&["--json", "sessions", "show", "last", "--lines", "2"])?[0];
    assert_eq!(shown["kinds"]["verdict"], 30);
    assert_eq!(shown["stands_out"][1]["exchange"], 2);
    assert_eq!(shown["stands_out_more"], 28);
    Ok(())
}

#[test]
fn what_happens_is_followed_of_whom_it_is_asked() -> Result<()> {
    let store = Store::start()?;
    let mut ada = Made::open(&store, MINUTE, "ada", json!({"target": "shop"}));
    let mut grace = Made::open(&store, MINUTE, "grace", json!({"target": "depot"}));
    ada.statement("SELECT 'ada before'", &[]).write()?;
    grace.statement("SELECT 'grace before'", &[]).write()?;
    let tails = [
        store.follow(&["sessions", "tail", "--lines", "1", "--agent", "ada"])?,
        store.follow(&["sessions", "tail", "--lines", "2", "--target", "depot"])?,
        store.follow(&["sessions", "tail", "--lines", "3", "--session", &grace.id])?,
    ];
    let counts = [1, 2, 3];
    for (tail, count) in tails.iter().zip(counts) {
        eventually("earlier lines", SOON, || {
            Ok(tail.text().lines().count() == count)
        })?;
    }
    ada.statement("SELECT 'ada after'", &[]).write()?;
    grace.statement("SELECT 'grace after'", &[]).write()?;
    ada.statement("SELECT 'ada last'", &[]).write()?;
    tails[0].until("ada last")?;
    tails[1].until("grace after")?;
    tails[2].until("grace after")?;
    for (tail, who, other) in [
        (0, "ada", "grace"),
        (1, "grace", "ada"),
        (2, "grace", "ada"),
    ] {
        let text = tails[tail].text();
        assert!(text.contains(&format!("{who} after")), "{text}");
        assert!(!text.contains(other), "{text}");
    }
    assert!(tails[1].text().contains("grace before"));
    Ok(())
}

static WORLD: Shared = Shared::new(Plan::default);

#[test]
fn an_agent_s_sessions_are_ended_together_and_no_others() -> Result<()> {
    WORLD.test(|world| {
        let mut doomed = [
            world.agent("doomed").start_psql(world.postgres.port)?,
            world.agent("doomed").start_psql(world.postgres.port)?,
        ];
        let mut spared = world.agent("spared").start_psql(world.postgres.port)?;
        for psql in doomed.iter_mut().chain([&mut spared]) {
            psql.write("SELECT 'here';\n")?;
        }
        let mut records = world.records()?;
        eventually("three statements", SOON, || {
            let mut said = 0;
            for session in records.sessions()? {
                let events = records.events(&session)?;
                said += events
                    .iter()
                    .filter(|event| event.line == "SELECT 'here';")
                    .count();
            }
            Ok(said == 3)
        })?;
        let ended = world
            .daemon
            .ask(&["sessions", "kill", "--agent", "doomed"])?;
        assert_eq!(ended.lines().count(), 2, "{ended}");
        assert_eq!(records.closed_sessions_of("doomed", 2)?.len(), 2);
        spared.write("SELECT 'still' || ' here';\n")?;
        let spared = spared.finish(SOON)?.ok()?;
        assert!(spared.stdout.contains("still here"), "{spared:?}");
        let over = ended[..36].to_owned();
        let done = world.daemon.command(&["sessions", "kill", &over])?;
        let told = String::from_utf8(done.stderr)?;
        assert!(told.contains("not under way any more"), "{told}");
        let done = world
            .daemon
            .command(&["sessions", "kill", "--agent", "nobody"])?;
        assert_eq!(done.status.code(), Some(1));
        Ok(())
    })
}
