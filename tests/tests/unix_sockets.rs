//! Unix sockets of agents: those that are targets are intercepted, with real clients and
//! real servers; of the rest the list decides, and then the default.

#![allow(
    clippy::expect_used,
    reason = "helpers of tests, in which clippy.toml allows it"
)]

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use interceptor_tests::agent::{Agent, Finished};
use interceptor_tests::daemon::{Daemon, SOON};
use interceptor_tests::nginx::Nginx;
use interceptor_tests::place::Place;
use interceptor_tests::postgres::{Options, Postgres, SAMPLE};
use interceptor_tests::records::Records;
use interceptor_tests::redis::Redis;
use interceptor_tests::{eventually, needs};
use serde_json::{Value, json};

const RULES: &str = r#"
version: 1
rules:
  - name: no-drop
    match: { postgres: { statement: [DROP] } }
    verdict: block
  - name: no-create
    match: { http: { path: "/containers/create" } }
    verdict: block
"#;
const SECRET: &str = "Bearer of-the-socket";

/// Services on Unix sockets, and Interceptor in front of them.
struct House {
    daemon: Daemon,
    postgres: Postgres,
    nginx: Nginx,
    redis: Redis,
    place: Place,
}

impl House {
    fn start(unix: &Value) -> Result<Self> {
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        let options = Options {
            sql: SAMPLE.to_owned(),
            ..Options::default()
        };
        let postgres = Postgres::start(&place, "postgres", &options)?;
        let nginx = Nginx::start(&place, "nginx")?;
        let password = place.private_file("password", "secret-of-scram_user")?;
        let token = place.private_file("token", SECRET)?;
        let config = json!({
            "intercept": { "unix": unix },
            "targets": [
                {
                    "name": "shop",
                    "socket": socket_of(&postgres),
                    "protocol": "postgres",
                    "default": "allow",
                    "credentials": { "user": "scram_user", "password": { "file": password } },
                },
                {
                    "name": "engine",
                    "socket": nginx.socket,
                    "protocol": "http",
                    "default": "allow",
                    "credentials": { "header": "Authorization", "value": { "file": token } },
                },
            ],
        });
        let daemon = Daemon::start(&place, &redis.url(), RULES, &config)?;
        Ok(Self {
            daemon,
            postgres,
            nginx,
            redis,
            place,
        })
    }

    fn test(unix: &Value, body: impl FnOnce(&Self) -> Result<()>) {
        if needs::kernel().expect("this test needs the kernel") {
            let house = Self::start(unix).expect("the house starts");
            house.daemon.watch(|| body(&house)).expect("the test runs");
        }
    }

    fn python(&self, agent: &str, program: &str, arguments: &[&str]) -> Result<Finished> {
        let mut words = vec!["/usr/bin/python3", "-c", program];
        words.extend(arguments);
        Agent::new(&self.daemon, agent).run(&words)
    }

    /// Waits for an alert that holds all of `words`.
    fn alerted(&self, words: &[&str]) -> Result<()> {
        let mut records = Records::of(&self.redis)?;
        eventually(&format!("an alert with {words:?}"), SOON, || {
            let alerts = records.stream("interceptor:alerts")?;
            Ok(alerts.iter().any(|alert| {
                let text: String = alert
                    .values()
                    .map(|value| String::from_utf8_lossy(value).into_owned())
                    .collect();
                words.iter().all(|word| text.contains(word))
            }))
        })
    }
}

fn socket_of(postgres: &Postgres) -> PathBuf {
    postgres
        .sockets()
        .join(format!(".s.PGSQL.{}", postgres.port))
}

/// What its own argument's socket answers to a connect.
const CONNECT: &str = "
import socket, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    s.connect('\\0' + name[1:] if name.startswith('@') else name)
    print('connected')
except OSError as error:
    print(error.errno, error.strerror)
";

