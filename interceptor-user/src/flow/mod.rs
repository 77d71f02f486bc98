//! Accepting, identifying and pumping flows.
//!
//! The rooms in the order in which a flow passes them: [`listener`] and [`unix`] accept,
//! [`serve`] finds out who and where and what, [`postgres`], [`http`], [`ssh`] and
//! [`opaque`] open both legs and make the session, [`pump`] moves its bytes (and
//! for HTTP [`crate::http`]). [`rules`] are the
//! rules in force, [`registry`] the flows under way.

pub mod direct;
pub mod http;
pub mod listener;
pub mod opaque;
pub mod postgres;
pub mod pump;
pub mod registry;
pub mod rules;
pub mod serve;
pub mod shared;
pub mod ssh;
pub mod unix;

use std::sync::Arc;
use std::time::{Duration, Instant};

use interceptor_engine::pg::sql::Classifier;
use interceptor_policy::{MaskKey, Memory, Moment};

use crate::agents::Runs;
use crate::approval::Desk;
use crate::config::{Config, TargetTable};
use crate::handover::Life;
use crate::kernel::Kernel;
use crate::pg::catalog::Catalogs;
use crate::pg::front::Front;
use crate::recorder::Recorder;

/// What all flows share.
#[derive(Debug)]
pub struct House {
    /// The configuration.
    pub config: Config,
    /// Which target an origin belongs to.
    pub targets: TargetTable,
    /// The kernel programs; `None` where interception is off.
    pub kernel: Option<Arc<Kernel>>,
    /// The agents' runs.
    pub runs: Option<Arc<Runs>>,
    /// The rules in force.
    pub rules: rules::RulesInForce,
    /// What is remembered of principals between exchanges.
    pub memory: Memory,
    /// When the daemon started, by both clocks.
    pub started: (Instant, i64),
    /// What people are asked.
    pub desk: Desk,
    /// Where events go.
    pub recorder: Recorder,
    /// How PostgreSQL's legs are opened.
    pub front: Front,
    /// Who asks for names, and what was answered.
    pub dns: crate::dns::Resolver,
    /// What HTTP flows share.
    pub http: crate::http::Common,
    /// The host keys that agents are shown.
    pub ssh: crate::ssh::authority::Authority,
    /// Names of tables.
    pub catalogs: Catalogs,
    /// What statements mean.
    pub classifier: Arc<Classifier>,
    /// The host's key for hashes.
    pub key: MaskKey,
    /// The flows under way.
    pub flows: registry::Registry,
    /// Whether this daemon takes what is new, and what the next one takes over.
    pub life: Arc<Life>,
    /// This host's name.
    pub host: String,
}

impl House {
    /// Whether a process is under interception; one that cannot be asked about is taken
    /// for one.
    ///
    /// # Errors
    /// When it is gone.
    pub fn is_agent(&self, pid: u32) -> anyhow::Result<bool> {
        use anyhow::Context as _;
        match &self.runs {
            Some(runs) => runs.holds(pid).context("the asking process is gone"),
            None => Ok(false),
        }
    }

    /// An instant, as the rules count time.
    #[must_use]
    pub fn moment(&self, at: Instant) -> Moment {
        let (started, unix) = self.started;
        let since = at.saturating_duration_since(started).as_micros();
        let start = Moment { monotonic: 0, unix };
        start.after(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// How long an agent may take to say what it speaks.
pub const DETECT_PATIENCE: Duration = Duration::from_secs(10);
