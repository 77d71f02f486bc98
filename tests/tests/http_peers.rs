//! Clients and servers as they are really used, with nothing changed in them: each
//! does its work through Interceptor, is refused in a form that it understands, and
//! sees no value that a mask hides.

use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use interceptor_tests::needs;
use interceptor_tests::peers::Peers;

const RULES: &str = "
version: 1
rules:
  - name: no-ssn
    match: { http: { grpc: { service: shop.Shop } } }
    mask: [{ json: [/ssn], with: { partial: { keep_last: 4 } } }]
  - name: not-seven
    match: { http: { grpc: { service: shop.Shop, method: Get }, body: { /id: 7 } } }
    verdict: block
    message: Not that one.
  - name: no-cards
    match: { target: { name: [websocket, asgi] } }
    mask: [{ detect: [credit_card], with: redact }]
  - name: no-rm
    match: { http: { websocket: true, body: { /cmd: rm } } }
    verdict: block
    message: No.
  - name: no-deleting
    match: { http: { mcp: { tool: \"delete_*\" } } }
    verdict: block
    message: Nothing is deleted.
  - name: no-push
    match: { http: { path: \"/git/**/git-receive-pack\" } }
    verdict: block
    message: Nothing is pushed.
  - name: no-admin
    match: { http: { path: [\"/admin\", \"/admin/**\"] } }
    verdict: block
    message: Not there.
";

fn test(body: impl FnOnce(&Peers) -> Result<()>) -> Result<()> {
    static PEERS: OnceLock<Result<Peers, String>> = OnceLock::new();
    if !needs::kernel()? {
        return Ok(());
    }
    let peers = PEERS.get_or_init(|| Peers::start(RULES).map_err(|error| format!("{error:#}")));
    match peers {
        Ok(peers) => peers.test(body),
        Err(error) => Err(anyhow!("{error}")),
    }
}

#[test]
fn grpcio_gets_its_messages_masked_its_streams_and_the_status_of_a_refusal() -> Result<()> {
    let program = r#"
import grpc, os, sys
address, tls = sys.argv[1], sys.argv[2] == "tls"
if tls:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials())
else:
    channel = grpc.insecure_channel(address)
get = channel.unary_unary("/shop.Shop/Get", Ask.SerializeToString, Customer.FromString)
several = channel.unary_stream("/shop.Shop/List", Ask.SerializeToString, Customer.FromString)
for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
    one = get(Ask(id=1), timeout=20, compression=compression)
    print(one.name, one.ssn, one.age)
print([(one.name, one.ssn) for one in several(Ask(id=1), timeout=20)])
for id in (7, 404):
    try:
        get(Ask(id=id), timeout=20)
    except grpc.RpcError as error:
        tries = [value for name, value in error.trailing_metadata() if name == "x-tries"]
        print(error.code().name, error.details().split(" (")[0], tries)
"#;
    test(|peers| {
        for (port, tls, agent) in [
            (peers.grpc, "no", "grpc-plain"),
            (peers.grpc_tls, "tls", "grpc-tls"),
        ] {
            let address = format!("127.0.0.1:{port}");
            let done = peers.grpc_client(agent, program, &[&address, tls])?.ok()?;
            assert_eq!(
                done.stdout.lines().collect::<Vec<_>>(),
                [
                    "Ada *******6789 36",
                    "Ada *******6789 36",
                    "[('customer 0', '*******6789'), ('customer 1', '*******6789'), \
                     ('customer 2', '*******6789')]",
                    "PERMISSION_DENIED Not that one. []",
                    "NOT_FOUND no customer 404 ['1']",
                ],
                "{}",
                done.stderr
            );
        }
        Ok(())
    })
}

#[test]
fn a_call_that_is_cancelled_ends_at_the_service_and_its_connection_goes_on() -> Result<()> {
    let program = r#"
import grpc, sys, time
channel = grpc.insecure_channel(sys.argv[1])
get = channel.unary_unary("/shop.Shop/Get", Ask.SerializeToString, Customer.FromString)
watch = channel.unary_stream("/shop.Shop/Watch", Ask.SerializeToString, Customer.FromString)
before = get(Ask(id=99), timeout=20).age
stay = watch(Ask(id=1))
print(next(stay).name)
for _ in range(3):
    call = watch(Ask(id=1))
    next(call)
    call.cancel()
end = time.time() + 10
while get(Ask(id=99), timeout=20).age < before + 3 and time.time() < end:
    time.sleep(0.05)
print(get(Ask(id=99), timeout=20).age - before, "ended")
print("the other goes on" if stay.is_active() else "the other ended too")
stay.cancel()
"#;
    test(|peers| {
        let address = format!("127.0.0.1:{}", peers.grpc);
        let done = peers.grpc_client("cancels", program, &[&address])?.ok()?;
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(
            lines,
            ["first", "3 ended", "the other goes on"],
            "{}",
            done.stderr
        );
        // On one connection: one flow, so one session.
        peers.records()?.only_session_of("cancels")?;
        Ok(())
    })
}

#[test]
fn websockets_compresses_and_is_looked_into() -> Result<()> {
    let program = r#"
import sys
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosed
with connect(sys.argv[1], compression="deflate", open_timeout=20) as socket:
    print([type(one).__name__ for one in socket.protocol.extensions])
    for message in ("hello " * 50, "card", "hello " * 50, "{\"cmd\": \"ls\"}"):
        socket.send(message)
        print(socket.recv(timeout=20).replace("hello " * 50, "hellos").replace("x" * 200, "xs"))
    socket.send("{\"cmd\": \"rm\"}")
    try:
        print(socket.recv(timeout=20))
    except ConnectionClosed as closed:
        print(closed.rcvd.code, closed.rcvd.reason)
"#;
    test(|peers| {
        let url = format!("ws://localhost:{}/", peers.websocket);
        let done = peers.python("websockets", program, &[&url])?.ok()?;
        assert_eq!(
            done.stdout.lines().collect::<Vec<_>>(),
            [
                "['PerMessageDeflate']",
                "hellos",
                "xs [redacted]",
                "hellos",
                r#"{"cmd": "ls"}"#,
                "1008 No.",
            ],
            "{}",
            done.stderr
        );
        Ok(())
    })
}

#[test]
fn aiohttp_reads_events_of_an_asgi_application_as_they_come() -> Result<()> {
    let program = r#"
import aiohttp, asyncio, sys, time
async def main(base):
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get(base + "/x") as answer:
            print(answer.status, await answer.json())
        async with session.get(base + "/admin/x") as answer:
            print(answer.status, answer.content_type)
        async def parts():
            for _ in range(4):
                yield b"z" * 50000
        async with session.post(base + "/upload", data=parts()) as answer:
            print(answer.status, await answer.json())
        late = 0
        async with session.get(base + "/events") as answer:
            async for line in answer.content:
                if line.startswith(b"data: event"):
                    late = max(late, time.time() - float(line.rsplit(b" ", 1)[1]))
        print("as they come" if late < 0.25 else f"late by {late}")
import ssl
asyncio.run(main(sys.argv[1]))
"#;
    test(|peers| {
        let base = format!("https://localhost:{}", peers.asgi);
        let done = peers.python("aiohttp", program, &[&base])?.ok()?;
        assert_eq!(
            done.stdout.lines().collect::<Vec<_>>(),
            [
                "200 {'path': '/x', 'card': '[redacted]'}",
                "403 application/problem+json",
                "200 {'size': 200000}",
                "as they come",
            ],
            "{}",
            done.stderr
        );
        Ok(())
    })
}

#[test]
fn nodes_fetch_trusts_what_exec_gives_it_and_reads_a_refusal() -> Result<()> {
    let program = r#"
const base = process.argv[1];
(async () => {
  const answer = await fetch(base + '/x');
  console.log(answer.status, JSON.stringify(await answer.json()));
  const refused = await fetch(base + '/admin/x');
  console.log(refused.status, (await refused.json()).detail);
  const sent = await fetch(base + '/upload', { method: 'POST', body: 'y'.repeat(70000) });
  console.log(sent.status, JSON.stringify(await sent.json()));
})();
"#;
    test(|peers| {
        let node = ["/usr/bin/node", "/usr/local/bin/node"];
        let node = node
            .iter()
            .find(|path| std::path::Path::new(path).exists())
            .context("no Node here: install Debian's nodejs")?;
        let base = format!("https://127.0.0.1:{}", peers.asgi);
        let done = peers
            .agent("node")
            .run(&[node, "-e", program, &base])?
            .ok()?;
        assert_eq!(
            done.stdout.lines().collect::<Vec<_>>(),
            [
                r#"200 {"path":"/x","card":"[redacted]"}"#,
                "403 Not there.",
                r#"200 {"size":70000}"#,
            ],
            "{}",
            done.stderr
        );
        Ok(())
    })
}

#[test]
fn the_sdk_of_mcp_calls_one_tool_and_is_refused_another() -> Result<()> {
    let program = r#"
import asyncio, sys
from mcp.client import Client
async def main():
    async with Client(sys.argv[1]) as client:
        print([tool.name for tool in (await client.list_tools()).tools])
        print((await client.call_tool("add", {"a": 2, "b": 3})).content[0].text)
        try:
            print(await client.call_tool("delete_everything", {"really": True}))
        except Exception as error:
            print("refused:", error)
        print((await client.call_tool("add", {"a": 4, "b": 5})).content[0].text)
asyncio.run(main())
"#;
    test(|peers| {
        let url = format!("http://localhost:{}/mcp", peers.mcp);
        let done = peers.python("mcp", program, &[&url])?.ok()?;
        assert_eq!(
            done.stdout.lines().collect::<Vec<_>>(),
            [
                "['add', 'delete_everything']",
                "5",
                "refused: Nothing is deleted.",
                "9",
            ],
            "{}",
            done.stderr
        );
        Ok(())
    })
}

/// Runs git in the tests' own folder, not as an agent.
fn git(peers: &Peers, words: &[&str]) -> Result<()> {
    let done = Command::new("git")
        .args(["-c", "user.name=tests", "-c", "user.email=tests@localhost"])
        .args(words)
        .current_dir(&peers.files)
        .output()
        .context("starting git")?;
    let complaint = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "git {words:?}: {complaint}");
    Ok(())
}

#[test]
fn git_clones_over_https_and_may_not_push() -> Result<()> {
    test(|peers| {
        git(peers, &["init", "-q", "-b", "main", "work"])?;
        std::fs::write(peers.files.join("work/read.me"), "hello\n")?;
        git(peers, &["-C", "work", "add", "read.me"])?;
        git(peers, &["-C", "work", "commit", "-q", "-m", "first"])?;
        git(peers, &["clone", "-q", "--bare", "work", "shop.git"])?;
        git(
            peers,
            &["-C", "shop.git", "config", "http.receivepack", "true"],
        )?;
        let url = format!("https://localhost:{}/git/shop.git", peers.https);
        let script = format!(
            "set -e; cd $(mktemp -d); export HOME=$PWD; git clone -q {url} c; cat c/read.me; cd c; \
             git -c user.name=a -c user.email=a@b commit -q --allow-empty -m more; \
             git push -q origin main 2>&1 || echo refused"
        );
        let done = peers.agent("git").run(&["/bin/sh", "-c", &script])?.ok()?;
        ensure!(done.stdout.starts_with("hello\n"), "{done:?}");
        ensure!(done.stdout.contains("403"), "{done:?}");
        ensure!(done.stdout.ends_with("refused\n"), "{done:?}");
        Ok(())
    })
}

#[test]
fn pip_installs_from_an_index_under_tls() -> Result<()> {
    let make = r#"
import os, sys, zipfile
folder = os.path.join(sys.argv[1], "simple", "demo-pkg")
os.makedirs(folder)
with zipfile.ZipFile(os.path.join(folder, "demo_pkg-1.0-py3-none-any.whl"), "w") as wheel:
    wheel.writestr("demo_pkg.py", "word = 'installed'\n")
    wheel.writestr("demo_pkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo-pkg\nVersion: 1.0\n")
    wheel.writestr("demo_pkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("demo_pkg-1.0.dist-info/RECORD", "demo_pkg.py,,\n")
"#;
    test(|peers| {
        let made = Command::new("/usr/bin/python3")
            .args(["-c", make])
            .arg(&peers.files)
            .status()
            .context("starting Python")?;
        ensure!(made.success(), "making a package: {made}");
        let index = format!("https://localhost:{}/simple", peers.https);
        let script = format!(
            "set -e; cd $(mktemp -d); export HOME=$PWD; /usr/bin/python3 -m pip install -q --no-cache-dir \
             --disable-pip-version-check --index-url {index} --target t demo-pkg; \
             PYTHONPATH=t /usr/bin/python3 -c 'import demo_pkg; print(demo_pkg.word)'"
        );
        let done = peers.agent("pip").run(&["/bin/sh", "-c", &script])?.ok()?;
        assert_eq!(done.stdout, "installed\n", "{}", done.stderr);
        Ok(())
    })
}
