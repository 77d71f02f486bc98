//! What one connection over SSH carries beside its commands: lent keys, X11, several
//! sessions, new keys, compression, signs of life; people who are asked, and rules
//! that change meanwhile.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::agent::{Finished, Running};
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::place::Place;
use interceptor_tests::sshd::{Plan, Shared, Shell, Sshd, with_credentials};
use interceptor_tests::tmux::Tmux;
use serde_json::{Value, json};

const RULES: &str = r#"
version: 1
rules:
  - name: no-pipes
    match: { ssh: { kind: exec, command: "mkfifo *" } }
    verdict: block
  - name: no-keys-for-one
    match: { principal: { agent: keyless }, ssh: { kind: agent_forward } }
    verdict: block
  - name: no-x11-for-one
    match: { principal: { agent: without-x }, ssh: { kind: x11 } }
    verdict: block
  - name: ask-first
    match: { ssh: { kind: exec, program: touch, opaque: false } }
    verdict: hold
    message: New files are asked about.
    approval: { timeout: 60s }
"#;

/// What is refused in addition, once the rules are changed.
const MORE_RULES: &str = r#"
  - name: no-checksums
    match: { ssh: { kind: [exec, shell], program: cksum, opaque: false } }
    verdict: block
  - name: not-that-file
    match: { ssh: { sftp: { operation: read, path: "/**/then-refused" } } }
    verdict: block
"#;

/// It asks for signs of life every second, and for new keys after each megabyte.
/// Runs share connections here, and have a display outside: sockets that are not their own.
fn with_sockets_of_others(sshd: &Sshd, place: &Place) -> Result<Value> {
    let mut config = with_credentials(sshd, place)?;
    let record = json!({ "intercept": { "unix": { "default": "record" } } });
    interceptor_tests::daemon::merge(&mut config, &record);
    Ok(config)
}

static SHELL: Shared = Shared::with(
    Plan {
        rules: RULES,
        config: with_sockets_of_others,
    },
    "ClientAliveInterval 1\nClientAliveCountMax 2\nRekeyLimit 1M\nLogLevel DEBUG1\n\
     X11Forwarding yes\nX11UseLocalhost yes\n",
);

/// Runs ssh with options, and with what it has to say about its connection.
fn talkative(shell: &Shell, agent: &str, script: &str, more: &[&str]) -> Result<Finished> {
    let mut words = shell.words(more, &[]);
    for word in &mut words {
        if word == "LogLevel=ERROR" {
            *word = "LogLevel=DEBUG1".to_owned();
        }
    }
    let mut run = vec!["/bin/sh", "-c", script, "sh"];
    run.extend(words.iter().map(String::as_str));
    shell.agent(agent).run(&run)?.ok()
}

#[test]
fn a_refusal_names_its_rule_once() -> Result<()> {
    SHELL.test(|shell| {
        let done = shell.ssh("piper", &["mkfifo x"])?;
        assert_eq!(done.status.code(), Some(126));
        assert_eq!(
            done.stderr,
            "Refused by Interceptor: refused by rule no-pipes\n"
        );
        Ok(())
    })
}

#[test]
fn lent_keys_are_seen_at_the_other_end_unless_a_rule_keeps_them() -> Result<()> {
    SHELL.test(|shell| {
        let script = "d=$(mktemp -d); ssh-keygen -q -t ed25519 -N '' -C lent -f $d/key; \
                      ssh-add -q $d/key; rm -r $d; \"$@\" 'ssh-add -l'";
        let words = shell.words(&["-A"], &[]);
        let mut run = vec!["ssh-agent", "/bin/sh", "-c", script, "sh"];
        run.extend(words.iter().map(String::as_str));
        let done = shell.agent("lender").run(&run)?.ok()?;
        assert!(done.stdout.contains("lent (ED25519)"), "{}", done.stdout);
        let done = shell.agent("keyless").run(&run)?;
        assert!(!done.stdout.contains("lent"), "{}", done.stdout);
        assert_eq!(done.status.code(), Some(2), "{}", done.stderr);
        let (_, events) = shell.records()?.only_session_of("keyless")?;
        assert!(
            events
                .iter()
                .any(|event| event.kind == "verdict" && event.meta["rule"] == "no-keys-for-one")
        );
        Ok(())
    })
}

/// A program at the other end that speaks as X11 clients do, as far as ssh looks.
const X11_CLIENT: &str = r#"
import os, socket, struct, subprocess
number = os.environ["DISPLAY"].split(":")[1].split(".")[0]
known = subprocess.check_output(["xauth", "list"], text=True).splitlines()
cookie = bytes.fromhex([line for line in known if f":{number} " in line][-1].split()[2])
name = b"MIT-MAGIC-COOKIE-1"
padded = lambda text: text + b"\0" * (-len(text) % 4)
server = socket.create_connection(("127.0.0.1", 6000 + int(number)))
server.sendall(struct.pack("<BxHHHHxx", 0x6c, 11, 0, len(name), len(cookie)) + padded(name) + padded(cookie))
print(server.recv(100).decode())
"#;

