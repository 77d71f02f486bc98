//! `interceptor rules`: what an operator asks of rules before they are in force.

mod backtest;
mod explain;
pub(super) mod files;
mod learn;
mod list;
mod recorded;
mod test;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use interceptor_policy::operation::http::HttpRequest;
use interceptor_policy::operation::sample::Sample;
use interceptor_policy::{DefaultVerdict, Diagnostics, RuleSet, Source};
use serde_json::json;

use super::Global;
use crate::config::Config;

/// Checks, tests and explains rules.
///
/// Rules are read from the paths given, or else from the configuration, `./rules`
/// or `/etc/interceptor/rules`, as the daemon reads them.
///
/// Example: interceptor rules explain --postgres 'DROP TABLE users' --agent deploy-bot
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Checks rule files: what is wrong, where, and the fix
    ///
    /// Example: interceptor rules check rules
    #[command(verbatim_doc_comment)]
    Check(Paths),
    /// Runs the tests written in rule files, and names the rules that none of them reaches
    ///
    /// Example: interceptor rules test rules
    #[command(verbatim_doc_comment)]
    Test(Paths),
    /// Says which rules apply to a statement or a request, and why the others do not
    ///
    /// Example: interceptor rules explain --postgres 'DELETE FROM users' rules
    #[command(verbatim_doc_comment)]
    Explain(Box<explain::Args>),
    /// Judges recorded sessions anew, and says which verdicts would have been others
    ///
    /// Example: interceptor rules backtest rules --since 7d
    #[command(verbatim_doc_comment)]
    Backtest(backtest::Args),
    /// Writes a first rule file from what agents were seen to do, to be read and tightened
    ///
    /// Example: interceptor rules learn --since 7d > learned.yaml
    #[command(verbatim_doc_comment)]
    Learn(learn::Args),
    /// Lists the rules
    ///
    /// Example: interceptor rules list rules
    #[command(verbatim_doc_comment)]
    List(Paths),
    /// Prints the JSON schema of rule files, for editors
    ///
    /// Example: interceptor rules schema > rules.schema.json
    #[command(verbatim_doc_comment)]
    Schema,
}

