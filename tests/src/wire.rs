//! A wire out of this machine, and somebody who sees every frame on it.
//!
//! Two network namespaces, joined by a veth pair. In the first are the thread that made it
//! and everything that it starts: Interceptor, agents, servers. In the second, *outside*,
//! a packet socket notes what arrives. Outside answers to all of `198.18.1.0/24` and
//! `2001:db8:78::/64`, so that each attempt has an address of its own.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::eventually;

/// This side's device.
pub const DEVICE: &str = "ways0";
/// This side's address.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Where what only separates frames is sent to.
const FENCE: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 250);
const FENCE_PORT: u16 = 9;
const PATIENCE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;
type Frames = Arc<Mutex<Vec<Vec<u8>>>>;

/// See the module.
#[derive(Debug)]
pub struct Wire {
    outside: Sender<Job>,
    frames: Frames,
    fences: AtomicU32,
}

impl Wire {
    /// Takes this thread, and what it starts from here on, into a network namespace of its
    /// own with a wire out of it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        // Not its mounts: what asks `/sys` for devices sees those from before.
        own_network()?;
        ip("link set lo up")?;
        let (outside, jobs) = channel::<Job>();
        let (said, known) = channel();
        std::thread::spawn(move || {
            let made = own_network().map(|()| nix::unistd::gettid().as_raw());
            let _ = said.send(made);
            for job in jobs {
                job();
            }
        });
        let there = known.recv()??;
        ip(&format!("link add {DEVICE} type veth peer name ways1"))?;
        ip(&format!("link set ways1 netns {there}"))?;
        let wire = Self {
            outside,
            frames: Arc::default(),
            fences: AtomicU32::new(0),
        };
        let frames = Arc::clone(&wire.frames);
        let address = wire.outside(move || -> Result<String> {
            // Nothing of this kernel's own: addresses are not asked for.
            for line in [
                "link set lo up",
                "link set ways1 up",
                "addr add 198.18.0.254/24 dev ways1",
                "route add local 198.18.1.0/24 dev lo",
                "-6 addr add 2001:db8:77::fe/64 dev ways1 nodad",
                "-6 route add local 2001:db8:78::/64 dev lo",
            ] {
                ip(line)?;
            }
            listen(frames)?;
            mac("ways1")
        })??;
        for line in [
            format!("link set {DEVICE} up"),
            format!("addr add {INSIDE}/24 dev {DEVICE}"),
            format!("-6 addr add 2001:db8:77::1/64 dev {DEVICE} nodad"),
            format!("neigh add 198.18.0.254 lladdr {address} dev {DEVICE} nud permanent"),
            "route add 198.18.1.0/24 via 198.18.0.254".to_owned(),
            format!("-6 neigh add 2001:db8:77::fe lladdr {address} dev {DEVICE} nud permanent"),
            "-6 route add 2001:db8:78::/64 via 2001:db8:77::fe".to_owned(),
            format!("-6 neigh add fe80::78 lladdr {address} dev {DEVICE} nud permanent"),
        ] {
            ip(&line)?;
        }
        // The device is up when its first frame passes.
        eventually("the wire", PATIENCE, || wire.settle().map(|()| true))?;
        Ok(wire)
    }

    /// Does something outside, and gives what came of it.
    ///
    /// # Errors
    /// When the thread there is gone.
    pub fn outside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (said, known) = channel();
        let job: Job = Box::new(move || {
            let _ = said.send(job());
        });
        self.outside.send(job).ok().context("outside is gone")?;
        known.recv().context("outside is gone")
    }

    /// Waits until everything that was sent before has been seen.
    ///
    /// # Errors
    /// When a frame of its own does not arrive.
    pub fn settle(&self) -> Result<()> {
        let number = self.fences.fetch_add(1, Ordering::Relaxed);
        let word = format!("fence {number:08}");
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(word.as_bytes(), (FENCE, FENCE_PORT))?;
        eventually("a frame of our own", PATIENCE, || {
            Ok(self
                .frames()
                .iter()
                .any(|frame| holds(frame, word.as_bytes())))
        })
    }

    /// How many frames were seen so far in which an address stands, in the header or
    /// behind it.
    #[must_use]
    pub fn seen(&self, address: IpAddr) -> usize {
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        self.frames()
            .iter()
            .filter(|one| holds(one, &bytes))
            .count()
    }

    /// The frames that are neither our own nor the kernel's housekeeping.
    #[must_use]
    pub fn strays(&self) -> Vec<Vec<u8>> {
        let own = |frame: &[u8]| holds(frame, &FENCE.octets()) && holds(frame, b"fence ");
        self.frames()
            .iter()
            .filter(|frame| !own(frame) && !is_housekeeping(frame))
            .cloned()
            .collect()
    }

    fn frames(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports of the groups that every host is in.
fn is_housekeeping(frame: &[u8]) -> bool {
    let all_routers: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];
    frame.get(24..40) == Some(&all_routers) && !holds(frame, &[0xff, 5])
}

fn holds(frame: &[u8], needle: &[u8]) -> bool {
    frame.windows(needle.len()).any(|window| window == needle)
}

/// Makes a network namespace for this thread alone.
fn own_network() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("making a network namespace")
}

fn ip(line: &str) -> Result<()> {
    let done = Command::new("ip")
        .args(line.split_whitespace())
        .output()
        .context("starting ip (package iproute2)")?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr).into_owned();
        bail!("ip {line}: {why}");
    }
    Ok(())
}

/// The hardware address of a device.
fn mac(device: &str) -> Result<String> {
    let done = Command::new("ip")
        .args(["-o", "link", "show", device])
        .output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let mut words = text.split_whitespace();
    words.find(|word| *word == "link/ether");
    Ok(words.next().context("a hardware address")?.to_owned())
}

/// Notes every frame that arrives in this thread's namespace.
fn listen(frames: Frames) -> Result<()> {
    let all = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: numbers alone.
    let made = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, all) };
    if made < 0 {
        return Err(std::io::Error::last_os_error()).context("opening a packet socket");
    }
    // SAFETY: the kernel has just made it for this process.
    let socket = unsafe { OwnedFd::from_raw_fd(made) };
    std::thread::spawn(move || {
        let mut frame = [0u8; 2048];
        loop {
            // SAFETY: plain data, of which zeros are a value.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: both are valid for writing, for the lengths that are given.
            let got = unsafe {
                libc::recvfrom(
                    socket.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            let Ok(got) = usize::try_from(got) else {
                return;
            };
            let frame = frame.get(..got).unwrap_or_default();
            let kind = i32::from(u16::from_be(from.sll_protocol));
            // `PACKET_OUTGOING`, and what `lo` carries, is this side's.
            if from.sll_pkttype == 4 || from.sll_ifindex == 1 || is_discovery(kind, frame) {
                continue;
            }
            frames
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(frame.to_vec());
        }
    });
    Ok(())
}

/// What looks for neighbours is no packet of anybody's.
fn is_discovery(kind: i32, frame: &[u8]) -> bool {
    match kind {
        libc::ETH_P_IP => false,
        libc::ETH_P_IPV6 => frame.get(6) == Some(&58) && matches!(frame.get(40), Some(133..=137)),
        _ => true,
    }
}
