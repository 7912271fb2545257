//! The store's thread: takes all requests that wait, carries them out in one transaction, and
//! lets the answers go when it is on disk. A batch closes as soon as the one before is done.

#[cfg(test)]
mod tests;

use std::thread::JoinHandle;

use sremp_common::io::Clock;
use sremp_common::wire::{ErrorBody, ErrorCode, Message};
use tokio::sync::{mpsc, oneshot};

use crate::registry::{Origin, Registry, RegistryStatus, Request};
use crate::store::{RedbRows, Store, StoreError};

/// Requests that may wait for the thread; more wait in their connections.
const MAX_WAITING: usize = 1_024;

/// Requests of one transaction.
const MAX_BATCH: usize = 256;

/// Something for the thread to do.
enum Job {
    Request { request: Request, origin: Origin, answer: oneshot::Sender<Message> },
    Status(oneshot::Sender<RegistryStatus>),
    Sweep,
}

/// What a job came to, to be told after the commit.
enum Outcome {
    Answer(oneshot::Sender<Message>, Message),
    Status(oneshot::Sender<RegistryStatus>, RegistryStatus),
    Swept,
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Storage {
    jobs: Jobs,
    failed: oneshot::Receiver<StoreError>,
    thread: JoinHandle<()>,
}

/// A way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Jobs(mpsc::Sender<Job>);

impl Storage {
    pub(super) fn start(store: Store, registry: Registry, clock: Clock) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (failure, failed) = oneshot::channel();
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            if let Err(error) = work(&store, registry, clock, waiting) {
                // Nobody may be there to hear it when the server ends anyway.
                let _ = failure.send(error);
            }
        })?;
        Ok(Self { jobs: Jobs(jobs), failed, thread })
    }

    pub(super) fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }

    /// Waits until the store fails, which is forever in the normal case.
    pub(super) async fn failed(&mut self) -> StoreError {
        match (&mut self.failed).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets the thread finish what waits, and the file be closed. All other [`Jobs`] must be gone.
    pub(super) async fn stop(self) {
        let Self { jobs, thread, failed: _ } = self;
        drop(jobs);
        // A panic in the thread has been reported by the panic hook already.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

impl Jobs {
    /// Carries out a request; the answer comes when what it says is durable.
    pub(super) async fn ask(&self, request: Request, origin: Origin) -> Message {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.send(Job::Request { request, origin, answer }).await;
        let answer = match sent {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| {
            let error = ErrorBody::new(ErrorCode::Internal, "the server failed; try again later");
            Message::Error(error)
        })
    }

    pub(super) async fn status(&self) -> Option<RegistryStatus> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Job::Status(answer)).await.ok()?;
        answered.await.ok()
    }

    pub(super) async fn sweep(&self) {
        // Without a thread there is nothing to sweep.
        let _ = self.0.send(Job::Sweep).await;
    }
}

/// Works until all ways to the thread are gone, or the store fails.
fn work(
    store: &Store,
    mut registry: Registry,
    clock: Clock,
    mut waiting: mpsc::Receiver<Job>,
) -> Result<(), StoreError> {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(job) = waiting.try_recv()
        {
            batch.push(job);
        }
        // When the batch fails, its answers are dropped unsent, and who waits for them is told
        // that the server failed.
        let outcomes = store.batch(|rows| {
            batch
                .into_iter()
                .map(|job| carry_out(job, &mut registry, rows, clock))
                .collect::<Result<Vec<_>, _>>()
        })?;
        outcomes.into_iter().for_each(tell);
    }
    Ok(())
}

fn carry_out(
    job: Job,
    registry: &mut Registry,
    rows: &mut RedbRows<'_>,
    clock: Clock,
) -> Result<Outcome, StoreError> {
    let now = clock.now();
    match job {
        Job::Request { request, origin, answer } => {
            let message = registry.handle(rows, &request, &origin, now)?;
            Ok(Outcome::Answer(answer, message))
        }
        Job::Status(answer) => Ok(Outcome::Status(answer, registry.status(rows)?)),
        Job::Sweep => {
            let changed = registry.sweep(rows, now.wall)?;
            tracing::trace!(changed, "swept");
            Ok(Outcome::Swept)
        }
    }
}

/// Whoever has gone away meanwhile misses the answer.
fn tell(outcome: Outcome) {
    match outcome {
        Outcome::Answer(answer, message) => {
            let _ = answer.send(message);
        }
        Outcome::Status(answer, status) => {
            let _ = answer.send(status);
        }
        Outcome::Swept => {}
    }
}
