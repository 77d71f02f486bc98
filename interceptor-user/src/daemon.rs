//! The daemon: puts the house together, and takes it down again.
//!
//! Order matters on the way up: rules first, since nothing may pass unjudged; then the
//! kernel programs, the keeper of the keys ([`keeper`]), and with them the end of most of
//! root's power ([`sandbox`]); the recorder, since nothing may pass unrecorded; then listeners, which are born in the
//! cgroup that the programs know; last the admin socket, through which agents begin. On the way down sessions end first and are recorded;
//! what is pinned in the kernel stays, so that agents are refused, never direct.
//!
//! Where a daemon runs already, this one takes over from it ([`handover`]): what may fail
//! or take long comes first, then the other one stops accepting, and this one begins.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use interceptor_common::ABI;
use interceptor_engine::pg::sql::Classifier;
use interceptor_policy::verdict::Severity;
use interceptor_policy::{DefaultVerdict, MaskKey, Memory};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tracing::{error, info, warn};

use crate::agents::attached::{Attachments, Want, watch};
use crate::agents::engines::Engines;
use crate::agents::{Look, Runs};
use crate::approval::signature::Key;
use crate::approval::store::Mirror;
use crate::approval::{self, Desk};
use crate::archive::retention::{Figures, Keeper};
use crate::beside::Beside;
use crate::config::{Config, TargetTable};
use crate::fence;
use crate::flow::House;
use crate::flow::listener::{self, Redirected};
use crate::flow::registry::Registry;
use crate::flow::rules::RulesInForce;
use crate::handover::take::Taking;
use crate::handover::{self, Life, State};
use crate::keeper;
use crate::kernel::{self, Kernel, Refusal, Refusals};
use crate::looker::{self, Looker};
use crate::pg::catalog::Catalogs;
use crate::pg::front::Front;
use crate::recorder::{Adopted, Alert, Host, Place, Recorder, RecorderTask, url_to_read};
use crate::sandbox;
use crate::secrets::{self, Secret};
use crate::service::{Link, Service};
use crate::tls::Authority;
use crate::{admin, archive, index};

/// Bytes of statements whose meaning is remembered.
const CLASSIFIER_BYTES: usize = 16 << 20;
/// How often the rule files are looked at.
const RULES_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is looked up where the store is.
const STORE_INTERVAL: Duration = Duration::from_secs(30);
/// How often runs that are over are cleared away.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is looked whether a cgroup that is wanted under interception is there.
const ATTACH_INTERVAL: Duration = Duration::from_millis(500);
/// How long sessions have to end when the daemon does.
const DRAIN: Duration = Duration::from_secs(5);
/// How long what is queued has to reach Redis when the daemon ends.
const FLUSH: Duration = Duration::from_secs(10);

/// A daemon whose kernel programs stand, and that has given up what loading them took.
#[derive(Debug)]
pub struct Begun {
    config: Config,
    started: Instant,
    taking: Option<Taking>,
    rules: RulesInForce,
    kernel: Option<Kernel>,
    keeper: Arc<keeper::Keeper>,
    looker: Arc<Looker>,
    keys: OwnKeys,
}

/// Reads the rules, loads the kernel programs, and gives up what is not needed from there
/// on. Call it while there is one thread.
///
/// # Errors
/// Whatever keeps it from starting. Programs that stand by then refuse what they redirect.
pub fn begin(config: Config) -> anyhow::Result<Begun> {
    let started = Instant::now();
    raise_descriptor_limit();
    folder(&config.runtime_dir, 0o755)?;
    folder(&config.state_dir, 0o700)?;
    let mut taking = handover::take::ask(&config.runtime_dir)?;
    let rules = RulesInForce::load(&config.rules)?;
    for warning in rules.current().warnings().iter() {
        warn!("{warning}");
    }
    let kernel = match config.intercept.kernel {
        true => Some(kernel(&config, taking.as_mut())?),
        false => None,
    };
    // Before this process may read less, and long before it reads what agents send.
    let keeper = Arc::new(keeper::Keeper::start(&keeper::Plan {
        state_dir: config.state_dir.clone(),
        permitted: config.permitted.entries(),
        capabilities: config.sandbox.capabilities,
        seccomp: config.sandbox.seccomp,
    })?);
    let looker = Arc::new(Looker::start(&looker::Plan {
        cgroups: kernel.as_ref().map(|kernel| {
            (
                kernel.cgroup_root().to_owned(),
                kernel.agents_cgroup().to_owned(),
            )
        }),
        files: fence::files(&config),
        commands: config.referred.commands.clone(),
        capabilities: config.sandbox.capabilities,
        seccomp: config.sandbox.seccomp,
    })?);
    looker::ask_for_files(&looker);
    // Beside keys that are not its own any more.
    let keys = OwnKeys::open(&config.state_dir)?;
    crate::ssh::authority::make_room(&config.state_dir).context("making room for SSH host keys")?;
    if config.sandbox.landlock {
        fence::enter(&config);
    }
    sandbox::enter(&config.sandbox);
    Ok(Begun {
        config,
        started,
        taking,
        rules,
        kernel,
        keeper,
        looker,
        keys,
    })
}

