//! Certificates for the tests' servers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::unistd::User;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::place::Place;

/// A server's certificate with its key, and the root that signed it.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The root, PEM.
    pub ca: PathBuf,
    /// The server's certificate, PEM; for `localhost`, 127.0.0.1 and `::1`.
    pub certificate: PathBuf,
    /// Its key, PEM, readable for its owner alone.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes a root of its own, and a certificate of it for `owner` to serve.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new(place: &Place, name: &str, owner: Option<&User>) -> Result<Self> {
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(
            rcgen::DnType::CommonName,
            format!("{name}, the tests' own root"),
        );
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let leaf = CertificateParams::new(names)?.signed_by(&key, &root)?;
        let made = Self {
            ca: place.file(&format!("{name}-ca.pem"), &root.pem())?,
            certificate: place.file(&format!("{name}.pem"), &leaf.pem())?,
            key: place.file(&format!("{name}-key.pem"), &key.serialize_pem())?,
        };
        keep_private(&made.key, owner)?;
        Ok(made)
    }
}

/// Only `owner` may read it: PostgreSQL refuses a key that others can.
fn keep_private(key: &Path, owner: Option<&User>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600))?;
    if let Some(user) = owner {
        std::os::unix::fs::chown(key, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .with_context(|| format!("giving {} to {}", key.display(), user.name))?;
    }
    Ok(())
}
