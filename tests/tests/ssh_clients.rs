//! Clients as they are really used: OpenSSH's, rsync and git, and those that agents
//! have in Python. What they carry arrives byte for byte, and stands on record.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::sshd::{Plan, Shared, Shell, with_credentials};

const RULES: &str = r#"
version: 1
rules:
  - name: nothing-is-shredded
    match: { ssh: { kind: exec, command: "*shred *" } }
    verdict: block
    message: Nothing is shredded.
  - name: no-secrets-by-sftp
    match: { ssh: { sftp: { path: "/**/secret*" } } }
    verdict: block
    message: Secrets stay where they are.
"#;

static SHELL: Shared = Shared::new(Plan {
    rules: RULES,
    config: with_credentials,
});

/// Bytes that no compression and no terminal leaves alone, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(next).collect()
}

/// A tree of files, of a few kinds; `secret` is not to be carried.
fn tree(folder: &Path) -> Result<()> {
    let deeper = folder.join("deeper");
    std::fs::create_dir(folder)?;
    std::fs::create_dir(&deeper)?;
    std::fs::write(folder.join("noise"), noise(3_000_000))?;
    std::fs::write(folder.join("empty"), "")?;
    std::fs::write(deeper.join("a name with spaces"), "text\r\n\0text")?;
    let mut everybodys = std::fs::metadata(&deeper)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut everybodys, 0o755);
    std::fs::set_permissions(&deeper, everybodys.clone())?;
    std::fs::set_permissions(folder, everybodys)?;
    Ok(())
}

fn same(one: &Path, other: &Path) -> Result<()> {
    let compared = std::process::Command::new("diff")
        .arg("-r")
        .args([one, other])
        .output()?;
    ensure!(
        compared.status.success(),
        "{} and {} differ: {}",
        one.display(),
        other.display(),
        String::from_utf8_lossy(&compared.stdout)
    );
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let told = std::process::Command::new("sha256sum").arg(path).output()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    Ok(told.split(' ').next().unwrap_or_default().to_owned())
}

/// Runs a script as an agent, with what it needs to know in variables.
fn script(shell: &Shell, agent: &str, own: &Path, text: &str) -> Result<()> {
    let options = format!("-F none {}", shell.options().join(" "));
    let port = shell.sshd.port;
    shell
        .agent(agent)
        .env("OPTIONS", &options)
        .env("SSH", format!("ssh {options} -p {port}"))
        .env("PORT", port.to_string())
        .env("HOST", "agent@127.0.0.1")
        .env("OWN", own)
        .env("HOME", own)
        .env("FILES", &shell.sshd.files)
        .run(&["/bin/sh", "-exc", text])?
        .ok()
        .map(drop)
}

#[test]
fn files_go_both_ways_by_scp_sftp_and_rsync_and_are_the_same() -> Result<()> {
    SHELL.test(|shell| {
        let own = shell.desk("carrier")?;
        let files = &shell.sshd.files;
        let sent = own.join("tree");
        tree(&sent)?;
        script(
            shell,
            "carrier",
            &own,
            r#"
scp -q $OPTIONS -P $PORT -O -r "$OWN/tree" "$HOST:$FILES/by-old-scp"
scp -q $OPTIONS -P $PORT -O -r "$HOST:$FILES/by-old-scp" "$OWN/from-old-scp"
scp -q $OPTIONS -P $PORT -r "$OWN/tree" "$HOST:$FILES/by-scp"
scp -q $OPTIONS -P $PORT -r "$HOST:$FILES/by-scp" "$OWN/from-scp"
printf 'mkdir %s/by-sftp\nput -r %s/tree/* %s/by-sftp/\nget -r %s/by-sftp %s/from-sftp\n' \
    "$FILES" "$OWN" "$FILES" "$FILES" "$OWN" | sftp -q $OPTIONS -P $PORT -b - "$HOST"
rsync -a -e "$SSH" "$OWN/tree/" "$HOST:$FILES/by-rsync/"
cp -r "$OWN/tree" "$OWN/changed"
echo changed >> "$OWN/changed/deeper/a name with spaces"
rsync -a --checksum -e "$SSH" "$OWN/changed/" "$HOST:$FILES/by-rsync/"
rsync -a -e "$SSH" "$HOST:$FILES/by-rsync/" "$OWN/from-rsync/"
"#,
        )?;
        same(&own.join("changed"), &files.join("by-rsync"))?;
        same(&own.join("changed"), &own.join("from-rsync"))?;
        for way in ["old-scp", "scp", "sftp"] {
            same(&sent, &files.join(format!("by-{way}")))?;
            same(&sent, &own.join(format!("from-{way}")))?;
        }
        let hash = sha256(&sent.join("noise"))?;
        let sessions = shell.records()?.closed_sessions_of("carrier", 8)?;
        let results: Vec<_> = sessions
            .iter()
            .flat_map(|(_, events)| events)
            .filter(|event| event.kind == "result")
            .collect();
        for way in ["scp", "sftp"] {
            let path = files.join(format!("by-{way}/noise"));
            for direction in ["written", "read"] {
                let carried = results
                    .iter()
                    .filter(|event| event.meta["path"] == path.to_string_lossy().as_ref())
                    .find(|event| !event.meta[direction].is_null())
                    .with_context(|| format!("{} was not {direction} on record", path.display()))?;
                let facts = &carried.meta[direction];
                assert_eq!(facts["bytes"], 3_000_000, "{}", carried.meta);
                assert_eq!(facts["sha256"], hash.as_str(), "{}", carried.meta);
            }
        }
        Ok(())
    })
}

