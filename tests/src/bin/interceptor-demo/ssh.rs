//! SSH: a server, and an agent that works on it without a key.

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::sshd::{Plan, Shell, with_credentials};

use crate::style::{GREEN, Style};

/// What agents may do on the host.
const RULES: &str = r#"
version: 1
rules:
  - name: nothing-is-removed
    match: { ssh: { program: [rm, shred, dd, "mkfs*"] } }
    verdict: block
    message: Files are removed by the people who own them.
  - name: no-piping-into-a-shell
    match: { ssh: { program: [bash, sh, "python*"], stdin: piped } }
    verdict: block
  - name: cards-are-masked
    match: { protocol: ssh }
    mask: [{ detect: [credit_card], with: redact }]
  - name: no-tunnels
    match: { ssh: { kind: [local_forward, remote_forward] } }
    verdict: block
"#;

/// What the agent does; `s` is ssh to the host. Lines that begin with `#` are headings.
const SCRIPT: &str = r##"
s() { ssh $OPTIONS "$HOST" "$@"; }
echo '# The agent has no key; the interceptor logs on for it. A card in the output comes masked'
s "cat $FILES/customer.txt"
echo '# A command is judged by the programs that it would run, however they are written'
s 'cd files && \r""m -rf .'
echo '# A script out of a pipe is nobody'"'"'s to judge before it runs: refused'
s 'echo ZWNobyBoaWRkZW4K | base64 -d | sh'
echo '# Files go through as they are, each operation by name and with its digest on record'
echo 'a report' > "$OWN/report.txt"
scp -q $SCP_OPTIONS "$OWN/report.txt" "$HOST:$FILES/report.txt" && s "cat $FILES/report.txt"
echo '# No way on from there'
ssh $OPTIONS -W 127.0.0.1:6379 "$HOST" < /dev/null
true
"##;

/// Shows it; gives what runs, and the first session that was recorded.
pub(crate) fn show(style: &Style) -> Result<(Shell, String)> {
    style.title("Starting a private sshd, another Redis, and Interceptor");
    let shell = Shell::start(&Plan {
        rules: RULES,
        config: with_credentials,
    })?;
    let customer = shell.sshd.files.join("customer.txt");
    std::fs::write(customer, "customer Ada, card 4111 1111 1111 1111\n")?;
    println!("   sshd         127.0.0.1:{}", shell.sshd.port);
    println!("   Redis        127.0.0.1:{}", shell.redis.port);
    println!("   Interceptor  with four rules of its own");

    style.title("An agent works with plain ssh and scp; it has no key to anything");
    let transcript = agent_at_work(style, &shell)?;
    check(&shell, &transcript)?;

    style.title("What was recorded, in Redis");
    let session = recorded(style, &shell)?;

    style.title("The first of the sessions again");
    let replay = shell.daemon.ask(&["replay", &session, "--speed", "10"])?;
    style.answer(&replay);
    ensure!(
        replay.contains("Ada"),
        "the replay does not show the output"
    );
    shell.daemon.never_panicked()?;
    Ok((shell, session))
}

fn agent_at_work(style: &Style, shell: &Shell) -> Result<String> {
    let port = shell.sshd.port;
    let options = format!("-F none {}", shell.options().join(" "));
    let own = shell.place.subfolder("own")?;
    // The agent is an ordinary user, whoever started this.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&own, mode).context("the agent's folder")?;
    let script = format!(
        "OPTIONS='{options} -p {port}'; SCP_OPTIONS='{options} -P {port}'; \
         HOST=agent@127.0.0.1; OWN={}; FILES={}\n{SCRIPT}",
        own.display(),
        shell.sshd.files.display()
    );
    let shown = format!("ssh -p {port} agent@127.0.0.1 …");
    style.script(&shell.daemon, &shown, &script)
}

/// The demo claims something: is it so?
fn check(shell: &Shell, transcript: &str) -> Result<()> {
    ensure!(!transcript.contains("4111 1111"), "the card was not masked");
    ensure!(
        transcript.contains("Ada"),
        "what no rule hides did not come"
    );
    ensure!(
        transcript.contains("nothing-is-removed"),
        "rm was not refused by its rule"
    );
    ensure!(!transcript.contains("hidden\n"), "the piped script was run");
    let report = std::fs::read_to_string(shell.sshd.files.join("report.txt"));
    ensure!(
        report.is_ok_and(|report| report == "a report\n") && transcript.contains("a report"),
        "the file did not arrive, or was removed"
    );
    Ok(())
}

fn recorded(style: &Style, shell: &Shell) -> Result<String> {
    let mut records = shell.records()?;
    let sessions = records.closed_sessions_of("demo-agent", 5)?;
    for (_, events) in &sessions {
        style.events(events);
    }
    println!();
    let found = records.keys_that_hold(b"4111 1111")?.len();
    ensure!(found == 0, "a masked value is in the store");
    style.line(
        GREEN,
        "   Searched every key of Redis for the card: found nowhere.",
    );
    let (first, _) = sessions.into_iter().next().context("no session")?;
    Ok(first)
}
