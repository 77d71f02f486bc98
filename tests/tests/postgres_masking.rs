//! Masks: a hidden column stays hidden by whatever road its value comes, in both
//! formats, with its type; what was hidden is nowhere in the record.

use anyhow::Result;
use interceptor_tests::place::Place;
use interceptor_tests::postgres::Postgres;
use interceptor_tests::world::{Plan, Shared, World, target_with};
use serde_json::{Value, json};

const RULES: &str = r#"
version: 1
lists:
  hidden: ["users.ssn", "users.card_number"]
rules:
  - name: pii-is-masked
    match: { protocol: postgres }
    mask:
      - columns: $hidden
        with: redact
      - columns: ["users.pin"]
        with: redact
      - columns: ["users.email"]
        with: hash
      - detect: [credit_card, us_ssn]
        with: redact
"#;

/// Every value that must never leave, nor be kept.
const SECRETS: &[&str] = &[
    "219-09-9999",
    "457-55-5462",
    "078-05-1120",
    "4111111111111111",
    "5555555555554444",
    "378282246310005",
    "4012888888881881",
    "ada@example.com",
    "alan@example.com",
    "grace@example.com",
    "4071",
    "5382",
    "6193",
];

/// Names of columns read from the statement: the proxy has no credentials.
static BY_STATEMENT: Shared = Shared::new(|| Plan {
    rules: RULES,
    ..Plan::default()
});

/// Names looked up on a connection of the proxy's own.
static BY_CATALOG: Shared = Shared::new(|| Plan {
    rules: RULES,
    config: with_credentials,
    ..Plan::default()
});

fn with_credentials(postgres: &Postgres, _: &Place) -> Value {
    json!({ "targets": [target_with(postgres, &json!({ "credentials": { "user": "agent" } }))] })
}

/// Runs a test's body both ways of learning a column's name.
fn both(body: impl Fn(&World) -> Result<()>) -> Result<()> {
    BY_CATALOG.test(&body)?;
    BY_STATEMENT.test(&body)
}

fn no_secret_in(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} got out: {text}");
    }
}

#[test]
fn a_hidden_column_stays_hidden_by_every_road() -> Result<()> {
    both(|world| {
        for (road, sql) in [
            ("by-name", "SELECT ssn FROM users"),
            (
                "by-alias",
                "SELECT ssn AS id, card_number AS name FROM users AS u",
            ),
            ("by-star", "SELECT * FROM users"),
            (
                "by-qualified-star",
                "SELECT o.item, u.* FROM orders o JOIN users u ON u.id = o.user_id",
            ),
            (
                "by-join",
                "SELECT item, ssn FROM orders JOIN users ON users.id = user_id",
            ),
            (
                "by-subquery",
                "SELECT x FROM (SELECT card_number AS x FROM users) AS inner_one",
            ),
            (
                "by-cte",
                "WITH them AS (SELECT * FROM users) SELECT ssn, pin FROM them",
            ),
            ("by-table", "TABLE users"),
            (
                "by-returning",
                "UPDATE users SET note = note WHERE id = 1 RETURNING *",
            ),
        ] {
            let agent = world.agent(&format!("peeker-{road}"));
            let done = agent
                .psql(world.postgres.port, &format!("{sql};\n"))?
                .ok()?;
            assert!(
                done.stdout.lines().count() >= 1,
                "{road}: no rows; {}",
                done.stderr
            );
            no_secret_in(&done.stdout);
        }
        Ok(())
    })
}

#[test]
fn what_no_rule_hides_comes_as_it_is() -> Result<()> {
    both(|world| {
        let done = world
            .agent("onlooker")
            .psql(
                world.postgres.port,
                "SELECT id, name, note FROM users ORDER BY id;\n",
            )?
            .ok()?;
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(lines.first(), Some(&"1|Ada Lovelace|"));
        assert_eq!(lines.get(2), Some(&"3|Grace Hopper|"));
        Ok(())
    })
}

#[test]
fn a_detector_finds_a_card_number_inside_a_text_and_leaves_the_rest() -> Result<()> {
    both(|world| {
        let done = world
            .agent("noter")
            .psql(
                world.postgres.port,
                "SELECT note FROM users WHERE id = 2;\n",
            )?
            .ok()?;
        assert!(done.stdout.starts_with("pays with "), "{}", done.stdout);
        no_secret_in(&done.stdout);
        Ok(())
    })
}

#[test]
fn a_hidden_integer_is_still_an_integer_or_null_in_both_formats() -> Result<()> {
    const PROGRAM: &str = r"
import psycopg, sys
with psycopg.connect(sys.argv[1]) as connection:
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            cursor.execute('SELECT id, pin, ssn, name FROM users ORDER BY id')
            for row in cursor:
                assert row[1] is None or type(row[1]) is int, row
                assert row[2] is None or type(row[2]) is str, row
                print(binary, row)
";
    both(|world| {
        let connection = connection(world);
        let done = world
            .agent("typist")
            .python(&world.place, PROGRAM, &[&connection])?
            .ok()?;
        assert_eq!(done.stdout.lines().count(), 6, "{}", done.stdout);
        assert!(done.stdout.contains("Grace Hopper"));
        no_secret_in(&done.stdout);
        Ok(())
    })
}

#[test]
fn equal_values_have_equal_hashes_so_that_joins_still_work() -> Result<()> {
    both(|world| {
        let sql = "SELECT email FROM users WHERE id = 1;\nSELECT email FROM users ORDER BY id;\n";
        let done = world.agent("joiner").psql(world.postgres.port, sql)?.ok()?;
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(lines.len(), 4, "{}", done.stdout);
        no_secret_in(&done.stdout);
        assert_eq!(lines[0], lines[1]);
        assert_ne!(lines[1], lines[2]);
        Ok(())
    })
}

#[test]
fn a_copy_out_is_masked_as_a_select_is() -> Result<()> {
    both(|world| {
        for sql in [
            "COPY users TO STDOUT;\n",
            "COPY users (ssn, name) TO STDOUT WITH (FORMAT csv);\n",
            "COPY (SELECT name, ssn AS other FROM users) TO STDOUT;\n",
            "COPY users TO STDOUT WITH (FORMAT binary);\n",
        ] {
            let done = world.agent("copier").psql(world.postgres.port, sql)?;
            // Refused is safe as well; passed unmasked is not.
            let refused = done.stderr.contains("42501");
            assert!(
                refused || done.stdout.contains("Grace Hopper"),
                "{sql}{done:?}"
            );
            no_secret_in(&done.stdout);
        }
        Ok(())
    })
}

#[test]
fn nothing_that_a_mask_removed_is_in_the_store() -> Result<()> {
    both(|world| {
        let agent = world.agent("everything");
        agent
            .psql(
                world.postgres.port,
                "SELECT * FROM users;\nCOPY users TO STDOUT;\n",
            )?
            .ok()?;
        let mut records = world.records()?;
        let (_, events) = records.only_session_of("everything")?;
        assert!(
            events.iter().any(|event| event.kind == "mask"),
            "that a mask hit is on record: {events:?}"
        );
        // Numbers of four digits are everywhere; the others are unmistakable.
        for secret in SECRETS.iter().filter(|secret| secret.len() > 4) {
            let keys = records.keys_that_hold(secret.as_bytes())?;
            assert_eq!(keys, [""; 0], "{secret} is in the store");
        }
        Ok(())
    })
}

fn connection(world: &World) -> String {
    format!(
        "host=127.0.0.1 port={} user=agent dbname=postgres",
        world.postgres.port
    )
}
