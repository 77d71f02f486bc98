//! Where a command reads recordings from.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::archive::place::Place as Archive;
use crate::archive::source::FromArchive;
use crate::config::{ArchiveTo, Config, units};
use crate::recorder::read::Reader;
use crate::recorder::url_to_read;

/// Where recordings are read from; flattened into the commands that read some.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Place {
    /// Read from this Redis
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
    /// Read what was archived there: a folder, or s3://bucket/prefix
    #[arg(long, global = true, value_name = "DIR|URL", conflicts_with = "redis")]
    archive: Option<String>,
}

impl Place {
    /// Whether it is where this host records to.
    pub(super) fn is_own(&self) -> bool {
        self.redis.is_none() && self.archive.is_none()
    }

    /// Whether it is an archive, which has sessions and not all that hosts stated.
    pub(super) fn is_archive(&self) -> bool {
        self.archive.is_some()
    }

    /// Opens it.
    pub(super) fn open(&self, config: &Config) -> anyhow::Result<Reader> {
        let prefix = &config.recorder.prefix;
        if let Some(archive) = &self.archive {
            let place = Archive::open(&archive_at(Some(archive), config)?)?;
            return Ok(Reader::of(
                FromArchive::new(Arc::new(place), prefix),
                prefix,
            ));
        }
        let url = url_to_read(self.redis.as_deref(), &config.recorder, &config.runtime_dir)?;
        Ok(Reader::open(&url, prefix)?)
    }
}

/// The archive that is named, or the configured one. What the configuration says of how S3
/// is reached holds for every bucket.
pub(super) fn archive_at(named: Option<&str>, config: &Config) -> anyhow::Result<ArchiveTo> {
    let configured = config.recorder.retention.archive_to.clone();
    let Some(url) = named else {
        return configured.context(
            "which archive? A folder or s3://bucket/prefix, or `recorder.retention.archive_to` \
             in the configuration",
        );
    };
    Ok(match configured {
        Some(configured) if url.starts_with("s3://") && configured.url.starts_with("s3://") => {
            ArchiveTo {
                url: url.to_owned(),
                ..configured
            }
        }
        _ => ArchiveTo::of(url),
    })
}

/// `30d`
pub(super) fn parse_age(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| "a number with a unit, such as 30m, 12h or 7d".to_owned())
}
