//! TLS on both legs: every `sslmode` of an agent works, each upstream is
//! verified as the target says, and a certificate that does not fit ends it.

use anyhow::{Context as _, Result};
use interceptor_tests::certs::Certificates;
use interceptor_tests::place::Place;
use interceptor_tests::postgres::{Options, Postgres, SAMPLE};
use interceptor_tests::world::{Plan, Shared, World, target_with};
use serde_json::{Value, json};

fn with_tls(config: fn(&Postgres, &Place) -> Value) -> Plan {
    Plan {
        rules: "version: 1\nrules:\n  - name: no-drop\n    \
                match: { postgres: { statement: [DROP] } }\n    verdict: block\n",
        postgres: Options {
            tls: true,
            sql: SAMPLE.to_owned(),
            ..Options::default()
        },
        config,
    }
}

fn one(postgres: &Postgres, settings: &Value) -> Value {
    json!({ "targets": [target_with(postgres, settings)] })
}

fn ca(postgres: &Postgres) -> Option<&std::path::Path> {
    let certificates = postgres.certificates.as_ref();
    certificates.map(|certificates| certificates.ca.as_path())
}

/// As an operator who says nothing about TLS has it.
static MIRRORED: Shared = Shared::new(|| with_tls(interceptor_tests::world::one_target));

/// The upstream's certificate is checked, name and all.
static VERIFIED: Shared = Shared::new(|| {
    with_tls(|postgres, _| {
        one(
            postgres,
            &json!({ "tls": { "upstream": "verify-full", "ca": ca(postgres), "server_name": "localhost" } }),
        )
    })
});

/// It is checked against a root that did not sign it.
static MISTRUSTED: Shared = Shared::new(|| {
    with_tls(|postgres, place| {
        let other = Certificates::new(place, "other", None).map(|made| made.ca);
        one(
            postgres,
            &json!({ "tls": { "upstream": "verify-full", "ca": other.unwrap_or_default() } }),
        )
    })
});

/// The proxy logs on itself, with channel binding to the upstream leg.
static INJECTED: Shared = Shared::new(|| {
    with_tls(|postgres, place| {
        let password = place.private_file("password", "secret-of-scram_user\n");
        one(
            postgres,
            &json!({
                "tls": { "upstream": "verify-full", "ca": ca(postgres) },
                "credentials": {
                    "user": "scram_user",
                    "password": { "file": password.unwrap_or_default() },
                },
            }),
        )
    })
});

/// The authority's certificate, where an agent can read it.
fn authority(world: &World) -> Result<String> {
    let shown: Value = serde_json::from_str(&world.daemon.ask(&["ca", "show", "--json"])?)?;
    let certificate = shown.get("certificate").and_then(Value::as_str);
    Ok(certificate
        .context("`ca show` names no certificate")?
        .to_owned())
}

fn string(world: &World, mode: &str, more: &str) -> String {
    format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=agent dbname=postgres sslmode={mode} {more}",
        world.postgres.port
    )
}

/// Who is connected, as the database itself sees it: is its leg encrypted?
const UPSTREAM: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid();\n";

#[test]
fn every_sslmode_of_an_agent_works() -> Result<()> {
    MIRRORED.test(|world| {
        let root = format!("sslrootcert={}", authority(world)?);
        for (mode, more, encrypted) in [
            ("disable", "", "f"),
            ("allow", "", "f"),
            ("prefer", "", "t"),
            ("require", "", "t"),
            ("verify-ca", root.as_str(), "t"),
            ("verify-full", root.as_str(), "t"),
        ] {
            let done = world
                .agent(&format!("mode-{mode}"))
                .psql_to(
                    &string(world, mode, more),
                    &format!("\\conninfo\n{UPSTREAM}"),
                )?
                .ok()?;
            assert_eq!(
                done.stdout.contains("SSL connection"),
                encrypted == "t",
                "{mode}, downstream: {}",
                done.stdout
            );
            assert_eq!(
                done.stdout.lines().last(),
                Some(encrypted),
                "{mode}, upstream: {}",
                done.stdout
            );
        }
        Ok(())
    })
}

