//! `interceptor replay SESSION --to TARGET`.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use anyhow::{Context as _, Result};
use interceptor_tests::certs::Certificates;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::nginx::Nginx;
use interceptor_tests::place::{self, Place};
use interceptor_tests::postgres::{Options, Postgres, SAMPLE};
use interceptor_tests::web;
use interceptor_tests::world::{Plan, Shared, World, target};
use serde_json::{Value, json};

static WORLD: Shared = Shared::new(|| Plan {
    rules: r#"
version: 1
rules:
  - { name: no-drop, match: { postgres: { statement: DROP } }, verdict: block }
  - name: ssn-is-hidden
    match: { protocol: postgres }
    mask: [{ columns: ["users.ssn"], with: redact }]
"#,
    config: |postgres, place| {
        let port = place::free_port().unwrap_or(0);
        let _ = place.file("listener-port", &port.to_string());
        json!({
            "targets": [target(postgres)],
            "listeners": [{ "listen": format!("127.0.0.1:{port}"), "target": "shop", "agent": "library" }],
        })
    },
    ..Plan::default()
});

/// A second shop, as the first one was before anybody was there.
fn scratch(place: &Place, name: &str) -> Result<Postgres> {
    let options = Options {
        sql: SAMPLE.to_owned(),
        ..Options::default()
    };
    Postgres::start(place, name, &options)
}

fn again(daemon: &Daemon, session: &str, to: &str, options: &[&str]) -> Result<(i32, String)> {
    let done: Output = daemon.command(&[&["replay", session, "--to", to], options].concat())?;
    let text = String::from_utf8(done.stdout)? + &String::from_utf8(done.stderr)?;
    Ok((done.status.code().unwrap_or(-1), text))
}

fn url(port: u16) -> String {
    format!("postgresql://postgres@127.0.0.1:{port}/postgres")
}

const SCRIPT: &str = "CREATE TABLE stock (id int, what text);\n\
    COPY stock FROM STDIN;\n1\tnut\n2\tbolt\n\\.\n\
    UPDATE stock SET what = 'screw' WHERE id = 2;\n\
    SELECT name, ssn FROM users ORDER BY id;\n\
    DROP TABLE users;\n\
    SELECT * FROM nowhere;\n\
    SELECT * FROM stock ORDER BY id;\n";

fn recorded(world: &World, agent: &str) -> Result<String> {
    world.agent(agent).psql(world.postgres.port, SCRIPT)?.ok()?;
    Ok(world.records()?.only_session_of(agent)?.0)
}

#[test]
fn a_session_of_psql_is_done_again_and_what_differs_is_told() -> Result<()> {
    WORLD.test(|world| {
        let session = recorded(world, "done-again")?;
        let scratch = scratch(&world.place, "scratch")?;
        let to = url(scratch.port);
        let (code, text) = again(&world.daemon, &session, &to, &[])?;
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("6 exchanges sent again, 1 not sent: 0 answered otherwise"),
            "{text}"
        );
        assert!(text.contains("it was refused"), "{text}");
        assert!(text.contains("3 values hidden on record"), "{text}");
        assert_eq!(
            scratch.sql("SELECT what FROM stock ORDER BY id")?,
            "nut\nscrew"
        );
        assert_eq!(scratch.sql("SELECT count(*) FROM users")?, "3");

        scratch.sql("DROP TABLE stock; UPDATE users SET name = 'Ada King' WHERE id = 1")?;
        let (code, text) = again(&world.daemon, &session, &to, &["--json"])?;
        assert_eq!(code, 1, "{text}");
        let object: Value = serde_json::from_str(&text)?;
        assert_eq!(object["differing"], 1, "{text}");
        let told = object["exchanges"].to_string();
        assert!(
            told.contains(r#""now":"Ada King","then":"Ada Lovelace""#),
            "{told}"
        );
        assert!(
            !told.contains("219-09-9999") || told.contains("more"),
            "{told}"
        );

        // The table is there now, and its rows stand twice.
        let (code, text) = again(&world.daemon, &session, &to, &["--include-refused"])?;
        assert_eq!(code, 1);
        assert!(text.contains("42P07"), "{text}");
        assert!(text.contains("2BP01"), "orders are of users: {text}");
        assert!(scratch.saw("DROP TABLE users"));
        Ok(())
    })
}

