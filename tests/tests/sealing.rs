//! What masks hid is there for whoever holds the key, and for nobody else.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::place::Place;
use interceptor_tests::records::Records;
use interceptor_tests::world::{Plan, Shared, one_target};
use interceptor_tests::{sshd, web};
use serde_json::{Value, json};

/// Of `age-keygen`, for this test alone.
const RECIPIENT: &str = "age1jf2k3hggxmkgv8h5ken5umz3d03hdkqzmxnuvp2y5zvfk0zz9pvsxqanw6";
const IDENTITY: &str = "AGE-SECRET-KEY-1AGL7654UJ2FHHSAC5ZPM8040G3MCUYL28Z8L23VG7WASC6JFYLLQMGQG8W";
const OTHER: &str = "AGE-SECRET-KEY-19RXKU0D63QXWLUGXGVAML4JUA99GWEL2UCP29Z4JG5Y2E0SE7TLS7FP7EC";

const CARD: &str = "4111111111111111";

fn sealed(mut config: Value) -> Value {
    if let Some(config) = config.as_object_mut() {
        let recorder = json!({ "seal_to": RECIPIENT, "evidence": { "heads_every": "100ms" } });
        config.insert("recorder".to_owned(), recorder);
    }
    config
}

static WORLD: Shared = Shared::new(|| Plan {
    rules: r#"
version: 1
rules:
  - name: ssn-is-hidden
    match: { protocol: postgres }
    mask:
      - columns: ["users.ssn"]
        with: redact
"#,
    config: |postgres, place| sealed(one_target(postgres, place)),
    ..Plan::default()
});

fn key(place: &Place, secret: &str) -> Result<PathBuf> {
    let name = secret.chars().rev().take(8).collect::<String>();
    place.private_file(&name, &format!("# created: today\n{secret}\n"))
}

/// With the key, `value` is shown in both forms, marked; without it, it is nowhere.
fn shown_with_the_key_alone(
    daemon: &Daemon,
    place: &Place,
    records: &mut Records,
    session: &str,
    value: &str,
) -> Result<()> {
    let right = key(place, IDENTITY)?;
    let right = right.to_str().context("a path that is no text")?;
    assert_eq!(records.keys_that_hold(value.as_bytes())?, [""; 0]);

    let plain = daemon.ask(&["replay", session, "--instant"])?;
    assert!(!plain.contains(value), "{plain}");
    assert!(!plain.contains("UNMASKED"), "{plain}");
    let text = daemon.ask(&["replay", session, "--instant", "--unseal", right])?;
    assert!(text.contains(value), "{text}");
    assert!(text.contains("UNMASKED"), "{text}");
    let lines = daemon.ask(&["replay", session, "--format", "json", "--unseal", right])?;
    let marked = lines.lines().filter(|line| line.contains(value));
    let marked: Vec<&str> = marked.collect();
    assert!(!marked.is_empty(), "{lines}");
    assert!(marked.iter().all(|line| line.contains("\"unmasked\":true")));
    let lines = daemon.ask(&["replay", session, "--format", "json"])?;
    assert!(lines.contains("\"sealed_bytes\""), "{lines}");

    let wrong = key(place, OTHER)?;
    let wrong = wrong.to_str().context("a path that is no text")?;
    let done = daemon.command(&["replay", session, "--instant", "--unseal", wrong])?;
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("sealed to another key"), "{said}");
    assert!(!String::from_utf8_lossy(&done.stdout).contains(value));

    daemon.ask(&["verify", session])?;
    let log = daemon.server().log();
    assert!(!log.contains(value));
    Ok(())
}

