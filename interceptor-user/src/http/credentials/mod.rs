//! What requests to a target are sent with, that the agent never has.
//!
//! * [`aws`] signs requests anew;
//! * [`oauth`] fetches bearer tokens, and again before they expire.
//!
//! Values are read when they are used, and are in no log, no event and no error:
//! what goes wrong with them is told to the operator's log by name, and to the agent
//! only as a fact. Whatever the agent sent in their place is gone before the engine
//! has judged the request ([`Injector::names`]).

pub mod aws;
pub mod oauth;

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderValue, request};
use http_body_util::BodyExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub use oauth::Tokens;

use super::body::Fed;
use crate::config::{ClientCertificate, HttpCredentials, RequestCredentials, Target, TlsMode};
use crate::looker;
use crate::net::{Dialer, Origin};
use crate::secrets::{self, Secret, SecretError};
use crate::tls::provider;

/// Longest body that is read whole to be signed.
const SIGNED_LIMIT: usize = 16 << 20;

/// Why a request cannot be sent with its credentials. Names, and never a value.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A value could not be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A value cannot stand in a header.
    #[error("the value for the header {0} has characters that no header can have")]
    Value(HeaderName),
    /// The certificate or its key.
    #[error("the client certificate: {0}")]
    Certificate(String),
    /// No token was given.
    #[error("the token endpoint: {0}")]
    Token(String),
    /// The leg is not encrypted.
    #[error("they are not sent in the clear to another machine; `tls.upstream` says otherwise")]
    InClear,
    /// The request is for another host than the target's.
    #[error("the request is for another host than the target's")]
    OtherHost,
    /// The request cannot be signed.
    #[error("the request cannot be signed: {0}")]
    Sign(&'static str),
}

/// Sends requests with a target's credentials.
#[derive(Debug)]
pub struct Injector {
    target: Arc<str>,
    credentials: HttpCredentials,
    tokens: Arc<Tokens>,
    dialer: Dialer,
    /// The operator chose that there is no encryption.
    in_clear: bool,
}

impl Injector {
    /// For a target; one that adds nothing where it has none.
    #[must_use]
    pub fn of(target: Option<&Target>, tokens: &Arc<Tokens>, dialer: &Dialer) -> Self {
        Self {
            target: Arc::from(target.map_or("", |target| target.name.as_str())),
            credentials: target
                .and_then(|target| target.http.clone())
                .unwrap_or_default(),
            tokens: Arc::clone(tokens),
            dialer: dialer.clone(),
            in_clear: target.is_some_and(|target| target.tls.mode == TlsMode::Disable),
        }
    }

    /// The headers that are set here, and so are nobody else's to set.
    #[must_use]
    pub fn names(&self) -> Vec<HeaderName> {
        match &self.credentials.request {
            None => Vec::new(),
            Some(RequestCredentials::Header { name, .. }) if *name == AUTHORIZATION => {
                vec![AUTHORIZATION]
            }
            Some(RequestCredentials::Header { name, .. }) => vec![AUTHORIZATION, name.clone()],
            Some(RequestCredentials::Aws(_)) => aws::NAMES.to_vec(),
            Some(RequestCredentials::OAuth(_)) => vec![AUTHORIZATION],
        }
    }

    /// Whether they may go out on such a leg: an agent that asks in the clear must
    /// not have them sent over a network for all to read, nor to another host of
    /// the same address.
    ///
    /// # Errors
    /// Why not.
    pub fn may_go(
        &self,
        service: &Origin,
        encrypted: bool,
        mismatch: bool,
    ) -> Result<(), CredentialError> {
        if self.credentials.request.is_none() {
            return Ok(());
        }
        if mismatch {
            return Err(CredentialError::OtherHost);
        }
        if encrypted || self.in_clear || service.is_loopback() {
            return Ok(());
        }
        Err(CredentialError::InClear)
    }

    /// Puts them into a request whose head is otherwise as it will be sent.
    ///
    /// # Errors
    /// When they cannot be had, or cannot be put in.
    pub async fn inject(
        &self,
        head: &mut request::Parts,
        authority: &str,
        body: Fed,
    ) -> Result<Fed, CredentialError> {
        let Some(credentials) = &self.credentials.request else {
            return Ok(body);
        };
        for name in self.names() {
            head.headers.remove(name);
        }
        match credentials {
            RequestCredentials::Header { name, value } => {
                let value = secrets::resolve(value).await?;
                head.headers
                    .insert(name.clone(), sensitive(name, value.expose())?);
                Ok(body)
            }
            RequestCredentials::OAuth(oauth) => {
                let token = self.tokens.of(&self.target, oauth, &self.dialer).await?;
                let value = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
                head.headers
                    .insert(AUTHORIZATION, sensitive(&AUTHORIZATION, &value)?);
                Ok(body)
            }
            RequestCredentials::Aws(aws) => {
                let keys = aws::Keys::of(aws).await?;
                let (digest, body) = digest(head, body).await?;
                aws::sign(
                    head,
                    authority,
                    &digest,
                    &keys,
                    time::OffsetDateTime::now_utc(),
                )?;
                Ok(body)
            }
        }
    }

