//! The shell: sockets, the clock, signals, tasks and the store's thread around the pure parts. It
//! decides nothing about the protocol.
#![expect(clippy::disallowed_methods, reason = "this is the shell that the rule is about")]

pub mod keys;
pub mod operated;

mod disk;
mod keeper;
mod place;
mod session;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sremp_common::connection::{Local, ReassemblyBudget};
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, Incarnation};
use sremp_common::io::bans::Bans;
use sremp_common::io::control::Refused;
use sremp_common::io::doors::{Doors, Plan, StartError, Visitor};
use sremp_common::io::gate::Gate;
use sremp_common::io::lifecycle::{Lifecycle, supervise};
use sremp_common::io::operator::Operator;
use sremp_common::io::output::LogFilter;
use sremp_common::io::private::create_private_dir;
use sremp_common::io::reload::Reloader;
use sremp_common::io::signals::{Signals, runtime};
use sremp_common::io::{Clock, control, system_entropy};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::disk::Disk;
use self::keeper::{Home, Job, Keeper, Settings};
use self::keys::KeyError;
use self::operated::Served;
use self::session::Shared;
use crate::config::{Config, ConfigError, LIVE, StoreSection};
use crate::engine::Engine;
use crate::store::{JournaledStore, RedbStore, StoreError};

/// Name of the database in the data directory.
const STORE_FILE: &str = "relay.redb";
/// Name of the journal in front of it.
const JOURNAL_FILE: &str = "relay.journal";
/// Sessions that say goodbye in a second: about what their handshakes cost a core elsewhere.
const GOODBYES_PER_SECOND: u32 = 1_000;

/// Why the relay does not run, or runs no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A value of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What every server needs cannot be had.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The relay's key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The link of the relay cannot be noted.
    #[error("the data directory cannot be used")]
    Note(#[from] sremp_common::io::private::PrivateError),
    /// The store cannot be opened, or has failed. Nothing that was acknowledged is lost.
    #[error("the store {} cannot be used", path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: StoreError,
    },
    /// The relay was never started in this directory, so it has no key, and no link.
    #[error("there is no relay in {} yet; start it once with: sremp-relay run", .0.display())]
    NoRelay(PathBuf),
    /// Nobody knows where this relay can be reached.
    #[error("this relay does not know where it is reached: give --advertise HOST:PORT")]
    NoEndpoint,
}

/// What the relay says when it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens, with the port that the system chose.
    pub listening: SocketAddr,
    /// Where monitoring finds it, if it is on.
    pub metrics: Option<SocketAddr>,
    /// Whose it is: the relay's identity.
    pub id: IdentityKey,
    /// Its link, if it knows where it is reached.
    pub link: Option<String>,
}

/// A relay that listens, and serves as soon as it is run.
#[derive(Debug)]
pub struct Server {
    data: PathBuf,
    doors: Doors,
    ready: Ready,
    local: Arc<Local>,
    keeper: Keeper,
    life: Lifecycle,
    drain_timeout: Arc<AtomicU32>,
    entropy: Entropy,
    clock: Clock,
}

impl Server {
    /// Opens key and store in `data`, and listens.
    ///
    /// # Errors
    /// [`ServeError`], naming the cause.
    pub async fn start(config: &Config, data: &Path, life: Lifecycle) -> Result<Self, ServeError> {
        config.check()?;
        let advertised = config.advertised()?;
        create_private_dir(data).map_err(StartError::from)?;
        let clock = Clock::start();
        let randomness = StartError::system("randomness");
        let mut entropy = system_entropy()
            .map_err(|error| randomness(std::io::Error::other(error.to_string())))?;
        // The store first: its lock keeps a second relay from making a second key.
        let (store, incarnation) = open_store(config, data, &mut entropy)?;
        let local = Arc::new(keys::load_or_create(data, &mut entropy, clock.now().wall)?);
        let plan = Plan {
            data,
            listen: &config.server.listen,
            max_connections: config.server.max_connections,
            max_connections_per_network: config.server.max_connections_per_network,
            network: &config.network,
            metrics: &config.metrics,
        };
        let doors = Doors::open(&plan, clock).await?;
        let listening = doors.front.listening();
        let id = local.identity.key();
        let link = place::link(id, place::endpoints(advertised, listening));
        if let Some(link) = &link {
            place::note(data, link)?;
        }
        let engine = Engine::new(config.engine(), id, incarnation);
        let banned = config.access.banned_keys();
        let keeper = Keeper::start(store, home(config, data, incarnation), engine, banned, clock)
            .map_err(StartError::system("a thread"))?;
        let ready = Ready { listening, metrics: doors.monitoring_at(), id, link };
        let drain_timeout = Arc::new(AtomicU32::new(config.network.drain_timeout));
        let data = data.to_owned();
        Ok(Self { data, doors, ready, local, keeper, life, drain_timeout, entropy, clock })
    }