#[test]
fn x11_reaches_the_agents_display_unless_a_rule_keeps_it() -> Result<()> {
    SHELL.test(|shell| {
        let number = 4000 + std::process::id() % 20_000;
        let folder = std::path::Path::new("/tmp/.X11-unix");
        std::fs::create_dir_all(folder)?;
        let socket = folder.join(format!("X{number}"));
        let _ = std::fs::remove_file(&socket);
        let display = UnixListener::bind(&socket)?;
        let everybodys = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&socket, everybodys)?;
        let server = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
            let (mut client, _) = display.accept()?;
            let mut asked = vec![0; 48];
            client.read_exact(&mut asked)?;
            client.write_all(b"an answer of the display's")?;
            Ok(asked)
        });
        let client = format!("python3 -c '{X11_CLIENT}'");
        let words = shell.words(&["-Y"], &[&client]);
        let ask = |agent: &str| {
            let display = format!(":{number}");
            shell.agent(agent).env("DISPLAY", display).run(&words)
        };
        let refused = ask("without-x")?;
        assert!(!refused.status.success());
        assert!(
            refused.stderr.contains("X11 forwarding request failed")
                && refused.stderr.contains("KeyError: 'DISPLAY'"),
            "{}",
            refused.stderr
        );
        let done = ask("with-x")?.ok();
        std::fs::remove_file(&socket)?;
        assert_eq!(done?.stdout, "an answer of the display's\n");
        let asked = server.join().ok().context("the display panicked")??;
        assert!(asked.starts_with(b"\x6c\0\x0b"), "{asked:?}");
        Ok(())
    })
}

#[test]
fn a_connection_lives_while_nothing_is_said_on_it() -> Result<()> {
    SHELL.test(|shell| {
        let more = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"];
        let words = shell.words(&more, &["sleep 5; echo alive"]);
        let done = shell.agent("quiet").run(&words)?.ok()?;
        assert_eq!(done.stdout, "alive\n");
        Ok(())
    })
}

#[test]
fn new_keys_in_the_midst_of_a_transfer_lose_nothing() -> Result<()> {
    SHELL.test(|shell| {
        let script = "head -c 20000000 /dev/zero | tr '\\0' 'x' | \"$@\" cat | sha256sum";
        let done = talkative(shell, "renewer", script, &["-o", "RekeyLimit=1M"])?;
        let expected = std::process::Command::new("/bin/sh")
            .args([
                "-c",
                "head -c 20000000 /dev/zero | tr '\\0' 'x' | sha256sum",
            ])
            .output()?;
        assert_eq!(done.stdout, String::from_utf8_lossy(&expected.stdout));
        let times = |log: &str| log.matches("SSH2_MSG_KEXINIT sent").count();
        assert!(times(&done.stderr) > 10, "{}", done.stderr);
        let log = std::fs::read_to_string(&shell.sshd.log)?;
        assert!(times(&log) > 10, "the server did not ask for new keys");
        Ok(())
    })
}

#[test]
fn a_compressed_connection_carries_what_was_sent() -> Result<()> {
    SHELL.test(|shell| {
        let script = "seq 1 300000 | \"$@\" cat | sha256sum";
        let done = talkative(shell, "squeezer", script, &["-C"])?;
        let expected = std::process::Command::new("/bin/sh")
            .args(["-c", "seq 1 300000 | sha256sum"])
            .output()?;
        assert_eq!(done.stdout, String::from_utf8_lossy(&expected.stdout));
        assert!(
            done.stderr.contains("compression: zlib@openssh.com"),
            "{}",
            done.stderr
        );
        Ok(())
    })
}

/// A connection of an agent's that others of it share.
struct Master<'a> {
    shell: &'a Shell,
    agent: &'a str,
    path: String,
    running: Running,
}

impl<'a> Master<'a> {
    fn open(shell: &'a Shell, agent: &'a str) -> Result<Self> {
        let path = shell.desk(agent)?.join("s");
        let option = format!("ControlPath={}", path.display());
        let words = shell.words(&["-o", "ControlMaster=yes", "-o", &option, "-N"], &[]);
        let running = shell.agent(agent).start(&words)?;
        eventually("the shared connection", SOON, || Ok(path.exists()))?;
        Ok(Self {
            shell,
            agent,
            path: option,
            running,
        })
    }

    fn words(&self, more: &[&str], command: &[&str]) -> Vec<String> {
        let mut options = vec!["-o", self.path.as_str()];
        options.extend(more);
        self.shell.words(&options, command)
    }

    fn run(&self, command: &str) -> Result<Finished> {
        self.shell
            .agent(self.agent)
            .run(&self.words(&[], &[command]))
    }

