//! What somebody with the whole of Redis in hand does to a recording is found.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_engine::chain::{Hasher, Head};
use interceptor_engine::replay::Raw;
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::world::{Plan, Shared, World, alone, one_target};
use redis::Connection;
use serde_json::{Value, json};

fn plan() -> Plan {
    Plan {
        config: |postgres, place| {
            let Value::Object(mut config) = one_target(postgres, place) else {
                return Value::Null;
            };
            let recorder = json!({ "evidence": { "heads_every": "100ms" } });
            config.insert("recorder".to_owned(), recorder);
            Value::Object(config)
        },
        ..Plan::default()
    }
}

static WORLD: Shared = Shared::new(plan);

/// An entry: its ID, and its fields in order.
type Entry = (String, Vec<(String, Vec<u8>)>);

/// What an attacker has.
struct Store(Connection);

impl Store {
    fn of(world: &World) -> Result<Self> {
        let client = redis::Client::open(world.redis.url())?;
        Ok(Self(client.get_connection()?))
    }

    fn entries(&mut self, key: &str) -> Result<Vec<Entry>> {
        type Flat = Vec<(String, Vec<(String, Vec<u8>)>)>;
        let entries: Flat = redis::cmd("XRANGE")
            .arg(key)
            .arg("-")
            .arg("+")
            .query(&mut self.0)?;
        Ok(entries)
    }

    fn session(&mut self, session: &str) -> Result<Vec<Entry>> {
        self.entries(&key(session))
    }

    /// Puts other entries in a stream's place.
    fn replace(&mut self, key: &str, entries: &[Entry]) -> Result<()> {
        redis::cmd("DEL").arg(key).exec(&mut self.0)?;
        for (id, fields) in entries {
            let mut add = redis::cmd("XADD");
            add.arg(key).arg(id);
            for (name, value) in fields {
                add.arg(name).arg(value);
            }
            add.exec(&mut self.0)?;
        }
        Ok(())
    }