/// Keys of this host's that stand for nobody.
#[derive(Debug)]
struct OwnKeys {
    mask: [u8; 32],
    approvals: [u8; 32],
}

impl OwnKeys {
    fn open(state_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            mask: host_key(state_dir, "mask.key")?,
            approvals: host_key(state_dir, "approvals.key")?,
        })
    }
}

/// Runs until it is told to end.
///
/// # Errors
/// Whatever keeps it from running.
pub async fn run(begun: Begun, link: Option<Link>) -> anyhow::Result<()> {
    let Begun {
        config,
        started,
        mut taking,
        rules,
        kernel,
        keeper,
        looker,
        keys,
    } = begun;
    let hostname = crate::host::name();
    let (recorder, recorder_task) = tokio::task::block_in_place(|| {
        Recorder::start(
            &config.recorder,
            &Host {
                name: hostname.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                rules: rules.current().digest().to_owned(),
                state_dir: config.state_dir.clone(),
                runtime_dir: config.runtime_dir.clone(),
                adopted: taking.as_mut().and_then(adopted),
            },
        )
    })?;
    let watchdog = taking.as_ref().and_then(|taking| taking.offer.watchdog);
    let service = Service::new(link, watchdog).context("watching the main process")?;
    let beside = Beside::watch(&[
        ("keeper of the keys", keeper.pid()),
        ("looker", looker.pid()),
    ])
    .context("watching the processes beside the daemon")?;
    let from = (kernel, taking, keeper, looker, service, keys);
    let up = up(config, rules, recorder, hostname, started, from).await;
    let house = match up {
        Ok(house) => house,
        Err(error) => {
            let _ = recorder_task.close(FLUSH).await;
            return Err(error);
        }
    };
    let path = handover::socket_path(&house.config.runtime_dir);
    let next = handover::give::wait(&house, &path)?;
    house.life.sockets.close_rest();
    house.life.service.ready();
    let life = Arc::clone(&house.life);
    house
        .life
        .while_serving(async move { life.service.keep_well().await });
    match wait_for_the_end(&house, next, &beside).await? {
        End::Told => down(&house, recorder_task).await,
        End::HandedOver => drain(&house, recorder_task, &beside).await,
        End::Alone(who) => {
            down(&house, recorder_task).await?;
            anyhow::bail!("the {who} ended, without which no agent can be served");
        }
    }
}

/// The private Redis of the daemon before.
fn adopted(taking: &mut Taking) -> Option<Arc<Adopted>> {
    let redis = taking.offer.redis.clone()?;
    let lifeline = taking.descriptor("redis")?;
    Some(Arc::new(Adopted {
        redis,
        lifeline: Mutex::new(Some(lifeline)),
    }))
}

/// Loads the kernel programs, and brings them into force where no daemon runs: one that does
/// stays as it was until this one is ready.
fn kernel(config: &Config, taking: Option<&mut Taking>) -> anyhow::Result<Kernel> {
    let options = kernel::Options::from_config(config);
    let Some(taking) = taking else {
        return Ok(Kernel::load(&options)?);
    };
    let Some(lock) = taking.descriptor("lock") else {
        // One without interception.
        return Ok(Kernel::load(&options)?);
    };
    let own = taking.offer.agents_cgroup.as_ref();
    anyhow::ensure!(
        own.and_then(|path| path.file_name()) == Some(config.intercept.cgroup.as_ref()),
        "the daemon that runs has its agents in {}, and `intercept.cgroup` is {:?}: stop it first",
        own.map_or_else(String::new, |path| path.display().to_string()),
        config.intercept.cgroup
    );
    let handed = kernel::Handed {
        lock: lock.into(),
        listeners_cgroup: taking.offer.proxy_cgroup.clone().unwrap_or_default(),
        same_layout: taking.offer.abi == Some(ABI),
    };
    Ok(Kernel::take_over(&options, handed)?)
}

