//! Bytes that two readers would take for different requests, and services and
//! agents that break off: refused, recorded, and nothing of it passed on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use interceptor_tests::nginx::LARGE;
use interceptor_tests::scripted::Scripted;
use interceptor_tests::web::{Plan, Shared, Web, all_targets};
use interceptor_tests::{eventually, needs};

const RULES: &str = "version: 1\nrules: []\n";

static WEB: Shared = Shared::new(Plan {
    rules: RULES,
    config: all_targets,
});

/// Sends bytes as an agent, and gives what came back.
fn raw(web: &Web, agent: &str, port: u16, bytes: &str) -> Result<String> {
    let program = "import socket,sys\n\
        s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n\
        s.sendall(sys.argv[2].encode('latin-1').decode('unicode_escape').encode('latin-1'))\n\
        s.settimeout(10)\n\
        out=b''\n\
        try:\n\
        \x20   while True:\n\
        \x20       d=s.recv(65536)\n\
        \x20       if not d: break\n\
        \x20       out+=d\n\
        except socket.timeout: out+=b'TIMEOUT'\n\
        sys.stdout.write(out.decode('latin-1'))\n";
    let escaped = bytes.replace('\r', "\\r").replace('\n', "\\n");
    let words = [
        "/usr/bin/python3",
        "-c",
        program,
        &port.to_string(),
        &escaped,
    ];
    Ok(web.agent(agent).run(&words)?.ok()?.stdout)
}

