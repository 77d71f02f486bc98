//! The host keys that agents are shown, and the authority that signs them.
//!
//! One key for each origin, made when it is first needed and kept, so that an agent
//! sees the same key each time; each with a certificate of the local authority's, so
//! that an agent that trusts the authority has to know no key at all. The private
//! halves are in the state folder, for the daemon alone; the authority's own is opened by
//! its keeper only ([`crate::keeper`]).
//!
//! Spec: OpenSSH's `PROTOCOL.certkeys`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use sha2::{Digest as _, Sha256};

use crate::keeper::{Keeper, KeeperError};
use crate::net::Origin;

/// How long a certificate holds. It is made anew for every connection.
const VALID: u64 = 24 * 60 * 60;
/// Clocks differ.
const BEFORE: u64 = 60 * 60;

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read a key.
    #[error("{} may be read by others (mode {mode:04o}): whoever reads it can be any host to every agent", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A key.
    #[error("{}: {source}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: russh::keys::ssh_key::Error,
    },
    /// A certificate could not be made.
    #[error("a host certificate could not be issued: {0}")]
    Issue(#[from] russh::keys::ssh_key::Error),
    /// Who has the authority's key gives none.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// The authority.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    public: PublicKey,
    signer: Signer,
}

/// Who has the private key.
#[derive(Debug)]
enum Signer {
    /// This process.
    Own(Box<PrivateKey>),
    /// The keeper, which is asked.
    Kept(Arc<Keeper>),
}

impl Authority {
    /// The authority under `state_dir`, made where there is none.
    ///
    /// # Errors
    /// When it can be neither read nor made, or others may read its key.
    pub fn open_or_create(state_dir: &Path) -> Result<Self, HostKeyError> {
        make_room(state_dir)?;
        let folder = hosts(state_dir);
        let key = key_at(&state_dir.join("ssh/ca"))?;
        Ok(Self {
            folder,
            public: key.public_key().clone(),
            signer: Signer::Own(Box::new(key)),
        })
    }

    /// The authority under `state_dir` of which `keeper` has the key.
    ///
    /// # Errors
    /// When the keeper did not say its public half.
    pub fn kept(state_dir: &Path, keeper: Arc<Keeper>) -> Result<Self, HostKeyError> {
        Ok(Self {
            folder: hosts(state_dir),
            public: keeper.ssh_authority()?,
            signer: Signer::Kept(keeper),
        })
    }

    /// Its public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The key, for the keeper; `None` where that has it.
    pub(crate) fn into_key(self) -> Option<PrivateKey> {
        match self.signer {
            Signer::Own(key) => Some(*key),
            Signer::Kept(_) => None,
        }
    }

    /// Its public half, as a line of `known_hosts` has it.
    ///
    /// # Errors
    /// When it cannot be written so.
    pub fn known_hosts_line(&self) -> Result<String, HostKeyError> {
        let key = self.public.to_openssh()?;
        Ok(format!("@cert-authority * {key}\n"))
    }

    /// Writes what agents need to trust it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn publish(&self, runtime_dir: &Path) -> Result<PathBuf, HostKeyError> {
        let path = known_hosts_of_agents(runtime_dir);
        let line = self.known_hosts_line()?;
        let wrong = |source| HostKeyError::File {
            path: path.clone(),
            source,
        };
        fs::write(&path, line).map_err(wrong)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(wrong)?;
        Ok(path)
    }

    /// The key that stands for an origin, and its certificate. `host` is the name
    /// that is configured for it.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub fn host_key(
        &self,
        origin: &Origin,
        host: Option<&str>,
    ) -> Result<(PrivateKey, Certificate), HostKeyError> {
        let key = key_at(&self.folder.join(file_of(origin)))?;
        let id = format!("interceptor for {origin}");
        let names: Vec<String> = host
            .map(str::to_owned)
            .into_iter()
            .chain(origin.bare())
            .collect();
        let certificate = match &self.signer {
            Signer::Own(own) => certify(own, key.public_key(), &id, &names)?,
            Signer::Kept(keeper) => keeper.host(key.public_key(), &id, &names)?,
        };
        Ok((key, certificate))
    }

    /// Hosts that were taken at their first word.
    pub(super) fn learned(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }
}

/// Where keys of origins are, and what was learned of hosts: not beside the authority's own
/// key, which is not for whoever needs these.
fn hosts(state_dir: &Path) -> PathBuf {
    state_dir.join("ssh/hosts")
}

