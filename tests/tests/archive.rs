//! Closed sessions out of Redis, byte for byte, and back.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code,
    reason = "a test that panics has failed; the store's other tests use the rest of it"
)]

#[path = "recording/store.rs"]
mod store;
#[path = "recording/talker.rs"]
mod talker;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::program;
use interceptor_tests::s3::{KEY_ID, S3, SECRET_KEY};
use interceptor_user::recorder::read::StreamEntry;
use serde_json::{Value, json};

use store::Store;
use talker::{Talker, say, together};

const SOON: Duration = Duration::from_secs(30);

/// A Redis with closed sessions, an open one, and a folder for an archive.
struct Scene {
    store: Store,
    closed: Vec<String>,
    open: String,
}

impl Scene {
    async fn new(sessions: usize, commands: u64) -> Result<Self> {
        let store = Store::start()?;
        let (recorder, task) = store.recorder(64 << 20)?;
        let mut closed = together(&recorder, sessions, commands, Duration::ZERO).await;
        closed.sort();
        let mut talker = Talker::new();
        say(&recorder, talker.open()).await;
        say(&recorder, talker.command()).await;
        task.close(SOON).await?;
        // Whoever removes recordings signs that with the host's key.
        let state = store.place.path("state");
        let config = json!({ "recorder": { "redis": store.url() }, "state_dir": state });
        store.place.file("interceptor.yaml", &config.to_string())?;
        Ok(Self {
            store,
            closed,
            open: talker.id(),
        })
    }

    fn folder(&self) -> String {
        self.store.place.path("archive").display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command
            .arg("--config")
            .arg(self.store.place.path("interceptor.yaml"))
            .args(arguments);
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments)?.output()?)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        done(&self.run(arguments)?)
    }

    fn entries(&self, stream: &str) -> Result<Vec<StreamEntry>> {
        let mut reader = self.store.reader()?;
        let key = match stream.len() {
            36 => reader.session_key(stream),
            _ => reader.key(stream),
        };
        Ok(reader.after(&key, "0-0", 1_000_000)?)
    }
}

