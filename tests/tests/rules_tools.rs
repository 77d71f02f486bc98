//! Trust in rules before they are in force: recorded sessions judged anew, and a
//! first rule file learned from them.

use anyhow::{Context as _, Result};
use interceptor_tests::world::{Plan, Shared};
use serde_json::Value;

static WORLD: Shared = Shared::new(|| Plan {
    rules: r#"
version: 1
rules:
  - name: no-drop
    match: { postgres: { statement: DROP } }
    verdict: block
"#,
    ..Plan::default()
});

#[test]
fn other_rules_are_tried_on_what_was_recorded_and_differences_are_named() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        world.agent("past").psql(
            port,
            "SELECT name FROM users WHERE id = 1;\nDROP TABLE nothing;\nDELETE FROM orders WHERE id = -1;\n\
             PREPARE p AS DELETE FROM orders WHERE id = -2;\nEXECUTE p;\n",
        )?;
        world.records()?.only_session_of("past")?;
        let rules = world.place.file(
            "other.yaml",
            r#"
version: 1
rules:
  - name: ask-before-deleting
    match: { principal: { agent: past }, postgres: { statement: DELETE } }
    verdict: hold
  - name: hides
    match: { principal: { agent: past } }
    mask: [{ columns: ["users.ssn"], with: redact }]
"#,
        )?;
        let rules = rules.to_string_lossy();
        let found = world.daemon.ask(&["--json", "rules", "backtest", &rules, "--since", "1h"])?;
        let found: Value = serde_json::from_str(&found)?;
        let changes: Vec<(String, String, String)> = found["changes"]
            .as_array()
            .context("no changes")?
            .iter()
            .filter(|change| change["agent"] == "past")
            .map(|change| {
                let text = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
                (text("was"), text("would"), text("line"))
            })
            .collect();
        let expected = [
            ("block", "allow", "DROP TABLE nothing;"),
            ("allow", "hold", "DELETE FROM orders WHERE id = -1;"),
            ("allow", "hold", "PREPARE p AS DELETE FROM orders WHERE id = -2;"),
            ("allow", "hold", "EXECUTE p;"),
        ];
        let expected: Vec<(String, String, String)> = expected
            .iter()
            .map(|(was, would, line)| ((*was).into(), (*would).into(), (*line).into()))
            .collect();
        assert_eq!(changes, expected);
        let was_by = found["changes"].to_string();
        assert!(was_by.contains("\"was_by\":\"no-drop\""), "{was_by}");
        let text = world.daemon.ask(&["rules", "backtest", &rules])?;
        assert!(text.contains("ask-before-deleting"), "{text}");
        let strict = world.daemon.command(&["rules", "backtest", &rules, "--strict"])?;
        assert_eq!(strict.status.code(), Some(1));
        Ok(())
    })
}

#[test]
fn what_is_learned_allows_what_was_seen_and_nothing_else() -> Result<()> {
    WORLD.test(|world| {
        let port = world.postgres.port;
        world.agent("habit").psql(
            port,
            "SELECT name FROM users WHERE id = 1;\nUPDATE orders SET status = 'paid' WHERE id = 1;\nSELECT 1;\nDROP TABLE nothing;\n",
        )?;
        world.records()?.only_session_of("habit")?;
        let file = world.place.path("learned.yaml");
        let path = file.to_string_lossy();
        world.daemon.ask(&["rules", "learn", "--since", "1h", "--output", &path])?;
        let tested = world.daemon.ask(&["rules", "test", &path])?;
        assert!(tested.contains("0 failed"), "{tested}");
        let verdict = |sql: &str| -> Result<String> {
            let told = world.daemon.command(&[
                "--json", "rules", "explain", "--postgres", sql, "--agent", "habit", "--target", "shop",
                "--default", "block", &path,
            ])?;
            let told: Value = serde_json::from_slice(&told.stdout)?;
            Ok(told["verdict"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(verdict("SELECT email FROM users")?, "allow");
        assert_eq!(verdict("UPDATE orders SET status = 'x' WHERE id = 2")?, "allow");
        assert_eq!(verdict("SELECT * FROM scratch")?, "block");
        assert_eq!(verdict("DELETE FROM orders")?, "block");
        assert_eq!(verdict("DROP TABLE nothing")?, "block");
        let again = world.daemon.command(&["rules", "learn", "--output", &path])?;
        assert!(!again.status.success(), "a file that is there was written over");
        Ok(())
    })
}