#[test]
fn what_is_no_scratch_server_is_refused() -> Result<()> {
    WORLD.test(|world| {
        let session = recorded(world, "never-again")?;
        let own = url(world.postgres.port);
        let before = world.postgres.sql("SELECT count(*) FROM stock")?;
        for (to, why) in [
            (own.as_str(), "configured target shop"),
            ("http://127.0.0.1:1", "spoke PostgreSQL"),
            ("postgresql://127.0.0.1:1/x", "no user"),
            ("postgresql://a:secret-1@127.0.0.1:1/x", "password"),
            ("postgresql://a@127.0.0.1:1/x", "connecting"),
            ("nonsense", "--to is no URL"),
        ] {
            let (code, text) = again(&world.daemon, &session, to, &[])?;
            assert_eq!(code, 2, "{to}: {text}");
            assert!(text.contains(why), "{to}: {text}");
            assert!(!text.contains("secret-1"), "{text}");
        }
        assert_eq!(world.postgres.sql("SELECT count(*) FROM stock")?, before);
        let (code, text) = again(&world.daemon, &session, &own, &["--i-know"])?;
        assert_eq!(code, 1, "the table is there: {text}");
        Ok(())
    })
}

#[test]
fn the_password_comes_from_a_file_or_the_environment() -> Result<()> {
    WORLD.test(|world| {
        world
            .agent("asked-for-password")
            .psql(world.postgres.port, "SELECT 1;\n")?
            .ok()?;
        let (session, _) = world.records()?.only_session_of("asked-for-password")?;
        let scratch = scratch(&world.place, "locked")?;
        let to = format!(
            "postgresql://scram_user@127.0.0.1:{}/postgres",
            scratch.port
        );
        let (code, text) = again(&world.daemon, &session, &to, &[])?;
        assert_eq!(code, 2, "{text}");
        for (name, content, mode, expected) in [
            ("right", "secret-of-scram_user\n", 0o600, 0),
            ("wrong", "secret-2\n", 0o600, 2),
            ("open", "secret-of-scram_user\n", 0o644, 2),
        ] {
            let file = world.place.file(name, content)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode))?;
            let file = file.display().to_string();
            let (code, text) = again(&world.daemon, &session, &to, &["--password-file", &file])?;
            assert_eq!(code, expected, "{name}: {text}");
            assert!(!text.contains("secret-"), "{text}");
        }
        Ok(())
    })
}

#[test]
fn statements_with_parameters_are_done_again_with_theirs() -> Result<()> {
    WORLD.test(|world| {
        let port: u16 = std::fs::read_to_string(world.place.path("listener-port"))?.parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let string = format!("host=127.0.0.1 port={port} user=agent dbname=postgres");
            let (client, connection) =
                tokio_postgres::connect(&string, tokio_postgres::NoTls).await?;
            let driven = tokio::spawn(connection);
            for id in 1..=2 {
                let row = client
                    .query_one(
                        "SELECT name, id, pin > 1 AS big FROM users WHERE id = $1",
                        &[&id],
                    )
                    .await?;
                assert_eq!(row.get::<_, i32>(1), id);
            }
            client
                .query(
                    "SELECT item FROM orders WHERE status = $1 AND item <> $2 ORDER BY id",
                    &[&"paid", &None::<&str>],
                )
                .await?;
            client
                .execute("INSERT INTO orders VALUES ($1, 1, $2, 7)", &[&99, &"tea"])
                .await?;
            drop(client);
            driven.await??;
            anyhow::Ok(())
        })?;
        let (session, _) = world.records()?.only_session_of("library")?;
        let scratch = scratch(&world.place, "scratch-2")?;
        let (code, text) = again(&world.daemon, &session, &url(scratch.port), &[])?;
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("4 exchanges sent again, 0 not sent"),
            "{text}"
        );
        assert_eq!(scratch.sql("SELECT item FROM orders WHERE id = 99")?, "tea");
        Ok(())
    })
}

