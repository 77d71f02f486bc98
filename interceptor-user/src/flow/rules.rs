//! The rules in force, and how they change while sessions run.
//!
//! All files are read and checked before anything changes; where one is wrong,
//! the rules in force stay, and the reason is told. A session notices by a
//! number that it compares before each message.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use interceptor_policy::{RuleSet, Source};

/// Biggest rule file that is read, in bytes.
const FILE_LIMIT: u64 = 8 << 20;

/// The rules in force.
#[derive(Debug)]
pub struct RulesInForce {
    paths: Vec<PathBuf>,
    rules: RwLock<Arc<RuleSet>>,
    generation: AtomicU64,
}

impl RulesInForce {
    /// Reads and checks the rules below `paths`.
    ///
    /// # Errors
    /// What is wrong with them, with file, line and column.
    pub fn load(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let rules = read(paths)?;
        Ok(Self {
            paths: paths.to_vec(),
            rules: RwLock::new(Arc::new(rules)),
            generation: AtomicU64::new(1),
        })
    }

    /// The rules in force.
    #[must_use]
    pub fn current(&self) -> Arc<RuleSet> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes whenever the rules do.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the files again; whether the rules changed.
    ///
    /// # Errors
    /// What is wrong with them; the rules in force stay.
    pub fn reload(&self) -> anyhow::Result<bool> {
        let rules = read(&self.paths)?;
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        if rules.digest() == current.digest() {
            return Ok(false);
        }
        *current = Arc::new(rules);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(true)
    }

    /// What a change of the files would change: names, sizes and times.
    #[must_use]
    pub fn fingerprint(&self) -> Vec<(PathBuf, u64, Option<std::time::SystemTime>)> {
        files(&self.paths)
            .unwrap_or_default()
            .into_iter()
            .map(|path| {
                let facts = std::fs::metadata(&path).ok();
                let size = facts.as_ref().map_or(0, std::fs::Metadata::len);
                let time = facts.and_then(|facts| facts.modified().ok());
                (path, size, time)
            })
            .collect()
    }
}

/// Reads and checks every `*.yaml` and `*.yml` below `paths`.
///
/// # Errors
/// What is wrong with them, with file, line and column.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<RuleSet> {
    RuleSet::load(&sources(paths)?).map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))
}

/// Reads every `*.yaml` and `*.yml` below `paths`.
///
/// # Errors
/// What cannot be read, or is too long to be a rule file.
pub fn sources(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in files(paths)? {
        let size = std::fs::metadata(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .len();
        anyhow::ensure!(
            size <= FILE_LIMIT,
            "{}: {size} bytes are more than the {FILE_LIMIT} that a rule file may have",
            path.display()
        );
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        sources.push(Source { path, text });
    }
    Ok(sources)
}

/// The rule files below `paths`, sorted; a folder is read without its subfolders,
/// so that packs to choose from can lie in one.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("reading the rule folder {}", path.display()))?;
        for entry in entries {
            let file = entry
                .with_context(|| format!("reading the rule folder {}", path.display()))?
                .path();
            if is_rule_file(&file) {
                found.push(file);
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn is_rule_file(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden
        && path.is_file()
        && path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
}
