//! A Unix socket in a server's data directory, through which its operator speaks to it: a command
//! and its arguments as one line of JSON, an answer as one line of JSON. Which commands there are is
//! told by [`operator`](super::operator) and by each server.
//!
//! The directory is private (mode 0700), the socket has mode 0600, and who connects must be the
//! server's own user or the superuser.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::private::current_user;

/// Name of the socket in the data directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// How long the server waits for a command, and for the reader of its answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long an operator waits for an answer: a backup of a large store takes its time.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// The longest path that every Unix takes as an address of a socket.
const MAX_SOCKET_PATH: usize = 100;

/// Bytes of a command.
const MAX_REQUEST: u64 = 64 << 10;

/// Bytes of an answer.
const MAX_ANSWER: u64 = 16 << 20;

/// Commands that are carried out at a time; more wait.
const MAX_COMMANDS: usize = 8;

/// A command of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Its name.
    pub command: String,
    /// Its arguments, by name.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// What a command came to.
pub type Answer = Result<Value, Refused>;

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// For programs.
    pub code: String,
    /// For people: what happened, and what to do.
    pub message: String,
}

/// What goes over the socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Ok(Value),
    Error(Refused),
}

/// Why a command has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error("no server is running with the data directory {}", .0.display())]
    NotRunning(PathBuf),
    /// The server does not do it.
    #[error(transparent)]
    Refused(Refused),
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

impl Request {
    /// A command without arguments.
    #[must_use]
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned(), arguments: Map::new() }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.to_owned(), value.into());
        self
    }

    /// An argument that the command cannot do without, in the form in which it is needed.
    ///
    /// # Errors
    /// When it is absent, or of another form.
    pub fn argument<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, Refused> {
        let value = self.arguments.get(name).cloned().unwrap_or(Value::Null);
        let wrong = |error: serde_json::Error| {
            Refused::new("usage", format!("{}: the argument `{name}`: {error}", self.command))
        };
        serde_json::from_value(value).map_err(wrong)
    }
}

impl Refused {
    /// A refusal with a code for programs and a sentence for people.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    /// A refusal because of an error.
    #[must_use]
    pub fn failed(error: &dyn std::error::Error) -> Self {
        Self::new("failed", super::output::with_causes(error))
    }
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

/// Carries out the commands of everybody who connects and may, until it is dropped.
pub async fn serve<A>(
    listener: UnixListener,
    carry_out: impl Fn(Request) -> A + Send + Sync + 'static,
) where
    A: Future<Output = Answer> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_COMMANDS));
    let carry_out = Arc::new(carry_out);
    let mut commands = JoinSet::new();
    loop {
        while commands.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: to try again at once would change nothing.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let carry_out = Arc::clone(&carry_out);
        commands.spawn(async move {
            // Whoever goes away without listening misses the answer.
            let _ = serve_one(stream, &*carry_out).await;
            drop(place);
        });
    }
}

async fn serve_one<A: Future<Output = Answer>>(
    mut stream: tokio::net::UnixStream,
    carry_out: &impl Fn(Request) -> A,
) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    let answer = if user == 0 || current_user().is_none_or(|own| own == user) {
        let (reader, _) = stream.split();
        let mut line = Vec::new();
        let mut reader = tokio::io::BufReader::new(reader.take(MAX_REQUEST));
        timeout(TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
        match serde_json::from_slice(&line) {
            Ok(request) => carry_out(request).await,
            Err(error) => Err(Refused::new("usage", format!("not a command: {error}"))),
        }
    } else {
        Err(Refused::new("refused", "only the server's own user and the superuser may do that"))
    };
    let mut line = serde_json::to_vec(&answer.map_or_else(Line::Error, Line::Ok))?;
    line.push(b'\n');
    timeout(TIMEOUT, async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    })
    .await?
}

/// Removes the socket at an orderly end.
pub fn remove(directory: &Path) {
    // If it stays, the next start replaces it.
    let _ = fs::remove_file(directory.join(CONTROL_SOCKET));
}

/// Has a command carried out by the server of `directory`, and waits for the answer.
///
/// # Errors
/// [`ControlError::NotRunning`] when nobody listens, [`ControlError::Refused`] when the server says no.
pub fn ask(directory: &Path, request: &Request) -> Result<Value, ControlError> {
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
    match exchange(&stream, request).map_err(io_error)? {
        Line::Ok(value) => Ok(value),
        Line::Error(refused) => Err(ControlError::Refused(refused)),
    }
}

fn exchange(mut stream: &UnixStream, request: &Request) -> io::Result<Line> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut answer)?;
    if answer.trim().is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
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
            let server = runtime.spawn(serve(listener, move |request: Request| async move {
                match request.command.as_str() {
                    "life" => Ok(life.into()),
                    "echo" => Ok(request.argument::<String>("text")?.into()),
                    other => Err(Refused::new("usage", format!("no {other}"))),
                }
            }));
            assert_eq!(ask(directory, &Request::new("life")).unwrap(), life);
            let echo = Request::new("echo").with("text", "x\ny");
            assert_eq!(ask(directory, &echo).unwrap(), "x\ny");
            for (wrong, says) in [
                (Request::new("echo"), "echo: the argument `text`"),
                (Request::new("echo").with("text", 1), "expected a string"),
                (Request::new("dance"), "no dance"),
            ] {
                let Err(ControlError::Refused(refused)) = ask(directory, &wrong) else { panic!() };
                assert_eq!(refused.code, "usage");
                assert!(refused.message.contains(says), "{refused}");
            }
            server.abort();
            assert!(runtime.block_on(server).is_err());
            let gone = ask(directory, &Request::new("life"));
            assert!(matches!(gone, Err(ControlError::NotRunning(_))));
        }
        remove(directory);
        assert!(matches!(ask(directory, &Request::new("life")), Err(ControlError::NotRunning(_))));
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
        let request = Request::new("status");
        assert!(matches!(ask(&missing, &request), Err(ControlError::NotRunning(_))));
    }

    #[test]
    fn a_slow_command_keeps_nobody_waiting_and_nonsense_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = runtime();
        let listener = runtime.block_on(async { bind(directory.path()) }).unwrap();
        runtime.spawn(serve(listener, |request: Request| async move {
            if request.command == "slow" {
                std::future::pending::<()>().await;
            }
            Ok(Value::Null)
        }));
        let connect = || UnixStream::connect(directory.path().join(CONTROL_SOCKET)).unwrap();
        let mut slow = connect();
        slow.write_all(b"{\"command\":\"slow\"}\n").unwrap();
        assert_eq!(ask(directory.path(), &Request::new("status")).unwrap(), Value::Null);
        for nonsense in
            ["\n", "not json\n", "{\"command\":1}\n", "{\"command\":\"x\",\"more\":1}\n"]
        {
            let mut stream = connect();
            stream.write_all(nonsense.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("\"error\":{\"code\":\"usage\""), "{answer}");
        }
    }
}
