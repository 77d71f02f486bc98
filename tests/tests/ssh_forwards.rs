//! What runs through a forward is found out, judged and recorded like anything else.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use interceptor_tests::agent::Finished;
use interceptor_tests::nginx::Nginx;
use interceptor_tests::place::{Place, free_port};
use interceptor_tests::postgres::{Options, Postgres};
use interceptor_tests::records::Recorded;
use interceptor_tests::sshd::{Plan, Shared, Shell, Sshd, target};
use serde_json::{Value, json};

const RULES: &str = r#"
version: 1
rules:
  - name: orders-are-kept
    match: { target: { name: orders }, postgres: { statement: DELETE } }
    verdict: block
    message: Orders are not deleted, by no road.
  - name: no-secrets
    match: { target: { name: pages }, http: { path: "/secret/**" } }
    verdict: block
    message: Secrets stay where they are.
  - name: reverse-pages
    match: { principal: { agent: opener }, protocol: http }
    verdict: allow
"#;

/// What lies behind the SSH server.
struct Behind {
    orders: Postgres,
    pages: Nginx,
    /// Where an agent has its own ssh listen.
    tunnel: u16,
}

static BEHIND: OnceLock<Behind> = OnceLock::new();

fn behind() -> Result<&'static Behind> {
    BEHIND.get().context("nothing was started")
}

fn config(sshd: &Sshd, place: &Place) -> Result<Value> {
    let sql = "CREATE TABLE orders (id int, who text); INSERT INTO orders VALUES (1, 'Ada');";
    let options = Options {
        sql: sql.to_owned(),
        ..Options::default()
    };
    let orders = Postgres::start(place, "orders", &options)?;
    let pages = Nginx::start(place, "pages")?;
    let tunnel = free_port()?;
    let key = json!({ "user": sshd.user, "key": { "file": sshd.key } });
    let targets = json!([
        target(sshd, &json!({ "credentials": key })),
        {
            "name": "orders", "host": "localhost", "port": orders.port, "via": "build-host",
            "protocol": "postgres", "default": "allow", "credentials": { "user": "postgres" },
        },
        {
            "name": "pages", "address": "127.0.0.1", "port": pages.port, "via": "build-host",
            "protocol": "http", "default": "allow",
        },
        target(sshd, &json!({ "name": "second-host", "via": "build-host", "credentials": key })),
        {
            "name": "tunnel", "address": "127.0.0.1", "port": tunnel,
            "protocol": "postgres", "default": "allow",
        },
        {
            "name": "own-pages", "address": "127.0.0.1", "port": pages.port,
            "protocol": "http", "default": "allow",
        },
    ]);
    let made = Behind {
        orders,
        pages,
        tunnel,
    };
    anyhow::ensure!(BEHIND.set(made).is_ok(), "started twice");
    Ok(json!({ "targets": targets }))
}

static SHELL: Shared = Shared::new(Plan {
    rules: RULES,
    config,
});

fn opening(events: &[Recorded]) -> Result<&Value> {
    Ok(&events.first().context("no event")?.meta)
}

