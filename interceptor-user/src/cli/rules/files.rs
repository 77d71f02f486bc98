//! The files that a command reads: those named, or those that the daemon would.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use interceptor_policy::Source;

use super::super::Global;
use crate::config::Config;

/// Biggest rule file that is read, in bytes; the rule language allows less, and
/// says so with the file's name.
const LONGEST: u64 = 8 << 20;

/// Reads the rule files below `paths`, or, without any, below the configured ones.
pub(super) fn sources(global: &Global, paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let configured;
    let paths = match paths {
        [] => {
            configured = Config::load(global.config.as_deref())?.rules;
            anyhow::ensure!(
                !configured.is_empty(),
                "there are no rules: neither configured, nor in ./rules or /etc/interceptor/rules"
            );
            configured.as_slice()
        }
        paths => paths,
    };
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(folder(path)?);
        } else {
            found.push(path.clone());
        }
    }
    found.sort();
    found.dedup();
    anyhow::ensure!(!found.is_empty(), "no rule file in {}", shown(paths));
    found.into_iter().map(read).collect()
}

/// A folder's rule files, without those in folders below it, where packs to
/// choose from lie.
fn folder(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("reading the rule folder {}", path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(reading)? {
        let file = entry.with_context(reading)?.path();
        let hidden = file
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let yaml = file
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && file.is_file() {
            found.push(file);
        }
    }
    Ok(found)
}

fn read(path: PathBuf) -> anyhow::Result<Source> {
    let reading = || format!("reading {}", path.display());
    let size = std::fs::metadata(&path).with_context(reading)?.len();
    anyhow::ensure!(size <= LONGEST, "{}: {size} bytes", path.display());
    let text = std::fs::read_to_string(&path).with_context(reading)?;
    Ok(Source { path, text })
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}