    /// Removes entries of `sessions`; how many.
    fn unlist(&mut self, wanted: impl Fn(&Entry) -> bool) -> Result<usize> {
        let mut gone = 0;
        for entry in self.entries(SESSIONS)? {
            if wanted(&entry) {
                redis::cmd("XDEL")
                    .arg(SESSIONS)
                    .arg(&entry.0)
                    .exec(&mut self.0)?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}

const SESSIONS: &str = "interceptor:sessions";

fn key(session: &str) -> String {
    format!("interceptor:session:{{{session}}}")
}

fn text<'a>(entry: &'a Entry, name: &str) -> &'a str {
    let found = entry.1.iter().find(|(field, _)| field == name);
    found.map_or("", |(_, value)| std::str::from_utf8(value).unwrap_or(""))
}

fn set(entry: &mut Entry, name: &str, value: &[u8]) {
    for (field, old) in &mut entry.1 {
        if field == name {
            *old = value.to_vec();
        }
    }
}

/// Makes the chain of all entries anew.
fn chain_anew(session: &str, entries: &mut [Entry]) -> Head {
    let mut hasher = Hasher::default();
    let mut head = Head::START;
    for entry in entries {
        let raw = Raw::from_fields(entry.1.clone());
        head = hasher.next(head, &raw.stored(session).fields);
        set(entry, "chain", head.to_string().as_bytes());
    }
    head
}

const SCRIPT: &str = "SELECT 1;\nSELECT 2;\nSELECT pg_sleep(0.4);\nSELECT 3;\nSELECT 4;\n";

/// A session that is over, long enough to be signed in between.
fn a_session(world: &World, agent: &str) -> Result<String> {
    world.agent(agent).psql(world.postgres.port, SCRIPT)?.ok()?;
    Ok(world.records()?.only_session_of(agent)?.0)
}

/// What `verify` says, and its exit status.
fn verify(world: &World, arguments: &[&str]) -> Result<(Value, i32)> {
    let done = world
        .daemon
        .command(&[&["verify", "--json"], arguments].concat())?;
    let said = String::from_utf8_lossy(&done.stdout);
    let said = serde_json::from_str(&said)
        .with_context(|| format!("{said}{}", String::from_utf8_lossy(&done.stderr)))?;
    Ok((said, done.status.code().unwrap_or(-1)))
}

/// What was found of one session: the word for it and the event.
fn found(world: &World, session: &str) -> Result<Vec<(String, Option<u64>)>> {
    let (said, status) = verify(world, &[session])?;
    let findings = said.get("findings").and_then(Value::as_array);
    let findings = findings.context("no findings")?;
    assert_eq!(status, i32::from(!findings.is_empty()));
    Ok(findings
        .iter()
        .filter(|finding| finding["session"] == session)
        .map(|finding| {
            let what = finding["what"].as_str().unwrap_or_default();
            (what.to_owned(), finding["seq"].as_u64())
        })
        .collect())
}

fn one(what: &str, seq: u64) -> Vec<(String, Option<u64>)> {
    vec![(what.to_owned(), Some(seq))]
}

#[test]
fn a_recording_as_it_was_recorded_is_right_and_signed_to_its_end() -> Result<()> {
    alone(&plan(), |world| {
        let session = a_session(world, "honest")?;
        let events = Store::of(world)?.session(&session)?.len();
        let (said, status) = verify(world, &[&session])?;
        assert_eq!(status, 0, "{said}");
        assert_eq!(said["events"], events);
        assert_eq!(said["signed_events"], events);
        assert_eq!(said["closed"], true);
        let (said, status) = verify(world, &["--all"])?;
        assert_eq!(status, 0, "{said}");
        assert_eq!(said["notes"], json!([]), "the host's own keys are pinned");
        let text = world.daemon.ask(&["verify", "last"])?;
        assert!(text.contains("as recorded; closed"), "{text}");
        assert_eq!(world.daemon.command(&["verify"])?.status.code(), Some(2));
        Ok(())
    })
}

#[test]
fn a_flipped_bit_is_found_in_its_event() -> Result<()> {
    WORLD.test(|world| {
        let session = a_session(world, "flipped")?;
        let mut store = Store::of(world)?;
        let whole = store.session(&session)?;
        for (at, field) in [(0, "meta"), (3, "line"), (4, "at"), (5, "kind")] {
            let mut entries = whole.clone();
            let entry = &mut entries[at];
            let (_, value) = entry
                .1
                .iter_mut()
                .find(|(name, _)| name == field)
                .with_context(|| format!("no {field}"))?;
            value[0] ^= 1;
            store.replace(&key(&session), &entries)?;
            assert_eq!(
                found(world, &session)?,
                one("changed", at as u64),
                "{field}"
            );
        }
        store.replace(&key(&session), &whole)?;
        assert_eq!(found(world, &session)?, []);
        Ok(())
    })
}

#[test]
fn removed_and_swapped_events_are_found_at_their_place() -> Result<()> {
    WORLD.test(|world| {
        let session = a_session(world, "reordered")?;
        let mut store = Store::of(world)?;
        let whole = store.session(&session)?;
        let mut removed = whole.clone();
        removed.remove(3);
        store.replace(&key(&session), &removed)?;
        assert_eq!(found(world, &session)?, one("removed", 3));

        let mut swapped = whole.clone();
        let third = std::mem::take(&mut swapped[3].1);
        swapped[3].1 = std::mem::replace(&mut swapped[4].1, third);
        store.replace(&key(&session), &swapped)?;
        assert_eq!(found(world, &session)?, one("swapped", 3));

        let mut added = whole;
        added[3].1.push(("note".into(), b"trust me".to_vec()));
        store.replace(&key(&session), &added)?;
        assert_eq!(found(world, &session)?, one("field", 3));
        Ok(())
    })
}

#[test]
fn a_cut_tail_and_a_deleted_recording_are_found() -> Result<()> {
    WORLD.test(|world| {
        let session = a_session(world, "cut")?;
        let mut store = Store::of(world)?;
        let mut entries = store.session(&session)?;
        entries.truncate(4);
        store.replace(&key(&session), &entries)?;
        assert_eq!(found(world, &session)?, one("cut", 4));
        // The close that says so is deleted, too.
        let close =
            |entry: &Entry| text(entry, "event") == "close" && text(entry, "session") == session;
        assert_eq!(store.unlist(close)?, 1);
        let what = found(world, &session)?;
        assert!(matches!(&*what, [(what, _)] if what == "cut"), "{what:?}");
        // The statement behind it, which names it, is made within `heads_every`.
        eventually("the hole among the statements", SOON, || {
            let (said, _) = verify(world, &[&session])?;
            let found_statement = |finding: &Value| finding["what"] == "statements";
            let findings = said["findings"].as_array().context("no findings")?;
            Ok(findings.iter().any(found_statement))
        })?;

        store.replace(&key(&session), &[])?;
        assert_eq!(found(world, &session)?, one("gone", 0));
        Ok(())
    })
}

/// The list of sessions is no recording, and still must not say another agent.
#[test]
fn an_opening_that_is_listed_under_another_name_is_found() -> Result<()> {
    WORLD.test(|world| {
        let session = a_session(world, "culprit")?;
        let mut store = Store::of(world)?;
        let listed = store.entries(SESSIONS)?;
        let is_it =
            |entry: &Entry| text(entry, "session") == session && text(entry, "event") == "open";
        let mut open = listed.into_iter().find(is_it).context("no opening")?;
        assert_eq!(store.unlist(is_it)?, 1);
        set(&mut open, "agent", b"somebody-else");
        let mut add = redis::cmd("XADD");
        add.arg(SESSIONS).arg("*");
        for (name, value) in &open.1 {
            add.arg(name).arg(value);
        }
        add.exec(&mut store.0)?;
        assert_eq!(found(world, &session)?, [("listed".to_owned(), None)]);
        Ok(())
    })
}

/// Who holds Redis and not the key makes everything anew that can be.
#[test]
fn a_chain_that_was_made_anew_is_found_by_the_signatures() -> Result<()> {
    WORLD.test(|world| {
        let session = a_session(world, "forged")?;
        let mut store = Store::of(world)?;
        let mut entries = store.session(&session)?;
        set(&mut entries[4], "line", b"SELECT 'nothing to see'");
        let head = chain_anew(&session, &mut entries);
        store.replace(&key(&session), &entries)?;
        let what = found(world, &session)?;
        let [(word, Some(seq))] = &*what else {
            panic!("{what:?}")
        };
        assert_eq!(word, "rewritten");
        assert!(*seq <= 4, "{what:?}");

        // The close is made to fit, which its signature does not survive.
        let mut listed = store.entries(SESSIONS)?;
        for entry in &mut listed {
            if text(entry, "event") == "close" && text(entry, "session") == session {
                set(entry, "chain", head.to_string().as_bytes());
            }
        }
        let (said, _) = verify(world, &[&session])?;
        assert_eq!(said["findings"][0]["what"], "rewritten");
        let changed = listed
            .iter()
            .find(|entry| text(entry, "session") == session && text(entry, "event") == "close");
        let (id, fields) = changed.context("no close")?;
        redis::cmd("XDEL")
            .arg(SESSIONS)
            .arg(id)
            .exec(&mut store.0)?;
        let mut add = redis::cmd("XADD");
        add.arg(SESSIONS).arg("*");
        for (name, value) in fields {
            add.arg(name).arg(value);
        }
        add.exec(&mut store.0)?;
        let what = found(world, &session)?;
        let words: Vec<&str> = what.iter().map(|(what, _)| what.as_str()).collect();
        assert!(words.contains(&"signature"), "{words:?}");
        assert!(words.contains(&"rewritten"), "{words:?}");
        Ok(())
    })
}

#[test]
fn a_session_that_was_deleted_everywhere_leaves_a_hole_among_the_statements() -> Result<()> {
    alone(&plan(), |world| {
        let session = a_session(world, "vanished")?;
        a_session(world, "later")?;
        eventually("what was signed to be confirmed", SOON, || {
            let (said, status) = verify(world, &["--all"])?;
            Ok(status == 0 && said["sessions"] == 2)
        })?;
        let mut store = Store::of(world)?;
        store.replace(&key(&session), &[])?;
        // Its opening and its close: the heads in between still name it.
        let own = |entry: &Entry| text(entry, "session") == session;
        assert_eq!(store.unlist(own)?, 2);
        let (said, status) = verify(world, &["--all"])?;
        assert_eq!(status, 1);
        let findings = said["findings"].as_array().context("no findings")?;
        let words: Vec<&str> = findings.iter().filter_map(|f| f["what"].as_str()).collect();
        assert_eq!(words, ["gone", "statements"], "{said}");
        assert_eq!(findings[0]["session"], session);
        // Whatever names it.
        store.unlist(|entry| text(entry, "heads").contains(&session))?;
        let (said, status) = verify(world, &["--all"])?;
        assert_eq!(status, 1);
        let findings = said["findings"].as_array().context("no findings")?;
        assert!(findings.iter().all(|f| f["what"] == "statements"), "{said}");
        // The last statements have none behind them, and the host still knows them.
        let last = store.entries(SESSIONS)?.pop().context("nothing")?;
        store.unlist(|entry| entry.0 == last.0)?;
        let (said, _) = verify(world, &["--all"])?;
        let number: u64 = text(&last, "signed_number").parse()?;
        let texts = said["findings"].to_string();
        assert!(texts.contains(&number.to_string()), "{texts}");
        Ok(())
    })
}

#[test]
fn an_open_session_is_right_up_to_its_last_signed_head() -> Result<()> {
    alone(&plan(), |world| {
        let mut psql = world.agent("busy").start_psql(world.postgres.port)?;
        psql.write("SELECT 'one';\n")?;
        let mut session = String::new();
        eventually("the session to be signed", SOON, || {
            let listed = world
                .daemon
                .ask(&["sessions", "list", "--agent", "busy", "--json"])?;
            let Some(line) = listed.lines().next() else {
                return Ok(false);
            };
            let line: Value = serde_json::from_str(line)?;
            session = line["session"].as_str().unwrap_or_default().to_owned();
            let (said, _) = verify(world, &[&session])?;
            Ok(said["signed_events"]
                .as_u64()
                .is_some_and(|signed| signed > 2))
        })?;
        let (said, status) = verify(world, &[&session])?;
        assert_eq!(said["closed"], false);
        assert_eq!(status, 0, "{said}");
        let text = world.daemon.ask(&["verify", &session])?;
        assert!(text.contains("as recorded; open"), "{text}");
        psql.write("\\q\n")?;
        psql.finish(SOON)?.ok()?;
        Ok(())
    })
}

#[test]
fn a_key_is_rotated_while_the_daemon_runs_and_old_recordings_stay_right() -> Result<()> {
    alone(&plan(), |world| {
        let before = a_session(world, "before")?;
        // What an investigator wrote down on the first day.
        let pinned = world.daemon.ask(&["evidence", "keys"])?;
        let pinned = world.place.file("pinned", &pinned)?;
        let pinned = pinned.to_str().context("a path that is no text")?;
        let folder = world.place.path("state").join("evidence");
        let secrets = || -> Result<Vec<_>> {
            let files = std::fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()?;
            let names = files.into_iter().map(|file| file.path());
            Ok(names
                .filter(|path| path.extension().is_some_and(|e| e == "key"))
                .collect())
        };
        let old = secrets()?.pop().context("no key")?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&old)?.permissions());
        assert_eq!(mode & 0o777, 0o600);

        world.daemon.ask(&["evidence", "rotate"])?;
        eventually("the old key to be gone", SOON, || Ok(!old.exists()))?;
        assert_eq!(secrets()?.len(), 1);
        let after = a_session(world, "after")?;
        world.daemon.restart()?;
        world.daemon.kill()?;
        world.daemon.restart()?;
        let last = a_session(world, "last")?;
        let mut store = Store::of(world)?;
        let signer = |session: &str, entries: &[Entry]| {
            let close = entries
                .iter()
                .find(|entry| text(entry, "event") == "close" && text(entry, "session") == session);
            close.map(|close| text(close, "signed_by").to_owned())
        };
        let entries = store.entries(SESSIONS)?;
        assert_ne!(signer(&before, &entries), signer(&after, &entries));
        assert_eq!(signer(&after, &entries), signer(&last, &entries));
        for arguments in [&["--all"][..], &["--all", "--trusted-keys", pinned]] {
            let (said, status) = verify(world, arguments)?;
            assert_eq!(status, 0, "{said}");
            assert_eq!(said["sessions"], 3);
            assert_eq!(said["notes"], json!([]));
        }
        // Somebody else's key proves nothing.
        let other = format!("{} elsewhere\n", "ab".repeat(32));
        let other = world.place.file("other", &other)?;
        let other = other.to_str().context("a path that is no text")?;
        let (said, status) = verify(world, &[&after, "--trusted-keys", other])?;
        assert_eq!(status, 1);
        assert!(
            said["findings"].to_string().contains("unknown key"),
            "{said}"
        );
        Ok(())
    })
}