async fn up(
    config: Config,
    rules: RulesInForce,
    recorder: Recorder,
    host: String,
    started: Instant,
    (kernel, taking, keeper, looker, service, keys): (
        Option<Kernel>,
        Option<Taking>,
        Arc<keeper::Keeper>,
        Arc<Looker>,
        Service,
        OwnKeys,
    ),
) -> anyhow::Result<Arc<House>> {
    let authority = Authority::kept(&config.state_dir, Arc::clone(&keeper))
        .context("opening the local certificate authority")?;
    let trust = authority
        .publish(&config.runtime_dir)
        .context("publishing the local authority's certificate")?;
    let ssh = crate::ssh::authority::Authority::kept(&config.state_dir, Arc::clone(&keeper))
        .context("opening the authority for SSH host keys")?;
    ssh.publish(&config.runtime_dir)
        .context("publishing the authority for SSH host keys")?;
    let kernel = kernel.map(Arc::new);
    let targets = TargetTable::new(config.targets.clone());
    let names = config.targets.iter().map(|target| target.name.as_str());
    recorder.tally().set_targets(names);
    targets.refresh().await;
    let answers = answers(&config).await?;
    let key = MaskKey(keys.mask);
    let life = Arc::new(Life::new(service));
    let clock = match &taking {
        Some(taking) => taking.clock()?,
        None => (started, time::OffsetDateTime::now_utc().unix_timestamp()),
    };
    let lives_on = taking
        .as_ref()
        .is_none_or(|taking| taking.offer.abi.is_none_or(|abi| abi == ABI));
    let before = taking.as_ref().map(|taking| taking.offer.pid);
    // From here on the daemon before accepts nothing; what follows is quick.
    let mut state = match taking {
        Some(taking) => tokio::task::block_in_place(|| taking.go(&life.sockets))?,
        None => State::default(),
    };
    let runs = match &kernel {
        Some(kernel) => Some(Arc::new(Runs::open(
            kernel,
            &config.runtime_dir,
            Look::There(Arc::clone(&looker)),
        )?)),
        None => None,
    };
    if let Some(runs) = &runs {
        state.take_executables(runs);
    }
    let desk = desk(&config, &recorder, &host, (&keys, answers), &state)?;
    let memory = Memory::new();
    memory.recall(state.memory);
    let dns = crate::dns::Resolver::default();
    let now = Instant::now();
    dns.names.take_over(state.names, now);
    dns.take_over(state.asked, now);
    let house = Arc::new(House {
        key,
        desk,
        targets,
        kernel,
        runs,
        rules,
        memory,
        started: clock,
        recorder,
        front: Front {
            runtime_dir: Some(config.runtime_dir.as_path().into()),
            ..Front::new(Arc::new(authority))
        },
        dns,
        http: crate::http::Common::default(),
        ssh,
        catalogs: Catalogs::new(crate::net::Dialer::default()),
        classifier: Arc::new(Classifier::new(CLASSIFIER_BYTES)),
        flows: Registry::default(),
        life,
        host,
        config,
    });
    tokio::task::block_in_place(|| house.recorder.place().look_up());
    let mut port = None;
    let mut attachments = None;
    let mut went_direct = 0;
    if let Some(kernel) = &house.kernel {
        let sockets = crate::flow::unix::Redirected::bind(kernel, &house)?;
        let redirected = Redirected::bind(kernel, &house.life.sockets)?;
        port = Some(redirected.port);
        if before.is_some() {
            // Last, and with all that they go by in the maps: until here whatever fails leaves
            // the programs of the daemon before as they were.
            kernel.enforce()?;
        }
        if house.config.intercept.when_down == DefaultVerdict::Allow {
            warn!(
                "agents connect directly, unjudged and unrecorded, while no daemon is there: `intercept.when_down: allow`"
            );
        }
        went_direct = crate::flow::direct::tell(&house);
        redirected.accept(&house);
        sockets.accept(&house);
        tokio::spawn(crate::dns::Resolver::sweep(Arc::clone(&house)));
        house
            .life
            .while_serving(report_refusals(Arc::clone(&house), kernel.refusals()?));
        house.life.while_serving(sweep(Arc::clone(&house)));
        attachments = attach(&house)?;
    }
    for one in &house.config.listeners {
        listener::explicit(&house, one)?;
    }
    search_index(&house)?;
    let daemon = admin::Daemon {
        started,
        port,
        trust,
        attachments,
        went_direct,
        keeper: keeper.locked(),
        looker: looker.looked(),
        retention: retention(&house)?,
    };
    if let Some(address) = house.config.admin.metrics {
        admin::metrics::serve(&house, daemon.clone(), address)?;
    }
    admin::serve(&house, daemon, &house.config.admin.socket)?;
    house
        .life
        .while_serving(handover::drain::keep_merged(Arc::clone(&house)));
    if !lives_on {
        // Its sessions' packets are refused by now: the kernel's records are laid out anew.
        handover::drain::end_all(&house.config.runtime_dir, Duration::ZERO).await;
    }
    let fresh = Arc::clone(&house);
    tokio::spawn(async move { fresh.targets.keep_fresh().await });
    tokio::spawn(know_the_store(house.recorder.place().clone()));
    tokio::spawn(watch_rules(Arc::clone(&house)));
    tokio::spawn(house.desk.clone().sweep());
    info!(
        rules = house.rules.current().rules().len(),
        digest = house.rules.current().digest(),
        redis = house.recorder.place().text(),
        port,
        socket = %house.config.admin.socket.display(),
        took_over_from = before,
        "ready"
    );
    Ok(house)
}

