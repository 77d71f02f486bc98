//! The keys that agents trust are in a process of their own: not in the memory of the one
//! that reads agents' bytes, which asks for certificates and gets none but what it may have.

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use interceptor_tests::daemon::program;
use interceptor_tests::eventually;
use interceptor_tests::needs;
use interceptor_tests::place::Place;
use interceptor_tests::web::{Plan, Shared, Web, all_targets};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

const RULES: &str = "version: 1\nrules: []\n";
const PLAN: Plan = Plan {
    rules: RULES,
    config: all_targets,
};

static WEB: Shared = Shared::new(PLAN);

/// A daemon of one's own, for tests that break it.
fn alone(body: impl FnOnce(&Web) -> Result<()>) -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let web = Web::start(&PLAN)?;
    web.test(body)
}

fn url(web: &Web, path: &str) -> String {
    format!("https://localhost:{}{path}", web.nginx.port_tls)
}

fn status(web: &Web) -> Result<Value> {
    Ok(serde_json::from_str(
        &web.daemon.ask(&["status", "--json"])?,
    )?)
}

fn number(value: &Value, pointer: &str) -> Result<i32> {
    let number = value.pointer(pointer).and_then(Value::as_i64);
    Ok(i32::try_from(
        number.with_context(|| format!("no {pointer} in {value}"))?,
    )?)
}

/// The secret halves, each as it is written and as words of a big number stand in memory.
fn secrets(state: &Path) -> Result<BTreeMap<&'static str, Vec<Vec<u8>>>> {
    let both = |bytes: &[u8]| vec![bytes.to_vec(), bytes.iter().rev().copied().collect()];
    let pem = fs::read_to_string(state.join("ca/key.pem"))?;
    let PrivateKeyDer::Pkcs8(der) = PrivateKeyDer::from_pem_slice(pem.as_bytes())? else {
        bail!("another form of key");
    };
    // RFC 5915: version 1, then the number itself.
    let before = [2, 1, 1, 4, 32];
    let der = der.secret_pkcs8_der();
    let at = der.windows(5).position(|one| one == before);
    let at = at.context("no number in it")? + 5;
    let scalar = der.get(at..at + 32).context("it is cut off")?;
    let line = pem.lines().nth(1).context("no text in it")?;
    let mut tls = both(scalar);
    tls.push(line.as_bytes().to_vec());
    let ssh = russh::keys::PrivateKey::from_openssh(fs::read(state.join("ssh/ca"))?)?;
    let pair = ssh.key_data().ed25519().context("another kind of key")?;
    Ok(BTreeMap::from([
        ("the local authority", tls),
        ("the authority for SSH", both(&pair.private.to_bytes())),
    ]))
}

/// What a process can write to, as root sees it.
fn memory(pid: i32) -> Result<Vec<Vec<u8>>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let file = fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut read = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').context("no range")?;
        if !rest.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').context("no range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        // What goes away meanwhile was nothing that stays.
        if file.read_exact_at(&mut bytes, from).is_ok() {
            read.push(bytes);
        }
    }
    ensure!(read.iter().map(Vec::len).sum::<usize>() > 100_000);
    Ok(read)
}

/// Which of the secrets stand in a process's memory.
fn found(pid: i32, state: &Path) -> Result<Vec<&'static str>> {
    let memory = memory(pid)?;
    let has = |secret: &Vec<u8>| {
        let first = secret.first().copied().unwrap_or_default();
        memory.iter().any(|bytes| {
            bytes.iter().enumerate().any(|(at, byte)| {
                *byte == first && bytes.get(at..).is_some_and(|rest| rest.starts_with(secret))
            })
        })
    };
    let all = secrets(state)?;
    let found = all.iter().filter(|(_, forms)| forms.iter().any(has));
    Ok(found.map(|(name, _)| *name).collect())
}

