//! Extended queries, pipelines, COPY, notifications, cancelling, replication:
//! the rest of the protocol, by clients that use it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, TryStreamExt as _, pin_mut};
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::place::{self, Place};
use interceptor_tests::postgres::Postgres;
use interceptor_tests::world::{Plan, Shared, World, alone, target};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

const RULES: &str = r#"
version: 1
rules:
  - name: no-drop
    match: { postgres: { statement: [DROP, TRUNCATE] } }
    verdict: block
    message: Dropping tables needs a migration review.
  - name: no-salaries
    match: { postgres: { tables: ["*.salaries"] } }
    verdict: block
    message: Salaries are nobody's business.
"#;

fn plan() -> Plan {
    let mut plan = Plan {
        rules: RULES,
        config: with_listener,
        ..Plan::default()
    };
    plan.postgres
        .sql
        .push_str("CREATE TABLE salaries (id int); CREATE TABLE log (id serial, what text);");
    plan
}

/// A listener beside interception, so that this process is an agent, too.
fn with_listener(postgres: &Postgres, place: &Place) -> Value {
    let port = place::free_port().unwrap_or(0);
    let _ = place.file("listener-port", &port.to_string());
    json!({
        "targets": [target(postgres)],
        "listeners": [{ "listen": format!("127.0.0.1:{port}"), "target": "shop", "agent": "library" }],
    })
}

static WORLD: Shared = Shared::new(plan);

/// Runs a test's body with a connection of tokio-postgres, by way of the listener.
fn with_client<F>(body: impl FnOnce(tokio_postgres::Client) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    WORLD.test(|world| {
        let port: u16 = std::fs::read_to_string(world.place.path("listener-port"))?.parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let string = format!("host=127.0.0.1 port={port} user=agent dbname=postgres");
            let (client, connection) =
                tokio_postgres::connect(&string, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            tokio::time::timeout(Duration::from_secs(60), body(client))
                .await
                .context("the body did not end")?
        })
    })
}

/// The SQLSTATE of what went wrong; `None` when nothing did.
fn state<T>(result: Result<T, tokio_postgres::Error>) -> Option<SqlState> {
    result.err().and_then(|error| error.code().cloned())
}

#[test]
fn a_refused_statement_is_refused_when_it_is_prepared_and_the_session_goes_on() -> Result<()> {
    with_client(|client| async move {
        assert_eq!(
            state(client.prepare("DROP TABLE users").await),
            Some(SqlState::INSUFFICIENT_PRIVILEGE)
        );
        let row = client.query_one("SELECT $1::int4 + 1", &[&41]).await?;
        assert_eq!(row.get::<_, i32>(0), 42);
        Ok(())
    })
}

#[test]
fn a_refusal_in_a_transaction_aborts_it() -> Result<()> {
    with_client(|mut client| async move {
        let transaction = client.transaction().await?;
        transaction
            .execute("INSERT INTO log (what) VALUES ($1)", &[&"lost"])
            .await?;
        assert_eq!(
            state(transaction.execute("TRUNCATE users", &[]).await),
            Some(SqlState::INSUFFICIENT_PRIVILEGE)
        );
        assert_eq!(
            state(transaction.query("SELECT 1", &[]).await),
            Some(SqlState::IN_FAILED_SQL_TRANSACTION)
        );
        transaction.rollback().await?;
        let row = client
            .query_one("SELECT count(*) FROM log WHERE what = 'lost'", &[])
            .await?;
        assert_eq!(row.get::<_, i64>(0), 0);
        Ok(())
    })
}

#[test]
fn queries_that_are_sent_together_are_answered_in_order() -> Result<()> {
    with_client(|client| async move {
        let one = client.prepare("SELECT $1::int4").await?;
        let asked = (0..200).map(|number| {
            let (client, one) = (&client, &one);
            async move {
                if number % 10 == 7 {
                    let refused = state(client.query("SELECT * FROM salaries", &[]).await);
                    assert_eq!(refused, Some(SqlState::INSUFFICIENT_PRIVILEGE));
                    return Ok(());
                }
                let row = client.query_one(one, &[&number]).await?;
                assert_eq!(row.get::<_, i32>(0), number);
                anyhow::Ok(())
            }
        });
        futures_util::future::try_join_all(asked).await?;
        Ok(())
    })
}

