//! A Unix socket in a server's data directory: whoever connects is told the server's status as
//! one JSON object, and nothing can be asked or changed.
//!
//! The directory is private (mode 0700) and the socket has mode 0600: to reach it is to be its
//! owner.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

/// Name of the socket in the data directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// How long one side waits for the other.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest path that every Unix takes as an address of a socket.
const MAX_SOCKET_PATH: usize = 100;

/// Bytes of an answer.
const MAX_ANSWER: u64 = 1 << 20;

/// Why no status can be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error("no server is running with the data directory {}", .0.display())]
    NotRunning(PathBuf),
    /// The server is there, but does not answer properly.
    #[error("the server does not answer at {}", path.display())]
    Io {
        /// The data directory.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// Makes the socket in `directory`, in place of the one that a killed process left behind.
///
/// To be called only by the process that holds the lock on the directory's store: that is what
/// proves that an existing socket is a left-over.
///
/// # Errors
/// When the system refuses.
pub fn bind(directory: &Path) -> io::Result<UnixListener> {
    let short = ShortPath::of(directory)?;
    let path = short.socket();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers everybody who connects, one after the other, until it is dropped.
pub async fn serve<A: Future<Output = String>>(
    listener: UnixListener,
    mut answer: impl FnMut() -> A,
) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: to try again at once would change nothing.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let mut answer = answer().await;
        answer.push('\n');
        // Whoever goes away without listening misses the answer.
        let _ = tokio::time::timeout(TIMEOUT, async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        })
        .await;
    }
}

/// Removes the socket at an orderly end.
pub fn remove(directory: &Path) {
    // If it stays, the next start replaces it.
    let _ = fs::remove_file(directory.join(CONTROL_SOCKET));
}

/// Asks the server of `directory` for its status. Blocks for some seconds at most.
///
/// # Errors
/// [`ControlError::NotRunning`] when nobody listens.
pub fn ask(directory: &Path) -> Result<String, ControlError> {
    let io_error = |source| ControlError::Io { path: directory.to_owned(), source };
    let connected = ShortPath::of(directory).and_then(|short| UnixStream::connect(short.socket()));
    let stream = connected.map_err(|error| {
        use ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
        if matches!(error.kind(), NotFound | ConnectionRefused | NotADirectory) {
            ControlError::NotRunning(directory.to_owned())
        } else {
            io_error(error)
        }
    })?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(io_error)?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).map_err(io_error)?;
    if answer.trim().is_empty() {
        return Err(io_error(ErrorKind::UnexpectedEof.into()));
    }
    Ok(answer.trim().to_owned())
}

/// A way to name the socket in few bytes: through an open directory when its path is too long to
/// be a socket's address.
enum ShortPath {
    Direct(PathBuf),
    ThroughDirectory(File),
}

impl ShortPath {
    fn of(directory: &Path) -> io::Result<Self> {
        let path = directory.join(CONTROL_SOCKET);
        if path.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self::Direct(path));
        }
        File::open(directory).map(Self::ThroughDirectory)
    }

    fn socket(&self) -> PathBuf {
        match self {
            Self::Direct(path) => path.clone(),
            Self::ThroughDirectory(directory) => {
                let descriptor = directory.as_raw_fd().to_string();
                Path::new("/proc/self/fd").join(descriptor).join(CONTROL_SOCKET)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    fn answers_in(directory: &Path) {
        let runtime = runtime();
        for life in ["1", "2"] {
            // The second time over the first one's left-over.
            let listener = runtime.block_on(async { bind(directory) }).unwrap();
            let mode = fs::metadata(directory.join(CONTROL_SOCKET)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let server = runtime.spawn(serve(listener, move || async move { life.to_owned() }));
            assert_eq!(ask(directory).unwrap(), life);
            assert_eq!(ask(directory).unwrap(), life);
            server.abort();
            assert!(runtime.block_on(server).is_err());
            assert!(matches!(ask(directory), Err(ControlError::NotRunning(_))));
        }
        remove(directory);
        assert!(matches!(ask(directory), Err(ControlError::NotRunning(_))));
    }

    #[test]
    fn whoever_connects_is_answered() {
        answers_in(tempfile::tempdir().unwrap().path());
    }

    #[test]
    fn a_path_longer_than_a_socket_address_works() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("d".repeat(120));
        fs::create_dir(&directory).unwrap();
        answers_in(&directory);
    }

    #[test]
    fn no_directory_means_not_running() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("missing");
        assert!(matches!(ask(&missing), Err(ControlError::NotRunning(_))));
    }
}
