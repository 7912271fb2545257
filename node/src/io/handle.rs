//! How the rest of the process talks to the core: commands go in through a bounded queue, each
//! with a place for its answer; events come out through a broadcast. Holds no logic of the core.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::api::{ApiError, Command, Event, EventPage, Reply};

/// Commands that may wait for the core; who sends more waits.
pub const MAX_WAITING_COMMANDS: usize = 64;
/// Events that a slow watcher may lag behind; beyond, it reads the core's record.
pub const MAX_WAITING_EVENTS: usize = 1024;
/// After this long nobody waits for an answer any more; the core may still carry the command out.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A command on its way to the core. Dropping `answer` unanswered tells that the core has stopped.
#[derive(Debug)]
pub struct CoreRequest {
    /// What is asked.
    pub command: Command,
    /// Where the answer goes; nobody may be waiting there any more.
    pub answer: oneshot::Sender<Result<Reply, ApiError>>,
}

/// The core's ends of the channels.
#[derive(Debug)]
pub struct CoreEnd {
    /// Commands, in order.
    pub requests: mpsc::Receiver<CoreRequest>,
    /// Every event goes here after its commit; an error only says that nobody watches.
    pub events: broadcast::Sender<Arc<Event>>,
}

/// Everybody else's ends of the channels.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    requests: mpsc::Sender<CoreRequest>,
    // Weak, so that watchers see the end of the stream when the core drops its end.
    events: broadcast::WeakSender<Arc<Event>>,
}

/// A pair of ends.
#[must_use]
pub fn channel() -> (CoreHandle, CoreEnd) {
    let (request_sender, requests) = mpsc::channel(MAX_WAITING_COMMANDS);
    let (events, _) = broadcast::channel(MAX_WAITING_EVENTS);
    let handle = CoreHandle { requests: request_sender, events: events.downgrade() };
    (handle, CoreEnd { requests, events })
}

impl CoreHandle {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the core says; `failed` when it has stopped, `timed_out` when it stays silent.
    pub async fn command(&self, command: Command) -> Result<Reply, ApiError> {
        let name = command.name();
        let (answer, answered) = oneshot::channel();
        let ask = async {
            let request = CoreRequest { command, answer };
            self.requests.send(request).await.map_err(|_| stopped())?;
            answered.await.unwrap_or_else(|_| Err(stopped()))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, ask).await.unwrap_or_else(|_| {
            Err(ApiError::timed_out(format!("the node did not answer `{name}` in time")))
        })
    }

    /// Events from now on; [`None`] when the core has stopped.
    #[must_use]
    pub fn events(&self) -> Option<broadcast::Receiver<Arc<Event>>> {
        self.events.upgrade().map(|sender| sender.subscribe())
    }

    /// Recorded events after `after`.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn event_page(&self, after: Option<u64>, limit: u32) -> Result<EventPage, ApiError> {
        let reply = self.command(Command::Events { after, limit }).await?;
        let Reply::Events(page) = reply else { return Err(unexpected(&reply)) };
        Ok(page)
    }
}

/// The core answered with something else than what the command is answered with.
pub(super) fn unexpected(reply: &Reply) -> ApiError {
    ApiError::failed(format!(
        "the node gave the wrong kind of answer ({}); report this",
        reply.name()
    ))
}

fn stopped() -> ApiError {
    ApiError::failed("the node is stopping; start it again and repeat the command")
}
