//! `interceptor rules explain`: one statement, held against every rule.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use interceptor_engine::pg::sql::classify;
use interceptor_policy::{
    DefaultVerdict, Detector, Operation, PgOperation, Principal, Protocol, Subject, Target, Verdict,
};
use serde_json::json;

use super::super::Global;
use super::{load, print, print_json, table};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Rule files, or folders of them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The statement, or statements of one message
    #[arg(long, value_name = "SQL")]
    postgres: String,
    /// The agent's name
    #[arg(long, default_value = "agent")]
    agent: String,
    /// A label of the agent, as NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// The agent's login name
    #[arg(long, value_name = "USER")]
    login: Option<String>,
    /// The agent's executable
    #[arg(long, value_name = "FILE")]
    exe: Option<String>,
    /// The target's name; its default verdict is taken from the configuration
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// The target's host name
    #[arg(long)]
    host: Option<String>,
    /// The target's address
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// The target's port
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// Whether the agent's connection is encrypted
    #[arg(long)]
    tls: bool,
    /// The database asked for
    #[arg(long, default_value = "postgres")]
    database: String,
    /// The database user asked for
    #[arg(long, default_value = "postgres")]
    user: String,
    /// What decides when no rule does [default: as configured, or block]
    #[arg(long, value_enum)]
    default: Option<Default>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Default {
    Allow,
    Block,
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write NAME=VALUE".to_owned())
}

pub(super) fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let rules = load(global, &args.paths)?;
    let subject = subject(global, args)?;
    let sql = classify(&args.postgres);
    let operation = Operation::Postgres(PgOperation {
        sql: &sql,
        text: &args.postgres,
        database: &args.database,
        user: &args.user,
        meaning: None,
    });
    let scope = rules.scope(&subject);
    let judgement = scope.decide(&operation);
    let (verdict, refusal) = match &judgement.verdict {
        Verdict::Allow(_) => ("allow", None),
        Verdict::Hold(hold) => ("hold", Some(&hold.reason)),
        Verdict::Block(refusal) => ("block", Some(refusal)),
        Verdict::Kill(refusal) => ("kill", Some(refusal)),
    };
    let hidden: Vec<String> = judgement
        .masks
        .iter()
        .flat_map(|masks| {
            let columns = masks
                .columns()
                .map(|(pattern, with)| format!("{pattern}: {}", with.name()));
            let values = Detector::NAMES.iter().filter_map(|(name, detector)| {
                let with = masks.detect()?.transform(*detector)?;
                Some(format!("{name}: {}", with.name()))
            });
            let patterns = masks.detect().into_iter().flat_map(|plan| plan.patterns());
            let patterns = patterns.map(|(source, with)| format!("{source}: {}", with.name()));
            columns.chain(values).chain(patterns).collect::<Vec<_>>()
        })
        .collect();
    let explanations = scope.explain(&operation);
    if global.json {
        let statements: Vec<_> = sql
            .statements
            .iter()
            .map(|statement| {
                json!({
                    "tags": statement.tags,
                    "classes": statement.classes.names().collect::<Vec<_>>(),
                    "tables": texts(&statement.tables),
                    "columns": texts(&statement.columns),
                    "functions": texts(&statement.functions),
                    "where": statement.where_clause.map(|clause| clause.name()),
                })
            })
            .collect();
        let rules: Vec<_> = explanations
            .iter()
            .map(|e| json!({ "rule": &*e.rule, "applied": e.applied, "because": e.because }))
            .collect();
        print_json(&json!({
            "verdict": verdict,
            "rule": refusal.and_then(|refusal| refusal.rule.as_deref()),
            "message": refusal.map(|refusal| &*refusal.message),
            "record": judgement.record.name(),
            "risk": judgement.risk,
            "severity": judgement.severity.map(|severity| severity.name()),
            "masks": hidden,
            "statements": statements,
            "rules": rules,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for statement in &sql.statements {
        let kinds: Vec<_> = statement.classes.names().collect();
        text.push_str(&format!(
            "{} ({})\n",
            statement.tags.join(", "),
            kinds.join(", ")
        ));
    }
    text.push_str(&match refusal {
        Some(refusal) => format!(
            "verdict: {verdict} by {}: {}\n",
            refusal.rule.as_deref().unwrap_or("the target's default"),
            refusal.message
        ),
        None => format!("verdict: {verdict}\n"),
    });
    if !hidden.is_empty() {
        text.push_str(&format!("masks: {}\n", hidden.join(", ")));
    }
    text.push('\n');
    let mut rows = vec![["RULE", "APPLIES", "BECAUSE"].map(str::to_owned).to_vec()];
    rows.extend(explanations.iter().map(|explanation| {
        let applies = if explanation.applied { "yes" } else { "no" };
        vec![
            explanation.rule.to_string(),
            applies.to_owned(),
            explanation.because.clone(),
        ]
    }));
    text.push_str(&table(&rows));
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn texts<T: ToString>(things: &[T]) -> Vec<String> {
    things.iter().map(ToString::to_string).collect()
}

/// The session that is asked about.
fn subject(global: &Global, args: &Args) -> anyhow::Result<Subject> {
    let default = match args.default {
        Some(Default::Allow) => DefaultVerdict::Allow,
        Some(Default::Block) => DefaultVerdict::Block,
        None => configured_default(global, args.target.as_deref())?,
    };
    Ok(Subject {
        principal: Principal {
            agent: args.agent.clone(),
            user: args.login.clone(),
            exe: args.exe.clone(),
            labels: args.label.iter().cloned().collect::<BTreeMap<_, _>>(),
            ..Principal::default()
        },
        target: Target {
            name: args.target.clone(),
            host: args.host.clone(),
            address: args.address,
            port: args.port,
            tls: args.tls,
            default,
        },
        protocol: Protocol::Postgres,
    })
}

fn configured_default(global: &Global, target: Option<&str>) -> anyhow::Result<DefaultVerdict> {
    let config = Config::load(global.config.as_deref())?;
    let configured = config
        .targets
        .iter()
        .find(|configured| Some(configured.name.as_str()) == target)
        .and_then(|configured| configured.default);
    Ok(configured.unwrap_or(config.intercept.default))
}
