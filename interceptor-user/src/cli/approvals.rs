//! `interceptor approvals`: the questions that wait for a person, and the answers.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use interceptor_engine::replay::escape;
use redis::Commands as _;
use redis::streams::StreamRangeReply;
use serde_json::json;

use super::Global;
use crate::admin::{self, Questions, Request};
use crate::approval::people::Person;
use crate::approval::signature::{Key, SignedAnswer};
use crate::approval::store::{question_key, stream_key};
use crate::approval::{Facts, State};
use crate::config::Config;
use crate::recorder::place::{Link, Place};
use crate::recorder::{Fault, url_to_read};
use crate::secrets;

/// How often `watch` looks.
const LOOK: Duration = Duration::from_millis(500);
/// Entries of the stream that `list --redis` goes back.
const BACK: usize = 1_000;

/// Lists, shows and answers the questions that rules put to people.
///
/// Answers go to the daemon of this host; with --redis they go by way of Redis to
/// whichever host asks, signed with `approvals.key` of the configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  interceptor approvals list")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Ask and answer by way of this Redis, for any host [default without a value: the configured one]
    #[arg(long, global = true, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    redis: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The questions that wait, and tickets that were answered (also without a subcommand)
    #[command(after_help = "Example:\n  interceptor approvals list --json")]
    List,
    /// One question: who, where, and exactly what
    #[command(after_help = "Example:\n  interceptor approvals show 4e1c-7")]
    Show {
        /// Its name, or the beginning or end of it
        id: String,
    },
    /// Lets it pass
    #[command(
        after_help = "Example:\n  interceptor approvals approve 4e1c-7 --reason 'ticket OPS-12'"
    )]
    Approve {
        /// Its name, or the beginning or end of it
        id: String,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
    },
    /// Refuses it
    #[command(
        after_help = "Example:\n  interceptor approvals deny 4e1c-7 --reason 'not on a Friday'"
    )]
    Deny {
        /// Its name, or the beginning or end of it
        id: String,
        /// Why; the agent is told
        #[arg(long)]
        reason: Option<String>,
    },
    /// Prints questions as they come, until interrupted
    #[command(after_help = "Example:\n  interceptor approvals watch --json")]
    Watch,
}

