//! The shell: sockets, TLS, the clock, signals, tasks and the store's thread around the pure
//! parts. It decides nothing about the protocol.
#![expect(clippy::disallowed_methods, reason = "this is the shell that the rule is about")]

pub mod certificates;
pub mod dev_cert;

pub mod operated;

mod connection;
mod storage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sremp_common::io::Clock;
use sremp_common::io::bans::Bans;
use sremp_common::io::control::{self, Refused};
use sremp_common::io::doors::{Doors, Plan, StartError};
use sremp_common::io::gate::Gate;
use sremp_common::io::lifecycle::{Lifecycle, supervise};
use sremp_common::io::operator::Operator;
use sremp_common::io::output::LogFilter;
use sremp_common::io::private::create_private_dir;
use sremp_common::io::reload::Reloader;
use sremp_common::io::signals::{Signals, runtime};
use sremp_common::io::sources::Sourced as _;
use tokio::task::JoinSet;

use self::certificates::{CertificateError, Certificates, Reload};
use self::connection::Shared;
use self::storage::{Home, Storage};
use crate::config::{Config, ConfigError, LIVE};
use crate::store::{StoreError, StoreOptions};

/// Name of the registry's file in the data directory.
const STORE_FILE: &str = "registry.redb";

/// How often the certificate's files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// How often expired registrations are withdrawn. Readers do not depend on it.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Why the server does not run, or runs no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A value of the configuration, or no certificate in it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What every server needs cannot be had.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store cannot be opened, or has failed. Nothing that was acknowledged is lost.
    #[error("the registry's store {} cannot be used", path.display())]
    Store {
        /// Its file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: StoreError,
    },
    /// Certificate or key are unusable.
    #[error("the certificate cannot be used")]
    Certificate(#[from] CertificateError),
}

/// Where a server that is ready is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// By clients, with the port that the system chose.
    pub listening: SocketAddr,
    /// By monitoring, if it is on.
    pub metrics: Option<SocketAddr>,
}

/// A server that listens, and serves as soon as it is run.
#[derive(Debug)]
pub struct Server {
    data: PathBuf,
    doors: Doors,
    storage: Storage,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens the store in `data`, loads the certificate, and listens.
    ///
    /// # Errors
    /// [`ServeError`], naming the cause.
    pub async fn start(config: &Config, data: &Path, life: Lifecycle) -> Result<Self, ServeError> {
        config.check()?;
        let (cert, key) = config.certificate()?;
        let certificates = Arc::new(Certificates::load(cert, key)?);
        create_private_dir(data).map_err(StartError::from)?;
        let path = data.join(STORE_FILE);
        let cache_bytes = usize::try_from(config.registry.cache_bytes).unwrap_or(usize::MAX);
        let mut home = Home::file(path.clone(), StoreOptions { cache_bytes });
        let store = (home.open)().map_err(|source| ServeError::Store { path, source })?;
        let clock = Clock::start();
        let plan = Plan {
            data,
            listen: &config.server.listen,
            max_connections: config.server.max_connections,
            max_connections_per_network: config.server.max_connections_per_network,
            network: &config.network,
            metrics: &config.metrics,
        };
        let doors = Doors::open(&plan, clock).await?;
        let storage = Storage::start(store, home, config.registry()?, clock)
            .map_err(StartError::system("the store's thread"))?;
        let shared = Arc::new(Shared {
            jobs: storage.jobs(),
            clock,
            certificates,
            life,
            idle_timeout: AtomicU32::new(config.server.idle_timeout),
            drain_timeout: AtomicU32::new(config.network.drain_timeout),
            failed: AtomicU64::new(0),
        });
        Ok(Self { data: data.to_owned(), doors, storage, shared })
    }

    /// Where it is.
    #[must_use]
    pub fn ready(&self) -> Ready {
        let listening = self.doors.front.listening();
        Ready { listening, metrics: self.doors.monitoring_at() }
    }

    /// A way to change the configuration of the server while it runs.
    #[must_use]
    fn settings(&self) -> Settings {
        Settings {
            shared: Arc::downgrade(&self.shared),
            gate: self.doors.gate.clone(),
            bans: self.doors.bans.clone(),
        }
    }