/// Who can write to Redis can delete a recording, and cannot sign that it may be gone.
#[test]
fn a_removal_is_believed_that_the_host_signed_and_no_other() -> Result<()> {
    alone(&plan(), |world| {
        let archive = world.place.path("archive");
        let archive = archive.to_str().context("a path that is no text")?;
        let removed = a_session(world, "removed")?;
        let taken = a_session(world, "taken")?;
        world
            .daemon
            .ask(&["archive", "--session", &removed, "--to", archive])?;
        let mut store = Store::of(world)?;
        assert_eq!(store.session(&removed)?.len(), 0);
        assert_eq!(found(world, &removed)?, []);
        let (said, status) = verify(world, &["--all"])?;
        assert_eq!((status, &said["removed"]), (0, &json!(1)), "{said}");

        // All that a removal says, of another session, but the signature.
        let events = store.session(&taken)?;
        let chain = text(events.last().context("no events")?, "chain").to_owned();
        store.replace(&key(&taken), &[])?;
        let count = events.len().to_string();
        let lied = [
            ("event", "removed"),
            ("session", taken.as_str()),
            ("host", "proxy"),
            ("by", "retention"),
            ("events", count.as_str()),
            ("chain", chain.as_str()),
        ];
        let mut add = redis::cmd("XADD");
        add.arg(SESSIONS).arg("*");
        for (name, value) in lied {
            add.arg(name).arg(value);
        }
        add.exec(&mut store.0)?;
        assert_eq!(found(world, &taken)?, [("removal".to_owned(), None)]);
        store.replace(&key(&taken), &events)?;
        store
            .unlist(|entry| text(entry, "event") == "removed" && text(entry, "host") == "proxy")?;
        assert_eq!(found(world, &taken)?, []);

        // What came back is expected to be there again.
        world
            .daemon
            .ask(&["archive", "restore", &removed, "--from", archive])?;
        assert_eq!(found(world, &removed)?, []);
        let since = world
            .daemon
            .ask(&["verify", "--since", "2026-01-01T00:00:00Z"])?;
        assert!(since.contains("as recorded"), "{since}");
        store.replace(&key(&removed), &[])?;
        assert_eq!(found(world, &removed)?, one("gone", 0));
        Ok(())
    })
}

