//! A request to cancel reaches the backend that it is for, and no other.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::eventually;
use interceptor_user::config::TlsMode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::harness::{Proxy, Seen, target, world};

async fn connect(proxy: &Proxy) -> Result<tokio_postgres::Client> {
    let connection = format!(
        "host=127.0.0.1 port={} user=agent dbname=postgres",
        proxy.port
    );
    let (client, moves) = tokio_postgres::connect(&connection, NoTls).await?;
    tokio::spawn(moves);
    Ok(client)
}

#[test]
fn a_cancellation_ends_the_statement_it_is_for_and_no_other() -> Result<()> {
    let ca = world().tls.certificates.as_ref().map(|all| all.ca.clone());
    for target in [None, Some(target(TlsMode::VerifyFull, ca))] {
        let encrypted = target.is_some();
        let proxy = Proxy::to(&world().tls, target)?;
        world().runtime.block_on(async {
            let (mine, other) = (connect(&proxy).await?, connect(&proxy).await?);
            let token = mine.cancel_token();
            let sleeps =
                tokio::spawn(async move { mine.batch_execute("SELECT pg_sleep(60)").await });
            let sleeps_too =
                tokio::spawn(async move { other.batch_execute("SELECT pg_sleep(2)").await });
            tokio::time::sleep(Duration::from_millis(500)).await;
            token.cancel_query(NoTls).await?;
            let error = tokio::time::timeout(Duration::from_secs(10), sleeps)
                .await??
                .expect_err("it was cancelled");
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
            sleeps_too.await?.context("the other one goes on")?;
            anyhow::Ok(())
        })?;
        assert!(
            matches!(proxy.last()?, Seen::Cancelled { known: true }),
            "encrypted: {encrypted}"
        );
    }
    Ok(())
}

#[test]
fn a_key_that_nobody_was_given_is_dropped_without_a_word_and_reported() -> Result<()> {
    let proxy = Proxy::to(&world().plain, None)?;
    let answer = world().runtime.block_on(async {
        let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await?;
        let mut request = Vec::new();
        interceptor_proto::pg::startup::CancelRequest {
            process_id: 1,
            key: b"gues",
        }
        .encode(&mut request)?;
        tcp.write_all(&request).await?;
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await?;
        anyhow::Ok(answer)
    })?;
    assert_eq!(answer, b"");
    eventually("the flow is recorded", Duration::from_secs(5), || {
        Ok(matches!(proxy.last(), Ok(Seen::Cancelled { known: false })))
    })
}

#[test]
fn psql_cancels_with_control_c_over_tls() -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let proxy = Proxy::to(&world().tls, None)?;
    let psql = std::process::Command::new("psql")
        .args(["-XqAt", "-d"])
        .arg(format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=agent dbname=postgres sslmode=require",
            proxy.port
        ))
        .args(["-c", "SELECT pg_sleep(61)"])
        .env("PGSSLROOTCERT", &world().trust.bundle)
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    eventually("the statement runs", Duration::from_secs(10), || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)'";
        Ok(world().tls.sql(running)? == "1")
    })?;
    kill(Pid::from_raw(psql.id().cast_signed()), Signal::SIGINT)?;
    let ended = psql.wait_with_output()?;
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(
        error.contains("canceling statement due to user request"),
        "{error}"
    );
    Ok(())
}