    /// Serves until its life is to end, then drains: requests that have come are answered.
    ///
    /// # Errors
    /// [`ServeError::Store`] when the store fails: the process should start again from the file.
    pub async fn run(self) -> Result<(), ServeError> {
        let Self { data, doors, mut storage, shared } = self;
        let life = shared.life.clone();
        let mut helpers = JoinSet::new();
        helpers.spawn(watch_certificates(Arc::clone(&shared.certificates)));
        helpers.spawn(sweep(storage.jobs()));
        let operator = Operator {
            served: Arc::clone(&shared),
            version: env!("CARGO_PKG_VERSION"),
            listening: doors.front.listening(),
            life: life.clone(),
            gate: doors.gate,
            bans: doors.bans,
            clock: shared.clock,
        };
        operator.start(&mut helpers, doors.control, doors.monitoring);
        let mut connections = JoinSet::new();
        let serve = |visitor| connection::attend(visitor, Arc::clone(&shared));
        let until = async {
            tokio::select! {
                () = life.stopped() => None,
                failure = storage.failed() => Some(failure),
            }
        };
        life.ready();
        let failure = doors.front.attend(&mut connections, serve, until).await;
        let limit = Duration::from_secs(shared.drain_timeout.load(Ordering::Relaxed).into());
        life.drain(&mut connections, limit).await;
        helpers.shutdown().await;
        drop(shared);
        control::remove(&data);
        storage.stop().await;
        match failure {
            None => Ok(()),
            Some(source) => Err(ServeError::Store { path: data.join(STORE_FILE), source }),
        }
    }
}

/// What a reload changes.
#[derive(Debug)]
struct Settings {
    shared: Weak<Shared>,
    gate: Gate,
    bans: Bans,
}

impl Settings {
    /// Takes over the keys in [`LIVE`]. What can fail comes first, so that it fails as a whole.
    async fn apply(&self, config: &Config, log: &LogFilter) -> Result<(), Refused> {
        let gone = || Refused::new("unavailable", "the server is about to end");
        let shared = self.shared.upgrade().ok_or_else(gone)?;
        let failed = |error: ConfigError| Refused::failed(&error);
        let registry = config.registry().map_err(failed)?;
        let (cert, key) = config.certificate().map_err(failed)?;
        let certificates = Arc::clone(&shared.certificates);
        let (cert, key) = (cert.to_owned(), key.to_owned());
        let replaced = tokio::task::spawn_blocking(move || certificates.replace(&cert, &key)).await;
        let replaced = replaced.map_err(|error| Refused::failed(&error))?;
        replaced.map_err(|error| Refused::failed(&error))?;
        shared.jobs.configure(registry).await;
        shared.idle_timeout.store(config.server.idle_timeout, Ordering::Relaxed);
        shared.drain_timeout.store(config.network.drain_timeout, Ordering::Relaxed);
        let server = &config.server;
        let (max, per_network) = (server.max_connections, server.max_connections_per_network);
        self.gate.set_limits(config.network.gate(max, per_network));
        self.bans.configure(config.network.banned.clone());
        log.set(config.log.level);
        Ok(())
    }
}

/// Runs a server until SIGTERM, SIGINT or the command `drain`. SIGHUP and the command `reload` ask
/// `load` for the configuration again.
///
/// # Errors
/// [`ServeError`].
pub fn run(
    config: &Config,
    data: &Path,
    ready: impl FnOnce(Ready),
    load: impl Fn() -> Result<Config, ConfigError>,
    log: &LogFilter,
) -> Result<(), ServeError> {
    let runtime = runtime().map_err(StartError::system("the runtime"))?;
    runtime.block_on(async {
        let signals = Signals::install().map_err(StartError::system("a signal handler"))?;
        let (life, wishes) = Lifecycle::new();
        let server = Server::start(config, data, life.clone()).await?;
        let settings = server.settings();
        let mut reloader = Reloader::new(config.clone(), &LIVE);
        ready(server.ready());
        let reload =
            async || reloader.reload(&load, async |config| settings.apply(config, log).await).await;
        let supervising = supervise(signals, wishes, life, reload);
        tokio::select! {
            ended = server.run() => ended,
            () = supervising => Ok(()),
        }
    })
}

async fn watch_certificates(certificates: Arc<Certificates>) {
    loop {
        tokio::time::sleep(CERTIFICATE_POLL).await;
        look_at(&certificates).await;
    }
}

/// Looks at the certificate's files. What is wrong with them is said once.
async fn look_at(certificates: &Arc<Certificates>) {
    let certificates = Arc::clone(certificates);
    match tokio::task::spawn_blocking(move || certificates.reload()).await {
        Ok(Reload::Loaded) => tracing::info!("new certificate loaded"),
        Ok(Reload::Failed(error)) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "the new certificate cannot be used; the old one stays");
        }
        Ok(Reload::Unchanged) | Err(_) => {}
    }
}

async fn sweep(jobs: storage::Jobs) {
    loop {
        jobs.sweep().await;
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}
