//! `interceptor doctor`.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::ToSocketAddrs as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::Global;
use crate::admin::{self, Request, Status};
use crate::agents::attached::forget_all;
use crate::config::Config;
use crate::kernel::health::{Finding, State, look};
use crate::kernel::{Options, remove};

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
    } else {
        findings.push(Finding::warn(
            "kernel",
            "interception is switched off (`intercept.kernel: false`); only `listeners` are served",
            "leave it out of the configuration to intercept",
        ));
    }
    findings.push(redis(config.recorder.redis.as_deref()));
    findings.push(daemon(&config));
    findings
}

/// Whether something listens where Redis should be. It is not spoken to: what it can
/// and may is the recorder's to find out.
fn redis(url: Option<&str>) -> Finding {
    const NAME: &str = "redis";
    let place = match url {
        Some(url) => address(url),
        None => Some("127.0.0.1:6379".to_owned()),
    };
    let Some(place) = place else {
        return Finding::warn(
            NAME,
            "configured in a way that cannot be tried from here",
            "`interceptor status` says whether the daemon reaches it",
        );
    };
    let reached = place.to_socket_addrs().is_ok_and(|mut found| {
        found.any(|to| std::net::TcpStream::connect_timeout(&to, PATIENCE).is_ok())
    });
    match (reached, url) {
        (true, _) => Finding::ok(NAME, format!("answers at {place}")),
        (false, Some(_)) => Finding::fail(
            NAME,
            format!("nothing answers at {place}"),
            "start it, or set `recorder.redis`",
        ),
        (false, None) => Finding::warn(
            NAME,
            format!("nothing answers at {place}, so the daemon starts one of its own"),
            "install and start Redis for recordings that last: apt-get install redis-server",
        ),
    }
}

/// Host and port of a Redis URL, without what stands before the `@`.
fn address(url: &str) -> Option<String> {
    let (_, rest) = url
        .strip_prefix("redis://")
        .or_else(|| url.strip_prefix("rediss://"))
        .map(|rest| ((), rest))?;
    let rest = rest.split(['/', '?']).next()?;
    let place = rest.rsplit('@').next()?;
    let has_port = place
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()));
    match place {
        "" => None,
        _ if has_port => Some(place.to_owned()),
        _ => Some(format!("{place}:6379")),
    }
}

fn daemon(config: &Config) -> Finding {
    const NAME: &str = "daemon";
    match admin::ask::<Status>(&config.admin.socket, &Request::Status {}) {
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
    fn a_redis_urls_place_is_found_and_its_password_is_not_part_of_it() {
        for (url, place) in [
            ("redis://127.0.0.1:6380", Some("127.0.0.1:6380")),
            (
                "redis://:secret@redis.internal/2",
                Some("redis.internal:6379"),
            ),
            ("rediss://user:p@ss@[::1]:7000/0", Some("[::1]:7000")),
            ("redis://[::1]", Some("[::1]:6379")),
            ("redis+sentinel://a,b/x", None),
            ("redis://", None),
        ] {
            assert_eq!(address(url).as_deref(), place, "{url}");
        }
    }

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
