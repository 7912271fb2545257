//! The local interface over HTTP/1.1 on a Unix socket: `/v1`, JSON, one resource for each command.
//!
//! Access is the file system's and the kernel's: the socket is 0600 in a home that is 0700, and
//! whoever connects must have the user id that owns the socket. There is no TCP, and a request
//! that a browser made (it has an `Origin`) is refused. What the requests mean: [`crate::api::route`].

pub mod socket;
mod watch;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request as HttpRequest, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{RequestExt as _, Router};
use tokio::sync::watch as watch_channel;

use super::handle::CoreHandle;
use super::setup::check_authority;
use crate::api::route::{self, MAX_BODY, Request};
use crate::api::{ApiError, Command, ErrorBody, ServerOptions, json};
use socket::Socket;

/// What every handler knows.
#[derive(Clone, Debug)]
struct Server {
    core: CoreHandle,
    stop: watch_channel::Receiver<bool>,
}

/// Serves until `stop` says `true` (or its sender is gone): then answers what is under way, ends
/// the streams, and removes the socket.
pub async fn serve(socket: Socket, core: CoreHandle, stop: watch_channel::Receiver<bool>) {
    let server = Server { core, stop: stop.clone() };
    let router =
        Router::new().fallback(answer).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(server);
    // `axum::serve` never returns an error: a failed accept is logged and retried by the listener.
    let _ = axum::serve(socket, router).with_graceful_shutdown(stopped(stop)).await;
}

/// Resolves when `stop` says so.
async fn stopped(mut stop: watch_channel::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn answer(State(server): State<Server>, request: HttpRequest) -> Response {
    match respond(server, request).await {
        Ok(response) => response,
        Err(error) => error_response(&error),
    }
}

async fn respond(server: Server, request: HttpRequest) -> Result<Response, ApiError> {
    check_headers(request.headers())?;
    let method = request.method().as_str().to_owned();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned();
    let body: Bytes = request.extract().await.map_err(|_| {
        ApiError::usage(format!("the body is longer than {MAX_BODY} bytes, or broke off"))
    })?;
    match route::decode(&method, &target, &body)? {
        Request::Command(command) => {
            if let Command::RendezvousAdd(ServerOptions { ca, .. }) = &command {
                check_authority(ca.as_deref())?;
            }
            let name = command.name();
            let result = server.core.command(command).await;
            tracing::debug!(command = name, ok = result.is_ok(), "local command");
            Ok(json_response(StatusCode::OK, &result?))
        }
        Request::Wait { id, state, timeout } => {
            let waited = watch::wait(&server.core, stopped(server.stop), id, state, timeout);
            Ok(json_response(StatusCode::OK, &waited.await?))
        }
        Request::Watch { after } => {
            let lines = watch::lines(server.core, stopped(server.stop), after).await?;
            let headers = [(CONTENT_TYPE, "application/x-ndjson")];
            Ok((headers, Body::from_stream(lines)).into_response())
        }
    }
}

/// Programs of this user that mean it have no `Origin`, and ask for `localhost` or for nobody.
fn check_headers(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(ORIGIN) {
        return Err(ApiError::refused("requests from web pages are not served"));
    }
    let host = headers.get(HOST).map_or(Some("localhost"), |host| host.to_str().ok());
    if !host.is_some_and(|host| host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
        return Err(ApiError::refused("the request is for another host; ask for http://localhost"));
    }
    Ok(())
}

fn json_response(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match json::to_string(body) {
        Ok(mut text) => {
            text.push('\n');
            (status, [(CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn error_response(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.code.http_status());
    let body = ErrorBody { error: error.clone() };
    json_response(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body)
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
