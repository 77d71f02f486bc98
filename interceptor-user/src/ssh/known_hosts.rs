//! Whether an origin's host key is the one that is known.
//!
//! A line counts where one of its patterns is the target's configured host or the
//! address that is dialled. A revoked key is refused whatever else is said of it; a
//! certificate counts where an authority signed it that a line names, for this host
//! and now. A key of a host of which another key is known has changed, and is
//! refused; a host of which nothing is known is refused as well, unless the target
//! takes it at its first word.
//!
//! A line that cannot be read is skipped, as OpenSSH does.
//!
//! Spec: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use russh::keys::PublicKeyOrCertificate;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, KnownHosts, Marker};
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};

use crate::looker;
use crate::net::Origin;

/// Where the system's are.
pub(crate) const SYSTEM: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];

/// Why a host key is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostKeyFault {
    /// It was revoked.
    #[error("the host key {fingerprint} of {host} is revoked in {place}")]
    Revoked {
        /// Whose.
        host: String,
        /// Which.
        fingerprint: String,
        /// Where that stands.
        place: String,
    },
    /// Another is known.
    #[error(
        "the host key of {host} has changed: it is {fingerprint}, and {place} knows another; \
         somebody may stand in between, or the host was set up anew"
    )]
    Changed {
        /// Whose.
        host: String,
        /// What it is now.
        fingerprint: String,
        /// Where the other stands.
        place: String,
    },
    /// None is known.
    #[error(
        "no host key of {host} is known: it shows {fingerprint}; put it into {place}, or give the \
         target `unknown_host_key: accept_new`"
    )]
    Unknown {
        /// Whose.
        host: String,
        /// What it is.
        fingerprint: String,
        /// Where it would have to stand.
        place: String,
    },
    /// A certificate that does not hold.
    #[error("the host certificate of {host} does not hold: {why}")]
    Certificate {
        /// Whose.
        host: String,
        /// Why not.
        why: String,
    },
    /// A file that is named cannot be read.
    #[error("{place}: {why}")]
    File {
        /// Which.
        place: String,
        /// Why not.
        why: String,
    },
}

/// What is known of a host.
#[derive(Clone, Debug)]
pub struct Known {
    names: Vec<String>,
    entries: Vec<Entry>,
    place: String,
}

/// What a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// It is known.
    Known,
    /// An authority that is known signed it.
    Signed,
    /// Nothing was known, and from now on it is.
    New,
}

impl Known {
    /// Reads what is known of an origin: in the target's file where it has one, else
    /// in the system's; and in what was learned, where that is given.
    ///
    /// # Errors
    /// When the target's file cannot be read.
    pub fn read(
        origin: &Origin,
        host: Option<&str>,
        file: Option<&Path>,
        learned: Option<&Path>,
    ) -> Result<Self, HostKeyFault> {
        let mut entries = Vec::new();
        let whole = |path: &Path| -> std::io::Result<String> {
            // What was learned is the daemon's own.
            match learned == Some(path) {
                true => std::fs::read_to_string(path),
                false => std::io::read_to_string(looker::open(path)?),
            }
        };
        let mut take = |path: &Path, needed: bool| match whole(path) {
            Ok(text) => {
                entries.extend(KnownHosts::new(&text).filter_map(Result::ok));
                Ok(())
            }
            Err(error) if needed => Err(HostKeyFault::File {
                place: path.display().to_string(),
                why: error.to_string(),
            }),
            Err(_) => Ok(()),
        };
        match file {
            Some(file) => take(file, true)?,
            None => SYSTEM
                .iter()
                .try_for_each(|path| take(Path::new(path), false))?,
        }
        if let Some(learned) = learned {
            take(learned, false)?;
        }
        let place = file.map_or_else(|| PathBuf::from(SYSTEM[0]), Path::to_owned);
        Ok(Self::of(origin, host, entries, place.display().to_string()))
    }