#[test]
fn an_agent_that_trusts_another_authority_is_not_fooled() -> Result<()> {
    MIRRORED.test(|world| {
        let servers_own = world
            .postgres
            .certificates
            .as_ref()
            .context("no certificates")?;
        let more = format!("sslrootcert={}", servers_own.ca.display());
        let done = world
            .agent("wary")
            .psql_to(&string(world, "verify-full", &more), "SELECT 1;\n")?;
        assert_eq!(done.status.code(), Some(2));
        assert!(
            done.stderr.contains("certificate verify failed"),
            "{}",
            done.stderr
        );
        Ok(())
    })
}

#[test]
fn statements_are_judged_under_tls_too() -> Result<()> {
    MIRRORED.test(|world| {
        let done = world
            .agent("cloaked")
            .psql_to(
                &string(world, "require", ""),
                "DROP TABLE users;\nSELECT 'on';\n",
            )?
            .ok()?;
        assert!(done.stderr.contains("42501"), "{}", done.stderr);
        assert_eq!(done.stdout, "on\n");
        assert!(!world.postgres.saw("DROP TABLE users"));
        Ok(())
    })
}

#[test]
fn a_cancel_under_tls_reaches_its_backend() -> Result<()> {
    MIRRORED.test(|world| {
        let script = "SET statement_timeout = 0;\n\\! true\nSELECT pg_sleep(48);\n";
        let string = string(world, "require", "");
        let mut running = world.agent("hasty").start(&[
            "psql",
            "-XqAt",
            "-v",
            "VERBOSITY=verbose",
            "-d",
            &string,
        ])?;
        running.write(script)?;
        interceptor_tests::eventually(
            "the sleep to begin",
            interceptor_tests::daemon::SOON,
            || {
                let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                            AND query LIKE '%pg_sleep(48)%' AND pid <> pg_backend_pid()";
                Ok(world.postgres.sql(sleeping)? == "1")
            },
        )?;
        running.signal(nix::sys::signal::Signal::SIGINT)?;
        let done = running.finish(interceptor_tests::daemon::SOON)?;
        assert!(done.stderr.contains("57014"), "{done:?}");
        Ok(())
    })
}

#[test]
fn a_verified_upstream_is_encrypted_whatever_the_agent_asks_for() -> Result<()> {
    VERIFIED.test(|world| {
        for mode in ["disable", "require"] {
            let done = world
                .agent(&format!("verified-{mode}"))
                .psql_to(&string(world, mode, ""), UPSTREAM)?
                .ok()?;
            assert_eq!(done.stdout, "t\n", "{mode}");
        }
        Ok(())
    })
}

#[test]
fn an_upstream_with_another_s_certificate_gets_nothing_and_the_agent_is_told() -> Result<()> {
    MISTRUSTED.test(|world| {
        for mode in ["disable", "require"] {
            let done = world
                .agent(&format!("mistrusted-{mode}"))
                .psql_to(&string(world, mode, ""), "SELECT 1;\n")?;
            assert_eq!(done.status.code(), Some(2), "{mode}");
            assert!(
                done.stderr.contains("certificate"),
                "{mode}: {}",
                done.stderr
            );
        }
        assert!(!world.postgres.saw("user=agent database=postgres"));
        Ok(())
    })
}

#[test]
fn where_channel_binding_cannot_pass_the_target_s_credentials_are_used() -> Result<()> {
    INJECTED.test(|world| {
        for mode in ["disable", "require"] {
            let done = world
                .agent(&format!("bound-{mode}"))
                .psql_to(&string(world, mode, ""), "SELECT current_user;\n")?
                .ok()?;
            assert_eq!(done.stdout, "scram_user\n", "{mode}");
        }
        Ok(())
    })
}
