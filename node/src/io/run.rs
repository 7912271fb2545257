//! The daemon: binds, starts the core thread and the local interface, waits for a signal, drains.

use std::io::Write as _;

use sremp_common::io::{Clock, system_entropy};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::core::Core;
use super::handle;
use super::http::{self, socket::Socket};
use super::net::{Listener, MAX_REPORTS, Network};
use super::setup::{explain, open};
use crate::api::ApiError;
use crate::config::{Config, Home};
use crate::node::{Node, NodeConfig};

/// Runs the node of a home until SIGTERM or SIGINT.
///
/// Prints one line on standard output when it is ready.
///
/// # Errors
/// [`ApiError`] when it cannot start, or when its store failed.
pub fn run(home: &Home, config: &Config, json: bool) -> Result<(), ApiError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(explain)?;
    let result = runtime.block_on(serve(home, config, json, &runtime));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn serve(
    home: &Home,
    config: &Config,
    json: bool,
    runtime: &Runtime,
) -> Result<(), ApiError> {
    let (store, own) = open(home)?;
    let socket = Socket::bind(&home.socket()).await.map_err(explain)?;
    let listener = Listener::bind(config.node.listen).await.map_err(|error| {
        ApiError::failed(format!(
            "cannot listen on {}: {error}; choose another address in {}",
            config.node.listen,
            home.config().display()
        ))
    })?;
    let address = listener.address().map_err(explain)?;

    let (report_sender, net_events) = mpsc::channel(MAX_REPORTS);
    let (stop_sender, stop) = watch::channel(false);
    let (core_handle, end) = handle::channel();
    let clock = Clock::start();
    let node_config = NodeConfig {
        listening: vec![address],
        advertise: config.node.advertise.clone(),
        path: config.node.path,
        allow_private_addresses: config.node.allow_private_addresses,
        listed: config.node.listed,
    };
    let entropy = system_entropy().map_err(explain)?;
    let now = clock.now();
    let id = own.key().to_string();
    let tx = store.begin().map_err(explain)?;
    let node = Node::load(&tx, own, node_config, entropy, now).map_err(explain)?;
    tx.commit().map_err(explain)?;

    let network = Network::new(runtime.handle().clone(), report_sender.clone());
    let core = Core { node, store, end, net_events, network, clock, stop: stop.clone() };
    let (ended_sender, mut ended) = mpsc::channel(1);
    let thread = std::thread::Builder::new().name("core".to_owned()).spawn(move || {
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(explain)
            .and_then(|runtime| runtime.block_on(core.run()).map_err(explain));
        let _ = ended_sender.blocking_send(());
        result
    });
    let thread = thread.map_err(explain)?;
    let accepting = tokio::spawn(listener.accept(report_sender));
    let http = tokio::spawn(http::serve(socket, core_handle, stop));
    ready(home, &id, address, json);

    let mut terminate = signal(SignalKind::terminate()).map_err(explain)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(explain)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = ended.recv() => {}
    }
    accepting.abort();
    // Without receivers there is nobody left to stop.
    let _ = stop_sender.send(true);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), http).await;
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .map_err(explain)?
        .unwrap_or_else(|_| Err(ApiError::failed("the core stopped unexpectedly; start the node again")))
}

/// Says that the node can be used now.
fn ready(home: &Home, id: &str, address: std::net::SocketAddr, json: bool) {
    let line = if json {
        serde_json::json!({ "event": "ready", "id": id, "listening": address.to_string() })
            .to_string()
    } else {
        format!("sremp ready: {id} listening on {address}, home {}", home.path().display())
    };
    // Standard output may be closed: the node runs all the same.
    let _ = writeln!(std::io::stdout(), "{line}");
    let _ = std::io::stdout().flush();
}