#[test]
fn the_daemon_opens_tls_and_has_no_authoritys_key_in_its_memory() -> Result<()> {
    WEB.test(|web| {
        let answer = web.curl("apart", &[&url(web, "/apart")])?.ok()?;
        ensure!(answer.stdout.contains("200"), "{}", answer.stdout);
        let status = status(web)?;
        let state = web.place.path("state");
        assert_eq!(found(number(&status, "/pid")?, &state)?, [""; 0]);
        // Who looks finds them where they are.
        let kept = found(number(&status, "/keeper/pid")?, &state)?;
        assert_eq!(kept, ["the authority for SSH", "the local authority"]);
        Ok(())
    })
}

#[test]
fn the_keeper_has_no_capability_no_file_and_few_system_calls() -> Result<()> {
    WEB.test(|web| {
        let status = status(web)?;
        for what in ["capabilities", "seccomp", "landlock"] {
            assert_eq!(status["keeper"][what], true, "{what}");
        }
        let pid = number(&status, "/keeper/pid")?;
        let said = fs::read_to_string(format!("/proc/{pid}/status"))?;
        for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            ensure!(
                said.contains(&format!("{field}:\t0000000000000000")),
                "{said}"
            );
        }
        ensure!(said.contains("NoNewPrivs:\t1") && said.contains("Seccomp:\t2"));
        ensure!(said.contains("Threads:\t1"));
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        assert_eq!(descriptors, 3, "its socket, nothing, and the log");
        Ok(())
    })
}

/// One of the processes beside the daemon ends, and the daemon with it, in order.
fn ends_with(which: &str, called: &str) -> Result<()> {
    alone(|web| {
        let pid = Pid::from_raw(number(&status(web)?, which)?);
        kill(pid, Signal::SIGTERM)?;
        web.curl("before", &[&url(web, "/before")])?.ok()?;
        kill(pid, Signal::SIGKILL)?;
        let log = {
            let mut server = web.daemon.server();
            let ended = server.ends(Duration::from_secs(20))?;
            // So that whatever started it starts it anew.
            assert_eq!(ended.code(), Some(1));
            server.log()
        };
        ensure!(log.contains(&format!("the {called} ended")), "{log}");
        ensure!(log.contains("ended; what is pinned"), "in order: {log}");
        let port = web.nginx.port;
        let plain = format!("http://localhost:{port}/alone");
        ensure!(!web.curl("alone", &[&plain])?.status.success());
        ensure!(!web.nginx.saw("/alone")?);
        web.daemon.restart()?;
        web.curl("after", &[&url(web, "/after")])?.ok()?;
        Ok(())
    })
}

#[test]
fn without_the_keeper_the_daemon_ends_in_order_and_agents_are_refused() -> Result<()> {
    ends_with("/keeper/pid", "keeper of the keys")
}

#[test]
fn without_the_looker_the_daemon_ends_in_order_and_agents_are_refused() -> Result<()> {
    ends_with("/looker/pid", "looker")
}

#[test]
fn each_daemon_has_its_own_keeper_which_ends_with_it() -> Result<()> {
    alone(|web| {
        let first = number(&status(web)?, "/keeper/pid")?;
        web.curl("first", &[&url(web, "/first")])?.ok()?;
        // A new authority is made by the next keeper, at a hand-over too.
        fs::remove_dir_all(web.place.path("state/ca"))?;
        let mut before = web.daemon.take_over()?;
        let second = number(&status(web)?, "/keeper/pid")?;
        assert_ne!(first, second);
        web.curl("second", &[&url(web, "/second")])?.ok()?;
        before.ends(Duration::from_secs(20))?;
        let gone = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            Ok(stat.map_or(true, |stat| stat.contains(") Z ")))
        };
        eventually("the keeper to end", Duration::from_secs(5), || gone(first))?;
        web.daemon.kill()?;
        eventually("the keeper to end", Duration::from_secs(5), || gone(second))?;
        Ok(())
    })
}

/// The keeper itself, asked by somebody who has taken the daemon over.
struct Asked {
    socket: OwnedFd,
    child: std::process::Child,
}

