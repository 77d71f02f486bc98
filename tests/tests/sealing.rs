//! What masks hid is there for whoever holds the key, and for nobody else.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::Daemon;
use interceptor_tests::needs;
use interceptor_tests::peers::Peers;
use interceptor_tests::place::Place;
use interceptor_tests::records::Records;
use interceptor_tests::tmux::Tmux;
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
      - detect: [email]
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

/// The kinds of events that have something sealed beside them.
fn sealed_kinds(records: &mut Records, session: &str) -> Result<Vec<String>> {
    let stream = records.stream(&format!("interceptor:session:{{{session}}}"))?;
    let sealed = stream
        .into_iter()
        .filter(|entry| entry.contains_key("sealed"));
    let kind = |mut entry: interceptor_tests::records::Fields| {
        let kind = entry.remove("kind").unwrap_or_default();
        String::from_utf8_lossy(&kind).into_owned()
    };
    Ok(sealed.map(kind).collect())
}

#[test]
fn statements_and_copied_rows_are_there_for_who_has_the_key_and_passwords_for_nobody() -> Result<()>
{
    WORLD.test(|world| {
        let script = "SELECT length('ada@example.org');\n\
                      CREATE TEMP TABLE mails (mail text);\n\
                      COPY mails FROM STDIN;\nada@example.org\n\\.\n\
                      CREATE ROLE nobody_s PASSWORD 'eve@example.org';\n";
        world.agent("writer").psql(world.postgres.port, script)?;
        let mut records = world.records()?;
        let (session, _) = records.only_session_of("writer")?;
        let kinds = sealed_kinds(&mut records, &session)?;
        assert_eq!(
            kinds,
            ["command", "input"],
            "and not the password's statement"
        );
        let (daemon, place) = (&world.daemon, &world.place);
        shown_with_the_key_alone(daemon, place, &mut records, &session, "ada@example.org")?;
        let right = key(place, IDENTITY)?;
        let right = right.to_str().context("a path that is no text")?;
        let text = daemon.ask(&["replay", &session, "--format", "json", "--unseal", right])?;
        assert!(
            text.contains("nobody_s") && !text.contains("eve@"),
            "{text}"
        );
        Ok(())
    })
}

#[test]
fn parameters_are_there_for_who_has_the_key() -> Result<()> {
    WORLD.test(|world| {
        let program = "import psycopg, sys\n\
                       with psycopg.connect(sys.argv[1]) as shop:\n    \
                       row = shop.execute('SELECT length(%s)', [sys.argv[2] + '@example.org'])\n    \
                       print(row.fetchone()[0])\n";
        let place = format!("host=127.0.0.1 port={} user=agent dbname=postgres", world.postgres.port);
        let agent = world.agent("binder");
        let done = agent.python(&world.place, program, &[&place, "ada"])?.ok()?;
        assert_eq!(done.stdout, "15\n");
        let mut records = world.records()?;
        let (session, _) = records.only_session_of("binder")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["command"]);
        let (daemon, place) = (&world.daemon, &world.place);
        shown_with_the_key_alone(daemon, place, &mut records, &session, "ada@example.org")
    })
}

