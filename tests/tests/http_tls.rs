//! HTTP under TLS: opened with the local authority, the service verified, and what
//! cannot be opened by policy.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::certs::Certificates;
use interceptor_tests::eventually;
use interceptor_tests::process::{Server, Start};
use interceptor_tests::web::{Plan, Shared, Web, all_targets, json_of, target};
use nix::sys::signal::Signal;
use serde_json::json;

const RULES: &str = "
version: 1
rules:
  - name: no-admin
    match: { http: { path: [\"/admin\", \"/admin/**\"] } }
    verdict: block
";

static WEB: Shared = Shared::new(Plan {
    rules: RULES,
    config: all_targets,
});

/// The service is held to a root that did not sign its certificate.
static MISTRUSTED: Shared = Shared::new(Plan {
    rules: RULES,
    config: |nginx, place| {
        let other = Certificates::new(place, "other", None)?;
        let settings = json!({ "tls": { "ca": other.ca } });
        Ok(json!({ "targets": [target("pages-tls", nginx.port_tls, &settings)] }))
    },
});

/// What cannot be opened is let through unread.
static LENIENT: Shared = Shared::new(Plan {
    rules: RULES,
    config: |nginx, place| {
        let mut config = all_targets(nginx, place)?;
        if let Some(config) = config.as_object_mut() {
            config.insert("intercept".to_owned(), json!({ "uninspected": "allow" }));
        }
        Ok(config)
    },
});

/// Every port is a target.
static ANY: Shared = Shared::new(Plan {
    rules: RULES,
    config: |nginx, _| {
        let settings = json!({ "port": null, "tls": { "ca": nginx.certificates.ca } });
        Ok(json!({ "targets": [target("any", 0, &settings)] }))
    },
});

fn url(web: &Web, path: &str) -> String {
    format!("https://localhost:{}{path}", web.nginx.port_tls)
}

#[test]
fn what_is_under_tls_is_judged_and_the_agent_trusts_without_being_told_how() -> Result<()> {
    WEB.test(|web| {
        for (flag, version, at_service) in [
            ("--http1.1", "HTTP/1.1", "HTTP/1.1"),
            ("--http2", "HTTP/2", "HTTP/2.0"),
        ] {
            let path = format!("/under{flag}");
            let done = web.curl("covered", &[flag, &url(web, &path)])?.ok()?;
            assert!(
                done.stdout.starts_with(&format!("{version} 200")),
                "{}",
                done.stdout
            );
            let asked = web.nginx.asked_for(&path)?;
            let protocol = asked.first().and_then(|one| one.get("protocol"));
            assert_eq!(protocol.and_then(|one| one.as_str()), Some(at_service));
            let done = web.curl("covered", &[flag, &url(web, "/admin/x")])?.ok()?;
            assert!(
                done.stdout.starts_with(&format!("{version} 403")),
                "{}",
                done.stdout
            );
        }
        assert!(!web.nginx.saw("/admin/x")?);
        Ok(())
    })
}

#[test]
fn a_service_with_another_s_certificate_is_not_spoken_to_and_the_agent_reads_why() -> Result<()> {
    MISTRUSTED.test(|web| {
        for flag in ["--http1.1", "--http2"] {
            let done = web.curl("misled", &[flag, &url(web, "/secret")])?.ok()?;
            assert!(done.stdout.contains(" 502"), "{}", done.stdout);
            let problem = json_of(&done.stdout)?.to_string();
            assert!(problem.contains("certificate"), "{problem}");
        }
        assert!(!web.nginx.saw("/secret")?);
        let sessions = web.records()?.closed_sessions_of("misled", 2)?;
        let told = sessions.iter().flat_map(|(_, events)| events);
        assert!(
            told.into_iter()
                .any(|event| event.line.contains("certificate"))
        );
        Ok(())
    })
}

#[test]
fn an_agent_that_holds_out_for_the_service_s_own_certificate_is_not_let_through_unread()
-> Result<()> {
    WEB.test(|web| {
        let own = web.nginx.certificates.ca.display().to_string();
        for try_again in 0..2 {
            let done = web.curl("pinned", &["--cacert", &own, &url(web, "/pinned")])?;
            assert!(!done.status.success(), "{try_again}: {}", done.stdout);
        }
        assert!(!web.nginx.saw("/pinned")?);
        let sessions = web.records()?.closed_sessions_of("pinned", 2)?;
        let (_, second) = sessions.last().context("no second session")?;
        assert!(
            second
                .iter()
                .any(|event| event.line.contains("cannot be opened")),
            "{second:?}"
        );
        eventually("the alert", Duration::from_secs(5), || {
            let alerts = web.records()?.stream("interceptor:alerts")?;
            Ok(format!("{:?}", alerts.len()) != "0"
                && alerts.iter().any(|alert| {
                    let line = alert.get("line").cloned().unwrap_or_default();
                    String::from_utf8_lossy(&line).contains("cannot be opened")
                }))
        })
    })
}

#[test]
fn where_the_operator_allows_it_the_next_flow_of_such_an_agent_goes_by_unread() -> Result<()> {
    LENIENT.test(|web| {
        let own = web.nginx.certificates.ca.display().to_string();
        let arguments = ["--cacert", &own, &url(web, "/unread")];
        assert!(!web.curl("stubborn", &arguments)?.status.success());
        let done = web.curl("stubborn", &arguments)?.ok()?;
        assert!(done.stdout.contains(" 200"), "{}", done.stdout);
        let sessions = web.records()?.closed_sessions_of("stubborn", 2)?;
        let (_, second) = sessions.last().context("no second session")?;
        let opened = second.first().context("no opening")?;
        assert_eq!(
            opened.meta.get("uninspected"),
            Some(&json!(true)),
            "{opened:?}"
        );
        // Another agent is still opened.
        let done = web
            .curl("ordinary", &[&url(web, "/admin/ordinary")])?
            .ok()?;
        assert!(done.stdout.contains(" 403"), "{}", done.stdout);
        Ok(())
    })
}

#[test]
fn a_host_that_is_not_the_name_of_the_connection_is_refused() -> Result<()> {
    WEB.test(|web| {
        for flag in ["--http1.1", "--http2"] {
            let arguments = [flag, "-H", "host: elsewhere.test", &url(web, "/fronted")];
            let done = web.curl("fronting", &arguments)?.ok()?;
            assert!(!done.stdout.contains(" 200"), "{}", done.stdout);
        }
        assert!(!web.nginx.saw("/fronted")?);
        Ok(())
    })
}

#[test]
fn what_is_no_http_inside_tls_goes_by_policy_too() -> Result<()> {
    WEB.test(|web| {
        let connect = format!("127.0.0.1:{}", web.nginx.port_tls);
        let done = web.agent("odd").run_with_input(
            &["openssl", "s_client", "-quiet", "-connect", &connect],
            "\u{1}\u{2}nothing that is known\n",
        )?;
        assert!(!done.stdout.contains("400"), "{}", done.stdout);
        let (_, events) = web.records()?.only_session_of("odd")?;
        assert!(
            events.iter().any(|event| event.line.contains("refused")),
            "{events:?}"
        );
        Ok(())
    })
}

/// Two services that speak to nobody without a certificate, one for each way in
/// which TLS says so.
#[test]
fn a_service_that_asks_for_a_certificate_that_is_not_there_goes_by_policy() -> Result<()> {
    ANY.test(|web| {
        for version in ["-tls1_2", "-tls1_3"] {
            let port = interceptor_tests::place::free_port()?;
            let mut command = std::process::Command::new("openssl");
            command
                .args([
                    "s_server",
                    "-quiet",
                    "-www",
                    "-Verify",
                    "1",
                    "-verify_return_error",
                    version,
                ])
                .args(["-accept", &format!("127.0.0.1:{port}")])
                .arg("-cert")
                .arg(&web.nginx.certificates.certificate)
                .arg("-key")
                .arg(&web.nginx.certificates.key);
            let start = Start {
                name: "openssl",
                log: &web.place.path(format!("openssl{version}.log")),
                user: None,
                stop: Signal::SIGKILL,
                orphaned: Signal::SIGKILL,
            };
            let mut server = Server::start(&start, command)?;
            server.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
            let url = format!("https://localhost:{port}/");
            let agent = format!("bare{version}");
            for _ in 0..2 {
                let done = web.curl(&agent, &[&url])?;
                assert!(!done.stdout.contains(" 200"), "{}", done.stdout);
            }
            let sessions = web.records()?.closed_sessions_of(&agent, 2)?;
            let (_, last) = sessions.last().context("no second session")?;
            assert!(
                last.iter()
                    .any(|event| event.line.contains("client certificate")),
                "{version}: {last:?}"
            );
        }
        Ok(())
    })
}
