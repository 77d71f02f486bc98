//! `interceptor rules list`.

use std::path::PathBuf;
use std::process::ExitCode;

use interceptor_policy::Rule;
use serde_json::json;

use super::super::Global;
use super::{load, print, print_json, table};

pub(super) fn run(global: &Global, paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let rules = load(global, paths)?;
    if global.json {
        let list: Vec<_> = rules
            .rules()
            .iter()
            .map(|rule| {
                json!({
                    "name": &**rule.name(),
                    "description": rule.description(),
                    "verdict": rule.verdict().map(|verdict| verdict.name()),
                    "masks": rule.masks(),
                    "observes": rule.observes(),
                    "file": rule.path().display().to_string(),
                    "line": rule.line(),
                })
            })
            .collect();
        print_json(&json!({ "digest": rules.digest(), "rules": list }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        ["RULE", "DOES", "FILE", "DESCRIPTION"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(rules.rules().iter().map(|rule| {
        vec![
            rule.name().to_string(),
            does(rule),
            format!("{}:{}", rule.path().display(), rule.line()),
            rule.description().unwrap_or_default().to_owned(),
        ]
    }));
    print(&table(&rows))?;
    Ok(ExitCode::SUCCESS)
}

/// What a rule does, in a word or two.
fn does(rule: &Rule) -> String {
    let mut words = Vec::new();
    if let Some(verdict) = rule.verdict() {
        words.push(verdict.name());
    }
    if rule.masks() {
        words.push("mask");
    }
    if words.is_empty() {
        words.push("note");
    }
    if rule.observes() {
        words.push("(observing)");
    }
    words.join(" ")
}
