//! Encryption to a recipient of age: what masks hid, for whoever holds the key.
//!
//! The format is age's first version with an X25519 recipient, so that keys are made
//! and files are opened by `age` itself as well. Written here on the cryptography that
//! is in the program already: the crate `age` brings forty others with it, two
//! libraries of elliptic curves and one of translations among them.
//!
//! Spec: <https://c2sp.org/age> (header, X25519 recipient, payload). Not here: other
//! recipients, several at once, the armoured form.

use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bech32::primitives::decode::CheckedHrpstring;
use zeroize::Zeroizing;

const VERSION: &str = "age-encryption.org/v1";
const X25519_LABEL: &[u8] = b"age-encryption.org/v1/X25519";
/// Bytes of plain text in a chunk of the payload, and of its tag.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// Characters of a whole line of a stanza's body; a shorter one is its last.
const LINE: usize = 64;
/// A file with a key that is longer is something else.
const LONGEST: usize = 64 << 10;

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A recipient is none.
    #[error("this is no recipient of age: it is age1…, as `age-keygen` prints it")]
    Recipient,
    /// The file of a key cannot be read.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It holds no key.
    #[error("{} holds no key of age: a line of it is AGE-SECRET-KEY-1…, as `age-keygen` writes it", .path.display())]
    Identity {
        /// Which.
        path: PathBuf,
    },
    /// It is sealed to somebody else.
    #[error("it is sealed to another key than this one")]
    WrongKey,
    /// It is not what was sealed.
    #[error("what is sealed there was changed, or is none of age's files")]
    Broken,
    /// It is of another program, or a bomb.
    #[error(transparent)]
    Unknown(#[from] interceptor_engine::sealed::Unknown),
    /// The library refused, for want of randomness or memory.
    #[error("encryption failed")]
    Failed,
}

impl From<aws_lc_rs::error::Unspecified> for SealError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Failed
    }
}

/// Whom something is sealed to: `age1…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// Who can open it: `AGE-SECRET-KEY-1…`.
pub struct Identity {
    key: PrivateKey,
    public: [u8; 32],
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

/// 32 bytes in Bech32 under a prefix, which is written in one case.
fn bech32(text: &str, prefix: &str) -> Option<Zeroizing<[u8; 32]>> {
    let read = CheckedHrpstring::new::<bech32::Bech32>(text).ok()?;
    if !read.hrp().as_str().eq_ignore_ascii_case(prefix) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let mut count = 0;
    for byte in read.byte_iter() {
        *bytes.get_mut(count)? = byte;
        count += 1;
    }
    (count == 32).then_some(bytes)
}

impl std::str::FromStr for Recipient {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        bech32(text, "age")
            .map(|bytes| Self(*bytes))
            .ok_or(SealError::Recipient)
    }
}

impl Identity {
    /// Reads the first key of a file, as `age-keygen` writes it.
    ///
    /// # Errors
    /// A file that cannot be read, or has none.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let text = std::fs::read(path).map_err(|source| SealError::File {
            path: path.to_owned(),
            source,
        })?;
        let text = Zeroizing::new(text);
        let none = || SealError::Identity {
            path: path.to_owned(),
        };
        let text = text.get(..LONGEST.min(text.len())).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| none())?;
        let line = text.lines().map(str::trim);
        let line = line.filter(|line| line.starts_with("AGE-SECRET-KEY-1"));
        let secret = line
            .filter_map(|line| bech32(line, "age-secret-key-"))
            .next()
            .ok_or_else(none)?;
        Self::of(&secret).map_err(|_| none())
    }

    fn of(secret: &[u8; 32]) -> Result<Self, SealError> {
        let key = PrivateKey::from_private_key(&X25519, secret).map_err(|_| SealError::Failed)?;
        let public = public_of(&key)?;
        Ok(Self { key, public })
    }

    /// The recipient that this one opens for.
    #[cfg(test)]
    fn recipient(&self) -> Recipient {
        Recipient(self.public)
    }
}

fn public_of(key: &PrivateKey) -> Result<[u8; 32], SealError> {
    let public = key.compute_public_key()?;
    public
        .as_ref()
        .first_chunk::<32>()
        .copied()
        .ok_or(SealError::Failed)
}

/// HKDF with SHA-256, 32 bytes of it.
fn derive(secret: &[u8], salt: &[u8], label: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let mut out = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[label], hkdf::HKDF_SHA256)?
        .fill(&mut *out)?;
    Ok(out)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, SealError> {
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key)?))
}

