//! `interceptor replay SESSION --to TARGET`.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use http::Uri;
use interceptor_engine::replay::again::{Again, Answer, Asked, Compared, What, compare};
use interceptor_engine::replay::json::quiet;
use interceptor_engine::replay::{Entry, Raw, escape, table::cut};
use serde_json::{Value, json};

use super::super::Global;
use super::super::rules::{count, table};
use crate::config::{Config, Place, TlsMode};
use crate::http::again::ScratchService;
use crate::pg::again::{Scratch, ScratchPlace};
use crate::recorder::read::Reader;
use crate::secrets::SecretRef;

/// Characters of a command in the table.
const LINE: usize = 80;

/// Where a session is done again, and what of it.
#[derive(Debug, clap::Args)]
pub(super) struct To {
    /// Do it again on this scratch server (postgresql://user@host:port/db, http://host:port), and say what differs
    #[arg(long, value_name = "URL", conflicts_with_all = ["against", "speed", "from", "format", "output", "follow", "channel"])]
    pub(super) to: Option<String>,
    /// With `--to`: also what was refused
    #[arg(long, requires = "to")]
    include_refused: bool,
    /// With `--to`: although it is a configured target, or where the session went; it writes again what was written
    #[arg(long, requires = "to")]
    i_know: bool,
    /// With `--to`: the database's password is in this file [default: in $PGPASSWORD]
    #[arg(long, requires = "to", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// With `--to` over TLS: the server's certificate is of an authority in this file (PEM) [default: the system's]
    #[arg(long, requires = "to", value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// A scratch server.
enum Target {
    Database(Box<ScratchPlace>),
    Service(ScratchService),
}

/// Who is asked.
enum Peer {
    Database(Box<Scratch>),
    Service(ScratchService),
}

/// Does a session again; the exit code is 1 where an answer differs, and 2 where it
/// cannot be begun.
pub(super) fn run(
    global: &Global,
    config: &Config,
    reader: &mut Reader,
    session: &str,
    to: &To,
) -> anyhow::Result<ExitCode> {
    let begun = begin(config, reader, session, to);
    let (runtime, mut peer) = match begun {
        Ok(begun) => begun,
        Err(error) => return super::super::used_wrongly(&error),
    };
    let mut again = Again::new(to.include_refused);
    let mut report = Report::default();
    let mut pages = reader.session(session);
    while let Some(entry) = pages.next_entry()? {
        let entry = Raw::from_fields(entry.fields).read()?;
        for asked in again.push(&entry) {
            report.take(&runtime, &mut peer, asked);
        }
    }
    for asked in again.finish() {
        report.take(&runtime, &mut peer, asked);
    }
    report.show(session, global.json)?;
    Ok(match report.differing {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Connects, once it is clear that this is no mistake.
fn begin(
    config: &Config,
    reader: &mut Reader,
    session: &str,
    to: &To,
) -> anyhow::Result<(tokio::runtime::Runtime, Peer)> {
    let key = reader.session_key(session);
    let opening = reader.after(&key, "0-0", 1)?;
    let opening = opening.into_iter().next().context("the session is empty")?;
    let opening = Raw::from_fields(opening.fields).read()?;
    let target = read(to.to.as_deref().unwrap_or_default(), to)?;
    let protocol = opening.meta_text("protocol").unwrap_or_default();
    let (host, address) = match (&target, protocol) {
        (Target::Database(place), "postgres") => (&place.host, place.address),
        (Target::Service(service), "http") => (&service.host, service.address),
        (_, "postgres") => {
            bail!("this session spoke PostgreSQL: --to postgresql://user@host:port/db")
        }
        (_, "http") => bail!("this session spoke HTTP: --to http://host:port"),
        (_, other) => bail!("a session of {} is not done again", escape::line(other)),
    };
    if !to.i_know {
        guard(config, &opening, host, address)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let peer = match target {
        Target::Database(place) => {
            let opened = runtime.block_on(Box::pin(Scratch::open(&place)));
            let told = || format!("connecting to {}", place.address);
            Peer::Database(Box::new(opened.with_context(told)?))
        }
        Target::Service(service) => {
            let checked = runtime.block_on(Box::pin(service.check()));
            checked.with_context(|| format!("connecting to {}", service.address))?;
            Peer::Service(service)
        }
    };
    Ok((runtime, peer))
}

/// Refuses what agents really work on: a session that is done again writes again.
fn guard(config: &Config, opening: &Entry, host: &str, address: SocketAddr) -> anyhow::Result<()> {
    let ip = address.ip().to_canonical();
    let is = |target: &&crate::config::Target| {
        let there = match &target.place {
            Place::Host(name) => {
                name.eq_ignore_ascii_case(host)
                    || (name.as_str(), address.port())
                        .to_socket_addrs()
                        .is_ok_and(|mut found| found.any(|one| one.ip().to_canonical() == ip))
            }
            Place::Network(network) => network.contains(&ip),
            // Not to be given as an address.
            Place::Socket(_) => false,
        };
        there && target.port.is_none_or(|port| port == address.port())
    };
    let what = if let Some(target) = config.targets.iter().find(is) {
        format!("{address} is the configured target {}", target.name)
    } else if opening
        .meta_text("origin")
        .and_then(|origin| origin.parse::<SocketAddr>().ok())
        .is_some_and(|origin| origin.ip().to_canonical() == ip && origin.port() == address.port())
    {
        format!("{address} is where this session went")
    } else {
        return Ok(());
    };
    bail!(
        "{what}: doing it again there writes again what was written. Take a scratch server, or say --i-know"
    )
}

fn read(url: &str, to: &To) -> anyhow::Result<Target> {
    // The URL is not repeated in errors: it may hold a password all the same.
    let shape = "--to is no URL such as postgresql://user@host:5432/db or http://host:8080";
    let uri: Uri = url.parse().context(shape)?;
    let authority = uri.authority().context(shape)?;
    let scheme = uri.scheme_str().context(shape)?;
    let (user, place) = match authority.as_str().rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority.as_str()),
    };
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = |usual| authority.port_u16().unwrap_or(usual);
    let resolve = |port: u16| {
        let found = (host.as_str(), port).to_socket_addrs();
        found
            .with_context(|| format!("looking up {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))
    };
    match scheme {
        "postgresql" | "postgres" => {
            let user = user.context("--to has no user: postgresql://user@host:port/db")?;
            if user.contains(':') {
                bail!(
                    "--to has a password, which others can see: use $PGPASSWORD or --password-file"
                );
            }
            let address = resolve(port(5432))?;
            let database = uri.path().trim_matches('/');
            let password = match &to.password_file {
                Some(file) => Some(SecretRef::File(file.clone())),
                None => std::env::var_os("PGPASSWORD").map(|_| SecretRef::Env("PGPASSWORD".into())),
            };
            Ok(Target::Database(Box::new(ScratchPlace {
                address,
                user: user.to_owned(),
                database: if database.is_empty() { user } else { database }.to_owned(),
                password,
                mode: mode(uri.query(), address, to.ca.is_some())?,
                ca: to.ca.clone(),
                host,
            })))
        }
        "http" | "https" => {
            if user.is_some() {
                bail!("--to has credentials; requests are sent without any");
            }
            let tls = scheme == "https";
            if to.ca.is_some() && !tls {
                bail!("--ca is for TLS, and --to is http: say https://host:port");
            }
            Ok(Target::Service(ScratchService {
                address: resolve(port(if tls { 443 } else { 80 }))?,
                authority: place.to_owned(),
                tls,
                ca: to.ca.clone(),
                prefix: uri.path().trim_end_matches('/').to_owned(),
                host,
            }))
        }
        _ => bail!("{shape}"),
    }
}

/// What `sslmode` says; without it, none to this machine and a verified one elsewhere,
/// and a verified one wherever an authority is named.
fn mode(query: Option<&str>, address: SocketAddr, has_ca: bool) -> anyhow::Result<TlsMode> {
    let usual = if address.ip().to_canonical().is_loopback() && !has_ca {
        TlsMode::Disable
    } else {
        TlsMode::VerifyFull
    };
    let Some(query) = query else { return Ok(usual) };
    match query.strip_prefix("sslmode=") {
        // What is named is not to be passed over in silence.
        Some(word @ ("disable" | "require")) if has_ca => {
            bail!("--ca verifies nothing with sslmode={word}: say verify-ca or verify-full")
        }
        Some("disable") => Ok(TlsMode::Disable),
        Some("require") => Ok(TlsMode::Require),
        Some("verify-ca") => Ok(TlsMode::VerifyCa),
        Some("verify-full") => Ok(TlsMode::VerifyFull),
        _ => bail!("the URL of --to may say sslmode=disable, require, verify-ca or verify-full"),
    }
}

/// What is told of an exchange.
struct Told {
    exchange: u64,
    line: String,
    unsent: Option<&'static str>,
    compared: Result<Compared, String>,
}

/// What came of it.
#[derive(Default)]
struct Report {
    /// Those that differ, or were not sent.
    told: Vec<Told>,
    sent: u64,
    unsent: u64,
    differing: u64,
    masked: u64,
}

impl Report {
    fn take(&mut self, runtime: &tokio::runtime::Runtime, peer: &mut Peer, asked: Asked) {
        let compared = if asked.unsent.is_some() {
            self.unsent += 1;
            Ok(Compared::default())
        } else {
            self.sent += 1;
            let answer = runtime.block_on(Box::pin(ask(peer, &asked)));
            answer
                .map(|answer| compare(&asked, &answer))
                .map_err(|error| format!("{error:#}"))
        };
        let differs = compared
            .as_ref()
            .map_or(true, |one| !one.differences.is_empty());
        self.differing += u64::from(differs);
        self.masked += compared.as_ref().map_or(0, |one| one.masked);
        let notes = compared
            .as_ref()
            .is_ok_and(|one| !one.not_compared.is_empty());
        if differs || notes || asked.unsent.is_some() {
            self.told.push(Told {
                exchange: asked.exchange,
                line: asked.line,
                unsent: asked.unsent,
                compared,
            });
        }
    }

    fn show(&self, session: &str, as_json: bool) -> anyhow::Result<()> {
        let text = if as_json {
            let exchanges: Vec<Value> = self.told.iter().map(object).collect();
            let object = json!({
                "session": session, "sent": self.sent, "not_sent": self.unsent,
                "differing": self.differing, "values_not_compared": self.masked,
                "exchanges": exchanges,
            });
            format!("{}\n", quiet(&object.to_string()))
        } else {
            self.text()
        };
        std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes())?;
        Ok(())
    }

    fn text(&self) -> String {
        let clean = |text: &str| escape::line(text).into_owned();
        let mut rows = vec![
            ["EXCHANGE", "WHAT", "THEN", "NOW", "COMMAND"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for told in &self.told {
            let mut row = |what: &str, then: &str, now: &str| {
                let line = cut(&clean(&told.line), LINE);
                rows.push(vec![
                    told.exchange.to_string(),
                    clean(what),
                    clean(then),
                    clean(now),
                    line,
                ]);
            };
            match (told.unsent, &told.compared) {
                (Some(why), _) => row("not sent", why, ""),
                (None, Err(error)) => row("no answer", "", error),
                (None, Ok(compared)) => {
                    for one in &compared.differences {
                        row(&one.what, &one.then, &one.now);
                    }
                    if compared.more > 0 {
                        row("more values", "", &compared.more.to_string());
                    }
                    for why in &compared.not_compared {
                        row("not compared", why, "");
                    }
                }
            }
        }
        let mut text = match rows.len() {
            1 => String::new(),
            _ => table(&rows),
        };
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        text.push_str(&format!(
            "{} sent again, {} not sent: {} answered otherwise",
            count(number(self.sent), "exchange"),
            self.unsent,
            self.differing
        ));
        if self.masked > 0 {
            let values = count(number(self.masked), "value");
            text.push_str(&format!("; {values} hidden on record and not compared"));
        }
        text.push('\n');
        text
    }
}

fn object(told: &Told) -> Value {
    json!({
        "exchange": told.exchange,
        "line": told.line,
        "not_sent": told.unsent,
        "no_answer": told.compared.as_ref().err(),
        "compared": told.compared.as_ref().ok().filter(|_| told.unsent.is_none()),
    })
}

async fn ask(peer: &mut Peer, asked: &Asked) -> anyhow::Result<Answer> {
    match (peer, &asked.what) {
        (
            Peer::Database(scratch),
            What::Statement {
                text,
                parameters,
                copied,
            },
        ) => Ok(Answer::Rows(
            scratch.ask(text, parameters.as_deref(), copied).await?,
        )),
        (
            Peer::Service(service),
            What::Request {
                method,
                path,
                headers,
                body,
            },
        ) => Ok(Answer::Response(
            service.ask(method, path, headers, body).await?,
        )),
        _ => bail!("it is of another protocol"),
    }
}