#[test]
fn masked_columns_are_there_for_who_has_the_key() -> Result<()> {
    WORLD.test(|world| {
        let script = "SELECT name, ssn FROM users ORDER BY id;\nSELECT 'nothing hidden';\n\
                      COPY users (name, ssn) TO STDOUT;\n";
        world
            .agent("teller")
            .psql(world.postgres.port, script)?
            .ok()?;
        let mut records = world.records()?;
        let (session, _) = records.only_session_of("teller")?;
        let stream = records.stream(&format!("interceptor:session:{{{session}}}"))?;
        let sealed = stream.iter().filter(|entry| entry.contains_key("sealed"));
        let shown = world.daemon.ask(&["replay", &session, "--instant"])?;
        assert_eq!(
            sealed.count(),
            2,
            "only where something was hidden: {shown}"
        );
        let (daemon, place) = (&world.daemon, &world.place);
        shown_with_the_key_alone(daemon, place, &mut records, &session, "219-09-9999")
    })
}

/// The chain covers it.
#[test]
fn a_change_of_what_is_sealed_is_found() -> Result<()> {
    WORLD.test(|world| {
        let script = "SELECT ssn FROM users;\n";
        world
            .agent("forger")
            .psql(world.postgres.port, script)?
            .ok()?;
        let mut records = world.records()?;
        let (session, _) = records.only_session_of("forger")?;
        let key = format!("interceptor:session:{{{session}}}");
        let client = redis::Client::open(world.redis.url())?;
        let mut connection = client.get_connection()?;
        type Entry = (String, Vec<(String, Vec<u8>)>);
        let entries: Vec<Entry> = redis::cmd("XRANGE")
            .arg(&key)
            .arg("-")
            .arg("+")
            .query(&mut connection)?;
        redis::cmd("DEL").arg(&key).exec(&mut connection)?;
        for (id, fields) in entries {
            let mut add = redis::cmd("XADD");
            add.arg(&key).arg(id);
            for (name, value) in fields {
                let mut value = value;
                if name == "sealed"
                    && let Some(last) = value.last_mut()
                {
                    *last ^= 1;
                }
                add.arg(name).arg(value);
            }
            add.exec(&mut connection)?;
        }
        let done = world.daemon.command(&["verify", &session])?;
        assert_eq!(done.status.code(), Some(1));
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(said.contains("the event was changed"), "{said}");
        Ok(())
    })
}

static WEB: web::Shared = web::Shared::new(web::Plan {
    rules: r#"
version: 1
rules:
  - name: cards-are-hidden
    match: { protocol: http }
    mask: [{ detect: [credit_card], with: redact }]
"#,
    config: |nginx, place| Ok(sealed(web::all_targets(nginx, place)?)),
});

#[test]
fn masked_bodies_are_there_for_who_has_the_key() -> Result<()> {
    WEB.test(|web| {
        // An agent's own words are on record as they are.
        let url = format!(
            "url = \"http://127.0.0.1:{}/here?card={CARD}\"",
            web.nginx.port
        );
        let file = web.place.file("request", &url)?;
        let file = file.to_str().context("a path that is no text")?;
        let done = web.curl("buyer", &["-K", file])?.ok()?;
        assert!(!done.stdout.contains(CARD), "{}", done.stdout);
        let mut records = web.records()?;
        let (session, _) = records.only_session_of("buyer")?;
        shown_with_the_key_alone(&web.daemon, &web.place, &mut records, &session, CARD)
    })
}

static SHELL: sshd::Shared = sshd::Shared::new(sshd::Plan {
    rules: r#"
version: 1
rules:
  - name: cards-are-hidden
    match: { ssh: { kind: [exec, shell] } }
    mask: [{ detect: [credit_card], with: redact }]
"#,
    config: |sshd, place| Ok(sealed(sshd::with_credentials(sshd, place)?)),
});

#[test]
fn masked_output_of_commands_is_there_for_who_has_the_key() -> Result<()> {
    SHELL.test(|shell| {
        let script = "echo first; printf '41111111%s\\n' 11111111; echo last";
        let done = shell.ssh("operator", &[script])?.ok()?;
        assert!(!done.stdout.contains(CARD), "{}", done.stdout);
        let mut records = shell.records()?;
        let (session, _) = records.only_session_of("operator")?;
        let (daemon, place) = (&shell.daemon, &shell.place);
        shown_with_the_key_alone(daemon, place, &mut records, &session, CARD)
    })
}
