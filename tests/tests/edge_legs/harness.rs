//! A proxy that opens both legs and then moves bytes: the layer under test, and
//! as little as possible beside it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context as _, Result, bail};
use interceptor_engine::pg::sasl::{SaslGuard, SaslVerdict};
use interceptor_proto::pg::backend::{BackendKeyData, NoticeBuilder};
use interceptor_tests::place::Place;
use interceptor_tests::postgres::{Options, Postgres};
use interceptor_user::config::{Credentials, Place as Where, Target, TlsMode, UpstreamTls};
use interceptor_user::net::Socket;
use interceptor_user::pg::{Front, FrontRequest, Legs, Opened, open};
use interceptor_user::secrets::SecretRef;
use interceptor_user::tls::Authority;
use interceptor_user::tls::authority::Trust;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Servers that all tests of this file share; stopped when the process ends.
pub struct World {
    pub place: Place,
    /// Without TLS.
    pub plain: Postgres,
    /// With TLS.
    pub tls: Postgres,
    pub authority: Arc<Authority>,
    pub trust: Trust,
    pub runtime: tokio::runtime::Runtime,
}

/// The shared servers.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| made().expect("the servers start"))
}

fn made() -> Result<World> {
    let place = Place::new()?;
    let plain = Postgres::start(&place, "plain", &Options::default())?;
    let tls = Postgres::start(
        &place,
        "tls",
        &Options {
            tls: true,
            ..Options::default()
        },
    )?;
    let authority = Authority::open_or_create(&place.path("state"))?;
    let trust = authority.publish(&place.path("runtime"))?;
    Ok(World {
        plain,
        tls,
        authority: Arc::new(authority),
        trust,
        runtime: tokio::runtime::Runtime::new()?,
        place,
    })
}

/// What came of the flows, as they ended being opened.
pub type Outcomes = Arc<Mutex<Vec<Result<Seen, String>>>>;

/// What is worth keeping of a flow.
#[derive(Clone, Debug)]
pub enum Seen {
    Session(Box<SeenSession>),
    Cancelled { known: bool },
}

/// What is worth keeping of a session.
#[derive(Clone, Debug)]
pub struct SeenSession {
    pub startup: interceptor_user::pg::StartupFacts,
    pub downstream: Option<interceptor_user::tls::LegTls>,
    pub upstream: Option<interceptor_user::tls::LegTls>,
}

/// A proxy in front of one server.
pub struct Proxy {
    pub port: u16,
    pub outcomes: Outcomes,
}

