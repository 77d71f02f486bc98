//! Which leg is encrypted, and whose certificate counts.

use std::net::SocketAddr;

use anyhow::Result;
use interceptor_user::config::TlsMode;

use crate::harness::{IS_ENCRYPTED, Proxy, target, world};

/// Every sslmode that libpq has.
const SSLMODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

#[test]
fn an_unchanged_connection_string_gets_the_encryption_it_asks_for() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    for sslmode in SSLMODES {
        let asks = !matches!(sslmode, "disable" | "allow");
        let connection = format!("user=agent sslmode={sslmode}");
        let upstream = proxy.ask(&connection, IS_ENCRYPTED)?;
        assert_eq!(upstream, if asks { "t" } else { "f" }, "{sslmode}");
        let session = proxy.session()?;
        assert_eq!(session.downstream.is_some(), asks, "{sslmode}");
        assert_eq!(session.upstream.is_some(), asks, "{sslmode}");
    }
    Ok(())
}

#[test]
fn a_server_without_tls_leaves_it_to_the_agents_own_sslmode() -> Result<()> {
    let proxy = Proxy::to(&world().plain, None)?;
    for sslmode in SSLMODES {
        let connection = format!("user=agent sslmode={sslmode}");
        if matches!(sslmode, "disable" | "allow" | "prefer") {
            assert_eq!(proxy.ask(&connection, "SELECT 7")?, "7", "{sslmode}");
        } else {
            let refusal = proxy.refusal(&connection, "SELECT 7")?;
            assert!(refusal.contains("server does not support SSL"), "{refusal}");
        }
    }
    Ok(())
}

#[test]
fn the_agent_may_verify_the_address_as_well_as_the_name() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    for host in ["host=127.0.0.1", "host=localhost", "host=db.example"] {
        let connection = format!("user=agent sslmode=verify-full {host}");
        assert_eq!(proxy.ask(&connection, IS_ENCRYPTED)?, "t", "{host}");
    }
    Ok(())
}

#[test]
fn an_agent_that_does_not_trust_the_local_authority_does_not_connect() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    let other = world().tls.certificates.as_ref().expect("it has TLS");
    let connection = format!(
        "user=agent sslmode=verify-full sslrootcert={}",
        other.ca.display()
    );
    let refusal = proxy.refusal(&connection, "SELECT 1")?;
    assert!(refusal.contains("certificate verify failed"), "{refusal}");
    Ok(())
}

#[test]
fn a_target_that_requires_tls_gets_it_even_where_the_agent_speaks_plain() -> Result<()> {
    let ca = world().tls.certificates.as_ref().map(|all| all.ca.clone());
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let proxy = Proxy::to(&world().tls, Some(target(mode, ca.clone())))?;
        for (sslmode, encrypted) in [("disable", false), ("verify-full", true)] {
            let connection = format!("user=agent sslmode={sslmode}");
            assert_eq!(
                proxy.ask(&connection, IS_ENCRYPTED)?,
                "t",
                "{mode:?} {sslmode}"
            );
            let session = proxy.session()?;
            assert_eq!(
                session.downstream.is_some(),
                encrypted,
                "{mode:?} {sslmode}"
            );
            let verified = session.upstream.and_then(|tls| tls.verified);
            assert_eq!(verified, Some(Ok(())), "{mode:?} {sslmode}");
        }
    }
    Ok(())
}

#[test]
fn a_target_without_tls_still_answers_an_agent_that_insists_on_it() -> Result<()> {
    let proxy = Proxy::to(&world().tls, Some(target(TlsMode::Disable, None)))?;
    assert_eq!(
        proxy.ask("user=agent sslmode=verify-full", IS_ENCRYPTED)?,
        "f"
    );
    assert_eq!(proxy.ask("user=agent sslmode=disable", IS_ENCRYPTED)?, "f");
    Ok(())
}

