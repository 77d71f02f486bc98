//! Channel binding `tls-server-end-point` (RFC 5929, section 4.1).
//!
//! The hash is the one that the certificate is signed with, except that MD5 and
//! SHA-1 give way to SHA-256. A signature that names no single hash (Ed25519)
//! has no defined binding: PostgreSQL refuses those too, so `None` is an answer.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// What SCRAM binds itself to, for a server that shows this certificate.
#[must_use]
pub fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm.algorithm;
    let is = |one: &oid::Oid<'_>| algorithm == one;
    let hash = if let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) =
        SignatureAlgorithm::try_from(&parsed.signature_algorithm)
    {
        Hash::named(parameters.hash_algorithm_oid())?
    } else if is(&oid::OID_PKCS1_SHA256WITHRSA)
        || is(&oid::OID_SIG_ECDSA_WITH_SHA256)
        || is(&oid::OID_PKCS1_SHA1WITHRSA)
        || is(&oid::OID_PKCS1_MD5WITHRSAENC)
        || is(&SIG_ECDSA_WITH_SHA1)
    {
        Hash::Sha256
    } else if is(&oid::OID_PKCS1_SHA384WITHRSA) || is(&oid::OID_SIG_ECDSA_WITH_SHA384) {
        Hash::Sha384
    } else if is(&oid::OID_PKCS1_SHA512WITHRSA) || is(&oid::OID_SIG_ECDSA_WITH_SHA512) {
        Hash::Sha512
    } else {
        return None;
    };
    Some(match hash {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// `ecdsa-with-SHA1` (RFC 3279), which the registry does not list.
const SIG_ECDSA_WITH_SHA1: oid::Oid<'static> = x509_parser::der_parser::oid!(1.2.840.10045.4.1);

enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn named(name: &oid::Oid<'_>) -> Option<Self> {
        if *name == oid::OID_NIST_HASH_SHA256 || *name == oid::OID_HASH_SHA1 {
            Some(Self::Sha256)
        } else if *name == oid::OID_NIST_HASH_SHA384 {
            Some(Self::Sha384)
        } else if *name == oid::OID_NIST_HASH_SHA512 {
            Some(Self::Sha512)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        rcgen::CertificateParams::new(vec!["db.test".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .der()
            .clone()
    }

    #[test]
    fn the_hash_is_the_one_the_certificate_is_signed_with() {
        let p256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(
            server_end_point(&p256),
            Some(Sha256::digest(&p256).to_vec())
        );
        let p384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(
            server_end_point(&p384),
            Some(Sha384::digest(&p384).to_vec())
        );
    }

    #[test]
    fn a_signature_without_a_single_hash_has_no_binding() {
        assert_eq!(server_end_point(&certificate(&rcgen::PKCS_ED25519)), None);
        assert_eq!(server_end_point(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
