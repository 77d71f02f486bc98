//! PostgreSQL: a shop's database, and an agent that works on it with psql.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::place::Place;
use interceptor_tests::postgres::{Options, Postgres, SAMPLE};
use interceptor_tests::redis::Redis;
use interceptor_tests::world::{World, one_target};
use serde_json::json;

use crate::rules;
use crate::style::{DIM, GREEN, Style};

/// What the agent does. Lines of `\echo` are headings.
const SCRIPT: &str = r"
\echo # Reading customers: columns with personal data come masked
SELECT id, name, email, ssn, card_number FROM users ORDER BY id;
\echo # An alias and a join do not uncover them; what is harmless passes untouched
SELECT o.item, o.cents, u.name, u.ssn AS harmless_looking FROM orders o JOIN users u ON u.id = o.user_id ORDER BY o.id;
\echo # Dropping a table is refused, as an error like any other
DROP TABLE orders;
\echo # An UPDATE that forgot its WHERE is refused
UPDATE orders SET status = 'cancelled';
\echo # With a WHERE it is done: the session goes on
UPDATE orders SET status = 'sent' WHERE id = 2;
\echo # Inside a transaction a refusal aborts it, as any error does
BEGIN;
INSERT INTO orders VALUES (5, 3, 'compiler', 9900, 'open');
TRUNCATE orders;
SELECT count(*) FROM orders;
ROLLBACK;
\echo # Changing the schema waits until a person has said yes
ALTER TABLE orders ADD COLUMN note text;
\echo # And nothing was lost
SELECT count(*) AS orders FROM orders;
";

/// Beside the shipped rules: there is nobody whom these could name.
const ASK_FIRST: &str = r#"
version: 1
rules:
  - name: schema-changes-need-a-person
    match: { postgres: { statement: ALTER TABLE } }
    verdict: hold
    message: Changes to the schema are asked about.
    approval: { from: [dba], timeout: 60s }
"#;

/// Shows it; gives what runs, and the session that was recorded.
pub(crate) fn show(style: &Style) -> Result<(World, String)> {
    style.title("Starting a private PostgreSQL, a private Redis, and Interceptor");
    let world = world()?;
    println!(
        "   PostgreSQL   127.0.0.1:{}   a shop: users, orders",
        world.postgres.port
    );
    println!("   Redis        127.0.0.1:{}", world.redis.port);
    println!("   Interceptor  rules of {}", rules().display());

    style.title("An agent works with plain psql; its connection string is the database's own");
    let transcript = agent_at_work(style, &world)?;
    check_transcript(&world, &transcript)?;

    style.title("What was recorded, in Redis");
    let session = recorded(style, &world)?;

    style.title("The session again, ten times as fast");
    let replay = world
        .daemon
        .ask(&["replay", &session, "--speed", "10", "--idle-limit", "0.2"])?;
    style.answer(&replay);
    ensure!(
        replay.contains("DROP TABLE orders"),
        "the replay does not show the refused statement"
    );
    world.daemon.never_panicked()?;
    Ok((world, session))
}

fn world() -> Result<World> {
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let options = Options {
        sql: SAMPLE.to_owned(),
        ..Options::default()
    };
    let postgres = Postgres::start(&place, "postgres", &options)?;
    let mut config = one_target(&postgres, &place);
    if let Some(config) = config.as_object_mut() {
        let ask_first = place.file("ask-first.yaml", ASK_FIRST)?;
        config.insert("rules".to_owned(), json!([rules(), ask_first]));
        config.insert(
            "approvals".to_owned(),
            json!({ "groups": { "dba": ["root"] } }),
        );
    }
    let daemon = Daemon::start(&place, &redis.url(), "version: 1\nrules: []\n", &config)?;
    Ok(World {
        daemon,
        postgres,
        redis,
        place,
    })
}