    fn of(origin: &Origin, host: Option<&str>, entries: Vec<Entry>, place: String) -> Self {
        let mut names: Vec<String> = host.map(str::to_lowercase).into_iter().collect();
        names.extend(origin.bare());
        let names: Vec<String> = names
            .into_iter()
            .map(|name| match origin.port {
                22 => name,
                port => format!("[{name}]:{port}"),
            })
            .collect();
        let entries = entries
            .into_iter()
            .filter(|entry| {
                names
                    .iter()
                    .any(|name| matches(entry.host_patterns(), name))
            })
            .collect();
        Self {
            names,
            entries,
            place,
        }
    }

    /// Algorithms of the keys that are known, and whether an authority is.
    #[must_use]
    pub fn algorithms(&self) -> (Vec<Algorithm>, bool) {
        let plain = self.entries.iter().filter(|entry| entry.marker().is_none());
        let signed = |entry: &&Entry| entry.marker() == Some(&Marker::CertAuthority);
        (
            plain.map(|entry| entry.public_key().algorithm()).collect(),
            self.entries.iter().any(|entry| signed(&entry)),
        )
    }

    /// Whether a key is the host's, at a time in seconds since 1970.
    ///
    /// # Errors
    /// When it is not, or nothing is known.
    pub fn check(
        &self,
        shown: &PublicKeyOrCertificate,
        now: u64,
    ) -> Result<Verified, HostKeyFault> {
        let key = shown.public_key();
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let host = self.names.first().cloned().unwrap_or_default();
        let place = self.place.clone();
        let is = |entry: &&Entry, marker: Option<Marker>, key: &PublicKey| {
            entry.marker().copied() == marker && entry.public_key().key_data() == key.key_data()
        };
        let revoked = |key: &PublicKey| {
            let mut entries = self.entries.iter();
            entries.any(|entry| is(&entry, Some(Marker::Revoked), key))
        };
        if revoked(&key) {
            return Err(HostKeyFault::Revoked {
                host,
                fingerprint,
                place,
            });
        }
        if let Some(certificate) = shown.certificate() {
            let authority = PublicKey::new(certificate.signature_key().clone(), "");
            if revoked(&authority) {
                return Err(HostKeyFault::Revoked {
                    host,
                    fingerprint: authority.fingerprint(HashAlg::Sha256).to_string(),
                    place,
                });
            }
            let mut entries = self.entries.iter();
            if entries.any(|entry| is(&entry, Some(Marker::CertAuthority), &authority)) {
                return match self.holds(certificate, &authority, now) {
                    Ok(()) => Ok(Verified::Signed),
                    Err(why) => Err(HostKeyFault::Certificate { host, why }),
                };
            }
        }
        let mut plain = self.entries.iter().filter(|entry| entry.marker().is_none());
        if plain.clone().any(|entry| is(&entry, None, &key)) {
            return Ok(Verified::Known);
        }
        if plain.next().is_some() {
            return Err(HostKeyFault::Changed {
                host,
                fingerprint,
                place,
            });
        }
        Err(HostKeyFault::Unknown {
            host,
            fingerprint,
            place,
        })
    }

    fn holds(
        &self,
        certificate: &Certificate,
        authority: &PublicKey,
        now: u64,
    ) -> Result<(), String> {
        if certificate.cert_type() != CertType::Host {
            return Err("it is a user's".to_owned());
        }
        let fingerprint = authority.fingerprint(HashAlg::Sha256);
        certificate
            .validate_at(now, [&fingerprint])
            .map_err(|error| error.to_string())?;
        // Names without their port, as OpenSSH compares them.
        let bare = |name: &str| {
            let name = name.strip_prefix('[').unwrap_or(name);
            name.split("]:").next().unwrap_or(name).to_owned()
        };
        let principals = certificate.valid_principals();
        let mut names = self.names.iter().map(|name| bare(name));
        if names.any(|name| principals.iter().any(|one| glob(one, &name))) {
            return Ok(());
        }
        Err("it is for other hosts".to_owned())
    }