/// Starts what removes recordings in time, where anything is to go.
fn retention(house: &House) -> anyhow::Result<Arc<Figures>> {
    let figures = Arc::<Figures>::default();
    let recorder = &house.config.recorder;
    if !recorder.retention.is_on() {
        return Ok(figures);
    }
    let keeper = Keeper {
        retention: recorder.retention.clone(),
        url: url_to_read(None, recorder, &house.config.runtime_dir)?,
        prefix: recorder.prefix.clone(),
        host: house.host.clone(),
        state_dir: house.config.state_dir.clone(),
        trusted_keys: recorder.evidence.trusted_keys.clone(),
        recorder: house.recorder.clone(),
        figures: Arc::clone(&figures),
        life: Arc::clone(&house.life),
    };
    archive::retention::start(keeper).context("starting the thread for retention")?;
    Ok(figures)
}

/// Starts what keeps the search index, where one is wanted.
fn search_index(house: &House) -> anyhow::Result<()> {
    let recorder = &house.config.recorder;
    if !recorder.search_index {
        return Ok(());
    }
    if house.recorder.place().is_cluster() {
        warn!(
            "recorder.search_index: a Cluster's query engine knows one node's keys, so there is no index, and `search` reads all sessions"
        );
        return Ok(());
    }
    let keeper = index::keep::Keeper {
        url: url_to_read(None, recorder, &house.config.runtime_dir)?,
        prefix: recorder.prefix.clone(),
        host: house.host.clone(),
        recorder: house.recorder.clone(),
        life: Arc::clone(&house.life),
    };
    index::keep::start(keeper).context("starting the thread for the search index")
}

/// What answers that come by way of Redis are signed with.
async fn answers(config: &Config) -> anyhow::Result<Option<Key>> {
    match &config.approvals.key {
        None => Ok(None),
        Some(key) => Ok(Some(Key::new(
            &secrets::resolve(key)
                .await
                .context("reading approvals.key")?,
        ))),
    }
}

/// Where people are asked, with what the daemon before this one left open.
fn desk(
    config: &Config,
    recorder: &Recorder,
    host: &str,
    (keys, answers): (&OwnKeys, Option<Key>),
    state: &State,
) -> anyhow::Result<Desk> {
    let own = hex::encode(keys.approvals);
    let (mirror, changes) = Mirror::new();
    let desk = Desk::new(mirror);
    desk.take_over(state.tickets.clone(), state.held.clone());
    let settings = approval::store::Settings {
        place: recorder.place().clone(),
        prefix: config.recorder.prefix.clone(),
        host: host.to_owned(),
        own: Key::new(&Secret::new(own)),
        answers,
    };
    approval::store::run(settings, changes, desk.clone())
        .context("starting the threads that keep questions in Redis")?;
    Ok(desk)
}