    /// The service did not accept them: what was fetched is fetched again.
    pub fn refused(&self) {
        if matches!(self.credentials.request, Some(RequestCredentials::OAuth(_))) {
            self.tokens.forget(&self.target);
        }
    }

    /// Whom to be in TLS.
    ///
    /// # Errors
    /// When certificate or key cannot be read, or do not belong together.
    pub async fn identity(&self) -> Result<Option<Arc<CertifiedKey>>, CredentialError> {
        let Some(ClientCertificate { certificate, key }) = &self.credentials.certificate else {
            return Ok(None);
        };
        let key = secrets::resolve(key).await?;
        let path = certificate.clone();
        let pem = tokio::task::spawn_blocking(move || looker::read(&path))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| CredentialError::Certificate(error.kind().to_string()))?;
        let wrong = |what: &str| CredentialError::Certificate(what.to_owned());
        let chain = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| wrong("its file holds no certificate (PEM)"))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
            .map_err(|_| wrong("its key is no private key (PEM)"))?;
        let identity = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|_| wrong("certificate and key do not belong together"))?;
        Ok(Some(Arc::new(identity)))
    }
}

/// What signs for a body; read whole where nobody has said what it is.
async fn digest(head: &request::Parts, body: Fed) -> Result<(String, Fed), CredentialError> {
    match head.headers.get(aws::CONTENT_SHA256) {
        Some(said) => {
            let said = said
                .to_str()
                .map_err(|_| CredentialError::Sign("x-amz-content-sha256"))?;
            // Each chunk of such a body is signed by the agent's own key.
            if said.starts_with("STREAMING-AWS4") {
                return Err(CredentialError::Sign("its body is signed chunk by chunk"));
            }
            Ok((said.to_owned(), body))
        }
        None => {
            let limited = http_body_util::Limited::new(body, SIGNED_LIMIT);
            let whole = limited.collect().await.map_err(|_| {
                CredentialError::Sign("its body is too long to be signed, or broke off")
            })?;
            let bytes = whole.to_bytes();
            Ok((aws::hash(&bytes), Fed::whole(bytes)))
        }
    }
}

fn sensitive(name: &HeaderName, value: &str) -> Result<HeaderValue, CredentialError> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| CredentialError::Value(name.clone()))?;
    // Not in anything's debugging output, nor in HPACK's table.
    value.set_sensitive(true);
    Ok(value)
}

/// A value for another room.
async fn value(reference: &secrets::SecretRef) -> Result<Secret, CredentialError> {
    Ok(secrets::resolve(reference).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Place, UpstreamTls};
    use crate::secrets::SecretRef;

    fn injector(mode: TlsMode) -> Injector {
        let target = Target {
            name: "billing".to_owned(),
            place: Place::Host("billing.test".to_owned()),
            port: None,
            via: None,
            protocol: None,
            tls: UpstreamTls {
                mode,
                ..UpstreamTls::default()
            },
            credentials: None,
            http: Some(HttpCredentials {
                request: Some(RequestCredentials::Header {
                    name: HeaderName::from_static("x-api-key"),
                    value: SecretRef::Env("X".to_owned()),
                }),
                certificate: None,
            }),
            ssh: crate::config::SshTarget::default(),
            grpc: None,
            default: None,
        };
        Injector::of(Some(&target), &Arc::default(), &Dialer::default())
    }

    #[test]
    fn credentials_go_nowhere_where_others_could_read_them() {
        let far = &Origin::at("10.0.0.1:80");
        let near = &Origin::at("127.0.0.1:80");
        let mirrored = injector(TlsMode::Mirror);
        assert!(mirrored.may_go(far, true, false).is_ok());
        assert!(mirrored.may_go(near, false, false).is_ok());
        assert!(mirrored.may_go(far, false, false).is_err());
        assert!(mirrored.may_go(far, true, true).is_err());
        assert!(injector(TlsMode::Disable).may_go(far, false, false).is_ok());
    }

    #[test]
    fn what_is_set_here_is_nobody_else_s_to_set() {
        let names = injector(TlsMode::Mirror).names();
        assert_eq!(names, [AUTHORIZATION, HeaderName::from_static("x-api-key")]);
    }
}