#[test]
fn git_pushes_and_clones_what_was_committed() -> Result<()> {
    SHELL.test(|shell| {
        let own = shell.desk("committer")?;
        tree(&own.join("tree"))?;
        script(
            shell,
            "committer",
            &own,
            r#"
export GIT_SSH_COMMAND="$SSH" GIT_CONFIG_NOSYSTEM=1
$SSH "$HOST" "git init -q --bare $FILES/project.git"
git init -q "$OWN/work"
cp -r "$OWN/tree" "$OWN/work/tree"
cd "$OWN/work"
git add . && git -c user.name=agent -c user.email=agent@example.com commit -q -m 'All of it'
git push -q "$HOST:$FILES/project.git" HEAD:refs/heads/main
git clone -q -b main "ssh://$HOST:$PORT$FILES/project.git" "$OWN/clone"
git -C "$OWN/clone" rev-parse HEAD > "$OWN/cloned"
git -C "$OWN/work" rev-parse HEAD > "$OWN/committed"
"#,
        )?;
        same(&own.join("tree"), &own.join("clone/tree"))?;
        same(&own.join("cloned"), &own.join("committed"))?;
        let sessions = shell.records()?.closed_sessions_of("committer", 3)?;
        let lines: Vec<&str> = sessions
            .iter()
            .flat_map(|(_, events)| events)
            .filter(|event| event.kind == "command" && event.meta["ssh"] == "exec")
            .map(|event| event.line.as_str())
            .collect();
        for program in ["git-receive-pack", "git-upload-pack"] {
            let told = lines.iter().any(|line| line.starts_with(program));
            assert!(told, "{program} in {lines:?}");
        }
        Ok(())
    })
}

/// What both libraries do: run, be refused, carry a file there and back, be refused
/// a file.
const PARAMIKO: &str = r#"
import hashlib, os, paramiko, sys
port, own, files = int(sys.argv[1]), sys.argv[2], sys.argv[3]
client = paramiko.SSHClient()
# It knows no host certificates.
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", port, "agent", password="none of its own",
               allow_agent=False, look_for_keys=False, timeout=20)
def run(line):
    _, out, err = client.exec_command(line, timeout=20)
    return out.channel.recv_exit_status(), out.read().decode(), err.read().decode()
print(run("echo out; echo err >&2; exit 7"))
print(run(f"shred {files}/x"))
sftp = client.open_sftp()
sftp.put(f"{own}/tree/noise", f"{files}/by-paramiko")
sftp.get(f"{files}/by-paramiko", f"{own}/from-paramiko")
print(sftp.stat(f"{files}/by-paramiko").st_size)
try:
    sftp.open(f"{files}/secret.txt")
except PermissionError as error:
    print("refused:", error.strerror)
client.close()
"#;

const ASYNCSSH: &str = r#"
import asyncio, asyncssh, sys
port, own, files, known = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
async def main():
    async with asyncssh.connect("127.0.0.1", port, username="agent", known_hosts=known,
                                client_keys=None, agent_path=None, config=None) as client:
        done = await client.run("echo out; echo err >&2; exit 7")
        print((done.exit_status, done.stdout, done.stderr))
        done = await client.run(f"shred {files}/x")
        print((done.exit_status, done.stdout, done.stderr))
        async with client.start_sftp_client() as sftp:
            await sftp.put(f"{own}/tree/noise", f"{files}/by-asyncssh")
            await sftp.get(f"{files}/by-asyncssh", f"{own}/from-asyncssh")
            print((await sftp.stat(f"{files}/by-asyncssh")).size)
            try:
                await sftp.open(f"{files}/secret.txt")
            except asyncssh.SFTPPermissionDenied as error:
                print("refused:", error.reason)
        both = await asyncio.gather(*(client.run(f"echo {n}") for n in range(5)))
        assert [one.stdout for one in both] == [f"{n}\n" for n in range(5)], both
