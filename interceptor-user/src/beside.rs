//! The processes beside the daemon that it cannot do without: whether they are still there.
//!
//! They were started with rights that the daemon gave up since, so it cannot start them anew.

use std::io;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

/// Those that are watched.
#[derive(Debug)]
pub(crate) struct Beside {
    gone: watch::Receiver<Option<&'static str>>,
}

impl Beside {
    /// Watches children of this process, each on a thread of its own.
    pub(crate) fn watch(children: &[(&'static str, u32)]) -> io::Result<Self> {
        let (tell, gone) = watch::channel(None);
        for (name, pid) in children {
            let (name, tell) = (*name, tell.clone());
            let pid = Pid::from_raw(i32::try_from(*pid).map_err(io::Error::other)?);
            std::thread::Builder::new()
                .name("beside".to_owned())
                .spawn(move || {
                    // Not taken away: its number stays its own for whoever has the child.
                    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                    while waitid(Id::Pid(pid), flags) == Err(nix::errno::Errno::EINTR) {}
                    tell.send_replace(Some(name));
                })?;
        }
        Ok(Self { gone })
    }

    /// Waits until one of them has ended; says which.
    pub(crate) async fn gone(&self) -> &'static str {
        let mut gone = self.gone.clone();
        match gone.wait_for(Option::is_some).await.map(|name| *name) {
            Ok(Some(name)) => name,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_that_ended_is_named() {
        let mut stays = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mut ends = std::process::Command::new("true").spawn().unwrap();
        let beside = Beside::watch(&[("stays", stays.id()), ("ends", ends.id())]).unwrap();
        let patience = std::time::Duration::from_secs(10);
        assert_eq!(
            tokio::time::timeout(patience, beside.gone()).await,
            Ok("ends")
        );
        assert!(
            ends.wait().unwrap().success(),
            "it is still there to be waited for"
        );
        stays.kill().unwrap();
        stays.wait().unwrap();
    }
}
