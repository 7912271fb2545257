//! What an operator and his tools get to see and to do, the same at every server: commands on the
//! control socket, figures and health for monitoring, signs of life for the service manager. What
//! is a server's own it adds by [`Operated`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::bans::Bans;
use super::control::{self, Answer, Refused, Request};
use super::gate::{self, Gate};
use super::lifecycle::Lifecycle;
use super::metrics::{Family, Page, process};
use super::{Clock, http, notify};

/// How long a sign of life may take.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that one answer shows, unless more are asked for.
const CONNECTIONS_SHOWN: usize = 100;

const BUILD: Family = Family::gauge("sremp_build_info", "Always 1; the version.").by("version");
const UPTIME: Family = Family::gauge("sremp_uptime_seconds", "Time since the start.");
const READY: Family = Family::gauge("sremp_ready", "1 when new clients are welcome, otherwise 0.");
const RELOADS: Family =
    Family::counter("sremp_reloads_total", "Attempts to take over a configuration.").by("result");
const RELOAD_OK: Family =
    Family::gauge("sremp_last_reload_ok", "0 when the last attempt failed and the old one stays.");

/// Figures that every server has.
#[must_use]
pub fn families() -> Vec<Family> {
    let own = [BUILD, UPTIME, READY, RELOADS, RELOAD_OK];
    own.into_iter().chain(gate::FAMILIES).chain(process::FAMILIES).collect()
}

/// What a server adds.
pub trait Operated: Send + Sync + 'static {
    /// Whether the server still does its work, its store included. Slow is as bad as no.
    fn is_alive(&self) -> impl Future<Output = bool> + Send;

    /// Why no new clients are welcome, although the server runs and does not end. A full disk, for
    /// example.
    fn trouble(&self) -> impl Future<Output = Option<String>> + Send;

    /// What `status` shows beside what every server shows.
    fn status(&self) -> impl Future<Output = Map<String, Value>> + Send;

    /// Its own figures.
    fn put(&self, page: &mut Page) -> impl Future<Output = ()> + Send;

    /// Its own commands; [`unknown`] for all others.
    fn carry_out(&self, request: &Request) -> impl Future<Output = Answer> + Send;
}

/// A server with everything that its operator deals with.
#[derive(Debug)]
pub struct Operator<O> {
    /// What is the server's own.
    pub served: Arc<O>,
    /// Version of the program.
    pub version: &'static str,
    /// Where clients come.
    pub listening: SocketAddr,
    /// Its life.
    pub life: Lifecycle,
    /// Its gate.
    pub gate: Gate,
    /// Whom the gate turns away.
    pub bans: Bans,
    /// Its clock, started with it.
    pub clock: Clock,
}

/// The answer to a command that does not exist.
#[must_use]
pub fn unknown(request: &Request) -> Refused {
    Refused::new("usage", format!("this server has no command `{}`", request.command))
}

impl<O: Operated> Operator<O> {
    /// Starts the tasks that listen to the operator, to monitoring, and to the service manager.
    pub fn start(
        self,
        tasks: &mut JoinSet<()>,
        control: UnixListener,
        monitoring: Option<TcpListener>,
    ) {
        let operator = Arc::new(self);
        let commanded = Arc::clone(&operator);
        tasks.spawn(control::serve(control, move |request| {
            let operator = Arc::clone(&commanded);
            async move { operator.carry_out(&request).await }
        }));
        if let Some(listener) = monitoring {
            tasks.spawn(http::serve(listener, Arc::clone(&operator)));
        }
        if let Some(every) = notify::alive_every() {
            tasks.spawn(async move {
                loop {
                    if operator.is_alive().await {
                        notify::alive();
                    } else {
                        tracing::error!("the store does not answer");
                    }
                    sleep(every).await;
                }
            });
        }
    }

    /// Carries out one command.
    ///
    /// # Errors
    /// As the command has it.
    pub async fn carry_out(&self, request: &Request) -> Answer {
        match request.command.as_str() {
            "status" => Ok(self.status().await),
            "connections" => {
                let limit = match request.arguments.get("limit") {
                    Some(_) => request.argument("limit")?,
                    None => CONNECTIONS_SHOWN,
                };
                let open = self.gate.counts().open;
                Ok(json!({"open": open, "connections": self.gate.connections(limit)}))
            }
            "bans" | "ban" | "unban" => self.bans.carry_out(request),
            "reload" => self.life.reload().await,
            "drain" => {
                self.life.stop();
                Ok(json!({"draining": true, "connections": self.gate.counts().open}))
            }
            _ => self.served.carry_out(request).await,
        }
    }

    async fn status(&self) -> Value {
        let mut status = Map::new();
        status.insert("version".to_owned(), self.version.into());
        status.insert("listening".to_owned(), self.listening.to_string().into());
        status.insert("uptime_ms".to_owned(), self.clock.now().instant.as_millis().into());
        status.insert("state".to_owned(), self.state().await.into());
        status.insert("connections".to_owned(), json!(self.gate.counts()));
        status.extend(self.served.status().await);
        Value::Object(status)
    }

    async fn state(&self) -> String {
        match self.is_ready().await {
            Ok(()) => "ready".to_owned(),
            Err(why) => why,
        }
    }

    /// Whether the server does its work.
    pub(super) async fn is_alive(&self) -> bool {
        timeout(ALIVE_TIMEOUT, self.served.is_alive()).await.unwrap_or(false)
    }

    /// Whether new clients are welcome; otherwise why not.
    pub(super) async fn is_ready(&self) -> Result<(), String> {
        if self.life.is_draining() {
            return Err("draining".to_owned());
        }
        if !self.life.is_ready() {
            return Err("starting".to_owned());
        }
        match timeout(ALIVE_TIMEOUT, self.served.trouble()).await {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(why),
            Err(_) => Err("the store does not answer".to_owned()),
        }
    }

    /// All figures.
    pub(super) async fn page(&self) -> Page {
        let mut page = Page::default();
        page.put_each(&BUILD, [(self.version, 1)]);
        page.put(&UPTIME, self.clock.now().instant.as_millis() / 1_000);
        page.put(&READY, self.is_ready().await.is_ok().into());
        let (good, bad, last_is_good) = self.life.reloads();
        page.put_each(&RELOADS, [("ok", good), ("failed", bad)]);
        page.put(&RELOAD_OK, last_is_good.into());
        self.gate.put(&mut page);
        process::put(&mut page);
        // A server that hangs still has figures: the ones above say that it lives.
        let own = timeout(ALIVE_TIMEOUT, self.served.put(&mut page)).await;
        if own.is_err() {
            tracing::warn!("the store does not answer monitoring");
        }
        page
    }
}

#[cfg(test)]
mod tests;