/// To it without TLS nobody is let in.
#[test]
fn a_scratch_server_with_tls_is_verified_before_anything_is_sent() -> Result<()> {
    WORLD.test(|world| {
        world
            .agent("tls-again")
            .psql(
                world.postgres.port,
                "CREATE TABLE IF NOT EXISTS kept (id int);\n",
            )?
            .ok()?;
        let (session, _) = world.records()?.only_session_of("tls-again")?;
        let options = Options {
            tls_only: true,
            ..Options::default()
        };
        let scratch = Postgres::start(&world.place, "scratch-tls", &options)?;
        let own = scratch.certificates.as_ref().context("no certificates")?;
        let own = own.ca.display().to_string();
        let other = Certificates::new(&world.place, "somebody", None)?;
        let other = other.ca.display().to_string();
        let missing = world.place.path("no-ca.pem").display().to_string();
        let password = world
            .place
            .private_file("tls-password", "secret-of-scram_user\n")?;
        let password = password.display().to_string();
        let untrusted = "not signed by a root that is trusted here";
        let another = "its certificate is for";
        for (host, query, ca, expected, said) in [
            ("127.0.0.1", "?sslmode=verify-full", &*other, 2, untrusted),
            ("127.0.0.1", "?sslmode=verify-ca", &other, 2, untrusted),
            (
                "127.0.0.1",
                "?sslmode=verify-full",
                "",
                2,
                "its certificate",
            ),
            ("127.0.0.1", "", &other, 2, untrusted),
            ("127.0.0.2", "", &own, 2, another),
            ("127.0.0.1", "", &missing, 2, "no-ca.pem"),
            ("127.0.0.1", "?sslmode=require", &own, 2, "verifies nothing"),
            ("127.0.0.1", "?sslmode=disable", "", 2, "no encryption"),
        ] {
            let to = format!(
                "postgresql://scram_user@{host}:{}/postgres{query}",
                scratch.port
            );
            let mut words = vec!["--password-file", &password];
            if !ca.is_empty() {
                words.extend(["--ca", ca]);
            }
            let (code, text) = again(&world.daemon, &session, &to, &words)?;
            assert_eq!(code, expected, "{host}{query} {ca}: {text}");
            assert!(text.contains(said), "{host}{query} {ca}: {text}");
            assert!(!text.contains("secret-of"), "{text}");
        }
        assert!(!scratch.saw("CREATE TABLE IF NOT EXISTS kept"));
        scratch.sql("GRANT CREATE ON SCHEMA public TO scram_user")?;
        for (host, query) in [
            ("127.0.0.1", ""),
            ("localhost", "?sslmode=verify-full"),
            ("127.0.0.2", "?sslmode=verify-ca"),
        ] {
            let to = format!(
                "postgresql://scram_user@{host}:{}/postgres{query}",
                scratch.port
            );
            let words = ["--password-file", &password, "--ca", &own];
            let (code, text) = again(&world.daemon, &session, &to, &words)?;
            assert_eq!(code, 0, "{host}{query}: {text}");
            assert!(text.contains("1 exchange sent again"), "{text}");
        }
        assert_eq!(scratch.sql("SELECT count(*) FROM kept")?, "0");
        Ok(())
    })
}

static WEB: web::Shared = web::Shared::new(web::Plan {
    rules: "
version: 1
rules:
  - { name: no-secret, match: { http: { path: '/secret/**' } }, verdict: block }
  - { name: cards, match: { protocol: http }, mask: [{ json: [/card], with: redact }] }
",
    config: web::all_targets,
});