/// The key that wraps the file's key.
fn wrapping(
    own: &PrivateKey,
    peer: &[u8; 32],
    ephemeral: &[u8; 32],
    recipient: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let salt = [*ephemeral, *recipient].concat();
    let peer = UnparsedPublicKey::new(&X25519, peer);
    agree(own, peer, SealError::Failed, |shared| {
        derive(shared, &salt, X25519_LABEL)
    })
}

/// The header's MAC covers it up to and with `---`.
fn mac(file_key: &[u8], header: &[u8]) -> Result<hmac::Tag, SealError> {
    let key = derive(file_key, b"", b"header")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*key);
    Ok(hmac::sign(&key, header))
}

/// A chunk's nonce: its number, and whether it is the last.
fn chunk_nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    for (place, byte) in nonce.iter_mut().skip(3).zip(number.to_be_bytes()) {
        *place = byte;
    }
    if let Some(last) = nonce.last_mut() {
        *last = u8::from(is_last);
    }
    Nonce::assume_unique_for_key(nonce)
}

impl Recipient {
    /// Encrypts `plain`, as a file of age.
    ///
    /// # Errors
    /// When the library fails.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut file_key = Zeroizing::new([0; 16]);
        aws_lc_rs::rand::fill(&mut *file_key)?;
        let own = PrivateKey::generate(&X25519)?;
        let ephemeral = public_of(&own)?;
        let wrap = wrapping(&own, &self.0, &ephemeral, &self.0)?;
        let mut body = file_key.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        cipher(&wrap)?.seal_in_place_append_tag(nonce, Aad::empty(), &mut body)?;
        let mut out = format!(
            "{VERSION}\n-> X25519 {}\n{}\n---",
            STANDARD_NO_PAD.encode(ephemeral),
            STANDARD_NO_PAD.encode(body),
        )
        .into_bytes();
        let mac = mac(&*file_key, &out)?;
        out.extend_from_slice(format!(" {}\n", STANDARD_NO_PAD.encode(mac)).as_bytes());

        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce)?;
        out.extend_from_slice(&nonce);
        let payload = cipher(&*derive(&*file_key, &nonce, b"payload")?)?;
        let count = plain.len().div_ceil(CHUNK).max(1);
        let empty: &[u8] = &[];
        let chunks = plain.chunks(CHUNK).chain([empty]).take(count);
        for (number, chunk) in (0_u64..).zip(chunks) {
            let is_last = number + 1 == count as u64;
            let mut sealed = chunk.to_vec();
            let nonce = chunk_nonce(number, is_last);
            payload.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)?;
            out.extend_from_slice(&sealed);
        }
        Ok(out)
    }
}

