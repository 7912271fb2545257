//! A node at work in this process: its listener, its network tasks and its core thread. What it is
//! asked, and when it ends, is others' business: the daemon's, or that of a program that embeds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use sremp_common::io::{Clock, system_entropy};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::core::Core;
use super::handle::{self, CoreHandle};
use super::net::{Listener, MAX_REPORTS, Network};
use super::setup::explain;
use super::workers::Threads;
use crate::api::ApiError;
use crate::config;
use crate::identity::Own;
use crate::node::{Node, NodeConfig};
use crate::store::Store;

/// A node that runs. Dropped without [`Self::stop`], its thread lives on until the process ends.
#[derive(Debug)]
pub struct Running {
    core: CoreHandle,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
    ended: mpsc::Receiver<()>,
    accepting: AbortHandle,
    thread: JoinHandle<Result<(), ApiError>>,
}

impl Running {
    /// Listens, and starts the core thread. Must be called in a runtime, which carries the network.
    ///
    /// # Errors
    /// [`ApiError`] that says what is in the way.
    pub async fn start(
        store: Store,
        own: Own,
        config: &config::NodeConfig,
    ) -> Result<Self, ApiError> {
        let listener = Listener::bind(config.listen).await.map_err(|error| {
            ApiError::failed(format!(
                "cannot listen on {}: {error}; choose another address in the configuration",
                config.listen
            ))
        })?;
        let address = listener.address().map_err(explain)?;
        let clock = Clock::start();
        let node_config = NodeConfig {
            listening: vec![address],
            advertise: config.advertise.clone(),
            path: config.path,
            allow_private_addresses: config.allow_private_addresses,
            relay_copies: config.relay_copies.into(),
            listed: config.listed,
            typing: config.typing,
        };
        let entropy = system_entropy().map_err(explain)?;
        let tx = store.begin().map_err(explain)?;
        let mut node = Node::load(&tx, own, node_config, entropy, clock.now()).map_err(explain)?;
        node.set_workers(Arc::new(Threads::of_machine()));
        tx.commit().map_err(explain)?;

        let (reports, net_events) = mpsc::channel(MAX_REPORTS);
        let (stop, stopping) = watch::channel(false);
        let (core, end) = handle::channel();
        let network = Network::new(Handle::current(), reports.clone());
        let owned = Core { node, store, end, net_events, network, clock, stop: stopping.clone() };
        let (ended_sender, ended) = mpsc::channel(1);
        let thread = std::thread::Builder::new().name("core".to_owned()).spawn(move || {
            let result = run_core(owned);
            let _ = ended_sender.blocking_send(());
            result
        });
        let thread = thread.map_err(explain)?;
        let accepting = tokio::spawn(listener.accept(reports)).abort_handle();
        Ok(Self { core, address, stop, stopping, ended, accepting, thread })
    }

    /// Commands and events.
    #[must_use]
    pub const fn core(&self) -> &CoreHandle {
        &self.core
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says `true` when the node is about to stop.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// Waits until the core has ended by itself, because its store failed.
    pub async fn ended(&mut self) {
        let _ = self.ended.recv().await;
    }

    /// Tells everything that belongs to the node to stop; [`Self::join`] waits for it.
    pub fn stop(&self) {
        self.accepting.abort();
        // Without receivers there is nobody left to stop.
        let _ = self.stop.send(true);
    }

    /// Waits until the core thread has ended, after [`Self::stop`].
    ///
    /// # Errors
    /// [`ApiError`] when its store had failed.
    pub async fn join(self) -> Result<(), ApiError> {
        let thread = self.thread;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await.map_err(explain)?;
        ended.unwrap_or_else(|_| {
            Err(ApiError::failed("the core stopped unexpectedly; start the node again"))
        })
    }
}

fn run_core(core: Core) -> Result<(), ApiError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.map_err(explain)?.block_on(core.run()).map_err(explain)
}
