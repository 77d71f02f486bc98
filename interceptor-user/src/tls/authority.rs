//! The local certificate authority that opens agents' TLS.
//!
//! Its key is made on first use, stays on this machine, and is readable by the
//! daemon's user alone; wider permissions are an error and not a warning, since
//! whoever reads the key can be any service to every agent. What it issues lives
//! for a day, is kept in memory only, and shares one key that dies with the
//! process. In the daemon the authority's key is not in this process but in another one
//! ([`crate::keeper`]); commands have it themselves.
//!
//! The folder is made whole beside its place and moved there, so that two
//! starting daemons agree on one authority and a crash leaves none by half.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::permitted::Permitted;
use super::{leaf, provider};
use crate::keeper::{Keeper, KeeperError};

/// How long the authority lives.
const AUTHORITY_LIFE: time::Duration = time::Duration::days(3653);
/// For agents whose clock is behind.
pub(super) const BACKDATED: time::Duration = time::Duration::hours(1);
/// Certificates kept. The name asked for is the agent's to choose, so there must
/// be a bound.
const CACHED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Why there is no authority, or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Others may read the key.
    #[error(
        "{} may be read by others (mode {mode:04o}): whoever reads it can be any service to every agent; \
         `chmod {fix:o}` it if it was never read, or remove its folder so that a new authority is made",
        path.display()
    )]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What its mode should be.
        fix: u32,
    },
    /// There is no authority yet.
    #[error("there is no certificate authority in {} yet; `interceptor ca init` makes one", .0.display())]
    Missing(PathBuf),
    /// The files do not hold a key and its certificate.
    #[error("{}: {fault}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// It was made for other names.
    #[error(
        "the authority in {} is for {made}, and `ca: permitted` says {configured}: remove that folder, \
         and a new one is made, which agents have to be given",
        folder.display()
    )]
    Permitted {
        /// The folder of the authority.
        folder: PathBuf,
        /// What its certificate permits.
        made: String,
        /// What the configuration permits.
        configured: String,
    },
    /// It may not be for any of the names that are asked for.
    #[error("`ca: permitted` has none of the names and addresses that are asked for")]
    NotPermitted,
    /// A certificate could not be made.
    #[error("a certificate could not be issued: {0}")]
    Issue(String),
    /// Who has the key gives none.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// What a certificate is for: everything that an agent may verify.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// The name that the agent asked for.
    pub sni: Option<String>,
    /// The address that it dialled.
    pub address: Option<IpAddr>,
    /// The host that is configured for the target.
    pub host: Option<String>,
}

/// The local certificate authority.
pub struct Authority {
    folder: PathBuf,
    certificate: CertificateDer<'static>,
    signer: Signer,
    leaf_key: KeyPair,
    permitted: Permitted,
    cache: Mutex<Cache>,
}

