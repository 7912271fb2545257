//! The shell: sockets, the clock, signals, tasks and the store's thread around the pure parts. It
//! decides nothing about the protocol.
#![expect(clippy::disallowed_methods, reason = "this is the shell that the rule is about")]

pub mod keys;

mod disk;
mod keeper;
mod place;
mod session;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sremp_common::connection::{Local, ReassemblyBudget};
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, Incarnation};
use sremp_common::io::bans::Bans;
use sremp_common::io::control::Request;
use sremp_common::io::gate::{Gate, GateCounts};
use sremp_common::io::listen::{self, listen, pause_after};
use sremp_common::io::operator::unknown;
use sremp_common::io::private::{PrivateError, create_private_dir};
use sremp_common::io::settings::NetworkSection;
use sremp_common::io::signals::{Asked, Signals, runtime};
use sremp_common::io::{Clock, control, system_entropy};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::disk::Disk;
use self::keeper::{Home, Job, Keeper, KeeperStatus};
use self::keys::KeyError;
use self::session::Shared;
use crate::config::{Config, ConfigError};
use crate::engine::{Engine, SessionId};
use crate::store::{Mailboxes as _, RedbMailboxes, RedbStore, StoreError};

/// Name of the database in the data directory.
const STORE_FILE: &str = "relay.redb";
/// How long connections may take to end when the relay stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the relay does not run, or runs no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A value of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("the data directory cannot be used")]
    DataDirectory(#[from] PrivateError),
    /// The relay's key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The store cannot be opened, or has failed. Nothing that was acknowledged is lost.
    #[error("the store {} cannot be used", path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: StoreError,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// As configured.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The system refuses a thread, a signal handler, a socket or randomness.
    #[error("the system refuses {what}")]
    System {
        /// What was refused.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
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
    /// Whose it is: the relay's identity.
    pub id: IdentityKey,
    /// Its link, if it knows where it is reached.
    pub link: Option<String>,
}

/// The answer on the status socket.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    id: String,
    link: Option<String>,
    listening: SocketAddr,
    uptime_ms: u64,
    #[serde(flatten)]
    keeper: KeeperStatus,
    connections: GateCounts,
}

/// A relay that listens, and serves as soon as it is run.
#[derive(Debug)]
pub struct Server {
    data: PathBuf,
    listener: TcpListener,
    control: UnixListener,
    ready: Ready,
    local: Arc<Local>,
    keeper: Keeper,
    gate: Gate,
    entropy: Entropy,
    clock: Clock,
}

impl Server {
    /// Opens key and store in `data`, and listens.
    ///
    /// # Errors
    /// [`ServeError`], naming the cause.
    pub async fn start(config: &Config, data: &Path) -> Result<Self, ServeError> {
        config.check()?;
        let advertised = config.advertised()?;
        create_private_dir(data)?;
        let clock = Clock::start();
        let mut entropy = system_entropy()
            .map_err(|error| system("randomness")(std::io::Error::other(error.to_string())))?;
        // The store first: its lock keeps a second relay from making a second key.
        let (store, incarnation) = open_store(config, data, &mut entropy)?;
        let local = Arc::new(keys::load_or_create(data, &mut entropy, clock.now().wall)?);
        let control = control::bind(data).map_err(system("the status socket"))?;
        let listener = listen(&config.server.listen).await.map_err(|source| {
            ServeError::Listen { address: config.server.listen.clone(), source }
        })?;
        let listening = listener.local_addr().map_err(system("the listening socket"))?;
        let id = local.identity.key();
        let link = place::link(id, place::endpoints(advertised, listening));
        if let Some(link) = &link {
            place::note(data, link)?;
        }
        let engine = Engine::new(config.engine(), id, incarnation);
        let home = home(config, data);
        let keeper = Keeper::start(store, home, engine, clock).map_err(system("a thread"))?;
        let server = &config.server;
        Ok(Self {
            data: data.to_owned(),
            listener,
            control,
            ready: Ready { listening, id, link },
            local,
            keeper,
            gate: gate(server.max_connections, server.max_connections_per_network, clock),
            entropy,
            clock,
        })
    }

    /// Where it is, and who.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// A way to change the quotas while the relay runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader(self.keeper.jobs().downgrade())
    }

    /// Serves until `stop` is done, then drains: what has come is stored and answered, and every
    /// session is closed in order.
    ///
    /// # Errors
    /// [`ServeError::Store`] when the store fails: the process must start again from the file.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { data, listener, control, ready, local, mut keeper, gate, mut entropy, clock } =
            self;
        let budget = ReassemblyBudget::new(ReassemblyBudget::DEFAULT_CAP);
        let shared = Arc::new(Shared { local, budget, clock, jobs: keeper.jobs() });
        let mut helpers = JoinSet::new();
        helpers.spawn(serve_status(control, ready, gate.clone(), keeper.jobs(), clock));
        let mut connections = JoinSet::new();
        let mut session = 0_u64;
        tokio::pin!(stop);
        let mut failure = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        session = session.saturating_add(1);
                        let session = SessionId(session);
                        accept(&mut connections, stream, address, session, entropy.fork(), &gate, &shared);
                    }
                    Err(error) => pause_after(error).await,
                },
                Some(_) = connections.join_next() => {}
                () = &mut stop => break None,
                failure = keeper.failed() => break Some(failure),
            }
        };
        drop(listener);
        if failure.is_none() {
            drain(&mut connections, &shared.jobs).await;
        }
        connections.shutdown().await;
        helpers.shutdown().await;
        drop(shared);
        control::remove(&data);
        let at_the_end = keeper.stop().await;
        failure = failure.or(at_the_end);
        let path = data.join(STORE_FILE);
        failure.map_or(Ok(()), |source| Err(ServeError::Store { path, source }))
    }
}