#[test]
fn a_beginning_that_retention_cut_off_is_right_and_a_longer_one_is_not() -> Result<()> {
    let plan = Plan {
        config: |postgres, place| {
            let Value::Object(mut config) = one_target(postgres, place) else {
                return Value::Null;
            };
            let recorder = json!({
                "evidence": { "heads_every": "100ms" },
                "retention": { "age": "2s", "every": "1s" },
            });
            config.insert("recorder".to_owned(), recorder);
            Value::Object(config)
        },
        ..Plan::default()
    };
    alone(&plan, |world| {
        a_session(world, "old")?;
        let mut store = Store::of(world)?;
        let is_trimmed = |entry: &Entry| text(entry, "event") == "trimmed";
        eventually("the beginning to go", SOON, || {
            Ok(store.entries(SESSIONS)?.iter().any(is_trimmed))
        })?;
        a_session(world, "new")?;
        let (said, status) = verify(world, &["--all"])?;
        assert_eq!(status, 0, "{said}");
        let listed = store.entries(SESSIONS)?;
        let line = listed.iter().find(|entry| is_trimmed(entry));
        let said = text(line.context("no line")?, "heads").to_owned();
        assert!(said.starts_with("trimmed "), "{said}");

        // Somebody takes what says so, and writes that it may be gone.
        assert!(store.unlist(is_trimmed)? >= 1);
        redis::cmd("XADD")
            .arg(SESSIONS)
            .arg("*")
            .arg(&["event", "trimmed", "host", "proxy", "by", "retention"])
            .exec(&mut store.0)?;
        let (said, status) = verify(world, &["--all"])?;
        assert_eq!(status, 1, "{said}");
        let findings = said["findings"].as_array().context("no findings")?;
        let words: Vec<&str> = findings.iter().filter_map(|f| f["what"].as_str()).collect();
        assert!(words.contains(&"trimmed"), "{said}");
        assert!(words.contains(&"statements"), "{said}");
        Ok(())
    })
}