/// Who has the private key.
enum Signer {
    /// This process.
    Own(Box<Issuer<'static, KeyPair>>),
    /// The keeper, which is asked.
    Kept(Arc<Keeper>),
}

/// What was issued, and when.
type Cache = LruCache<(Names, Alpn), (Instant, Arc<ServerConfig>)>;

/// Protocols that a handshake may agree on.
pub type Alpn = &'static [&'static [u8]];

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority under `state_dir`, for everything, made where there is none.
    ///
    /// # Errors
    /// When it can be neither read nor made, or when others may read its key.
    pub fn open_or_create(state_dir: &Path) -> Result<Self, AuthorityError> {
        Self::open_or_create_for(state_dir, &Permitted::default())
    }

    /// The same, for certain names and addresses alone.
    ///
    /// # Errors
    /// As above, and when it was made for others.
    pub fn open_or_create_for(
        state_dir: &Path,
        permitted: &Permitted,
    ) -> Result<Self, AuthorityError> {
        let opened = match Self::open(state_dir) {
            Err(AuthorityError::Missing(_)) => {
                create(state_dir, permitted)?;
                Self::open(state_dir)
            }
            other => other,
        }?;
        if opened.permitted != *permitted {
            return Err(AuthorityError::Permitted {
                folder: opened.folder,
                made: opened.permitted.to_string(),
                configured: permitted.to_string(),
            });
        }
        Ok(opened)
    }

    /// The authority under `state_dir`.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or others may read its key.
    pub fn open(state_dir: &Path) -> Result<Self, AuthorityError> {
        let folder = state_dir.join("ca");
        let key_path = folder.join("key.pem");
        let certificate_path = folder.join("ca.pem");
        match fs::symlink_metadata(&key_path) {
            Ok(meta) => refuse_wider(&key_path, &meta, 0o600)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(AuthorityError::Missing(folder));
            }
            Err(source) => return Err(at(&key_path)(source)),
        }
        let meta = fs::metadata(&folder).map_err(at(&folder))?;
        refuse_wider(&folder, &meta, 0o700)?;
        let key = Zeroizing::new(fs::read_to_string(&key_path).map_err(at(&key_path))?);
        let pem = fs::read(&certificate_path).map_err(at(&certificate_path))?;
        let unusable = |path: &Path, fault: String| AuthorityError::Unusable {
            path: path.to_owned(),
            fault,
        };
        let key =
            KeyPair::from_pem(&key).map_err(|error| unusable(&key_path, error.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(&pem)
            .map_err(|error| unusable(&certificate_path, error.to_string()))?;
        if !certifies(&certificate, &key) {
            return Err(unusable(
                &certificate_path,
                "it is not the certificate of the key beside it".to_owned(),
            ));
        }
        let permitted = Permitted::of(&certificate).ok_or_else(|| {
            unusable(
                &certificate_path,
                "its name constraints cannot be read".to_owned(),
            )
        })?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| unusable(&certificate_path, error.to_string()))?;
        let leaf_key = KeyPair::generate().map_err(issue)?;
        Ok(Self {
            folder,
            certificate,
            signer: Signer::Own(Box::new(issuer)),
            leaf_key,
            permitted,
            cache: Mutex::new(LruCache::new(CACHED)),
        })
    }

    /// The authority under `state_dir` of which `keeper` has the key.
    ///
    /// # Errors
    /// When its certificate cannot be read.
    pub fn kept(state_dir: &Path, keeper: Arc<Keeper>) -> Result<Self, AuthorityError> {
        let folder = state_dir.join("ca");
        let certificate = keeper.authority();
        let permitted = Permitted::of(&certificate).ok_or_else(|| AuthorityError::Unusable {
            path: folder.join("ca.pem"),
            fault: "its name constraints cannot be read".to_owned(),
        })?;
        Ok(Self {
            folder,
            certificate,
            signer: Signer::Kept(keeper),
            leaf_key: KeyPair::generate().map_err(issue)?,
            permitted,
            cache: Mutex::new(LruCache::new(CACHED)),
        })
    }

    /// Where its key and certificate are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 over its certificate, as browsers and openssl print it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// A handshake's configuration with a certificate for all of `names`.
    ///
    /// # Errors
    /// When none can be issued.
    pub fn server_config(
        &self,
        names: &Names,
        alpn: Alpn,
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let now = Instant::now();
        let key = (names.clone(), alpn);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, config)) = cache.get(&key)
            && now.saturating_duration_since(*made) < leaf::LIFE / 2
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.configure(names, alpn)?);
        cache.put(key, (now, Arc::clone(&config)));
        Ok(config)
    }

    fn configure(&self, names: &Names, alpn: Alpn) -> Result<ServerConfig, AuthorityError> {
        let leaf = self.issue(names)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(issue)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf, self.certificate.clone()], key)
            .map_err(issue)?;
        // PostgreSQL resumes no sessions either; tickets would only cost.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = alpn.iter().map(|&one| one.to_vec()).collect();
        Ok(config)
    }

    fn issue(&self, names: &Names) -> Result<CertificateDer<'static>, AuthorityError> {
        match &self.signer {
            Signer::Own(issuer) => leaf::sign(issuer, &self.permitted, names, &self.leaf_key),
            Signer::Kept(keeper) => {
                let key = self.leaf_key.subject_public_key_info();
                Ok(keeper.leaf(names, &key)?)
            }
        }
    }

    /// The key, for the keeper; `None` where that has it.
    pub(crate) fn into_issuer(self) -> Option<Issuer<'static, KeyPair>> {
        match self.signer {
            Signer::Own(issuer) => Some(*issuer),
            Signer::Kept(_) => None,
        }
    }

    /// Writes what agents need to trust it, readable by everyone: `ca.pem`, the
    /// authority alone, and `ca-bundle.pem`, the system's roots and the authority.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn publish(&self, runtime_dir: &Path) -> Result<Trust, AuthorityError> {
        let trust = Trust::under(runtime_dir);
        fs::create_dir_all(runtime_dir).map_err(at(runtime_dir))?;
        let own = pem(&self.certificate);
        replace(&trust.authority, own.as_bytes())?;
        let mut bundle = String::new();
        for root in rustls_native_certs::load_native_certs().certs {
            bundle.push_str(&pem(&root));
        }
        bundle.push_str(&own);
        replace(&trust.bundle, bundle.as_bytes())?;
        Ok(trust)
    }
}

/// Where agents find whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The local authority alone.
    pub authority: PathBuf,
    /// The system's roots and the local authority.
    pub bundle: PathBuf,
}

