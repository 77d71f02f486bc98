//! An agent's own password, passed through.

use anyhow::Result;
use interceptor_user::config::TlsMode;

use crate::harness::{IS_ENCRYPTED, Proxy, target, world};

const USERS: [&str; 3] = ["scram_user", "md5_user", "clear_user"];

#[test]
fn every_kind_of_password_passes_through_where_nothing_is_encrypted() -> Result<()> {
    for server in [&world().plain, &world().tls] {
        let proxy = Proxy::to(server, None)?;
        for user in USERS {
            let connection = format!("user={user} password=secret-of-{user} sslmode=disable");
            assert_eq!(proxy.ask(&connection, "SELECT current_user")?, user);
        }
    }
    Ok(())
}

#[test]
fn every_kind_of_password_passes_through_two_encrypted_legs_unless_it_is_bound() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    for user in USERS {
        let connection = format!(
            "user={user} password=secret-of-{user} sslmode=verify-full channel_binding=disable"
        );
        assert_eq!(proxy.ask(&connection, "SELECT current_user")?, user);
        assert_eq!(proxy.ask(&connection, IS_ENCRYPTED)?, "t");
    }
    Ok(())
}

#[test]
fn a_wrong_password_gets_postgresqls_own_error() -> Result<()> {
    for sslmode in ["disable", "require"] {
        let proxy = Proxy::to(&world().tls, None)?;
        for user in USERS {
            let connection =
                format!("user={user} password=wrong sslmode={sslmode} channel_binding=disable");
            let refusal = proxy.refusal(&connection, "SELECT 1")?;
            let expected = format!("password authentication failed for user \"{user}\"");
            assert!(refusal.contains(&expected), "{refusal}");
        }
    }
    Ok(())
}

#[test]
fn a_bound_password_is_refused_with_the_way_out() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    let connection = "user=scram_user password=secret-of-scram_user sslmode=require";
    let refusal = proxy.refusal(connection, "SELECT 1")?;
    assert!(
        refusal.contains("SCRAM channel binding cannot pass through Interceptor"),
        "{refusal}"
    );
    assert!(refusal.contains("channel_binding=disable"), "{refusal}");
    Ok(())
}

#[test]
fn the_default_sslmode_gets_through_without_encryption_after_that_refusal() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    let connection = "user=scram_user password=secret-of-scram_user sslmode=prefer";
    assert_eq!(proxy.ask(connection, IS_ENCRYPTED)?, "f");
    Ok(())
}

#[test]
fn an_agent_without_tls_can_use_scram_on_a_server_with_it() -> Result<()> {
    let proxy = Proxy::to(&world().tls, Some(target(TlsMode::Require, None)))?;
    let connection = "user=scram_user password=secret-of-scram_user sslmode=disable";
    assert_eq!(proxy.ask(connection, IS_ENCRYPTED)?, "t");
    // And one that insists on binding is told so by its own library.
    let insists = format!("{connection} channel_binding=require");
    let refusal = proxy.refusal(&insists, "SELECT 1")?;
    assert!(refusal.contains("channel binding"), "{refusal}");
    Ok(())
}

#[test]
fn an_agent_with_tls_can_use_scram_on_a_server_without_it() -> Result<()> {
    let proxy = Proxy::to(&world().plain, Some(target(TlsMode::Disable, None)))?;
    let connection = "user=scram_user password=secret-of-scram_user sslmode=verify-full";
    assert_eq!(proxy.ask(connection, "SELECT current_user")?, "scram_user");
    Ok(())
}
