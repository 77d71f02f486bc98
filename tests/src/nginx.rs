//! A private nginx: the same pages in the clear, over HTTP/2 in the clear, and
//! under TLS.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::certs::Certificates;
use crate::eventually;
use crate::place::{self, Place};
use crate::process::{Server, Start};

/// Bytes of `/files/large`.
pub const LARGE: usize = 20 << 20;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    server: Server,
    /// In the clear, HTTP/1.
    pub port: u16,
    /// In the clear, HTTP/2 with prior knowledge.
    pub port_http2: u16,
    /// Under TLS, HTTP/1 and HTTP/2.
    pub port_tls: u16,
    /// Under TLS, only for who shows a certificate of [`Nginx::clients`].
    pub port_mutual: u16,
    /// In the clear, HTTP/1, over a Unix socket.
    pub socket: PathBuf,
    /// Its certificate, for `localhost` and 127.0.0.1.
    pub certificates: Certificates,
    /// A client's certificate that it accepts.
    pub clients: Certificates,
    access: PathBuf,
}

impl Nginx {
    /// Starts one.
    ///
    /// # Errors
    /// When it is not installed, or cannot be started.
    pub fn start(place: &Place, name: &str) -> Result<Self> {
        let folder = place.subfolder(name)?;
        let files = folder.join("files");
        std::fs::create_dir_all(&files)?;
        std::fs::write(files.join("large"), vec![b'x'; LARGE])?;
        std::fs::write(
            files.join("customer.json"),
            r#"{"name":"Ada","card":"4111 1111 1111 1111","city":"London"}"#,
        )?;
        let certificates = Certificates::new(place, name, None)?;
        let clients = Certificates::new(place, &format!("{name}-clients"), None)?;
        let access = folder.join("access.log");
        let ports = [(); 4].map(|()| place::free_port());
        let [port, port_http2, port_tls, port_mutual] = ports;
        let (port, port_http2, port_tls, port_mutual) =
            (port?, port_http2?, port_tls?, port_mutual?);
        let pages = r#"
            location / { default_type text/plain; return 200 "hello $request_uri\n"; }
            location /files/ { alias FILES/; default_type application/octet-stream;
                               types { application/json json; } }
            location /empty { return 204; }
            location /cookie { add_header Set-Cookie "id=of-the-service"; return 204; }
            location /moved { add_header Alt-Svc 'h3=":443"'; return 302 /; }
            location /upload { client_max_body_size 0; proxy_request_buffering off;
                               proxy_http_version 1.1; proxy_pass http://127.0.0.1:PORT/sink; }
            location /sink { client_max_body_size 0; default_type text/plain;
                             return 200 "took $content_length\n"; }
        "#
        .replace("FILES", &files.display().to_string())
        .replace("PORT", &port.to_string());
        let tls = format!(
            "ssl_certificate {}; ssl_certificate_key {};",
            certificates.certificate.display(),
            certificates.key.display()
        );
        let config = format!(
            "daemon off; worker_processes 1; error_log stderr notice; pid {folder}/pid;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n\
               log_format facts escape=json '{{\"method\":\"$request_method\",\"uri\":\"$request_uri\",\
                 \"protocol\":\"$server_protocol\",\"authorization\":\"$http_authorization\",\
                 \"key\":\"$http_x_api_key\",\"host\":\"$http_host\",\"port\":\"$server_port\",\
                 \"connection\":\"$connection\",\"status\":\"$status\",\"date\":\"$http_x_amz_date\"}}';\n\
               access_log {access} facts;\n\
               client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
               fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;\n\
               scgi_temp_path {folder}/scgi;\n\
               server {{ listen 127.0.0.1:{port}; {pages} }}\n\
               server {{ listen unix:{folder}/nginx.sock; {pages} }}\n\
               server {{ listen 127.0.0.1:{port_http2} http2; {pages} }}\n\
               server {{ listen 127.0.0.1:{port_tls} ssl http2; {tls} {pages} }}\n\
               server {{ listen 127.0.0.1:{port_mutual} ssl; {tls}\n\
                 ssl_client_certificate {ca}; ssl_verify_client on; {pages} }}\n\
             }}\n",
            folder = folder.display(),
            access = access.display(),
            ca = clients.ca.display(),
        );
        let config = place.file(&format!("{name}.conf"), &config)?;
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(config).current_dir(place.folder());
        let start = Start {
            name: "nginx",
            log: &place.path(format!("{name}.log")),
            user: None,
            stop: Signal::SIGTERM,
            orphaned: Signal::SIGTERM,
        };
        let mut server = Server::start(&start, command)
            .context("no nginx here: install it with `cargo xtask install servers`")?;
        server.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self {
            server,
            port,
            port_http2,
            port_tls,
            port_mutual,
            socket: folder.join("nginx.sock"),
            certificates,
            clients,
            access,
        })
    }

    /// What it was asked, in its own words: one object a request.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn requests(&self) -> Result<Vec<Value>> {
        let log = std::fs::read_to_string(&self.access).context("reading nginx's log")?;
        log.lines()
            .map(|line| serde_json::from_str(line).context("a line of nginx's log"))
            .collect()
    }

    /// The requests for `uri`, once there is one.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn asked_for(&self, uri: &str) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        eventually(
            &format!("nginx to log {uri}"),
            Duration::from_secs(5),
            || {
                found = self
                    .requests()?
                    .into_iter()
                    .filter(|one| one.get("uri").and_then(Value::as_str) == Some(uri))
                    .collect();
                Ok(!found.is_empty())
            },
        )?;
        Ok(found)
    }

    /// Whether it was ever asked for something with `text` in its target.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn saw(&self, text: &str) -> Result<bool> {
        let found = self.requests()?.iter().any(|one| {
            let uri = one.get("uri").and_then(Value::as_str);
            uri.is_some_and(|uri| uri.contains(text))
        });
        Ok(found)
    }

    /// The process.
    pub fn server(&self) -> &Server {
        &self.server
    }
}