impl Trust {
    /// The files under a runtime folder.
    #[must_use]
    pub fn under(runtime_dir: &Path) -> Self {
        Self {
            authority: runtime_dir.join("ca.pem"),
            bundle: runtime_dir.join("ca-bundle.pem"),
        }
    }

    /// Whether both are there.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.authority.is_file() && self.bundle.is_file()
    }

    /// Variables that make the common runtimes and tools trust the authority.
    ///
    /// Those that replace the built-in roots get the bundle, those that add to
    /// them the authority alone. A client with its own idea (a pinned root, Java's
    /// key store) is not reached this way.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        const REPLACING: [&str; 12] = [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "GIT_SSL_CAINFO",
            "HTTPLIB2_CA_CERTS",
            "AWS_CA_BUNDLE",
            "PGSSLROOTCERT",
            "PIP_CERT",
            "CARGO_HTTP_CAINFO",
            "NIX_SSL_CERT_FILE",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
        ];
        const ADDING: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
        let pair = |name: &&str, path: &Path| ((*name).to_owned(), path.display().to_string());
        REPLACING
            .iter()
            .map(|name| pair(name, &self.bundle))
            .chain(ADDING.iter().map(|name| pair(name, &self.authority)))
            .collect()
    }
}

/// SHA-256 over a certificate: pairs of hex digits between colons.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate);
    let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// Makes an authority under `state_dir`, unless another process was first.
fn create(state_dir: &Path, permitted: &Permitted) -> Result<(), AuthorityError> {
    fs::create_dir_all(state_dir).map_err(at(state_dir))?;
    let key = KeyPair::generate().map_err(issue)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = permitted.constraints();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + AUTHORITY_LIFE;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Interceptor");
    // Two authorities of one name confuse whoever trusts both.
    let id = hex::encode(
        Sha256::digest(key.public_key_raw())
            .get(..4)
            .unwrap_or_default(),
    );
    subject.push(
        DnType::CommonName,
        format!("Interceptor local authority {id}"),
    );
    params.distinguished_name = subject;
    let certificate = params.self_signed(&key).map_err(issue)?;

    let beside = state_dir.join(format!(".ca.{}", uuid::Uuid::now_v7().simple()));
    let made = (|| {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&beside)
            .map_err(at(&beside))?;
        let secret = Zeroizing::new(key.serialize_pem());
        write_new(&beside.join("key.pem"), secret.as_bytes(), 0o600)?;
        write_new(
            &beside.join("ca.pem"),
            pem(certificate.der()).as_bytes(),
            0o644,
        )
    })();
    let folder = state_dir.join("ca");
    let moved = made.and_then(|()| match fs::rename(&beside, &folder) {
        Ok(()) => {
            // The name must be on disk before anything trusts the authority.
            fs::File::open(state_dir)
                .and_then(|dir| dir.sync_all())
                .map_err(at(state_dir))
        }
        // Moving onto a folder that is not empty fails: another was first.
        Err(_) if folder.join("key.pem").exists() => Ok(()),
        Err(source) => Err(at(&folder)(source)),
    });
    let _ = fs::remove_dir_all(&beside);
    moved
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(at(path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(at(path))
}

/// Puts a world-readable file in place whole, or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(at(path))?;
    file.write_all(bytes).map_err(at(path))?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .map_err(at(path))?;
    file.persist(path).map_err(|error| at(path)(error.error))?;
    Ok(())
}

fn refuse_wider(path: &Path, meta: &fs::Metadata, fix: u32) -> Result<(), AuthorityError> {
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(AuthorityError::Exposed {
            path: path.to_owned(),
            mode,
            fix,
        });
    }
    Ok(())
}

/// Whether the certificate carries the key's public half.
fn certifies(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        parsed.public_key().subject_public_key.as_ref() == key.public_key_raw()
    })
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut out = String::with_capacity(text.len() + 80);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    for (at, one) in text.chars().enumerate() {
        if at != 0 && at % 64 == 0 {
            out.push('\n');
        }
        out.push(one);
    }
    out.push_str("\n-----END CERTIFICATE-----\n");
    out
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File { path, source }
}

