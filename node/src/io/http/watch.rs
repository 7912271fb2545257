//! Answers that take their time: waiting for a message's state, and the stream of events.
//!
//! The broadcast is only a wake-up with contents. What a slow watcher lost there is read again
//! from the core's record, so that a stream has no gap that the record does not have.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::api::{
    ApiError, Command, Event, EventBody, EventPage, MAX_EVENT_PAGE, MessageState, MessageView,
    Reply, json,
};
use crate::io::handle::{CoreHandle, unexpected};

/// The message, as soon as it has come as far as `wanted`, cannot come further, or `timeout`
/// seconds are over.
pub(super) async fn wait(
    core: &CoreHandle,
    stopped: impl Future<Output = ()>,
    id: String,
    wanted: MessageState,
    timeout: u32,
) -> Result<MessageView, ApiError> {
    // Subscribed before the first look, so that no change falls between the two.
    let mut events = core.events();
    let mut message = show(core, &id).await?;
    let watch = async {
        while !is_over(&message, wanted) {
            let Some(events) = &mut events else { return Err(stopping()) };
            changed(events, &message.message_id).await?;
            message = show(core, &id).await?;
        }
        Ok(())
    };
    let limited = tokio::time::timeout(Duration::from_secs(timeout.into()), watch);
    tokio::select! {
        result = limited => result.unwrap_or(Ok(()))?,
        () = stopped => return Err(stopping()),
    }
    Ok(message)
}

fn is_over(message: &MessageView, wanted: MessageState) -> bool {
    message.state.ends_wait_for(wanted) || message.state >= message.final_state
}

async fn show(core: &CoreHandle, id: &str) -> Result<MessageView, ApiError> {
    let reply = core.command(Command::MessageShow { id: id.to_owned() }).await?;
    let Reply::Message(message) = reply else { return Err(unexpected(&reply)) };
    Ok(*message)
}

/// Returns when something may have happened to the message.
async fn changed(events: &mut Receiver<Arc<Event>>, id: &str) -> Result<(), ApiError> {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let EventBody::State { message_id, .. } = &event.body
                    && message_id == id
                {
                    return Ok(());
                }
            }
            Err(RecvError::Lagged(_)) => return Ok(()),
            Err(RecvError::Closed) => return Err(stopping()),
        }
    }
}

fn stopping() -> ApiError {
    ApiError::failed(
        "the node is stopping; the message is kept, and goes on its way at the next start",
    )
}

/// One JSON object a line: `ready`, then what is recorded after `after`, then what comes.
pub(super) async fn lines(
    core: CoreHandle,
    stopped: impl Future<Output = ()> + Send + 'static,
    after: Option<u64>,
) -> Result<impl Stream<Item = Result<String, Infallible>> + Send + 'static, ApiError> {
    let events = core.events().ok_or_else(stopping)?;
    let page = core.event_page(after, MAX_EVENT_PAGE).await?;
    let reply = core.command(Command::IdentityShow).await?;
    let Reply::Identity(me) = reply else { return Err(unexpected(&reply)) };
    let (id, name) = (me.id, me.name);
    // A watcher that knows of the future (the home was restored) starts at the present.
    let seq = after.unwrap_or(page.last).min(page.last);
    let ready = Event { seq, at: page.at, body: EventBody::Ready { id, name, first: page.first } };
    let pending = VecDeque::from([Arc::new(ready)]);
    let mut watcher = Watcher { core, events, last: seq, behind: false, held: None, pending };
    watcher.add_page(page);
    let stopped: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(stopped);
    Ok(stream::unfold((watcher, stopped), |(mut watcher, mut stopped)| async move {
        let event = tokio::select! {
            event = watcher.next() => event?,
            () = &mut stopped => return None,
        };
        let mut line = json::to_string(&*event).ok()?;
        line.push('\n');
        Some((Ok(line), (watcher, stopped)))
    }))
}

/// Where one stream is.
struct Watcher {
    core: CoreHandle,
    events: Receiver<Arc<Event>>,
    /// Newest event that was put into `pending`.
    last: u64,
    /// The record may have more than `last`.
    behind: bool,
    /// Came too early: what is before it is read from the record first.
    held: Option<Arc<Event>>,
    /// At most one page and the ready line.
    pending: VecDeque<Arc<Event>>,
}

impl Watcher {
    /// [`None`]: the core has stopped.
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.behind {
                let page = self.core.event_page(Some(self.last), MAX_EVENT_PAGE).await.ok()?;
                self.add_page(page);
                continue;
            }
            match self.events.recv().await {
                // Not recorded, and of no use later: it goes by.
                Ok(event) if matches!(event.body, EventBody::Typing { .. }) => {
                    self.pending.push_back(event);
                }
                // Numbers have no gaps: where there is one, the record has what is missing.
                Ok(event) if event.seq == self.last.saturating_add(1) => self.add(event),
                Ok(event) => {
                    self.behind = event.seq > self.last;
                    self.held = Some(event);
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn add_page(&mut self, page: EventPage) {
        let gave_nothing = page.events.is_empty();
        page.events.into_iter().for_each(|event| self.add(Arc::new(event)));
        if gave_nothing {
            // What is not recorded any more is passed over.
            self.last = self.last.max(page.last);
            self.held.take().into_iter().for_each(|event| self.add(event));
        }
        self.held = self.held.take().filter(|event| event.seq > self.last);
        self.behind = self.held.is_some() || page.last > self.last;
    }

    fn add(&mut self, event: Arc<Event>) {
        if event.seq > self.last {
            self.last = event.seq;
            self.pending.push_back(event);
        }
    }
}
