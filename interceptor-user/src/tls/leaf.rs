//! What the local authority issues: a certificate for a server, for a day.
//!
//! The one place where it is said what stands in one, whoever has the key.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::Permitted;
use super::authority::{AuthorityError, BACKDATED, Names, issue};

/// How long what it issues lives, and half of which it is used for.
pub(super) const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate for `key`, for those of `names` that are permitted.
///
/// # Errors
/// When none of them is, or none can be made.
pub(crate) fn sign(
    issuer: &Issuer<'static, KeyPair>,
    permitted: &Permitted,
    names: &Names,
    key: &impl PublicKeyData,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFE;
    let mut subject = DistinguishedName::new();
    let title = names.sni.as_ref().or(names.host.as_ref());
    let title = title.filter(|_| permitted.is_any());
    let address = || names.address.map(|address| address.to_string());
    subject.push(
        DnType::CommonName,
        // X.520 allows a common name of 64 characters; who verifies reads the
        // alternative names.
        title
            .filter(|name| name.len() <= 64)
            .cloned()
            .or_else(address)
            .unwrap_or_default(),
    );
    params.distinguished_name = subject;
    let mut alternative: Vec<_> = names.address.map(SanType::IpAddress).into_iter().collect();
    for name in [&names.sni, &names.host].into_iter().flatten() {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(issue)?),
        };
        if !alternative.contains(&name) {
            alternative.push(name);
        }
    }
    alternative.retain(|name| permitted.allows(name));
    if alternative.is_empty() {
        return Err(AuthorityError::NotPermitted);
    }
    params.subject_alt_names = alternative;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(key, issuer).map_err(issue)?;
    Ok(leaf.der().clone())
}
