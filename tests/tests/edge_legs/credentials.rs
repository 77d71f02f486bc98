//! The target's credentials: the proxy logs on itself.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;
use interceptor_user::config::TlsMode;

use crate::harness::{IS_ENCRYPTED, Proxy, target, with_credentials, world};

const USERS: [&str; 3] = ["scram_user", "md5_user", "clear_user"];

#[test]
fn the_proxy_logs_on_itself_with_every_kind_of_password() -> Result<()> {
    let ca = world().tls.certificates.as_ref().map(|all| all.ca.clone());
    let cases = [
        (&world().plain, TlsMode::Mirror, None),
        (&world().tls, TlsMode::Disable, None),
        (&world().tls, TlsMode::Require, None),
        (&world().tls, TlsMode::VerifyFull, ca),
    ];
    for (server, mode, ca) in cases {
        for user in USERS {
            let password = format!("secret-of-{user}");
            let target = with_credentials(target(mode, ca.clone()), user, Some(&password))?;
            let proxy = Proxy::to(server, Some(target))?;
            // The agent gives no password, and a name that the server may not know.
            let connection = "user=nobody_at_all sslmode=disable application_name=bot";
            let row = proxy.ask(
                connection,
                "SELECT current_user, current_database(), current_setting('application_name')",
            )?;
            assert_eq!(row, format!("{user}|postgres|bot"), "{mode:?}");
            let session = proxy.session()?;
            assert_eq!(session.startup.user, "nobody_at_all");
            assert_eq!(session.startup.upstream_user.as_deref(), Some(user));
        }
    }
    Ok(())
}

#[test]
fn scram_is_bound_to_the_upstream_leg_while_the_agents_leg_is_encrypted_too() -> Result<()> {
    let ca = world().tls.certificates.as_ref().map(|all| all.ca.clone());
    let target = with_credentials(
        target(TlsMode::VerifyFull, ca),
        "scram_user",
        Some("secret-of-scram_user"),
    )?;
    let proxy = Proxy::to(&world().tls, Some(target))?;
    // libpq would bind here, were it asked for a password at all.
    let connection = "user=agent sslmode=verify-full";
    assert_eq!(proxy.ask(connection, "SELECT current_user")?, "scram_user");
    assert_eq!(proxy.ask(connection, IS_ENCRYPTED)?, "t");
    Ok(())
}

#[test]
fn a_server_that_trusts_is_logged_on_to_without_a_password() -> Result<()> {
    let target = with_credentials(target(TlsMode::Mirror, None), "agent", None)?;
    let proxy = Proxy::to(&world().plain, Some(target))?;
    assert_eq!(proxy.ask("user=somebody", "SELECT current_user")?, "agent");
    Ok(())
}

#[test]
fn credentials_that_do_not_work_are_told_without_the_password() -> Result<()> {
    for user in USERS {
        let target = with_credentials(target(TlsMode::Mirror, None), user, Some("w-r-o-n-g"))?;
        let proxy = Proxy::to(&world().plain, Some(target))?;
        let refusal = proxy.refusal("user=agent", "SELECT 1")?;
        let expected = format!(
            "Interceptor could not log on with the credentials of target \"orders-db\": \
             password authentication failed for user \"{user}\""
        );
        assert!(refusal.contains(&expected), "{refusal}");
        assert!(!refusal.contains("w-r-o-n-g"), "{refusal}");
    }
    Ok(())
}

#[test]
fn credentials_without_a_password_say_so_when_the_server_asks() -> Result<()> {
    let target = with_credentials(target(TlsMode::Mirror, None), "scram_user", None)?;
    let proxy = Proxy::to(&world().plain, Some(target))?;
    let refusal = proxy.refusal("user=agent", "SELECT 1")?;
    assert!(refusal.contains("credentials have none"), "{refusal}");
    Ok(())
}

#[test]
fn an_error_after_the_logon_is_postgresqls_own() -> Result<()> {
    let target = with_credentials(target(TlsMode::Mirror, None), "agent", None)?;
    let proxy = Proxy::to(&world().plain, Some(target))?;
    let refusal = proxy.refusal("user=agent dbname=no_such_database", "SELECT 1")?;
    assert!(
        refusal.contains("FATAL:  database \"no_such_database\" does not exist"),
        "{refusal}"
    );
    Ok(())
}

/// A server that knows nobody's password, and says this to whoever comes. A `{}`
/// stands for the nonce of the client's first message.
fn impostor(says: &'static [(u32, &'static str)]) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().flatten() {
            // The proxy breaks it off when it has heard enough.
            let _ = speak(&mut tcp, says);
        }
    });
    Ok(address)
}

fn speak(tcp: &mut TcpStream, says: &[(u32, &str)]) -> Result<()> {
    let mut heard = vec![0; 4096];
    let mut nonce = String::new();
    for (code, data) in says {
        let length = tcp.read(&mut heard)?;
        let text = String::from_utf8_lossy(&heard[..length]).into_owned();
        if let Some((_, after)) = text.split_once(",r=") {
            nonce = after.split(',').next().unwrap_or_default().to_owned();
        }
        let data = data.replace("{}", &nonce);
        tcp.write_all(b"R")?;
        tcp.write_all(&u32::try_from(data.len() + 8)?.to_be_bytes())?;
        tcp.write_all(&code.to_be_bytes())?;
        tcp.write_all(data.as_bytes())?;
    }
    let _ = tcp.read(&mut heard)?;
    Ok(())
}

#[test]
fn a_server_that_does_not_know_the_password_itself_is_not_believed() -> Result<()> {
    const FIRST: &str = "r={}x,s=c2FsdA==,i=4096";
    const WRONG: &str = "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let cases: [(&'static [(u32, &'static str)], &str); 4] = [
        (&[(10, "SCRAM-SHA-256\0\0"), (0, "")], "without proving"),
        (
            &[(10, "SCRAM-SHA-256\0\0"), (11, FIRST), (0, "")],
            "without proving",
        ),
        (
            &[(10, "SCRAM-SHA-256\0\0"), (11, FIRST), (12, WRONG)],
            "SCRAM verification error",
        ),
        (
            &[
                (10, "SCRAM-SHA-256\0\0"),
                (11, "r={}x,s=c2FsdA==,i=2000000000"),
            ],
            "iteration count exceeds",
        ),
    ];
    for (says, complaint) in cases {
        let target = with_credentials(
            target(TlsMode::Mirror, None),
            "scram_user",
            Some("secret-of-scram_user"),
        )?;
        let proxy = Proxy::start(impostor(says)?, Some(target))?;
        let refusal = proxy.refusal("user=agent sslmode=disable", "SELECT 1")?;
        assert!(refusal.contains(complaint), "{refusal}");
        assert!(refusal.contains("orders-db"), "{refusal}");
    }
    Ok(())
}
