//! Numbers for Prometheus: served, true, and all that the dashboard asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::daemon::SOON;
use interceptor_tests::eventually;
use interceptor_tests::place::free_port;
use interceptor_tests::world::{Plan, World, alone, target};
use serde_json::{Value, json};

/// Where this test's daemon serves them.
fn plan() -> Plan {
    Plan {
        rules: r#"
version: 1
rules:
  - name: no-drop
    match: { postgres: { statement: [DROP] } }
    verdict: block
    severity: high
"#,
        config: |postgres, place| {
            let port = free_port().unwrap_or_default();
            let _ = place.file("metrics-port", &port.to_string());
            json!({
                "targets": [target(postgres)],
                "admin": { "metrics": format!("127.0.0.1:{port}") },
            })
        },
        ..Plan::default()
    }
}

fn url(world: &World) -> Result<String> {
    let port = std::fs::read_to_string(world.place.path("metrics-port"))?;
    Ok(format!("http://127.0.0.1:{port}"))
}

fn get(url: &str) -> Result<String> {
    let output = Command::new("curl")
        .args(["-sSf", "-m", "10", url])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Every value, by name and labels as they stand there.
fn values(page: &str) -> Result<BTreeMap<String, f64>> {
    let mut typed = BTreeSet::new();
    let mut values = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("a type")?;
            ensure!(typed.insert(name.to_owned()), "{name} stands there twice");
            ensure!(name.ends_with("_total") == (kind == "counter"), "{line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').context("a value")?;
            let bare = name.split('{').next().unwrap_or_default();
            ensure!(typed.contains(bare), "{bare} has no type");
            let before = values.insert(name.to_owned(), value.parse()?);
            ensure!(before.is_none(), "{name} stands there twice");
        }
    }
    Ok(values)
}

/// The names in a dashboard's expressions.
fn asked_for(dashboard: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    for target in panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
        let expression = target["expr"].as_str().unwrap_or_default();
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names =
            words.filter(|word| word.starts_with("interceptor_") || word.starts_with("process_"));
        found.extend(names.map(str::to_owned));
    }
    found
}

#[test]
fn what_happens_is_counted_and_the_dashboard_has_what_it_asks_for() -> Result<()> {
    alone(&plan(), |world| {
        let url = url(world)?;
        let before = values(&get(&format!("{url}/metrics"))?)?;
        assert_eq!(before.get("interceptor_recorder_connected"), Some(&1.0));
        assert_eq!(before.get("interceptor_rules"), Some(&1.0));
        let script = "SELECT 1;\nDROP TABLE users;\n";
        let _ = world.agent("counted").psql(world.postgres.port, script)?;
        world.records()?.only_session_of("counted")?;

        let mut page = String::new();
        eventually("the flow's end to be counted", SOON, || {
            page = get(&format!("{url}/metrics"))?;
            let values = values(&page)?;
            let closed = "interceptor_flows_closed_total{protocol=\"postgres\",target=\"shop\",verdict=\"block\"}";
            Ok(values.get(closed) == Some(&1.0))
        })?;
        let values = values(&page)?;
        let of = |name: &str| values.get(name).copied().unwrap_or(f64::NAN);
        let opened = "interceptor_flows_opened_total{protocol=\"postgres\",target=\"shop\"}";
        assert_eq!(of(opened), 1.0);
        assert_eq!(of("interceptor_flows{protocol=\"postgres\"}"), 0.0);
        assert!(of("interceptor_events_total{kind=\"command\"}") >= 2.0);
        assert!(of("interceptor_alerts_total{severity=\"high\"}") >= 1.0);
        assert!(of("interceptor_connects_redirected_total") >= 1.0);
        assert!(of("interceptor_recorded_events_total") >= 5.0);
        assert!(of("process_resident_memory_bytes") > 1e6);
        assert!(of("process_open_fds") > 5.0);

        // Whatever can come from the network or from an agent is no label.
        let (session, _) = world.records()?.only_session_of("counted")?;
        assert!(!page.contains(&session) && !page.contains("DROP"), "{page}");

        let dashboard = include_str!("../../packaging/grafana-dashboard.json");
        let dashboard: Value = serde_json::from_str(dashboard)?;
        let served: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let asked = asked_for(&dashboard);
        assert!(asked.len() > 20, "{asked:?}");
        for name in &asked {
            assert!(served.contains(name.as_str()), "{name} is not served");
        }
        let documents = include_str!("../../docs/operations.md");
        for name in &served {
            assert!(
                documents.contains(*name),
                "{name} is not in docs/operations.md"
            );
        }

        let head = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{content_type}",
                "-X",
                "POST",
            ])
            .arg(format!("{url}/metrics"))
            .output()?;
        assert!(String::from_utf8_lossy(&head.stdout).starts_with("405"));
        assert!(get(&format!("{url}/else")).is_err());
        Ok(())
    })
}
