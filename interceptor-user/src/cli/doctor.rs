//! `interceptor doctor`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::Global;
use crate::admin::{self, Request, Status};
use crate::agents::attached::forget_all;
use interceptor_policy::DefaultVerdict;

use crate::config::Config;
use crate::kernel::health::{Finding, State, look};
use crate::kernel::{Options, remove};
use crate::recorder::{Place, url_to_read};

const PATIENCE: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  sudo interceptor doctor
  interceptor doctor --json
  sudo interceptor doctor --remove

Exit status: 0 where nothing failed, 1 where something did.";

/// Says what is well, what is not, and the fix
///
/// Looks at the kernel, cgroup2, BTF, capabilities, the programs in force, the
/// configuration, Redis and the daemon, and changes nothing. With `--remove` it takes
/// interception out of force instead: programs, pins, the agents' cgroup and what `attach`
/// asked for. It refuses while the daemon or an agent of `exec` runs; attached services and
/// containers go on without interception.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Take everything out of force that the daemon left in the kernel
    #[arg(long)]
    remove: bool,
}

/// Runs the command.
///
/// # Errors
/// When the answer cannot be written, or something cannot be removed.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if args.remove {
        let config = Config::load(global.config.as_deref())?;
        let options = Options::from_config(&config);
        remove(&options)?;
        forget_all(&config.state_dir).context("forgetting what was attached")?;
        let says = format!(
            "interception at the cgroup {} is out of force",
            options.cgroup
        );
        if global.json {
            writeln!(out, "{}", json!({ "removed": options.cgroup }))?;
        } else {
            writeln!(out, "{says}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }

    let findings = examine(global);
    let worst = findings
        .iter()
        .map(|finding| finding.state)
        .max()
        .unwrap_or(State::Ok);
    if global.json {
        let whole = json!({ "state": worst, "findings": findings });
        writeln!(out, "{}", serde_json::to_string_pretty(&whole)?)?;
    } else {
        let colours = out.is_terminal();
        for finding in &findings {
            print(&mut out, finding, colours)?;
        }
    }
    Ok(if worst == State::Fail {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn examine(global: &Global) -> Vec<Finding> {
    let config = match Config::load(global.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            return vec![Finding::fail(
                "configuration",
                error.to_string(),
                "put right what it names; everything else was not looked at",
            )];
        }
    };
    let mut findings = vec![Finding::ok("configuration", "is understood")];
    if config.intercept.kernel {
        findings.extend(look(&Options::from_config(&config)));
        if config.intercept.when_down == DefaultVerdict::Allow {
            findings.push(Finding::warn(
                "when down",
                "agents connect directly, unjudged and unrecorded, while no daemon is there (`intercept.when_down: allow`)",
                "leave it out of the configuration to have them refused",
            ));
        }
    } else {
        findings.push(Finding::warn(
            "kernel",
            "interception is switched off (`intercept.kernel: false`); only `listeners` are served",
            "leave it out of the configuration to intercept",
        ));
    }
    findings.push(redis(&config));
    findings.push(daemon(&config));
    findings
}

/// Whether Redis answers, as the recorder would ask it.
fn redis(config: &Config) -> Finding {
    const NAME: &str = "redis";
    let configured = config.recorder.redis.is_some();
    let place = url_to_read(None, &config.recorder, &config.runtime_dir)
        .and_then(|url| Ok(Place::open(&url)?));
    let place = match place {
        Ok(place) => place,
        Err(error) => {
            return Finding::fail(
                NAME,
                format!("{error:#}"),
                "mend `recorder` in the configuration",
            );
        }
    };
    match (place.answers(PATIENCE), configured) {
        (Ok(()), _) => Finding::ok(NAME, format!("answers at {}", place.text())),
        (Err(fault), true) => Finding::fail(
            NAME,
            format!("at {}: {fault}", place.text()),
            "start it, or set `recorder.redis`",
        ),
        (Err(_), false) => Finding::warn(
            NAME,
            format!(
                "nothing answers at {}, so the daemon starts one of its own",
                place.text()
            ),
            "install and start Redis for recordings that last: apt-get install redis-server",
        ),
    }
}

fn daemon(config: &Config) -> Finding {
    const NAME: &str = "daemon";
    match admin::ask::<Status>(&config.admin.socket, &Request::Status {}) {
        // Told by one that is new enough to have any.
        Ok(status) if !(status.sandbox.no_new_privs && status.sandbox.seccomp) => Finding::warn(
            NAME,
            format!(
                "it has kept power that it needs not: {}",
                status.sandbox.line()
            ),
            "its log says why; `sandbox` in the configuration, or a kernel without seccomp",
        ),
        Ok(Status {
            keeper: Some(keeper),
            ..
        }) if !keeper.is_whole() => Finding::warn(
            NAME,
            format!(
                "the process that keeps its keys has power that it needs not: {}",
                keeper.line()
            ),
            "its log says why; `sandbox` in the configuration, or a kernel without seccomp or Landlock (`lsm=` on its command line)",
        ),
        Ok(status) => Finding::ok(
            NAME,
            format!(
                "version {}, pid {}, {} rules in force",
                status.version, status.pid, status.rules
            ),
        ),
        Err(error) => Finding::warn(
            NAME,
            error.to_string(),
            "start `interceptor run`; until then agents' connects are refused",
        ),
    }
}

fn print(out: &mut impl io::Write, finding: &Finding, colours: bool) -> io::Result<()> {
    let (word, colour) = match finding.state {
        State::Ok => ("ok  ", "32"),
        State::Warn => ("warn", "33"),
        State::Fail => ("fail", "31"),
    };
    if colours {
        write!(out, "\x1b[{colour}m{word}\x1b[0m")?;
    } else {
        write!(out, "{word}")?;
    }
    writeln!(out, "  {:<13}  {}", finding.name, finding.says)?;
    if let Some(fix) = &finding.fix {
        writeln!(out, "{:21}fix: {fix}", "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_and_its_fix_another_without_colours_in_a_file() {
        let mut out = Vec::new();
        print(&mut out, &Finding::fail("redis", "gone", "start it"), false).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "fail  redis          gone\n                     fix: start it\n"
        );
    }
}
