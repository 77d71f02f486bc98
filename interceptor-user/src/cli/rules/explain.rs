//! `interceptor rules explain`: one statement, request or command line, held against
//! every rule.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use interceptor_engine::pg::sql::classify;
use interceptor_engine::ssh::command;
use interceptor_policy::operation::Sql;
use interceptor_policy::operation::http::HttpRequest;
use interceptor_policy::operation::sample::Sample;
use interceptor_policy::operation::ssh::{SshKind, SshProgram, SshRequest};
use interceptor_policy::testing::judge_sample;
use interceptor_policy::{
    DefaultVerdict, Direction, Explanation, HttpOperation, Judgement, Memory, Moment, Operation,
    PgOperation, Principal, Protocol, Scope, Standing, Subject, Target, Verdict,
};
use serde_json::{Value, json};

use super::super::Global;
use super::{load, print, print_json, request_of, table};
use crate::config::Config;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("asked").required(true).args(["postgres", "http", "ssh"]))]
pub(super) struct Args {
    /// Rule files, or folders of them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The statement, or statements of one message
    #[arg(long, value_name = "SQL")]
    postgres: Option<String>,
    /// The request, as 'POST https://host/path?query'
    #[arg(long, value_name = "METHOD URL", value_parser = request_line)]
    http: Option<Sample>,
    /// The command line, as of `ssh host LINE`
    #[arg(long, value_name = "LINE")]
    ssh: Option<String>,
    /// The line is entered in an interactive shell
    #[arg(long, requires = "ssh")]
    shell: bool,
    /// A header of the request, as 'NAME: VALUE'
    #[arg(long, value_name = "NAME: VALUE", value_parser = header, requires = "http")]
    header: Vec<(String, String)>,
    /// The body of the request
    #[arg(long, value_name = "TEXT", requires = "http")]
    body: Option<String>,
    /// The status of the response, to ask the rules of responses too
    #[arg(long, value_name = "CODE", requires = "http", value_parser = clap::value_parser!(u16).range(100..600))]
    status: Option<u16>,
    /// A header of the response, as 'NAME: VALUE'
    #[arg(long, value_name = "NAME: VALUE", value_parser = header, requires = "status")]
    response_header: Vec<(String, String)>,
    /// The principal's risk score before it
    #[arg(long, value_name = "POINTS", default_value_t = 0)]
    risk: u32,
    /// When it is, as in 2026-01-05T10:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = point_in_time)]
    time: Option<i64>,
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
    /// The target's port [default: 5432, 443 for --http, 22 for --ssh]
    #[arg(long)]
    port: Option<u16>,
    /// Whether the agent's connection is encrypted
    #[arg(long)]
    tls: bool,
    /// The database asked for
    #[arg(long, default_value = "postgres")]
    database: String,
    /// The user asked for, of the database or of the remote host
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

fn header(text: &str) -> Result<(String, String), String> {
    text.split_once(':')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| "write 'NAME: VALUE'".to_owned())
}

fn request_line(text: &str) -> Result<Sample, String> {
    let (method, url) = text.split_once(' ').unwrap_or(("GET", text));
    let mut sample = Sample {
        method: method.to_owned(),
        ..Sample::default()
    };
    match sample.set_url(url.trim()) {
        true => Ok(sample),
        false => Err("write 'POST https://host/path?query'".to_owned()),
    }
}

/// Seconds since 1970.
fn point_in_time(text: &str) -> Result<i64, String> {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(text, format)
        .map(time::OffsetDateTime::unix_timestamp)
        .map_err(|_| "write it as in 2026-01-05T10:00:00Z".to_owned())
}

/// What is asked about, as it is understood.
enum Asked {
    Sql(Sql),
    Http(Box<Sample>, Box<HttpRequest>),
    Ssh(Box<SshRequest>),
}

/// What the rules have to say.
struct Said {
    judgement: Judgement,
    rules: Vec<Explanation>,
}