/// Why a daemon takes nothing new any more.
enum End {
    /// It was told to end.
    Told,
    /// Another one does.
    HandedOver,
    /// A process is gone that it cannot do without, and may not start anew.
    Alone(&'static str),
}

async fn wait_for_the_end(
    house: &House,
    mut next: oneshot::Receiver<u32>,
    beside: &Beside,
) -> anyhow::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let service = &house.life.service;
    let mut patience = None;
    let mut until = None;
    loop {
        let over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                reload(house);
                service.reloaded();
            }
            () = service.orphaned() => {
                warn!("the main process was killed");
                break;
            }
            waits = house.life.retires(), if patience.is_none() => {
                info!("the next daemon is waited for, {} s at most", waits.as_secs());
                patience = Some(waits);
                until = Some(tokio::time::Instant::now() + waits);
                service.retire();
            }
            () = over => {
                if !house.life.is_awaited() {
                    warn!("no other daemon has taken over in time");
                    break;
                }
                until = patience.map(|waits| tokio::time::Instant::now() + waits);
            }
            who = beside.gone() => {
                error!("the {who} ended: this daemon ends, and has to be started anew");
                house.recorder.alert(Alert {
                    severity: Severity::High,
                    kind: "daemon",
                    line: format!("the {who} ended, and the daemon with it"),
                    meta: json!({"ended": who}).to_string(),
                });
                service.stopping();
                return Ok(End::Alone(who));
            }
            Ok(_) = &mut next => return Ok(End::HandedOver),
        }
    }
    info!("ending");
    service.stopping();
    Ok(End::Told)
}

/// Keeps the sessions that are left, until the last one ends or the time is over.
async fn drain(house: &Arc<House>, recorder: RecorderTask, beside: &Beside) -> anyhow::Result<()> {
    let until = Instant::now() + house.config.drain;
    let answering = handover::drain::serve(house, until)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut clock = tokio::time::interval(Duration::from_millis(100));
    let why = loop {
        tokio::select! {
            _ = terminate.recv() => break Some("the daemon is ending"),
            _ = interrupt.recv() => break Some("the daemon is ending"),
            () = house.life.ended() => break Some("the daemon is ending"),
            () = tokio::time::sleep_until(until.into()) => {
                break Some("the time for sessions of a daemon that was replaced is over");
            }
            who = beside.gone() => {
                error!("the {who} ended: sessions that are left end, too");
                break Some("the daemon is ending");
            }
            _ = hangup.recv() => reload(house),
            _ = clock.tick() => if house.life.is_idle() && house.flows.is_empty() {
                break None;
            },
        }
    };
    if let Some(why) = why {
        info!(flows = house.flows.len(), "ending what is left: {why}");
        end_sessions(house, why).await;
    }
    handover::drain::tell_the_last(house).await;
    crate::dns::Resolver::end(house).await;
    recorder.leave_private();
    let closed = recorder
        .close(FLUSH)
        .await
        .context("what was still to be recorded did not reach Redis");
    drop(answering);
    closed?;
    info!("the last session of this daemon has ended");
    Ok(())
}

async fn end_sessions(house: &House, why: &str) {
    house.flows.kill_all(why);
    let drained = tokio::time::timeout(DRAIN, async {
        while !house.flows.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // A flow leaves the registry before its last events are handed over.
        tokio::time::sleep(Duration::from_millis(100)).await;
    });
    if drained.await.is_err() {
        warn!(
            flows = house.flows.len(),
            "some sessions did not end in time"
        );
    }
}

async fn down(house: &Arc<House>, recorder: RecorderTask) -> anyhow::Result<()> {
    house.desk.end();
    let others = handover::drain::end_all(&house.config.runtime_dir, DRAIN + FLUSH);
    let ((), ()) = tokio::join!(end_sessions(house, "the daemon is ending"), others);
    crate::dns::Resolver::end(house).await;
    for socket in [
        &house.config.admin.socket,
        &handover::socket_path(&house.config.runtime_dir),
    ] {
        let _ = std::fs::remove_file(socket);
    }
    recorder
        .close(FLUSH)
        .await
        .context("what was still to be recorded did not reach Redis")?;
    info!("ended; what is pinned in the kernel keeps agents confined");
    Ok(())
}