#[test]
fn requests_are_done_again_without_credentials_and_bodies_are_compared() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", web.nginx.port);
        let words = [
            "curl",
            "-sS",
            "-H",
            "Authorization: Bearer t0p",
            "-d",
            "a=b",
            &url("/page?x=a%20b"),
            &url("/secret/x"),
        ];
        let further = [
            "--next",
            "-sS",
            &url("/files/customer.json"),
            &url("/empty"),
        ];
        let both = [&words[..], &further[..]].concat();
        web.agent("requester").run(&both)?;
        let (session, _) = web.records()?.only_session_of("requester")?;
        let scratch = Nginx::start(&web.place, "scratch")?;
        let to = format!("http://127.0.0.1:{}", scratch.port);
        let (code, text) = again(&web.daemon, &session, &to, &[])?;
        assert_eq!(code, 0, "{text}");
        assert!(
            text.contains("3 exchanges sent again, 1 not sent"),
            "{text}"
        );
        assert!(text.contains("1 value hidden on record"), "{text}");
        let asked = scratch.asked_for("/page?x=a%20b")?;
        let asked = asked.first().context("not asked")?;
        assert_eq!(
            (&asked["method"], &asked["authorization"]),
            (&json!("POST"), &json!(""))
        );
        assert!(!scratch.saw("/secret")?);

        let file = web.place.path("scratch/files/customer.json");
        std::fs::write(file, r#"{"city":"Paris","card":"1","name":"Ada"}"#)?;
        let (code, text) = again(&web.daemon, &session, &to, &[])?;
        assert_eq!(code, 1, "{text}");
        assert!(
            text.contains("body at /city") && text.contains("\"Paris\""),
            "{text}"
        );
        assert!(!text.contains("body at /card"), "{text}");
        drop(scratch);
        let (code, text) = again(&web.daemon, &session, &to, &[])?;
        assert_eq!(code, 1);
        assert!(text.contains("no answer"), "{text}");
        let (code, text) = again(&web.daemon, &session, &url(""), &[])?;
        assert_eq!(code, 2, "{text}");
        Ok(())
    })
}

#[test]
fn requests_are_done_again_over_tls_once_the_service_is_verified() -> Result<()> {
    WEB.test(|web| {
        let url = format!("https://127.0.0.1:{}/page", web.nginx.port_tls);
        web.agent("tls-requester")
            .run(&["curl", "-sSk", "-d", "a=b", &url])?
            .ok()?;
        let (session, _) = web.records()?.only_session_of("tls-requester")?;
        let scratch = Nginx::start(&web.place, "scratch-tls")?;
        let own = scratch.certificates.ca.display().to_string();
        let other = web.nginx.certificates.ca.display().to_string();
        let at = |host: &str| format!("https://{host}:{}", scratch.port_tls);
        let clear = format!("http://127.0.0.1:{}", scratch.port);
        let untrusted = "not signed by a root that is trusted here";
        for (to, ca, said) in [
            (at("127.0.0.1"), &*other, untrusted),
            (at("127.0.0.1"), "", "its certificate"),
            (at("127.0.0.2"), &own, "connecting"),
            (clear, &own, "--ca is for TLS"),
            (
                format!("https://127.0.0.1:{}", scratch.port),
                &own,
                "TLS handshake",
            ),
        ] {
            let words: &[&str] = match ca {
                "" => &[],
                ca => &["--ca", ca],
            };
            let (code, text) = again(&web.daemon, &session, &to, words)?;
            assert_eq!(code, 2, "{to} {ca}: {text}");
            assert!(text.contains(said), "{to} {ca}: {text}");
        }
        assert!(!scratch.saw("/page")?, "sent before it was verified");
        for host in ["127.0.0.1", "localhost"] {
            let (code, text) = again(&web.daemon, &session, &at(host), &["--ca", &own])?;
            assert_eq!(code, 0, "{host}: {text}");
            assert!(text.contains("1 exchange sent again"), "{text}");
        }
        let asked = scratch.asked_for("/page")?;
        let port = json!(scratch.port_tls.to_string());
        assert!(asked.iter().all(|one| one["port"] == port), "{asked:?}");
        Ok(())
    })
}
