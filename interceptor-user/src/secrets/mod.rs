//! Values that the configuration only refers to.

use std::path::PathBuf;

use zeroize::Zeroizing;

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// In a file; a trailing newline is not part of it.
    File(PathBuf),
    /// In an environment variable of the daemon.
    Env(String),
    /// On the standard output of a command.
    Command(Vec<String>),
}

/// A secret's value; wiped when dropped, never printed.
pub struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Wraps a value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value, for the one place that uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}