/// Where a daemon is killed between signing and writing to its spool, the statement is
/// there and its events are nowhere. Made by hand out of what one leaves that is killed a
/// moment later: the last frame is taken out of its spool.
#[test]
fn what_a_killed_daemon_signed_and_did_not_record_is_taken_back() -> Result<()> {
    alone(&plan(), |world| {
        a_session(world, "before")?;
        world.redis.hang()?;
        let state = world.place.path("state");
        let journal = state.join("evidence").join("statements");
        let closed = || -> Result<Option<Value>> {
            let text = std::fs::read_to_string(&journal)?;
            let lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let lines: Vec<Value> = lines.collect();
            let is_it = |line: &&Value| {
                let body = line["body"].as_str().unwrap_or_default();
                body.ends_with(" closed\n")
            };
            Ok(lines.iter().rev().find(is_it).cloned())
        };
        let before = closed()?;
        world
            .agent("victim")
            .psql(world.postgres.port, SCRIPT)?
            .ok()?;
        eventually("the close to be signed", SOON, || Ok(closed()? != before))?;
        world.daemon.kill()?;
        let last = closed()?.context("no close")?;
        let signature = last["signature"].as_str().context("no signature")?;
        let number = last["number"].as_u64().context("no number")?;

        // The frame that has it, and what came behind.
        let mut cut = 0;
        for folder in std::fs::read_dir(state.join("spool"))? {
            let folder = folder?.path();
            if !folder.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&folder)? {
                let path = file?.path();
                let mut bytes = std::fs::read(&path)?;
                let find = |bytes: &[u8], what: &[u8]| {
                    bytes.windows(what.len()).position(|some| some == what)
                };
                let Some(at) = find(&bytes, signature.as_bytes()) else {
                    continue;
                };
                let begins = |bytes: &[u8]| bytes.windows(4).rposition(|some| some == b"ICF1");
                let frame = begins(&bytes[..at]).context("no frame")?;
                bytes[frame..].fill(0);
                std::fs::write(&path, &bytes)?;
                cut += 1;
            }
        }
        assert_eq!(cut, 1, "the spool has the statement once");
        // Nor was it told that these are delivered.
        let signed = std::fs::read_to_string(&journal)?;
        let mut kept = String::new();
        for line in signed.split_inclusive('\n') {
            kept.push_str(line);
            if line.contains(signature) {
                break;
            }
        }
        std::fs::write(&journal, kept)?;

        world.redis.resume()?;
        world.daemon.restart()?;
        a_session(world, "after")?;
        let mut said = Value::Null;
        eventually("all to be right", SOON, || {
            let status;
            (said, status) = verify(world, &["--all"])?;
            Ok(status == 0)
        })
        .with_context(|| said.to_string())?;
        let told = format!("took back what its statement {number} says");
        assert!(said["notes"].to_string().contains(&told), "{said}");

        // Without the line that takes it back, it says what was signed.
        let mut store = Store::of(world)?;
        assert!(store.unlist(|entry| text(entry, "heads").contains("void "))? >= 1);
        let (said, status) = verify(world, &["--all"])?;
        assert_eq!(status, 1, "{said}");
        let victim = world.records()?.only_session_of("victim")?.0;
        let findings = said["findings"].as_array().context("no findings")?;
        assert!(findings.iter().any(|f| f["session"] == victim), "{said}");
        Ok(())
    })
}