/// The sessions of an agent: by what they speak.
fn session_in(shell: &Shell, agent: &str, protocol: &str, arrival: &str) -> Result<Vec<Recorded>> {
    for _ in 0..50 {
        for (_, events) in shell.records()?.closed_sessions_of(agent, 1)? {
            let meta = opening(&events)?;
            if meta["protocol"] == protocol && meta["arrival"] == arrival {
                return Ok(events);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("no session of {agent} speaks {protocol} and came by {arrival}")
}

/// Says something through a forward, listens for a moment, and closes.
fn say(shell: &Shell, agent: &str, to: &str, text: &str) -> Result<Finished> {
    let script = r#"(printf %b "$0"; sleep 1) | exec "$@""#;
    let mut words = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    words.push(text.to_owned());
    words.extend(shell.words(&["-W", to], &[]));
    shell.agent(agent).run(&words)
}

#[test]
fn http_through_a_forward_is_judged_by_the_rules_of_what_lies_behind() -> Result<()> {
    SHELL.test(|shell| {
        let pages = &behind()?.pages;
        let to = format!("127.0.0.1:{}", pages.port);
        let ask = |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
            say(shell, "surfer", &to, &request)
        };
        let open = ask("/open")?.ok()?;
        assert!(open.stdout.contains("hello /open"), "{}", open.stdout);
        let refused = ask("/secret/key")?;
        assert!(
            refused.stdout.starts_with("HTTP/1.1 403"),
            "{}",
            refused.stdout
        );
        assert!(
            refused.stdout.contains("Secrets stay"),
            "{}",
            refused.stdout
        );
        assert!(!pages.saw("/secret/key")?);

        let events = session_in(shell, "surfer", "http", "local_forward")?;
        let meta = opening(&events)?;
        assert_eq!(meta["origin"], format!("{to} via build-host"));
        assert_eq!(meta["target"], "pages");
        let outer = session_in(shell, "surfer", "ssh", "redirect")?;
        let sessions = shell.records()?.closed_sessions_of("surfer", 4)?;
        let inside = meta["inside"]["session"].as_str().context("not inside")?;
        assert!(sessions.iter().any(|(id, events)| {
            id == inside
                && events
                    .first()
                    .is_some_and(|one| one.meta["protocol"] == "ssh")
        }));
        assert!(outer.iter().any(|event| event.kind == "channel"
            && event.line.contains(&format!("direct-tcpip {to}, session"))));
        Ok(())
    })
}

#[test]
fn a_database_through_a_tunnel_is_judged_and_the_agent_knows_no_password() -> Result<()> {
    SHELL.test(|shell| {
        let behind = behind()?;
        let listen = format!("{}:localhost:{}", behind.tunnel, behind.orders.port);
        let running = shell
            .agent("digger")
            .start(&shell.words(&["-N", "-L", &listen], &[]))?;
        let psql = |sql: &str| shell.agent("digger").psql(behind.tunnel, sql);
        let mut found = psql("SELECT who FROM orders;")?;
        for _ in 0..50 {
            if found.status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            found = psql("SELECT who FROM orders;")?;
        }
        let found = found.ok()?;
        assert!(found.stdout.contains("Ada"), "{}", found.stdout);
        let refused = psql("DELETE FROM orders;")?;
        assert!(refused.stderr.contains("by no road"), "{}", refused.stderr);
        assert_eq!(
            behind.orders.sql("SELECT count(*) FROM orders")?.trim(),
            "1"
        );
        running.signal(nix::sys::signal::Signal::SIGTERM)?;
        running.finish(std::time::Duration::from_secs(10))?;
        let events = session_in(shell, "digger", "postgres", "local_forward")?;
        assert_eq!(opening(&events)?["target"], "orders");
        Ok(())
    })
}

#[test]
fn what_is_not_listed_behind_a_server_is_refused_as_it_is_here() -> Result<()> {
    SHELL.test(|shell| {
        // The same address is a target here, and another machine's there.
        let to = format!("localhost:{}", behind()?.pages.port);
        let request = "GET /unlisted HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let done = say(shell, "wanderer", &to, request)?;
        assert!(done.stdout.starts_with("HTTP/1.1 403"), "{}", done.stdout);
        assert!(!behind()?.pages.saw("/unlisted")?);
        // And a protocol that nobody reads.
        let done = say(shell, "wanderer", &to, "\x07\x07nobody knows\r\n\r\n")?;
        assert_eq!(done.stdout, "");
        let events = session_in(shell, "wanderer", "unknown", "local_forward")?;
        let close = events.last().context("no close")?;
        assert!(
            close.line.contains("`uninspected` is `block`"),
            "{}",
            close.line
        );
        Ok(())
    })
}

#[test]
fn ssh_through_ssh_is_ssh() -> Result<()> {
    SHELL.test(|shell| {
        let outer = shell.words(&["-W", &format!("127.0.0.1:{}", shell.sshd.port)], &[]);
        let proxy = format!("ProxyCommand={}", outer.join(" "));
        // It runs what leads there in the user's shell, and this user has none.
        let mut words = vec!["env".to_owned(), "SHELL=/bin/sh".to_owned()];
        words.extend(shell.words(&["-o", &proxy], &["echo", "far-$((40+2))"]));
        let done = shell.agent("jumper").run(&words)?;
        let done = done.ok()?;
        assert_eq!(done.stdout, "far-42\n");
        let inner = session_in(shell, "jumper", "ssh", "local_forward")?;
        assert_eq!(opening(&inner)?["target"], "second-host");
        assert!(
            inner
                .iter()
                .any(|event| event.kind == "command" && event.line.contains("far-"))
        );
        Ok(())
    })
}

#[test]
fn what_comes_by_a_remote_forward_is_judged_as_well() -> Result<()> {
    SHELL.test(|shell| {
        let pages = &behind()?.pages;
        let reverse = |agent: &str, path: &str| {
            let port = free_port()?;
            let forward = format!("127.0.0.1:{port}:127.0.0.1:{}", pages.port);
            let command = format!("curl -s --max-time 10 http://127.0.0.1:{port}{path}");
            shell
                .agent(agent)
                .run(&shell.words(&["-R", &forward], &[&command]))
        };
        let done = reverse("opener", "/from-far")?;
        assert!(
            done.stdout.contains("hello /from-far"),
            "{} {}",
            done.stdout,
            done.stderr
        );
        let done = reverse("closed", "/refused-far")?;
        assert!(
            done.stdout.contains("no rule allows this"),
            "{}",
            done.stdout
        );
        assert!(!pages.saw("/refused-far")?);
        let events = session_in(shell, "opener", "http", "remote_forward")?;
        let origin = opening(&events)?["origin"].as_str().context("no origin")?;
        assert!(
            origin.ends_with("via build-host (remote forward)"),
            "{origin}"
        );
        Ok(())
    })
}
