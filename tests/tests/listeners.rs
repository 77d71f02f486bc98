//! An explicit local address for a target: for hosts without eBPF, the same way
//! from accept on. Needs neither root nor the kernel.

use std::process::Command;

use anyhow::Result;
use interceptor_tests::place;
use interceptor_tests::world::{Plan, World, target};
use serde_json::json;

#[test]
fn a_listener_judges_masks_and_records_without_the_kernel() -> Result<()> {
    let plan = Plan {
        rules: "version: 1\nrules:\n  - name: no-drop\n    match: { postgres: { statement: [DROP] }, principal: { agent: visitor } }\n    \
                verdict: block\n  - name: hidden\n    match: { protocol: postgres }\n    \
                mask: [{ columns: [\"users.ssn\"], with: redact }]\n",
        config: |postgres, place| {
            let port = place::free_port().unwrap_or(0);
            let _ = place.file("port", &port.to_string());
            json!({
                "intercept": { "kernel": false },
                "targets": [target(postgres)],
                "listeners": [{
                    "listen": format!("127.0.0.1:{port}"),
                    "target": "shop",
                    "agent": "visitor",
                }],
            })
        },
        ..Plan::default()
    };
    let world = World::start(&plan)?;
    world.test(|world| {
        let port = std::fs::read_to_string(world.place.path("port"))?;
        let done = Command::new("psql")
            .args([
                "-XqAt",
                "-h",
                "127.0.0.1",
                "-U",
                "agent",
                "-d",
                "postgres",
                "-p",
                &port,
            ])
            .args([
                "-c",
                "SELECT name, ssn FROM users WHERE id = 1",
                "-c",
                "DROP TABLE users",
            ])
            .output()?;
        let stdout = String::from_utf8_lossy(&done.stdout);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(stdout.contains("Ada Lovelace"), "{stdout}{stderr}");
        assert!(!stdout.contains("219-09-9999"), "{stdout}");
        assert!(stderr.contains("no-drop"), "{stderr}");
        assert!(!world.postgres.saw("DROP TABLE users"));
        let (_, events) = world.records()?.only_session_of("visitor")?;
        assert!(events.iter().any(|event| event.kind == "verdict"));
        Ok(())
    })
}