    fn close(self) -> Result<()> {
        let words = self.words(&["-O", "exit"], &[]);
        self.shell.agent(self.agent).run(&words)?.ok()?;
        self.running.finish(SOON).map(drop)
    }
}

#[test]
fn sessions_that_share_a_connection_are_judged_each_by_itself() -> Result<()> {
    SHELL.test(|shell| {
        let master = Master::open(shell, "sharer")?;
        let held = shell.agent("sharer").start(&master.words(
            &[],
            &[&format!("touch {}/shared", shell.sshd.files.display())],
        ))?;
        let question = shell.question("sharer")?;
        // While one waits for a person the others go on.
        let done = master.run("echo one; exit 3")?;
        assert_eq!((done.status.code(), &*done.stdout), (Some(3), "one\n"));
        let done = master.run("mkfifo x")?;
        assert_eq!(done.status.code(), Some(126));
        assert!(done.stderr.contains("no-pipes"), "{}", done.stderr);
        assert_eq!(master.run("echo two")?.ok()?.stdout, "two\n");
        assert_eq!(question["text"], shell.question("sharer")?["text"]);
        shell.answer("sharer", "approve", "OPS-13")?;
        held.finish(SOON)?.ok()?;
        assert!(shell.sshd.files.join("shared").exists());
        master.close()?;
        let (_, events) = shell.records()?.only_session_of("sharer")?;
        let channels = events
            .iter()
            .filter(|event| event.kind == "channel")
            .count();
        assert!(channels >= 4, "{channels} channels");
        Ok(())
    })
}

#[test]
fn a_held_command_runs_when_it_is_approved_and_else_never() -> Result<()> {
    SHELL.test(|shell| {
        let file = |name: &str| shell.sshd.files.join(name);
        let start = |agent: &str, name: &str| {
            let line = format!("touch {}", file(name).display());
            shell.agent(agent).start(&shell.words(&[], &[&line]))
        };
        let running = start("asker", "approved")?;
        let question = shell.question("asker")?;
        assert_eq!(question["target"], "build-host");
        assert!(!file("approved").exists());
        shell.answer("asker", "approve", "OPS-14")?;
        running.finish(SOON)?.ok()?;
        assert!(file("approved").exists());

        let running = start("denied", "denied")?;
        shell.answer("denied", "deny", "not on a Friday")?;
        let done = running.finish(SOON)?;
        assert_eq!(done.status.code(), Some(126));
        assert_eq!(
            done.stderr,
            "Refused by Interceptor: denied by root: not on a Friday (rule ask-first)\n"
        );
        assert!(!file("denied").exists());

        // Whoever goes away has nothing run afterwards.
        let running = start("leaver", "left")?;
        shell.question("leaver")?;
        drop(running);
        let (_, events) = shell.records()?.only_session_of("leaver")?;
        let settled = events
            .iter()
            .find(|event| event.kind == "approval")
            .context("what became of the question is not on record")?;
        assert_eq!(settled.meta["decision"], "withdrawn", "{}", settled.meta);
        assert!(!file("left").exists());
        Ok(())
    })
}

#[test]
fn rules_that_change_hold_for_what_is_asked_next_on_an_open_connection() -> Result<()> {
    SHELL.test(|shell| {
        let file = shell.sshd.file("then-refused", "read\n")?;
        let master = Master::open(shell, "stayer")?;
        master.run("cksum /dev/null")?.ok()?;
        let desk = Tmux::shell(shell, "stayer-typist")?;
        desk.runs("cksum /dev/null", "4294967295 0 /dev/null")?;
        let mut words = vec!["sftp".to_owned(), "-F".to_owned(), "none".to_owned()];
        words.extend(shell.options());
        words.extend([
            "-P".into(),
            shell.sshd.port.to_string(),
            "-b".into(),
            "-".into(),
        ]);
        words.push("agent@127.0.0.1".to_owned());
        let mut sftp = shell.agent("stayer-copier").start(&words)?;
        let got = shell.desk("stayer-copies")?;
        let get = |name: &str| format!("-get {} {}\n", file.display(), got.join(name).display());
        sftp.write(&get("before"))?;
        eventually("the file", SOON, || Ok(got.join("before").exists()))?;

        shell.daemon.set_rules(&format!("{RULES}{MORE_RULES}"))?;
        eventually("the new rules", SOON, || {
            Ok(master.run("cksum /dev/null")?.status.code() == Some(126))
        })?;
        desk.runs(
            "cksum /dev/null",
            "interceptor: refused by rule no-checksums",
        )?;
        sftp.write(&get("after"))?;
        sftp.write("pwd\n")?;
        let done = sftp.finish(Duration::from_secs(20))?;
        ensure!(
            done.stderr.contains("Permission denied"),
            "{} {}",
            done.stdout,
            done.stderr
        );
        assert!(!got.join("after").exists());
        desk.leaves(0)?;
        master.close()
    })
}