pub(super) fn issue(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Issue(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_use_makes_an_authority_and_the_next_finds_it() {
        let state = tempfile::tempdir().unwrap();
        let first = Authority::open_or_create(state.path()).unwrap();
        let second = Authority::open_or_create(state.path()).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        let mode = |name: &str| fs::metadata(state.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode("ca/key.pem"), 0o600);
        assert_eq!(mode("ca"), 0o700);
        let left: Vec<_> = fs::read_dir(state.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing is left beside it: {left:?}");
    }

    #[test]
    fn daemons_that_start_together_agree_on_one_authority() {
        let state = tempfile::tempdir().unwrap();
        let made: Vec<String> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        Authority::open_or_create(state.path())
                            .unwrap()
                            .fingerprint()
                    })
                })
                .collect();
            starts.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    }

    #[test]
    fn a_constrained_authority_is_believed_for_what_it_permits_and_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        let mut permitted = Permitted::default();
        assert!(permitted.add("internal") && permitted.add("10.0.0.0/8"));
        let ours = Authority::open_or_create_for(state.path(), &permitted).unwrap();
        let again = Authority::open_or_create_for(state.path(), &permitted).unwrap();
        assert_eq!(ours.fingerprint(), again.fingerprint());
        let other = Authority::open_or_create(state.path());
        assert!(matches!(other, Err(AuthorityError::Permitted { .. })));
        let names = |sni: &str, address: [u8; 4]| Names {
            sni: Some(sni.to_owned()),
            address: Some(address.into()),
            host: None,
        };
        // openssl judges, not we: with what is issued, and with what a thief of the key
        // would issue.
        let verify = |leaf: &CertificateDer<'_>| {
            let file = state.path().join("leaf.pem");
            fs::write(&file, pem(leaf)).unwrap();
            let done = std::process::Command::new("openssl")
                .args(["verify", "-CAfile"])
                .args([&state.path().join("ca/ca.pem"), &file])
                .output()
                .unwrap();
            done.status.success()
        };
        let fine = ours.issue(&names("a.internal", [10, 0, 0, 1])).unwrap();
        assert!(verify(&fine));
        // Of two, only what is permitted stands in it.
        let half = ours.issue(&names("a.internal", [192, 0, 2, 1])).unwrap();
        assert!(verify(&half));
        let none = ours.issue(&names("bank.example", [192, 0, 2, 1]));
        assert!(matches!(none, Err(AuthorityError::NotPermitted)));
        let mut thief = Authority::open(state.path()).unwrap();
        thief.permitted = Permitted::default();
        for stolen in [
            names("bank.example", [10, 0, 0, 1]),
            names("a.internal", [192, 0, 2, 1]),
        ] {
            assert!(!verify(&thief.issue(&stolen).unwrap()), "{stolen:?}");
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let state = tempfile::tempdir().unwrap();
        Authority::open_or_create(state.path()).unwrap();
        let key = state.path().join("ca/key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Authority::open_or_create(state.path()).unwrap_err();
        assert!(
            matches!(error, AuthorityError::Exposed { mode: 0o640, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::open_or_create(one.path()).unwrap();
        Authority::open_or_create(other.path()).unwrap();
        fs::copy(other.path().join("ca/ca.pem"), one.path().join("ca/ca.pem")).unwrap();
        let error = Authority::open(one.path()).unwrap_err();
        assert!(matches!(error, AuthorityError::Unusable { .. }), "{error}");
    }

    #[test]
    fn a_certificate_is_for_everything_that_an_agent_may_verify() {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(state.path()).unwrap();
        let leaf = authority
            .issue(&Names {
                sni: Some("db.test".to_owned()),
                address: "10.1.2.3".parse().ok(),
                host: Some("orders.internal".to_owned()),
            })
            .unwrap();
        let roots = super::super::verify::Roots::new(vec![authority.certificate.clone()]);
        let roots = Arc::new(roots);
        for name in ["db.test", "orders.internal", "10.1.2.3", "other.test"] {
            let verifier = super::super::verify::Verifier::new(
                crate::config::TlsMode::VerifyFull,
                Arc::clone(&roots),
            );
            let passes = rustls::client::danger::ServerCertVerifier::verify_server_cert(
                &verifier,
                &leaf,
                &[],
                &name.to_owned().try_into().unwrap(),
                &[],
                rustls::pki_types::UnixTime::now(),
            );
            assert_eq!(passes.is_ok(), name != "other.test", "{name}");
        }
    }

    #[test]
    fn the_name_an_agent_chooses_cannot_fill_the_memory() {
        let state = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(state.path()).unwrap();
        for number in 0..CACHED.get() + 50 {
            authority
                .server_config(
                    &Names {
                        sni: Some(format!("n{number}.test")),
                        address: "127.0.0.1".parse().ok(),
                        host: None,
                    },
                    &[],
                )
                .unwrap();
        }
        assert_eq!(authority.cache.lock().unwrap().len(), CACHED.get());
    }

    #[test]
    fn agents_can_read_whom_to_trust() {
        let (state, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::open_or_create(state.path()).unwrap();
        let trust = authority.publish(runtime.path()).unwrap();
        for path in [&trust.authority, &trust.bundle] {
            let certificates = CertificateDer::pem_file_iter(path)
                .unwrap()
                .collect::<Result<Vec<_>, _>>()
                .unwrap();
            assert_eq!(certificates.last(), Some(authority.certificate()));
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o644);
        }
    }
}
