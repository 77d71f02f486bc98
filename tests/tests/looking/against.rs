//! `interceptor replay SESSION --against RULES`.

use anyhow::Result;
use interceptor_tests::sshd;
use interceptor_tests::web;
use interceptor_tests::world::{Plan, Shared, World};
use serde_json::Value;

const RULES: &str = r#"
version: 1
rules:
  - { name: no-drop, match: { postgres: { statement: DROP } }, verdict: block }
  - { name: no-note, match: { postgres: { tables: [notes] } }, record: metadata }
"#;

static WORLD: Shared = Shared::new(|| Plan {
    rules: RULES,
    ..Plan::default()
});

/// What other rules say of a session, with the exit code.
fn against(world: &World, session: &str, rules: &str, options: &[&str]) -> Result<(i32, String)> {
    let name = format!("against-{}.yaml", rules.len());
    let file = world.place.file(&name, rules)?;
    let file = file.display().to_string();
    let options = [&["replay", session, "--against", &file], options].concat();
    let done = world.daemon.command(&options)?;
    let text = String::from_utf8(done.stdout)? + &String::from_utf8(done.stderr)?;
    Ok((done.status.code().unwrap_or(-1), text))
}

#[test]
fn other_rules_say_what_they_would_have_done_of_statements() -> Result<()> {
    WORLD.test(|world| {
        let psql = "CREATE TABLE notes (id int);\nSELECT name FROM users;\nDROP TABLE users;\nSELECT 1;\n";
        world.agent("judged").psql(world.postgres.port, psql)?.ok()?;
        let (id, _) = world.records()?.only_session_of("judged")?;

        let (code, same) = against(world, &id, RULES, &[])?;
        assert_eq!(code, 0, "{same}");
        assert!(same.contains("3 exchanges judged, 0 of them otherwise; 1 exchange cannot"), "{same}");
        assert!(same.contains("only metadata of it is on record"), "{same}");

        let other = "version: 1\nrules:\n  - { name: no-users, match: { postgres: { tables: [users], statement: SELECT } }, verdict: hold }\n";
        let (code, text) = against(world, &id, other, &[])?;
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("block (no-drop)  allow"), "{text}");
        assert!(text.contains("hold (no-users)"), "{text}");
        assert!(!text.contains("SELECT 1"), "{text}");
        let (_, text) = against(world, &id, other, &["--all"])?;
        assert!(text.contains("SELECT 1"), "{text}");

        let (code, text) = against(world, &id, other, &["--json"])?;
        let object: Value = serde_json::from_str(&text)?;
        assert_eq!((code, &object["differences"]), (1, &Value::from(2)));
        let (code, text) = against(world, &id, "version: 1\nrules: [{ nam: x }]\n", &[])?;
        assert_eq!(code, 1);
        assert!(text.contains("the rules are refused"), "{text}");
        Ok(())
    })
}

static WEB: web::Shared = web::Shared::new(web::Plan {
    rules: "
version: 1
rules:
  - { name: no-secret, match: { http: { path: '/secret/**' } }, verdict: block }
  - { name: heads-only, match: { http: { path: /heads } }, record: metadata }
",
    config: web::all_targets,
});

#[test]
fn other_rules_say_what_they_would_have_done_of_requests_and_what_they_cannot_say() -> Result<()> {
    WEB.test(|web| {
        let url = |path: &str| format!("http://127.0.0.1:{}{path}", web.nginx.port);
        let words = [
            "curl", "-sS", "-H", "Authorization: Bearer t0p", "-d", "amount=7",
            &url("/pay"), &url("/heads"), &url("/secret/x"),
        ];
        web.agent("payer").run(&words)?;
        let (id, _) = web.records()?.only_session_of("payer")?;
        let judged = |rules: &str| -> Result<Value> {
            let file = web.place.file(&format!("rules-{}.yaml", rules.len()), rules)?;
            let file = file.display().to_string();
            let done = web.daemon.command(&["--json", "replay", &id, "--all", "--against", &file])?;
            Ok(serde_json::from_slice(&done.stdout)?)
        };
        let bodies = judged(
            "version: 1\nrules:\n  - { name: dear, match: { http: { body: { /amount: '7' } } }, verdict: block }\n",
        )?;
        let why = |object: &Value, index: usize| object["exchanges"][index]["unjudged"].to_string();
        assert_eq!(bodies["exchanges"][0]["would"], "block", "{bodies}");
        assert!(why(&bodies, 1).contains("only metadata"), "{bodies}");
        assert!(why(&bodies, 2).contains("body is not on record"), "{bodies}");
        assert_eq!(bodies["exchanges"][2]["was_by"], "no-secret", "{bodies}");
        let none = judged("version: 1\nrules: []\n")?;
        assert_eq!(none["exchanges"][2]["would"], "allow", "{none}");
        let hidden = judged(
            "version: 1\nrules:\n  - { name: t, match: { http: { header: { authorization: 'Bearer x' } } }, verdict: block }\n",
        )?;
        for index in [0, 2] {
            assert!(why(&hidden, index).contains("hidden"), "{hidden}");
        }
        Ok(())
    })
}

static SHELL: sshd::Shared = sshd::Shared::new(sshd::Plan {
    rules: "
version: 1
rules:
  - { name: no-rm, match: { ssh: { program: rm } }, verdict: block }
",
    config: sshd::with_credentials,
});

#[test]
fn other_rules_say_what_they_would_have_done_of_command_lines() -> Result<()> {
    SHELL.test(|shell| {
        shell.ssh("judged-shell", &["rm /nowhere; id"])?;
        let (id, _) = shell.records()?.only_session_of("judged-shell")?;
        let judged = |rules: &str| -> Result<(Option<i32>, Value)> {
            let file = shell.place.file(&format!("rules-{}.yaml", rules.len()), rules)?;
            let file = file.display().to_string();
            let done = shell
                .daemon
                .command(&["--json", "replay", &id, "--all", "--against", &file])?;
            Ok((done.status.code(), serde_json::from_slice(&done.stdout)?))
        };
        let same = "version: 1\nrules:\n  - { name: no-rm, match: { ssh: { program: rm } }, verdict: block }\n";
        let (code, object) = judged(same)?;
        assert_eq!(code, Some(0), "{object}");
        assert_eq!(object["summary"]["not_judged"], 0, "{object}");
        let (code, object) = judged(&same.replace("rm", "id"))?;
        assert_eq!(code, Some(0), "`id` is in the same line: {object}");
        let (code, object) = judged(&same.replace("program: rm", "program: [reboot]"))?;
        assert_eq!(code, Some(1), "{object}");
        assert_eq!(object["exchanges"][0]["was_by"], "no-rm", "{object}");
        Ok(())
    })
}
