//! Real servers in Python, and Interceptor between agents and them: gRPC,
//! WebSockets, an ASGI application, the Model Context Protocol's own SDK, git and a
//! package index.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{Agent, Finished, python_packages};
use crate::certs::Certificates;
use crate::daemon::Daemon;
use crate::place::{self, Place};
use crate::process::{Server, Start};
use crate::records::Records;
use crate::redis::Redis;
use crate::web::target;

const SHOP: &str = include_str!("peers/shop.py");
const SERVERS: &str = include_str!("peers/servers.py");

/// The servers, and what stands between them and agents. Fields are dropped in
/// order: the daemon ends first.
#[derive(Debug)]
pub struct Peers {
    /// Interceptor.
    pub daemon: Daemon,
    servers: Server,
    /// The store.
    pub redis: Redis,
    /// gRPC in the clear.
    pub grpc: u16,
    /// gRPC under TLS.
    pub grpc_tls: u16,
    /// A WebSocket that says what it is told.
    pub websocket: u16,
    /// An ASGI application under TLS.
    pub asgi: u16,
    /// Tools of the Model Context Protocol, at `/mcp`.
    pub mcp: u16,
    /// Files under TLS, and git below `/git/`.
    pub https: u16,
    /// What is served there.
    pub files: PathBuf,
    /// The folder of all of it.
    pub place: Place,
}

impl Peers {
    /// Starts all of it under these rules.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start(rules: &str) -> Result<Self> {
        Self::start_with(rules, &json!({}))
    }

    /// The same, with more in the configuration.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start_with(rules: &str, more: &serde_json::Value) -> Result<Self> {
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        let certificates = Certificates::new(&place, "peers", None)?;
        let files = place.subfolder("served")?;
        let ports = [(); 6].map(|()| place::free_port());
        let [grpc, grpc_tls, websocket, asgi, mcp, https] = ports;
        let (grpc, grpc_tls, websocket) = (grpc?, grpc_tls?, websocket?);
        let (asgi, mcp, https) = (asgi?, mcp?, https?);
        place.file("shop.py", SHOP)?;
        let script = place.file("servers.py", SERVERS)?;
        let python_path = format!(
            "{}:{}",
            python_packages(&place)?.display(),
            place.folder().display()
        );
        let python = || {
            let mut python = Command::new("/usr/bin/python3");
            python
                .env("PYTHONPATH", &python_path)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .current_dir(place.folder());
            python
        };
        let descriptors = place.path("shop.binpb");
        let write = "import shop, sys; open(sys.argv[1], 'wb').write(shop.descriptor_set())";
        let wrote = python()
            .args(["-c", write])
            .arg(&descriptors)
            .output()
            .context("starting Python")?;
        ensure!(
            wrote.status.success(),
            "writing the descriptor set: {}",
            String::from_utf8_lossy(&wrote.stderr)
        );
        let listen = json!({
            "certificate": certificates.certificate, "key": certificates.key, "files": files,
            "grpc": grpc, "grpc_tls": grpc_tls, "websocket": websocket, "asgi": asgi, "mcp": mcp,
            "https": https,
        });
        let mut command = python();
        command.arg(script).arg(listen.to_string());
        let start = Start {
            name: "the servers in Python",
            log: &place.path("servers.log"),
            user: None,
            stop: Signal::SIGKILL,
            orphaned: Signal::SIGKILL,
        };
        let mut servers = Server::start(&start, command)?;
        let log = place.path("servers.log");
        servers.wait_until(|| {
            let up = std::fs::read_to_string(&log).is_ok_and(|log| log.contains("ready"));
            let open = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            up && open(asgi) && open(mcp)
        })?;
        let tls = json!({ "tls": { "ca": certificates.ca } });
        let schema = json!({ "grpc": { "descriptor_set": descriptors } });
        let mut schema_tls = schema.clone();
        crate::daemon::merge(&mut schema_tls, &tls);
        let mut config = json!({ "targets": [
            target("grpc", grpc, &schema),
            target("grpc-tls", grpc_tls, &schema_tls),
            target("websocket", websocket, &json!({})),
            target("asgi", asgi, &tls),
            target("mcp", mcp, &json!({})),
            target("https", https, &tls),
        ] });
        crate::daemon::merge(&mut config, more);
        let daemon = Daemon::start(&place, &redis.url(), rules, &config)?;
        Ok(Self {
            daemon,
            servers,
            redis,
            grpc,
            grpc_tls,
            websocket,
            asgi,
            mcp,
            https,
            files,
            place,
        })
    }

    /// An agent.
    #[must_use]
    pub fn agent(&self, name: &str) -> Agent {
        Agent::new(&self.daemon, name)
    }

    /// Runs a Python program as an agent, with the messages of [`shop`] in front.
    ///
    /// [`shop`]: SHOP
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn python(&self, agent: &str, program: &str, arguments: &[&str]) -> Result<Finished> {
        let agent = self.agent(agent);
        agent.python(&self.place, program, arguments)
    }

    /// The same with `Ask` and `Customer`, the messages of gRPC.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn grpc_client(&self, agent: &str, program: &str, arguments: &[&str]) -> Result<Finished> {
        self.python(agent, &format!("{SHOP}\n{program}"), arguments)
    }

    /// What landed in the store.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn records(&self) -> Result<Records> {
        Records::of(&self.redis)
    }

    /// Runs a test's body, and shows the logs when that fails.
    ///
    /// # Errors
    /// What the body gives.
    pub fn test(&self, body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.daemon
            .watch(|| body(self))
            .with_context(|| format!("the servers' log ends:\n{}", self.servers.log_end(20)))
    }
}