#[test]
fn a_message_of_two_readings_is_refused_and_nothing_of_it_is_sent() -> Result<()> {
    WEB.test(|web| {
        let host = "Host: 127.0.0.1";
        let hidden = "GET /hidden HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        let attempts = [
            ("two lengths", format!("POST /s HTTP/1.1\r\n{host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}")),
            ("lengths that differ", format!("POST /s HTTP/1.1\r\n{host}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd{hidden}")),
            ("a coding in disguise", format!("POST /s HTTP/1.1\r\n{host}\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\nabcd{hidden}")),
            ("a bare line feed", format!("GET /s HTTP/1.1\n{host}\n\n{hidden}")),
            ("a folded line", format!("GET /s HTTP/1.1\r\n{host}\r\nX: a\r\n b\r\n\r\n{hidden}")),
            ("a space before the colon", format!("GET /s HTTP/1.1\r\n{host}\r\nContent-Length : 3\r\n\r\n{hidden}")),
            ("two hosts", format!("GET /s HTTP/1.1\r\n{host}\r\nHost: other\r\n\r\n{hidden}")),
            ("a chunk that is none", format!("POST /upload HTTP/1.1\r\n{host}\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n{hidden}")),
        ];
        for (what, bytes) in attempts {
            let answer = raw(web, "smuggler", web.nginx.port, &bytes)?;
            assert!(!answer.contains(" 200 "), "{what}: {answer}");
            assert!(!answer.contains("TIMEOUT"), "{what}: {answer}");
        }
        assert!(!web.nginx.saw("hidden")?);
        let sessions = web.records()?.closed_sessions_of("smuggler", 8)?;
        for (_, events) in sessions {
            assert!(
                events.iter().any(|event| event.kind == "verdict" || event.kind == "error"),
                "{events:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn pipelined_requests_are_answered_in_order_and_each_judged() -> Result<()> {
    WEB.test(|web| {
        let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        let last = "GET /third HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let bytes = format!("{}{}{last}", one("/first"), one("/second"));
        let answer = raw(web, "pipeline", web.nginx.port, &bytes)?;
        let at = |text: &str| {
            answer
                .find(text)
                .with_context(|| format!("no {text} in {answer}"))
        };
        assert!(at("hello /first")? < at("hello /second")?);
        assert!(at("hello /second")? < at("hello /third")?);
        Ok(())
    })
}

#[test]
fn an_answer_before_a_refused_request_still_comes() -> Result<()> {
    WEB.test(|web| {
        let program = "import socket,sys,time\n\
            s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n\
            s.sendall(b'GET /before HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n')\n\
            time.sleep(0.5)\n\
            s.sendall(b'GET /after HTTP/1.1\\r\\nHost: a\\r\\nHost: b\\r\\n\\r\\n')\n\
            out=b''\n\
            while True:\n\
            \x20   d=s.recv(65536)\n\
            \x20   if not d: break\n\
            \x20   out+=d\n\
            sys.stdout.write(out.decode())\n";
        let words = [
            "/usr/bin/python3",
            "-c",
            program,
            &web.nginx.port.to_string(),
        ];
        let answer = web.agent("mixed").run(&words)?.ok()?.stdout;
        assert!(answer.contains("hello /before"), "{answer}");
        assert!(answer.contains("HTTP/1.1 400"), "{answer}");
        assert!(!web.nginx.saw("/after")?);
        Ok(())
    })
}

#[test]
fn an_event_stream_arrives_as_it_is_sent() -> Result<()> {
    let server = Scripted::start(|connection| {
        connection.head()?;
        connection.say(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        let first = "data: first\n\n";
        connection.say(&format!("{:x}\r\n{first}\r\n", first.len()))?;
        // Until the agent has gone away: it has what it wanted.
        connection.closes_within(Duration::from_secs(15)).map(drop)
    })?;
    if !needs::kernel()? {
        return Ok(());
    }
    let web = Web::before(&server, RULES)?;
    web.test(|web| {
        let program = "import socket,sys\n\
            s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n\
            s.sendall(b'GET /events HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n')\n\
            s.settimeout(5)\n\
            out=b''\n\
            while b'first' not in out: out+=s.recv(65536)\n\
            print('got it')\n";
        let words = ["/usr/bin/python3", "-c", program, &server.port.to_string()];
        let done = web.agent("listener").run(&words)?.ok()?;
        assert_eq!(done.stdout, "got it\n");
        Ok(())
    })
}

#[test]
fn an_agent_that_leaves_takes_its_request_back() -> Result<()> {
    let (gone, is_gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let server = Scripted::start(move |connection| {
        connection.head()?;
        let closed = connection.closes_within(Duration::from_secs(15))?;
        if let Ok(gone) = gone.lock() {
            let _ = gone.send(closed);
        }
        Ok(())
    })?;
    if !needs::kernel()? {
        return Ok(());
    }
    let web = Web::before(&server, RULES)?;
    web.test(|web| {
        let url = format!("http://127.0.0.1:{}/slow", server.port);
        let words = ["curl", "-sS", "--max-time", "1", &url];
        assert!(!web.agent("impatient").run(&words)?.status.success());
        assert!(is_gone.recv_timeout(Duration::from_secs(10))?);
        Ok(())
    })
}

#[test]
fn a_connection_that_the_service_closed_is_made_again() -> Result<()> {
    let server = Scripted::start(|connection| {
        connection.head()?;
        connection.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    })?;
    if !needs::kernel()? {
        return Ok(());
    }
    let web = Web::before(&server, RULES)?;
    web.test(|web| {
        let url = |n: u32| format!("http://127.0.0.1:{}/{n}", server.port);
        // Not before the proxy has seen the end of the connection before.
        let rate = ["--rate", "5/s"];
        let urls = [url(1), url(2), url(3)];
        let words = rate.into_iter().chain(urls.iter().map(String::as_str));
        let words: Vec<&str> = words.collect();
        let done = web.curl("patient", &words)?.ok()?;
        assert_eq!(
            done.stdout.matches("HTTP/1.1 200").count(),
            3,
            "{}",
            done.stdout
        );
        Ok(())
    })
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_break_off() -> Result<()> {
    let server = Scripted::start(|connection| {
        connection.head()?;
        connection.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    })?;
    if !needs::kernel()? {
        return Ok(());
    }
    let web = Web::before(&server, RULES)?;
    web.test(|web| {
        let url = format!("http://127.0.0.1:{}/half", server.port);
        let done = web.curl("halved", &[&url])?;
        assert!(!done.status.success(), "{}", done.stdout);
        let (_, events) = web.records()?.only_session_of("halved")?;
        assert!(
            events.iter().any(|event| event.kind == "error"),
            "{events:?}"
        );
        Ok(())
    })
}

#[test]
fn a_session_that_is_killed_ends_at_once() -> Result<()> {
    let server = Scripted::start(|connection| {
        connection.head()?;
        connection.closes_within(Duration::from_secs(20)).map(drop)
    })?;
    if !needs::kernel()? {
        return Ok(());
    }
    let web = Web::before(&server, RULES)?;
    web.test(|web| {
        let url = format!("http://127.0.0.1:{}/hangs", server.port);
        let running = web.agent("hanging").start(&["curl", "-sS", &url])?;
        eventually("the request", Duration::from_secs(10), || {
            Ok(!server.heads().is_empty())
        })?;
        let listed = web.daemon.ask(&["--json", "sessions", "list"])?;
        let (_, behind) = listed
            .split_once("\"session\":")
            .context("no session is listed")?;
        let session = behind.split('"').nth(1).context("no session is named")?;
        web.daemon.ask(&["sessions", "kill", session])?;
        let done = running.finish(Duration::from_secs(10))?;
        assert!(!done.status.success(), "{done:?}");
        Ok(())
    })
}

#[test]
fn an_answer_of_two_readings_is_not_passed_on() -> Result<()> {
    let server = Scripted::start(|connection| {
        connection.head()?;
        connection.say(
            "HTTP/1.1 200 OK\r\ncontent-length: 70\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond",
        )
    })?;
    if !needs::kernel()? {
        return Ok(());
    }
    let web = Web::before(&server, RULES)?;
    web.test(|web| {
        let url = format!("http://127.0.0.1:{}/twice", server.port);
        let done = web.curl("doubled", &[&url, &url])?;
        assert!(!done.stdout.contains("second"), "{}", done.stdout);
        assert!(done.stdout.starts_with("HTTP/1.1 502"), "{}", done.stdout);
        Ok(())
    })
}

#[test]
fn answers_without_a_body_are_whole() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", web.nginx.port);
        let urls = [url("/files/large"), url("/empty"), url("/moved")];
        let done = web
            .curl("brief", &["-I", &urls[0], &urls[1], &urls[2]])?
            .ok()?;
        assert!(
            done.stdout.contains(&format!("Content-Length: {LARGE}")),
            "{}",
            done.stdout
        );
        assert!(done.stdout.contains("HTTP/1.1 204"), "{}", done.stdout);
        assert!(done.stdout.contains("HTTP/1.1 302"), "{}", done.stdout);
        Ok(())
    })
}

#[test]
fn a_tunnel_passes_where_what_nobody_reads_may() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    for (uninspected, passes) in [("allow", true), ("block", false)] {
        let server = Scripted::start(|connection| {
            let head = connection.head()?;
            anyhow::ensure!(head.starts_with("CONNECT inside.test:80 "), "{head}");
            connection.say("HTTP/1.1 200 Connection established\r\n\r\n")?;
            connection.head()?;
            connection.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\ninside")?;
            connection
                .closes_within(std::time::Duration::from_secs(10))
                .map(drop)
        })?;
        let further = serde_json::json!({ "intercept": { "uninspected": uninspected } });
        let web = Web::before_with(&server, "version: 1\nrules: []\n", &further)?;
        web.test(|web| {
            let proxy = format!("http://127.0.0.1:{}", server.port);
            let words = ["-p", "-x", &proxy, "http://inside.test/"];
            let done = web.curl("tunnel", &words)?;
            assert_eq!(done.stdout.ends_with("inside"), passes, "{done:?}");
            assert_eq!(server.heads().len(), if passes { 2 } else { 0 });
            Ok(())
        })?;
    }
    Ok(())
}