/// Makes that folder, and moves there what an earlier version had beside the authority's key.
///
/// # Errors
/// When it cannot be made, or something cannot be moved.
pub fn make_room(state_dir: &Path) -> Result<(), HostKeyError> {
    let folder = hosts(state_dir);
    let wrong = |source| HostKeyError::File {
        path: folder.clone(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(wrong)?;
    for entry in fs::read_dir(state_dir.join("ssh")).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let to = folder.join(&name);
        if (text.starts_with("host-") || text == "known_hosts") && !to.exists() {
            match fs::rename(entry.path(), &to) {
                // Another process was first.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                moved => moved.map_err(wrong)?,
            }
        }
    }
    Ok(())
}

/// A certificate for a host's key: for a day, and for nothing else than a host.
pub(crate) fn certify(
    authority: &PrivateKey,
    key: &PublicKey,
    id: &str,
    names: &[String],
) -> Result<Certificate, russh::keys::ssh_key::Error> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut builder = Builder::new_with_random_nonce(
        &mut russh::keys::key::safe_rng(),
        key,
        now.saturating_sub(BEFORE),
        now + VALID,
    )?;
    builder.cert_type(CertType::Host)?;
    builder.key_id(id)?;
    // By which name the agent calls it is not known here: it may be an alias of
    // the agent's own. OpenSSH takes a pattern; others take a name.
    builder.valid_principal("*")?;
    for name in names {
        builder.valid_principal(name)?;
    }
    builder.sign(authority)
}

/// Where agents find the authority.
#[must_use]
pub fn known_hosts_of_agents(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("ssh_known_hosts")
}

/// Where an origin's key is kept. What an agent calls a machine behind another is no
/// name for a file.
fn file_of(origin: &Origin) -> String {
    match origin.here() {
        Some(address) => {
            let host = address.ip().to_canonical().to_string();
            format!("host-{}-{}", host.replace(':', "_"), address.port())
        }
        None => {
            let digest = Sha256::digest(origin.to_string());
            format!("host-via-{}", hex::encode(digest))
        }
    }
}

/// The key in a file; made where there is none.
fn key_at(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let file = |source| HostKeyError::File {
        path: path.to_owned(),
        source,
    };
    let wrong = |source| HostKeyError::Key {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(meta) => {
            let mode = meta.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(HostKeyError::Exposed {
                    path: path.to_owned(),
                    mode,
                });
            }
            let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(file)?);
            return PrivateKey::from_openssh(text.as_bytes()).map_err(wrong);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    let key =
        PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(wrong)?;
    let text = key.to_openssh(LineEnding::LF).map_err(wrong)?;
    // Whole or not at all, and the first of two that make it at once.
    let draft = path.with_extension(uuid::Uuid::now_v7().to_string());
    let mut open = fs::OpenOptions::new();
    open.write(true).create_new(true).mode(0o600);
    let mut made = open.open(&draft).map_err(file)?;
    made.write_all(text.as_bytes()).map_err(file)?;
    made.sync_all().map_err(file)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(file)?;
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(file)?);
            PrivateKey::from_openssh(text.as_bytes()).map_err(wrong)
        }
        Err(error) => Err(file(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_keeps_its_key_and_the_authority_signs_it() {
        let state = tempfile::tempdir().unwrap();
        let origin = &Origin::at("10.0.0.7:22");
        let first = Authority::open_or_create(state.path()).unwrap();
        let (key, _) = first.host_key(origin, Some("build.internal")).unwrap();
        let again = Authority::open_or_create(state.path()).unwrap();
        let (same, certificate) = again.host_key(origin, Some("build.internal")).unwrap();
        assert_eq!(key.public_key(), same.public_key());
        let other = again.host_key(&Origin::at("10.0.0.7:23"), None).unwrap();
        assert_ne!(key.public_key(), other.0.public_key());
        certificate.verify_signature().unwrap();
        assert_eq!(certificate.signature_key(), first.public.key_data());
        assert_eq!(certificate.cert_type(), CertType::Host);
        let names = certificate.valid_principals();
        assert!(names.iter().any(|name| name == "build.internal"));
    }

    #[test]
    fn a_key_that_others_may_read_is_not_used() {
        let state = tempfile::tempdir().unwrap();
        let _ = Authority::open_or_create(state.path()).unwrap();
        let path = state.path().join("ssh/ca");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Authority::open_or_create(state.path());
        assert!(matches!(refused, Err(HostKeyError::Exposed { .. })));
    }
}
