//! `interceptor rules backtest`.

use std::path::PathBuf;
use std::process::ExitCode;

use interceptor_engine::replay::escape;
use interceptor_engine::review::{Backtest, Finding};
use serde_json::json;

use super::super::Global;
use super::recorded::{self, Which};
use super::{by, count, default_of, files, load_from, print, print_json, text_of};
use crate::config::Config;

/// Which rules, and which sessions.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rule files, or folders of them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// Fail where any verdict would have been another, for scripts
    #[arg(long)]
    strict: bool,
    /// Show so many changes at most; all are counted
    #[arg(long, value_name = "N", default_value_t = 200)]
    limit: usize,
}

pub(super) fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let sources = files::sources(global, &args.paths)?;
    let rules = load_from(&sources)?;
    let default = default_of(&config);
    let mut backtest = Backtest::new(rules, &text_of(&sources));
    let mut changes: Vec<Finding> = Vec::new();
    let mut changed = 0_usize;
    let mut keep = |more: Vec<Finding>| {
        for change in more.into_iter().filter(Finding::differs) {
            changed += 1;
            if changes.len() < args.limit {
                changes.push(change);
            }
        }
    };
    recorded::each_entry(global, &args.which, |session, entry| {
        if entry.kind == "open" {
            keep(backtest.end());
            backtest.begin(session, &entry, &default);
        } else {
            keep(backtest.entry(&entry));
        }
    })?;
    keep(backtest.end());
    let summary = backtest.summary();
    if global.json {
        print_json(&json!({"summary": summary, "changes": changes, "changed": changed}))?;
    } else {
        let mut text = String::new();
        for change in &changes {
            text.push_str(&format!(
                "{}{} -> {}{}  {} at {}  {}/{}\n    {}\n",
                change.was,
                by(change.was_by.as_deref()),
                change.would.unwrap_or_default(),
                by(change.would_by.as_deref()),
                escape::line(&change.agent),
                escape::line(&change.target),
                change.session,
                change.exchange,
                escape::line(&change.line),
            ));
        }
        if changed > changes.len() {
            text.push_str(&format!("and {} more\n", changed - changes.len()));
        }
        text.push_str(&format!(
            "{}, {} judged, {} with too little on record: {changed} of them otherwise{}\n",
            count(
                usize::try_from(summary.sessions).unwrap_or(usize::MAX),
                "session"
            ),
            count(
                usize::try_from(summary.judged).unwrap_or(usize::MAX),
                "command"
            ),
            summary.not_judged,
            match summary.changed.len() {
                0 => String::new(),
                _ => {
                    let each: Vec<String> = summary
                        .changed
                        .iter()
                        .map(|(what, times)| format!("{what}: {times}"))
                        .collect();
                    format!(" ({})", each.join(", "))
                }
            }
        ));
        print(&text)?;
    }
    Ok(if args.strict && changed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