#[test]
fn a_database_behind_its_socket_is_judged_recorded_and_logged_on_to() {
    House::test(&json!({}), |house| {
        let agent = Agent::new(&house.daemon, "socket-psql");
        let connection = format!(
            "host={} port={} user=whoever dbname=postgres",
            house.postgres.sockets().display(),
            house.postgres.port
        );
        let done = agent.psql_to(
            &connection,
            "SELECT current_user, count(*) FROM users;\nDROP TABLE users;\n",
        )?;
        assert!(done.stdout.contains("scram_user|3"), "{done:?}");
        assert!(done.stderr.contains("no-drop"), "{}", done.stderr);
        assert!(!house.postgres.saw("DROP TABLE users"));
        let (_, events) = Records::of(&house.redis)?.only_session_of("socket-psql")?;
        let opening = events.first().context("an event")?;
        assert_eq!(opening.meta["arrival"], "unix");
        assert_eq!(opening.meta["target"], "shop");
        assert_eq!(opening.meta["origin"], json!(socket_of(&house.postgres)));
        assert!(
            opening.meta["process"]["exe"]
                .as_str()
                .is_some_and(|exe| exe.contains("psql"))
        );
        assert!(
            events
                .iter()
                .any(|event| event.line.contains("DROP TABLE users"))
        );

        // An agent that goes to one of the proxy's own doors is sent nowhere; other tests'
        // daemons have doors as well.
        let doors = std::fs::read_to_string("/proc/net/unix")?;
        let mut own = 0;
        for door in doors
            .lines()
            .filter_map(|line| line.split_whitespace().last())
            .filter(|name| name.starts_with("@interceptor-"))
        {
            let tried = house.python("socket-door", CONNECT, &[door])?;
            match tried.stdout.trim() {
                "1 Operation not permitted" => {
                    own += 1;
                    house.alerted(&["socket-door", "own-service", door])?;
                }
                other => assert_eq!(other, "111 Connection refused", "{door}"),
            }
        }
        assert_eq!(own, 2, "a door for each target");
        Ok(())
    });
}

#[test]
fn an_engine_behind_its_socket_is_judged_and_sent_credentials() {
    House::test(&json!({}), |house| {
        let socket = house.nginx.socket.display().to_string();
        let curl = |more: &[&str]| {
            let mut words = vec![
                "curl",
                "-sS",
                "-i",
                "--max-time",
                "30",
                "--unix-socket",
                &socket,
            ];
            words.extend(more);
            Agent::new(&house.daemon, "socket-curl").run(&words)
        };
        let done = curl(&["http://localhost/containers/json"])?.ok()?;
        assert!(done.stdout.contains("hello /containers/json"), "{done:?}");
        let asked = house.nginx.asked_for("/containers/json")?;
        assert_eq!(asked[0]["authorization"], SECRET);
        let done = curl(&["-X", "POST", "http://localhost/containers/create"])?;
        assert!(done.stdout.contains("403"), "{done:?}");
        assert!(!house.nginx.saw("/containers/create")?);
        let sessions = Records::of(&house.redis)?.closed_sessions_of("socket-curl", 2)?;
        assert!(
            sessions
                .iter()
                .all(|(_, events)| events[0].meta["target"] == "engine")
        );
        Ok(())
    });
}

/// A program with servers of its own, which is how most tools use them; then all that it
/// may try to make a name of its own lead to somebody else's socket.
const OWN: &str = "
import os, socket, sys, tempfile
other = sys.argv[1]
folder = tempfile.mkdtemp()
path = os.path.join(folder, 'own')

def reaches(name, kind=socket.SOCK_STREAM):
    try:
        socket.socket(socket.AF_UNIX, kind).connect(name)
        return 'connected'
    except OSError as error:
        return error.errno

