//! The rules that ship, held to the tests written in them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use interceptor_engine::pg::sql::classify;
use interceptor_engine::ssh::command::read;
use interceptor_policy::operation::sample::Sample;
use interceptor_policy::testing::{Readers, run_by};
use interceptor_policy::{RuleSet, Source};

/// Every rule file in a folder, without those in folders below.
#[allow(
    clippy::unwrap_used,
    reason = "a folder that cannot be read fails the test"
)]
fn sources(folder: &Path) -> Vec<Source> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path,
        })
        .collect()
}

#[allow(clippy::panic, reason = "rules with faults fail the test")]
fn load(sources: &[Source]) -> Arc<RuleSet> {
    match RuleSet::load(sources) {
        Ok(rules) => {
            assert!(rules.warnings().is_empty(), "{}", rules.warnings());
            Arc::new(rules)
        }
        Err(faults) => panic!("{faults}"),
    }
}

const READERS: Readers<'static> = Readers {
    sql: &classify,
    http: &Sample::request,
    line: &|line| read(line.as_bytes()),
};

fn passes_its_tests(rules: &Arc<RuleSet>) {
    let mut failures = Vec::new();
    let mut applied = BTreeSet::new();
    for case in rules.tests() {
        let outcome = run_by(case, rules, &READERS);
        for failure in outcome.failures {
            failures.push(format!("{}: {}: {failure}", case.path.display(), case.name));
        }
        applied.extend(outcome.applied);
    }
    for rule in rules.rules() {
        if !applied.contains(rule.name()) {
            failures.push(format!("{} applied in no test", rule.name()));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules")
}

#[test]
fn the_rules_that_hold_without_a_configuration_pass_their_tests_together() {
    let rules = load(&sources(&folder()));
    assert!(rules.tests().len() > 30);
    passes_its_tests(&rules);
}

#[test]
fn every_rule_file_passes_its_tests_alone() {
    for folder in [folder(), folder().join("optional")] {
        for source in sources(&folder) {
            let rules = load(&[source]);
            assert!(!rules.tests().is_empty());
            passes_its_tests(&rules);
        }
    }
}
