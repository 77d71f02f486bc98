//! Where a command reads recordings from.

use crate::config::Config;
use crate::recorder::read::{ReadError, Reader};
use crate::recorder::url_to_read;

/// Where recordings are read from; flattened into the commands that read some.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Place {
    /// Read from this Redis
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
}

impl Place {
    /// Whether it is where this host records to.
    pub(super) fn is_own(&self) -> bool {
        self.redis.is_none()
    }

    /// Opens it.
    pub(super) fn open(&self, config: &Config) -> Result<Reader, ReadError> {
        let url = url_to_read(self.redis.as_deref(), &config.recorder, &config.runtime_dir);
        Reader::open(&url, &config.recorder.prefix)
    }
}
