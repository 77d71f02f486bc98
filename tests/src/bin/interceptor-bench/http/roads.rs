//! The roads to the pages, all open at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use interceptor_tests::certs::Certificates;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::place::{self, Place};
use interceptor_tests::process::{Server, Start};
use interceptor_tests::redis::Redis;
use interceptor_tests::web::target;
use nix::sys::signal::Signal;
use serde_json::json;

use super::stream;
use crate::copy::copying_proxy;
use crate::settle::settle;

/// A road to the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Road {
    /// No proxy.
    Direct,
    /// `tokio::io::copy_bidirectional`, which reads nothing.
    Copy,
    /// nginx as reverse proxy, one worker.
    Nginx,
    /// HAProxy as reverse proxy, one thread.
    Haproxy,
    /// Interceptor by a listener: shipped rules, everything recorded.
    Interceptor,
    /// The same, but for bodies, which a rule leaves out of the record.
    Commands,
    /// mitmdump as reverse proxy, without add-ons.
    Mitmproxy,
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Copy => "copy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Interceptor => "interceptor",
            Self::Commands => "record: commands",
            Self::Mitmproxy => "mitmproxy",
        })
    }
}

/// Ports of one road: in the clear, under TLS, and of the stream.
#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    plain: u16,
    tls: u16,
    stream: u16,
}

/// Everything that runs. Dropped in order: proxies before what they lead to.
#[derive(Debug)]
pub(crate) struct Field {
    interceptor: Daemon,
    store: Redis,
    _proxies: Vec<Server>,
    _pages: Server,
    by_road: Vec<(Road, Ports)>,
    _place: Place,
}

impl Field {
    /// Starts everything.
    pub(crate) fn new() -> Result<Self> {
        let place = Place::new()?;
        let certificates = Certificates::new(&place, "pages", None)?;
        let direct = Ports {
            stream: stream::serve()?,
            ..free_ports()?
        };
        let pages = pages(&place, direct, &certificates)?;
        let mut by_road = vec![(Road::Direct, direct)];
        let copy = Ports {
            plain: copying_proxy(direct.plain)?,
            tls: copying_proxy(direct.tls)?,
            stream: copying_proxy(direct.stream)?,
        };
        by_road.push((Road::Copy, copy));
        let mut proxies = Vec::new();
        let ports = free_ports()?;
        proxies.push(nginx(&place, direct, ports, &certificates)?);
        by_road.push((Road::Nginx, ports));
        let ports = free_ports()?;
        proxies.push(haproxy(&place, direct, ports, &certificates)?);
        by_road.push((Road::Haproxy, ports));
        let ports = free_ports()?;
        let store = Redis::start(&place)?;
        let commands = free_ports()?;
        let interceptor = interceptor(&place, &store, direct, ports, commands, &certificates)?;
        by_road.push((Road::Interceptor, ports));
        by_road.push((Road::Commands, commands));
        if let Some(program) = mitmdump() {
            let ports = free_ports()?;
            proxies.extend(mitmproxy(&place, &program, direct, ports)?);
            by_road.push((Road::Mitmproxy, ports));
        }
        Ok(Self {
            interceptor,
            store,
            _proxies: proxies,
            _pages: pages,
            by_road,
            _place: place,
        })
    }

    /// The roads that there are.
    pub(crate) fn roads(&self) -> Vec<Road> {
        self.by_road.iter().map(|(road, _)| *road).collect()
    }

    /// Whether there is this one.
    pub(crate) fn has(&self, road: Road) -> bool {
        self.by_road.iter().any(|(one, _)| *one == road)
    }

    /// The port that a road begins at.
    pub(crate) fn port(&self, road: Road, tls: bool) -> Result<u16> {
        let ports = self.ports(road)?;
        Ok(if tls { ports.tls } else { ports.plain })
    }

    /// The port at which a road to the stream begins.
    pub(crate) fn stream_port(&self, road: Road) -> Result<u16> {
        Ok(self.ports(road)?.stream)
    }

