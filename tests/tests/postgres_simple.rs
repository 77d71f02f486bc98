//! Simple queries: an agent's `psql`, with an unchanged connection string, is
//! judged statement by statement, and a refusal is an error like any other of
//! PostgreSQL's.

use anyhow::Result;
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::world::{Plan, Shared};

const RULES: &str = r#"
version: 1
rules:
  - name: no-drop
    description: An agent never drops or empties a table.
    match: { postgres: { statement: [DROP, TRUNCATE] } }
    unless: { postgres: { tables: ["*.scratch"] } }
    verdict: block
    message: Dropping tables needs a migration review.
  - name: writes-need-a-where
    match: { postgres: { statement: [UPDATE, DELETE], where: missing } }
    verdict: block
    message: Say which rows.
  - name: no-second-look
    match: { postgres: { functions: [pg_read_file] } }
    verdict: kill
    message: Files are not read through the database.
"#;

static WORLD: Shared = Shared::new(|| Plan {
    rules: RULES,
    ..Plan::default()
});

#[test]
fn an_unchanged_connection_string_reaches_the_database() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let done = world
            .agent("reader")
            .psql(
                port,
                "SELECT name FROM users ORDER BY id;\nSELECT inet_server_port();\n",
            )?
            .ok()?;
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(
            lines,
            [
                "Ada Lovelace",
                "Alan Turing",
                "Grace Hopper",
                &port.to_string()
            ]
        );
        Ok(())
    })
}

#[test]
fn a_refusal_is_an_error_that_names_rule_and_exchange_and_the_session_goes_on() -> Result<()> {
    WORLD.test(|world| {
        let done = world
            .agent("dropper")
            .psql(
                world.postgres.port,
                "DROP TABLE users;\nSELECT 'still here';\n",
            )?
            .ok()?;
        assert_eq!(done.stdout, "still here\n");
        let error = &done.stderr;
        assert!(
            error.contains("ERROR:  42501: Dropping tables needs a migration review."),
            "{error}"
        );
        let hint = error
            .lines()
            .find(|line| line.starts_with("HINT:"))
            .unwrap_or_else(|| panic!("no hint in {error}"));
        assert!(hint.contains("no-drop"), "{hint}");
        let (session, events) = world.records()?.only_session_of("dropper")?;
        let verdict = events.iter().find(|event| event.kind == "verdict");
        let exchange = verdict.and_then(|event| event.exchange).unwrap();
        assert!(hint.contains(&exchange.to_string()), "{hint} of {session}");
        assert!(!world.postgres.saw("DROP TABLE users"));
        assert_eq!(world.postgres.sql("SELECT count(*) FROM users")?, "3");
        Ok(())
    })
}

#[test]
fn an_exception_is_written_where_it_applies() -> Result<()> {
    WORLD.test(|world| {
        world
            .postgres
            .sql("CREATE SCHEMA own; CREATE TABLE own.scratch (id int)")?;
        let done = world
            .agent("cleaner")
            .psql(world.postgres.port, "DROP TABLE own.scratch;\n")?
            .ok()?;
        assert_eq!(done.stderr, "");
        assert!(world.postgres.saw("DROP TABLE own.scratch"));
        Ok(())
    })
}

#[test]
fn a_refusal_aborts_a_transaction_as_any_error_does() -> Result<()> {
    WORLD.test(|world| {
        let script = "BEGIN;\n\
            INSERT INTO orders VALUES (100, 1, 'in a transaction', 1);\n\
            DROP TABLE orders;\n\
            SELECT 'not now';\n\
            COMMIT;\n\
            SELECT 'after';\n";
        let done = world
            .agent("transactor")
            .run_with_input(
                &[
                    "psql",
                    "-XAt",
                    "-v",
                    "VERBOSITY=verbose",
                    "-h",
                    "127.0.0.1",
                    "-U",
                    "agent",
                    "-p",
                    &world.postgres.port.to_string(),
                    "postgres",
                ],
                script,
            )?
            .ok()?;
        assert!(done.stderr.contains("42501"), "{}", done.stderr);
        assert!(
            done.stderr.contains("25P02"),
            "a statement in a failed transaction is refused: {}",
            done.stderr
        );
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(lines, ["BEGIN", "INSERT 0 1", "ROLLBACK", "after"]);
        assert_eq!(
            world
                .postgres
                .sql("SELECT count(*) FROM orders WHERE id = 100")?,
            "0"
        );
        Ok(())
    })
}

#[test]
fn a_savepoint_brings_a_transaction_back_after_a_refusal() -> Result<()> {
    WORLD.test(|world| {
        let script = "BEGIN;\nSAVEPOINT s;\nDROP TABLE orders;\nROLLBACK TO s;\n\
            INSERT INTO orders VALUES (101, 1, 'kept', 1);\nCOMMIT;\n";
        let done = world
            .agent("saver")
            .psql(world.postgres.port, script)?
            .ok()?;
        assert!(done.stderr.contains("42501"), "{}", done.stderr);
        assert!(!done.stderr.contains("25P02"), "{}", done.stderr);
        assert_eq!(
            world
                .postgres
                .sql("SELECT item FROM orders WHERE id = 101")?,
            "kept"
        );
        Ok(())
    })
}

