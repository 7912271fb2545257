//! The Unix socket of the local interface: who may connect, how many at a time, and what happens
//! to a socket that a crashed node left behind.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at a time; who comes later waits in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 64;
/// After a failed accept (out of file descriptors), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("a node is running for this home already")]
    AlreadyRunning,
    /// Something else has its name.
    #[error("{0} is in the way: it is not a socket; move it elsewhere")]
    NotASocket(PathBuf),
    /// Others could reach the socket.
    #[error("{0} is open to other users; close it with: chmod 700 {0}")]
    HomeIsOpen(PathBuf),
    /// The system's limit is 107 bytes.
    #[error("the path {0} is too long for a socket; use a home with a shorter path")]
    PathTooLong(PathBuf),
    /// The operating system said no.
    #[error("cannot open the socket {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Longest path of a Unix socket on Linux, without the final zero.
const MAX_SOCKET_PATH: usize = 107;

/// The bound socket. Dropping it removes the file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
    permits: Arc<Semaphore>,
}

impl Socket {
    /// Binds `path`, 0600, in a directory that must be closed to others. A socket left behind is
    /// removed, but only when nobody answers there. Two nodes that start at once are kept apart
    /// by the lock on the database, which is taken first.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        let home = path.parent().unwrap_or(Path::new("."));
        let home_mode = std::fs::metadata(home).map_err(failed)?.permissions().mode();
        if home_mode & 0o077 != 0 {
            return Err(SocketError::HomeIsOpen(home.to_owned()));
        }
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(SocketError::PathTooLong(path.to_owned()));
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        // No race: until here, the closed directory kept everybody else away.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let owner = std::fs::symlink_metadata(path).map_err(failed)?.uid();
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Ok(Self { listener, path: path.to_owned(), owner, permits })
    }

    /// The same socket, as if it belonged to another user.
    #[cfg(test)]
    pub(super) fn owned_by(mut self, owner: u32) -> Self {
        self.owner = owner;
        self
    }

    fn admits(&self, stream: &UnixStream) -> bool {
        stream.peer_cred().is_ok_and(|peer| peer.uid() == self.owner)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What cannot be removed is found to be stale by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::AlreadyRunning),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

impl axum::serve::Listener for Socket {
    type Io = Admitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Admitted, SocketAddr) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, address)) if self.admits(&stream) => {
                    return (Admitted { stream, _permit: permit }, address);
                }
                Ok(_) => tracing::warn!("another user tried to use the local interface"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a local connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection of the owner's, which makes room for another one when it ends.
#[derive(Debug)]
pub struct Admitted {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
