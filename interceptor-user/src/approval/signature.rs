//! Proof that an answer which came by way of Redis is from an operator.
//!
//! Whoever may write to Redis could write an answer; only who has the key of
//! `approvals.key` can sign one. The signature is a keyed BLAKE3 over every part
//! of the answer, each preceded by its length; it is bound to the question's
//! digest, so it serves for nothing else.

use zeroize::Zeroize as _;

use crate::secrets::Secret;

/// The key that answers are signed with.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// An answer on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAnswer {
    /// The question.
    pub id: String,
    /// The digest that the answerer was shown.
    pub digest: String,
    /// Yes or no.
    pub approves: bool,
    /// Who, with the host that vouches.
    pub by: String,
    /// Their groups, as that host says.
    pub groups: Vec<String>,
    /// Why.
    pub reason: String,
    /// When, seconds since 1970.
    pub at: i64,
}

impl Key {
    /// From the configured secret, of any length.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self(blake3::derive_key(
            "interceptor 2026-11 answers to questions",
            secret.expose().as_bytes(),
        ))
    }

    /// Signs an answer, hex.
    #[must_use]
    pub fn sign(&self, answer: &SignedAnswer) -> String {
        self.mac(answer).to_hex().to_string()
    }

    /// Whether this is the signature of that answer.
    #[must_use]
    pub fn verify(&self, answer: &SignedAnswer, signature: &str) -> bool {
        // Comparing `blake3::Hash`es takes the same time whatever they are.
        blake3::Hash::from_hex(signature).is_ok_and(|given| given == self.mac(answer))
    }

    fn mac(&self, answer: &SignedAnswer) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(answer.id.as_bytes());
        add(answer.digest.as_bytes());
        add(&[u8::from(answer.approves)]);
        add(answer.by.as_bytes());
        add(&(answer.groups.len() as u64).to_le_bytes());
        for group in &answer.groups {
            add(group.as_bytes());
        }
        add(answer.reason.as_bytes());
        add(&answer.at.to_le_bytes());
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> SignedAnswer {
        SignedAnswer {
            id: "q-1".into(),
            digest: "ab".into(),
            approves: true,
            by: "ann@east".into(),
            groups: vec!["dba".into()],
            reason: String::new(),
            at: 7,
        }
    }

    #[test]
    fn every_part_of_an_answer_is_signed() {
        let key = Key::new(&Secret::new("correct horse".into()));
        let signature = key.sign(&answer());
        assert!(key.verify(&answer(), &signature));
        let others: [fn(&mut SignedAnswer); 7] = [
            |a| a.id.push('1'),
            |a| a.digest.push('0'),
            |a| a.approves = false,
            |a| a.by = "eve@east".into(),
            |a| a.groups.push("security".into()),
            |a| a.reason.push('x'),
            |a| a.at += 1,
        ];
        for change in others {
            let mut other = answer();
            change(&mut other);
            assert!(!key.verify(&other, &signature), "{other:?}");
        }
        assert!(!Key::new(&Secret::new("x".into())).verify(&answer(), &signature));
        assert!(!key.verify(&answer(), ""));
    }
}
