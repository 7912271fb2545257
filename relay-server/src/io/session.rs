//! One accepted connection: handshake and encryption in a task of its own, requests to the
//! store's thread, answers from there.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sremp_common::connection::{Caller, Closed, Connection, Event, Local, ReassemblyBudget};
use sremp_common::entropy::Entropy;
use sremp_common::io::Clock;
use sremp_common::io::doors::Visitor;
use sremp_common::io::stream::{DriveLimits, Stopped, drive};
use sremp_common::limit::{MAX_BLOB, MAX_OPEN_REQUESTS};
use sremp_common::neighbourhood::blurred;
use sremp_common::wire::Endpoint;
use tokio::sync::mpsc;

use super::keeper::Job;
use crate::engine::SessionId;

/// Answers and pushes that may wait for one connection: every open request is answered at once,
/// and a window is pushed besides.
const MAX_COMMANDS: usize = MAX_OPEN_REQUESTS + 64;
/// Bytes that may be queued for one connection: a window and the longest message.
const MAX_QUEUED: usize = 2 * MAX_BLOB;
/// Time that a reader may take for a piece of 32 KiB.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all sessions have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) local: Arc<Local>,
    pub(super) budget: ReassemblyBudget,
    pub(super) clock: Clock,
    pub(super) jobs: mpsc::Sender<Job>,
}

/// Serves a connection until it ends.
///
/// What is large is made before the future, which then stays small: ten thousand of them wait.
pub(super) fn attend(
    visitor: Visitor,
    entropy: Entropy,
    shared: Arc<Shared>,
) -> impl Future<Output = ()> + Send {
    let Visitor { stream, address, slot } = visitor;
    let slot = Arc::new(slot);
    let session = SessionId(slot.number());
    tracing::debug!(network = %blurred(address.ip()), session = session.0, "accepted");
    let clock = shared.clock;
    let connection = Connection::accept(Arc::clone(&shared.local), entropy, clock.now());
    let mut connection = Box::new(connection);
    // Senders are anonymous and their messages may be long: what bounds memory is the budget over
    // all connections, not who somebody is.
    connection.set_peer_trusted(true);
    connection.set_reassembly_budget(shared.budget.clone());
    let (commands, queue) = mpsc::channel(MAX_COMMANDS);
    let commands = Cell::new(Some(commands));
    let observed = SocketAddr::new(address.ip().to_canonical(), address.port());
    let wrap = move |event| match event {
        Event::Established(peer) => {
            let caller = match peer.caller {
                Caller::Identified(identity) => Some(identity.key()),
                Caller::Anonymous => None,
            };
            // Whether it belongs here is known once it has registered.
            slot.established(false);
            let (observed, slot) = (Endpoint::from(observed), Some(Arc::clone(&slot)));
            match commands.take() {
                Some(commands) => Job::Opened { session, caller, observed, commands, slot },
                None => Job::Ignored,
            }
        }
        Event::Request { id, message } => Job::Request { session, id, message },
        Event::Response { .. } => Job::Ignored,
        Event::Closed(closed) => {
            log_end(session, &closed);
            Job::Closed { session }
        }
    };
    let limits = DriveLimits { max_queued: MAX_QUEUED, write_timeout: WRITE_TIMEOUT };
    async move {
        // Without it, answers would wait for the acknowledgement of the ones before.
        let stopped = match stream.set_nodelay(true) {
            Err(error) => Stopped::Stream(error),
            Ok(()) => {
                let now = move || clock.now();
                drive(stream, connection, queue, &shared.jobs, wrap, now, limits).await
            }
        };
        tracing::debug!(session = session.0, reason = %stopped, "connection ended");
    }
}

fn log_end(session: SessionId, closed: &Closed) {
    let session = session.0;
    match closed {
        Closed::Clean(code) => tracing::debug!(session, ?code, "session closed"),
        Closed::Unclean => tracing::debug!(session, "session cut off"),
        Closed::Failed(error) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::debug!(session, %error, cause, "session failed");
        }
    }
}