/// The agent gets an error without the value that the server quotes.
#[test]
fn errors_are_there_for_who_has_the_key() -> Result<()> {
    WORLD.test(|world| {
        let script = "SELECT ('of eve'||chr(64)||'example.org')::int;\n";
        let done = world.agent("failer").psql(world.postgres.port, script)?;
        ensure!(!done.stderr.contains("eve@"), "{}", done.stderr);
        let mut records = world.records()?;
        let (session, _) = records.only_session_of("failer")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["error"]);
        let (daemon, place) = (&world.daemon, &world.place);
        shown_with_the_key_alone(daemon, place, &mut records, &session, "eve@example.org")
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
    mask:
      - { detect: [credit_card], with: redact }
      - { detect: [email], with: redact, direction: request }
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

#[test]
fn bodies_of_requests_are_there_for_who_has_the_key() -> Result<()> {
    WEB.test(|web| {
        // One is hidden in what is recorded, the other in what the service gets as well.
        let body = format!("{}card {CARD} of ada@example.org", "words, ".repeat(200));
        let file = web.place.file("body", &body)?;
        let file = format!("@{}", file.display());
        let url = format!("http://127.0.0.1:{}/upload", web.nginx.port);
        web.curl("payer", &["--data-binary", &file, &url])?.ok()?;
        let mut records = web.records()?;
        let (session, _) = records.only_session_of("payer")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["input"]);
        for value in [CARD, "ada@example.org"] {
            shown_with_the_key_alone(&web.daemon, &web.place, &mut records, &session, value)?;
        }
        Ok(())
    })
}

/// With the key, `value` is nowhere either.
fn shown_to_nobody(daemon: &Daemon, place: &Place, session: &str, value: &str) -> Result<()> {
    let right = key(place, IDENTITY)?;
    let right = right.to_str().context("a path that is no text")?;
    for format in ["text", "json"] {
        let arguments = ["--format", format, "--unseal", right];
        let shown = daemon.ask(&[&["replay", session, "--instant"][..], &arguments].concat())?;
        ensure!(!shown.contains(value), "{shown}");
    }
    Ok(())
}

#[test]
fn fields_and_addresses_are_there_for_who_has_the_key_and_what_authenticates_for_nobody()
-> Result<()> {
    WEB.test(|web| {
        let lines = format!(
            "url = \"http://127.0.0.1:{}/cookie?token=of-the-agent&password=word-one&card={CARD}\"\n\
             header = \"Cookie: id=the-agent-s\"\n\
             header = \"Authorization: Bearer word-two\"\n",
            web.nginx.port
        );
        let file = web.place.file("fields", &lines)?;
        let file = file.to_str().context("a path that is no text")?;
        web.curl("caller", &["-K", file])?.ok()?;
        let mut records = web.records()?;
        let (session, _) = records.only_session_of("caller")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["command", "result"]);
        for value in [CARD, "of-the-agent", "the-agent-s", "of-the-service"] {
            shown_with_the_key_alone(&web.daemon, &web.place, &mut records, &session, value)?;
        }
        for value in ["word-one", "word-two"] {
            assert_eq!(records.keys_that_hold(value.as_bytes())?, [""; 0]);
            shown_to_nobody(&web.daemon, &web.place, &session, value)?;
        }
        Ok(())
    })
}

/// An archive has addresses, fields and bodies in their places, and says of which exchange.
#[test]
fn an_archive_has_what_masks_hid_for_who_has_the_key() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}", web.nginx.port);
        let body = web.place.file("paid", &format!("card {CARD}"))?;
        let lines = format!(
            "url = \"{url}/here?card={CARD}\"\nurl = \"{url}/empty\"\nnext\n\
             url = \"{url}/upload\"\ndata-binary = \"@{}\"\nheader = \"X-Card: {CARD}\"\n",
            body.display()
        );
        let file = web.place.file("archived", &lines)?;
        let file = file.to_str().context("a path that is no text")?;
        web.curl("archived", &["-K", file])?.ok()?;
        let (session, _) = web.records()?.only_session_of("archived")?;

        let har = ["replay", &session, "--format", "har"];
        let hidden = web.daemon.ask(&har)?;
        ensure!(
            !hidden.contains(CARD) && !hidden.contains("_unmasked"),
            "{hidden}"
        );
        let right = key(&web.place, IDENTITY)?;
        let right = right.to_str().context("a path that is no text")?;
        let shown = web.daemon.ask(&[&har[..], &["--unseal", right]].concat())?;
        let archive: Value = serde_json::from_str(&shown)?;
        let entries = archive["log"]["entries"].as_array().context("no entries")?;
        let [here, empty, upload] = entries.as_slice() else {
            anyhow::bail!("{shown}");
        };
        let has = |value: &Value| value.to_string().contains(CARD);
        ensure!(has(&here["request"]["url"]), "{here}");
        ensure!(has(&here["request"]["queryString"]), "{here}");
        ensure!(has(&here["response"]["content"]["text"]), "{here}");
        ensure!(has(&upload["request"]["headers"]), "{upload}");
        assert_eq!(
            upload["request"]["postData"]["text"],
            format!("card {CARD}")
        );
        let marks = [here, empty, upload].map(|entry| entry.get("_unmasked"));
        assert_eq!(marks, [Some(&json!(true)), None, Some(&json!(true))]);

        let wrong = key(&web.place, OTHER)?;
        let wrong = wrong.to_str().context("a path that is no text")?;
        let done = web
            .daemon
            .command(&[&har[..], &["--unseal", wrong]].concat())?;
        assert_eq!(done.status.code(), Some(1));
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(said.contains("sealed to another key"), "{said}");
        assert_eq!(String::from_utf8(done.stdout)?, hidden);
        let done = web
            .daemon
            .command(&["replay", &session, "--format", "sql", "--unseal", right])?;
        assert_eq!(done.status.code(), Some(2));
        Ok(())
    })
}

