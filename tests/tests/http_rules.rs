//! What rules do to requests while a connection lives: they change, they have a
//! person asked, and they end it.

use anyhow::{Context as _, Result};
use interceptor_tests::daemon::SOON;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::web::{Plan, Shared, Web, all_targets};
use interceptor_tests::{eventually, needs};
use serde_json::Value;

static WEB: Shared = Shared::new(Plan {
    rules: "
version: 1
rules:
  - name: ask-first
    match: { http: { path: /asked } }
    verdict: hold
    message: This is asked about.
    approval: { from: [root], timeout: 60s }
  - name: deadly
    match: { http: { path: /deadly } }
    verdict: kill
",
    config: all_targets,
});

fn question(web: &Web, agent: &str) -> Result<String> {
    let mut found = None;
    eventually(&format!("a question of {agent}"), SOON, || {
        let list: Value = serde_json::from_str(&web.daemon.ask(&["approvals", "--json"])?)?;
        let open = list.as_array().into_iter().flatten().find(|one| {
            let is = |key: &str, value: &str| one.get(key).and_then(Value::as_str) == Some(value);
            is("agent", agent) && is("state", "open")
        });
        found = open
            .and_then(|one| one.get("id"))
            .and_then(Value::as_str)
            .map(str::to_owned);
        Ok(found.is_some())
    })?;
    found.context("no question")
}

#[test]
fn a_held_request_is_sent_when_it_is_approved_and_not_before() -> Result<()> {
    WEB.test(|web| {
        for (agent, flags) in [
            ("asker-1", &["-d", "a=b"][..]),
            ("asker-2", &["--http2-prior-knowledge"][..]),
        ] {
            let port = if flags.len() == 1 {
                web.nginx.port_http2
            } else {
                web.nginx.port
            };
            let url = format!("http://127.0.0.1:{port}/asked?{agent}");
            let words = [&["curl", "-sS", "-i"][..], flags, &[&url]].concat();
            let running = web.agent(agent).start(&words)?;
            let id = question(web, agent)?;
            assert!(!web.nginx.saw(agent)?);
            web.daemon.ask(&["approvals", "approve", &id])?;
            let done = running.finish(SOON)?.ok()?;
            assert!(done.stdout.contains(" 200"), "{}", done.stdout);
            web.nginx.asked_for(&format!("/asked?{agent}"))?;
        }
        Ok(())
    })
}

#[test]
fn a_denied_request_is_never_sent() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/asked?denied", web.nginx.port);
        let running = web.agent("denied").start(&["curl", "-sS", "-i", &url])?;
        let id = question(web, "denied")?;
        web.daemon
            .ask(&["approvals", "deny", &id, "--reason", "not today"])?;
        let done = running.finish(SOON)?.ok()?;
        assert!(done.stdout.contains(" 403"), "{}", done.stdout);
        assert!(!web.nginx.saw("denied")?);
        Ok(())
    })
}

#[test]
fn a_question_of_an_agent_that_left_is_taken_back() -> Result<()> {
    WEB.test(|web| {
        let url = format!("http://127.0.0.1:{}/asked?left", web.nginx.port);
        let running = web.agent("leaver").start(&["curl", "-sS", &url])?;
        question(web, "leaver")?;
        drop(running);
        eventually("the question to go", SOON, || {
            let list = web.daemon.ask(&["approvals", "--json"])?;
            let list: Value = serde_json::from_str(&list)?;
            let open = list.as_array().into_iter().flatten().any(|one| {
                let is =
                    |key: &str, value: &str| one.get(key).and_then(Value::as_str) == Some(value);
                is("agent", "leaver") && is("state", "open")
            });
            Ok(!open)
        })?;
        assert!(!web.nginx.saw("left")?);
        Ok(())
    })
}

#[test]
fn a_rule_that_kills_ends_the_connection_with_its_reason() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", web.nginx.port);
        let urls = [url("/deadly"), url("/afterwards")];
        let done = web.curl("doomed", &[&urls[0], &urls[1]])?;
        assert!(done.stdout.contains("deadly"), "{}", done.stdout);
        let sessions = web.records()?.closed_sessions_of("doomed", 1)?;
        let (_, events) = sessions.first().context("no session")?;
        let commands = events
            .iter()
            .filter(|event| event.kind == "command")
            .count();
        assert_eq!(commands, 1, "{events:?}");
        Ok(())
    })
}

#[test]
fn rules_that_change_hold_for_the_next_request_of_a_connection() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let server = Scripted::start(|connection| {
        loop {
            connection.head()?;
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
    })?;
    let web = Web::before(&server, "version: 1\nrules: []\n")?;
    web.test(|web| {
        let program = "import http.client,sys,time\n\
            c=http.client.HTTPConnection('127.0.0.1',int(sys.argv[1]))\n\
            seen=[]\n\
            for _ in range(200):\n\
            \x20   c.request('GET','/again')\n\
            \x20   r=c.getresponse(); r.read()\n\
            \x20   if r.status not in seen: seen.append(r.status)\n\
            \x20   if r.status==403: break\n\
            \x20   time.sleep(0.1)\n\
            print(seen)\n";
        let port = server.port.to_string();
        let words = ["/usr/bin/python3", "-c", program, &port];
        let running = web.agent("steady").start(&words)?;
        eventually("the first request", SOON, || Ok(!server.heads().is_empty()))?;
        web.daemon.set_rules(
            "version: 1\nrules:\n  - name: no-more\n    match: { protocol: http }\n    verdict: block\n",
        )?;
        let done = running.finish(std::time::Duration::from_secs(40))?.ok()?;
        assert_eq!(done.stdout, "[200, 403]\n");
        web.records()?.only_session_of("steady")?;
        Ok(())
    })
}
