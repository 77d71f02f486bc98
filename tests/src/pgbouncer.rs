//! A private pgbouncer, to compare with.

use std::net::TcpStream;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::certs::Certificates;
use crate::needs;
use crate::place::{self, Place};
use crate::postgres::Postgres;
use crate::process::{Server, Start};

/// A running pgbouncer before a server.
#[derive(Debug)]
pub struct Pgbouncer {
    server: Server,
    /// Its port, on 127.0.0.1.
    pub port: u16,
}

impl Pgbouncer {
    /// Starts one before `postgres`: a connection of its own for every session,
    /// and with `tls`, TLS on both sides.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(place: &Place, name: &str, postgres: &Postgres, tls: bool) -> Result<Self> {
        let user = needs::database_user()?;
        let port = place::free_port()?;
        let users = place.file(&format!("{name}-users.txt"), "\"agent\" \"\"\n")?;
        let tls = match tls {
            false => String::new(),
            true => {
                let own = Certificates::new(place, name, user.as_ref())?;
                format!(
                    "client_tls_sslmode = require\nclient_tls_cert_file = {}\nclient_tls_key_file = {}\n\
                     server_tls_sslmode = require\n",
                    own.certificate.display(),
                    own.key.display()
                )
            }
        };
        let settings = place.file(
            &format!("{name}.ini"),
            &format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = trust\nauth_file = {}\npool_mode = session\n\
                 max_client_conn = 2000\ndefault_pool_size = 150\n\
                 ignore_startup_parameters = extra_float_digits,options\n\
                 log_connections = 0\nlog_disconnections = 0\n{tls}",
                postgres.port,
                users.display()
            ),
        )?;
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg(settings).current_dir(place.folder());
        let start = Start {
            name,
            log: &place.path(format!("{name}.log")),
            user: user.as_ref(),
            stop: Signal::SIGINT,
            orphaned: Signal::SIGKILL,
        };
        let mut server = Server::start(&start, command)?;
        server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { server, port })
    }

    /// The process.
    pub fn server(&self) -> &Server {
        &self.server
    }
}