server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect(path)
accepted, _ = server.accept()
client.sendall(b'through'); print('own', accepted.recv(16).decode())
named = socket.socket(socket.AF_UNIX); named.bind('\\0' + path); named.listen()
print('abstract', reaches('\\0' + path))
a, b = socket.socketpair(); a.sendall(b'pair'); print('pair', b.recv(16).decode())
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); log.bind(path + '.log')
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'datagram', path + '.log')
print('datagram', log.recv(16).decode())
child = os.fork()
if child == 0:
    print('child', reaches(path)); sys.stdout.flush(); os._exit(0)
os.waitpid(child, 0)

# Bound by one name and given another, as OpenSSH's control socket is.
mux = socket.socket(socket.AF_UNIX); mux.bind(path + '.first'); mux.listen()
os.link(path + '.first', path + '.second'); print('second', reaches(path + '.second'))
os.unlink(path + '.first'); print('alone', reaches(path + '.second'))
print('first', reaches(path + '.first'))
os.rename(path + '.second', path + '.third'); print('renamed', reaches(path + '.third'))
try:
    os.link(other, path + '.stolen')
except OSError:
    os.symlink(other, path + '.stolen')
print('stolen', reaches(path + '.stolen'))
os.unlink(path + '.third'); os.symlink(other, path + '.third'); print('put', reaches(path + '.third'))

print('other', reaches(other))
link = path + '.link'; os.symlink(other, link); print('link', reaches(link))
os.rename(folder, folder + '.moved'); os.symlink(folder + '.moved', folder)
print('folder', reaches(path))
os.unlink(folder); os.rename(folder + '.moved', folder)
print('again', reaches(path))
os.unlink(path); os.symlink(other, path); print('swapped', reaches(path))
os.chdir(folder); print('relative', reaches('own.log', socket.SOCK_DGRAM))
libc = __import__('ctypes').CDLL(None)
if libc.unshare(0x10000000) == 0:
    os.unlink(path); s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()
    print('userns', reaches(path))
else:
    print('userns none')
";

/// Binds a socket of its own through a link to a file system that is mounted elsewhere,
/// then has the link lead to somebody else's socket of the same name.
const LINKED: &str = "
import os, socket, sys
other = sys.argv[1]
folder, name = os.path.split(other)
link = '/dev/shm/' + name + '.link'
os.symlink('/dev/shm', link)
own = socket.socket(socket.AF_UNIX); own.bind(link + '/' + name); own.listen()
os.unlink(link); os.symlink(folder, link)
try:
    socket.socket(socket.AF_UNIX).connect(link + '/' + name); print('connected')
except OSError as error:
    print(error.errno)
os.unlink(link); os.unlink('/dev/shm/' + name)
";

#[test]
fn a_link_in_front_of_a_mount_leads_to_nobodys_socket() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let device = |path: &str| std::fs::metadata(path).expect(path).dev();
    assert_ne!(device("/dev/shm"), device("/"), "/dev/shm is no mount here");
    let there = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(there.path(), open.clone()).expect("a mode");
    let other = there
        .path()
        .join(format!("interceptor-test-{}", std::process::id()));
    let server = UnixListener::bind(&other).expect("a server");
    std::fs::set_permissions(&other, open).expect("a mode");
    House::test(&json!({}), |house| {
        let name = other.display().to_string();
        let done = house.python("socket-linked", LINKED, &[&name])?.ok()?;
        assert_eq!(done.stdout.trim(), "111");
        server.set_nonblocking(true)?;
        assert!(server.accept().is_err(), "somebody else's was reached");
        Ok(())
    });
}

/// Binds a socket of its own at a path that is, within its file system, that of somebody
/// else's in the host's.
const INSIDE: &str = "
import os, socket, sys
other = sys.argv[1]
os.makedirs('/dev/shm' + os.path.dirname(other))
own = socket.socket(socket.AF_UNIX); own.bind('/dev/shm' + other); own.listen()
try:
    socket.socket(socket.AF_UNIX).connect(other); print('connected')
except OSError as error:
    print(error.errno)
os.unlink('/dev/shm' + other)
os.removedirs('/dev/shm' + os.path.dirname(other))
";

