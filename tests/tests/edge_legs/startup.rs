//! What comes before the session, byte by byte.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_proto::pg::startup::{self, StartupBuilder};
use interceptor_tests::eventually;
use interceptor_user::config::TlsMode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Proxy, target, world};

/// Sends these pieces one after the other, and reads what comes until the other
/// side closes or `enough` bytes are there.
fn exchange(proxy: &Proxy, pieces: &[&[u8]], enough: usize) -> Result<Vec<u8>> {
    world().runtime.block_on(async {
        let mut tcp = TcpStream::connect(("127.0.0.1", proxy.port)).await?;
        tcp.set_nodelay(true)?;
        for piece in pieces {
            tcp.write_all(piece).await?;
            if pieces.len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let mut answer = Vec::new();
        let read = async {
            while answer.len() < enough && tcp.read_buf(&mut answer).await? > 0 {}
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .context("no answer")??;
        Ok(answer)
    })
}

fn begins(minor: u16) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    StartupBuilder::new(minor)
        .set(b"user", b"agent")
        .set(b"database", b"postgres")
        .encode(&mut packet)?;
    Ok(packet)
}

fn code_and_text(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).replace('\0', " ")
}

#[test]
fn any_split_of_the_startup_packet_opens_the_same_session() -> Result<()> {
    let proxy = Proxy::to(&world().plain, None)?;
    let packet = begins(0)?;
    for cut in 1..packet.len() {
        let (a, b) = packet.split_at(cut);
        let answer = exchange(&proxy, &[a, b], 9)?;
        assert_eq!(
            answer.get(..9),
            Some(&b"R\0\0\0\x08\0\0\0\0"[..]),
            "cut at {cut}"
        );
        assert_eq!(proxy.session()?.startup.user, "agent");
    }
    Ok(())
}

#[test]
fn a_newer_minor_version_is_left_to_the_server_to_negotiate() -> Result<()> {
    let proxy = Proxy::to(&world().plain, None)?;
    let answer = exchange(&proxy, &[&begins(2)?], 1)?;
    assert_eq!(answer.first(), Some(&b'v'), "PostgreSQL 15 knows 3.0 only");
    assert_eq!(proxy.session()?.startup.protocol, (3, 2));
    Ok(())
}

#[test]
fn gssapi_encryption_is_refused_and_tls_may_follow() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    let gss = [8_u32.to_be_bytes(), startup::GSSENC_CODE.to_be_bytes()].concat();
    let mut ssl = Vec::new();
    startup::encode_ssl_request(&mut ssl);
    assert_eq!(exchange(&proxy, &[&gss], 1)?, b"N");
    assert_eq!(exchange(&proxy, &[&gss, &ssl], 2)?, b"NS");
    // Each is asked for once.
    let answer = exchange(&proxy, &[&gss, &gss], 1 << 16)?;
    assert!(code_and_text(&answer).contains("unsupported frontend protocol"));
    Ok(())
}