impl Identity {
    /// The file's key out of a stanza; nothing where it is for another recipient.
    fn unwrap(&self, ephemeral: &str, body: &str) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| SealError::Broken);
        let ephemeral = decode(ephemeral)?;
        let ephemeral = ephemeral.try_into().map_err(|_| SealError::Broken)?;
        let mut wrapped = decode(body)?;
        if wrapped.len() != 16 + TAG {
            return Err(SealError::Broken);
        }
        let wrap = wrapping(&self.key, &ephemeral, &ephemeral, &self.public)?;
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let opened = cipher(&wrap)?.open_in_place(nonce, Aad::empty(), &mut wrapped);
        Ok(opened.ok().map(|key| Zeroizing::new(key.to_vec())))
    }

    /// Opens what [`Recipient::seal`] made, or `age`.
    ///
    /// # Errors
    /// When it is sealed to another key, or was changed.
    pub fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let broken = || SealError::Broken;
        let mut rest = sealed;
        let mut line = || -> Result<&str, SealError> {
            let end = rest.iter().position(|b| *b == b'\n').ok_or_else(broken)?;
            let (line, after) = rest.split_at_checked(end).ok_or_else(broken)?;
            rest = after.get(1..).ok_or_else(broken)?;
            std::str::from_utf8(line).map_err(|_| SealError::Broken)
        };
        if line()? != VERSION {
            return Err(SealError::Broken);
        }
        // Stanzas of other kinds are for others.
        let mut stanzas = Vec::new();
        let claimed = loop {
            let head = line()?;
            if let Some(claimed) = head.strip_prefix("--- ") {
                break claimed;
            }
            let head = head.strip_prefix("-> ").ok_or_else(broken)?;
            let mut body = String::new();
            loop {
                let part = line()?;
                body.push_str(part);
                if part.len() < LINE {
                    break;
                }
            }
            if let Some(ephemeral) = head.strip_prefix("X25519 ") {
                stanzas.push((ephemeral, body));
            }
        };
        let mut file_key = Err(SealError::WrongKey);
        for (ephemeral, body) in stanzas {
            if let Some(key) = self.unwrap(ephemeral, &body)? {
                file_key = Ok(key);
            }
        }
        let file_key = file_key?;
        let header = sealed.len() - rest.len() - claimed.len() - 2;
        let header = sealed.get(..header).ok_or_else(broken)?;
        let right = mac(&file_key, header)?;
        if STANDARD_NO_PAD.encode(right) != claimed {
            return Err(SealError::Broken);
        }

        let (nonce, payload) = rest.split_first_chunk::<16>().ok_or_else(broken)?;
        let key = cipher(&*derive(&file_key, nonce, b"payload")?)?;
        let mut plain = Zeroizing::new(Vec::with_capacity(payload.len()));
        let count = payload.len().div_ceil(CHUNK + TAG);
        for (number, chunk) in (0_u64..).zip(payload.chunks(CHUNK + TAG)) {
            let is_last = number + 1 == count as u64;
            let mut chunk = Zeroizing::new(chunk.to_vec());
            let opened = key
                .open_in_place(chunk_nonce(number, is_last), Aad::empty(), &mut chunk)
                .map_err(|_| SealError::Broken)?;
            plain.extend_from_slice(opened);
        }
        if count == 0 {
            return Err(SealError::Broken);
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the crate `age`, for the text "attack at dawn\n".
    const SECRET: &str =
        "AGE-SECRET-KEY-1AGL7654UJ2FHHSAC5ZPM8040G3MCUYL28Z8L23VG7WASC6JFYLLQMGQG8W";
    const PUBLIC: &str = "age1jf2k3hggxmkgv8h5ken5umz3d03hdkqzmxnuvp2y5zvfk0zz9pvsxqanw6";
    const FILE: &str = "6167652d656e6372797074696f6e2e6f72672f76310a2d3e20583235353139207576714c596e434655416c53524165596a655a5356504a51486e5845306e42576f3054697971497434696b0a465449366b6f7735585a35645346302f7474783030584659583947695566394b65662b6c5a4135413237670a2d3e20772d677265617365204871577b4b7436592079784d756f204c2d0a31366d6c63686e4e59635031516f6c53694c2f562b5a7042594448534c4b5a41514a39564e4e4250394451624e7a706265612f714e39630a2d2d2d2031714b2f68547a63794c69475450712b3057542b764576466554597939677164736f42444b506a31354b6f0a4b2c5d0859922001eed3919d97fe02b7e2b2099c56b3ccb19cb9ec282a2586805212e9bf31c0336e9e31f6175ffce6";

    fn identity() -> Identity {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("# created: today\n{SECRET}\n")).unwrap();
        Identity::read(&path).unwrap()
    }

    #[test]
    fn what_age_made_is_opened() {
        let identity = identity();
        assert_eq!(identity.recipient(), PUBLIC.parse().unwrap());
        let opened = identity.open(&hex::decode(FILE).unwrap()).unwrap();
        assert_eq!(&**opened, b"attack at dawn\n");
    }

    #[test]
    fn what_is_sealed_comes_back_whatever_its_length() {
        let identity = identity();
        let recipient: Recipient = PUBLIC.parse().unwrap();
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let sealed = recipient.seal(&plain).unwrap();
            assert_eq!(**identity.open(&sealed).unwrap(), plain, "{len}");
        }
    }

    #[test]
    fn whatever_is_changed_is_found_and_another_key_is_told() {
        let identity = identity();
        let recipient = identity.recipient();
        let sealed = recipient.seal(b"attack at dawn").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(identity.open(&changed).is_err(), "byte {at}");
            assert!(identity.open(&sealed[..at]).is_err(), "cut at {at}");
        }
        let other = Identity::of(&[7; 32]).unwrap();
        assert!(matches!(other.open(&sealed), Err(SealError::WrongKey)));
    }

    #[test]
    fn a_recipient_that_is_none_is_refused() {
        for text in [
            "",
            "age1",
            "ssh-ed25519 AAAA",
            SECRET,
            &PUBLIC.replace('q', "p"),
        ] {
            assert!(text.parse::<Recipient>().is_err(), "{text}");
        }
    }
}