#[test]
fn a_path_within_another_file_system_is_not_taken_for_the_hosts() {
    use std::os::unix::fs::PermissionsExt as _;
    let there = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(there.path(), open.clone()).expect("a mode");
    let other = there.path().join("inside");
    let server = UnixListener::bind(&other).expect("a server");
    std::fs::set_permissions(&other, open).expect("a mode");
    House::test(&json!({}), |house| {
        let name = other.display().to_string();
        let done = house.python("socket-inside", INSIDE, &[&name])?.ok()?;
        assert_eq!(done.stdout.trim(), "111");
        server.set_nonblocking(true)?;
        assert!(server.accept().is_err(), "somebody else's was reached");
        Ok(())
    });
}

#[test]
fn by_default_an_agent_reaches_its_own_sockets_and_nobody_elses() {
    use std::os::unix::fs::PermissionsExt as _;
    let there = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(there.path(), open.clone()).expect("a mode");
    let other = there.path().join("other");
    let server = UnixListener::bind(&other).expect("a server");
    std::fs::set_permissions(&other, open).expect("a mode");
    House::test(&json!({}), |house| {
        let name = other.display().to_string();
        let done = house.python("socket-own", OWN, &[&name])?.ok()?;
        let said: Vec<&str> = done.stdout.lines().collect();
        let expected = [
            "own through",
            "abstract connected",
            "pair pair",
            "datagram datagram",
            "child connected",
            "second connected",
            "alone connected",
            "first 111",
            "renamed connected",
            "stolen 111",
            "put 111",
            "other 111",
            "link 111",
            "folder 111",
            "again connected",
            "swapped 111",
            "relative 111",
        ];
        assert_eq!(said[..expected.len()], expected);
        assert!(
            ["userns 111", "userns none"].contains(&said[expected.len()]),
            "{said:?}"
        );
        server.set_nonblocking(true)?;
        assert!(
            server.accept().is_err(),
            "somebody else's socket was reached"
        );
        house.alerted(&["socket-own", "unix-socket", &name])?;

        // What belongs to the daemon, and what hands out the host, there or not.
        let admin = house.place.path("run/admin.sock").display().to_string();
        for (path, reason) in [
            (admin.as_str(), "own-service"),
            ("/run/docker.sock", "unix-socket"),
            ("/var/run/docker.sock", "unix-socket"),
        ] {
            let tried = house.python("socket-others", CONNECT, &[path])?;
            assert_eq!(tried.stdout.trim(), "1 Operation not permitted", "{path}");
            house.alerted(&["socket-others", reason, path])?;
        }
        Ok(())
    });
}

#[test]
fn the_daemons_store_is_no_agents_and_a_run_leaves_its_coverage_on_record() {
    House::test(&json!({}), |house| {
        let program = "
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'*1\\r\\n$4\\r\\nPING\\r\\n')
try:
    print('got', s.recv(64))
except OSError:
    print('got', b'')
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.7', 9))
except OSError as error:
    print(error.errno)
";
        let port = house.redis.url();
        let port = port
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_owned();
        let done = house.python("store-agent", program, &[&port])?.ok()?;
        assert_eq!(done.stdout.lines().collect::<Vec<_>>(), ["got b''", "1"]);
        let (_, events) = Records::of(&house.redis)?.only_session_of("store-agent")?;
        assert!(
            events
                .iter()
                .any(|event| event.line.contains("Interceptor itself")),
            "{events:?}"
        );
        house.alerted(&["coverage", "agent store-agent is over", " intercepted"])?;
        let status: Value = serde_json::from_str(&house.daemon.ask(&["status", "--json"])?)?;
        assert!(status["coverage"]["redirected"].is_u64(), "{status}");
        Ok(())
    });
}