fn reload(house: &House) {
    match house.rules.reload() {
        Ok(false) => {}
        Ok(true) => {
            let rules = house.rules.current();
            for warning in rules.warnings().iter() {
                warn!("{warning}");
            }
            house
                .recorder
                .set_rules(env!("CARGO_PKG_VERSION"), rules.digest());
            info!(
                rules = rules.rules().len(),
                digest = rules.digest(),
                "new rules in force"
            );
            if !house.life.is_serving() {
                // The daemon that serves tells it.
                return;
            }
            house.recorder.alert(Alert {
                severity: Severity::Info,
                kind: "rules",
                line: format!("new rules in force: {}", rules.digest()),
                meta: json!({"digest": rules.digest()}).to_string(),
            });
        }
        Err(error) => {
            error!("the new rules are refused, those in force stay: {error:#}");
            house.recorder.alert(Alert {
                severity: Severity::High,
                kind: "rules",
                line: "the new rules are refused, those in force stay".to_owned(),
                meta: json!({"error": format!("{error:#}")}).to_string(),
            });
        }
    }
}

/// Keeps looking up where the store is, which no agent may reach.
async fn know_the_store(place: Place) {
    let mut clock = tokio::time::interval(STORE_INTERVAL);
    clock.tick().await;
    loop {
        clock.tick().await;
        let place = place.clone();
        let _ = tokio::task::spawn_blocking(move || place.look_up()).await;
    }
}

async fn watch_rules(house: Arc<House>) {
    let mut known = house.rules.fingerprint();
    let mut clock = tokio::time::interval(RULES_INTERVAL);
    loop {
        clock.tick().await;
        let now = house.rules.fingerprint();
        if now != known {
            known = now;
            reload(&house);
        }
    }
}

/// Brings under interception who is wanted, now and when they come.
fn attach(house: &Arc<House>) -> anyhow::Result<Option<Arc<Attachments>>> {
    let (Some(kernel), Some(runs)) = (&house.kernel, &house.runs) else {
        return Ok(None);
    };
    let wants = house.config.intercept.agents.iter().map(|agent| Want {
        agent: agent.name.clone(),
        labels: agent.labels.clone(),
        selector: agent.selector.clone(),
        requested_by: nix::unistd::geteuid().as_raw(),
        configured: true,
    });
    let attachments = Arc::new(Attachments::open(
        Arc::clone(kernel),
        Arc::clone(runs),
        &house.config.state_dir,
        wants.collect(),
        Engines::new(house.config.intercept.engines.clone()),
    )?);
    // The first time before anybody hears that the daemon is ready.
    let look = |attachments: &Attachments, house: &House| {
        for change in attachments.reconcile() {
            admin::tell(house, &change);
        }
    };
    tokio::task::block_in_place(|| look(&attachments, house));
    let made = Arc::new(Notify::new());
    watch(kernel.cgroup_root(), Arc::clone(&made));
    let (again, house) = (Arc::clone(&attachments), Arc::clone(house));
    let life = Arc::clone(&house.life);
    life.while_serving(async move {
        let mut clock = tokio::time::interval(ATTACH_INTERVAL);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {}
                () = made.notified() => {}
            }
            tokio::task::block_in_place(|| look(&again, &house));
        }
    });
    Ok(Some(attachments))
}

async fn sweep(house: Arc<House>) {
    let Some(runs) = house.runs.clone() else {
        return;
    };
    let mut clock = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        clock.tick().await;
        if let Some(kernel) = &house.kernel {
            tokio::task::block_in_place(|| runs.gather_coverage(kernel));
        }
        match runs.sweep() {
            Ok(over) => {
                for run in over {
                    info!(agent = %run.agent, run = %run.id, "a run is over");
                    tell_coverage(&house, &run);
                }
            }
            Err(error) => warn!(%error, "runs that are over could not be cleared away"),
        }
    }
}

/// What a run did goes on record when it is over, and makes room for another's.
pub(crate) fn tell_coverage(house: &House, run: &crate::agents::Run) {
    let (Some(kernel), Some(runs)) = (&house.kernel, &house.runs) else {
        return;
    };
    let did = runs.end_coverage(kernel, run);
    house.recorder.alert(Alert {
        severity: Severity::Info,
        kind: "coverage",
        line: format!(
            "agent {} is over: {} intercepted, {} exempt, {} held",
            run.agent,
            did.redirected + did.questions + did.unix,
            did.exempt + did.unjudged,
            did.held()
        ),
        meta: json!({"agent": run.agent, "run": run.id, "coverage": did}).to_string(),
    });
}

