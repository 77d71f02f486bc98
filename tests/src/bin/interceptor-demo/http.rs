//! HTTP: pages under TLS, and an agent that asks for them with curl.

use anyhow::{Context as _, Result, ensure};
use interceptor_tests::web::{Plan, Web, target};
use serde_json::{Value, json};

use crate::rules;
use crate::style::{GREEN, Style};

/// Beside the shipped pack: what is hidden, and what nobody may do.
const RULES: &str = r#"
version: 1
rules:
  - name: cards-are-masked
    match: { protocol: http }
    mask: [{ json: ["/**/card"], with: { partial: { keep_last: 4 } } }]
  - name: customers-stay
    match: { http: { method: DELETE, path: "/files/**" } }
    verdict: block
    message: Customers are deleted by the people who look after them.
"#;

/// What only Interceptor knows.
const TOKEN: &str = "Bearer the-real-token-quixotry";

/// What the agent does. Lines that begin with `#` are headings.
const SCRIPT: &str = r##"
echo '# Reading a customer, over TLS that was opened and trusted without a word: the card comes masked'
curl -sS "$PAGES/files/customer.json"; echo
echo '# A path that a server would read as another is judged as that other'
curl -sS --path-as-is -X DELETE "$PAGES/x/..//files/%63ustomer.json"; echo
echo '# What no rule allows is refused; the answer says so in a form that programs read'
curl -sS -i -X POST -d name=Eve "$PAGES/customers" | tr -d '\r' | grep -v '^date'; echo
echo '# The agent sends a token of its own; what arrives is the one that it never sees'
echo 'Authorization: Bearer made-up' | curl -sS -H @- "$PAGES/me"
"##;

/// Shows it; gives what runs, and the first session that was recorded.
pub(crate) fn show(style: &Style) -> Result<(Web, String)> {
    style.title("Starting a private nginx with TLS, another Redis, and Interceptor");
    let web = Web::start(&Plan {
        rules: RULES,
        config: |nginx, place| {
            let token = place.private_file("token", TOKEN)?;
            let own = place.file("customers.yaml", RULES)?;
            let settings = json!({
                "default": "block",
                "tls": { "ca": nginx.certificates.ca },
                "credentials": { "header": "Authorization", "value": { "file": token } },
            });
            Ok(json!({
                "targets": [target("pages", nginx.port_tls, &settings)],
                "rules": [rules().join("optional/http-baseline.yaml"), own],
            }))
        },
    })?;
    println!("   nginx        https://localhost:{}", web.nginx.port_tls);
    println!("   Redis        127.0.0.1:{}", web.redis.port);
    println!(
        "   Interceptor  {} and two rules more",
        rules().join("optional/http-baseline.yaml").display()
    );

    style.title("An agent works with plain curl; it has no key to anything");
    let transcript = agent_at_work(style, &web)?;
    check(&web, &transcript)?;

    style.title("What was recorded, in Redis");
    let session = recorded(style, &web)?;

    style.title("The first of the sessions again");
    let replay = web.daemon.ask(&["replay", &session, "--speed", "10"])?;
    style.answer(&replay);
    ensure!(
        replay.contains("customer.json"),
        "the replay does not show the request"
    );
    web.daemon.never_panicked()?;
    Ok((web, session))
}

fn agent_at_work(style: &Style, web: &Web) -> Result<String> {
    let pages = format!("https://localhost:{}", web.nginx.port_tls);
    let script = format!("PAGES={pages}\n{SCRIPT}");
    style.script(&web.daemon, &format!("curl {pages}/…"), &script)
}

/// The demo claims something: is it so?
fn check(web: &Web, transcript: &str) -> Result<()> {
    ensure!(!transcript.contains("4111 1111"), "the card was not masked");
    ensure!(
        transcript.contains("Ada"),
        "what no rule hides did not come"
    );
    ensure!(
        transcript.contains("customers-stay"),
        "the DELETE was not refused by its rule"
    );
    ensure!(
        transcript.contains("403"),
        "what no rule allows was not refused"
    );
    ensure!(
        !web.nginx.saw("/customers")? && !web.nginx.saw("%63ustomer")?,
        "what was refused reached the service"
    );
    let asked = web.nginx.asked_for("/me")?;
    let arrived = asked.first().and_then(|one| one.get("authorization"));
    ensure!(
        arrived.and_then(Value::as_str) == Some(TOKEN),
        "the service did not get the real token"
    );
    ensure!(
        !transcript.contains("quixotry"),
        "the agent saw the real token"
    );
    Ok(())
}

fn recorded(style: &Style, web: &Web) -> Result<String> {
    let mut records = web.records()?;
    let sessions = records.closed_sessions_of("demo-agent", 4)?;
    for (_, events) in &sessions {
        style.events(events);
    }
    println!();
    let mut found = 0;
    for secret in ["quixotry", "4111 1111", "made-up"] {
        found += records.keys_that_hold(secret.as_bytes())?.len();
    }
    ensure!(found == 0, "a masked value or a token is in the store");
    style.line(
        GREEN,
        "   Searched every key of Redis for the card and both tokens: found nowhere.",
    );
    let (first, _) = sessions.into_iter().next().context("no session")?;
    Ok(first)
}
