//! The listening socket of a server: how it is bound, what happens when the system gives no
//! connection, and how the connections come to an end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::task::JoinSet;

/// Pause after the system refused to accept a connection: it is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the system keeps until they are accepted; it may keep fewer
/// (`net.core.somaxconn`). When there is no place left, whoever connects tries again after a second,
/// so a crowd that comes at once must find room, or everybody waits with it.
const BACKLOG: u32 = 16_384;

/// Listens on an address or name. Where the system has no IPv6, `[::]` means all of IPv4.
///
/// # Errors
/// What the system says.
pub async fn listen(address: &str) -> io::Result<TcpListener> {
    let first = bind(address).await;
    let everywhere = address
        .parse::<SocketAddr>()
        .ok()
        .filter(|address| address.is_ipv6() && address.ip().is_unspecified());
    match (first, everywhere) {
        (Err(error), Some(wanted)) if is_without_ipv6(&error) => {
            listen_at((IpAddr::from(Ipv4Addr::UNSPECIFIED), wanted.port()).into())
        }
        (first, _) => first,
    }
}

/// Listens on the first of the places that a text means.
async fn bind(address: &str) -> io::Result<TcpListener> {
    let mut refused = None;
    for place in lookup_host(address).await? {
        match listen_at(place) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = Some(error),
        }
    }
    let nowhere = || io::Error::new(io::ErrorKind::InvalidInput, "the name means no address");
    Err(refused.unwrap_or_else(nowhere))
}

fn listen_at(place: SocketAddr) -> io::Result<TcpListener> {
    let socket = if place.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The connections of the process before this one may not be quite over.
    socket.set_reuseaddr(true)?;
    socket.bind(place)?;
    socket.listen(BACKLOG)
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