/// Without a word, and with events on their way.
#[test]
fn a_daemon_that_is_killed_leaves_no_hole_among_its_statements() -> Result<()> {
    alone(&plan(), |world| {
        for round in 0..3 {
            a_session(world, &format!("round-{round}"))?;
            let mut psql = world.agent("victim").start_psql(world.postgres.port)?;
            psql.write("SELECT 1;\nSELECT 2;\n")?;
            std::thread::sleep(Duration::from_millis(130));
            world.daemon.kill()?;
            drop(psql);
            world.daemon.restart()?;
        }
        a_session(world, "survivor")?;
        let mut said = Value::Null;
        eventually("all to be right", SOON, || {
            let status;
            (said, status) = verify(world, &["--all"])?;
            Ok(status == 0)
        })
        .with_context(|| said.to_string())
    })
}

/// Somebody who can write to the store puts there what would fill a reader's memory, and
/// makes the chain fit.
#[test]
fn a_bomb_in_a_recording_is_named_and_not_unpacked() -> Result<()> {
    WORLD.test(|world| {
        let session = a_session(world, "bombed")?;
        let mut store = Store::of(world)?;
        let whole = store.session(&session)?;
        let at = whole
            .iter()
            .position(|entry| text(entry, "kind") == "command")
            .context("no command")?;
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3)?;
        assert!(bomb.len() < 16 << 10);
        for (coding, data) in [
            ("zstd", &bomb[..]),
            ("zstd", b"broken"),
            ("gzip", b"\x1f\x8b"),
        ] {
            let mut entries = whole.clone();
            let entry = &mut entries[at];
            set(entry, "data", data);
            entry.1.push(("coding".to_owned(), coding.into()));
            chain_anew(&session, &mut entries);
            store.replace(&key(&session), &entries)?;
            assert_eq!(found(world, &session)?, one("unreadable", at as u64));
            let done = world.daemon.command(&["replay", &session, "--instant"])?;
            assert_eq!(done.status.code(), Some(1));
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(said.contains("is not what a recorder writes"), "{said}");
            let shown = String::from_utf8_lossy(&done.stdout);
            assert!(shown.contains("SELECT 4"), "the others are shown: {shown}");
            world.daemon.ask(&["search", "SELECT 4"])?;
        }
        store.replace(&key(&session), &whole)?;
        assert_eq!(found(world, &session)?, []);
        Ok(())
    })
}
