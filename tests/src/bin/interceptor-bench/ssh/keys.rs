//! How long a key takes to show: one is sent, and what it shows is waited for.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use russh::client::{self, Msg};
use russh::{Channel, ChannelMsg};

use super::relay::{AnyKey, To};
use super::roads::{Field, Road};

/// Keys of a line of a shell's; then another begins.
const LINE: usize = 40;
/// Keys before it is measured.
const WARM: usize = 20;
/// How long output is quiet when a prompt is there.
const QUIET: Duration = Duration::from_millis(300);

/// Where keys are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// To `cat` on a terminal that does not echo by itself.
    Cat,
    /// To the lines of a shell, which are read and not entered.
    Shell,
}

/// All of them.
pub(super) const ALL: &[What] = &[What::Cat, What::Shell];

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cat => "echo of a key by cat",
            Self::Shell => "echo of a key by a shell",
        }
    }
}

/// How long it took over a road, in µs.
pub(super) struct Echo {
    pub(super) what: What,
    pub(super) road: Road,
    p50: f64,
    pub(super) p99: f64,
}

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, road) = (self.what.name(), self.road);
        let (p50, p99) = (self.p50, self.p99);
        write!(
            f,
            "{what}, {road:13} {p50:>8.0} µs at the median, {p99:>8.0} µs at the 99th percentile"
        )
    }
}

/// Measures every road; in turn, so that a slow minute hurts all alike.
pub(super) fn measure(field: &Field, what: What, times: usize) -> Result<Vec<Echo>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut desks = Vec::new();
        for road in field.roads() {
            let desk = Desk::open(field, road, what).await;
            match desk {
                Ok(desk) => desks.push((road, desk, Vec::new())),
                Err(error) => println!("{}  {road}: FAILED: {error:#}", what.name()),
            }
        }
        for time in 0..times + WARM {
            let mut left = Vec::new();
            for (road, mut desk, mut taken) in desks {
                match desk.next(what, time).await {
                    Ok(took) => {
                        if time >= WARM {
                            taken.push(took);
                        }
                        left.push((road, desk, taken));
                    }
                    // A road that fails is left out from then on, and the others go on.
                    Err(error) => println!("{}  {road}: FAILED: {error:#}", what.name()),
                }
            }
            desks = left;
        }
        Ok(desks
            .into_iter()
            .map(|(road, _, mut taken)| {
                taken.sort_by(f64::total_cmp);
                let at = |part: usize| {
                    let index = taken.len() * part / 100;
                    taken.get(index.min(taken.len().saturating_sub(1)))
                };
                Echo {
                    what,
                    road,
                    p50: at(50).copied().unwrap_or_default(),
                    p99: at(99).copied().unwrap_or_default(),
                }
            })
            .collect())
    })
}

struct Desk {
    _client: client::Handle<AnyKey>,
    channel: Channel<Msg>,
}

impl Desk {
    async fn open(field: &Field, road: Road, what: What) -> Result<Self> {
        let client = To::new(field.sshd(), field.port(road)?)?.client().await?;
        let channel = client.channel_open_session().await?;
        channel
            .request_pty(true, "xterm", 80, 24, 0, 0, &[])
            .await?;
        match what {
            What::Cat => channel.exec(true, "stty raw -echo; exec cat").await?,
            What::Shell => channel.request_shell(true).await?,
        }
        let mut desk = Self {
            _client: client,
            channel,
        };
        if what == What::Cat {
            // Until the terminal is as it was told to be, it shows a key twice.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        desk.rest().await?;
        Ok(desk)
    }

    /// Reads until nothing more comes.
    async fn rest(&mut self) -> Result<()> {
        while let Ok(said) = tokio::time::timeout(QUIET, self.channel.wait()).await {
            if said.is_none() {
                bail!("the channel is closed");
            }
        }
        Ok(())
    }

    /// Sends the next key.
    async fn next(&mut self, what: What, time: usize) -> Result<f64> {
        if what == What::Shell && time % LINE == LINE - 1 {
            self.another_line().await?;
        }
        self.key(b'a' + u8::try_from(time % 26)?).await
    }

    /// Takes the line back, and waits for a prompt.
    async fn another_line(&mut self) -> Result<()> {
        self.channel.data(&b"\x03"[..]).await?;
        self.rest().await
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a time needs no more digits than a float has"
    )]
    async fn key(&mut self, key: u8) -> Result<f64> {
        let start = Instant::now();
        self.channel.data(&[key][..]).await?;
        loop {
            let wait = tokio::time::timeout(Duration::from_secs(10), self.channel.wait());
            match wait.await.context("it never showed")? {
                Some(ChannelMsg::Data { data }) if data.contains(&key) => {
                    return Ok(start.elapsed().as_nanos() as f64 / 1000.0);
                }
                Some(ChannelMsg::Close) | None => bail!("the channel is closed"),
                Some(_) => {}
            }
        }
    }
}
