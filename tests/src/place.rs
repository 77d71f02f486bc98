//! A folder that goes when its owner goes, however it went.
//!
//! A daemon that is killed leaves mounts, pins and cgroups, and a test that is
//! killed runs no destructor. So a janitor process waits for the end of a pipe
//! that only the owner holds open, and then cleans up.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

/// What the janitor does once its input ends. `$1` is the folder, `$2` the name
/// that cgroups made for it begin with. Mounts below go first, or the removal
/// would reach into them.
const JANITOR: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
sleep 1
case "$1" in /tmp/interceptor-?*) ;; *) exit 1 ;; esac
awk -v at="$1/" 'index($2, at) == 1 { print $2 }' /proc/self/mounts | sort -r |
    while read -r mount; do umount -l "$mount"; done
awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts | while read -r root; do
    for group in "$root"/"$2"*; do
        [ -d "$group" ] || continue
        echo 1 >"$group/cgroup.kill"
        sleep 0.2
        find "$group" -depth -type d -exec rmdir {} +
    done
done
rm -rf "$1"
"#;

/// A folder below `/tmp` (short, since paths of Unix sockets must be; readable
/// for other users, since servers and agents run as such), and a unique name.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    name: String,
    janitor: Child,
}

impl Place {
    /// A new one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "interceptor-t{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = Path::new("/tmp").join(&name);
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "janitor"])
            .arg(&folder)
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the janitor")?;
        Ok(Self {
            folder,
            name,
            janitor,
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A name that nothing else on this machine has; cgroups whose names begin
    /// with it are removed in the end.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// A new folder inside.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file that other users can read; gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.write(name, text, 0o644)
    }

    /// Writes a file that only its owner can read; gives its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn private_file(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.write(name, text, 0o600)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Servers that live here have been dropped before (field order), so the
        // janitor finds nothing running; waiting for it keeps /tmp clean in order.
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// A TCP port on loopback that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
