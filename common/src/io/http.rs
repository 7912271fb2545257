//! What monitoring asks: `/livez` (does the server answer, its store included), `/readyz` (may new
//! clients come) and `/metrics`. Plain HTTP for this machine; nothing can be changed here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listen::pause_after;
use super::operator::{Operated, Operator};

/// Requests at a time; more wait.
const MAX_CONNECTIONS: usize = 16;

/// Time for a request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What Prometheus calls its text.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers until it is dropped.
pub(super) async fn serve<O: Operated>(listener: TcpListener, operator: Arc<Operator<O>>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let operator = Arc::clone(&operator);
                connections.spawn(async move {
                    answer_one(stream, address, operator).await;
                    drop(place);
                });
            }
            Err(error) => pause_after(error).await,
        }
    }
}

async fn answer_one<O: Operated>(
    stream: TcpStream,
    address: SocketAddr,
    operator: Arc<Operator<O>>,
) {
    let service = service_fn(|request| {
        let operator = Arc::clone(&operator);
        async move { Ok::<_, Infallible>(answer(&request, &operator).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .max_buf_size(16 * 1024)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(TIMEOUT, connection).await {
        tracing::debug!(%address, %error, "a request of monitoring failed");
    }
}

async fn answer<O: Operated>(
    request: &Request<Incoming>,
    operator: &Operator<O>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/livez" if operator.is_alive().await => response(StatusCode::OK, "alive\n".to_owned()),
        "/livez" => {
            response(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n".to_owned())
        }
        "/readyz" => match operator.is_ready().await {
            Ok(()) => response(StatusCode::OK, "ready\n".to_owned()),
            Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        "/metrics" => {
            let mut response = response(StatusCode::OK, operator.page().await.into_text());
            let kind = hyper::header::HeaderValue::from_static(METRICS_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        _ => response(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

fn response(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}
