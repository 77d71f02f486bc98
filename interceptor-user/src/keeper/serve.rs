//! The keeper's own side: opens the keys, gives up everything else, and signs.
//!
//! It is the side that enforces. Whatever the daemon asks, a certificate is for a server or
//! an SSH host, made now and for a day, and no authority; a server's is for what the local
//! authority is permitted.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::Context as _;
use rcgen::{Issuer, KeyPair, SubjectPublicKeyInfo};
use russh::keys::{PrivateKey, PublicKey};

use super::wire::{Answer, Hello, Plan, Question, Request};
use super::{lock, put, take};
use crate::ssh::authority as ssh;
use crate::tls::authority::{Authority, Names};
use crate::tls::{Permitted, leaf};

/// The longest name of a host, and of what a certificate of SSH's is called.
const LONGEST_NAME: usize = 320;
/// How many names a certificate of SSH's has.
const MOST_NAMES: usize = 8;

/// The keys.
struct Keys {
    issuer: Issuer<'static, KeyPair>,
    permitted: Permitted,
    ssh: PrivateKey,
}

/// Keeps the keys until nobody has the other end of standard input.
///
/// # Errors
/// When there is no daemon at the other end.
pub(crate) fn serve() -> io::Result<()> {
    lock::alone();
    // SAFETY: standard input is open, and nothing else in this process uses it.
    let socket = unsafe { OwnedFd::from_raw_fd(0) };
    let plan: Plan = take(&socket)?;
    let opened = open(&plan);
    let (keys, hello) = match opened {
        Ok((keys, mut hello)) => {
            hello.locked = lock::enter(&plan);
            (keys, hello)
        }
        Err(error) => return put(&socket, &Err::<Hello, _>(format!("{error:#}"))),
    };
    put(&socket, &Ok::<_, String>(hello))?;
    loop {
        let question: Question = match take(&socket) {
            Ok(question) => question,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
            // The daemon is gone.
            Err(_) => return Ok(()),
        };
        let answer = keys
            .answer(question.request)
            .unwrap_or_else(|error| Answer::Refused(format!("{error:#}")));
        put(&socket, &(question.number, answer))?;
    }
}

/// Opens the keys, or makes them.
fn open(plan: &Plan) -> anyhow::Result<(Keys, Hello)> {
    let permitted = Permitted::from_entries(&plan.permitted)
        .context("`ca: permitted` is not names and networks")?;
    let authority = Authority::open_or_create_for(&plan.state_dir, &permitted)
        .context("opening the local certificate authority")?;
    let ssh = ssh::Authority::open_or_create(&plan.state_dir)
        .context("opening the authority for SSH host keys")?;
    let hello = Hello {
        authority: authority.certificate().to_vec(),
        ssh_authority: ssh.public_key().to_openssh()?,
        ..Hello::default()
    };
    let keys = Keys {
        issuer: authority.into_issuer().context("the key is elsewhere")?,
        permitted,
        ssh: ssh.into_key().context("the key is elsewhere")?,
    };
    Ok((keys, hello))
}

impl Keys {
    fn answer(&self, request: Request) -> anyhow::Result<Answer> {
        match request {
            Request::Leaf { names, key } => {
                anyhow::ensure!(is_short(&names), "a name is too long");
                let key = hex::decode(key).context("the key is not hexadecimal")?;
                let key = SubjectPublicKeyInfo::from_der(&key).context("the key is none")?;
                let leaf = leaf::sign(&self.issuer, &self.permitted, &names, &key)?;
                Ok(Answer::Leaf(hex::encode(leaf)))
            }
            Request::Host { key, id, names } => {
                let fine = names.len() <= MOST_NAMES
                    && names
                        .iter()
                        .chain([&id])
                        .all(|name| name.len() <= LONGEST_NAME);
                anyhow::ensure!(fine, "names are too many or too long");
                let key = PublicKey::from_openssh(&key).context("the key is none")?;
                let certificate = ssh::certify(&self.ssh, &key, &id, &names)?;
                Ok(Answer::Host(certificate.to_openssh()?))
            }
        }
    }
}

fn is_short(names: &Names) -> bool {
    [&names.sni, &names.host]
        .into_iter()
        .flatten()
        .all(|name| name.len() <= LONGEST_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(permitted: &[&str]) -> (tempfile::TempDir, Keys) {
        let state = tempfile::tempdir().unwrap();
        let plan = Plan {
            state_dir: state.path().to_owned(),
            permitted: permitted.iter().map(ToString::to_string).collect(),
            capabilities: false,
            seccomp: false,
        };
        let (keys, _) = open(&plan).unwrap();
        (state, keys)
    }

    fn leaf_for(sni: &str) -> Request {
        use rcgen::PublicKeyData as _;
        Request::Leaf {
            names: Names {
                sni: Some(sni.to_owned()),
                address: None,
                host: None,
            },
            key: hex::encode(KeyPair::generate().unwrap().subject_public_key_info()),
        }
    }

    #[test]
    fn a_leaf_is_for_a_server_for_a_day_and_no_authority() {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let (_state, keys) = keys(&["internal"]);
        let Answer::Leaf(der) = keys.answer(leaf_for("db.internal")).unwrap() else {
            panic!("another certificate");
        };
        let der = hex::decode(der).unwrap();
        let (_, leaf) = X509Certificate::from_der(&der).unwrap();
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert!(life <= 25 * 60 * 60, "{life} s");
    }

    #[test]
    fn what_is_not_permitted_is_refused_here_and_not_only_by_whoever_verifies() {
        let (_state, keys) = keys(&["internal"]);
        let refused = keys.answer(leaf_for("bank.example")).unwrap_err();
        assert!(format!("{refused:#}").contains("permitted"), "{refused:#}");
        assert!(keys.answer(leaf_for(&"a".repeat(400))).is_err());
    }

    #[test]
    fn a_certificate_of_ssh_is_a_hosts_and_never_a_users() {
        let (_state, keys) = keys(&[]);
        let key = PrivateKey::random(
            &mut russh::keys::key::safe_rng(),
            russh::keys::Algorithm::Ed25519,
        )
        .unwrap();
        let request = |names: Vec<String>| Request::Host {
            key: key.public_key().to_openssh().unwrap(),
            id: "interceptor for 10.0.0.7:22".to_owned(),
            names,
        };
        let Answer::Host(line) = keys.answer(request(vec!["build".to_owned()])).unwrap() else {
            panic!("another certificate");
        };
        let certificate = russh::keys::Certificate::from_openssh(&line).unwrap();
        assert_eq!(
            certificate.cert_type(),
            russh::keys::ssh_key::certificate::CertType::Host
        );
        assert!(certificate.valid_before() - certificate.valid_after() <= 25 * 60 * 60);
        assert!(keys.answer(request(vec![String::new(); 9])).is_err());
    }
}
