//! HTTP in the clear, between real curl and real nginx: judged, answered, masked
//! and recorded.

use anyhow::{Context as _, Result};
use interceptor_tests::nginx::LARGE;
use interceptor_tests::web::{Plan, Shared, all_targets, json_of};

const RULES: &str = r#"
version: 1
rules:
  - name: no-admin
    match: { http: { path: ["/admin", "/admin/**"] } }
    verdict: block
    message: Administration is for people.
  - name: cards-are-hidden
    match: { protocol: http }
    mask: [{ detect: [credit_card], with: redact }]
"#;

static WEB: Shared = Shared::new(Plan {
    rules: RULES,
    config: all_targets,
});

#[test]
fn a_request_that_no_rule_refuses_passes_and_is_on_record() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/here?a=b", web.nginx.port);
        let done = web.curl("reader", &[&url])?.ok()?;
        assert!(
            done.stdout.starts_with("HTTP/1.1 200 OK\r\n"),
            "{}",
            done.stdout
        );
        assert!(
            done.stdout.ends_with("hello /here?a=b\n"),
            "{}",
            done.stdout
        );
        web.nginx.asked_for("/here?a=b")?;
        let (_, events) = web.records()?.only_session_of("reader")?;
        let command = events
            .iter()
            .find(|event| event.kind == "command")
            .context("no command on record")?;
        assert!(command.line.contains("/here"), "{}", command.line);
        Ok(())
    })
}

#[test]
fn a_request_that_a_rule_blocks_is_answered_with_the_rule_and_never_sent() -> Result<()> {
    WEB.test(|web| {
        for path in [
            "/admin/users",
            "/x/../admin/users",
            "/%61dmin/users",
            "//admin/users",
        ] {
            let url = format!("http://127.0.0.1:{}{path}", web.nginx.port);
            let done = web.curl("intruder", &["--path-as-is", &url])?.ok()?;
            assert!(
                done.stdout.starts_with("HTTP/1.1 403"),
                "{path}: {}",
                done.stdout
            );
            assert!(
                done.stdout
                    .to_lowercase()
                    .contains("content-type: application/problem+json"),
                "{}",
                done.stdout
            );
            let problem = json_of(&done.stdout)?.to_string();
            assert!(problem.contains("no-admin"), "{problem}");
            assert!(
                problem.contains("Administration is for people."),
                "{problem}"
            );
        }
        assert!(!web.nginx.saw("admin")?);
        Ok(())
    })
}

#[test]
fn http2_with_prior_knowledge_is_read_as_well() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", web.nginx.port_http2);
        let knowing = "--http2-prior-knowledge";
        let done = web.curl("knowing", &[knowing, &url("/two")])?.ok()?;
        assert!(done.stdout.starts_with("HTTP/2 200"), "{}", done.stdout);
        let asked = web.nginx.asked_for("/two")?;
        let protocol = asked.first().and_then(|one| one.get("protocol"));
        assert_eq!(protocol.and_then(|one| one.as_str()), Some("HTTP/2.0"));
        let done = web.curl("knowing", &[knowing, &url("/admin/two")])?.ok()?;
        assert!(done.stdout.starts_with("HTTP/2 403"), "{}", done.stdout);
        assert!(!web.nginx.saw("/admin/two")?);
        Ok(())
    })
}

#[test]
fn an_offer_to_switch_to_http2_is_not_taken_up_and_the_request_is_answered() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/offer", web.nginx.port);
        let done = web.curl("offering", &["--http2", &url])?.ok()?;
        assert!(done.stdout.starts_with("HTTP/1.1 200"), "{}", done.stdout);
        Ok(())
    })
}

#[test]
fn a_card_number_in_an_answer_is_hidden_from_agent_and_record() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/files/customer.json", web.nginx.port);
        let done = web.curl("curious", &[&url])?.ok()?;
        assert!(done.stdout.contains("London"), "{}", done.stdout);
        assert!(!done.stdout.contains("4111"), "{}", done.stdout);
        let mut records = web.records()?;
        records.only_session_of("curious")?;
        let holding = records.keys_that_hold(b"4111 1111 1111 1111")?;
        assert_eq!(holding, Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn large_bodies_pass_whole_in_both_directions() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", web.nginx.port);
        let size = ["-o", "/dev/null", "-w", "%{size_download} %{http_code}"];
        let done = web
            .agent("loader")
            .run(&[&["curl", "-sS"][..], &size, &[&url("/files/large")]].concat())?
            .ok()?;
        assert_eq!(done.stdout, format!("{LARGE} 200"));
        let file = web.place.file("upload", &"y".repeat(LARGE))?;
        let file = format!("@{}", file.display());
        let done = web
            .curl(
                "loader",
                &["-H", "expect:", "--data-binary", &file, &url("/upload")],
            )?
            .ok()?;
        assert!(
            done.stdout.ends_with(&format!("took {LARGE}\n")),
            "{}",
            done.stdout
        );
        Ok(())
    })
}

#[test]
fn an_upload_that_waits_for_leave_gets_it() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/upload", web.nginx.port);
        let done = web
            .curl(
                "asking",
                &["-H", "expect: 100-continue", "--data-binary", "abc", &url],
            )?
            .ok()?;
        assert!(done.stdout.contains("HTTP/1.1 100"), "{}", done.stdout);
        assert!(done.stdout.ends_with("took 3\n"), "{}", done.stdout);
        Ok(())
    })
}

#[test]
fn one_connection_carries_many_requests_each_judged() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", web.nginx.port);
        let urls = ["/keep/1", "/admin/keep", "/keep/2"].map(url);
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let done = web.curl("keeper", &urls)?.ok()?;
        assert_eq!(
            done.stdout.matches("HTTP/1.1 200").count(),
            2,
            "{}",
            done.stdout
        );
        assert_eq!(
            done.stdout.matches("HTTP/1.1 403").count(),
            1,
            "{}",
            done.stdout
        );
        let connection = |path: &str| -> Result<Option<String>> {
            let asked = web.nginx.asked_for(path)?;
            let one = asked.first().and_then(|one| one.get("connection"));
            Ok(one.and_then(|one| one.as_str()).map(str::to_owned))
        };
        assert_eq!(connection("/keep/1")?, connection("/keep/2")?);
        // One flow, one session.
        let (_, events) = web.records()?.only_session_of("keeper")?;
        let commands = events
            .iter()
            .filter(|event| event.kind == "command")
            .count();
        assert_eq!(commands, 3);
        Ok(())
    })
}

#[test]
fn where_the_service_can_be_reached_otherwise_is_not_told() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/moved", web.nginx.port);
        let done = web.curl("moving", &[&url])?.ok()?;
        assert!(done.stdout.starts_with("HTTP/1.1 302"), "{}", done.stdout);
        assert!(
            !done.stdout.to_lowercase().contains("alt-svc"),
            "{}",
            done.stdout
        );
        Ok(())
    })
}

#[test]
fn an_address_that_is_not_the_connection_s_own_is_refused() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/elsewhere", web.nginx.port);
        let done = web
            .curl("fronting", &["-H", "host: 10.9.8.7", &url])?
            .ok()?;
        assert!(!done.stdout.starts_with("HTTP/1.1 200"), "{}", done.stdout);
        assert!(!web.nginx.saw("/elsewhere")?);
        Ok(())
    })
}
