//! The roads to the database, all open at once.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::pgbouncer::Pgbouncer;
use interceptor_tests::place::{self, Place};
use interceptor_tests::postgres::{Options, Postgres};
use interceptor_tests::redis::Redis;
use interceptor_tests::world::target;
use serde_json::json;

use crate::copy::copying_proxy;
use crate::settle::settle;

/// A road to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Road {
    /// No proxy.
    Direct,
    /// pgbouncer, a session of its own for every client.
    Pgbouncer,
    /// `tokio::io::copy_bidirectional`, which reads nothing.
    Copy,
    /// Interceptor by a listener: shipped rules, recording.
    Interceptor,
    /// The same, by `exec` and the kernel's redirect.
    Redirected,
    /// By a listener: one column of the result is masked.
    Column,
    /// By a listener: there are masks, and none applies.
    NoMask,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Pgbouncer => "pgbouncer",
            Self::Copy => "copy",
            Self::Interceptor => "interceptor",
            Self::Redirected => "redirected",
            Self::Column => "column-masked",
            Self::NoMask => "no-mask",
        })
    }
}

/// Interceptor with its own store, and the port of its listener.
#[derive(Debug)]
struct Proxy {
    daemon: Daemon,
    redis: Redis,
    port: u16,
    _place: Place,
}

/// Everything that runs. Dropped in order: proxies before what they lead to.
#[derive(Debug)]
pub(crate) struct Field {
    shipped: Proxy,
    column: Proxy,
    no_mask: Proxy,
    bouncers: [Pgbouncer; 2],
    copy: u16,
    /// The database.
    pub(crate) postgres: Postgres,
    /// Where files of loads are.
    pub(crate) place: Place,
}

const COLUMN_RULES: &str = "version: 1\nrules:\n  - name: one-column\n    \
    match: { protocol: postgres }\n    mask: [{ columns: [\"bulk.secret\"], with: redact }]\n";
const NO_MASK_RULES: &str = "version: 1\nrules:\n  - name: elsewhere\n    \
    match: { protocol: postgres }\n    mask: [{ columns: [\"elsewhere.secret\"], with: redact }]\n";

impl Field {
    /// Starts everything, and fills tables with `rows` rows.
    pub(crate) fn new(rows: u32) -> Result<Self> {
        let place = Place::new()?;
        let options = Options {
            tls: true,
            // What is logged is not what is measured.
            settings: "log_statement = none\nlog_connections = off\nmax_connections = 1200\n\
                       shared_buffers = 512MB\nautovacuum = off\n"
                .to_owned(),
            sql: format!(
                "CREATE TABLE bulk AS SELECT n AS id, 'name of ' || n AS name, \
                 'secret ' || n AS secret, n % 997 AS amount, repeat('some text ', 46) AS note \
                 FROM generate_series(1, {rows}) AS n; ANALYZE bulk;"
            ),
            ..Options::default()
        };
        let postgres = Postgres::start(&place, "postgres", &options)?;
        let filled = std::process::Command::new("pgbench")
            .args([
                "-i",
                "-q",
                "-s",
                "10",
                "-h",
                "127.0.0.1",
                "-U",
                "agent",
                "postgres",
                "-p",
            ])
            .arg(postgres.port.to_string())
            .output()
            .context("starting pgbench")?;
        anyhow::ensure!(
            filled.status.success(),
            "pgbench -i: {}",
            String::from_utf8_lossy(&filled.stderr)
        );
        postgres.sql("CHECKPOINT")?;
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
        Ok(Self {
            shipped: proxy(&postgres, "version: 1\nrules: []\n", Some(&shipped))?,
            column: proxy(&postgres, COLUMN_RULES, None)?,
            no_mask: proxy(&postgres, NO_MASK_RULES, None)?,
            bouncers: [
                Pgbouncer::start(&place, "pgbouncer", &postgres, false)?,
                Pgbouncer::start(&place, "pgbouncer-tls", &postgres, true)?,
            ],
            copy: copying_proxy(postgres.port)?,
            postgres,
            place,
        })
    }

    /// The roads that a load is sent over.
    pub(crate) fn roads(&self, bulk: bool) -> Vec<Road> {
        let mut roads = vec![Road::Direct, Road::Pgbouncer, Road::Copy, Road::Interceptor];
        match bulk {
            true => roads.extend([Road::Column, Road::NoMask]),
            // The kernel's redirect needs root.
            false if nix::unistd::geteuid().is_root() => roads.push(Road::Redirected),
            false => {}
        }
        roads
    }

    /// The port that a road begins at.
    pub(crate) fn port(&self, road: Road, tls: bool) -> u16 {
        let [plain, encrypted] = &self.bouncers;
        match road {
            Road::Direct | Road::Redirected => self.postgres.port,
            Road::Pgbouncer => if tls { encrypted } else { plain }.port,
            Road::Copy => self.copy,
            Road::Interceptor => self.shipped.port,
            Road::Column => self.column.port,
            Road::NoMask => self.no_mask.port,
        }
    }

    /// Who is redirected, where a road begins with the kernel.
    pub(crate) fn agent(&self, road: Road) -> Option<Agent> {
        (road == Road::Redirected).then(|| Agent::new(&self.shipped.daemon, "bench"))
    }

    /// Resident memory of a road's proxy, in KiB.
    pub(crate) fn memory_kib(&self, road: Road) -> Result<u64> {
        match road {
            Road::Pgbouncer => self.bouncers[0].server().memory_kib("VmRSS"),
            _ => self.shipped.daemon.server().memory_kib("VmRSS"),
        }
    }

    /// Waits until what a measurement recorded is in the store, and empties that:
    /// the next one pays for its own record alone.
    pub(crate) fn settle(&self, road: Road) -> Result<()> {
        let proxy = match road {
            Road::Interceptor | Road::Redirected => &self.shipped,
            Road::Column => &self.column,
            Road::NoMask => &self.no_mask,
            Road::Direct | Road::Pgbouncer | Road::Copy => return Ok(()),
        };
        settle(&proxy.redis)
    }
}

fn proxy(postgres: &Postgres, rules: &str, folder: Option<&PathBuf>) -> Result<Proxy> {
    let place = Place::new()?;
    let redis = Redis::start(&place)?;
    let port = place::free_port()?;
    let mut config = json!({
        "intercept": { "kernel": folder.is_some() && nix::unistd::geteuid().is_root() },
        "targets": [target(postgres)],
        "listeners": [{ "listen": format!("127.0.0.1:{port}"), "target": "shop", "agent": "bench" }],
    });
    if let (Some(folder), Some(config)) = (folder, config.as_object_mut()) {
        config.insert("rules".to_owned(), json!([folder]));
    }
    let daemon = Daemon::start(&place, &redis.url(), rules, &config)?;
    Ok(Proxy {
        daemon,
        redis,
        port,
        _place: place,
    })
}
