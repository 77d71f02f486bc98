//! Agents that must not notice that daemons change.

use anyhow::{Result, ensure};

use crate::agent::Running;
use crate::daemon::SOON;
use crate::eventually;
use crate::world::World;

/// Connects every ten milliseconds; and, beside that, connects, says hello to the database
/// and goodbye; until its input ends. Then says how often, and how long the longest took.
const LOOPER: &str = r#"
import os, socket, struct, sys, threading, time
said = b"user\0agent\0database\0postgres\0\0"
hello = struct.pack("!II", len(said) + 8, 196608) + said
over = threading.Event()
def dial(to):
    if not to.startswith("/"):
        return socket.create_connection(("127.0.0.1", int(to)), timeout=20)
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(to)
    return s
def timed(greet):
    n = longest = 0
    while not over.is_set():
        began = time.monotonic()
        try:
            s = dial(sys.argv[1])
            if greet:
                s.sendall(hello)
                first = s.recv(1)
                assert first == b"R", first
                s.sendall(b"X\0\0\0\4")
            s.close()
        except Exception as error:
            print(f"failed after {n}: {error!r}", flush=True)
            os._exit(1)
        n, longest = n + 1, max(longest, time.monotonic() - began)
        time.sleep(0.01)
    results[greet] = (n, longest * 1000)
results = {}
threads = [threading.Thread(target=timed, args=(greet,)) for greet in (False, True)]
for thread in threads: thread.start()
print("begun", flush=True)
sys.stdin.read()
over.set()
for thread in threads: thread.join()
# Who has ended is nobody, and every connect is to be somebody's: they are taken in order.
s = dial(sys.argv[1]); s.sendall(hello); s.recv(1); s.sendall(b"X\0\0\0\4"); s.close()
results[True] = (results[True][0] + 1, results[True][1])
print("%d %.1f %d %.1f" % (results[False] + results[True]))
"#;

/// A load on the database, which is at a port or at a path.
///
/// # Errors
/// When it cannot be started.
pub fn looper(world: &World, at: &str) -> Result<Running> {
    let looper = world
        .agent("looper")
        .start(&["/usr/bin/python3", "-c", LOOPER, at])?;
    // What follows replaces the daemon that it asks to be placed.
    looper.has_begun()?;
    Ok(looper)
}

/// Ends it; an error when a connect was refused. How many connects there were, and how many
/// that went on to the database's answer.
///
/// # Errors
/// As above.
#[allow(clippy::print_stdout, reason = "what was measured; libtest keeps it")]
pub fn none_refused(looper: Running) -> Result<(usize, usize)> {
    let done = looper.finish(SOON)?.ok()?;
    let numbers: Vec<&str> = done.stdout.split_whitespace().skip(1).collect();
    let [connects, connect, sessions, whole] = numbers[..] else {
        anyhow::bail!("{}", done.stdout);
    };
    println!(
        "{connects} connects, none refused, the longest took {connect} ms; \
         {sessions} sessions, the longest took {whole} ms until the database's answer"
    );
    let (connects, sessions) = (connects.parse()?, sessions.parse()?);
    ensure!(connects > 20, "{connects} connects are no load");
    Ok((connects, sessions))
}

/// Has a session of `psql` say a word, and waits until the database has heard it.
///
/// # Errors
/// When it has not.
pub fn says(world: &World, running: &mut Running, word: &str) -> Result<()> {
    running.write(&format!("SELECT '{word}';\n"))?;
    eventually(word, SOON, || {
        Ok(world.postgres.saw(&format!("SELECT '{word}'")))
    })
}
