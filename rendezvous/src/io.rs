//! The shell: sockets, TLS, the clock, signals, tasks and the store's thread around the pure
//! parts. It decides nothing about the protocol.
#![expect(clippy::disallowed_methods, reason = "this is the shell that the rule is about")]

pub mod certificates;
pub mod dev_cert;

mod connection;
mod status;
mod storage;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sremp_common::io::Clock;
use sremp_common::io::control;
use sremp_common::io::gate::Gate;
use sremp_common::io::listen::{drain, listen, pause_after};
use sremp_common::io::private::{PrivateError, create_private_dir};
use sremp_common::io::signals::{Asked, Signals, runtime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::certificates::{CertificateError, Certificates, Reload};
use self::connection::Shared;
use self::storage::Storage;
use crate::config::{Config, ConfigError};
use crate::registry::Registry;
use crate::store::{Store, StoreError, StoreOptions};

/// Name of the registry's file in the data directory.
const STORE_FILE: &str = "registry.redb";

/// How often the certificate's files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// How often expired registrations are withdrawn. Readers do not depend on it.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How long connections may take to end when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the server does not run, or runs no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A value of the configuration, or no certificate in it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("the data directory cannot be used")]
    DataDirectory(#[from] PrivateError),
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
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// As configured.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The system refuses a thread, a signal handler or the status socket.
    #[error("cannot start: {what}")]
    System {
        /// What was refused.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A server that listens, and serves as soon as it is run.
#[derive(Debug)]
pub struct Server {
    data: PathBuf,
    listener: TcpListener,
    listening: SocketAddr,
    control: tokio::net::UnixListener,
    certificates: Arc<Certificates>,
    storage: Storage,
    idle_timeout: Duration,
    gate: Gate,
    clock: Clock,
}

impl Server {
    /// Opens the store in `data`, loads the certificate, and listens.
    ///
    /// # Errors
    /// [`ServeError`], naming the cause.
    pub async fn start(config: &Config, data: &Path) -> Result<Self, ServeError> {
        config.check()?;
        let (cert, key) = config.certificate()?;
        let certificates = Arc::new(Certificates::load(cert, key)?);
        create_private_dir(data)?;
        let path = data.join(STORE_FILE);
        let cache_bytes = usize::try_from(config.registry.cache_bytes).unwrap_or(usize::MAX);
        let store_error = |source| ServeError::Store { path: path.clone(), source };
        let store = Store::open(&path, StoreOptions { cache_bytes }).map_err(store_error)?;
        let system = |what| move |source| ServeError::System { what, source };
        let control = control::bind(data).map_err(system("the status socket"))?;
        let clock = Clock::start();
        let registry = Registry::new(config.registry()?);
        let storage =
            Storage::start(store, registry, clock).map_err(system("the store's thread"))?;
        let listener = listen(&config.server.listen).await.map_err(|source| {
            ServeError::Listen { address: config.server.listen.clone(), source }
        })?;
        let listening = listener.local_addr().map_err(system("the listening socket"))?;
        Ok(Self {
            data: data.to_owned(),
            listener,
            listening,
            control,
            certificates,
            storage,
            idle_timeout: config.idle_timeout(),
            gate: Gate::new(
                config.server.max_connections,
                config.server.max_connections_per_network,
            ),
            clock,
        })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub const fn listening(&self) -> SocketAddr {
        self.listening
    }

    /// The certificate in use, to be loaded anew on request.
    #[must_use]
    pub fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.certificates)
    }

    /// Serves until `stop` is done, then drains: requests that have come are answered.
    ///
    /// # Errors
    /// [`ServeError::Store`] when the store fails: the process should start again from the file.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { data, listener, listening, control, certificates, mut storage, .. } = self;
        let (stopping, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            jobs: storage.jobs(),
            clock: self.clock,
            idle_timeout: self.idle_timeout,
            gate: self.gate,
            failed: AtomicU64::new(0),
        });
        let mut helpers = JoinSet::new();
        helpers.spawn(watch_certificates(Arc::clone(&certificates)));
        helpers.spawn(sweep(storage.jobs()));
        helpers.spawn(status::serve(control, listening, Arc::clone(&shared)));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        let failure = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        accept(&mut connections, stream, address, &certificates, &shared, &stopped);
                    }
                    Err(error) => pause_after(error).await,
                },
                Some(_) = connections.join_next() => {}
                () = &mut stop => break None,
                failure = storage.failed() => break Some(failure),
            }
        };
        drop(listener);
        // Nobody may be listening any more, which is as good.
        let _ = stopping.send(true);
        drain(&mut connections, DRAIN_TIMEOUT).await;
        connections.shutdown().await;
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

/// Runs a server until SIGTERM or SIGINT. SIGHUP looks at the certificate's files at once.
///
/// # Errors
/// [`ServeError`].
pub fn run(config: &Config, data: &Path, ready: impl FnOnce(SocketAddr)) -> Result<(), ServeError> {
    let system = |what| move |source| ServeError::System { what, source };
    let runtime = runtime().map_err(system("the runtime"))?;
    runtime.block_on(async {
        let mut signals = Signals::install().map_err(system("a signal handler"))?;
        let server = Server::start(config, data).await?;
        let certificates = server.certificates();
        ready(server.listening());
        let stop = async {
            while signals.next().await == Asked::Reload {
                reload(&certificates).await;
            }
            tracing::info!("stopping");
        };
        server.run(stop).await
    })
}

/// Starts a task for a connection, if there is room for it.
fn accept(
    connections: &mut JoinSet<()>,
    stream: TcpStream,
    address: SocketAddr,
    certificates: &Certificates,
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
) {
    let Some(slot) = shared.gate.enter(address.ip()) else {
        tracing::debug!(%address, "refused: too many connections");
        return;
    };
    let tls = certificates.current();
    let (shared, stopped) = (Arc::clone(shared), stopped.clone());
    connections.spawn(async move {
        let result = connection::serve(stream, address, tls, &shared, stopped).await;
        match result {
            Ok(ending) => tracing::debug!(%address, ?ending, "connection closed"),
            Err(error) => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%address, %error, "connection failed");
            }
        }
        drop(slot);
    });
}

async fn watch_certificates(certificates: Arc<Certificates>) {
    loop {
        tokio::time::sleep(CERTIFICATE_POLL).await;
        reload(&certificates).await;
    }
}

/// Looks at the certificate's files. What is wrong with them is said once.
async fn reload(certificates: &Arc<Certificates>) {
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