/// Runs the command.
///
/// # Errors
/// When there is no daemon, no such question, or the answer does not count.
pub(super) fn run(global: &Global, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(global.config.as_deref())?;
    let mut way = match &args.redis {
        None => Way::Socket,
        Some(given) => {
            let given = (!given.is_empty()).then_some(given.as_str());
            let url = url_to_read(given, &config.recorder, &config.runtime_dir)?;
            let connection = Place::open(&url)?
                .connect(Duration::from_secs(5))
                .map_err(|error| anyhow::anyhow!("Redis does not answer: {}", Fault::of(&error)))?;
            Way::Redis(connection)
        }
    };
    match args.what.unwrap_or(What::List) {
        What::List => {
            let questions = way.list(&config)?;
            if global.json {
                print(&format!("{:#}\n", serde_json::to_value(&questions)?))?;
            } else {
                print(&table(&questions))?;
            }
        }
        What::Show { id } => {
            let facts = way.show(&config, &id)?;
            if global.json {
                print(&format!("{:#}\n", serde_json::to_value(&facts)?))?;
            } else {
                print(&sheet(&facts))?;
            }
        }
        What::Approve { id, reason } => way.answer(global, &config, id, true, reason)?,
        What::Deny { id, reason } => way.answer(global, &config, id, false, reason)?,
        What::Watch => way.watch(global, &config)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How questions are asked about and answered.
enum Way {
    Socket,
    Redis(Link),
}

impl Way {
    fn list(&mut self, config: &Config) -> anyhow::Result<Vec<Facts>> {
        match self {
            Self::Socket => {
                let answer: Questions = admin::ask(&config.admin.socket, &Request::Questions {})?;
                Ok(answer.questions)
            }
            Self::Redis(connection) => {
                let prefix = &config.recorder.prefix;
                let page: StreamRangeReply = connection
                    .xrevrange_count(stream_key(prefix), "+", "-", BACK)
                    .map_err(redis_says)?;
                let mut seen = BTreeSet::new();
                let mut found = Vec::new();
                let now = time::OffsetDateTime::now_utc().unix_timestamp();
                for entry in page.ids {
                    let id = entry.get::<String>("id").unwrap_or_default();
                    if !id.is_empty()
                        && seen.insert(id.clone())
                        && let Some(facts) = in_redis(connection, prefix, &id)?
                        && matches!(facts.state, State::Open | State::Approved)
                        && facts.expires_at > now
                    {
                        found.push(facts);
                    }
                }
                found.sort_by(|a, b| (a.asked_at, &a.id).cmp(&(b.asked_at, &b.id)));
                Ok(found)
            }
        }
    }

    fn show(&mut self, config: &Config, id: &str) -> anyhow::Result<Facts> {
        match self {
            Self::Socket => {
                let id = id.to_owned();
                admin::ask(&config.admin.socket, &Request::Question { id })
            }
            Self::Redis(connection) => {
                let prefix = &config.recorder.prefix;
                if let Some(facts) = in_redis(connection, prefix, id)? {
                    return Ok(facts);
                }
                let found: Vec<Facts> = self
                    .list(config)?
                    .into_iter()
                    .filter(|facts| facts.id.starts_with(id) || facts.id.ends_with(id))
                    .collect();
                match <[Facts; 1]>::try_from(found) {
                    Ok([facts]) => Ok(facts),
                    Err(found) if found.is_empty() => {
                        anyhow::bail!("no open question is named {id}")
                    }
                    Err(_) => anyhow::bail!("{id} is the name of more than one question"),
                }
            }
        }
    }

    fn answer(
        &mut self,
        global: &Global,
        config: &Config,
        id: String,
        approves: bool,
        reason: Option<String>,
    ) -> anyhow::Result<()> {
        let word = if approves { "approved" } else { "denied" };
        if matches!(self, Self::Redis(_)) {
            let facts = self.show(config, &id)?;
            let by = self.send(config, &facts, approves, reason)?;
            return print(&if global.json {
                format!("{:#}\n", json!({"id": facts.id, "sent": word, "by": by}))
            } else {
                format!(
                    "{word} as {by}, on its way to {}: {}\n",
                    facts.host,
                    escaped(&facts.line())
                )
            });
        }
        let request = Request::Answer {
            id,
            approves,
            reason,
        };
        let facts: Facts = admin::ask(&config.admin.socket, &request)?;
        if global.json {
            return print(&format!("{:#}\n", serde_json::to_value(&facts)?));
        }
        let counted = facts
            .answers
            .iter()
            .filter(|answer| answer.approves)
            .count();
        print(&match facts.state {
            State::Open => format!(
                "counted ({counted} so far), more are needed: {}\n",
                facts.id
            ),
            State::Approved => format!(
                "approved; the agent may ask for it once more within {} s: {}\n",
                facts.timeout_s, facts.id
            ),
            _ => format!("{word}: {}\n", escaped(&facts.line())),
        })
    }

    /// Signs an answer and leaves it in Redis.
    fn send(
        &mut self,
        config: &Config,
        facts: &Facts,
        approves: bool,
        reason: Option<String>,
    ) -> anyhow::Result<String> {
        let Self::Redis(connection) = self else {
            anyhow::bail!("not by way of Redis");
        };
        let reference = config.approvals.key.as_ref().context(
            "answers by way of Redis are signed: configure `approvals.key` here and on the host that asks",
        )?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let secret = runtime
            .block_on(secrets::resolve(reference))
            .context("reading approvals.key")?;
        let uid = nix::unistd::getuid().as_raw();
        let person = Person::of_process(uid, std::process::id(), &config.approvals);
        let host = crate::host::name();
        let answer = SignedAnswer {
            id: facts.id.clone(),
            digest: facts.digest.clone(),
            approves,
            by: format!("{}@{host}", person.name),
            groups: person.groups.iter().map(ToString::to_string).collect(),
            reason: reason.unwrap_or_default(),
            at: time::OffsetDateTime::now_utc().unix_timestamp(),
        };
        let groups = answer.groups.join(",");
        let signature = Key::new(&secret).sign(&answer);
        let _: String = connection
            .xadd(
                stream_key(&config.recorder.prefix),
                "*",
                &[
                    ("kind", "answer"),
                    ("id", &answer.id),
                    ("digest", &answer.digest),
                    ("decision", if approves { "approve" } else { "deny" }),
                    ("by", &answer.by),
                    ("groups", &groups),
                    ("reason", &answer.reason),
                    ("at", &answer.at.to_string()),
                    ("signature", &signature),
                    (
                        "line",
                        &format!("{} says {}", answer.by, if approves { "yes" } else { "no" }),
                    ),
                ],
            )
            .map_err(redis_says)?;
        Ok(answer.by)
    }

    fn watch(&mut self, global: &Global, config: &Config) -> anyhow::Result<()> {
        let mut told: BTreeSet<String> = BTreeSet::new();
        loop {
            let questions = self.list(config)?;
            let open: BTreeSet<String> = questions.iter().map(|facts| facts.id.clone()).collect();
            for facts in &questions {
                if facts.state != State::Open || !told.insert(facts.id.clone()) {
                    continue;
                }
                if global.json {
                    print(&format!("{}\n", serde_json::to_value(facts)?))?;
                } else {
                    print(&format!("{}\n", sheet(facts)))?;
                }
            }
            told.retain(|id| open.contains(id));
            std::thread::sleep(LOOK);
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn redis_says(error: redis::RedisError) -> anyhow::Error {
    anyhow::anyhow!("Redis does not do as asked: {}", Fault::of(&error))
}

fn in_redis(connection: &mut Link, prefix: &str, id: &str) -> anyhow::Result<Option<Facts>> {
    let json: Option<String> = connection
        .hget(question_key(prefix, id), "json")
        .map_err(redis_says)?;
    Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
}

fn escaped(text: &str) -> String {
    escape::line(text).into_owned()
}

fn asks(facts: &Facts) -> String {
    let requirements = facts.approval().requirements;
    let each: Vec<String> = requirements.iter().map(ToString::to_string).collect();
    each.join("; ")
}

fn left(facts: &Facts) -> String {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let seconds = facts.expires_at.saturating_sub(now).max(0);
    format!("{}m{:02}s", seconds / 60, seconds % 60)
}

fn table(questions: &[Facts]) -> String {
    if questions.is_empty() {
        return "no question waits\n".to_owned();
    }
    let mut out = String::new();
    for facts in questions {
        out.push_str(&format!(
            "{}  {:<8}  {:>7}  {}\n",
            facts.id,
            facts.state.name(),
            left(facts),
            escaped(&facts.line())
        ));
    }
    out
}

fn sheet(facts: &Facts) -> String {
    let process = &facts.process;
    let exe = facts
        .principal
        .get("exe")
        .and_then(|exe| exe.as_str())
        .unwrap_or("not known");
    let pid = process
        .get("pid")
        .map_or_else(|| "not known".to_owned(), ToString::to_string);
    let sha = process
        .get("exe_sha256")
        .and_then(|sha| sha.as_str())
        .unwrap_or("not known");
    let mut rows = vec![
        ("question", facts.id.clone()),
        (
            "state",
            format!("{} ({} left)", facts.state.name(), left(facts)),
        ),
        ("agent", format!("{} (uid {})", facts.agent, facts.uid)),
        ("process", format!("{exe}, pid {pid}, SHA-256 {sha}")),
        ("host", facts.host.clone()),
        (
            "target",
            format!("{} ({}, {})", facts.target, facts.origin, facts.protocol),
        ),
        ("rule", format!("{}: {}", facts.rule, facts.message)),
        ("asks", asks(facts)),
        (
            "mode",
            format!("{}; silence means {}", facts.mode, facts.on_timeout),
        ),
        ("digest", facts.digest.clone()),
    ];
    for answer in &facts.answers {
        rows.push((
            "answer",
            format!(
                "{} by {}{}",
                if answer.approves { "yes" } else { "no" },
                answer.by,
                answer
                    .reason
                    .as_deref()
                    .map(|reason| format!(": {reason}"))
                    .unwrap_or_default()
            ),
        ));
    }
    let mut out = String::new();
    for (name, value) in rows {
        out.push_str(&format!("{name:<9} {}\n", escaped(&value)));
    }
    out.push_str("what\n");
    for line in facts.text.lines() {
        out.push_str(&format!("    {}\n", escaped(line)));
    }
    if let Some(parameters) = &facts.parameters {
        out.push_str(&format!("with\n    {}\n", escaped(parameters)));
    }
    out
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
