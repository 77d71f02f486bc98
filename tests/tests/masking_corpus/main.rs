//! Masks that cannot be walked around: every way of `corpus/masking/ways.txt` to
//! read each masked column, in both protocols, through a target whose catalog
//! can be asked and through one whose cannot.
//!
//! What a client gets must not hang on the secret. So there are two databases
//! that differ in the secrets alone, and each way is gone four times:
//!
//! * on the servers themselves the answers differ, or the entry proves nothing;
//! * by way of Interceptor they are alike, to the byte.
//!
//! That finds values that a statement encodes, cuts up, sorts by or compares, as
//! it finds plain ones. Beside it, no secret in any trivial rendering stands in
//! what clients got, nor anywhere in the store. What must not be hidden is in
//! `harmless.txt`, and has to come as the server sends it.

mod corpus;
mod roads;

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use corpus::{COLUMNS, Entry, Expected};
use interceptor_tests::place;
use interceptor_tests::postgres::Options;
use interceptor_tests::world::{Plan, World, target_with};
use roads::Road;
use serde_json::json;

const RULES: &str = r#"
version: 1
lists:
  secret: ["*people.ssn", "*people.card", "*people.salary", "*people.token", "*people.profile", "*people.email", "*people.born"]
rules:
  - name: secrets
    match: { protocol: postgres }
    mask:
      - columns: $secret
        with: redact
"#;

/// What the databases hold that nobody may get.
const SECRETS: [&str; 18] = [
    "219-09-9999",
    "457-55-5462",
    "536-22-1178",
    "401-77-3365",
    "4111111111111111",
    "5555555555554444",
    "4012888888881881",
    "5105105105105100",
    "11111111-aaaa-4aaa-8aaa-000000000001",
    "33333333-bbbb-4bbb-8bbb-000000000001",
    "DE1-first",
    "DE2-first",
    "FR1-other",
    "FR2-other",
    "ada@first.example",
    "alan@first.example",
    "eda@other.example",
    "elan@other.example",
];

const DATABASES: [&str; 2] = ["first", "second"];

fn plan() -> Plan {
    Plan {
        rules: RULES,
        postgres: Options {
            sql: "CREATE DATABASE first".to_owned(),
            ..Options::default()
        },
        config: |postgres, place| {
            let port = |name: &str| {
                let port = place::free_port().unwrap_or(0);
                let _ = place.file(name, &port.to_string());
                port
            };
            json!({
                "intercept": { "kernel": false },
                "targets": [
                    target_with(postgres, &json!({ "name": "by-text" })),
                    target_with(postgres, &json!({
                        "name": "by-catalog",
                        "address": "127.0.0.2",
                        "credentials": { "user": "agent" },
                    })),
                ],
                "listeners": [
                    { "listen": format!("127.0.0.1:{}", port("by-text")), "target": "by-text", "agent": "by-text" },
                    { "listen": format!("127.0.0.1:{}", port("by-catalog")), "target": "by-catalog", "agent": "by-catalog" },
                ],
            })
        },
    }
}

/// Both databases, the second a copy of the first with other secrets: tables
/// have the same numbers in both.
fn fill(world: &World) -> Result<()> {
    let run = |database: &str, sql: &str| {
        world
            .postgres
            .sql_in(database, sql)
            .with_context(|| format!("filling {database}"))
    };
    run("first", include_str!("../../corpus/masking/people.sql"))?;
    run("postgres", "CREATE DATABASE second TEMPLATE first")?;
    run("second", include_str!("../../corpus/masking/other.sql"))?;
    Ok(())
}

fn port_of(world: &World, target: &str) -> Result<u16> {
    Ok(std::fs::read_to_string(world.place.path(target))?.parse()?)
}

/// What came back by the simple protocol, and by the extended one where that can ask it.
type Came = (String, Option<String>);

/// Runs `entries` on both databases at once, by both protocols.
fn gone(port: u16, entries: &[&Entry]) -> Result<[Vec<Came>; 2]> {
    let on = |database| -> Result<Vec<Came>> {
        let road = Road { port, database };
        let simple = roads::simple(road, entries)?;
        let extended = roads::extended(road, entries)?;
        Ok(simple.into_iter().zip(extended).collect())
    };
    std::thread::scope(|scope| {
        let [first, second] = DATABASES.map(|database| scope.spawn(move || on(database)));
        let came = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Came>>>| {
            let came = thread.join();
            came.map_err(|_| anyhow::anyhow!("a database's thread panicked"))?
        };
        Ok([came(first)?, came(second)?])
    })
}