#[test]
fn a_portal_is_read_in_portions() -> Result<()> {
    with_client(|mut client| async move {
        let transaction = client.transaction().await?;
        let statement = transaction.prepare("SELECT generate_series(1, 25)").await?;
        let portal = transaction.bind(&statement, &[]).await?;
        let mut sizes = Vec::new();
        loop {
            let rows = transaction.query_portal(&portal, 10).await?;
            sizes.push(rows.len());
            if rows.len() < 10 {
                break;
            }
        }
        assert_eq!(sizes, [10, 10, 5]);
        transaction.commit().await?;
        Ok(())
    })
}

#[test]
fn a_copy_goes_in_and_comes_out() -> Result<()> {
    with_client(|client| async move {
        client
            .batch_execute("CREATE TEMP TABLE bulk (id int, what text)")
            .await?;
        let sink = client.copy_in("COPY bulk FROM STDIN").await?;
        pin_mut!(sink);
        for part in 0..100 {
            let lines: String = (0..100)
                .map(|line| format!("{}\trow\n", part * 100 + line))
                .collect();
            sink.send(bytes::Bytes::from(lines)).await?;
        }
        assert_eq!(sink.finish().await?, 10_000);
        let out = client.copy_out("COPY bulk TO STDOUT").await?;
        let parts: Vec<bytes::Bytes> = out.try_collect().await?;
        let all = parts.concat();
        assert_eq!(all.iter().filter(|byte| **byte == b'\n').count(), 10_000);
        assert!(all.starts_with(b"0\trow\n1\trow\n"));
        Ok(())
    })
}

#[test]
fn a_copy_of_a_refused_table_is_refused_both_ways() -> Result<()> {
    with_client(|client| async move {
        assert_eq!(
            state(client.copy_out("COPY salaries TO STDOUT").await.map(|_| ())),
            Some(SqlState::INSUFFICIENT_PRIVILEGE)
        );
        assert_eq!(
            state(
                client
                    .copy_in::<_, bytes::Bytes>("COPY salaries FROM STDIN")
                    .await
                    .map(|_| ())
            ),
            Some(SqlState::INSUFFICIENT_PRIVILEGE)
        );
        assert_eq!(client.query_one("SELECT 1", &[]).await?.get::<_, i32>(0), 1);
        Ok(())
    })
}

#[test]
fn ten_thousand_parameters_are_no_burden() -> Result<()> {
    with_client(|client| async move {
        let count = 10_000_i32;
        let list: Vec<String> = (1..=count)
            .map(|number| format!("${number}::int4"))
            .collect();
        let values: Vec<i32> = (1..=count).collect();
        let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            values.iter().map(|value| value as _).collect();
        let sql = format!(
            "SELECT count(*) FROM unnest(ARRAY[{}]) AS x",
            list.join(",")
        );
        let row = client.query_one(&sql, &parameters).await?;
        assert_eq!(row.get::<_, i64>(0), i64::from(count));
        Ok(())
    })
}

#[test]
fn a_cancel_reaches_the_backend_that_it_is_meant_for() -> Result<()> {
    with_client(|client| async move {
        let cancel = client.cancel_token();
        let sleeping = client.query("SELECT pg_sleep(50)", &[]);
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel_query(tokio_postgres::NoTls).await
        };
        let (slept, cancelled) = tokio::join!(sleeping, cancelling);
        cancelled?;
        assert_eq!(state(slept), Some(SqlState::QUERY_CANCELED));
        assert_eq!(client.query_one("SELECT 1", &[]).await?.get::<_, i32>(0), 1);
        Ok(())
    })
}

#[test]
fn ctrl_c_in_psql_cancels_what_runs_and_the_session_goes_on() -> Result<()> {
    WORLD.test(|world| {
        let string = connection(world);
        let mut running = world.agent("impatient").start(&[
            "psql", "-XqAt", "-v", "VERBOSITY=verbose", "-d", &string,
        ])?;
        running.write("SELECT pg_sleep(49);\nSELECT 'after';\n")?;
        eventually("the sleep to begin", SOON, || {
            let sleeping = "SELECT count(*) FROM pg_stat_activity \
                            WHERE state = 'active' AND query LIKE '%pg_sleep(49)%' AND pid <> pg_backend_pid()";
            Ok(world.postgres.sql(sleeping)? == "1")
        })?;
        running.signal(Signal::SIGINT)?;
        let done = running.finish(SOON)?;
        assert!(done.stderr.contains("57014"), "{done:?}");
        Ok(())
    })
}

