//! The store's thread: takes all requests that wait, carries them out in one transaction, and
//! lets the answers go when it is on disk. A batch closes as soon as the one before is done.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use sremp_common::io::Clock;
use sremp_common::io::control::Refused;
use sremp_common::io::metrics::Histogram;
use sremp_common::wire::{ErrorBody, ErrorCode, Message};
use tokio::sync::{mpsc, oneshot};

use crate::registry::{Origin, Registry, RegistryConfig, RegistryStatus, Request, SWEEP_LIMIT};
use crate::store::{RedbRows, Snapshot, Store, StoreError};

/// Requests that may wait for the thread; more wait in their connections.
const MAX_WAITING: usize = 1_024;

/// Requests of one transaction.
const MAX_BATCH: usize = 256;

/// Something for the thread to do.
enum Job {
    Request {
        request: Request,
        origin: Origin,
        answer: oneshot::Sender<Message>,
    },
    Status(oneshot::Sender<RegistryStatus>),
    Configure(Box<RegistryConfig>),
    /// Withdraws and forgets a batch; the answer says how many.
    Sweep(Option<oneshot::Sender<usize>>),
    Maintain(Maintenance),
}

/// What cannot be part of a transaction of requests.
enum Maintenance {
    Compact(oneshot::Sender<Result<bool, StoreError>>),
    Snapshot(oneshot::Sender<Result<Snapshot, StoreError>>),
}

/// What a job came to, to be told after the commit.
enum Outcome {
    Answer(oneshot::Sender<Message>, Message),
    Status(oneshot::Sender<RegistryStatus>, RegistryStatus),
    Swept(oneshot::Sender<usize>, usize),
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
pub(super) struct Jobs {
    queue: mpsc::Sender<Job>,
    commits: Arc<Histogram>,
}

impl Storage {
    pub(super) fn start(store: Store, registry: Registry, clock: Clock) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (failure, failed) = oneshot::channel();
        let commits = Arc::new(Histogram::default());
        let jobs = Jobs { queue: jobs, commits: Arc::clone(&commits) };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            if let Err(error) = work(store, registry, clock, waiting, &commits) {
                // Nobody may be there to hear it when the server ends anyway.
                let _ = failure.send(error);
            }
        })?;
        Ok(Self { jobs, failed, thread })
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
        let sent = self.queue.send(Job::Request { request, origin, answer }).await;
        let answer = match sent {
            Ok(()) => answered.await.ok(),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| {
            let error = ErrorBody::new(ErrorCode::Internal, "the server failed; try again later");
            Message::Error(error)
        })
    }

    /// How long transactions took, requests and durability included.
    pub(super) fn commits(&self) -> &Histogram {
        &self.commits
    }

    pub(super) async fn status(&self) -> Option<RegistryStatus> {
        self.told(Job::Status).await
    }

    pub(super) async fn configure(&self, config: RegistryConfig) {
        // Without a thread there is nothing to configure.
        let _ = self.queue.send(Job::Configure(Box::new(config))).await;
    }

    /// Removes what has expired, some of it.
    pub(super) async fn sweep(&self) {
        // Without a thread there is nothing to sweep.
        let _ = self.queue.send(Job::Sweep(None)).await;
    }

    /// Removes everything that has expired, with room for requests in between.
    pub(super) async fn expire(&self) -> usize {
        let mut removed = 0_usize;
        while let Some(count) = self.told(|answer| Job::Sweep(Some(answer))).await {
            removed = removed.saturating_add(count);
            if count < SWEEP_LIMIT {
                break;
            }
        }
        removed
    }

    /// Makes the file smaller; true if it could be.
    pub(super) async fn compact(&self) -> Result<bool, Refused> {
        let done = self.told(|answer| Job::Maintain(Maintenance::Compact(answer))).await;
        done.ok_or_else(ended)?.map_err(|error| Refused::failed(&error))
    }

    /// Writes what the store holds at this moment to a new file, while requests go on.
    pub(super) async fn backup(&self, file: PathBuf) -> Result<u64, Refused> {
        let snapshot = self.told(|answer| Job::Maintain(Maintenance::Snapshot(answer))).await;
        let snapshot = snapshot.ok_or_else(ended)?.map_err(|error| Refused::failed(&error))?;
        let written = tokio::task::spawn_blocking(move || snapshot.write(&file)).await;
        let written = written.map_err(|error| Refused::failed(&error))?;
        written.map_err(|error| Refused::failed(&error))
    }

    async fn told<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(job(answer)).await.ok()?;
        answered.await.ok()
    }
}

fn ended() -> Refused {
    Refused::new("unavailable", "the server is about to end")
}

/// Works until all ways to the thread are gone, or the store fails.
fn work(
    mut store: Store,
    mut registry: Registry,
    clock: Clock,
    mut waiting: mpsc::Receiver<Job>,
    commits: &Histogram,
) -> Result<(), StoreError> {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(job) = waiting.try_recv()
        {
            batch.push(job);
        }
        let mut maintenance = Vec::new();
        let began = clock.now().instant;
        // When the batch fails, its answers are dropped unsent, and who waits for them is told
        // that the server failed.
        let outcomes = store.batch(|rows| {
            let mut outcomes = Vec::with_capacity(batch.len());
            for job in batch {
                if let Job::Maintain(job) = job {
                    maintenance.push(job);
                } else {
                    outcomes.extend(carry_out(job, &mut registry, rows, clock)?);
                }
            }
            Ok(outcomes)
        })?;
        commits.observe(clock.now().instant.since(began));
        outcomes.into_iter().for_each(tell);
        maintenance.into_iter().for_each(|job| maintain(job, &mut store));
    }
    Ok(())
}

/// Whoever has gone away meanwhile misses the answer.
fn maintain(job: Maintenance, store: &mut Store) {
    match job {
        Maintenance::Compact(answer) => {
            let _ = answer.send(store.compact());
        }
        Maintenance::Snapshot(answer) => {
            let _ = answer.send(store.snapshot());
        }
    }
}

fn carry_out(
    job: Job,
    registry: &mut Registry,
    rows: &mut RedbRows<'_>,
    clock: Clock,
) -> Result<Option<Outcome>, StoreError> {
    let now = clock.now();
    match job {
        Job::Request { request, origin, answer } => {
            let message = registry.handle(rows, &request, &origin, now)?;
            Ok(Some(Outcome::Answer(answer, message)))
        }
        Job::Status(answer) => Ok(Some(Outcome::Status(answer, registry.status(rows)?))),
        Job::Configure(config) => {
            registry.configure(*config);
            Ok(None)
        }
        Job::Sweep(answer) => {
            let changed = registry.sweep(rows, now.wall)?;
            tracing::trace!(changed, "swept");
            Ok(answer.map(|answer| Outcome::Swept(answer, changed)))
        }
        Job::Maintain(_) => Ok(None),
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
        Outcome::Swept(answer, changed) => {
            let _ = answer.send(changed);
        }
    }
}
