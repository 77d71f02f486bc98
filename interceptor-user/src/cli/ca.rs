//! `interceptor ca`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Global;
use crate::agents::ssh_trust;
use crate::config::Config;
use crate::ssh::authority::known_hosts_of_agents;
use crate::tls::Authority;
use crate::tls::authority::Trust;

/// Shows and makes the local certificate authority.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  interceptor ca init\n  interceptor ca show\n  interceptor ca trust -- psql 'host=db.internal sslmode=verify-full'\n  sudo interceptor ca trust\n  sudo interceptor ca trust --remove"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes the authority, where there is none, and writes what agents need to trust it
    Init,
    /// Shows the authority, and where it is
    Show,
    /// Runs a command that trusts the authority, as agents do; without one, has the
    /// whole system trust it
    Trust {
        /// Take the authority out of the system's store again
        #[arg(long, conflicts_with = "line")]
        remove: bool,
        /// The command, and its arguments
        #[arg(last = true, value_name = "COMMAND")]
        line: Vec<std::ffi::OsString>,
    },
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    match args.command {
        Command::Init => {
            let authority = Authority::open_or_create_for(&config.state_dir, &config.permitted)?;
            authority.publish(&config.runtime_dir)?;
            show(&authority, &config.runtime_dir, global.json)
        }
        Command::Show => {
            let authority = Authority::open(&config.state_dir)?;
            show(&authority, &config.runtime_dir, global.json)
        }
        Command::Trust { remove: true, .. } => forget(&STORE),
        Command::Trust { line, .. } if line.is_empty() => install(&config.runtime_dir, &STORE),
        Command::Trust { line, .. } => trust(&config.runtime_dir, &line),
    }
}

fn show(authority: &Authority, runtime_dir: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let (_, certificate) = X509Certificate::from_der(authority.certificate())
        .context("reading the authority's certificate")?;
    let day = |at: x509_parser::time::ASN1Time| -> anyhow::Result<String> {
        let at = at.to_datetime();
        Ok(at.format(&time::format_description::well_known::Rfc3339)?)
    };
    let subject = certificate.subject().to_string();
    let from = day(certificate.validity().not_before)?;
    let until = day(certificate.validity().not_after)?;
    let trust = Trust::under(runtime_dir);
    let folder = authority.folder().display().to_string();
    let published = trust.is_published();
    let mut out = std::io::stdout().lock();
    if as_json {
        let shown = json!({
            "subject": subject,
            "sha256": authority.fingerprint(),
            "not_before": from,
            "not_after": until,
            "folder": folder,
            "certificate": trust.authority,
            "bundle": trust.bundle,
            "published": published,
        });
        writeln!(out, "{shown:#}")?;
    } else {
        let note = if published {
            ""
        } else {
            " (not there yet: the daemon writes it)"
        };
        writeln!(out, "Subject      {subject}")?;
        writeln!(out, "SHA-256      {}", authority.fingerprint())?;
        writeln!(out, "Valid        {from} to {until}")?;
        writeln!(out, "Key          {folder}/key.pem")?;
        writeln!(out, "Certificate  {}{note}", trust.authority.display())?;
        writeln!(out, "Bundle       {}{note}", trust.bundle.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A system's store of trusted roots.
struct Store {
    /// Where an administrator's own roots are put.
    file: &'static str,
    /// What takes them up.
    update: &'static str,
}

/// Debian's, and whatever is made from it.
const STORE: Store = Store {
    file: "/usr/local/share/ca-certificates/interceptor.crt",
    update: "/usr/sbin/update-ca-certificates",
};

fn install(runtime_dir: &Path, store: &Store) -> anyhow::Result<ExitCode> {
    let authority = Trust::under(runtime_dir).authority;
    let pem = std::fs::read(&authority).with_context(|| {
        format!(
            "reading {}, which the daemon writes when it starts, and `interceptor ca init` too",
            authority.display()
        )
    })?;
    update_is_there(store)?;
    if let Some(folder) = Path::new(store.file).parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(store.file, pem).with_context(|| format!("writing {}", store.file))?;
    trust_host_keys(runtime_dir)?;
    update(store)
}

/// OpenSSH has no store; it reads a folder of configurations, where it is installed.
fn trust_host_keys(runtime_dir: &Path) -> anyhow::Result<()> {
    let added = Path::new(ssh_trust::ADDED);
    if !added.parent().is_some_and(Path::is_dir) {
        return Ok(());
    }
    let line = ssh_trust::line(&known_hosts_of_agents(runtime_dir));
    std::fs::write(added, line).with_context(|| format!("writing {}", added.display()))
}

fn forget(store: &Store) -> anyhow::Result<ExitCode> {
    update_is_there(store)?;
    for file in [store.file, ssh_trust::ADDED] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {file}"));
            }
            _ => {}
        }
    }
    update(store)
}

fn update_is_there(store: &Store) -> anyhow::Result<()> {
    if !Path::new(store.update).exists() {
        bail!(
            "this system has no {}: put the authority's certificate into its store in its own way \
             (`interceptor ca show` says where it is)",
            store.update
        );
    }
    Ok(())
}

fn update(store: &Store) -> anyhow::Result<ExitCode> {
    let status = std::process::Command::new(store.update)
        .status()
        .with_context(|| format!("starting {}", store.update))?;
    if !status.success() {
        bail!("{}: {status}", store.update);
    }
    Ok(ExitCode::SUCCESS)
}

fn trust(runtime_dir: &Path, line: &[std::ffi::OsString]) -> anyhow::Result<ExitCode> {
    let trust = Trust::under(runtime_dir);
    if !trust.is_published() {
        bail!(
            "{} is not there: the daemon writes it when it starts, and so does `interceptor ca init`",
            trust.bundle.display()
        );
    }
    let (program, arguments) = line.split_first().context("no command")?;
    // The command takes this process's place, with its terminal and its signals.
    let failed = std::process::Command::new(program)
        .args(arguments)
        .envs(trust.environment())
        .exec();
    Err(failed).with_context(|| format!("starting {}", program.display()))
}
