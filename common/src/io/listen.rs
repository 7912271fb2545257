//! The listening socket of a server: how it is bound, what happens when the system gives no
//! connection, and how the connections come to an end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Pause after the system refused to accept a connection: it is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on an address or name. Where the system has no IPv6, `[::]` means all of IPv4.
///
/// # Errors
/// What the system says.
pub async fn listen(address: &str) -> io::Result<TcpListener> {
    let first = TcpListener::bind(address).await;
    let everywhere = address
        .parse::<SocketAddr>()
        .ok()
        .filter(|address| address.is_ipv6() && address.ip().is_unspecified());
    match (first, everywhere) {
        (Err(error), Some(wanted)) if is_without_ipv6(&error) => {
            TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), wanted.port())).await
        }
        (first, _) => first,
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, PermissionDenied};
    !matches!(error.kind(), AddrInUse | PermissionDenied)
}

/// Says that no connection could be accepted, and waits before the next attempt.
pub async fn pause_after(error: io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Waits until all connections have ended, but no longer than `limit`.
pub async fn drain(connections: &mut JoinSet<()>, limit: Duration) {
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, drained).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_taken_is_not_taken_again() {
        let first = listen("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap();
        let again = listen(&address.to_string()).await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        assert!(listen("not an address").await.is_err());
    }
}
