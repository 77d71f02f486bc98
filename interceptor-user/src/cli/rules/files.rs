//! The files that a command reads: those named, or those that the daemon would.

use std::path::PathBuf;

use interceptor_policy::Source;

use super::super::Global;
use crate::config::Config;
use crate::flow::rules;

/// Reads the rule files below `paths`, or, without any, below the configured ones.
pub(in crate::cli) fn sources(global: &Global, paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
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
    let found = rules::sources(paths)?;
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    anyhow::ensure!(!found.is_empty(), "no rule file in {}", shown.join(", "));
    Ok(found)
}