/// Where rules are.
#[derive(Debug, clap::Args)]
struct Paths {
    /// Rule files, or folders of them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(paths) => check(global, &paths.paths),
        Command::Test(paths) => test::run(global, &paths.paths),
        Command::Explain(args) => explain::run(global, &args),
        Command::Backtest(args) => backtest::run(global, &args),
        Command::Learn(args) => learn::run(global, &args),
        Command::List(paths) => list::run(global, &paths.paths),
        Command::Schema => {
            print(interceptor_policy::SCHEMA)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(global: &Global, paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let sources = files::sources(global, paths)?;
    let loaded = RuleSet::load(&sources);
    let faults = match &loaded {
        Ok(rules) => rules.warnings(),
        Err(faults) => faults,
    };
    let (rules, tests) = loaded
        .as_ref()
        .map_or((0, 0), |rules| (rules.rules().len(), rules.tests().len()));
    if global.json {
        print_json(&json!({
            "ok": loaded.is_ok(),
            "files": sources.len(),
            "rules": rules,
            "tests": tests,
            "diagnostics": as_json(faults),
        }))?;
    } else {
        let mut text = faults.to_string();
        if !text.is_empty() {
            text.push('\n');
        }
        let warnings = faults.len() - faults.errors();
        text.push_str(&match &loaded {
            Ok(_) => format!(
                "{}, {}, {}: {}\n",
                count(sources.len(), "file"),
                count(rules, "rule"),
                count(tests, "test"),
                match warnings {
                    0 => "well".to_owned(),
                    some => count(some, "warning"),
                }
            ),
            Err(_) => format!(
                "{}, {}: refused\n",
                count(faults.errors(), "error"),
                count(warnings, "warning")
            ),
        });
        print(&text)?;
    }
    Ok(match loaded {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// The rules, or what is wrong with them as one error.
fn load(global: &Global, paths: &[PathBuf]) -> anyhow::Result<Arc<RuleSet>> {
    load_from(&files::sources(global, paths)?)
}

/// The same, of files that are read already.
pub(super) fn load_from(sources: &[Source]) -> anyhow::Result<Arc<RuleSet>> {
    RuleSet::load(sources)
        .map(Arc::new)
        .map_err(|faults| anyhow::anyhow!("the rules are refused\n{faults}"))
}

/// All that stands in rule files.
pub(super) fn text_of(sources: &[Source]) -> String {
    let texts: Vec<&str> = sources.iter().map(|source| source.text.as_str()).collect();
    texts.join("\n")
}

/// What decides at a target where no rule does, as it is configured now.
pub(super) fn default_of(config: &Config) -> impl Fn(Option<&str>) -> DefaultVerdict {
    let of_all = config.intercept.default;
    let targets: Vec<(String, Option<DefaultVerdict>)> = config
        .targets
        .iter()
        .map(|target| (target.name.clone(), target.default))
        .collect();
    move |target| {
        target
            .and_then(|name| targets.iter().find(|(one, _)| one == name))
            .and_then(|(_, default)| *default)
            .unwrap_or(of_all)
    }
}

/// A rule's name behind a verdict.
pub(super) fn by(rule: Option<&str>) -> String {
    rule.map(|rule| format!(" ({rule})")).unwrap_or_default()
}

/// A written request, read as traffic is; what could never be sent as HTTP (a
/// control character in a path, say) is read as it stands.
fn request_of(sample: &Sample) -> HttpRequest {
    let method = match sample.method.as_str() {
        "" => "GET",
        method => method,
    };
    let mut head = http::Request::builder()
        .method(method)
        .uri(format!("https://{}{}", sample.host, sample.path));
    for (name, value) in &sample.headers {
        head = head.header(name, value);
    }
    let Ok(head) = head.body(()) else {
        return sample.request();
    };
    let (head, ()) = head.into_parts();
    let body = sample.body.as_deref().map(str::as_bytes);
    HttpRequest {
        host_mismatch: sample.host_mismatch,
        ..interceptor_engine::http::read_request(&head, body)
    }
}

fn as_json(faults: &Diagnostics) -> serde_json::Value {
    faults
        .iter()
        .map(|fault| {
            json!({
                "level": fault.level.name(),
                "file": fault.path.display().to_string(),
                "line": fault.at.line,
                "column": fault.at.column,
                "message": fault.message,
                "help": fault.help,
            })
        })
        .collect()
}

pub(super) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn print(text: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes())
}

fn print_json(value: &serde_json::Value) -> std::io::Result<()> {
    print(&format!("{value:#}\n"))
}

/// Rows in columns; the last one is as wide as it is.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command as Top};
    use super::*;

    fn code(args: &[&str]) -> ExitCode {
        let args = ["interceptor", "rules"].iter().chain(args);
        let cli = Cli::parse_from(args);
        let Top::Rules(args) = cli.command else {
            panic!("not rules");
        };
        run(&cli.global, args).unwrap()
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        (folder, path)
    }

    const GOOD: &str = "version: 1
rules:
  - { name: no-drop, match: { postgres: { statement: DROP } }, verdict: block }
tests:
  - { name: t, postgres: DROP TABLE x, expect: { verdict: block, rule: no-drop } }
";

    #[test]
    fn good_rules_are_well_and_bad_ones_are_refused() {
        let (_folder, good) = file(GOOD);
        let (_folder, bad) = file("version: 1\nrules: [{ name: x, mtach: {}, verdict: block }]");
        assert_eq!(code(&["check", &good]), ExitCode::SUCCESS);
        assert_eq!(code(&["check", &good, "--json"]), ExitCode::SUCCESS);
        assert_eq!(code(&["check", &bad]), ExitCode::FAILURE);
        assert_eq!(code(&["check", &bad, "--json"]), ExitCode::FAILURE);
    }

    #[test]
    fn a_test_that_fails_fails_the_command() {
        let (_folder, good) = file(GOOD);
        let (_folder, bad) = file(&GOOD.replace("DROP TABLE x", "SELECT 1"));
        assert_eq!(code(&["test", &good]), ExitCode::SUCCESS);
        assert_eq!(code(&["test", &bad]), ExitCode::FAILURE);
        assert_eq!(code(&["test", &bad, "--json"]), ExitCode::FAILURE);
    }

    #[test]
    fn what_is_explained_and_listed_is_no_fault() {
        let (_folder, good) = file(GOOD);
        let explain = ["explain", "--postgres", "DROP TABLE x; SELECT 1", &good];
        assert_eq!(code(&explain), ExitCode::SUCCESS);
        assert_eq!(code(&["list", &good]), ExitCode::SUCCESS);
        assert_eq!(code(&["schema"]), ExitCode::SUCCESS);
    }
}
