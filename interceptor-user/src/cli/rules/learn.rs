//! `interceptor rules learn`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use interceptor_engine::review::Learner;
use interceptor_policy::{RuleSet, Source};
use serde_json::json;

use super::super::Global;
use super::recorded::{self, Which};
use super::{print, print_json};

/// Which sessions, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Write the file here, and not to standard output; one that is there is left alone
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let mut learner = Learner::default();
    let sessions = recorded::each_entry(global, &args.which, |_, entry| {
        if entry.kind == "open" {
            learner.begin(&entry);
        } else {
            learner.entry(&entry);
        }
    })?;
    anyhow::ensure!(sessions > 0, "no session is recorded in that time");
    let file = learner.file();
    // What nobody could load would be no use.
    let source = Source {
        path: args.output.clone().unwrap_or_else(|| "learned.yaml".into()),
        text: file.clone(),
    };
    RuleSet::load(&[source]).map_err(|faults| {
        anyhow::anyhow!(
            "what was learned is no rule file, which is a fault of this program\n{faults}"
        )
    })?;
    match &args.output {
        None if global.json => print_json(&json!({"rules": learner.rules(), "file": file}))?,
        None => print(&file)?,
        Some(path) => {
            let mut out = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)
                .with_context(|| format!("writing {}", path.display()))?;
            std::io::Write::write_all(&mut out, file.as_bytes())?;
            print(&format!(
                "{} rules in {}: read them, tighten them, then put them to the test\n",
                learner.rules(),
                path.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