/// Gives a running relay new quotas.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::WeakSender<Job>);

impl Reloader {
    /// Takes over the section `mailboxes`; everything else needs a restart.
    pub async fn reload(&self, config: &Config) {
        if let Some(jobs) = self.0.upgrade() {
            // When the thread is gone the whole program is about to end.
            let _ =
                jobs.send(Job::Configure(Box::new(config.engine()), config.store.clone())).await;
        }
    }
}

/// Runs a relay until SIGTERM or SIGINT. SIGHUP asks `reload` for the configuration and takes over
/// its quotas.
///
/// # Errors
/// [`ServeError`].
pub fn run(
    config: &Config,
    data: &Path,
    ready: impl FnOnce(&Ready),
    reload: impl Fn() -> Result<Config, ConfigError>,
) -> Result<(), ServeError> {
    let runtime = runtime().map_err(system("the runtime"))?;
    runtime.block_on(async {
        let mut signals = Signals::install().map_err(system("a signal handler"))?;
        let server = Server::start(config, data).await?;
        let reloader = server.reloader();
        ready(server.ready());
        let stop = async {
            while signals.next().await == Asked::Reload {
                match reload() {
                    Ok(config) => {
                        reloader.reload(&config).await;
                        tracing::info!("quotas are loaded anew");
                    }
                    Err(error) => {
                        tracing::error!(%error, "the configuration is wrong; the old one stays");
                    }
                }
            }
            tracing::info!("stopping");
        };
        server.run(stop).await
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

/// Counts connections, and lets them in.
fn gate(max: u32, max_per_network: u32, clock: Clock) -> Gate {
    // Until the configuration has the section: as many as there are places.
    let section = NetworkSection {
        max_half_open: max,
        arrivals_per_minute: 1_000_000,
        ..NetworkSection::default()
    };
    Gate::new(section.gate(max, max_per_network), Bans::default(), clock)
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

/// Where the store is when it must be opened again while the relay runs.
fn home(config: &Config, data: &Path) -> Home {
    let path = data.join(STORE_FILE);
    let cache = usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX);
    let disk = Some(Disk::new(&path, config.store.clone()));
    Home { open: Box::new(move || RedbStore::open(&path, cache)), disk }
}

/// Opens the store, and makes sure that everything about it is on disk before anybody is served.
fn open_store(
    config: &Config,
    data: &Path,
    entropy: &mut Entropy,
) -> Result<(RedbStore, Incarnation), ServeError> {
    let path = data.join(STORE_FILE);
    let cache = usize::try_from(config.store.cache_bytes).unwrap_or(usize::MAX);
    let fresh = Incarnation::new(entropy.array());
    let open = || -> Result<_, StoreError> {
        let store = RedbStore::open(&path, cache)?;
        let transaction = store.begin()?;
        let incarnation =
            RedbMailboxes::within(&transaction, |mailboxes| mailboxes.incarnation(fresh))?;
        transaction.commit()?;
        Ok((store, incarnation))
    };
    open().map_err(|source| ServeError::Store { path: path.clone(), source })
}

/// Starts a task for a connection, if there is room for it.
fn accept(
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    address: SocketAddr,
    session: SessionId,
    entropy: Entropy,
    gate: &Gate,
    shared: &Arc<Shared>,
) {
    let Ok(slot) = gate.enter(address) else {
        tracing::debug!(%address, "refused: too many connections");
        return;
    };
    tracing::debug!(%address, session = session.0, "accepted");
    let serving = session::serve(stream, address, session, entropy, Arc::clone(shared));
    connections.spawn(async move {
        let stopped = serving.await;
        tracing::debug!(session = session.0, reason = %stopped, "connection ended");
        drop(slot);
    });
}

/// Ends all sessions in order, as far as their peers let us.
async fn drain(connections: &mut JoinSet<()>, jobs: &mpsc::Sender<Job>) {
    // Without the thread there is nothing to drain.
    if jobs.send(Job::Drain).await.is_err() {
        return;
    }
    listen::drain(connections, DRAIN_TIMEOUT).await;
}

async fn serve_status(
    listener: UnixListener,
    ready: Ready,
    gate: Gate,
    jobs: mpsc::Sender<Job>,
    clock: Clock,
) {
    control::serve(listener, move |request: Request| {
        let (ready, gate, jobs) = (ready.clone(), gate.clone(), jobs.clone());
        async move {
            if request.command != "status" {
                return Err(unknown(&request));
            }
            let (answer, told) = oneshot::channel();
            // When the thread is gone the whole program is about to end.
            let _ = jobs.send(Job::Status(answer)).await;
            let status = Status {
                version: env!("CARGO_PKG_VERSION"),
                id: ready.id.to_string(),
                link: ready.link.clone(),
                listening: ready.listening,
                uptime_ms: clock.now().instant.as_millis(),
                keeper: told.await.unwrap_or_default(),
                connections: gate.counts(),
            };
            Ok(serde_json::to_value(&status).unwrap_or_default())
        }
    })
    .await;
}
