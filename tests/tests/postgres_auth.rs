//! Logging on: every way of PostgreSQL's passes through, and where the target
//! has credentials of its own the agent needs none and sees none.

use anyhow::Result;
use interceptor_tests::place::Place;
use interceptor_tests::postgres::Postgres;
use interceptor_tests::world::{Plan, Shared, target_with};
use serde_json::{Value, json};

static PASSED: Shared = Shared::new(Plan::default);

static INJECTED: Shared = Shared::new(|| Plan {
    config: injected,
    ..Plan::default()
});

/// The same server as several targets, told apart by the address of loopback
/// that the agent asks for.
fn injected(postgres: &Postgres, place: &Place) -> Value {
    let targets: Vec<Value> = [
        ("127.0.0.1", "scram_user"),
        ("127.0.0.2", "md5_user"),
        ("127.0.0.3", "clear_user"),
    ]
    .into_iter()
    .map(|(address, user)| {
        let password = place
            .private_file(&format!("{user}.password"), &format!("secret-of-{user}\n"))
            .unwrap_or_default();
        target_with(
            postgres,
            &json!({
                "name": format!("shop-as-{user}"),
                "address": address,
                "credentials": { "user": user, "password": { "file": password } },
            }),
        )
    })
    .collect();
    json!({ "targets": targets })
}

#[test]
fn the_agent_s_own_password_passes_in_every_way_that_there_is() -> Result<()> {
    PASSED.test(|world| {
        for user in ["scram_user", "md5_user", "clear_user"] {
            let string = format!(
                "host=127.0.0.1 port={} user={user} dbname=postgres",
                world.postgres.port
            );
            let agent = world.agent(&format!("known-{user}"));
            let done = agent
                .env("PGPASSWORD", format!("secret-of-{user}"))
                .psql_to(&string, "SELECT current_user;\n")?
                .ok()?;
            assert_eq!(done.stdout.trim(), user);
        }
        Ok(())
    })
}

#[test]
fn a_wrong_password_is_refused_in_the_database_s_own_words() -> Result<()> {
    PASSED.test(|world| {
        for user in ["scram_user", "md5_user", "clear_user"] {
            let string = format!(
                "host=127.0.0.1 port={} user={user} dbname=postgres",
                world.postgres.port
            );
            let done = world
                .agent("unknown")
                .env("PGPASSWORD", "wrong")
                .psql_to(&string, "SELECT 1;\n")?;
            assert_eq!(done.status.code(), Some(2));
            assert!(
                done.stderr.contains(&format!(
                    "password authentication failed for user \"{user}\""
                )),
                "{}",
                done.stderr
            );
        }
        Ok(())
    })
}

#[test]
fn a_password_is_not_in_the_store_nor_in_the_log() -> Result<()> {
    PASSED.test(|world| {
        let string = format!(
            "host=127.0.0.1 port={} user=clear_user dbname=postgres",
            world.postgres.port
        );
        world
            .agent("teller")
            .env("PGPASSWORD", "secret-of-clear_user")
            .psql_to(&string, "SELECT 1;\n")?
            .ok()?;
        let mut records = world.records()?;
        records.only_session_of("teller")?;
        assert_eq!(records.keys_that_hold(b"secret-of-")?, [""; 0]);
        assert!(!world.daemon.server().log().contains("secret-of-"));
        Ok(())
    })
}

#[test]
fn with_credentials_of_the_target_the_agent_needs_no_password() -> Result<()> {
    INJECTED.test(|world| {
        for (address, user) in [
            ("127.0.0.1", "scram_user"),
            ("127.0.0.2", "md5_user"),
            ("127.0.0.3", "clear_user"),
        ] {
            let string = format!(
                "host={address} port={} user=nobody dbname=postgres",
                world.postgres.port
            );
            let done = world
                .agent(&format!("as-{user}"))
                .psql_to(&string, "SELECT current_user;\n")?
                .ok()?;
            assert_eq!(done.stdout.trim(), user);
        }
        Ok(())
    })
}

#[test]
fn no_byte_that_an_agent_gets_or_the_store_keeps_is_of_the_injected_password() -> Result<()> {
    // Speaks the protocol by hand and prints all that comes back, in hexadecimal.
    const PROGRAM: &str = r"
import socket, struct, sys
connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 20)
body = struct.pack('!i', 196608) + b'user\0nobody\0database\0postgres\0\0'
connection.sendall(struct.pack('!i', len(body) + 4) + body)
got = b''
while not got.endswith(b'Z\0\0\0\5I'):
    part = connection.recv(65536)
    if not part:
        break
    got += part
print(got.hex())
";
    INJECTED.test(|world| {
        let port = world.postgres.port.to_string();
        let done = world
            .agent("listener")
            .run(&["/usr/bin/python3", "-c", PROGRAM, &port])?
            .ok()?;
        let got = done.stdout.trim();
        assert!(
            got.starts_with("520000000800000000"),
            "the agent is let in without being asked: {got}"
        );
        let hex: String = b"secret-of-"
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(!got.contains(&hex));
        let mut records = world.records()?;
        records.only_session_of("listener")?;
        assert_eq!(records.keys_that_hold(b"secret-of-")?, [""; 0]);
        assert!(!world.daemon.server().log().contains("secret-of-"));
        Ok(())
    })
}
