//! The answer on the status socket: one JSON object, with numbers only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use sremp_common::io::control;
use sremp_common::io::gate::GateCounts;
use tokio::net::UnixListener;

use super::connection::Shared;
use crate::registry::RegistryStatus;

#[derive(Serialize)]
struct Status {
    version: &'static str,
    listening: SocketAddr,
    uptime_ms: u64,
    connections: Connections,
    registry: RegistryStatus,
}

#[derive(Serialize)]
struct Connections {
    #[serde(flatten)]
    gate: GateCounts,
    /// Ended by a failed handshake or a broken connection.
    failed: u64,
}

pub(super) async fn serve(listener: UnixListener, listening: SocketAddr, shared: Arc<Shared>) {
    control::serve(listener, || async {
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            listening,
            uptime_ms: shared.clock.now().instant.as_millis(),
            connections: Connections {
                gate: shared.gate.counts(),
                failed: shared.failed.load(Ordering::Relaxed),
            },
            registry: shared.jobs.status().await.unwrap_or_default(),
        };
        serde_json::to_string(&status).unwrap_or_default()
    })
    .await;
}
