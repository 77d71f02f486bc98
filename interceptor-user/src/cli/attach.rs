//! `interceptor attach` and `interceptor detach`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use interceptor_engine::replay::escape;
use serde_json::json;

use super::Global;
use super::exec::label;
use crate::admin::{self, Detached, Request};
use crate::agents::attached::Attached;
use crate::agents::selector::Selector;
use crate::config::Config;

const LONG: &str = "\
Brings what runs already, or what something else starts, under interception.

From then on its new connections are redirected, and nothing else leaves its cgroup: \
connections that it had open are cut off, and its servers are reached through Interceptor \
only. A unit, user, container or cgroup stays attached until `detach`, also when it is \
stopped and started, and when the daemon is. A process (`--pid`) is moved into a cgroup of \
its own, with those that descend from it; its open sockets would stay outside, so it is \
refused while it has any.";

const EXAMPLES: &str = "\
Examples:
  sudo interceptor attach --unit deploy-bot --agent deploy-bot --label team=platform
  sudo interceptor attach --user coder --agent coder
  sudo interceptor attach --container 3f2a9c81d0b4 --agent sandbox
  sudo interceptor attach --container label=agent --agent sandbox
  sudo interceptor attach --pid 4711 --agent helper
  sudo interceptor detach --agent deploy-bot

Exit status: 0 done, 1 refused, 2 used wrongly.";

/// Which cgroup, or process, is meant
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct What {
    /// A cgroup, by its path at the mount or as /proc/PID/cgroup has it
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// A service, slice or scope of systemd's
    #[arg(long, value_name = "UNIT")]
    unit: Option<String>,
    /// Everything that a user runs in sessions and services of their own
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A process, with those that descend from it
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// A container, by its name, by `label=KEY` or `label=KEY=VALUE`, or by at least 12
    /// digits of its id
    #[arg(long, value_name = "NAME|LABEL|ID")]
    container: Option<String>,
    /// A pod of Kubernetes', by its uid
    #[arg(long, value_name = "UID")]
    pod: Option<String>,
}

impl What {
    fn selector(self) -> Option<Selector> {
        self.cgroup
            .map(Selector::Cgroup)
            .or(self.unit.map(Selector::Unit))
            .or(self.user.map(Selector::User))
            .or(self.pid.map(Selector::Pid))
            .or(self.container.map(Selector::Container))
            .or(self.pod.map(Selector::Pod))
    }
}

/// Brings what runs already under interception
#[derive(Debug, clap::Args)]
#[command(long_about = LONG, after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    what: What,
    /// Name of the agent, for rules and records
    #[arg(long, value_name = "NAME")]
    agent: String,
    /// A label, for rules; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// With `--pid`: accept that sockets which are open stay outside interception
    #[arg(long, requires = "pid")]
    allow_open_sockets: bool,
}

/// Takes out of interception what `attach` brought there
///
/// Sessions that are open are judged until they end; new connections are direct. What
/// `exec` began cannot be detached, and what the configuration names is taken out there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo interceptor detach --agent deploy-bot")]
pub struct DetachArgs {
    #[command(flatten)]
    what: What,
    /// Everything that was attached under this name
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
}

/// Attaches.
///
/// # Errors
/// When the daemon does not.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let Some(selector) = args.what.selector() else {
        return Ok(misused(
            "say what is attached: --cgroup, --unit, --user, --pid, --container or --pod",
        ));
    };
    let config = Config::load(global.config.as_deref())?;
    let request = Request::Attach {
        agent: args.agent,
        labels: args.labels.into_iter().collect::<BTreeMap<_, _>>(),
        selector: selector.clone(),
        allow_open_sockets: args.allow_open_sockets,
    };
    let mut out = std::io::stdout().lock();
    let attached: Attached = match admin::ask(&config.admin.socket, &request) {
        Ok(attached) => attached,
        // A unit's own `ExecStartPre=` asks for what is so already.
        Err(error) if error.is::<admin::Confined>() && is_within(&selector) => {
            let said = "this process is under interception already; which agent it is, the daemon does not tell it";
            if global.json {
                writeln!(out, "{}", json!({ "attached": true, "note": said }))?;
            } else {
                writeln!(out, "{said}")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error),
    };
    if global.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&attached)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "agent {} is under interception at {} (run {})",
        attached.agent,
        attached.cgroup.display(),
        attached.run
    )?;
    for warning in &attached.warnings {
        writeln!(out, "note: {}", escape::line(warning))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether this process runs in what is named.
fn is_within(selector: &Selector) -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(own) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return false;
    };
    let mut above = Path::new(own).ancestors();
    match selector {
        Selector::Unit(name) => above.any(|one| one.file_name() == Some(name.as_ref())),
        Selector::Cgroup(path) => {
            above.any(|one| !one.as_os_str().is_empty() && Path::new(path).ends_with(one))
        }
        Selector::User(_) | Selector::Container(_) | Selector::Pod(_) | Selector::Pid(_) => false,
    }
}

/// Detaches.
///
/// # Errors
/// When the daemon does not.
pub(super) fn detach(global: &Global, args: DetachArgs) -> anyhow::Result<ExitCode> {
    let selector = args.what.selector();
    if selector.is_none() && args.agent.is_none() {
        return Ok(misused(
            "say what is detached: --agent, --cgroup, --unit, --user, --pid or --container",
        ));
    }
    let config = Config::load(global.config.as_deref())?;
    let request = Request::Detach {
        agent: args.agent,
        selector,
    };
    let detached: Detached = admin::ask(&config.admin.socket, &request)?;
    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{:#}", json!({ "detached": detached.runs }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for run in &detached.runs {
        writeln!(
            out,
            "agent {} at {} is under interception no more",
            run.agent,
            run.cgroup.display()
        )?;
    }
    if detached.runs.is_empty() {
        writeln!(out, "it is not waited for any more")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn misused(what: &str) -> ExitCode {
    #[allow(clippy::print_stderr, reason = "the command line's last word")]
    {
        eprintln!("interceptor: {what}");
    }
    ExitCode::from(2)
}
