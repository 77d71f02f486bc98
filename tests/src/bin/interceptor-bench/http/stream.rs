//! How long the first byte of a stream of events takes.
//!
//! The stream is served by this very process, at once: what is measured is the
//! road and the client's own turn.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::roads::{Field, Road};
use crate::report::median;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENT: &[u8] = b"10\r\ndata: an event\n\n\r\n";
const END: &[u8] = b"0\r\n\r\n";
const REQUEST: &[u8] =
    b"GET /events HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";

/// Serves streams of one event each, which end a while after it; gives the port.
pub(super) fn serve() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || one(stream));
        }
    });
    Ok(port)
}

fn one(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while !seen.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
        seen.clear();
        stream.write_all(HEAD)?;
        stream.write_all(EVENT)?;
        // Whoever waits for the stream's end is seen to.
        std::thread::sleep(Duration::from_millis(2));
        stream.write_all(END)?;
    }
}

/// The median time to the first byte of an event, over each road.
pub(super) fn first_bytes(field: &Field, times: usize) -> Result<Vec<String>> {
    let roads = field.roads();
    let mut taken: Vec<Vec<f64>> = vec![Vec::new(); roads.len()];
    let mut clients = Vec::new();
    for road in &roads {
        clients.push(connect(field, *road)?);
    }
    // In turn, so that a slow minute hurts all alike; the first ones warm up.
    for time in 0..times + 20 {
        for ((client, road), taken) in clients.iter_mut().zip(&roads).zip(&mut taken) {
            let micros =
                first_byte(client).with_context(|| format!("a stream by way of {road}"))?;
            if time >= 20 {
                taken.push(micros);
            }
        }
    }
    let direct = taken
        .first()
        .and_then(|all| median(all))
        .unwrap_or_default();
    let lines = roads.iter().zip(&taken).filter_map(|(road, all)| {
        let micros = median(all)?;
        let more = micros - direct;
        Some(format!(
            "first byte of a stream, {road:13} {micros:>8.0} µs at the median, {more:>+8.0} µs over direct"
        ))
    });
    Ok(lines.collect())
}

fn connect(field: &Field, road: Road) -> Result<TcpStream> {
    let client = TcpStream::connect(("127.0.0.1", field.stream_port(road)?))?;
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(client)
}

/// Asks, waits for the event's first byte (in µs), and reads to the end.
#[allow(
    clippy::cast_precision_loss,
    reason = "a time needs no more digits than a float has"
)]
fn first_byte(client: &mut TcpStream) -> Result<f64> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let start = Instant::now();
    let mut first = None;
    client.write_all(REQUEST)?;
    while !seen.ends_with(END) {
        let read = client.read(&mut buffer)?;
        if read == 0 {
            bail!("the connection ended");
        }
        seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if first.is_none() && seen.windows(6).any(|window| window == b"data: ") {
            first = Some(start.elapsed());
        }
    }
    let first = first.context("no event came")?;
    Ok(first.as_nanos() as f64 / 1000.0)
}
