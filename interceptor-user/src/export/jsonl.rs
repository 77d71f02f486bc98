//! A line of JSON an event, into a file or onto standard output.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::event::Exported;
use super::{SendError, Sink};

/// Where the lines go.
#[derive(Debug)]
pub struct Jsonl {
    /// Nothing for standard output.
    file: Option<(PathBuf, File)>,
}

impl Jsonl {
    /// To the end of a file, which is made for its owner alone where there is none; without
    /// one, to standard output.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = match path {
            None => None,
            Some(path) => {
                let mut options = OpenOptions::new();
                let file = options.append(true).create(true).mode(0o600).open(path)?;
                Some((path.to_owned(), file))
            }
        };
        Ok(Self { file })
    }
}

impl Sink for Jsonl {
    fn send(&mut self, events: &[Exported]) -> Result<(), SendError> {
        let mut lines = String::new();
        for event in events {
            lines.push_str(&event.json().to_string());
            lines.push('\n');
        }
        let written = match &mut self.file {
            // On the disk before it is remembered as brought.
            Some((_, file)) => file
                .write_all(lines.as_bytes())
                .and_then(|()| file.sync_data()),
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(lines.as_bytes()).and_then(|()| out.flush())
            }
        };
        written.map_err(|error| match &self.file {
            Some((path, _)) => SendError::Never(format!("writing {}: {error}", path.display())),
            None if error.kind() == std::io::ErrorKind::BrokenPipe => SendError::Gone(error),
            None => SendError::Never(format!("writing: {error}")),
        })
    }

    fn name(&self) -> String {
        match &self.file {
            Some((path, _)) => format!("jsonl {}", path.display()),
            None => "jsonl -".to_owned(),
        }
    }
}
