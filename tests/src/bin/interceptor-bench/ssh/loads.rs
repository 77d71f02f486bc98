//! What OpenSSH's client is made to do.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::roads::{Field, Road};

/// What the loads' names begin with.
pub(super) const DOWNLOAD: &str = "download";
pub(super) const UPLOAD: &str = "upload";
pub(super) const COMMANDS: &str = "ssh host true";

const MIB: f64 = 1024.0 * 1024.0;

/// One load; more is better.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// So many bytes from the server.
    Download(u64),
    /// So many bytes to it.
    Upload(u64),
    /// Connections that run `true`, one after the other in each of so many workers.
    Commands { workers: u32, seconds: u32 },
}

/// All of them.
pub(super) fn all(bytes: u64, seconds: u32) -> Vec<Load> {
    let commands = |workers| Load::Commands { workers, seconds };
    vec![
        Load::Download(bytes),
        Load::Upload(bytes),
        commands(1),
        commands(8),
    ]
}

impl Load {
    /// What the table calls it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Download(bytes) => format!("{DOWNLOAD}, {} MiB", bytes >> 20),
            Self::Upload(bytes) => format!("{UPLOAD}, {} MiB", bytes >> 20),
            Self::Commands { workers, .. } => format!("{COMMANDS}, {workers} at a time"),
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Download(_) | Self::Upload(_) => "MiB/s",
            Self::Commands { .. } => "/s",
        }
    }

    pub(super) fn measure(self, field: &Field, road: Road) -> Result<f64> {
        match self {
            Self::Download(bytes) => download(field, road, bytes),
            Self::Upload(bytes) => upload(field, road, bytes),
            Self::Commands { workers, seconds } => commands(field, road, workers, seconds),
        }
    }
}

fn start(mut ssh: Command) -> Result<Child> {
    ssh.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ssh")
}

fn end(child: Child) -> Result<()> {
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "ssh: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a rate needs no more digits than a float has"
)]
fn rate(bytes: u64, start: Instant) -> f64 {
    bytes as f64 / MIB / start.elapsed().as_secs_f64()
}

/// From the first byte on: how long a connection takes is another load.
fn download(field: &Field, road: Road, bytes: u64) -> Result<f64> {
    let mut child = start(field.ssh(road, &format!("head -c {bytes} /dev/zero"))?)?;
    let mut stdout = child.stdout.take().context("no output")?;
    let mut buffer = vec![0; 256 << 10];
    let mut read = stdout.read(&mut buffer)? as u64;
    let begun = Instant::now();
    while let more @ 1.. = stdout.read(&mut buffer)? {
        read += more as u64;
    }
    let rate = rate(read, begun);
    end(child)?;
    ensure!(read == bytes, "{read} of {bytes} bytes came");
    Ok(rate)
}

/// From when the other end is ready until it has all.
fn upload(field: &Field, road: Road, bytes: u64) -> Result<f64> {
    let count = format!("echo ready; head -c {bytes} | wc -c");
    let mut child = start(field.ssh(road, &count)?)?;
    let mut stdin = child.stdin.take().context("no input")?;
    let mut stdout = child.stdout.take().context("no output")?;
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready)?;
    let begun = Instant::now();
    let zeros = vec![0; 256 << 10];
    let mut left = bytes;
    while left > 0 {
        let part = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        stdin.write_all(zeros.get(..part).unwrap_or_default())?;
        left -= part as u64;
    }
    // The other end knows when it has all, so that no road's way with an end counts.
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    let rate = rate(bytes, begun);
    drop(stdin);
    end(child)?;
    ensure!(
        said.trim() == bytes.to_string(),
        "{said} of {bytes} bytes came"
    );
    Ok(rate)
}

fn commands(field: &Field, road: Road, workers: u32, seconds: u32) -> Result<f64> {
    let done = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let worker = || -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            end(start(field.ssh(road, "true")?)?)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let ended: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        std::thread::sleep(Duration::from_secs(u64::from(seconds)));
        over.store(true, Ordering::Relaxed);
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .map(|ended| ended.unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked"))))
            .collect()
    });
    let took = begun.elapsed().as_secs_f64();
    ended.into_iter().collect::<Result<()>>()?;
    let done = u32::try_from(done.into_inner())?;
    Ok(f64::from(done) / took)
}