#[test]
fn a_server_that_is_not_the_right_one_is_refused_in_readable_words() -> Result<()> {
    let ours = Some(world().trust.authority.clone());
    let refused = |target| -> Result<String> {
        let proxy = Proxy::to(&world().tls, Some(target))?;
        let refusal = proxy.refusal("user=agent sslmode=verify-full", "SELECT 1")?;
        // A plain agent reads the same.
        let plain = proxy.refusal("user=agent sslmode=disable", "SELECT 1")?;
        assert_eq!(
            refusal.split("FATAL").nth(1),
            plain.split("FATAL").nth(1),
            "both are told"
        );
        Ok(refusal)
    };
    let refusal = refused(target(TlsMode::VerifyFull, ours.clone()))?;
    assert!(
        refusal.contains("not signed by a root that is trusted here"),
        "{refusal}"
    );
    assert!(refusal.contains("orders-db"), "{refusal}");

    let ca = world().tls.certificates.as_ref().map(|all| all.ca.clone());
    let mut other_name = target(TlsMode::VerifyFull, ca);
    other_name.tls.server_name = Some("orders.internal".to_owned());
    let refusal = refused(other_name)?;
    assert!(refusal.contains("and not for orders.internal"), "{refusal}");

    let missing = target(TlsMode::VerifyFull, Some("/nowhere/ca.pem".into()));
    let refusal = refused(missing)?;
    assert!(
        refusal.contains("/nowhere/ca.pem: No such file"),
        "{refusal}"
    );
    Ok(())
}

#[test]
fn what_is_not_enforced_is_still_noted() -> Result<()> {
    let ours = Some(world().trust.authority.clone());
    for mode in [TlsMode::Mirror, TlsMode::Require] {
        let proxy = Proxy::to(&world().tls, Some(target(mode, ours.clone())))?;
        assert_eq!(proxy.ask("user=agent sslmode=require", IS_ENCRYPTED)?, "t");
        let session = proxy.session()?;
        let upstream = session.upstream.expect("it is encrypted");
        let found = upstream.verified.expect("it was looked at");
        assert!(
            found.is_err_and(|why| why.contains("not signed by a root")),
            "{mode:?}"
        );
        assert!(matches!(upstream.version, "TLSv1.2" | "TLSv1.3"));
        let downstream = session.downstream.expect("it is encrypted");
        assert_eq!(downstream.sni.as_deref(), Some("localhost"));
    }
    Ok(())
}

#[test]
fn tls_1_2_and_1_3_are_both_spoken_and_nothing_older() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    for version in ["TLSv1.2", "TLSv1.3"] {
        let connection = format!(
            "user=agent sslmode=require ssl_min_protocol_version={version} ssl_max_protocol_version={version}"
        );
        proxy.ask(&connection, "SELECT 1")?;
        let session = proxy.session()?;
        assert_eq!(session.downstream.map(|tls| tls.version), Some(version));
    }
    let old = "user=agent sslmode=require ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1";
    proxy.refusal(old, "SELECT 1")?;
    Ok(())
}

#[test]
fn a_target_that_requires_tls_of_a_server_without_says_so() -> Result<()> {
    let proxy = Proxy::to(&world().plain, Some(target(TlsMode::Require, None)))?;
    for sslmode in ["disable", "verify-full"] {
        let refusal = proxy.refusal(&format!("user=agent sslmode={sslmode}"), "SELECT 1")?;
        assert!(refusal.contains("does not offer TLS"), "{refusal}");
    }
    Ok(())
}

#[test]
fn a_service_that_cannot_be_reached_is_named_on_the_leg_that_was_asked_for() -> Result<()> {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let proxy = Proxy::start(nobody, None)?;
    for sslmode in ["disable", "verify-full"] {
        let refusal = proxy.refusal(&format!("user=agent sslmode={sslmode}"), "SELECT 1")?;
        assert!(
            refusal.contains("Interceptor: could not connect to 127.0.0.1:1: Connection refused"),
            "{refusal}"
        );
    }
    Ok(())
}