/// What is long is compressed before it is sealed, and `age` alone opens it.
#[test]
fn what_is_long_is_sealed_compressed() -> Result<()> {
    WEB.test(|web| {
        let body = format!("card {CARD}{}", ", the same words".repeat(3000));
        let file = web.place.file("long", &body)?;
        let file = format!("@{}", file.display());
        let url = format!("http://127.0.0.1:{}/upload", web.nginx.port);
        web.curl("writer", &["--data-binary", &file, &url])?.ok()?;
        let mut records = web.records()?;
        let (session, _) = records.only_session_of("writer")?;
        let stream = records.stream(&format!("interceptor:session:{{{session}}}"))?;
        let sealed: usize = stream
            .iter()
            .filter_map(|entry| entry.get("sealed"))
            .map(|sealed| sealed.len())
            .sum();
        ensure!(sealed > 0 && sealed < body.len() / 10, "{sealed}");
        shown_with_the_key_alone(&web.daemon, &web.place, &mut records, &session, CARD)
    })
}

const PEERS: &str = "
version: 1
rules:
  - name: no-ssn
    match: { http: { grpc: { service: shop.Shop } } }
    mask: [{ json: [/ssn], with: { partial: { keep_last: 4 } } }]
  - name: no-cards
    match: { target: { name: websocket } }
    mask:
      - { detect: [credit_card], with: redact }
      - { detect: [email], with: redact, direction: request }
";

#[test]
fn messages_of_grpc_and_of_websockets_are_there_for_who_has_the_key() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let peers = Peers::start_with(PEERS, &sealed(json!({})))?;
    peers.test(|peers| {
        let calls = r#"
import grpc, sys
channel = grpc.insecure_channel(sys.argv[1])
get = channel.unary_unary("/shop.Shop/Get", Ask.SerializeToString, Customer.FromString)
several = channel.unary_stream("/shop.Shop/List", Ask.SerializeToString, Customer.FromString)
print(get(Ask(id=1), timeout=20).ssn, [one.ssn for one in several(Ask(id=1), timeout=20)])
"#;
        let address = format!("127.0.0.1:{}", peers.grpc);
        let done = peers.grpc_client("caller", calls, &[&address])?.ok()?;
        let ssn = "856-45-6789";
        ensure!(
            !done.stdout.contains(ssn) && done.stdout.contains("*6789"),
            "{}",
            done.stdout
        );
        let mut records = peers.records()?;
        let (session, _) = records.only_session_of("caller")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["output"; 4]);
        shown_with_the_key_alone(&peers.daemon, &peers.place, &mut records, &session, ssn)?;

        let talk = r#"
import sys
from websockets.sync.client import connect
with connect(sys.argv[1], compression="deflate", open_timeout=20) as socket:
    for message in ("card", "of ada@" + "example.org", "nothing"):
        socket.send(message)
        print(socket.recv(timeout=20)[-30:])
"#;
        let url = format!("ws://127.0.0.1:{}/", peers.websocket);
        let done = peers.python("talker", talk, &[&url])?.ok()?;
        ensure!(done.stdout.contains("of [redacted]"), "{}", done.stdout);
        let (session, _) = records.only_session_of("talker")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["output", "input"]);
        for value in ["4111 1111 1111 1111", "ada@example.org"] {
            shown_with_the_key_alone(&peers.daemon, &peers.place, &mut records, &session, value)?;
        }
        Ok(())
    })
}