fn done(output: &Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn objects(folder: &str) -> Result<Vec<PathBuf>> {
    let found = Command::new("find").args([folder, "-type", "f"]).output()?;
    let text = done(&found)?;
    Ok(text.lines().map(PathBuf::from).collect())
}

fn without_ids(entries: &[StreamEntry]) -> Vec<Vec<(String, Vec<u8>)>> {
    let fields = entries.iter().map(|entry| entry.fields.clone());
    fields
        .map(|fields| {
            let kept = fields.into_iter().filter(|(name, _)| name != "archived_id");
            kept.collect()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_leave_redis_and_come_back_as_they_were() -> Result<()> {
    let scene = Scene::new(5, 60).await?;
    let folder = scene.folder();
    let before: Vec<_> = scene
        .closed
        .iter()
        .map(|session| scene.entries(session))
        .collect::<Result<_>>()?;
    let listed_before = scene.entries("sessions")?;
    let shown_before = scene.ask(&["replay", &scene.closed[0], "--format", "json"])?;

    let told = scene.ask(&["archive", "--all", "--to", &folder, "--json"])?;
    assert_eq!(told.lines().count(), 5, "{told}");
    for session in &scene.closed {
        assert_eq!(scene.entries(session)?, [], "{session} is still there");
    }
    assert_eq!(scene.entries(&scene.open)?.len(), 2, "what is open stays");
    let listed = scene.entries("sessions")?;
    let removed: Vec<&StreamEntry> = listed
        .iter()
        .filter(|entry| entry.text("event") == "removed")
        .collect();
    assert_eq!(removed.len(), 5);
    assert_eq!(listed[..listed_before.len()], listed_before);
    let removed = removed[0];
    assert_eq!(removed.text("events"), "62");
    assert_eq!(removed.text("by"), "archive");
    assert_eq!(removed.text("archive"), folder);
    let of_it = before
        .iter()
        .find(|entries| entries[61].text("chain") == removed.text("chain"));
    assert!(
        of_it.is_some(),
        "the removal says what the chain's head was"
    );
    let sha = Command::new("sha256sum")
        .args(
            objects(&folder)?
                .iter()
                .filter(|path| path.to_string_lossy().contains(&removed.text("session"))),
        )
        .output()?;
    assert!(done(&sha)?.starts_with(&removed.text("sha256")));

    // What verifies recordings tells this from a loss.
    let told = scene.ask(&["verify", "--all"])?;
    assert!(told.contains("5 removed: as recorded"), "{told}");
    let signed = removed.text("heads");
    assert!(signed.ends_with(" removed\n"), "{signed}");
    let told = scene.ask(&["verify", &removed.text("session")])?;
    assert!(told.contains("removed, as a host signed"), "{told}");
    let verified = scene.ask(&["verify", "--all", "--archive", &folder, "--json"])?;
    assert!(
        verified.contains(&scene.closed[4]) || verified.contains("\"sessions\":5"),
        "{verified}"
    );

    // The documents' own program, which knows nothing of ours.
    let documents = include_str!("../../docs/keeping.md");
    let program = documents.split("```python\n").nth(1).context("a program")?;
    let program = program.split("```").next().context("its end")?;
    let reader = scene.store.place.file("reader.py", program)?;
    for object in objects(&folder)? {
        let line = format!(
            "zstd -dc {} | python3 {}",
            object.display(),
            reader.display()
        );
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", &line])
            .output()?;
        assert!(done(&output)?.contains("is whole, 62 events"));
    }

    // The archive, read by the commands that know Redis.
    let from = ["--archive", folder.as_str()];
    let shown =
        scene.ask(&[&["replay", &scene.closed[0], "--format", "json"], &from[..]].concat())?;
    assert_eq!(shown, shown_before);
    let list = scene.ask(&[&["sessions", "list", "--json"], &from[..]].concat())?;
    let ids: Vec<String> = list
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["session"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(sorted, scene.closed);
    let one = scene.ask(&[&["sessions", "show", "last", "--json"], &from[..]].concat())?;
    let one: Value = serde_json::from_str(&one)?;
    assert_eq!(one["kinds"]["command"], 60);
    assert_eq!(one["closed"], true);
    assert_eq!(
        scene
            .ask(&["archive", "list", "--from", &folder])?
            .lines()
            .count(),
        6
    );
    scene.ask(&["archive", "check", "--from", &folder])?;

    // And back.
    for session in &scene.closed {
        scene.ask(&["archive", "restore", session, "--from", &folder])?;
    }
    for (session, before) in scene.closed.iter().zip(&before) {
        assert_eq!(
            &scene.entries(session)?,
            before,
            "{session} is not as it was"
        );
    }
    let listed = scene.entries("sessions")?;
    for session in &scene.closed {
        let of = |entries: &[StreamEntry]| -> Vec<StreamEntry> {
            let is_its = |entry: &&StreamEntry| {
                entry.text("session") == *session
                    && ["open", "close"].contains(&entry.text("event").as_str())
            };
            entries.iter().filter(is_its).cloned().collect()
        };
        assert_eq!(without_ids(&of(&listed)), without_ids(&of(&listed_before)));
    }
    scene.ask(&["verify", "--all"])?;
    let again = scene.entries("sessions")?.len();
    scene.ask(&["archive", "restore", &scene.closed[0], "--from", &folder])?;
    assert_eq!(
        scene.entries("sessions")?.len(),
        again,
        "done again, it changes nothing"
    );
    assert_eq!(
        scene.ask(&["replay", &scene.closed[0], "--format", "json"])?,
        shown_before
    );

    // What came back goes again, and is the same: the object that is there will do.
    let told = scene.ask(&["archive", "--all", "--to", &folder, "--json"])?;
    assert!(
        told.lines().all(|line| line.contains("\"was_there\":true")),
        "{told}"
    );
    Ok(())
}

/// A session of which anything is wrong is where it was afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_redis_that_is_not_whole_in_the_archive() -> Result<()> {
    let scene = Scene::new(4, 20).await?;
    let folder = scene.folder();

    let open = scene.run(&["archive", "--session", &scene.open, "--to", &folder])?;
    assert!(
        !open.status.success() && said(&open).contains("it is open"),
        "{}",
        said(&open)
    );

    // A recording that somebody changed.
    let broken = &scene.closed[0];
    let key = format!("interceptor:session:{{{broken}}}");
    let third = scene.entries(broken)?[2].id.clone();
    scene.store.run(&["XDEL", &key, &third])?;
    let told = scene.run(&["archive", "--session", broken, "--to", &folder])?;
    assert!(!told.status.success());
    assert!(said(&told).contains("broken at event 2"), "{}", said(&told));
    assert_eq!(scene.entries(broken)?.len(), 21);
    assert_eq!(
        objects(&folder)?,
        [""; 0].map(PathBuf::from),
        "half of it is in the archive"
    );

    // A question that waits.
    let held = &scene.closed[1];
    let facts = json!({
        "id": "q1", "state": "open", "session": held, "exchange": 1, "agent": "bot", "uid": 0,
        "principal": {}, "process": {}, "target": "t", "origin": "o", "host": "h",
        "protocol": "postgres", "rule": "r", "message": "m", "text": "t", "parameters": null,
        "meta": {}, "digest": "d", "asks": [], "mode": "ticket", "on_timeout": "deny",
        "asked_at": 0, "expires_at": 99_999_999_999_i64, "timeout_s": 60, "answers": []
    });
    let facts = facts.to_string();
    scene
        .store
        .run(&["HSET", "interceptor:approval:{q1}", "json", &facts])?;
    let asked = [
        "XADD",
        "interceptor:approvals",
        "*",
        "kind",
        "asked",
        "id",
        "q1",
        "state",
        "open",
    ];
    scene.store.run(&asked)?;
    let told = scene.run(&["archive", "--session", held, "--to", &folder])?;
    assert!(
        said(&told).contains("waits for an answer"),
        "{}",
        said(&told)
    );
    assert_eq!(scene.entries(held)?.len(), 22);

    // A place that cannot be written to.
    let file = scene.store.place.file("file", "")?;
    let told = scene.run(&["archive", "--all", "--to", file.to_str().context("path")?])?;
    assert!(!told.status.success());

    // Nobody who could sign it: nothing is removed, and all may be archived.
    let others = json!({ "recorder": { "redis": scene.store.url() }, "state_dir": "/nowhere" });
    let others = scene.store.place.file("other.yaml", &others.to_string())?;
    let elsewhere = |arguments: &[&str]| -> Result<Output> {
        let mut command = Command::new(program()?);
        command.arg("--config").arg(&others).args(arguments);
        Ok(command.output()?)
    };
    let told = elsewhere(&["archive", "--session", &scene.closed[3], "--to", &folder])?;
    assert!(
        !told.status.success() && said(&told).contains("--keep"),
        "{}",
        said(&told)
    );
    assert_eq!(scene.entries(&scene.closed[3])?.len(), 22);
    done(&elsewhere(&[
        "archive",
        "--session",
        &scene.closed[3],
        "--to",
        &folder,
        "--keep",
    ])?)?;
    let by_url = [
        "archive",
        "--all",
        "--to",
        &folder,
        "--redis",
        &scene.store.url(),
    ];
    assert!(said(&scene.run(&by_url)?).contains("--keep"));

    // The others go.
    let told = scene.run(&["archive", "--all", "--to", &folder])?;
    assert!(!told.status.success(), "one of them was not archived");
    for (session, left) in scene.closed.iter().zip([21, 22, 0, 0]) {
        assert_eq!(scene.entries(session)?.len(), left, "{session}");
    }

    // What somebody deleted is missed, and not by those who were archived.
    let deleted = &scene.closed[1];
    scene
        .store
        .run(&["DEL", &format!("interceptor:session:{{{deleted}}}")])?;
    let told = scene.run(&["verify", deleted])?;
    assert!(!told.status.success());

    // An object that is damaged comes not back, and is found.
    let object = objects(&folder)?.pop().context("no object")?;
    let mut bytes = std::fs::read(&object)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&object, &bytes)?;
    let damaged = object
        .file_stem()
        .context("stem")?
        .to_string_lossy()
        .into_owned();
    assert!(
        !scene
            .run(&["archive", "check", "--from", &folder])?
            .status
            .success()
    );
    assert!(
        !scene
            .run(&["archive", "restore", &damaged, "--from", &folder])?
            .status
            .success()
    );
    assert_eq!(scene.entries(&damaged)?, []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_interrupted_can_do_it_again() -> Result<()> {
    let scene = Scene::new(1, 400).await?;
    let folder = scene.folder();
    let session = &scene.closed[0];
    let before = scene.entries(session)?;
    scene.ask(&["archive", "--all", "--to", &folder, "--keep"])?;
    assert_eq!(scene.entries(session)?, before, "it was to stay");
    let first = std::fs::read(&objects(&folder)?[0])?;

    // An upload that was cut off, without its rename.
    let half = format!("{}#1", objects(&folder)?[0].display());
    std::fs::write(&half, &first[..first.len() / 2])?;
    std::fs::rename(&half, &objects(&folder)?[0])?;
    scene.ask(&["archive", "--all", "--to", &folder])?;
    scene.ask(&["archive", "check", "--from", &folder])?;

    // A restoring that was cut off.
    scene.ask(&["archive", "restore", session, "--from", &folder])?;
    let key = format!("interceptor:session:{{{session}}}");
    scene.store.run(&["XTRIM", &key, "MINID", &before[0].id])?;
    for entry in &before[200..] {
        scene.store.run(&["XDEL", &key, &entry.id])?;
    }
    // Redis remembers the highest ID of a stream, so what is there must be made anew.
    scene.store.run(&["XSETID", &key, &before[199].id])?;
    scene.ask(&["archive", "restore", session, "--from", &folder])?;
    assert_eq!(scene.entries(session)?, before);

    // Another recording under the same name.
    scene.store.run(&["XDEL", &key, &before[10].id])?;
    let told = scene.run(&["archive", "restore", session, "--from", &folder])?;
    assert!(
        said(&told).contains("is another one there"),
        "{}",
        said(&told)
    );
    Ok(())
}

/// Against a server that speaks S3 over HTTP, in one part and in several.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_an_archive_too() -> Result<()> {
    let scene = Scene::new(2, 10).await?;
    let s3 = S3::start(&scene.store.place)?;
    // One that does not fit into one part of 8 MiB, however well it is packed.
    let (recorder, task) = scene.store.recorder(64 << 20)?;
    let mut large = Talker::new();
    say(&recorder, large.open()).await;
    let mut random = vec![0; 1 << 20];
    for _ in 0..9 {
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
        say(&recorder, large.command().with_data(random.clone())).await;
    }
    say(&recorder, large.close()).await;
    task.close(SOON).await?;
    let before = scene.entries(&large.id())?;

    let place = "s3://recordings/interceptor";
    let ask = |arguments: &[&str]| -> Result<String> {
        done(&scene.command(arguments)?.envs(s3.environment()).output()?)
    };
    let told = ask(&["archive", "--all", "--to", place, "--json"])?;
    assert_eq!(told.lines().count(), 3, "{told}");
    assert_eq!(scene.entries(&large.id())?, []);
    assert!(
        s3.log().contains("partNumber=2"),
        "it went in parts:\n{}",
        s3.log()
    );
    assert_eq!(
        ask(&["archive", "list", "--from", place])?.lines().count(),
        4
    );
    ask(&["archive", "check", "--from", place])?;
    let shown = ask(&[
        "sessions",
        "show",
        &large.id(),
        "--json",
        "--archive",
        place,
    ])?;
    assert_eq!(
        serde_json::from_str::<Value>(&shown)?["kinds"]["command"],
        9
    );
    ask(&["archive", "restore", &large.id(), "--from", place])?;
    assert!(scene.entries(&large.id())? == before);

    // Nobody answers, or somebody refuses: nothing leaves Redis, and no key is told.
    let refused = scene
        .command(&["archive", "--all", "--to", "s3://no-such-bucket/x"])?
        .envs(s3.environment())
        .output()?;
    assert!(!refused.status.success());
    let text = said(&refused);
    assert!(
        !text.contains(SECRET_KEY) && !text.contains(KEY_ID),
        "{text}"
    );
    assert!(scene.entries(&large.id())? == before);
    Ok(())
}

/// A session that is four times as long needs about as much memory: what is compared is two
/// lengths, since the program itself takes what it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_session_needs_no_memory_of_its_size() -> Result<()> {
    let short = peaks(96).await?;
    let long = peaks(384).await?;
    for (short, long) in short.into_iter().zip(long) {
        assert!(
            long < short + (12 << 10),
            "12 MiB took {short} KiB, and 48 MiB took {long} KiB"
        );
    }
    Ok(())
}

/// What archiving and restoring a session of so many events of 128 KiB take, in KiB.
async fn peaks(events: usize) -> Result<[u64; 2]> {
    let scene = Scene::new(0, 0).await?;
    let (recorder, task) = scene.store.recorder(64 << 20)?;
    let mut talker = Talker::new();
    say(&recorder, talker.open()).await;
    let mut data = vec![0; 128 << 10];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut data)?;
    for _ in 0..events {
        say(&recorder, talker.command().with_data(data.clone())).await;
    }
    say(&recorder, talker.close()).await;
    task.close(SOON).await?;
    let folder = scene.folder();
    let peak = |arguments: &[&str]| -> Result<u64> {
        let output = Command::new("python3")
            .args(["-c", PEAK])
            .arg(program()?)
            .arg("--config")
            .arg(scene.store.place.path("interceptor.yaml"))
            .args(arguments)
            .output()?;
        done(&output)?;
        said(&output).trim().parse().context(said(&output))
    };
    let peaks = [
        peak(&["archive", "--all", "--to", &folder])?,
        peak(&["archive", "restore", "last", "--from", &folder])?,
    ];
    println!("{events} events: {peaks:?} KiB");
    Ok(peaks)
}

/// Runs a command, and says how much memory it had at most, in KiB.
const PEAK: &str = "import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(done.returncode)";