/// Faults of one road.
fn compare(faults: &mut String, entry: &Entry, road: &str, direct: [&str; 2], through: [&str; 2]) {
    let mut fault = |what: &str| {
        let _ = writeln!(
            faults,
            "{road}: {what}: {}\n  on the server {:.600?}\n  through {:.600?}\n  and {:.600?}",
            entry.name, direct[0], through[0], through[1]
        );
    };
    if direct[0] == direct[1] {
        fault("proves nothing");
    }
    if through[0] != through[1] {
        fault("hangs on the secret");
    }
    let refused = through[0].contains("REFUSED");
    match entry.expected {
        Expected::Hidden if refused => fault("was refused"),
        Expected::Refused if !refused => fault("was not refused"),
        _ => {}
    }
}

/// Trivial renderings of a secret, which statements would have to be clever to avoid.
fn renderings(secret: &str) -> Vec<String> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        secret.to_owned(),
        secret.chars().rev().collect(),
        hex,
        base64(secret.as_bytes()),
    ];
    let joined = secret.replace('-', "");
    if joined != secret {
        all.push(joined);
    }
    all
}

/// Of whole groups of three bytes: what follows does not change them.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let bits = three
                .iter()
                .fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte));
            [18, 12, 6, 0].map(|shift| {
                LETTERS
                    .get((bits >> shift) & 63)
                    .map_or('?', |letter| char::from(*letter))
            })
        })
        .collect()
}

#[test]
fn no_way_to_read_a_masked_column_returns_its_value() -> Result<()> {
    let world = World::start(&plan())?;
    world.test(|world| {
        fill(world)?;
        let mut faults = String::new();
        let mut received = String::new();
        for (column, in_view) in COLUMNS {
            let ways = corpus::ways(column, in_view)?;
            let direct = gone(world.postgres.port, &ways.iter().collect::<Vec<_>>())?;
            for (target, catalog) in [("by-text", false), ("by-catalog", true)] {
                let (places, entries): (Vec<usize>, Vec<&Entry>) = ways
                    .iter()
                    .enumerate()
                    .filter(|(_, entry)| catalog || !entry.catalog)
                    .unzip();
                assert!(entries.len() >= 40, "{} ways of {column}", entries.len());
                let through = gone(port_of(world, target)?, &entries)?;
                for (at, (entry, place)) in entries.iter().zip(places).enumerate() {
                    for (simple, extended) in through.iter().map(|texts| &texts[at]) {
                        received.push_str(simple);
                        received.push_str(extended.as_deref().unwrap_or_default());
                    }
                    let direct = direct.each_ref().map(|came| &came[place]);
                    compare(
                        &mut faults,
                        entry,
                        &format!("{target}, simple"),
                        [&direct[0].0, &direct[1].0],
                        [&through[0][at].0, &through[1][at].0],
                    );
                    if let [Some(a), Some(b), Some(c), Some(d)] = [
                        &direct[0].1,
                        &direct[1].1,
                        &through[0][at].1,
                        &through[1][at].1,
                    ] {
                        compare(
                            &mut faults,
                            entry,
                            &format!("{target}, extended"),
                            [a, b],
                            [c, d],
                        );
                    }
                }
            }
        }
        let stored = world.records()?.everything()?;
        assert!(
            stored.contains("FROM people"),
            "that the store was looked at"
        );
        for secret in SECRETS {
            for rendering in renderings(secret) {
                for (place, text) in [("what was received", &received), ("the store", &stored)] {
                    if text.contains(&rendering) {
                        let _ = writeln!(faults, "{secret} is in {place}, as {rendering}");
                    }
                }
            }
        }
        let count = faults
            .lines()
            .filter(|line| !line.starts_with("  "))
            .count();
        assert!(faults.is_empty(), "{count} faults\n{faults}");
        Ok(())
    })
}

#[test]
fn what_no_mask_is_about_comes_as_the_server_sends_it() -> Result<()> {
    let world = World::start(&plan())?;
    world.test(|world| {
        fill(world)?;
        let entries = corpus::harmless()?;
        let all: Vec<&Entry> = entries.iter().collect();
        let [direct, _] = gone(world.postgres.port, &all)?;
        let mut faults = String::new();
        for target in ["by-text", "by-catalog"] {
            let [through, _] = gone(port_of(world, target)?, &all)?;
            for (at, entry) in entries.iter().enumerate() {
                if direct[at] != through[at] && !(entry.catalog && target == "by-text") {
                    let _ = writeln!(
                        faults,
                        "{target}: {}\n  on the server {:?}\n  through       {:?}",
                        entry.name, direct[at], through[at]
                    );
                }
            }
        }
        assert!(faults.is_empty(), "\n{faults}");
        Ok(())
    })
}
