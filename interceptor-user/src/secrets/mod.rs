//! Values that the configuration only refers to.
//!
//! They are read when they are used, so that a changed file counts at the next
//! logon, and are wiped from memory after it. A file that others may read is
//! refused: a warning would be read once, and the password ever after.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use zeroize::Zeroizing;

use crate::looker::{self, Looker};

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

/// How long a command may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any password; a file that is longer is another file.
const LONGEST: u64 = 64 * 1024;

/// Why there is no value. Holds names and never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Everyone may read the file.
    #[error("{} may be read by everyone (mode {mode:04o}); `chmod o-rwx` it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The variable is not set, or is not text.
    #[error("the environment variable {0} is not set to text")]
    Env(String),
    /// The command could not be run.
    #[error("the command {program:?} could not be run: {source}")]
    Command {
        /// Its program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("the command {program:?} ended with {status}")]
    Failed {
        /// Its program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The command took too long.
    #[error("the command {0:?} took longer than {COMMAND_PATIENCE:?}")]
    Slow(String),
    /// The value is not text, or too long to be one.
    #[error("the value {0} is not UTF-8 text of at most {LONGEST} bytes")]
    NotText(&'static str),
    /// Nothing could be started that reads it.
    #[error("reading it could not be started: {0}")]
    Runtime(std::io::Error),
    /// The process that runs commands says why.
    #[error("{0}")]
    Looker(String),
    /// There is nothing.
    #[error("the value {0} is empty")]
    Empty(&'static str),
}

/// Reads a secret's value, and blocks meanwhile.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_here(reference: &SecretRef) -> Result<Secret, SecretError> {
    let read = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SecretError::Runtime)?
            .block_on(resolve(reference))
    };
    // A thread of its own, since the caller's may be one of a runtime.
    std::thread::scope(|scope| {
        scope.spawn(read).join().unwrap_or_else(|_| {
            let error = std::io::Error::other("the thread that read it is gone");
            Err(SecretError::Runtime(error))
        })
    })
}

/// Reads a secret's value.
///
/// # Errors
/// When it cannot be had, is empty, or lies open.
pub async fn resolve(reference: &SecretRef) -> Result<Secret, SecretError> {
    match reference {
        SecretRef::File(path) => {
            let path = path.clone();
            let failed = path.clone();
            tokio::task::spawn_blocking(move || from_file(&path))
                .await
                .map_err(|error| SecretError::File {
                    path: failed,
                    source: std::io::Error::other(error),
                })?
        }
        SecretRef::Env(name) => match std::env::var(name) {
            Ok(value) => checked(value.into_bytes(), "of the environment variable"),
            Err(_) => Err(SecretError::Env(name.clone())),
        },
        SecretRef::Command(line) => match looker::ours() {
            Some(looker) => by_looker(looker, line).await,
            None => from_command(line, COMMAND_PATIENCE).await,
        },
    }
}

fn from_file(path: &Path) -> Result<Secret, SecretError> {
    let wrong = |source| SecretError::File {
        path: path.to_owned(),
        source,
    };
    let file = looker::open(path).map_err(wrong)?;
    // Of what was opened, and not of what the name stands for by now.
    let meta = file.metadata().map_err(wrong)?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut value = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LONGEST + 1), &mut value)
        .map_err(wrong)?;
    checked(value, "in the file")
}

/// A command runs where the file system is whole.
async fn by_looker(looker: &'static Arc<Looker>, line: &[String]) -> Result<Secret, SecretError> {
    let line = line.to_owned();
    match tokio::task::spawn_blocking(move || looker.run(&line)).await {
        Ok(Ok(printed)) => Ok(Secret::new(printed)),
        Ok(Err(error)) => Err(SecretError::Looker(error.to_string())),
        Err(error) => Err(SecretError::Looker(error.to_string())),
    }
}

async fn from_command(line: &[String], patience: Duration) -> Result<Secret, SecretError> {
    let (program, arguments) = line
        .split_first()
        .map(|(program, arguments)| (program.clone(), arguments))
        .unwrap_or_default();
    let wrong = |source| SecretError::Command {
        program: program.clone(),
        source,
    };
    let mut child = tokio::process::Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(wrong)?;
    let out = child.stdout.take();
    let run = async {
        let mut value = Vec::new();
        if let Some(out) = out {
            out.take(LONGEST + 1).read_to_end(&mut value).await?;
        }
        Ok((value, child.wait().await?))
    };
    let (value, status) = tokio::time::timeout(patience, run)
        .await
        .map_err(|_| SecretError::Slow(program.clone()))?
        .map_err(wrong)?;
    if !status.success() {
        return Err(SecretError::Failed { program, status });
    }
    checked(value, "on the command's standard output")
}

/// Text without the newline that editors and `echo` put behind it.
fn checked(mut value: Vec<u8>, place: &'static str) -> Result<Secret, SecretError> {
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    if value.is_empty() {
        return Err(SecretError::Empty(place));
    }
    if value.len() as u64 > LONGEST {
        return Err(SecretError::NotText(place));
    }
    match String::from_utf8(value) {
        Ok(text) => Ok(Secret::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(SecretError::NotText(place))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, SecretRef) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, SecretRef::File(path))
    }

    fn command(line: &[&str]) -> SecretRef {
        SecretRef::Command(line.iter().map(|&one| one.to_owned()).collect())
    }

    #[tokio::test]
    async fn a_file_counts_without_its_last_newline() {
        for text in ["s3cret", "s3cret\n", "s3cret\r\n"] {
            let (_folder, reference) = file(text, 0o640);
            assert_eq!(resolve(&reference).await.unwrap().expose(), "s3cret");
        }
    }

    #[tokio::test]
    async fn a_file_that_everyone_may_read_is_refused() {
        let (_folder, reference) = file("s3cret", 0o604);
        let error = resolve(&reference).await.unwrap_err();
        assert!(matches!(error, SecretError::Exposed { mode: 0o604, .. }));
        assert!(!error.to_string().contains("s3cret"));
    }

    #[tokio::test]
    async fn an_empty_value_is_an_error_and_not_an_empty_password() {
        let (_folder, reference) = file("\n", 0o600);
        assert!(matches!(
            resolve(&reference).await,
            Err(SecretError::Empty(_))
        ));
    }

    #[tokio::test]
    async fn a_command_gives_its_output_or_says_how_it_ended() {
        let value = resolve(&command(&["echo", "s3cret"])).await.unwrap();
        assert_eq!(value.expose(), "s3cret");
        assert!(matches!(
            resolve(&command(&["false"])).await,
            Err(SecretError::Failed { .. })
        ));
        assert!(matches!(
            resolve(&command(&["/nowhere/at/all"])).await,
            Err(SecretError::Command { .. })
        ));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_given_up() {
        let line = ["sleep".to_owned(), "1000".to_owned()];
        let given_up = from_command(&line, Duration::from_millis(20)).await;
        assert!(matches!(given_up, Err(SecretError::Slow(_))));
    }

    #[test]
    fn a_value_is_never_printed() {
        assert_eq!(
            format!("{:?}", Secret::new("s3cret".to_owned())),
            "Secret(…)"
        );
    }
}
