//! Every way round that is known, tried: with everything in force nothing of it leaves, and
//! with what catches it taken out it does.
//!
//! One row a way. Each is tried three times over: with all hooks in force; where several
//! catch it, with each of them alone; and with all of them out, which shows that the row
//! can fail. Who sees what leaves is a packet socket at the other end of a wire. What is on
//! record of it is looked up in the store.
//!
//! The table is `docs/ways-round.md`; this test holds it to the rows.
//! `INTERCEPTOR_WRITE_DOCS=1` writes it.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "helpers of tests; a row that was not run must be seen"
)]

mod agents;
mod rows;
mod world;

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::SOON;
use interceptor_tests::records::Records;
use interceptor_tests::{eventually, needs};

use agents::Run;
use rows::{Alert, Flow, Nothing, ROWS, Row};
use world::{World, text_of};

const HELPER: &str = env!("CARGO_BIN_EXE_ways-helper");
const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ways-round.md");
const TABLE_BEGINS: &str = "<!-- the table: held to the test by itself -->\n";
const TABLE_ENDS: &str = "<!-- its end -->\n";
/// Names for what holds a way that no hook sees: what `exec` does.
const LAUNCHER: &str = "`exec`";

/// What a row came to.
struct Outcome {
    failures: Vec<String>,
    not_run: Option<&'static str>,
}

#[test]
fn no_way_round_is_open_and_each_is_where_its_hook_is_gone() {
    if !needs::kernel().expect("this test needs the kernel") {
        return;
    }
    let world = World::start().expect("the world starts");
    world.daemon.watch(|| whole(&world)).expect("the test runs");
}

fn whole(world: &World) -> Result<()> {
    let numbered = || ROWS.iter().enumerate();
    let mut outcomes: Vec<Outcome> = Vec::new();
    // All in force.
    let mut held = Run::start(&world.daemon, "ways-held")?;
    for (number, row) in numbered() {
        let mut outcome = Outcome {
            failures: Vec::new(),
            not_run: None,
        };
        if let Some(missing) = row.held_by.iter().find(|hook| !world.hooks.has(hook)) {
            assert!(missing.starts_with("unix"), "{missing} is not in force");
            outcome.not_run = Some("Linux has hooks for Unix sockets since 6.7");
        } else {
            let (answer, is_out) = world.attempt(&mut held, row, number, row.who)?;
            if is_out {
                outcome.failures.push(format!("got out: {answer}"));
            }
        }
        outcomes.push(outcome);
    }
    let strays = world.wire.strays();
    ensure!(strays.is_empty(), "frames of nobody's: {strays:02x?}");
    for ((number, row), outcome) in numbered().zip(&mut outcomes) {
        if outcome.not_run.is_none()
            && let Err(error) = world.is_on_record(row, number)
        {
            outcome.failures.push(format!("{error:#}"));
        }
    }
    // Each hook alone, and none. Another run, of which no report is left out.
    let mut open = Run::start(&world.daemon, "ways-open")?;
    for ((number, row), outcome) in numbered().zip(&mut outcomes) {
        if outcome.not_run.is_none() {
            taken_out(world, &mut open, row, number, outcome)?;
        }
    }
    drop((held, open));
    let table = table(&outcomes);
    eprintln!("{table}");
    for ((_, row), outcome) in numbered().zip(&outcomes) {
        if let Some(why) = outcome.not_run {
            eprintln!("NOT RUN: {}: {why}", row.way);
        }
    }
    let failures: Vec<String> = numbered()
        .zip(&outcomes)
        .flat_map(|((_, row), outcome)| {
            let one = |failure: &String| format!("{}: {failure}", row.way);
            outcome.failures.iter().map(one).collect::<Vec<_>>()
        })
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    while_the_daemon_is_down(world)
}