impl Asked {
    fn start(state: &Path, permitted: &[&str]) -> Result<(Self, Value)> {
        let kind = (AddressFamily::Unix, SockType::SeqPacket);
        let (socket, its) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(20, 0))?;
        let child = Command::new(program()?)
            .arg("keep-keys")
            .stdin(Stdio::from(its))
            .spawn()?;
        let asked = Self { socket, child };
        let plan = json!({
            "state_dir": state, "permitted": permitted, "capabilities": true, "seccomp": true,
        });
        let hello = asked.says(plan.to_string().as_bytes())?;
        Ok((asked, hello))
    }

    fn says(&self, packet: &[u8]) -> Result<Value> {
        let flags = MsgFlags::MSG_NOSIGNAL;
        let fd = self.socket.as_raw_fd();
        sendmsg::<()>(fd, &[IoSlice::new(packet)], &[], flags, None)?;
        let mut answer = vec![0; 64 << 10];
        let read = recv(fd, &mut answer, MsgFlags::empty()).context("no answer")?;
        Ok(serde_json::from_slice(
            answer.get(..read).unwrap_or_default(),
        )?)
    }

    fn leaf(&self, name: &str) -> Result<Value> {
        use rcgen::PublicKeyData as _;
        let key = rcgen::KeyPair::generate()?.subject_public_key_info();
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let names = json!({"sni": name, "address": null, "host": null});
        let question = json!({"number": 7, "request": {"leaf": {"names": names, "key": key}}});
        self.says(question.to_string().as_bytes())
    }
}

#[test]
fn whoever_asks_the_keeper_gets_nothing_that_is_not_permitted() -> Result<()> {
    let place = Place::new()?;
    let state = place.subfolder("state")?;
    let (asked, hello) = Asked::start(&state, &["internal"])?;
    ensure!(
        hello.pointer("/Ok/locked/seccomp") == Some(&json!(true)),
        "{hello}"
    );
    let fine = asked.leaf("db.internal")?;
    ensure!(
        fine.pointer("/1/leaf").is_some_and(Value::is_string),
        "{fine}"
    );
    let refused = asked.leaf("bank.example")?;
    let why = refused.pointer("/1/refused").and_then(Value::as_str);
    ensure!(
        why.is_some_and(|why| why.contains("permitted")),
        "{refused}"
    );
    // What it was not made to answer gets nothing either, and what follows is answered.
    let flags = MsgFlags::MSG_NOSIGNAL;
    for odd in [
        r#"{"number": 8, "request": {"leaf": {"names": {"sni": "db.internal", "address": null, "host": null, "ca": true}, "key": "00"}}}"#,
        r#"{"number": 8, "request": {"key": {}}}"#,
        r#"{"number": 8, "request": {"leaf": }}"#,
    ] {
        sendmsg::<()>(
            asked.socket.as_raw_fd(),
            &[IoSlice::new(odd.as_bytes())],
            &[],
            flags,
            None,
        )?;
    }
    let fine = asked.leaf("other.internal")?;
    ensure!(
        fine.pointer("/1/leaf").is_some_and(Value::is_string),
        "{fine}"
    );
    let Asked { socket, mut child } = asked;
    drop(socket);
    ensure!(child.wait()?.success());
    Ok(())
}

#[test]
fn a_key_that_others_may_read_keeps_the_daemon_from_starting_and_says_so() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new()?;
    let state = place.subfolder("state")?;
    let (asked, _) = Asked::start(&state, &[])?;
    let Asked { socket, mut child } = asked;
    drop(socket);
    child.wait()?;
    fs::set_permissions(state.join("ca/key.pem"), fs::Permissions::from_mode(0o644))?;
    let (mut asked, hello) = Asked::start(&state, &[])?;
    let said = hello.pointer("/Err").and_then(Value::as_str);
    ensure!(
        said.is_some_and(|said| said.contains("may be read by others")),
        "{hello}"
    );
    asked.child.wait()?;
    Ok(())
}
