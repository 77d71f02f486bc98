//! The tests' own servers: what the other tests lean on.

use std::process::Command;

use anyhow::Result;
use interceptor_tests::place::Place;
use interceptor_tests::postgres::{Options, Postgres, SAMPLE};
use interceptor_tests::records::Records;
use interceptor_tests::redis::Redis;

#[test]
fn a_database_starts_with_its_sample_and_tells_what_reached_it() -> Result<()> {
    let place = Place::new()?;
    let options = Options {
        sql: SAMPLE.to_owned(),
        tls: true,
        ..Options::default()
    };
    let postgres = Postgres::start(&place, "postgres", &options)?;
    assert_eq!(postgres.sql("SELECT count(*) FROM users")?, "3");
    assert!(postgres.saw("SELECT count(*) FROM users"));
    assert!(!postgres.saw("SELECT count(*) FROM nobody"));
    Ok(())
}

#[test]
fn each_way_of_asking_for_a_password_asks() -> Result<()> {
    let place = Place::new()?;
    let postgres = Postgres::start(&place, "postgres", &Options::default())?;
    for user in ["scram_user", "md5_user", "clear_user"] {
        let log_on = |password: &str| {
            Command::new("psql")
                .args([
                    "-XqAt",
                    "-h",
                    "127.0.0.1",
                    "-d",
                    "postgres",
                    "-c",
                    "SELECT 1",
                ])
                .args(["-p", &postgres.port.to_string(), "-U", user])
                .env("PGPASSWORD", password)
                .output()
        };
        assert!(
            log_on(&format!("secret-of-{user}"))?.status.success(),
            "{user}"
        );
        assert!(!log_on("wrong")?.status.success(), "{user}");
    }
    Ok(())
}

#[test]
fn a_secret_is_found_wherever_it_stands_in_the_store() -> Result<()> {
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let client = redis::Client::open(redis.url())?;
    let mut connection = client.get_connection()?;
    let add = |key: &str, field: &str, value: &[u8]| -> Result<()> {
        let mut connection = client.get_connection()?;
        redis::cmd("XADD")
            .arg(key)
            .arg("*")
            .arg(field)
            .arg(value)
            .exec(&mut connection)?;
        Ok(())
    };
    add("one", "data", b"before\x00219-09-9999\xff")?;
    add("two", "data", b"harmless")?;
    redis::cmd("HSET")
        .arg("three")
        .arg("219-09-9999")
        .arg("x")
        .exec(&mut connection)?;
    let mut holding = Records::of(&redis)?.keys_that_hold(b"219-09-9999")?;
    holding.sort();
    assert_eq!(holding, ["one", "three"]);
    Ok(())
}

#[test]
fn nothing_is_left_when_a_place_goes() -> Result<()> {
    let place = Place::new()?;
    let folder = place.folder().to_owned();
    let redis = Redis::start(&place)?;
    let pid = redis.server().pid();
    drop((redis, place));
    assert!(!folder.exists());
    assert!(nix::sys::signal::kill(pid, None).is_err());
    Ok(())
}
