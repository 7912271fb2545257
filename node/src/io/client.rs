//! The other end of the local interface's socket, for programs that wait: one question, one
//! answer, or a stream of lines. What to ask is [`crate::api::route`]'s.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Response;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::api::route::{Request, encode};
use crate::api::{ApiError, ErrorBody, ErrorKind, json};
use crate::config::Home;

/// Bytes of an answer: history at its largest, with every byte of every text escaped.
const MAX_ANSWER: usize = 512 * 1024 * 1024;
/// Bytes of one line of a stream.
const MAX_LINE: usize = 1024 * 1024;
/// A node that runs accepts at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a running node. Blocks the calling thread; not for use inside a task.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to the node of a home.
    ///
    /// # Errors
    /// `no_daemon` when none is running there, `refused` when it is somebody else's.
    pub fn connect(home: &Home) -> Result<Self, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ApiError::failed(format!("no runtime: {error}")))?;
        let connecting = async { tokio::time::timeout(CONNECT_TIMEOUT, open(home)).await };
        let sender = runtime.block_on(connecting).unwrap_or_else(|_| {
            Err(ApiError::timed_out("the node does not accept connections; is it stopped or busy?"))
        })?;
        Ok(Self { runtime, sender })
    }

    /// Asks, and reads the whole answer: one line of JSON that is harmless on a terminal.
    ///
    /// # Errors
    /// What the node answers, or that the connection broke.
    pub fn ask(&mut self, request: &Request) -> Result<String, ApiError> {
        self.runtime.block_on(async {
            let answer = send(&mut self.sender, request).await?;
            text(answer).await
        })
    }

    /// Asks for a stream, and hands on every line of it, without its line feed, until `each` says
    /// `false`.
    ///
    /// # Errors
    /// What the node answers, or that the stream ended: it does so only when the node stops.
    pub fn follow(
        &mut self,
        request: &Request,
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<(), ApiError> {
        self.runtime.block_on(async {
            let answer = send(&mut self.sender, request).await?;
            if !answer.status().is_success() {
                return text(answer).await.map(|_| ());
            }
            let mut body = answer.into_body();
            let mut lines = Lines::default();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| lost(&error))?;
                lines.add(frame.data_ref().map_or(&[], |bytes| &bytes[..]))?;
                while let Some(line) = lines.next() {
                    if !each(&line) {
                        return Ok(());
                    }
                }
            }
            Err(ApiError::failed("the node has stopped, and with it the stream"))
        })
    }
}

async fn open(home: &Home) -> Result<SendRequest<Full<Bytes>>, ApiError> {
    let stream =
        UnixStream::connect(home.socket()).await.map_err(|error| unreachable_node(home, &error))?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| lost(&error))?;
    // Ends with the runtime. A broken connection is seen by whoever waits for the answer.
    tokio::spawn(connection);
    Ok(sender)
}

fn unreachable_node(home: &Home, error: &std::io::Error) -> ApiError {
    let shown = home.path().display();
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return ApiError::refused(format!("{shown} belongs to another user"));
    }
    let text = format!("no node is running for {shown}; start it with: sremp --home {shown} run");
    ApiError::new(ErrorKind::NoDaemon, text)
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: &Request,
) -> Result<Response<Incoming>, ApiError> {
    let form = encode(request);
    let request = hyper::Request::builder()
        .method(form.method.word())
        .uri(form.target)
        .header(hyper::header::HOST, "localhost")
        .body(Full::new(Bytes::from(form.body)))
        .map_err(|error| ApiError::usage(format!("the request cannot be made: {error}")))?;
    sender.ready().await.map_err(|error| lost(&error))?;
    sender.send_request(request).await.map_err(|error| lost(&error))
}

/// The body of an answer, or the error that it is.
async fn text(answer: Response<Incoming>) -> Result<String, ApiError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| ApiError::failed(format!("the node's answer broke off: {error}")))?
        .to_bytes();
    if status.is_success() {
        return Ok(json::harmless(&String::from_utf8_lossy(&body)));
    }
    Err(serde_json::from_slice::<ErrorBody>(&body).map_or_else(
        |_| ApiError::failed(format!("the node answered with status {status}")),
        |body| body.error,
    ))
}

fn lost(error: &hyper::Error) -> ApiError {
    ApiError::failed(format!("the connection to the node was lost: {error}"))
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > MAX_LINE && !self.bytes.contains(&b'\n') {
            return Err(ApiError::failed("the node sends a line without an end"));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<String> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Some(json::harmless(&String::from_utf8_lossy(&line)))
    }
}