impl Proxy {
    /// Accepts until the process ends.
    pub fn start(origin: SocketAddr, target: Option<Target>) -> Result<Self> {
        let world = world();
        world.runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let port = listener.local_addr()?.port();
            let outcomes = Outcomes::default();
            let kept = Arc::clone(&outcomes);
            let front = Arc::new(Front::new(Arc::clone(&world.authority)));
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let (front, target, kept) =
                        (Arc::clone(&front), target.clone(), Arc::clone(&kept));
                    tokio::spawn(async move {
                        serve(tcp, origin, target.as_ref(), &front, &kept).await;
                    });
                }
            });
            Ok(Self { port, outcomes })
        })
    }

    /// In front of a server of this machine.
    pub fn to(server: &Postgres, target: Option<Target>) -> Result<Self> {
        Self::start(SocketAddr::from(([127, 0, 0, 1], server.port)), target)
    }

    /// Runs one statement; `connection` is what an agent's connection string says
    /// beside the address.
    pub fn psql(&self, connection: &str, sql: &str) -> Result<Output> {
        psql(self.port, connection, sql)
    }

    /// The same, when it has to work: what it prints.
    pub fn ask(&self, connection: &str, sql: &str) -> Result<String> {
        let output = self.psql(connection, sql)?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The same, when it must not work: what it complains of.
    pub fn refusal(&self, connection: &str, sql: &str) -> Result<String> {
        let output = self.psql(connection, sql)?;
        if output.status.success() {
            bail!(
                "it worked: {}",
                String::from_utf8_lossy(&output.stdout).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The last flow that was opened.
    pub fn last(&self) -> Result<Seen> {
        let outcomes = self.outcomes.lock().expect("nobody panicked");
        match outcomes.last().context("no flow yet")? {
            Ok(seen) => Ok(seen.clone()),
            Err(error) => bail!("{error}"),
        }
    }

    /// The last session.
    pub fn session(&self) -> Result<SeenSession> {
        match self.last()? {
            Seen::Session(session) => Ok(*session),
            other => bail!("{other:?}"),
        }
    }
}

fn psql(port: u16, connection: &str, sql: &str) -> Result<Output> {
    Command::new("psql")
        .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d"])
        .arg(format!(
            "host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres connect_timeout=30 {connection}"
        ))
        .args(["-c", sql])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("PGSSLROOTCERT", &world().trust.bundle)
        .output()
        .context("starting psql")
}

/// Whether the server's side of this very session is encrypted.
pub const IS_ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

/// A target at 127.0.0.1 with this much TLS.
pub fn target(mode: TlsMode, ca: Option<PathBuf>) -> Target {
    Target {
        name: "orders-db".to_owned(),
        place: Where::Host("localhost".to_owned()),
        via: None,
        port: None,
        protocol: None,
        tls: UpstreamTls {
            mode,
            ca,
            server_name: None,
        },
        credentials: None,
        http: None,
        ssh: interceptor_user::config::SshTarget::default(),
        grpc: None,
        default: None,
    }
}

/// The same with credentials of one of the tests' users.
pub fn with_credentials(mut target: Target, user: &str, password: Option<&str>) -> Result<Target> {
    let password = match password {
        None => None,
        Some(password) => {
            let path = world()
                .place
                .file(&format!("password-{user}-{}", password.len()), password)?;
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Some(SecretRef::File(path))
        }
    };
    target.credentials = Some(Credentials {
        user: Some(user.to_owned()),
        password,
    });
    Ok(target)
}

async fn serve(
    tcp: TcpStream,
    origin: SocketAddr,
    target: Option<&Target>,
    front: &Front,
    outcomes: &Outcomes,
) {
    let request = FrontRequest {
        tcp: Socket::Tcp(tcp),
        first: Vec::new(),
        origin: &origin.into(),
        target,
        front,
    };
    let opened = open(request).await;
    let seen = match &opened {
        Ok(Opened::Session(legs)) => Ok(Seen::Session(Box::new(SeenSession {
            startup: legs.startup.clone(),
            downstream: legs.downstream_tls.clone(),
            upstream: legs.upstream_tls.clone(),
        }))),
        Ok(Opened::Cancelled(cancelled)) => Ok(Seen::Cancelled {
            known: cancelled.known,
        }),
        Err(error) => Err(error.to_string()),
    };
    outcomes.lock().expect("nobody panicked").push(seen);
    if let Ok(Opened::Session(legs)) = opened {
        // A side that closes in the middle is not this test's business.
        let _ = converse(*legs, front).await;
    }
}

/// What a session does at least: watches the choice of a SASL mechanism, keeps
/// the key for cancelling, and moves the rest.
async fn converse(legs: Legs, front: &Front) -> Result<()> {
    let Legs {
        mut downstream,
        mut upstream,
        mut upstream_pending,
        downstream_pending,
        downstream_tls,
        upstream_tls,
        cancel_to,
        ..
    } = legs;
    let guard = SaslGuard::new(downstream_tls.is_some(), upstream_tls.is_some());
    upstream.write_all(&downstream_pending).await?;
    let mut offered = false;
    let mut from_agent = Vec::new();
    let mut _key = None;
    loop {
        let message = frame(&mut upstream, &mut upstream_pending).await?;
        let code = message.get(5..9).map(<[u8]>::to_vec).unwrap_or_default();
        let mut answered = false;
        let mut forward = message.clone();
        match message.first() {
            Some(b'R') => {
                answered = !matches!(code.as_slice(), [0, 0, 0, 0 | 12]);
                if code == [0, 0, 0, 10] {
                    offered = true;
                    match guard.offer(&message[9..]) {
                        SaslVerdict::Pass => {}
                        SaslVerdict::Rewrite(frame) => forward = frame,
                        SaslVerdict::Refuse(refusal) => {
                            return refuse(&mut downstream, refusal).await;
                        }
                    }
                }
            }
            Some(b'K') => {
                let data = BackendKeyData::parse(&message[5..])?;
                let to = cancel_to.clone();
                _key = Some(front.cancels.register(data.process_id, data.key, to));
            }
            _ => {}
        }
        downstream.write_all(&forward).await?;
        downstream.flush().await?;
        if message.first() == Some(&b'Z') || message.first() == Some(&b'E') {
            break;
        }
        if answered {
            let answer = frame(&mut downstream, &mut from_agent).await?;
            if std::mem::take(&mut offered)
                && let SaslVerdict::Refuse(refusal) = guard.answer(&answer[5..])
            {
                return refuse(&mut downstream, refusal).await;
            }
            upstream.write_all(&answer).await?;
            upstream.flush().await?;
        }
    }
    downstream.write_all(&upstream_pending).await?;
    upstream.write_all(&from_agent).await?;
    tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await?;
    Ok(())
}

async fn refuse(
    downstream: &mut interceptor_user::tls::Stream,
    refusal: interceptor_engine::pg::sasl::SaslRefusal,
) -> Result<()> {
    let mut error = Vec::new();
    NoticeBuilder::fatal(refusal.code, refusal.message)
        .hint(refusal.hint)
        .encode_error(&mut error);
    downstream.write_all(&error).await?;
    downstream.shutdown().await?;
    Ok(())
}

async fn frame(io: &mut interceptor_user::tls::Stream, pending: &mut Vec<u8>) -> Result<Vec<u8>> {
    loop {
        if let Some(head) = interceptor_proto::pg::frame::head(pending)?
            && pending.len() >= head.total()
        {
            let rest = pending.split_off(head.total());
            return Ok(std::mem::replace(pending, rest));
        }
        if io.read_buf(pending).await? == 0 {
            bail!("closed");
        }
    }
}
