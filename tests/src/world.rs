//! Everything that a file's tests need, started once for all of them.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::daemon::Daemon;
use crate::needs;
use crate::place::Place;
use crate::postgres::{self, Postgres};
use crate::records::Records;
use crate::redis::Redis;

/// PostgreSQL with the sample shop, Redis, and Interceptor between agents and
/// the database. Fields are dropped in order: the daemon ends first.
#[derive(Debug)]
pub struct World {
    /// Interceptor.
    pub daemon: Daemon,
    /// The database.
    pub postgres: Postgres,
    /// The store.
    pub redis: Redis,
    /// The folder of all three.
    pub place: Place,
}

/// How a world is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rule file.
    pub rules: &'static str,
    /// The database's set-up.
    pub postgres: postgres::Options,
    /// Laid over the daemon's configuration, once the database's port is known.
    pub config: fn(&Postgres, &Place) -> Value,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rules: "version: 1\nrules: []\n",
            postgres: postgres::Options {
                sql: postgres::SAMPLE.to_owned(),
                ..postgres::Options::default()
            },
            config: one_target,
        }
    }
}

/// The database as the target `shop`, which lets pass what no rule refuses.
#[must_use]
pub fn one_target(postgres: &Postgres, _: &Place) -> Value {
    json!({ "targets": [target(postgres)] })
}

/// The database as a target.
#[must_use]
pub fn target(postgres: &Postgres) -> Value {
    target_with(postgres, &json!({}))
}

/// The same, with other or further settings.
#[must_use]
pub fn target_with(postgres: &Postgres, settings: &Value) -> Value {
    let mut target = json!({
        "name": "shop",
        "address": "127.0.0.1",
        "port": postgres.port,
        "protocol": "postgres",
        "default": "allow",
    });
    crate::daemon::merge(&mut target, settings);
    target
}

impl World {
    /// Starts one.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start(plan: &Plan) -> Result<Self> {
        Self::start_on(plan, Redis::start)
    }

    /// Starts one with a store of the test's own.
    ///
    /// # Errors
    /// When a part of it cannot be started.
    pub fn start_on(plan: &Plan, store: fn(&Place) -> Result<Redis>) -> Result<Self> {
        let place = Place::new()?;
        let redis = store(&place)?;
        let postgres = Postgres::start(&place, "postgres", &plan.postgres)?;
        let config = (plan.config)(&postgres, &place);
        let daemon = Daemon::start(&place, &redis.url(), plan.rules, &config)?;
        Ok(Self {
            daemon,
            postgres,
            redis,
            place,
        })
    }

    /// An agent of it. Names are how tests find their own sessions, so each takes
    /// its own.
    #[must_use]
    pub fn agent(&self, name: &str) -> Agent {
        Agent::new(&self.daemon, name)
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

/// A world that the tests of a file share: starting one takes longer than most
/// tests. It ends with the process.
#[derive(Debug)]
pub struct Shared {
    world: OnceLock<Result<World, String>>,
    plan: fn() -> Plan,
}

impl Shared {
    /// Made when the first test asks for it.
    #[must_use]
    pub const fn new(plan: fn() -> Plan) -> Self {
        Self {
            world: OnceLock::new(),
            plan,
        }
    }

    /// Runs a test's body in it; says SKIPPED where the kernel is left out.
    ///
    /// # Errors
    /// What the body gives, or what kept the world from starting.
    pub fn test(&self, body: impl FnOnce(&World) -> Result<()>) -> Result<()> {
        if !needs::kernel()? {
            return Ok(());
        }
        let world = self
            .world
            .get_or_init(|| World::start(&(self.plan)()).map_err(|error| format!("{error:#}")));
        match world {
            Ok(world) => world.test(body),
            Err(error) => Err(anyhow!("{error}")),
        }
    }
}

/// Runs a test's body in a world of its own, for tests that break it.
///
/// # Errors
/// What the body gives, or what kept the world from starting.
pub fn alone(plan: &Plan, body: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    if !needs::kernel()? {
        return Ok(());
    }
    let mut world = World::start(plan)?;
    let done = body(&mut world);
    world.daemon.judge(done)
}
