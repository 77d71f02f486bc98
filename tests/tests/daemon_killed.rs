//! The daemon is killed at any moment, again and again, under load: nothing that its rules
//! refuse reaches the service, and nothing reaches it that did not come through a daemon.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::place::Place;
use interceptor_tests::redis::Redis;
use interceptor_tests::{agent::Agent, needs, web};
use serde_json::json;

/// How often it is killed: `INTERCEPTOR_KILLS`, 100 in a run that means it.
fn kills() -> usize {
    let kills = std::env::var("INTERCEPTOR_KILLS").ok();
    kills.and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

/// What came to the service.
#[derive(Default)]
struct Came {
    connections: AtomicUsize,
    allowed: AtomicUsize,
    forbidden: AtomicUsize,
    /// Not in the words that the proxy sends.
    raw: AtomicUsize,
}

fn serve(came: &Arc<Came>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let came = Arc::clone(came);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let came = Arc::clone(&came);
            std::thread::spawn(move || one(stream, &came));
        }
    });
    Ok(port)
}

fn one(mut stream: TcpStream, came: &Came) {
    came.connections.fetch_add(1, Ordering::Relaxed);
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            return;
        }
        let text = String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned();
        came.allowed
            .fetch_add(text.matches("/allowed").count(), Ordering::Relaxed);
        came.forbidden
            .fetch_add(text.matches("forbidden").count(), Ordering::Relaxed);
        came.raw
            .fetch_add(text.matches("not-http").count(), Ordering::Relaxed);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
}

/// Four threads that ask, by turns, for what is allowed, for what is not, and for nothing
/// that is HTTP.
const AGENT: &str = r#"
import socket, sys, threading
said = [b"GET /allowed HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /forbidden HTTP/1.1\r\nHost: x\r\n\r\n", b"not-http forbidden\n"]
over = threading.Event()
counts = {}
def go():
    n = 0
    while not over.is_set():
        n += 1
        try:
            s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
            s.sendall(said[n % 3])
            came = s.recv(12).decode() or "closed"
            s.close()
        except OSError as error:
            came = type(error).__name__
        counts[came] = counts.get(came, 0) + 1
        over.wait(0.01)
threads = [threading.Thread(target=go) for _ in range(4)]
for thread in threads: thread.start()
sys.stdin.read()
over.set()
for thread in threads: thread.join()
print(counts)
"#;

#[test]
fn whenever_the_daemon_is_killed_nothing_passes_uninspected() -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let came = Arc::<Came>::default();
    let port = serve(&came)?;
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let rules = r#"
version: 1
rules:
  - { name: no, match: { http: { path: /forbidden } }, verdict: block }
"#;
    let config = json!({ "targets": [web::target("service", port, &json!({}))] });
    let daemon = Daemon::start(&place, &redis.url(), rules, &config)?;
    daemon.watch(|| {
        let agent = Agent::new(&daemon, "stubborn");
        let running = agent.start(&["/usr/bin/python3", "-c", AGENT, &port.to_string()])?;
        let seed = std::process::id() as usize;
        for kill in 0..kills() {
            // At any moment of its life, the first ones included.
            let moment = (seed.wrapping_mul(31).wrapping_add(kill * 7919)) % 700;
            std::thread::sleep(Duration::from_millis(moment as u64));
            daemon.kill()?;
            let before = came.connections.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(150));
            let after = came.connections.load(Ordering::Relaxed);
            ensure!(after == before, "{} connections without a daemon", after - before);
            daemon.restart()?;
        }
        std::thread::sleep(Duration::from_secs(1));
        let done = running.finish(SOON)?.ok()?;
        let at = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        println!(
            "killed {} times: the service got {} connections, {} allowed requests, {} forbidden ones, {} that are no HTTP; the agent saw {}",
            kills(), at(&came.connections), at(&came.allowed), at(&came.forbidden), at(&came.raw), done.stdout.trim()
        );
        ensure!(at(&came.allowed) > 0, "nothing that is allowed came: no load");
        ensure!(done.stdout.contains("PermissionError"), "no connect met a dead daemon: {}", done.stdout);
        assert_eq!(at(&came.forbidden), 0);
        assert_eq!(at(&came.raw), 0);
        let log = std::fs::read_to_string(place.path("interceptor.log")).context("no log")?;
        ensure!(log.contains("no-listener"), "the log does not say why connects were refused");
        Ok(())
    })
}
