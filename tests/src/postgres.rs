//! A private PostgreSQL.
//!
//! `initdb` takes seconds, so it is run once for a machine and version, and its
//! folder copied. Nothing is synced to disk: what a test stores may be lost.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::certs::Certificates;
use crate::needs;
use crate::place::{self, Place};
use crate::process::{Server, Start};

/// The shop that tests and demo use.
pub const SAMPLE: &str = include_str!("sample.sql");

/// Users with a password, `secret-of-NAME`, one for each way to ask for it.
/// Every other user is trusted.
const HBA: &str = "\
local   all         all         trust
{host}  all         scram_user  all  scram-sha-256
{host}  all         md5_user    all  md5
{host}  all         clear_user  all  password
{host}  all         all         all  trust
{host}  replication all         all  trust
";

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether it offers TLS.
    pub tls: bool,
    /// Whether it refuses connections without TLS.
    pub tls_only: bool,
    /// Lines for `postgresql.conf`, after our own.
    pub settings: String,
    /// SQL that is run once it is up.
    pub sql: String,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    /// Its port, on 127.0.0.1 to 127.0.0.3 and, where the machine has it, `::1`.
    pub port: u16,
    /// Its certificates, where it offers TLS.
    pub certificates: Option<Certificates>,
    sockets: PathBuf,
}

impl Postgres {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be installed or started.
    pub fn start(place: &Place, name: &str, options: &Options) -> Result<Self> {
        let user = needs::database_user()?;
        let programs = programs()?;
        let data = place.path(format!("{name}-data"));
        copy_template(&programs, &data, user.as_ref())?;

        let port = place::free_port()?;
        let sockets = place.subfolder(&format!("{name}-sockets"))?;
        owned_by(&sockets, user.as_ref())?;
        let certificates = match options.tls || options.tls_only {
            true => Some(Certificates::new(place, name, user.as_ref())?),
            false => None,
        };
        let settings = settings(port, &sockets, certificates.as_ref(), options)?;
        write_into(&data.join("postgresql.conf"), &settings)?;
        let host = if options.tls_only { "hostssl" } else { "host" };
        write_into(&data.join("pg_hba.conf"), &HBA.replace("{host}", host))?;

        let mut command = Command::new(programs.join("postgres"));
        command.arg("-D").arg(&data).current_dir(place.folder());
        let start = Start {
            name,
            log: &place.path(format!("{name}.log")),
            user: user.as_ref(),
            stop: Signal::SIGINT,
            orphaned: Signal::SIGQUIT,
        };
        let mut server = Server::start(&start, command)?;
        let probe = programs.join("pg_isready");
        server.wait_until(|| {
            Command::new(&probe)
                .args(["-q", "-h"])
                .arg(&sockets)
                .args(["-p", &port.to_string()])
                .status()
                .is_ok_and(|status| status.success())
        })?;
        let postgres = Self {
            server,
            port,
            certificates,
            sockets,
        };
        postgres.sql(USERS)?;
        if !options.sql.is_empty() {
            postgres.sql(&options.sql)?;
        }
        Ok(postgres)
    }

    /// Runs SQL as the superuser, not by way of Interceptor; gives unaligned rows.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.sql_in("postgres", sql)
    }

    /// The same in another database.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn sql_in(&self, database: &str, sql: &str) -> Result<String> {
        let output = self.psql(database, sql)?;
        if !output.status.success() {
            bail!(
                "psql: {}\nrunning: {sql}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    }

    fn psql(&self, database: &str, sql: &str) -> Result<Output> {
        Command::new("psql")
            .args([
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                database,
            ])
            .arg("-h")
            .arg(&self.sockets)
            .args(["-p", &self.port.to_string(), "-c", sql])
            .output()
            .context("starting psql")
    }

    /// Whether the server was ever asked to run something with `text` in it. It
    /// logs every statement, so this is its own word on what reached it.
    #[must_use]
    pub fn saw(&self, text: &str) -> bool {
        self.server.log().contains(text)
    }

    /// The process.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// The folder of its Unix socket.
    #[must_use]
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }
}