    /// Where it is, and who.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// A way to change the configuration of the relay while it runs.
    fn live(&self) -> Live {
        Live {
            jobs: self.keeper.jobs().downgrade(),
            gate: self.doors.gate.clone(),
            bans: self.doors.bans.clone(),
            drain_timeout: Arc::clone(&self.drain_timeout),
        }
    }

    /// Serves until its life is to end, then drains: what has come is stored and answered, and
    /// every session is closed in order.
    ///
    /// # Errors
    /// [`ServeError::Store`] when the store fails: the process must start again from the file.
    pub async fn run(self) -> Result<(), ServeError> {
        let Self { data, doors, ready, local, mut keeper, life, drain_timeout, entropy, clock } =
            self;
        let budget = ReassemblyBudget::new(ReassemblyBudget::DEFAULT_CAP);
        let shared = Arc::new(Shared { local, budget, clock, jobs: keeper.jobs() });
        let served = Served {
            ready,
            data: data.clone(),
            jobs: keeper.jobs(),
            commits: keeper.commits(),
            clock,
        };
        let operator = Operator {
            served: Arc::new(served),
            version: env!("CARGO_PKG_VERSION"),
            listening: doors.front.listening(),
            life: life.clone(),
            gate: doors.gate,
            bans: doors.bans,
            clock,
        };
        let mut helpers = JoinSet::new();
        operator.start(&mut helpers, doors.control, doors.monitoring);
        let mut connections = JoinSet::new();
        let mut entropy = entropy;
        let serve =
            |visitor: Visitor| session::attend(visitor, entropy.fork(), Arc::clone(&shared));
        let until = async {
            tokio::select! {
                () = life.stopped() => None,
                failure = keeper.failed() => Some(failure),
            }
        };
        life.ready();
        let mut failure = doors.front.attend(&mut connections, serve, until).await;
        let limit = Duration::from_secs(drain_timeout.load(Ordering::Relaxed).into());
        if failure.is_none() {
            let over = goodbyes_take(connections.len()).min(limit.checked_div(2).unwrap_or(limit));
            // Without the thread there is nothing to drain.
            let _ = shared.jobs.send(Job::Drain(over)).await;
        }
        life.drain(&mut connections, limit).await;
        helpers.shutdown().await;
        drop(shared);
        control::remove(&data);
        let at_the_end = keeper.stop().await;
        failure = failure.or(at_the_end);
        let path = data.join(STORE_FILE);
        failure.map_or(Ok(()), |source| Err(ServeError::Store { path, source }))
    }
}

/// Time for so many goodbyes.
fn goodbyes_take(connections: usize) -> Duration {
    let count = u32::try_from(connections).unwrap_or(u32::MAX);
    let all = Duration::from_secs(1).saturating_mul(count);
    all.checked_div(GOODBYES_PER_SECOND).unwrap_or_default()
}

/// What a reload changes.
#[derive(Debug)]
struct Live {
    jobs: mpsc::WeakSender<Job>,
    gate: Gate,
    bans: Bans,
    drain_timeout: Arc<AtomicU32>,
}

