//! Stands in for bindgen when `pg_query` is built.
//!
//! `pg_query`'s build script uses bindgen for one thing: translating
//! `pg_query.h`, a small C header that does not depend on the machine. That
//! translation is in `bindings.rs`, made by bindgen 0.66.1 from pg_query 18.1.0.
//! With it, building needs a C compiler and no libclang. Only the calls that
//! the build script makes exist; any change there is a compile error, not a
//! wrong binding, and a changed header is refused by its digest.

use std::io;
use std::path::Path;

/// FNV-1a, 64 bits, of the `pg_query.h` that `bindings.rs` was made from.
const HEADER_DIGEST: u64 = 0x26ff_b91b_61b0_c085;

const BINDINGS: &str = include_str!("bindings.rs");

/// Takes the header, as bindgen's builder does.
#[derive(Debug, Default)]
pub struct Builder {
    header: Option<String>,
}

/// The translation.
#[derive(Debug)]
pub struct Bindings(());

impl Builder {
    /// The header to translate.
    #[must_use]
    pub fn header(mut self, header: impl Into<String>) -> Self {
        self.header = Some(header.into());
        self
    }

    /// Checks that the header is the one that was translated.
    ///
    /// # Errors
    /// When it cannot be read, or is another one.
    pub fn generate(self) -> Result<Bindings, String> {
        let path = self.header.ok_or("no header given")?;
        let text = std::fs::read(&path).map_err(|e| format!("{path}: {e}"))?;
        let digest = fnv1a(&text);
        if digest != HEADER_DIGEST {
            return Err(format!(
                "{path} (digest {digest:#x}) is not the header that vendor/bindgen/src/bindings.rs was made from; \
                 make it again with bindgen and put the digest into vendor/bindgen/src/lib.rs"
            ));
        }
        Ok(Bindings(()))
    }
}

impl Bindings {
    /// Writes the translation.
    ///
    /// # Errors
    /// When `path` cannot be written.
    pub fn write_to_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, BINDINGS)
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
