//! Everything that a file's tests of HTTP need, started once for all of them.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use crate::agent::{Agent, Finished};
use crate::daemon::Daemon;
use crate::needs;
use crate::nginx::Nginx;
use crate::place::Place;
use crate::records::Records;
use crate::redis::Redis;
use crate::scripted::Scripted;

/// nginx, Redis, and Interceptor between agents and the pages. Fields are dropped
/// in order: the daemon ends first.
#[derive(Debug)]
pub struct Web {
    /// Interceptor.
    pub daemon: Daemon,
    /// The pages.
    pub nginx: Nginx,
    /// The store.
    pub redis: Redis,
    /// The folder of all three.
    pub place: Place,
}

/// How it is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The rule file.
    pub rules: &'static str,
    /// Laid over the daemon's configuration, once the pages' ports are known.
    pub config: fn(&Nginx, &Place) -> Result<Value>,
}

/// Every port of the pages as a target that lets pass what no rule refuses.
///
/// # Errors
/// Never.
pub fn all_targets(nginx: &Nginx, _: &Place) -> Result<Value> {
    Ok(json!({ "targets": [
        target("pages", nginx.port, &json!({})),
        target("pages-h2c", nginx.port_http2, &json!({})),
        target("pages-tls", nginx.port_tls, &json!({ "tls": { "ca": nginx.certificates.ca } })),
    ] }))
}

/// A target at 127.0.0.1, with other or further settings.
#[must_use]
pub fn target(name: &str, port: u16, settings: &Value) -> Value {
    let mut target = json!({
        "name": name,
        "address": "127.0.0.1",
        "port": port,
        "protocol": "http",
        "default": "allow",
    });
    crate::daemon::merge(&mut target, settings);
    target
}

impl Web {
    /// Starts one.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start(plan: &Plan) -> Result<Self> {
        Self::with(plan.rules, plan.config)
    }

    /// Starts one before a server of the test's own, as the target `scripted`.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn before(server: &Scripted, rules: &str) -> Result<Self> {
        Self::before_with(server, rules, &json!({}))
    }

    /// The same, with further configuration.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn before_with(server: &Scripted, rules: &str, further: &Value) -> Result<Self> {
        let target = target("scripted", server.port, &json!({}));
        let mut config = json!({ "targets": [target] });
        crate::daemon::merge(&mut config, further);
        Self::with(rules, |_, _| Ok(config))
    }

    fn with(rules: &str, config: impl FnOnce(&Nginx, &Place) -> Result<Value>) -> Result<Self> {
        let place = Place::new()?;
        let redis = Redis::start(&place)?;
        let nginx = Nginx::start(&place, "nginx")?;
        let config = config(&nginx, &place)?;
        let daemon = Daemon::start(&place, &redis.url(), rules, &config)?;
        Ok(Self {
            daemon,
            nginx,
            redis,
            place,
        })
    }

    /// An agent of it.
    #[must_use]
    pub fn agent(&self, name: &str) -> Agent {
        Agent::new(&self.daemon, name)
    }

    /// Runs curl as an agent; the answer's head comes in front of its body.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn curl(&self, agent: &str, arguments: &[&str]) -> Result<Finished> {
        let mut words = vec!["curl", "-sS", "-i", "--max-time", "30"];
        words.extend(arguments);
        self.agent(agent).run(&words)
    }

    /// What landed in its store.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub fn records(&self) -> Result<Records> {
        Records::of(&self.redis)
    }

    /// Runs a test's body in it, and shows the daemon's log when that fails.
    ///
    /// # Errors
    /// What the body gives.
    pub fn test(&self, body: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.daemon.watch(|| body(self))
    }
}

/// One that the tests of a file share. It ends with the process.
#[derive(Debug)]
pub struct Shared {
    web: OnceLock<Result<Web, String>>,
    plan: Plan,
}

impl Shared {
    /// Made when the first test asks for it.
    #[must_use]
    pub const fn new(plan: Plan) -> Self {
        Self {
            web: OnceLock::new(),
            plan,
        }
    }

    /// Runs a test's body in it; says SKIPPED where the kernel is left out.
    ///
    /// # Errors
    /// What the body gives, or what kept it from starting.
    pub fn test(&self, body: impl FnOnce(&Web) -> Result<()>) -> Result<()> {
        if !needs::kernel()? {
            return Ok(());
        }
        let web = self
            .web
            .get_or_init(|| Web::start(&self.plan).map_err(|error| format!("{error:#}")));
        match web {
            Ok(web) => web.test(body),
            Err(error) => Err(anyhow!("{error}")),
        }
    }
}

/// The JSON of an answer whose head is in front of it.
///
/// # Errors
/// When there is none.
pub fn json_of(answer: &str) -> Result<Value> {
    let (_, body) = answer
        .rsplit_once("\r\n\r\n")
        .with_context(|| format!("no body in {answer:?}"))?;
    serde_json::from_str(body).with_context(|| format!("no JSON in {answer:?}"))
}