    fn ports(&self, road: Road) -> Result<Ports> {
        let found = self.by_road.iter().find(|(one, _)| *one == road);
        found.map(|(_, ports)| *ports).context("no such road")
    }

    /// See [`settle`].
    pub(crate) fn settle(&self, road: Road) -> Result<()> {
        if !matches!(road, Road::Interceptor | Road::Commands) {
            return Ok(());
        }
        self.interceptor.never_panicked()?;
        settle(&self.store)
    }
}

fn free_ports() -> Result<Ports> {
    Ok(Ports {
        plain: place::free_port()?,
        tls: place::free_port()?,
        stream: place::free_port()?,
    })
}

/// JSON of exactly so many bytes, in which no detector finds anything.
fn document(bytes: usize) -> String {
    let mut text = "[".to_owned();
    for n in 0_usize.. {
        let comma = if n > 0 { "," } else { "" };
        let next = format!(r#"{comma}{{"row":{n},"name":"somebody","city":"London"}}"#);
        if text.len() + next.len() + 1 > bytes {
            break;
        }
        text.push_str(&next);
    }
    let padding = " ".repeat(bytes.saturating_sub(text.len() + 1));
    format!("{text}{padding}]")
}

/// The pages themselves.
fn pages(place: &Place, ports: Ports, certificates: &Certificates) -> Result<Server> {
    let folder = place.subfolder("files")?;
    std::fs::write(folder.join("small.json"), document(1024))?;
    std::fs::write(folder.join("large.json"), document(1 << 20))?;
    let location = format!(
        "location / {{ root {}; types {{ application/json json; }} }}",
        folder.display()
    );
    let servers = format!(
        "server {{ listen 127.0.0.1:{}; {location} }}\n\
         server {{ listen 127.0.0.1:{} ssl; {} {location} }}",
        ports.plain,
        ports.tls,
        shown(certificates)
    );
    run_nginx(place, "pages", &servers, ports.plain)
}

/// nginx between.
fn nginx(place: &Place, to: Ports, own: Ports, certificates: &Certificates) -> Result<Server> {
    let proxy = "proxy_http_version 1.1; proxy_set_header Connection ''; \
                 proxy_set_header Host $http_host;";
    let servers = format!(
        "upstream plain {{ server 127.0.0.1:{}; keepalive 64; keepalive_requests 100000000; }}\n\
         upstream tls {{ server 127.0.0.1:{}; keepalive 64; keepalive_requests 100000000; }}\n\
         server {{ listen 127.0.0.1:{}; location / {{ {proxy} proxy_pass http://plain; }} }}\n\
         server {{ listen 127.0.0.1:{} ssl; {} location / {{ {proxy} proxy_pass https://tls; }} }}\n\
         server {{ listen 127.0.0.1:{}; location / {{ {proxy} proxy_buffering off; \
           proxy_pass http://127.0.0.1:{}; }} }}",
        to.plain,
        to.tls,
        own.plain,
        own.tls,
        shown(certificates),
        own.stream,
        to.stream
    );
    run_nginx(place, "nginx", &servers, own.plain)
}

/// The certificate that a server of nginx shows.
fn shown(certificates: &Certificates) -> String {
    format!(
        "ssl_certificate {}; ssl_certificate_key {};",
        certificates.certificate.display(),
        certificates.key.display()
    )
}

fn run_nginx(place: &Place, name: &str, servers: &str, port: u16) -> Result<Server> {
    let folder = place.subfolder(&format!("{name}-run"))?;
    let folder = folder.display();
    let config = format!(
        "daemon off; worker_processes 1; error_log stderr error; pid {folder}/pid;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 100000000; sendfile on; tcp_nodelay on;\n\
           client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
           fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;\n\
           scgi_temp_path {folder}/scgi;\n{servers}\n}}\n"
    );
    let config = place.file(&format!("{name}-nginx.conf"), &config)?;
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(config);
    start(place, name, command, port)
}