/// What the kernel refused becomes alerts.
async fn report_refusals(house: Arc<House>, mut refusals: Refusals) {
    loop {
        match refusals.next().await {
            Ok(refusal) => {
                // A call or two to the kernel's table of sockets; nothing is waited for.
                let ended = house
                    .kernel
                    .as_ref()
                    .and_then(|kernel| kernel.end_dropped(&refusal));
                let alert = bypass(&house, &refusal, ended.is_some());
                match refusal.reason.is_refusal() {
                    true => warn!("{}", alert.line),
                    false => info!("{}", alert.line),
                }
                house.recorder.alert(alert);
            }
            Err(error) => {
                error!(%error, "the kernel's refusals can no longer be read");
                return;
            }
        }
    }
}

fn bypass(house: &House, refusal: &Refusal, ended: bool) -> Alert {
    let count = u64::from(refusal.suppressed).saturating_add(1);
    let run = house
        .runs
        .as_ref()
        .and_then(|runs| match refusal.reason.is_refusal() {
            true => runs.refused(refusal.cgroup_id, count),
            false => runs.of_cgroup(refusal.cgroup_id),
        });
    let agent = run
        .as_ref()
        .map_or("an unknown agent", |run| run.agent.as_str());
    let who = match refusal.pid {
        Some(pid) => format!("{agent}: {} (pid {pid})", refusal.comm),
        None => agent.to_owned(),
    };
    let packet = refusal.packet.as_ref();
    let protocol = match (&refusal.unix, packet.and_then(|packet| packet.protocol)) {
        (Some(_), _) => "Unix socket".to_owned(),
        _ if refusal.option.is_some() => "a socket option".to_owned(),
        (None, Some(protocol)) => kernel::Packet::protocol_name(protocol.into()),
        (None, None) => kernel::Packet::protocol_name(refusal.protocol),
    };
    let address = refusal.address.map(|address| address.to_string());
    let to = match (&refusal.unix, &address, &refusal.option) {
        (Some(name), _, _) => format!(" {name}"),
        (None, Some(address), _) => format!(" to {address}"),
        (None, None, Some(option)) => format!(" by {option}"),
        (None, None, None) => String::new(),
    };
    let is_refusal = refusal.reason.is_refusal();
    let did = if is_refusal { "refused" } else { "passed" };
    let and = if ended {
        ", and its connection ended"
    } else {
        ""
    };
    let line = format!(
        "{did} {who}: {protocol}{to}: {}{and}",
        refusal.reason.name()
    );
    Alert {
        severity: match is_refusal {
            true => Severity::Medium,
            false => Severity::Info,
        },
        kind: if is_refusal { "bypass" } else { "unix" },
        line,
        meta: json!({
            "reason": refusal.reason.name(),
            "agent": run.as_ref().map(|run| &run.agent),
            "run": run.as_ref().map(|run| &run.id),
            "pid": refusal.pid,
            "uid": refusal.uid,
            "comm": refusal.comm,
            "protocol": packet.and_then(|packet| packet.protocol.map(u32::from)).unwrap_or(refusal.protocol),
            "address": address,
            "unix": refusal.unix,
            "option": refusal.option,
            "packet": packet,
            "ended": ended,
            "cgroup_id": refusal.cgroup_id,
            "suppressed": refusal.suppressed,
        })
        .to_string(),
    }
}

/// Makes a folder with this mode where there is none; one that is there keeps its own.
fn folder(path: &Path, mode: u32) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("making the folder {}", path.display()))
}

/// A key of this host's; made on first use.
fn host_key(state_dir: &Path, name: &str) -> anyhow::Result<[u8; 32]> {
    let path = state_dir.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let mode = std::fs::metadata(&path)?.permissions().mode();
            anyhow::ensure!(
                mode & 0o077 == 0,
                "{} may be read by others (mode {:o}): chmod 600",
                path.display(),
                mode & 0o777
            );
            let key = <[u8; 32]>::try_from(bytes.as_slice())
                .map_err(|_| anyhow::anyhow!("{} is not a key of 32 bytes", path.display()))?;
            Ok(key)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0; 32];
            std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("making {}", path.display()))?;
            file.write_all(&key)?;
            file.sync_all()?;
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Two sockets a flow: the default of 1,024 would be spent by 500 of them.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!(%error, soft, "the limit of open descriptors could not be raised");
    }
}
