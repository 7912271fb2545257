//! The command line's side of the socket: one request, one answer, or a stream of lines.

use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::api::route::{Request, encode};
use crate::api::{ApiError, ErrorBody, ErrorKind};

/// Bytes of an answer: a page of history at its largest.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// A connection to a running node.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// Connects to the node of a home.
    ///
    /// # Errors
    /// [`ErrorKind::NoDaemon`] when none is running.
    pub async fn connect(home: &Path, socket: &Path) -> Result<Self, ApiError> {
        let stream = UnixStream::connect(socket).await.map_err(|_| {
            let home = home.display();
            ApiError::new(
                ErrorKind::NoDaemon,
                format!("no node is running for {home}; start it with: sremp --home {home} run"),
            )
        })?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        #[expect(clippy::disallowed_methods, reason = "the connection needs a task of its own")]
        let driver = tokio::spawn(async move {
            // A broken connection is seen by whoever waits for the answer.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Asks, and reads the whole answer, a JSON text.
    ///
    /// # Errors
    /// What the node answers, or that the connection broke.
    pub async fn ask(&mut self, request: &Request) -> Result<Vec<u8>, ApiError> {
        let answer = self.start(request).await?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| ApiError::failed(format!("the node's answer broke off: {error}")))?
            .to_bytes();
        if status.is_success() {
            return Ok(body.to_vec());
        }
        Err(serde_json::from_slice::<ErrorBody>(&body)
            .map_or_else(|_| ApiError::failed(format!("the node answered {status}")), |b| b.error))
    }

    /// Asks for a stream, and hands every line on until the stream or `each` ends it.
    ///
    /// # Errors
    /// What the node answers, or that the connection broke.
    pub async fn follow(
        &mut self,
        request: &Request,
        mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), ApiError> {
        let mut body = self.start(request).await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| lost(&error))?;
            if let Some(bytes) = frame.data_ref()
                && each(bytes).is_err()
            {
                // Nobody reads the other end of the pipe any more.
                return Ok(());
            }
        }
        Ok(())
    }

    async fn start(
        &mut self,
        request: &Request,
    ) -> Result<hyper::Response<Incoming>, ApiError> {
        let form = encode(request);
        let request = hyper::Request::builder()
            .method(form.method.word())
            .uri(form.target)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(form.body)))
            .map_err(|error| ApiError::failed(format!("the request cannot be made: {error}")))?;
        self.sender.send_request(request).await.map_err(|error| lost(&error))
    }
}

fn lost(error: &hyper::Error) -> ApiError {
    ApiError::failed(format!("the connection to the node was lost: {error}"))
}
