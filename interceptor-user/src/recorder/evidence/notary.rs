//! Signs what is done to recordings that are over: that one was removed or brought back,
//! and that the list of sessions was cut off.
//!
//! Such a statement is one of the host's like all others, with a number of its own in the
//! journal that the daemon's recorder goes on with; whoever removes a recording, the
//! daemon or a command, needs the host's key for it. It does not go by way of a spool: it
//! is in the store before the recording is deleted, or nothing is deleted.

use std::path::Path;
use std::time::{Duration, Instant};

use interceptor_engine::evidence::statement::{Line, Signed};
use redis::cmd;

use super::{FOLDER, KeyError, Signer, keys, last_statement};
use crate::recorder::read::{ReadError, Reader};

/// A notary signs no heads.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Signs, and says it in `sessions`.
pub struct Notary {
    signer: Signer,
    unsaid: Vec<Unsaid>,
}

/// A statement, and what else its entry says to readers.
struct Unsaid {
    signed: Signed,
    pairs: Vec<(String, String)>,
}

impl Notary {
    /// Opens the host's key, which must be there: a host that never recorded has none.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, KeyError> {
        let folder = state_dir.join(FOLDER);
        let last = keys::published(&folder)?.pop();
        let last = last.ok_or_else(|| KeyError::None {
            folder: folder.clone(),
        })?;
        // The daemon signs by the name that it was started with.
        let stated = last_statement(&folder).ok().flatten();
        let host = stated.map_or(last.host, |stated| stated.host);
        let signer = Signer::open(state_dir, &host, NEVER, |writer| writer.is_none())?;
        let mut notary = Self {
            signer,
            unsaid: Vec::new(),
        };
        // What a command before this one signed, and was interrupted.
        notary.take_unsent();
        Ok(notary)
    }

    /// Signs `lines`, and says them in an entry of `sessions` that also has `pairs`.
    ///
    /// # Errors
    /// When the store does not take it. It is said first, then, when there is something
    /// to be said again.
    pub fn say(
        &mut self,
        reader: &mut Reader,
        pairs: &[(&str, &str)],
        lines: &[Line],
    ) -> Result<(), ReadError> {
        let body: String = lines.iter().map(Line::to_string).collect();
        let is_again = self.unsaid.iter().any(|unsaid| unsaid.signed.body == body);
        self.say_all(reader)?;
        if is_again {
            return Ok(());
        }
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        // A new key is introduced before it signs.
        self.take_unsent();
        self.unsaid.push(Unsaid {
            signed: self.signer.say(lines),
            pairs: pairs.collect(),
        });
        self.say_all(reader)
    }

    /// What the signer has to say by itself, which is about heads and keys.
    fn take_unsent(&mut self) {
        let unsent = self.signer.unsent(Instant::now()).into_iter();
        self.unsaid.extend(unsent.map(|signed| Unsaid {
            signed,
            pairs: vec![("event".to_owned(), "heads".to_owned())],
        }));
    }

    fn say_all(&mut self, reader: &mut Reader) -> Result<(), ReadError> {
        while let Some(Unsaid { signed, pairs }) = self.unsaid.first() {
            let mut add = cmd("XADD");
            add.arg(reader.key("sessions")).arg("*");
            for (name, value) in pairs {
                add.arg(name).arg(value);
            }
            add.arg("host").arg(&signed.host);
            if !signed.body.is_empty() {
                add.arg("heads").arg(&signed.body);
            }
            for (name, value) in signed.fields() {
                add.arg(name).arg(value);
            }
            reader.run(&add)?;
            self.unsaid.remove(0);
        }
        self.signer.delivered();
        Ok(())
    }
}
