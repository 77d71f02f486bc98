//! `interceptor exec`.
//!
//! Asks the daemon for a run, sees for itself that it is in it, gives up whatever
//! could lead out of it, and becomes the command. Where any step fails, the command
//! is not run.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use nix::unistd::{Uid, User};

use super::Global;
use crate::admin::{self, Placed, Request};
use crate::agents::{confine, launch, name_of_command, ssh_trust};
use crate::config::Config;
use crate::ssh::authority::known_hosts_of_agents;

/// What a shell answers for a command that is not there.
const NOT_FOUND: u8 = 127;
/// What a shell answers for a command that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

const LONG: &str = "\
Runs a command as an agent, under interception.

The command runs in a cgroup of its own, as the calling user, without capabilities and \
without a way to gain any; it inherits standard input, output and error and no other \
descriptor, and gets no io_uring and no sockets but Unix, internet and netlink ones. Terminal, signals and exit status pass through: the command takes this \
process's place. It trusts the certificates and host keys that it is shown, as far as \
variables reach; OpenSSH does where root runs this, or after `interceptor ca trust`. Where interception is not in force, the command is not run.";

const EXAMPLES: &str = "\
Examples:
  interceptor exec -- psql -h db.internal -U app orders
  interceptor exec --agent coder --label team=data -- python3 agent.py
  sudo interceptor exec --user alice -- ./agent

Exit status: the command's own; 127 where it is not found, 126 where it cannot be
executed, 1 where interception is not in force, 2 where this command is used wrongly.";

/// Runs a command as an agent, under interception
#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub struct Args {
    /// Name of the agent, for rules and records [default: the command's own]
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// A label, for rules; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Run as this user instead of the calling one (root only)
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is written KEY=VALUE".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever kept the command from being run, other than the command itself.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let (program, arguments) = args.command.split_first().context("no command is given")?;
    let user = target_user(args.user.as_deref())?;
    let config = Config::load(global.config.as_deref())?;
    let agent = args
        .agent
        .unwrap_or_else(|| name_of_command(&program.to_string_lossy()));

    let request = Request::Exec {
        agent,
        labels: args.labels.into_iter().collect(),
    };
    let placed: Placed =
        admin::ask(&config.admin.socket, &request).context("the command was not run")?;
    launch::verify(Path::new(&placed.cgroup))?;
    launch::close_descriptors()?;
    if Uid::effective().is_root() {
        let known_hosts = known_hosts_of_agents(&config.runtime_dir);
        ssh_trust::give(&known_hosts, &config.runtime_dir)?;
    }
    launch::drop_privileges(user.as_ref())?;
    confine::enter()?;

    let mut command = std::process::Command::new(program);
    command.args(arguments).envs(&placed.environment);
    if let Some(user) = &user {
        command
            .env("HOME", &user.dir)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name)
            .env("SHELL", &user.shell);
    }
    let error = command.exec();
    let status = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    #[allow(clippy::print_stderr, reason = "the command line's last word")]
    {
        eprintln!("interceptor: {}: {error}", program.to_string_lossy());
    }
    Ok(ExitCode::from(status))
}

/// Whom to become; `None` for the calling user.
fn target_user(name: Option<&str>) -> anyhow::Result<Option<User>> {
    let caller = Uid::effective();
    let Some(name) = name else {
        ensure!(
            !caller.is_root() && !Uid::current().is_root(),
            "root walks out of any cgroup, so an agent does not run as root unless it is asked for by name: \
             give --user NAME (an ordinary user{}), or --user root if you mean it",
            sudo_hint()
        );
        return Ok(None);
    };
    let user = match name.parse::<u32>() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    }
    .with_context(|| format!("looking up the user {name}"))?;
    let Some(user) = user else {
        bail!("there is no user {name}");
    };
    ensure!(
        caller.is_root() || user.uid == caller,
        "only root may run a command as another user ({name})"
    );
    Ok(Some(user))
}

/// Who called `sudo`, where somebody did.
fn sudo_hint() -> String {
    std::env::var("SUDO_USER")
        .ok()
        .filter(|name| name != "root")
        .map(|name| format!(", such as {name}"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn everything_after_the_dashes_is_the_commands() {
        let line = Line::try_parse_from([
            "exec", "--agent", "a", "--label", "k=v=w", "--", "ls", "--agent", "b",
        ])
        .unwrap();
        assert_eq!(line.args.agent.as_deref(), Some("a"));
        assert_eq!(line.args.labels, [("k".to_owned(), "v=w".to_owned())]);
        assert_eq!(line.args.command, ["ls", "--agent", "b"]);
    }

    #[test]
    fn a_command_is_asked_for_and_a_label_has_a_key() {
        assert!(Line::try_parse_from(["exec", "--agent", "a"]).is_err());
        assert!(Line::try_parse_from(["exec", "--label", "kv", "--", "ls"]).is_err());
        assert!(Line::try_parse_from(["exec", "--label", "=v", "--", "ls"]).is_err());
    }

    #[test]
    fn root_is_only_used_where_it_is_named() {
        if !Uid::effective().is_root() {
            assert!(target_user(None).unwrap().is_none());
            assert!(target_user(Some("root")).is_err());
            return;
        }
        assert!(target_user(None).is_err());
        assert!(target_user(Some("root")).unwrap().unwrap().uid.is_root());
        assert_eq!(target_user(Some("nobody")).unwrap().unwrap().name, "nobody");
        assert!(target_user(Some("no-such-user")).is_err());
    }
}
