//! `interceptor rules test`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use interceptor_engine::pg::sql::classify;
use interceptor_engine::ssh::command;
use interceptor_policy::testing;
use serde_json::json;

use super::super::Global;
use super::{count, load, print, print_json, request_of};

/// What judges traffic reads the tests too.
const READERS: testing::Readers<'static> = testing::Readers {
    sql: &classify,
    http: &request_of,
    line: &|line| command::read(line.as_bytes()),
};

pub(super) fn run(global: &Global, paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let rules = load(global, paths)?;
    let mut text = String::new();
    let mut cases = Vec::new();
    let mut failed = 0;
    let mut reached = BTreeSet::new();
    for case in rules.tests() {
        let outcome = testing::run_by(case, &rules, &READERS);
        let word = if outcome.passed() { "pass" } else { "FAIL" };
        text.push_str(&format!("{word}  {}\n", case.name));
        for failure in &outcome.failures {
            text.push_str(&format!(
                "      {failure}\n      --> {}:{}:{}\n",
                case.path.display(),
                case.at.line,
                case.at.column
            ));
        }
        failed += usize::from(!outcome.passed());
        cases.push(json!({
            "name": case.name,
            "file": case.path.display().to_string(),
            "line": case.at.line,
            "passed": outcome.passed(),
            "failures": outcome.failures,
        }));
        reached.extend(outcome.applied);
    }
    let untested: Vec<&str> = rules
        .rules()
        .iter()
        .map(|rule| &**rule.name())
        .filter(|name| !reached.contains(*name))
        .collect();
    if global.json {
        print_json(&json!({
            "ok": failed == 0,
            "tests": cases,
            "rules": rules.rules().len(),
            "untested": untested,
        }))?;
    } else {
        let covered = rules.rules().len() - untested.len();
        text.push_str(&format!(
            "{}, {failed} failed; {covered} of {} applied in one of them\n",
            count(rules.tests().len(), "test"),
            count(rules.rules().len(), "rule"),
        ));
        if !untested.is_empty() {
            text.push_str(&format!("in none: {}\n", untested.join(", ")));
        }
        print(&text)?;
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