/// Tries a row with what holds it taken out.
fn taken_out(
    world: &World,
    run: &mut Run,
    row: &Row,
    number: usize,
    outcome: &mut Outcome,
) -> Result<()> {
    if row.held_by.len() > 1 {
        for alone in row.held_by {
            let others = row.held_by.iter().copied().filter(|hook| hook != alone);
            let out = world.hooks.take_out(others)?;
            let (answer, is_out) = world.attempt(run, row, number, row.who)?;
            drop(out);
            if is_out {
                let what = format!("got out where {alone} alone was in force: {answer}");
                outcome.failures.push(what);
            }
        }
    }
    let out = world.hooks.take_out(row.held_by.iter().copied())?;
    let who = row.unlaunched.unwrap_or(row.who);
    let (answer, is_out) = world.attempt(run, row, number, who)?;
    drop(out);
    if let Some((_, why)) = row.absent.iter().find(|(said, _)| *said == answer) {
        outcome.not_run = Some(why);
    } else if !is_out {
        let what = format!("stays in where nothing holds it, so this row shows nothing: {answer}");
        outcome.failures.push(what);
    }
    Ok(())
}

/// The programs stay; nobody takes the proxy's place.
fn while_the_daemon_is_down(world: &World) -> Result<()> {
    let mut run = Run::start(&world.daemon, "ways-down")?;
    world.daemon.kill()?;
    let mut says = |line: &str| run.attached.ask(&world.fill(line, 0));
    for line in ["tcp {4}", "bind 127.0.0.1:{proxy}"] {
        ensure!(says(line)? == "error EPERM", "{line} without a daemon");
    }
    // With the port taken all the same, connects go to no stranger's listener.
    let out = world.hooks.take_out(["bind_v4"])?;
    let at = world.fill("listen 127.0.0.1:{proxy}", 0);
    let said = says(&at)?;
    ensure!(said.starts_with("ok"), "{at}: {said}");
    drop(out);
    ensure!(
        says("tcp {4}")? == "error EPERM",
        "a connect reached a stranger"
    );
    drop(run);
    // What was refused meanwhile is on record once somebody reads it.
    world.daemon.restart()?;
    let mut records = Records::of(&world.redis)?;
    eventually("a record of what happened without a daemon", SOON, || {
        let alerts = records.stream("interceptor:alerts")?;
        Ok(["proxy-port", "no-listener"].iter().all(|reason| {
            alerts.iter().any(|alert| {
                let text = text_of(alert);
                text.contains(reason) && text.contains("ways-down")
            })
        }))
    })
}

/// The table with what came of each row, for whoever runs the test.
fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for (row, outcome) in ROWS.iter().zip(outcomes) {
        let came = match outcome {
            Outcome {
                not_run: Some(_), ..
            } => "NOT RUN",
            Outcome { failures, .. } if failures.is_empty() => "held",
            _ => "FAILED",
        };
        let _ = writeln!(text, "{came:8} {:64} {}", row.way, held_by(row));
    }
    text
}

fn held_by(row: &Row) -> String {
    if row.held_by.is_empty() {
        return LAUNCHER.to_owned();
    }
    let hooks = row.held_by.iter().map(|hook| format!("`{hook}`"));
    hooks.collect::<Vec<_>>().join(" or ")
}

/// The table as the document has it.
fn documented() -> String {
    let mut text = "| way round | held by | on record |\n| --- | --- | --- |\n".to_owned();
    for row in ROWS {
        let on_record = match row.on_record {
            Flow => "as a session, or its refusal".to_owned(),
            Alert(reason, _) => format!("alert `{reason}`"),
            Nothing(why) => why.to_owned(),
        };
        let _ = writeln!(text, "| {} | {} | {on_record} |", row.way, held_by(row));
    }
    text
}

fn the_document_has(table: &str) -> Result<()> {
    let text = std::fs::read_to_string(DOC).context("reading docs/ways-round.md")?;
    let (before, rest) = text.split_once(TABLE_BEGINS).context("the table's begin")?;
    let (have, after) = rest.split_once(TABLE_ENDS).context("the table's end")?;
    if have == table {
        return Ok(());
    }
    if std::env::var_os("INTERCEPTOR_WRITE_DOCS").is_some() {
        let new = [before, TABLE_BEGINS, table, TABLE_ENDS, after].concat();
        return Ok(std::fs::write(DOC, new)?);
    }
    anyhow::bail!(
        "docs/ways-round.md has another table than this test's rows: run it with INTERCEPTOR_WRITE_DOCS=1"
    )
}

#[test]
fn the_document_lists_the_ways_that_are_tried() {
    the_document_has(&documented()).expect("the document is up to date");
}
