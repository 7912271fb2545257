//! The daemon: starts the node and its local interface, waits for a signal, drains.

use std::io::Write as _;

use sremp_common::io::signals::{Asked, Signals};

use super::http::{self, socket::Socket};
use super::running::Running;
use super::setup::{explain, open};
use crate::api::ApiError;
use crate::cli::run::LogFilter;
use crate::config::{Config, Home};

/// Runs the node of a home until SIGTERM or SIGINT. SIGHUP, which also comes when the terminal is
/// closed in which it was started, makes it read its configuration again.
///
/// Prints one line on standard output when it is ready.
///
/// # Errors
/// [`ApiError`] when it cannot start, or when its store failed.
pub fn run(home: &Home, config: &Config, filter: &LogFilter, json: bool) -> Result<(), ApiError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(explain)?;
    let result = runtime.block_on(serve(home, config, filter, json));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

async fn serve(
    home: &Home,
    config: &Config,
    filter: &LogFilter,
    json: bool,
) -> Result<(), ApiError> {
    // First of all: until then these signals end the process where it stands.
    let mut signals = Signals::install().map_err(explain)?;
    let (store, own) = open(home)?;
    let socket = Socket::bind(&home.socket()).await.map_err(explain)?;
    let id = own.key().to_string();
    let mut node = Running::start(store, own, &config.node).await?;
    let http = tokio::spawn(http::serve(socket, node.core().clone(), node.stopping()));
    ready(home, &id, node.address(), json);

    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            () = node.ended() => Asked::Stop,
        };
        match asked {
            Asked::Reload => reload(home, config, filter),
            Asked::Stop => break,
        }
    }
    node.stop();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), http).await;
    node.join().await
}

/// Takes over what can change while the node runs, which is how much it logs; says what cannot.
fn reload(home: &Home, running: &Config, filter: &LogFilter) {
    let fresh = match Config::load(home) {
        Ok(fresh) => fresh,
        Err(error) => {
            tracing::error!(%error, "the configuration was not read again; the node runs on as before");
            return;
        }
    };
    filter.set(fresh.log.level);
    let waiting = waiting_for_restart(running, &fresh);
    if waiting.is_empty() {
        tracing::info!("the configuration was read again");
    } else {
        let keys = waiting.join(", ");
        tracing::warn!(
            keys,
            "the configuration was read again; these keys wait for the next start"
        );
    }
}

/// The keys that differ, and that a running node cannot take over.
fn waiting_for_restart(running: &Config, fresh: &Config) -> Vec<&'static str> {
    let (old, new) = (&running.node, &fresh.node);
    [
        ("node.listen", old.listen != new.listen),
        ("node.advertise", old.advertise != new.advertise),
        ("node.path", old.path != new.path),
        (
            "node.allow_private_addresses",
            old.allow_private_addresses != new.allow_private_addresses,
        ),
        ("node.listed", old.listed != new.listed),
        ("node.typing", old.typing != new.typing),
        ("node.relay_copies", old.relay_copies != new.relay_copies),
        ("log.format", running.log.format != fresh.log.format),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_the_next_start_is_named() {
        let none: [(String, String); 0] = [];
        let running = Config::default();
        let text = "[node]\nlisten = \"127.0.0.1:1\"\nadvertise = [\"a.example:1\"]\npath = \"relay\"\n\
            allow_private_addresses = true\nlisted = true\ntyping = true\nrelay_copies = 2\n[log]\nlevel = \"debug\"\nformat = \"json\"";
        let fresh = Config::parse(text, none).unwrap();
        // All keys but the one that is taken over.
        assert_eq!(waiting_for_restart(&running, &fresh).len(), 8);
        assert!(waiting_for_restart(&running, &running.clone()).is_empty());
    }
}