static SHELL: sshd::Shared = sshd::Shared::new(sshd::Plan {
    rules: r#"
version: 1
rules:
  - name: cards-are-hidden
    match: { ssh: { kind: [exec, shell] } }
    mask: [{ detect: [credit_card], with: redact }]
  - name: no-mail-leaves
    match: { target: { address: 127.0.0.1 } }
    mask: [{ detect: [email], with: redact, direction: request }]
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

#[test]
fn masked_input_of_commands_is_there_for_who_has_the_key() -> Result<()> {
    SHELL.test(|shell| {
        let input = format!("{}to ada@example.org\n", "line\n".repeat(10));
        let words = shell.words(&[], &["cat"]);
        let done = shell.agent("sender").run_with_input(&words, &input)?.ok()?;
        ensure!(done.stdout.ends_with("to [redacted]\n"), "{}", done.stdout);
        let mut records = shell.records()?;
        let (session, _) = records.only_session_of("sender")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["input"]);
        let (daemon, place) = (&shell.daemon, &shell.place);
        shown_with_the_key_alone(daemon, place, &mut records, &session, "ada@example.org")
    })
}

#[test]
fn lines_of_commands_are_there_for_who_has_the_key() -> Result<()> {
    SHELL.test(|shell| {
        // Not among the words of ssh, which are on record as the agent's process.
        let file = format!("RemoteCommand : {CARD}\n");
        let file = shell.place.file("ssh_config", &file)?;
        let file = file.to_str().context("a path that is no text")?;
        let words = shell.words(&["-F", file], &[]);
        shell.agent("commander").run(&words)?.ok()?;
        let mut records = shell.records()?;
        let (session, _) = records.only_session_of("commander")?;
        assert_eq!(sealed_kinds(&mut records, &session)?, ["command"]);
        let (daemon, place) = (&shell.daemon, &shell.place);
        shown_with_the_key_alone(daemon, place, &mut records, &session, CARD)
    })
}

/// What is typed shows in the output, and as a line; a password does neither.
#[test]
fn a_terminal_is_there_for_who_has_the_key_and_a_password_that_is_typed_for_nobody() -> Result<()> {
    SHELL.test(|shell| {
        let desk = Tmux::shell(shell, "sitter")?;
        desk.runs(&format!("echo {CARD}"), "[redacted]")?;
        desk.runs("printf 'paid %s\\n' 55555555''55554444", "paid [redacted]")?;
        desk.enters("read -rsp 'Password: ' word; echo taken")?;
        desk.shows("Password:")?;
        desk.enters("word-three")?;
        desk.shows("Password: taken")?;
        desk.leaves(0)?;
        let mut records = shell.records()?;
        let (session, _) = records.only_session_of("sitter")?;
        let kinds = sealed_kinds(&mut records, &session)?;
        ensure!(kinds.contains(&"command".to_owned()), "{kinds:?}");
        ensure!(kinds.contains(&"output".to_owned()), "{kinds:?}");
        let (daemon, place) = (&shell.daemon, &shell.place);
        for value in [CARD, "5555555555554444"] {
            shown_with_the_key_alone(daemon, place, &mut records, &session, value)?;
        }
        assert_eq!(records.keys_that_hold(b"word-three")?, [""; 0]);
        shown_to_nobody(daemon, place, &session, "word-three")
    })
}