fn agent_at_work(style: &Style, world: &World) -> Result<String> {
    let port = world.postgres.port;
    let psql = format!(
        "exec psql -X -e -v VERBOSITY=default -h 127.0.0.1 -p {port} -U agent -d postgres 2>&1"
    );
    println!(
        "   {}",
        style.paint(
            DIM,
            &format!("$ interceptor exec --agent demo-agent -- psql -h 127.0.0.1 -p {port} -U agent postgres")
        )
    );
    let mut running = world
        .agent("demo-agent")
        .command(&["/bin/sh", "-c", &psql])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the agent")?;
    {
        use std::io::Write as _;
        let mut stdin = running.stdin.take().context("no input")?;
        stdin.write_all(SCRIPT.as_bytes())?;
    }
    let done = style.agent_at_work(&mut running, |line| match line.contains(HELD) {
        true => approve(style, world),
        false => Ok(()),
    });
    done.with_context(|| world.daemon.server().log_end(30))
}

/// What a client is told while it waits.
const HELD: &str = "held until a person decides";

/// The person whom the agent waits for. Nothing else comes from it before that.
fn approve(style: &Style, world: &World) -> Result<()> {
    ensure!(
        !world.postgres.saw("ADD COLUMN note"),
        "what is held reached the database"
    );
    let questions: serde_json::Value =
        serde_json::from_str(&world.daemon.ask(&["approvals", "--json"])?)?;
    let id = questions
        .as_array()
        .and_then(|all| all.iter().find(|one| one["state"] == "open"))
        .and_then(|one| one["id"].as_str())
        .context("nobody was asked")?;
    println!();
    style.command(&format!("interceptor approvals show {id}"));
    style.answer(&world.daemon.ask(&["approvals", "show", id])?);
    style.command(&format!("interceptor approvals approve {id}"));
    for line in world.daemon.ask(&["approvals", "approve", id])?.lines() {
        println!("   {}", style.paint(GREEN, line));
    }
    println!();
    Ok(())
}

/// The demo claims something: is it so?
fn check_transcript(world: &World, transcript: &str) -> Result<()> {
    for secret in ["219-09-9999", "4111111111111111"] {
        ensure!(!transcript.contains(secret), "{secret} was not masked");
    }
    ensure!(
        !transcript.contains("unterminated"),
        "psql did not understand a heading"
    );
    ensure!(
        transcript.contains("Ada Lovelace"),
        "what no rule hides did not come"
    );
    for refused in [
        "DROP TABLE orders",
        "UPDATE orders SET status = 'cancelled'",
        "TRUNCATE orders",
    ] {
        ensure!(
            !world.postgres.saw(refused),
            "`{refused}` reached the database"
        );
    }
    ensure!(
        world.postgres.saw("SET status = 'sent' WHERE id = 2"),
        "the allowed UPDATE was not done"
    );
    ensure!(
        transcript.contains(HELD) && world.postgres.saw("ADD COLUMN note"),
        "the schema was not changed after a person said yes"
    );
    ensure!(
        world.postgres.sql("SELECT count(*) FROM orders")? == "4",
        "orders were lost"
    );
    Ok(())
}

fn recorded(style: &Style, world: &World) -> Result<String> {
    let mut records = world.records()?;
    let (session, events) = records.only_session_of("demo-agent")?;
    style.command("interceptor sessions list");
    style.answer(&world.daemon.ask(&["sessions", "list"])?);
    println!();
    style.command("redis-cli XRANGE 'interceptor:session:{ID}' - +       (interceptor:live has these lines of all sessions)");
    style.events(&events);
    println!();
    let mut found = 0;
    for secret in [
        "219-09-9999",
        "457-55-5462",
        "4111111111111111",
        "5555555555554444",
    ] {
        found += records.keys_that_hold(secret.as_bytes())?.len();
    }
    ensure!(found == 0, "a masked value is in the store");
    style.line(
        GREEN,
        "   Searched every key of Redis for the masked values: found nowhere.",
    );
    Ok(session)
}