#[test]
fn notifications_arrive_by_themselves() -> Result<()> {
    const PROGRAM: &str = r"
import psycopg, sys
with psycopg.connect(sys.argv[1], autocommit=True) as hearing, psycopg.connect(sys.argv[1], autocommit=True) as telling:
    hearing.execute('LISTEN news')
    telling.execute('SELECT pg_notify($$news$$, $$it rained$$)')
    for note in hearing.notifies(timeout=20, stop_after=1):
        print(note.channel, note.payload)
";
    WORLD.test(|world| {
        let done = world
            .agent("listener")
            .python(&world.place, PROGRAM, &[&connection(world)])?
            .ok()?;
        assert_eq!(done.stdout, "news it rained\n");
        Ok(())
    })
}

#[test]
fn notices_pass() -> Result<()> {
    WORLD.test(|world| {
        let done = world
            .agent("noticed")
            .psql(
                world.postgres.port,
                "DO $$ BEGIN RAISE NOTICE 'mind the gap'; END $$;\n",
            )?
            .ok()?;
        assert!(done.stderr.contains("mind the gap"), "{}", done.stderr);
        Ok(())
    })
}

#[test]
fn in_a_pipeline_a_refusal_skips_what_follows_until_the_sync() -> Result<()> {
    // libpq's own pipeline mode, by psycopg's low-level binding.
    const PROGRAM: &str = r"
import psycopg, sys
from psycopg import pq
connection = psycopg.connect(sys.argv[1], autocommit=True)
with connection.pipeline() as pipeline:
    first = connection.execute('INSERT INTO log (what) VALUES (%s) RETURNING 1', ['piped one'])
    pipeline.sync()
    try:
        second = connection.execute('TRUNCATE users')
        third = connection.execute('INSERT INTO log (what) VALUES (%s)', ['piped two'])
        pipeline.sync()
    except psycopg.errors.InsufficientPrivilege as error:
        print('refused', error.sqlstate)
    except psycopg.errors.PipelineAborted:
        print('aborted')
    try:
        pipeline.sync()
    except psycopg.Error as error:
        print('then', type(error).__name__)
    last = connection.execute('SELECT %s::text', ['going on'])
    pipeline.sync()
    print(last.fetchone()[0])
";
    WORLD.test(|world| {
        let done = world
            .agent("plumber")
            .python(&world.place, PROGRAM, &[&connection(world)])?
            .ok()?;
        assert!(done.stdout.contains("refused 42501"), "{done:?}");
        assert!(done.stdout.contains("going on"), "{done:?}");
        let kept = world
            .postgres
            .sql("SELECT what FROM log WHERE what LIKE 'piped%'")?;
        assert_eq!(kept, "piped one");
        assert_eq!(world.postgres.sql("SELECT count(*) FROM users")?, "3");
        Ok(())
    })
}

#[test]
fn a_refusal_in_an_unsynced_pipeline_undoes_what_came_before_it() -> Result<()> {
    // Up to the Sync it is one implicit transaction, so an error undoes it all.
    const PROGRAM: &str = r"
import psycopg, sys
connection = psycopg.connect(sys.argv[1], autocommit=True)
try:
    with connection.pipeline():
        connection.execute('INSERT INTO log (what) VALUES (%s)', ['undone'])
        connection.execute('TRUNCATE users')
        connection.execute('INSERT INTO log (what) VALUES (%s)', ['skipped'])
except psycopg.Error as error:
    print('refused', error.sqlstate)
print(connection.execute('SELECT count(*) FROM log WHERE what IN (%s, %s)', ['undone', 'skipped']).fetchone()[0])
";
    WORLD.test(|world| {
        let done = world
            .agent("undoer")
            .python(&world.place, PROGRAM, &[&connection(world)])?
            .ok()?;
        assert_eq!(done.stdout, "refused 42501\n0\n", "{}", done.stderr);
        Ok(())
    })
}