#[test]
fn another_run_of_the_same_agent_is_somebody_else() {
    House::test(&json!({}), |house| {
        let server = "
import os, socket, sys, tempfile
path = os.path.join(tempfile.mkdtemp(), 'own'); os.chmod(os.path.dirname(path), 0o755)
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
os.chmod(path, 0o777); print(path); sys.stdout.flush(); sys.stdin.read()
";
        let words = ["/usr/bin/python3", "-c", server];
        let mut command = Agent::new(&house.daemon, "socket-twice").command(&words)?;
        let mut first = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut path = String::new();
        let output = first.stdout.take().context("output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut path)?;
        let tried = house.python("socket-twice", CONNECT, &[path.trim()]);
        drop(first.stdin.take());
        first.wait()?;
        assert_eq!(tried?.stdout.trim(), "111 Connection refused");
        Ok(())
    });
}

#[test]
fn where_it_is_only_recorded_anything_is_connected_but_the_daemons_own() {
    House::test(&json!({ "default": "record" }), |house| {
        let program = "
import os, socket, tempfile
path = os.path.join(tempfile.mkdtemp(), 'own')
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
socket.socket(socket.AF_UNIX).connect(path); print('connected')
";
        let done = house.python("socket-record", program, &[])?.ok()?;
        assert_eq!(done.stdout.trim(), "connected");
        house.alerted(&["socket-record", "unix-unjudged", "/own"])?;
        let admin = house.place.path("run/admin.sock").display().to_string();
        let tried = house.python("socket-record", CONNECT, &[&admin])?;
        assert_eq!(tried.stdout.trim(), "1 Operation not permitted");
        Ok(())
    });
}

#[test]
fn where_all_else_is_blocked_only_what_is_listed_is_connected() {
    if !needs::kernel().expect("this test needs the kernel") {
        return;
    }
    let there = tempfile::tempdir().expect("a folder");
    let listed = there.path().join("listed");
    let log = there.path().join("log");
    let other = there.path().join("other");
    let link = there.path().join("link");
    let open = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("a mode");
    };
    open(there.path());
    let servers = [&listed, &other].map(|path| {
        let server = UnixListener::bind(path).expect("a server");
        open(path);
        server
    });
    let datagrams = UnixDatagram::bind(&log).expect("a server of datagrams");
    open(&log);
    std::os::unix::fs::symlink(&listed, &link).expect("a link");
    let unix = json!({ "default": "block", "allow": [listed, "@listed-name"] });
    House::test(&unix, |house| {
        let path = |path: &PathBuf| path.display().to_string();
        let tried = |name: &str| -> Result<String> {
            Ok(house
                .python("socket-blocked", CONNECT, &[name])?
                .stdout
                .trim()
                .to_owned())
        };
        assert_eq!(tried(&path(&listed))?, "connected");
        house.alerted(&["socket-blocked", "unix-unjudged", "/listed"])?;
        for name in [path(&other), path(&link), "@nobody".to_owned()] {
            assert_eq!(tried(&name)?, "1 Operation not permitted", "{name}");
            house.alerted(&["socket-blocked", "unix-socket", &name])?;
        }
        // Listed, and there is nobody: the kernel's own answer.
        assert_eq!(tried("@listed-name")?, "111 Connection refused");
        // By another spelling it is another name.
        let detour = format!("{}/./listed", there.path().display());
        assert_eq!(tried(&detour)?, "1 Operation not permitted");

        let program = "
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for how in (lambda: s.sendto(b'x', sys.argv[1]), lambda: s.connect(sys.argv[1])):
    try:
        how(); print('sent')
    except OSError as error:
        print(error.errno)
a, b = socket.socketpair(); a.sendall(b'pair'); print(b.recv(16).decode())
";
        let done = house
            .python("socket-datagram", program, &[&path(&log)])?
            .ok()?;
        assert_eq!(done.stdout.lines().collect::<Vec<_>>(), ["1", "1", "pair"]);
        house.alerted(&["socket-datagram", "unix-socket", "/log"])?;
        datagrams.set_nonblocking(true)?;
        assert!(datagrams.recv(&mut [0; 8]).is_err(), "a datagram arrived");
        drop(servers);
        Ok(())
    });
}