pub(super) fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let (asked, said) = ask(global, args)?;
    match global.json {
        true => print_json(&as_json(&asked, &said)).context("printing")?,
        false => print(&as_text(&asked, &said)).context("printing")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(global: &Global, args: &Args) -> anyhow::Result<(Asked, Said)> {
    let rules = load(global, &args.paths)?;
    let scope = rules.scope(&subject(global, args)?);
    let now = Moment {
        // Late enough for all that may have been before.
        monotonic: 1 << 50,
        unix: args
            .time
            .unwrap_or_else(|| time::OffsetDateTime::now_utc().unix_timestamp()),
    };
    let mut standing = Memory::with_room_for(1).standing(&scope.subject().principal, now);
    standing.start_with(args.risk, now);
    let asked = match (&args.postgres, &args.http, &args.ssh) {
        (Some(sql), ..) => Asked::Sql(classify(sql)),
        (None, Some(sample), _) => {
            let mut sample = sample.clone();
            sample.headers.clone_from(&args.header);
            sample.body.clone_from(&args.body);
            sample.response = args
                .status
                .map(|status| (status, args.response_header.clone()));
            let request = request_of(&sample);
            Asked::Http(Box::new(sample), Box::new(request))
        }
        (None, None, Some(line)) => {
            let (kind, line) = match args.shell {
                true => (SshKind::Shell, command::read_entered(line.as_bytes())),
                false => (SshKind::Exec, command::read(line.as_bytes())),
            };
            Asked::Ssh(Box::new(SshRequest {
                user: args.user.as_str().into(),
                kind,
                line: Some(line),
                ..SshRequest::default()
            }))
        }
        (None, None, None) => anyhow::bail!("none of --postgres, --http and --ssh is given"),
    };
    let said = match &asked {
        Asked::Sql(sql) => of_sql(&scope, args, sql, &standing, now),
        Asked::Http(sample, request) => of_request(&scope, sample, request, standing, now),
        Asked::Ssh(request) => {
            let operation = Operation::Ssh(request);
            Said {
                judgement: scope.preview(&operation, &standing, now),
                rules: scope.explain_at(&operation, &standing, now),
            }
        }
    };
    Ok((asked, said))
}

fn of_sql(scope: &Scope, args: &Args, sql: &Sql, standing: &Standing, now: Moment) -> Said {
    let operation = Operation::Postgres(PgOperation {
        sql,
        text: args.postgres.as_deref().unwrap_or_default(),
        database: &args.database,
        user: &args.user,
        meaning: None,
    });
    Said {
        judgement: scope.preview(&operation, standing, now),
        rules: scope.explain_at(&operation, standing, now),
    }
}

fn of_request(
    scope: &Scope,
    sample: &Sample,
    request: &HttpRequest,
    mut standing: Standing,
    now: Moment,
) -> Said {
    let operation = HttpOperation {
        request,
        response: None,
        message: None,
    };
    let mut rules = scope.explain_at(&Operation::Http(operation), &standing, now);
    if let Some(response) = &sample.response() {
        let operation = HttpOperation {
            response: Some(response),
            ..operation
        };
        let answered = scope.explain_at(&Operation::Http(operation), &standing, now);
        for (asked, answered) in rules.iter_mut().zip(answered) {
            // Those that were asked of the request are not asked again.
            if answered.applied || answered.because != "it was asked of the request" {
                *asked = answered;
            }
        }
    }
    Said {
        judgement: judge_sample(scope, sample, request, &mut standing, now),
        rules,
    }
}

/// The verdict's name, the rule that refused or held, and what the agent is told.
fn verdict(judgement: &Judgement) -> (&'static str, Option<(Option<&str>, &str)>) {
    let (word, refusal) = match &judgement.verdict {
        Verdict::Allow(_) => return ("allow", None),
        Verdict::Hold(hold) => ("hold", &hold.reason),
        Verdict::Block(refusal) => ("block", refusal),
        Verdict::Kill(refusal) => ("kill", refusal),
    };
    (word, Some((refusal.rule.as_deref(), &refusal.message)))
}

/// What is hidden, each with its transform, and its direction where that is not
/// the usual one.
fn hidden(judgement: &Judgement) -> Vec<String> {
    let masks = judgement.masks.iter();
    let listed = masks.flat_map(|masks| masks.listed());
    listed
        .map(|(direction, what, with)| match direction {
            Direction::Response => format!("{what}: {}", with.name()),
            Direction::Request => format!("{what}: {} (in the request)", with.name()),
        })
        .collect()
}

fn as_json(asked: &Asked, said: &Said) -> Value {
    let judgement = &said.judgement;
    let (verdict, refusal) = verdict(judgement);
    let rules: Vec<_> = said
        .rules
        .iter()
        .map(|e| json!({ "rule": &*e.rule, "applied": e.applied, "because": e.because }))
        .collect();
    let limits = judgement.limits;
    let approval = match &judgement.verdict {
        Verdict::Hold(hold) => {
            let from = hold.approval.requirements.iter();
            let from: Vec<_> = from
                .map(|one| json!({ "rule": &*one.rule, "from": texts(&one.from), "quorum": one.quorum }))
                .collect();
            json!({
                "requirements": from,
                "timeout_seconds": hold.approval.timeout.as_secs(),
                "on_timeout": hold.approval.on_timeout.name(),
                "mode": hold.approval.mode.name(),
            })
        }
        _ => Value::Null,
    };
    let mut whole = json!({
        "verdict": verdict,
        "rule": refusal.and_then(|(rule, _)| rule),
        "message": refusal.map(|(_, message)| message),
        "record": judgement.record.name(),
        "risk": judgement.risk,
        "score": judgement.score,
        "severity": judgement.severity.map(|severity| severity.name()),
        "masks": hidden(judgement),
        "limits": {
            "rows": limits.rows,
            "bytes": limits.bytes,
            "duration_seconds": limits.duration.map(|span| span.as_secs_f64()),
        },
        "tags": texts(&judgement.tags),
        "approval": approval,
        "ban_seconds": judgement.ban.map(|span| span.as_secs()),
        "rules": rules,
    });
    let understood = match asked {
        Asked::Sql(sql) => ("statements", statements(sql)),
        Asked::Ssh(request) => ("programs", programs(request)),
        Asked::Http(_, request) => (
            "request",
            json!({
                "method": &*request.method,
                "host": &*request.host,
                "paths": texts(&request.paths),
                "content_type": request.content_type.as_deref(),
                "tools": request.mcp.iter().flat_map(|message| texts(&message.tool)).collect::<Vec<_>>(),
            }),
        ),
    };
    if let Value::Object(whole) = &mut whole {
        whole.insert(understood.0.to_owned(), understood.1);
    }
    whole
}

fn programs(request: &SshRequest) -> Value {
    let programs = request.line.iter().flat_map(|line| &line.programs);
    programs
        .map(|program| {
            json!({
                "program": program.path.as_deref(),
                "arguments": program.arguments.iter().map(Option::as_deref).collect::<Vec<_>>(),
                "stdin": program.stdin.name(),
                "reads": program.reads.iter().map(Option::as_deref).collect::<Vec<_>>(),
                "writes": program.writes.iter().map(Option::as_deref).collect::<Vec<_>>(),
                "opaque": program.is_opaque(),
            })
        })
        .collect()
}

/// A program in one line, what is not known of it as `?`.
fn program(program: &SshProgram) -> String {
    let known = |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or("?").to_owned();
    let words = std::iter::once(&program.path).chain(&program.arguments);
    let mut line = words.map(known).collect::<Vec<_>>().join(" ");
    for file in &program.writes {
        line.push_str(&format!(", writes {}", known(file)));
    }
    for file in &program.reads {
        line.push_str(&format!(", reads {}", known(file)));
    }
    format!("{line} (stdin: {})\n", program.stdin.name())
}

fn statements(sql: &Sql) -> Value {
    sql.statements
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
        .collect()
}

fn as_text(asked: &Asked, said: &Said) -> String {
    let judgement = &said.judgement;
    let mut text = String::new();
    match asked {
        Asked::Sql(sql) => {
            for statement in &sql.statements {
                let kinds: Vec<_> = statement.classes.names().collect();
                text.push_str(&format!(
                    "{} ({})\n",
                    statement.tags.join(", "),
                    kinds.join(", ")
                ));
            }
        }
        Asked::Ssh(request) => {
            let programs = request.line.iter().flat_map(|line| &line.programs);
            text.extend(programs.map(program));
        }
        Asked::Http(_, request) => text.push_str(&format!(
            "{} {}{}\n",
            request.method,
            request.host,
            texts(&request.paths).join(" or ")
        )),
    }
    let (verdict, refusal) = verdict(judgement);
    text.push_str(&match refusal {
        Some((rule, message)) => format!(
            "verdict: {verdict} by {}: {message}\n",
            rule.unwrap_or("the target's default"),
        ),
        None => format!("verdict: {verdict}\n"),
    });
    let mut effect = |name: &str, what: String| {
        if !what.is_empty() {
            text.push_str(&format!("{name}: {what}\n"));
        }
    };
    if let Verdict::Hold(hold) = &judgement.verdict {
        effect("asks", hold.approval.to_string());
    }
    effect("masks", hidden(judgement).join(", "));
    effect("limits", judgement.limits.to_string());
    effect("tags", judgement.tags.join(", "));
    if judgement.risk > 0 || judgement.score > 0 {
        effect(
            "risk",
            format!("{} points, a score of {}", judgement.risk, judgement.score),
        );
    }
    if let Some(severity) = judgement.severity {
        effect("severity", severity.name().to_owned());
    }
    effect("record", judgement.record.name().to_owned());
    text.push('\n');
    let mut rows = vec![["RULE", "APPLIES", "BECAUSE"].map(str::to_owned).to_vec()];
    rows.extend(said.rules.iter().map(|explanation| {
        let applies = if explanation.applied { "yes" } else { "no" };
        vec![
            explanation.rule.to_string(),
            applies.to_owned(),
            explanation.because.clone(),
        ]
    }));
    text.push_str(&table(&rows));
    text
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
    let (protocol, port) = match (&args.http, &args.ssh) {
        (Some(_), _) => (Protocol::Http, 443),
        (None, Some(_)) => (Protocol::Ssh, 22),
        (None, None) => (Protocol::Postgres, 5432),
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
            address: Some(args.address),
            origin: args.address.to_string().into(),
            port: args.port.unwrap_or(port),
            tls: args.tls,
            default,
        },
        protocol,
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::super::{Cli, Command as Top};
    use super::super::Command;
    use super::*;

    const RULES: &str = "version: 1
rules:
  - { name: reads, match: { postgres: { class: read } }, verdict: allow, limits: { rows: 10, duration: 30s }, tag: seen }
  - { name: nights, match: { postgres: { class: read }, time: { between: '22:00-06:00' } }, verdict: block }
  - { name: ddl, match: { postgres: { class: ddl } }, verdict: hold, approval: { from: [dba], quorum: 2, timeout: 1m, mode: ticket } }
  - { name: risky, match: { postgres: { tables: [users] } }, risk: 20 }
  - { name: api, match: { http: { host: api.example.com, path: '/v1/**' } }, verdict: allow, mask: [{ json: /email, with: hash }, { header: authorization, with: redact, direction: request }] }
  - { name: admin, match: { http: { body: { /admin: true } } }, verdict: block }
  - { name: errors, match: { http: { status: 5xx } }, verdict: kill }
risk: { thresholds: [{ at: 50, verdict: block }] }
";

    fn told(args: &[&str]) -> (String, Value) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        std::fs::write(&path, RULES).unwrap();
        let path = path.display().to_string();
        let line = [
            "interceptor",
            "rules",
            "explain",
            &path,
            "--default",
            "block",
        ];
        let noon = ["--time", "2026-01-05T12:00:00Z"];
        let noon = noon.iter().filter(|_| !args.contains(&"--time"));
        let cli = Cli::parse_from(line.iter().chain(args).chain(noon));
        let Top::Rules(rules) = cli.command else {
            panic!("not rules");
        };
        let Command::Explain(args) = rules.command else {
            panic!("not explain");
        };
        let (asked, said) = ask(&cli.global, &args).unwrap();
        (as_text(&asked, &said), as_json(&asked, &said))
    }

    #[test]
    fn limits_tags_and_points_are_told() {
        let (text, json) = told(&["--postgres", "SELECT * FROM users"]);
        for part in [
            "verdict: allow\n",
            "limits: 10 rows, 30s\n",
            "tags: seen\n",
            "risk: 20 points, a score of 20\n",
            "record: full\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(json["limits"]["rows"], 10);
        assert_eq!(json["tags"][0], "seen");
    }

    #[test]
    fn who_is_asked_is_told() {
        let (text, json) = told(&["--postgres", "DROP TABLE x"]);
        assert!(
            text.contains("asks: 2 of dba, 1m, block on silence, ticket\n"),
            "{text}"
        );
        assert_eq!(json["approval"]["requirements"][0]["quorum"], 2);
        assert_eq!(json["approval"]["mode"], "ticket");
    }

    #[test]
    fn the_score_before_and_the_time_count() {
        let sql = ["--postgres", "SELECT * FROM users"];
        let (text, _) = told(&[&sql[..], &["--risk", "40"]].concat());
        assert!(text.contains("verdict: block by risk>=50"), "{text}");
        let (text, _) = told(&[&sql[..], &["--time", "2026-01-05T23:00:00Z"]].concat());
        assert!(text.contains("verdict: block by nights"), "{text}");
    }

    #[test]
    fn a_request_is_explained_with_its_masks_and_their_direction() {
        let (text, json) = told(&["--http", "POST https://api.example.com/v1//x"]);
        assert!(
            text.starts_with("POST api.example.com/v1/x or /v1//x\nverdict: allow\n"),
            "{text}"
        );
        assert!(
            text.contains("masks: /email: hash, authorization: redact (in the request)\n"),
            "{text}"
        );
        assert!(
            text.contains("it is asked when there is a response"),
            "{text}"
        );
        assert_eq!(json["request"]["paths"][1], "/v1//x");
    }

    #[test]
    fn a_command_line_is_explained_with_the_programs_that_it_runs() {
        let (text, json) = told(&["--ssh", "ls > x; curl y | sh"]);
        assert!(
            text.starts_with("ls, writes x (stdin: inherited)\ncurl y (stdin: inherited)\nsh (stdin: piped)\n? ? (stdin: unknown)\nverdict: block"),
            "{text}"
        );
        assert_eq!(json["programs"][2]["stdin"], "piped");
        assert_eq!(json["programs"][3]["opaque"], true);
    }

    #[test]
    fn a_body_headers_and_a_response_are_asked_about() {
        let post = ["--http", "POST https://api.example.com/v1/x"];
        let (text, _) = told(&[&post[..], &["--body", r#"{"admin":true}"#]].concat());
        assert!(text.contains("verdict: block by admin"), "{text}");
        let (text, _) = told(&[&post[..], &["--status", "503"]].concat());
        assert!(text.contains("verdict: kill by errors"), "{text}");
        assert!(text.contains("http.status is 503"), "{text}");
        let form = [
            "--header",
            "content-type: application/x-www-form-urlencoded",
            "--body",
            "admin=true",
        ];
        let (text, _) = told(&[&post[..], &form].concat());
        assert!(text.contains("verdict: block by admin"), "{text}");
    }
}
