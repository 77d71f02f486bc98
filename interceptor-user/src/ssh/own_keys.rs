//! Keys for logging on that are nobody's secret for long, and agents' own.
//!
//! Where a target has an `authority`, every session logs on with a key of its own that
//! exists in memory alone, and a certificate of that authority's for it: who acts and in
//! which session stands in the server's log, and there is no key to steal that opens
//! anything a few minutes later.
//!
//! Spec: OpenSSH's `PROTOCOL.certkeys` and sshd(8), "AUTHORIZED_KEYS FILE FORMAT".

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use russh::keys::ssh_key::AuthorizedKeys;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};

/// How long a certificate holds, in seconds. A server looks at it when it is used to log
/// on, and never again.
const VALID: u64 = 5 * 60;
/// Clocks differ, by so many seconds.
const BEFORE: u64 = 5 * 60;
/// What sshd lets a certificate's holder do beside running commands; what an agent may of
/// it, the rules say.
const EXTENSIONS: [&str; 5] = [
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
];

/// A key for one session, and its certificate for `user`. `session` names the session
/// and who acts in it.
///
/// # Errors
/// When the authority cannot sign.
pub(super) fn for_session(
    authority: &PrivateKey,
    user: &str,
    session: &str,
) -> anyhow::Result<(PrivateKey, Certificate)> {
    let random = &mut russh::keys::key::safe_rng();
    let key = PrivateKey::random(random, Algorithm::Ed25519)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut builder = Builder::new_with_random_nonce(
        random,
        key.public_key(),
        now.saturating_sub(BEFORE),
        now + VALID,
    )?;
    builder.cert_type(CertType::User)?;
    builder.key_id(session)?;
    builder.valid_principal(user)?;
    for extension in EXTENSIONS {
        builder.extension(extension, "")?;
    }
    Ok((key, builder.sign(authority)?))
}

/// Reads the keys of agents' own that a target takes.
///
/// # Errors
/// When the file cannot be read, or a line says more than is kept here: options would
/// be a promise that nobody keeps.
pub(super) fn listed(path: &Path) -> anyhow::Result<Vec<PublicKey>> {
    let place = || format!("reading {}", path.display());
    let text = crate::looker::open(path)
        .and_then(std::io::read_to_string)
        .with_context(place)?;
    AuthorizedKeys::new(&text)
        .map(|entry| {
            let entry = entry.with_context(place)?;
            ensure!(
                entry.config_opts().is_empty(),
                "{}: options of a key are not supported; a line has a key, and no word before it",
                path.display()
            );
            Ok(entry.public_key().clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_certificate_is_for_one_user_and_soon_of_no_use() {
        let random = &mut russh::keys::key::safe_rng();
        let authority = PrivateKey::random(random, Algorithm::Ed25519).unwrap();
        let (key, certificate) = for_session(&authority, "ci", "coder in 0190").unwrap();
        assert_eq!(certificate.valid_principals(), ["ci"]);
        assert_eq!(certificate.key_id(), "coder in 0190");
        assert_eq!(certificate.public_key(), key.public_key().key_data());
        assert_eq!(
            certificate.signature_key(),
            authority.public_key().key_data()
        );
        let lasts = certificate.valid_before() - certificate.valid_after();
        assert_eq!(lasts, VALID + BEFORE);
        let (other, _) = for_session(&authority, "ci", "x").unwrap();
        assert_ne!(other.public_key(), key.public_key());
    }

    #[test]
    fn a_line_with_options_is_not_taken_for_one_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let random = &mut russh::keys::key::safe_rng();
        let key = PrivateKey::random(random, Algorithm::Ed25519).unwrap();
        let line = key.public_key().to_openssh().unwrap();
        std::fs::write(&path, format!("# whose\n{line}\n")).unwrap();
        assert_eq!(listed(&path).unwrap(), [key.public_key().clone()]);
        std::fs::write(&path, format!("command=\"true\" {line}\n")).unwrap();
        assert!(listed(&path).is_err());
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(listed(&path).is_err());
    }
}