/// HAProxy between.
fn haproxy(place: &Place, to: Ports, own: Ports, certificates: &Certificates) -> Result<Server> {
    let both = [
        std::fs::read_to_string(&certificates.certificate)?,
        std::fs::read_to_string(&certificates.key)?,
    ]
    .concat();
    let both = place.file("haproxy.pem", &both)?;
    let config = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
           http-reuse always\n\
         listen plain\n  bind 127.0.0.1:{}\n  server pages 127.0.0.1:{}\n\
         listen tls\n  bind 127.0.0.1:{} ssl crt {}\n  server pages 127.0.0.1:{} ssl verify none\n\
         listen stream\n  bind 127.0.0.1:{}\n  server pages 127.0.0.1:{}\n",
        own.plain,
        to.plain,
        own.tls,
        both.display(),
        to.tls,
        own.stream,
        to.stream
    );
    let config = place.file("haproxy.cfg", &config)?;
    let mut command = Command::new("/usr/sbin/haproxy");
    command.arg("-db").arg("-f").arg(config);
    start(place, "haproxy", command, own.plain)
}

/// Interceptor between: shipped rules, everything recorded, or all but bodies.
fn interceptor(
    place: &Place,
    store: &Redis,
    to: Ports,
    own: Ports,
    commands: Ports,
    certificates: &Certificates,
) -> Result<Daemon> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules");
    let listener = |port: u16, target: &str, agent: &str| json!({ "listen": format!("127.0.0.1:{port}"), "target": target, "agent": agent });
    let config = json!({
        "intercept": { "kernel": false },
        "targets": [
            target("pages", to.plain, &json!({})),
            target("pages-tls", to.tls, &json!({ "tls": { "ca": certificates.ca } })),
            target("stream", to.stream, &json!({})),
        ],
        "listeners": [
            listener(own.plain, "pages", "bench"),
            listener(own.tls, "pages-tls", "bench"),
            listener(own.stream, "stream", "bench"),
            listener(commands.plain, "pages", "commands"),
            listener(commands.tls, "pages-tls", "commands"),
            listener(commands.stream, "stream", "commands"),
        ],
        // What is laid over the configuration takes the place of the rules below.
        "rules": [rules, place.path("rules")],
    });
    let rules = "version: 1\nrules:\n  - name: no-bodies\n    \
                 match: { principal: { agent: commands } }\n    record: commands\n";
    Daemon::start(place, &store.url(), rules, &config)
}

/// mitmdump, where it is installed.
fn mitmdump() -> Option<PathBuf> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/mitmproxy/bin/mitmdump");
    let system = PathBuf::from("/usr/bin/mitmdump");
    [tree, system].into_iter().find(|path| path.exists())
}

fn mitmproxy(place: &Place, program: &Path, to: Ports, own: Ports) -> Result<Vec<Server>> {
    let home = place.subfolder("mitmproxy")?;
    let one = |name: &str, scheme: &str, to: u16, own: u16| {
        let mut command = Command::new(program);
        command
            .args(["--quiet", "--ssl-insecure", "--listen-host", "127.0.0.1"])
            .arg("--set")
            .arg(format!("confdir={}", home.display()))
            .args([
                "--set",
                "keep_host_header=true",
                "--set",
                "stream_large_bodies=1",
            ])
            .arg("--listen-port")
            .arg(own.to_string())
            .arg("--mode")
            .arg(format!("reverse:{scheme}://127.0.0.1:{to}"));
        start(place, name, command, own)
    };
    Ok(vec![
        one("mitmproxy", "http", to.plain, own.plain)?,
        one("mitmproxy-tls", "https", to.tls, own.tls)?,
        one("mitmproxy-stream", "http", to.stream, own.stream)?,
    ])
}

fn start(place: &Place, name: &str, mut command: Command, port: u16) -> Result<Server> {
    command.current_dir(place.folder());
    let start = Start {
        name,
        log: &place.path(format!("{name}.log")),
        user: None,
        stop: Signal::SIGTERM,
        orphaned: Signal::SIGTERM,
    };
    let mut server = Server::start(&start, command)
        .with_context(|| format!("no {name} here: `cargo xtask install bench` installs it"))?;
    server.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(server)
}
