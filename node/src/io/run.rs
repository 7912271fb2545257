//! The daemon: starts the node and its local interface, waits for a signal, drains.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};

use super::http::{self, socket::Socket};
use super::running::Running;
use super::setup::{explain, open};
use crate::api::ApiError;
use crate::config::{Config, Home};

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
    let result = runtime.block_on(serve(home, config, json));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn serve(home: &Home, config: &Config, json: bool) -> Result<(), ApiError> {
    let (store, own) = open(home)?;
    let socket = Socket::bind(&home.socket()).await.map_err(explain)?;
    let id = own.key().to_string();
    let mut node = Running::start(store, own, &config.node).await?;
    let http = tokio::spawn(http::serve(socket, node.core().clone(), node.stopping()));
    ready(home, &id, node.address(), json);

    let mut terminate = signal(SignalKind::terminate()).map_err(explain)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(explain)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = node.ended() => {}
    }
    node.stop();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), http).await;
    node.join().await
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