asyncio.run(main())
"#;

#[test]
fn paramiko_and_asyncssh_run_commands_carry_files_and_are_told_why_not() -> Result<()> {
    SHELL.test(|shell| {
        shell.sshd.file("secret.txt", "s")?;
        let files = shell.sshd.files.display().to_string();
        let known = shell.place.path("run").join("ssh_known_hosts");
        let known = known.display().to_string();
        let port = shell.sshd.port.to_string();
        for (agent, program) in [("paramiko", PARAMIKO), ("asyncssh", ASYNCSSH)] {
            let own = shell.desk(agent)?;
            tree(&own.join("tree"))?;
            let sent = own.join("tree/noise");
            let own_name = own.display().to_string();
            let arguments = [&*port, &*own_name, &*files, &*known];
            let done = shell
                .agent(agent)
                .env("HOME", &own)
                .python(&shell.place, program, &arguments)?
                .ok()?;
            let why = "(rule nothing-is-shredded)\\n')";
            let said = [
                "(7, 'out\\n', 'err\\n')".to_owned(),
                format!("(126, '', 'Refused by Interceptor: Nothing is shredded. {why}"),
                "3000000".to_owned(),
            ];
            let lines: Vec<&str> = done.stdout.lines().collect();
            assert_eq!(
                lines.get(..3),
                Some(&said.each_ref().map(String::as_str)[..])
            );
            let last = lines.last().context("nothing was said")?;
            assert!(
                last.starts_with("refused:") && last.contains("Secrets stay"),
                "{agent}: {last}"
            );
            same(&sent, &shell.sshd.files.join(format!("by-{agent}")))?;
            same(&sent, &own.join(format!("from-{agent}")))?;
            let (_, events) = shell.records()?.only_session_of(agent)?;
            let hash = sha256(&sent)?;
            for direction in ["written", "read"] {
                let known = events
                    .iter()
                    .any(|event| event.meta[direction]["sha256"] == hash.as_str());
                assert!(known, "{agent}: no hash of what was {direction}");
            }
        }
        Ok(())
    })
}

#[test]
fn ansible_reaches_the_host_over_shared_connections() -> Result<()> {
    SHELL.test(|shell| {
        let own = shell.desk("operator")?;
        let packages = interceptor_tests::agent::python_packages(&shell.place)?;
        let arguments = shell.options().join(" ");
        let agent = shell
            .agent("operator")
            .env("PYTHONPATH", packages)
            .env("HOME", &own)
            .env("LC_ALL", "C.UTF-8")
            .env("ANSIBLE_HOME", own.join("a"))
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", own.join("c"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3")
            .env("ANSIBLE_REMOTE_PORT", shell.sshd.port.to_string())
            .env(
                "ANSIBLE_SSH_ARGS",
                "-F none -C -o ControlMaster=auto -o ControlPersist=1s",
            )
            .env("ANSIBLE_SSH_EXTRA_ARGS", "")
            .env("ANSIBLE_SSH_COMMON_ARGS", arguments);
        let run = |module: &str, arguments: &str| {
            let mut words = vec!["/usr/bin/python3", "-m", "ansible", "adhoc", "all"];
            words.extend(["-i", "127.0.0.1,", "-u", "agent", "-m", module]);
            if !arguments.is_empty() {
                words.extend(["-a", arguments]);
            }
            agent.run(&words)
        };
        let done = run("ping", "")?.ok()?;
        assert!(
            done.stdout.contains("\"ping\": \"pong\""),
            "{}",
            done.stdout
        );
        let done = run("command", "id -un")?.ok()?;
        assert!(done.stdout.contains(&shell.sshd.user), "{}", done.stdout);
        let done = run("raw", "shred x")?;
        assert!(!done.status.success());
        assert!(
            done.stdout.contains("rc=126") && done.stdout.contains("Nothing is shredded."),
            "{} {}",
            done.stdout,
            done.stderr
        );
        Ok(())
    })
}