    /// A line for a key of this host's.
    ///
    /// # Errors
    /// When the key cannot be written.
    pub fn line(&self, key: &PublicKey) -> Result<String, russh::keys::ssh_key::Error> {
        Ok(format!("{} {}\n", self.names.join(","), key.to_openssh()?))
    }
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::Patterns(patterns) => {
            let mut found = false;
            for pattern in patterns {
                match pattern.strip_prefix('!') {
                    Some(not) if glob(not, name) => return false,
                    Some(_) => {}
                    None => found |= glob(pattern, name),
                }
            }
            found
        }
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
    }
}

/// `*` and `?`, without case.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(one) if *one == b'?' || one.eq_ignore_ascii_case(byte) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;

    use super::*;

    fn key() -> PublicKey {
        let made = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519);
        made.unwrap().public_key().clone()
    }

    fn known(lines: &str) -> Known {
        let entries = KnownHosts::new(lines).filter_map(Result::ok).collect();
        let origin = &Origin::at("10.0.0.7:22");
        Known::of(origin, Some("build.internal"), entries, "FILE".to_owned())
    }

    fn check(lines: &str, key: &PublicKey) -> Result<Verified, HostKeyFault> {
        known(lines).check(&PublicKeyOrCertificate::from(key.clone()), 0)
    }

    #[test]
    fn a_known_key_is_accepted_by_name_by_address_and_by_pattern() {
        let key = key();
        let text = key.to_openssh().unwrap();
        for name in [
            "build.internal",
            "10.0.0.7",
            "*.internal",
            "x,build.internal",
        ] {
            assert_eq!(
                check(&format!("{name} {text}"), &key),
                Ok(Verified::Known),
                "{name}"
            );
        }
        let not = format!("*.internal,!build.internal {text}");
        assert!(matches!(
            check(&not, &key),
            Err(HostKeyFault::Unknown { .. })
        ));
    }

    #[test]
    fn a_changed_key_is_refused_and_so_is_an_unknown_host() {
        let (old, new) = (key(), key());
        let line = format!("build.internal {}", old.to_openssh().unwrap());
        assert!(matches!(
            check(&line, &new),
            Err(HostKeyFault::Changed { .. })
        ));
        assert!(matches!(check("", &new), Err(HostKeyFault::Unknown { .. })));
        let other = format!("other.internal {}", new.to_openssh().unwrap());
        assert!(matches!(
            check(&other, &new),
            Err(HostKeyFault::Unknown { .. })
        ));
    }

    #[test]
    fn a_revoked_key_is_refused_though_it_is_known() {
        let key = key();
        let text = key.to_openssh().unwrap();
        let lines = format!("build.internal {text}\n@revoked * {text}");
        assert!(matches!(
            check(&lines, &key),
            Err(HostKeyFault::Revoked { .. })
        ));
    }

    #[test]
    fn an_authority_of_users_or_of_other_hosts_is_none_for_this_one() {
        let state = tempfile::tempdir().unwrap();
        let authority = super::super::authority::Authority::open_or_create(state.path()).unwrap();
        let line = authority.known_hosts_line().unwrap();
        let origin = &Origin::at("10.0.0.7:22");
        let (_, certificate) = authority.host_key(origin, None).unwrap();
        let now = certificate.valid_after() + 1;
        let shown = PublicKeyOrCertificate::from(certificate.clone());
        assert_eq!(known(&line).check(&shown, now), Ok(Verified::Signed));
        let late = certificate.valid_before() + 1;
        let refused = known(&line).check(&shown, late);
        assert!(matches!(refused, Err(HostKeyFault::Certificate { .. })));
        let elsewhere = line.replace("@cert-authority *", "@cert-authority *.example.com");
        let refused = known(&elsewhere).check(&shown, now);
        assert!(matches!(refused, Err(HostKeyFault::Unknown { .. })));
    }
}