const USERS: &str = "
CREATE ROLE agent LOGIN SUPERUSER;
CREATE ROLE scram_user LOGIN PASSWORD 'secret-of-scram_user';
CREATE ROLE clear_user LOGIN PASSWORD 'secret-of-clear_user';
SET password_encryption = md5;
CREATE ROLE md5_user LOGIN PASSWORD 'secret-of-md5_user';
GRANT pg_read_all_data TO scram_user, clear_user, md5_user;
";

fn settings(
    port: u16,
    sockets: &Path,
    certificates: Option<&Certificates>,
    options: &Options,
) -> Result<String> {
    let addresses = match std::net::TcpListener::bind(("::1", 0)) {
        Ok(_) => "127.0.0.1,127.0.0.2,127.0.0.3,::1",
        Err(_) => "127.0.0.1,127.0.0.2,127.0.0.3",
    };
    let mut settings = format!(
        "listen_addresses = '{addresses}'\n\
         port = {port}\n\
         unix_socket_directories = '{}'\n\
         fsync = off\nfull_page_writes = off\nsynchronous_commit = off\n\
         shared_buffers = 32MB\nmax_connections = 200\n\
         wal_level = logical\nmax_wal_senders = 8\nmax_replication_slots = 8\n\
         log_statement = all\nlog_connections = on\nlogging_collector = off\n\
         timezone = 'UTC'\nlog_timezone = 'UTC'\n",
        sockets.display()
    );
    if let Some(certificates) = certificates {
        writeln!(settings, "ssl = on")?;
        writeln!(
            settings,
            "ssl_cert_file = '{}'",
            certificates.certificate.display()
        )?;
        writeln!(settings, "ssl_key_file = '{}'", certificates.key.display())?;
    }
    settings.push_str(&options.settings);
    Ok(settings)
}

/// Writes a file that `initdb` made, so that it keeps its owner.
fn write_into(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn owned_by(path: &Path, user: Option<&User>) -> Result<()> {
    if let Some(user) = user {
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("giving {} to {}", path.display(), user.name))?;
    }
    Ok(())
}

/// The folder of the newest PostgreSQL's server programs. Debian keeps them off
/// the path.
///
/// # Errors
/// When there is none.
pub fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .context("no PostgreSQL here: install it with `cargo xtask install servers`")?;
    versions
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs
                .join("postgres")
                .exists()
                .then_some((version, programs))
        })
        .max()
        .map(|(_, programs)| programs)
        .context("no PostgreSQL here: install it with `cargo xtask install servers`")
}

/// Copies the machine's template of a data folder to `data`; makes it first
/// where there is none.
fn copy_template(programs: &Path, data: &Path, user: Option<&User>) -> Result<()> {
    let version = programs
        .parent()
        .and_then(Path::file_name)
        .context("a folder of programs without a version")?;
    // Owned by whoever runs the server, so one for each of them.
    let owner = user.map_or_else(nix::unistd::geteuid, |user| user.uid);
    let template = format!("/tmp/interceptor-template-{}-{owner}", version.display());
    let template = Path::new(&template);
    {
        let lock = template.with_extension("lock");
        let lock = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&lock)
            .with_context(|| format!("opening {}", lock.display()))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("locking the template")?;
        if !template.exists() {
            make_template(programs, template, user)?;
        }
    }
    let copied = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(template)
        .arg(data)
        .output()
        .context("starting cp")?;
    if !copied.status.success() {
        bail!(
            "copying {}: {}",
            template.display(),
            String::from_utf8_lossy(&copied.stderr)
        );
    }
    Ok(())
}

/// Makes it beside its place and moves it there, so that what stands there is whole.
fn make_template(programs: &Path, template: &Path, user: Option<&User>) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let draft = template.with_extension("draft");
    let _ = std::fs::remove_dir_all(&draft);
    std::fs::create_dir(&draft).with_context(|| format!("making {}", draft.display()))?;
    owned_by(&draft, user)?;
    let mut initdb = Command::new(programs.join("initdb"));
    initdb
        .args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
            "-D",
        ])
        .arg(&draft)
        .current_dir("/");
    if let Some(user) = user {
        initdb.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let made = initdb.output().context("starting initdb")?;
    if !made.status.success() {
        bail!("initdb: {}", String::from_utf8_lossy(&made.stderr));
    }
    std::fs::rename(&draft, template).with_context(|| format!("making {}", template.display()))
}