#[test]
fn one_refused_statement_refuses_the_whole_message() -> Result<()> {
    WORLD.test(|world| {
        let words = |sql: &str| {
            [
                "psql",
                "-XqAt",
                "-v",
                "VERBOSITY=verbose",
                "-h",
                "127.0.0.1",
                "-U",
                "agent",
                "-p",
                &world.postgres.port.to_string(),
                "-d",
                "postgres",
                "-c",
                sql,
            ]
            .map(str::to_owned)
        };
        let done = world.agent("packer").run(&words(
            "INSERT INTO orders VALUES (102, 1, 'smuggled', 1); DROP TABLE orders; SELECT 'no'",
        ))?;
        assert_eq!(done.status.code(), Some(1));
        assert!(done.stderr.contains("42501"), "{}", done.stderr);
        assert!(!done.stdout.contains("no"));
        assert_eq!(
            world
                .postgres
                .sql("SELECT count(*) FROM orders WHERE id = 102")?,
            "0"
        );
        Ok(())
    })
}

#[test]
fn an_update_without_where_is_refused_and_one_with_it_is_done() -> Result<()> {
    WORLD.test(|world| {
        let done = world
            .agent("updater")
            .psql(
                world.postgres.port,
                "UPDATE scratch SET note = 'all';\nUPDATE orders SET status = 'sent' WHERE id = 2;\n",
            )?
            .ok()?;
        assert!(done.stderr.contains("Say which rows."), "{}", done.stderr);
        assert!(!world.postgres.saw("UPDATE scratch"));
        assert_eq!(world.postgres.sql("SELECT status FROM orders WHERE id = 2")?, "sent");
        Ok(())
    })
}

#[test]
fn words_in_strings_comments_and_quotes_do_not_mislead() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        let harmless = "SELECT 'drop table users' /* TRUNCATE users */ AS \"DROP\";\n";
        let done = world.agent("quoter").psql(port, harmless)?.ok()?;
        assert_eq!(
            (done.stdout.as_str(), done.stderr.as_str()),
            ("drop table users\n", "")
        );
        for hidden in [
            "dRoP/**/TABLE/* */users;\n",
            "DROP TABLE \"users\";\n",
            "DROP TABLE U&\"\\0075sers\";\n",
            "EXPLAIN ANALYZE DELETE FROM users;\n",
            "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone;\n",
        ] {
            let done = world.agent("hider").psql(port, hidden)?;
            assert!(done.stderr.contains("42501"), "{hidden}{}", done.stderr);
        }
        assert_eq!(world.postgres.sql("SELECT count(*) FROM users")?, "3");
        Ok(())
    })
}

#[test]
fn the_database_s_own_errors_pass_as_they_are() -> Result<()> {
    WORLD.test(|world| {
        let done = world
            .agent("stumbler")
            .psql(
                world.postgres.port,
                "SELECT * FROM nowhere;\nSELECT 1/0;\nSELECT 'on';\n",
            )?
            .ok()?;
        assert!(done.stderr.contains("42P01"), "{}", done.stderr);
        assert!(done.stderr.contains("22012"), "{}", done.stderr);
        assert_eq!(done.stdout, "on\n");
        Ok(())
    })
}

#[test]
fn a_kill_ends_the_session_with_its_reason() -> Result<()> {
    WORLD.test(|world| {
        let done = world.agent("file-reader").psql(
            world.postgres.port,
            "SELECT pg_read_file('/etc/passwd');\nSELECT 'still here';\n",
        )?;
        assert_eq!(
            done.status.code(),
            Some(2),
            "psql says that its connection is lost"
        );
        assert!(
            done.stderr
                .contains("Files are not read through the database."),
            "{}",
            done.stderr
        );
        assert!(!done.stdout.contains("still here"));
        assert!(!world.postgres.saw("pg_read_file"));
        Ok(())
    })
}

#[test]
fn changed_rules_hold_for_the_next_exchange_of_a_session_that_is_open() -> Result<()> {
    interceptor_tests::world::alone(
        &Plan {
            rules: RULES,
            ..Plan::default()
        },
        |world| {
            let connection = format!(
                "host=127.0.0.1 port={} user=agent dbname=postgres",
                world.postgres.port
            );
            let mut running = world.agent("patient").start(&[
                "psql",
                "-XqAt",
                "-v",
                "VERBOSITY=verbose",
                "-d",
                &connection,
            ])?;
            running.write("CREATE TABLE first_mark AS SELECT 1;\n")?;
            eventually("the session's first exchange", SOON, || {
                Ok(world.postgres.saw("CREATE TABLE first_mark"))
            })?;
            world.daemon.set_rules(
                "version: 1\nrules:\n  - name: no-selects-now\n    \
             match: { postgres: { statement: [SELECT] } }\n    verdict: block\n",
            )?;
            // The same session asks until the new rules answer.
            for _ in 0..40 {
                running.write("SELECT 'asked';\n")?;
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            let done = running.finish(SOON)?;
            assert!(done.stderr.contains("no-selects-now"), "{}", done.stderr);
            Ok(())
        },
    )
}

#[test]
fn rules_that_cannot_be_read_leave_those_in_force() -> Result<()> {
    interceptor_tests::world::alone(
        &Plan {
            rules: RULES,
            ..Plan::default()
        },
        |world| {
            world
                .daemon
                .set_rules("version: 1\nrules:\n  - nmae: oops\n")?;
            eventually("the daemon's complaint", SOON, || {
                Ok(world.daemon.server().log().contains("nmae"))
            })?;
            let done = world
                .agent("dropper")
                .psql(world.postgres.port, "DROP TABLE users;\n")?;
            assert!(done.stderr.contains("42501"), "{}", done.stderr);
            Ok(())
        },
    )
}
