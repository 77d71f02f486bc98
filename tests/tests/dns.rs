//! Names: whichever server an agent asks, it is asked here, and what it was told is
//! what its connections are known by.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use interceptor_tests::agent::Agent;
use interceptor_tests::daemon::Daemon;
use interceptor_tests::dnsmasq::Dnsmasq;
use interceptor_tests::needs;
use interceptor_tests::nginx::Nginx;
use interceptor_tests::place::Place;
use interceptor_tests::records::Records;
use interceptor_tests::redis::Redis;
use serde_json::json;

const RULES: &str = r#"
version: 1
rules:
  - name: not-that-host
    match: { target: { host: other.test }, http: {} }
    verdict: block
    message: Not by that name.
"#;

/// Fields are dropped in order: the daemon ends first.
struct World {
    daemon: Daemon,
    dns: Dnsmasq,
    pages: Nginx,
    redis: Redis,
    _place: Place,
}

impl World {
    fn start() -> Result<Self> {
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        let pages = Nginx::start(&place, "pages")?;
        let here = "127.0.0.1";
        let names = [
            ("pages.test", here),
            ("other.test", here),
            ("hidden.test", here),
        ];
        let dns = Dnsmasq::start(&place, &names)?;
        let config = json!({
            "targets": [
                // Names that only the agents' lookups know: the machine's do not.
                { "name": "pages", "host": "pages.test", "port": pages.port, "protocol": "http", "default": "allow" },
                { "name": "other", "host": "other.test", "port": pages.port, "protocol": "http", "default": "allow" },
            ],
            "dns": {
                "servers": [format!("127.0.0.1:{}", dns.port)],
                "names": ["targets", "*.corp.test"],
                "below_domain": 20,
            },
        });
        let daemon = Daemon::start(&place, &redis.url(), RULES, &config)?;
        Ok(Self {
            daemon,
            dns,
            pages,
            redis,
            _place: place,
        })
    }

    fn agent(&self, name: &str) -> Agent {
        Agent::new(&self.daemon, name)
    }
}

fn with(body: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    static WORLD: OnceLock<Result<World, String>> = OnceLock::new();
    if !needs::kernel()? {
        return Ok(());
    }
    let world = WORLD.get_or_init(|| World::start().map_err(|error| format!("{error:#}")));
    let world = world.as_ref().map_err(|error| anyhow!("{error}"))?;
    world.daemon.watch(|| body(world))
}

/// A name server of nobody's: what is sent there for real is lost.
const NOWHERE: &str = "@192.0.2.53";

#[test]
fn whichever_server_is_asked_over_udp_and_tcp_the_answer_comes_from_here() -> Result<()> {
    with(|world| {
        for more in [&[][..], &["+tcp"], &["@2001:db8::53"], &["+noedns"]] {
            let mut words = vec!["dig", "+short", "+tries=1", "+time=5", "pages.test"];
            if !more.iter().any(|word| word.starts_with('@')) {
                words.push(NOWHERE);
            }
            words.extend(more);
            let done = world.agent("digger").run(&words)?.ok()?;
            assert_eq!(done.stdout, "127.0.0.1\n", "{words:?}");
        }
        Ok(())
    })
}

#[test]
fn an_answer_is_from_whom_was_asked_by_every_way_of_sending() -> Result<()> {
    const SCRIPT: &str = r#"
import socket
q = bytes.fromhex('123401000001000000000000') + b'\x05pages\x04test\x00\x00\x01\x00\x01'
for family, server in [(socket.AF_INET, '192.0.2.53'), (socket.AF_INET6, '2001:db8::53'),
                       (socket.AF_INET6, '::ffff:192.0.2.53')]:
    for connected in (False, True):
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.settimeout(5)
        if connected:
            s.connect((server, 53))
            s.send(q)
        else:
            s.sendto(q, (server, 53))
        data, who = s.recvfrom(4096)
        assert who[:2] == (server, 53), who
        assert data[:2] == q[:2] and data[3] & 15 == 0, data
        if connected:
            assert s.getpeername()[:2] == (server, 53), s.getpeername()
print('answered')
"#;
    with(|world| {
        let done = world
            .agent("sender")
            .run(&["python3", "-c", SCRIPT])?
            .ok()?;
        assert_eq!(done.stdout, "answered\n");
        Ok(())
    })
}

#[test]
fn what_is_not_listed_does_not_exist_and_nothing_is_carried_out_by_questions() -> Result<()> {
    with(|world| {
        let dig = |name: &str, kind: &str| {
            world
                .agent("teller")
                .run(&["dig", "+tries=1", "+time=5", NOWHERE, name, kind])?
                .ok()
        };
        let hidden = dig("hidden.test", "A")?;
        assert!(
            hidden.stdout.contains("status: NXDOMAIN"),
            "{}",
            hidden.stdout
        );
        assert!(!world.dns.saw("hidden.test")?);
        let text = dig("pages.test", "TXT")?;
        assert!(text.stdout.contains("status: REFUSED"), "{}", text.stdout);
        let long = format!("{}.{}.corp.test", "a".repeat(60), "b".repeat(60));
        let long = dig(&long, "A")?;
        assert!(long.stdout.contains("status: REFUSED"), "{}", long.stdout);
        let script = "for n in $(seq 25); do dig +tries=1 +time=5 @192.0.2.53 secret$n.corp.test | grep -o 'status: [A-Z]*'; done";
        let many = world.agent("drip").run(&["sh", "-c", script])?.ok()?;
        assert_eq!(
            many.stdout.matches("NXDOMAIN").count(),
            20,
            "{}",
            many.stdout
        );
        assert_eq!(many.stdout.matches("REFUSED").count(), 5, "{}", many.stdout);
        assert!(!world.dns.saw("secret21.corp.test")?);
        let alerts = Records::of(&world.redis)?.everything()?;
        assert!(alerts.contains("A hidden.test refused"), "no alert");
        assert!(alerts.contains("names below corp.test"), "no alert");
        Ok(())
    })
}

#[test]
fn a_connection_is_known_by_the_name_that_its_agent_looked_up() -> Result<()> {
    with(|world| {
        let port = world.pages.port;
        let curl = |name: &str, path: &str| {
            let url = format!("http://{name}:{port}{path}");
            world
                .agent("named")
                .run(&["curl", "-s", "--max-time", "20", &url])
        };
        let done = curl("pages.test", "/by-name")?.ok()?;
        assert!(done.stdout.contains("hello /by-name"), "{}", done.stdout);
        let other = curl("other.test", "/by-other")?;
        assert!(
            other.stdout.contains("Not by that name."),
            "{}",
            other.stdout
        );
        assert!(!world.pages.saw("/by-other")?);
        let mut records = Records::of(&world.redis)?;
        let sessions = records.closed_sessions_of("named", 2)?;
        let opened = sessions
            .iter()
            .find_map(|(_, events)| events.first().filter(|one| one.meta["target"] == "pages"))
            .context("no session of the target")?;
        assert_eq!(opened.meta["host_name"], "pages.test", "{}", opened.meta);
        Ok(())
    })
}