impl Live {
    /// Takes over the keys in [`LIVE`].
    async fn apply(&self, config: &Config, log: &LogFilter) -> Result<(), Refused> {
        let gone = || Refused::new("unavailable", "the relay is about to end");
        let jobs = self.jobs.upgrade().ok_or_else(gone)?;
        let settings = Settings {
            engine: config.engine(),
            store: config.store.clone(),
            banned: config.access.banned_keys(),
        };
        jobs.send(Job::Configure(Box::new(settings))).await.map_err(|_| gone())?;
        let server = &config.server;
        let (max, per_network) = (server.max_connections, server.max_connections_per_network);
        self.gate.set_limits(config.network.gate(max, per_network));
        self.bans.configure(config.network.banned.clone());
        self.drain_timeout.store(config.network.drain_timeout, Ordering::Relaxed);
        log.set(config.log.level);
        Ok(())
    }
}

/// Runs a relay until SIGTERM, SIGINT or the command `drain`. SIGHUP and the command `reload` ask
/// `load` for the configuration again.
///
/// # Errors
/// [`ServeError`].
pub fn run(
    config: &Config,
    data: &Path,
    ready: impl FnOnce(&Ready),
    load: impl Fn() -> Result<Config, ConfigError>,
    log: &LogFilter,
) -> Result<(), ServeError> {
    let runtime = runtime().map_err(StartError::system("the runtime"))?;
    runtime.block_on(async {
        let signals = Signals::install().map_err(StartError::system("a signal handler"))?;
        let (life, wishes) = Lifecycle::new();
        let server = Server::start(config, data, life.clone()).await?;
        let live = server.live();
        let mut reloader = Reloader::new(config.clone(), &LIVE);
        ready(server.ready());
        let reload =
            async || reloader.reload(&load, async |config| live.apply(config, log).await).await;
        let supervising = supervise(signals, wishes, life, reload);
        tokio::select! {
            ended = server.run() => ended,
            () = supervising => Ok(()),
        }
    })
}

/// The link of the relay in `data`, whether it runs or not: where the configuration says, else
/// where it was at the last start.
///
/// # Errors
/// [`ServeError::NoRelay`] before the first start, [`ServeError::NoEndpoint`].
pub fn link(config: &Config, data: &Path) -> Result<String, ServeError> {
    let advertised = config.advertised()?;
    let local = keys::load(data)?.ok_or_else(|| ServeError::NoRelay(data.to_owned()))?;
    let key = local.identity.key();
    place::link(key, advertised).or_else(|| place::noted(data, &key)).ok_or(ServeError::NoEndpoint)
}

/// Where the store is when it must be opened again while the relay runs.
fn home(config: &Config, data: &Path, incarnation: Incarnation) -> Home {
    let disk = Some(Disk::new(&data.join(STORE_FILE), config.store.clone()));
    let (section, data) = (config.store.clone(), data.to_owned());
    let open = move || open_files(&section, &data, incarnation).map(|(store, _)| store);
    Home { open: Box::new(open), disk }
}

/// Opens the store, and makes sure that everything about it is on disk before anybody is served.
fn open_store(
    config: &Config,
    data: &Path,
    entropy: &mut Entropy,
) -> Result<(JournaledStore, Incarnation), ServeError> {
    let fresh = Incarnation::new(entropy.array());
    let path = data.join(STORE_FILE);
    let mut opened = open_files(&config.store, data, fresh);
    // What the journal holds may need more room than there is.
    if matches!(opened, Err(StoreError::Full(_)))
        && Disk::new(&path, config.store.clone()).release_reserve()
    {
        tracing::warn!("the reserve on the disk is given up, to open the store");
        opened = open_files(&config.store, data, fresh);
    }
    opened.map_err(|source| ServeError::Store { path, source })
}

fn open_files(
    section: &StoreSection,
    data: &Path,
    fresh: Incarnation,
) -> Result<(JournaledStore, Incarnation), StoreError> {
    let cache = usize::try_from(section.cache_bytes).unwrap_or(usize::MAX);
    let store = RedbStore::open(&data.join(STORE_FILE), cache)?;
    JournaledStore::open(store, &data.join(JOURNAL_FILE), section.journal_bytes, fresh)
}
