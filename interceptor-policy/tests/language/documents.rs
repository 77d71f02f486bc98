//! The examples of the rule language's manual are rules.

use interceptor_policy::testing;

use super::*;

const MANUAL: &str = include_str!("../../../docs/rules.md");

/// The blocks of YAML, in order.
fn examples() -> Vec<&'static str> {
    let mut parts = MANUAL.split("```yaml\n");
    parts.next();
    parts.filter_map(|part| part.split("```").next()).collect()
}

/// An example made into a file: it is one, or a part of a rule, or tests.
fn file(example: &str) -> String {
    let first = example.trim_start().split(':').next().unwrap_or_default();
    let inside = |indent: &str| {
        let lines = example.lines().map(|line| format!("{indent}{line}\n"));
        lines.collect::<String>()
    };
    match first {
        "version" => example.to_owned(),
        "risk" => format!("version: 1\n{example}"),
        "- name" => format!("version: 1\ntests:\n{}", inside("  ")),
        _ => {
            let mut rule = "version: 1\nrules:\n  - name: example\n".to_owned();
            if !example.starts_with("match:") {
                rule.push_str("    match: {}\n");
            }
            if first == "match" {
                rule.push_str("    verdict: block\n");
            }
            rule + &inside("    ")
        }
    }
}

#[test]
fn every_example_of_the_manual_is_taken() {
    let examples = examples();
    assert!(examples.len() >= 9, "{}", examples.len());
    for example in examples {
        let text = file(example);
        let source = Source {
            path: "rules.md".into(),
            text,
        };
        if let Err(faults) = RuleSet::load(&[source]) {
            // A test may be of a rule that another example has, and a rule
            // beside the file's own.
            for fault in faults.iter() {
                let elsewhere = fault.message.contains("a rule that does not exist")
                    || fault.level == interceptor_policy::diagnostic::Level::Warning;
                assert!(elsewhere, "{example}\n{fault}");
            }
        }
    }
}

#[test]
fn the_manuals_tests_of_requests_pass_on_its_rules() {
    let examples = examples();
    let of = |part: &str| examples.iter().find(|example| example.contains(part));
    let rules = of("the-api-is-read").unwrap();
    let tests = of("nobody is made an administrator").unwrap();
    let lines = tests.lines().map(|line| format!("  {line}\n"));
    let text = format!("{rules}\ntests:\n{}", lines.collect::<String>());
    let source = Source {
        path: "rules.md".into(),
        text,
    };
    let rules = Arc::new(RuleSet::load(&[source]).unwrap());
    assert!(rules.warnings().is_empty(), "{}", rules.warnings());
    let outcome = testing::run(&rules.tests()[0], &rules, |_| Sql::default());
    assert!(outcome.passed(), "{:?}", outcome.failures);
}

#[test]
fn the_shipped_pack_for_http_does_what_its_tests_say() {
    let source = Source {
        path: "http-baseline.yaml".into(),
        text: include_str!("../../../rules/optional/http-baseline.yaml").into(),
    };
    let rules = Arc::new(RuleSet::load(&[source]).unwrap());
    assert!(rules.warnings().is_empty(), "{}", rules.warnings());
    for case in rules.tests() {
        let outcome = testing::run(case, &rules, |_| Sql::default());
        assert!(outcome.passed(), "{}: {:?}", case.name, outcome.failures);
    }
}
