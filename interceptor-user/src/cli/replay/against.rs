//! `interceptor replay SESSION --against RULES`.

use std::path::PathBuf;
use std::process::ExitCode;

use interceptor_engine::replay::json::quiet;
use interceptor_engine::replay::{Raw, escape, table::cut};
use interceptor_engine::review::{Backtest, Finding};
use serde_json::json;

use super::super::Global;
use super::super::rules::{by, count, default_of, files, load_from, table, text_of};
use crate::config::Config;
use crate::recorder::read::Reader;

/// Characters of a command in the table.
const LINE: usize = 100;

/// What the rules at `paths` say of a session; the exit code is 1 where any verdict
/// would have been another.
pub(super) fn judge(
    global: &Global,
    config: &Config,
    reader: &mut Reader,
    session: &str,
    paths: &[PathBuf],
    all: bool,
) -> anyhow::Result<ExitCode> {
    let sources = files::sources(global, paths)?;
    let mut backtest = Backtest::new(load_from(&sources)?, &text_of(&sources));
    let default = default_of(config);
    let mut findings: Vec<Finding> = Vec::new();
    let mut keep = |more: Vec<Finding>| {
        let wanted = |one: &Finding| all || one.differs() || one.unjudged.is_some();
        findings.extend(more.into_iter().filter(wanted));
    };
    let mut pages = reader.session(session);
    while let Some(entry) = pages.next_entry()? {
        let entry = Raw::from_fields(entry.fields).read()?;
        if entry.kind != "open" {
            keep(backtest.entry(&entry));
        } else if !backtest.begin(session, &entry, &default) {
            anyhow::bail!(
                "a session of {} is not judged again: only those of postgres, http and ssh are",
                escape::line(entry.meta_text("protocol").unwrap_or("no protocol"))
            );
        }
    }
    keep(backtest.end());
    let summary = backtest.summary();
    let changed: u64 = summary.changed.values().sum();
    let text = if global.json {
        let object = json!({
            "session": session,
            "summary": summary,
            "exchanges": findings,
            "differences": changed,
        });
        format!("{}\n", quiet(&object.to_string()))
    } else {
        let plural = |number: u64, what| count(usize::try_from(number).unwrap_or(usize::MAX), what);
        let mut text = shown(&findings);
        text.push_str(&format!(
            "{} judged, {changed} of them otherwise",
            plural(summary.judged, "exchange"),
        ));
        if summary.not_judged > 0 {
            text.push_str(&format!(
                "; {} cannot be judged",
                plural(summary.not_judged, "exchange")
            ));
        }
        text.push('\n');
        text
    };
    std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes())?;
    Ok(match changed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The findings as a table.
fn shown(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let head = ["", "EXCHANGE", "THEN", "NOW", "COMMAND"].map(str::to_owned);
    let rows = findings.iter().map(|one| {
        let now = match (&one.would, one.unjudged) {
            (Some(would), _) => format!("{would}{}", by(one.would_by.as_deref())),
            (None, why) => format!("? {}", why.unwrap_or_default()),
        };
        let mark = if one.differs() { "!" } else { "" };
        vec![
            mark.to_owned(),
            one.exchange.to_string(),
            escape::line(&format!("{}{}", one.was, by(one.was_by.as_deref()))).into_owned(),
            escape::line(&now).into_owned(),
            cut(&escape::line(&one.line), LINE),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(rows).collect();
    table(&rows)
}