#[test]
fn bytes_stuffed_behind_a_request_for_encryption_are_refused() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    let gss = [8_u32.to_be_bytes(), startup::GSSENC_CODE.to_be_bytes()].concat();
    let mut ssl = Vec::new();
    startup::encode_ssl_request(&mut ssl);
    for request in [ssl, gss] {
        let stuffed = [request, begins(0)?].concat();
        let answer = exchange(&proxy, &[&stuffed], 1 << 16)?;
        assert_eq!(answer.first(), Some(&b'E'), "nothing is agreed to");
        let text = code_and_text(&answer);
        assert!(
            text.contains("C08P01") && text.contains("unencrypted data"),
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn what_is_no_startup_packet_gets_an_error_and_nothing_else() -> Result<()> {
    let proxy = Proxy::to(&world().plain, None)?;
    let version = |number: u32| [8_u32.to_be_bytes(), number.to_be_bytes()].concat();
    let unterminated = [
        &12_u32.to_be_bytes()[..],
        &196_608_u32.to_be_bytes(),
        b"user",
    ]
    .concat();
    let cases: [(&str, Vec<u8>, &str); 7] = [
        (
            "a length of 2^31",
            [0x80, 0, 0, 0, 0, 3, 0, 0].to_vec(),
            "C08P01",
        ),
        ("a length of 0", [0; 8].to_vec(), "C08P01"),
        (
            "a length over PostgreSQL's limit",
            [0, 1, 0, 0, 0, 3, 0, 0].to_vec(),
            "C08P01",
        ),
        ("no terminator", unterminated, "C08P01"),
        ("version 2", version(2 << 16), "C0A000"),
        (
            "no user",
            [&9_u32.to_be_bytes()[..], &196_608_u32.to_be_bytes(), b"\0"].concat(),
            "C28000",
        ),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "C08P01"),
    ];
    for (what, bytes, code) in cases {
        let answer = exchange(&proxy, &[&bytes], 1 << 16)?;
        assert_eq!(answer.first(), Some(&b'E'), "{what}");
        let text = code_and_text(&answer);
        assert!(text.contains(code), "{what}: {text}");
        assert!(text.contains("SFATAL"), "{what}: {text}");
    }
    Ok(())
}

#[test]
fn an_agent_that_leaves_is_no_error_of_anybody() -> Result<()> {
    let proxy = Proxy::to(&world().plain, None)?;
    world().runtime.block_on(async {
        let mut tcp = TcpStream::connect(("127.0.0.1", proxy.port)).await?;
        tcp.write_all(&[0, 0]).await?;
        anyhow::Ok(())
    })?;
    eventually("the flow ends", Duration::from_secs(5), || {
        let outcomes = proxy.outcomes.lock().expect("nobody panicked");
        Ok(outcomes.last().is_some_and(|last| {
            last.as_ref()
                .is_err_and(|why| why.contains("closed the connection"))
        }))
    })
}

/// A handshake without asking first, as `sslnegotiation=direct` makes it.
fn direct(proxy: &Proxy, alpn: &[&[u8]]) -> Result<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&world().trust.authority)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|one| one.to_vec()).collect();
    world().runtime.block_on(async {
        let tcp = TcpStream::connect(("127.0.0.1", proxy.port)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut tls = connector
            .connect(ServerName::try_from("localhost")?, tcp)
            .await?;
        tls.write_all(&begins(0)?).await?;
        let mut answer = Vec::new();
        while answer.len() < 9 && tls.read_buf(&mut answer).await? > 0 {}
        Ok(answer)
    })
}

#[test]
fn direct_tls_opens_a_session_when_it_says_that_it_is_postgresql() -> Result<()> {
    let proxy = Proxy::to(&world().tls, None)?;
    let answer = direct(&proxy, &[b"postgresql"])?;
    assert_eq!(answer.get(..9), Some(&b"R\0\0\0\x08\0\0\0\0"[..]));
    let session = proxy.session()?;
    assert!(session.downstream.is_some() && session.upstream.is_some());

    let silent = code_and_text(&direct(&proxy, &[])?);
    assert!(
        silent.starts_with('E') && silent.contains("direct SSL"),
        "{silent}"
    );
    assert!(direct(&proxy, &[b"http/1.1"]).is_err());
    Ok(())
}

#[test]
fn direct_tls_to_a_server_without_it_is_told_so_unless_the_target_says_never() -> Result<()> {
    let proxy = Proxy::to(&world().plain, None)?;
    let answer = code_and_text(&direct(&proxy, &[b"postgresql"])?);
    assert!(answer.starts_with('E'), "{answer}");

    let proxy = Proxy::to(&world().plain, Some(target(TlsMode::Disable, None)))?;
    let answer = direct(&proxy, &[b"postgresql"])?;
    assert_eq!(answer.first(), Some(&b'R'));
    Ok(())
}