#[test]
fn a_prepared_statement_is_judged_again_under_the_rules_in_force_when_it_runs() -> Result<()> {
    const PROGRAM: &str = r"
import psycopg, sys, time
connection = psycopg.connect(sys.argv[1], autocommit=True)
ask = lambda: connection.execute('SELECT name FROM users WHERE id = %s', [1], prepare=True).fetchone()[0]
print(ask(), flush=True)
print(ask(), flush=True)
open(sys.argv[2] + '/asked', 'w').close()
for _ in range(100):
    try:
        ask()
    except psycopg.errors.InsufficientPrivilege as error:
        print('refused', error.diag.message_primary)
        break
    time.sleep(0.1)
print(connection.execute('SELECT 1').fetchone()[0])
";
    alone(&plan(), |world| {
        use std::os::unix::fs::PermissionsExt as _;
        let marks = world.place.subfolder("marks")?;
        std::fs::set_permissions(&marks, std::fs::Permissions::from_mode(0o777))?;
        let agent = world.agent("preparer");
        let string = connection(world);
        let world = &*world;
        std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                agent.python(&world.place, PROGRAM, &[&string, &marks.to_string_lossy()])
            });
            eventually("the statement to be prepared", SOON, || {
                Ok(marks.join("asked").exists())
            })?;
            world.daemon.set_rules(
                "version: 1\nrules:\n  - name: users-closed\n    match: { postgres: { tables: [\"*.users\"] } }\n    \
                 verdict: block\n    message: Users are closed now.\n",
            )?;
            let done = running
                .join()
                .map_err(|_| anyhow::anyhow!("the agent's thread panicked"))??
                .ok()?;
            assert_eq!(
                done.stdout,
                "Ada Lovelace\nAda Lovelace\nrefused Users are closed now.\n1\n"
            );
            Ok(())
        })
    })
}

#[test]
fn large_objects_pass() -> Result<()> {
    WORLD.test(|world| {
        let script = "SELECT lo_from_bytea(424242, '\\x00ff10');\n\
            SELECT lo_get(424242);\nSELECT lo_unlink(424242);\n";
        let done = world
            .agent("hoarder")
            .psql(world.postgres.port, script)?
            .ok()?;
        assert_eq!(done.stdout, "424242\n\\x00ff10\n1\n");
        Ok(())
    })
}

#[test]
fn a_replication_connection_speaks_its_own_commands() -> Result<()> {
    WORLD.test(|world| {
        let string = format!("{} replication=database", connection(world));
        let done = world
            .agent("replica")
            .run(&["psql", "-XqAt", "-d", &string, "-c", "IDENTIFY_SYSTEM"])?
            .ok()?;
        assert!(done.stdout.contains("|postgres"), "{}", done.stdout);
        Ok(())
    })
}

#[test]
fn changes_stream_to_a_logical_receiver() -> Result<()> {
    WORLD.test(|world| {
        let programs = interceptor_tests::postgres::programs()?;
        let receiver = programs
            .join("pg_recvlogical")
            .to_string_lossy()
            .into_owned();
        let string = connection(world);
        let agent = world.agent("receiver");
        let words = |rest: &[&str]| -> Vec<String> {
            let mut words = vec![receiver.clone(), "-d".to_owned(), string.clone()];
            words.extend(["--slot", "watched"].map(str::to_owned));
            words.extend(rest.iter().map(|word| (*word).to_owned()));
            words
        };
        agent
            .run(&words(&["--create-slot", "--plugin", "test_decoding"]))?
            .ok()?;
        // Commits do not wait for the log here, and the position asked for next is
        // that of what was written of it.
        world
            .postgres
            .sql("SET synchronous_commit = on; INSERT INTO log (what) VALUES ('streamed')")?;
        let end = world.postgres.sql("SELECT pg_current_wal_lsn()")?;
        let done = agent
            .run(&words(&[
                "--start",
                "--no-loop",
                "--endpos",
                &end,
                "-f",
                "-",
            ]))?
            .ok()?;
        assert!(done.stdout.contains("streamed"), "{done:?}");
        Ok(())
    })
}

fn connection(world: &World) -> String {
    format!(
        "host=127.0.0.1 port={} user=agent dbname=postgres",
        world.postgres.port
    )
}
