//! A server that says what a test tells it to, for what no real server does on
//! demand: pauses, broken answers, connections that close.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A running server. It lives as long as the process.
#[derive(Debug)]
pub struct Scripted {
    /// Its port, on 127.0.0.1.
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

/// One accepted connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    kept: Vec<u8>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Starts one that runs `script` for every connection, each in its own thread.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(
        script: impl Fn(&mut Connection) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listening")?;
        let port = listener.local_addr()?.port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, heads) = (Arc::clone(&script), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let mut connection = Connection {
                        stream,
                        kept: Vec::new(),
                        heads,
                    };
                    let _ = script(&mut connection);
                });
            }
        });
        Ok(Self { port, heads })
    }

    /// The heads of all requests so far.
    #[must_use]
    pub fn heads(&self) -> Vec<String> {
        self.heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Connection {
    /// Reads one head, up to its empty line.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn head(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.kept.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.kept.split_off(end + 4);
                let head = std::mem::replace(&mut self.kept, rest);
                let head = String::from_utf8_lossy(&head).into_owned();
                let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
                heads.push(head.clone());
                return Ok(head);
            }
            self.fill()?;
        }
    }

    /// Reads `count` bytes of a body.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn body(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.kept.len() < count {
            self.fill()?;
        }
        let rest = self.kept.split_off(count);
        Ok(std::mem::replace(&mut self.kept, rest))
    }

    fn fill(&mut self) -> Result<()> {
        let mut more = [0; 4096];
        let n = self.stream.read(&mut more)?;
        anyhow::ensure!(n > 0, "the connection ended");
        self.kept
            .extend_from_slice(more.get(..n).unwrap_or_default());
        Ok(())
    }

    /// Says something, at once.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.say_bytes(text.as_bytes())
    }

    /// The same, with bytes.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn say_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        Ok(self.stream.flush()?)
    }

    /// Waits until the other side closes or `limit` is over; whether it closed.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub fn closes_within(&mut self, limit: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut more = [0; 4096];
        loop {
            match self.stream.read(&mut more) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) => {
                    return Ok(error.kind() == std::io::ErrorKind::ConnectionReset);
                }
            }
        }
    }
}
