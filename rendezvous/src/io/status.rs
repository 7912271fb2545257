//! The answer on the status socket: one JSON object, with numbers only.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use sremp_common::io::control;
use tokio::net::UnixListener;

use super::connection::Shared;
use super::gate::GateCounts;
use crate::registry::RegistryStatus;

#[derive(Serialize)]
struct Status {
    version: &'static str,
    listening: SocketAddr,
    uptime_ms: u64,
    connections: GateCounts,
    registry: RegistryStatus,
}

pub(super) async fn serve(listener: UnixListener, listening: SocketAddr, shared: Arc<Shared>) {
    control::serve(listener, || async {
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            listening,
            uptime_ms: shared.clock.now().instant.as_millis(),
            connections: shared.gate.counts(),
            registry: shared.jobs.status().await.unwrap_or_default(),
        };
        serde_json::to_string(&status).unwrap_or_default()
    })
    .await;
}
