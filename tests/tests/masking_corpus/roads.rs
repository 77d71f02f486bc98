//! The two protocols, each with a client that people use. What a client got of
//! an entry is one text: columns, rows, `COPY` data, errors, notices.

use std::future::poll_fn;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use futures_util::StreamExt as _;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::corpus::Entry;

/// Where a client connects to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Road {
    pub(super) port: u16,
    pub(super) database: &'static str,
}

/// Runs entries by psql, which speaks the simple protocol; one text for each.
pub(super) fn simple(road: Road, entries: &[&Entry]) -> Result<Vec<String>> {
    const MARK: &str = "---- entry";
    let mut script = String::from("\\pset null NULL\n\\set VERBOSITY verbose\n");
    for entry in entries {
        script.push_str("BEGIN;\n");
        for statement in &entry.statements {
            // A message of several statements is sent as one.
            let joined = match statement.contains("$$") {
                true => statement.clone(),
                false => statement.replace("; ", "\\; "),
            };
            script.push_str(&joined);
            script.push_str(";\n");
        }
        script.push_str("ROLLBACK;\n\\echo ");
        script.push_str(MARK);
        script.push('\n');
    }
    let mut psql = Command::new("psql")
        .args([
            "-XAt",
            "-h",
            "127.0.0.1",
            "-U",
            "agent",
            "-d",
            road.database,
        ])
        .args(["-p", &road.port.to_string()])
        .args(["-c", "\\i /dev/stdin"])
        .env("PGOPTIONS", "-c lc_messages=C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting psql")?;
    let mut input = psql.stdin.take().context("no stdin")?;
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        let _ = input.write_all(script.as_bytes());
    });
    let done = psql.wait_with_output().context("waiting for psql")?;
    let _ = writer.join();
    let stdout = String::from_utf8_lossy(&done.stdout);
    let stderr = String::from_utf8_lossy(&done.stderr);
    // Errors go to another stream: they are put to the entry whose line of the
    // script they name, which is the same for every road.
    let mut texts: Vec<String> = stdout
        .split(MARK)
        .map(|text| text.trim().to_owned())
        .collect();
    texts.pop();
    if texts.len() != entries.len() {
        bail!(
            "{} entries were answered of {}\n{stderr}",
            texts.len(),
            entries.len()
        );
    }
    let mut at_line = Vec::new();
    let mut line = 3;
    for entry in entries {
        line += 3 + entry.statements.len();
        at_line.push(line);
    }
    let mut entry = 0;
    for told in stderr.lines() {
        let number = told
            .strip_prefix("psql:")
            .and_then(|rest| rest.split(':').nth(1))
            .and_then(|number| number.parse::<usize>().ok());
        if let Some(number) = number {
            entry = at_line
                .iter()
                .position(|end| number < *end)
                .unwrap_or(entry);
        }
        if let Some(text) = texts.get_mut(entry) {
            text.push('\n');
            text.push_str(&without_exchange(told));
        }
    }
    Ok(texts)
}

/// Runs entries by tokio-postgres, which prepares every statement and asks for
/// binary format.
pub(super) fn extended(road: Road, entries: &[&Entry]) -> Result<Vec<Option<String>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = format!(
            "host=127.0.0.1 port={} user=agent dbname={}",
            road.port, road.database
        );
        let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await?;
        let notices: Arc<Mutex<String>> = Arc::default();
        let heard = Arc::clone(&notices);
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                let text = match message {
                    AsyncMessage::Notice(notice) => told(&notice),
                    AsyncMessage::Notification(note) => {
                        format!("notification: {}\n", note.payload())
                    }
                    _ => continue,
                };
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        let mut texts = Vec::with_capacity(entries.len());
        for entry in entries {
            let several = entry
                .statements
                .iter()
                .any(|statement| statement.contains("; ") && !statement.contains("$$"));
            if several {
                texts.push(None);
                continue;
            }
            client.batch_execute("BEGIN").await?;
            let mut text = String::new();
            for statement in &entry.statements {
                match one(&client, statement).await {
                    Ok(got) => text.push_str(&got),
                    Err(error) => {
                        match error.as_db_error() {
                            Some(error) => text.push_str(&told(error)),
                            None => return Err(error).context(entry.name.clone()),
                        }
                        break;
                    }
                }
            }
            client.batch_execute("ROLLBACK").await?;
            text.push_str(&std::mem::take(
                &mut *notices.lock().unwrap_or_else(PoisonError::into_inner),
            ));
            texts.push(Some(text));
        }
        drop(client);
        let _ = task.await;
        Ok(texts)
    })
}

async fn one(client: &Client, statement: &str) -> Result<String, tokio_postgres::Error> {
    let mut text = String::new();
    if statement.starts_with("COPY ") {
        let mut data = Box::pin(client.copy_out(statement).await?);
        while let Some(piece) = data.next().await {
            text.push_str(&format!("copied: {}\n", piece?.escape_ascii()));
        }
        return Ok(text);
    }
    let prepared = client.prepare(statement).await?;
    for row in client.query(&prepared, &[]).await? {
        for (at, column) in row.columns().iter().enumerate() {
            let value = match row.get::<_, Option<Raw>>(at) {
                Some(Raw(bytes)) => bytes.escape_ascii().to_string(),
                None => "NULL".to_owned(),
            };
            text.push_str(&format!("{}={value}|", column.name()));
        }
        text.push('\n');
    }
    Ok(text)
}

/// The bytes of a value of any type.
struct Raw(Vec<u8>);

impl FromSql<'_> for Raw {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn told(error: &tokio_postgres::error::DbError) -> String {
    let text = format!(
        "{} {} {:?} {:?} {:?} {:?} {:?}\n",
        error.severity(),
        error.code().code(),
        error.message(),
        error.detail(),
        error.hint(),
        error.where_(),
        error.constraint()
    );
    without_exchange(&text)
}

/// A refusal bears the exchange's number, which no other has.
fn without_exchange(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(at) = text.find("Exchange: ") {
        let end = text
            .get(at..)
            .and_then(|rest| rest.find('.'))
            .map_or(text.len(), |end| at + end);
        text.replace_range(at..end, "REFUSED");
    }
    text
}
