//! A client of PostgreSQL that sends one message and keeps all of the answer,
//! rows, notices and copied data alike, as bytes to look into.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A session, as superuser.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Rows, notices, copied data and errors, one after the other.
    pub(crate) text: String,
    /// The code of the first error.
    pub(crate) error: Option<String>,
}

impl Client {
    pub(crate) fn connect(sockets: &Path, port: u16, database: &str) -> Result<Self> {
        let path = sockets.join(format!(".s.PGSQL.{port}"));
        let stream = UnixStream::connect(&path).context("connecting")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Self { stream };
        let body = format!("user\0postgres\0database\0{database}\0client_min_messages\0notice\0\0");
        let mut message = Vec::new();
        message.extend(u32::try_from(body.len() + 8)?.to_be_bytes());
        message.extend(196_608_u32.to_be_bytes());
        message.extend(body.as_bytes());
        client.stream.write_all(&message)?;
        let answer = client.answer("")?;
        match answer.error {
            Some(code) => bail!("{database}: {code}: {}", answer.text),
            None => Ok(client),
        }
    }

    /// Sends `text` as one message; `input` is what it is sent if it asks.
    pub(crate) fn query(&mut self, text: &str, input: &str) -> Result<Answer> {
        self.send(b'Q', format!("{text}\0").as_bytes())?;
        self.answer(input)
    }

    fn send(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let mut message = vec![tag];
        message.extend(u32::try_from(body.len() + 4)?.to_be_bytes());
        message.extend(body);
        self.stream.write_all(&message).context("sending")
    }

    fn answer(&mut self, input: &str) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let mut head = [0; 5];
            self.stream
                .read_exact(&mut head)
                .context("waiting for the server")?;
            let [tag, length @ ..] = head;
            let length = u32::from_be_bytes(length).saturating_sub(4);
            let mut body = vec![0; usize::try_from(length)?];
            self.stream.read_exact(&mut body)?;
            match tag {
                b'Z' => return Ok(answer),
                b'G' => {
                    self.send(b'd', format!("{input}\n").as_bytes())?;
                    self.send(b'c', b"")?;
                }
                b'E' | b'N' | b'D' | b'd' => {
                    let body = String::from_utf8_lossy(&body);
                    if tag == b'E' && answer.error.is_none() {
                        answer.error = body
                            .split('\0')
                            .find_map(|field| field.strip_prefix('C'))
                            .map(str::to_owned);
                    }
                    answer.text.push_str(&body);
                    answer.text.push('\n');
                }
                _ => {}
            }
        }
    }
}
