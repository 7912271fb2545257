//! The store's thread: takes all requests that wait, carries them out in one transaction, and
//! lets the answers go when it is on disk. A batch closes as soon as the one before is done.
//!
//! After each batch it publishes what is on disk now. Questions are answered from that by whoever
//! asks, without the thread; somebody who was told that he is registered is in it already.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sremp_common::io::Clock;
use sremp_common::io::control::Refused;
use sremp_common::io::metrics::Histogram;
use sremp_common::time::Now;
use sremp_common::wire::{ErrorBody, ErrorCode, Message};
use tokio::sync::{mpsc, oneshot, watch};

use crate::registry::{
    Lookups, Origin, Question, Registry, RegistryConfig, RegistryStatus, Request, SWEEP_LIMIT,
};
use crate::store::{RedbRows, Snapshot, Store, StoreError};

/// Requests that may wait for the thread; more wait in their connections.
const MAX_WAITING: usize = 1_024;

/// Requests of one transaction.
const MAX_BATCH: usize = 256;

/// How often the thread looks whether somebody still reads what it has withdrawn, and how many
/// times: readers hold it while they read one row.
const WITHDRAWAL_POLL: Duration = Duration::from_millis(1);
const WITHDRAWAL_POLLS: u32 = 1_000;

/// What questions are answered from. Missing while the file is being made smaller, which must have
/// no readers, and when the thread has ended.
type Published = Option<Arc<Snapshot>>;

/// Something for the thread to do.
enum Job {
    Request {
        request: Request,
        origin: Origin,
        answer: oneshot::Sender<Message>,
    },
    Status(oneshot::Sender<RegistryStatus>),
    Configure(Arc<RegistryConfig>),
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

/// A way to the thread, and to what it has published.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    queue: mpsc::Sender<Job>,
    published: watch::Receiver<Published>,
    /// Not held while rows are read.
    lookups: Arc<Mutex<Lookups>>,
    commits: Arc<Histogram>,
}

impl Storage {
    pub(super) fn start(
        store: Store,
        config: RegistryConfig,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let (publish, published) = watch::channel(None);
        let (failure, failed) = oneshot::channel();
        let config = Arc::new(config);
        let jobs = Jobs {
            queue,
            published,
            lookups: Arc::new(Mutex::new(Lookups::new(Arc::clone(&config)))),
            commits: Arc::default(),
        };
        let commits = Arc::clone(&jobs.commits);
        let registry = Registry::new(config);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let mut thread = Thread { store, registry, clock, publish, commits };
            if let Err(error) = thread.work(waiting) {
                // Nobody may be there to hear it when the server ends anyway.
                let _ = failure.send(error);
            }
            thread.withdraw();
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
        answer.unwrap_or_else(failure)
    }

    /// Answers a question from what is on disk.
    pub(super) async fn answer(&self, question: &Question, origin: &Origin, now: Now) -> Message {
        let admitted = self.lookups().admit(question, origin, now);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return refusal,
        };
        let Some(snapshot) = self.published().await else { return failure() };
        admitted.answer(&*snapshot, question, origin, now).unwrap_or_else(|error| {
            tracing::error!(%error, "a row cannot be read");
            // The thread finds the same, and the server ends.
            let _ = self.queue.try_send(Job::Sweep(None));
            failure()
        })
    }

    async fn published(&self) -> Published {
        let published = self.published.borrow().clone();
        if published.is_some() {
            return published;
        }
        let mut published = self.published.clone();
        published.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Its fields fit together whatever happened to whoever held it.
    fn lookups(&self) -> MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long transactions took, requests and durability included.
    pub(super) fn commits(&self) -> &Histogram {
        &self.commits
    }

    pub(super) async fn status(&self) -> Option<RegistryStatus> {
        let mut status = self.told(Job::Status).await?;
        self.lookups().add_to(&mut status.counters);
        Some(status)
    }

    pub(super) async fn configure(&self, config: RegistryConfig) {
        let config = Arc::new(config);
        self.lookups().configure(Arc::clone(&config));
        // Without a thread there is nothing to configure.
        let _ = self.queue.send(Job::Configure(config)).await;
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

fn failure() -> Message {
    Message::Error(ErrorBody::new(ErrorCode::Internal, "the server failed; try again later"))
}

fn ended() -> Refused {
    Refused::new("unavailable", "the server is about to end")
}

/// What the thread has.
struct Thread {
    store: Store,
    registry: Registry,
    clock: Clock,
    publish: watch::Sender<Published>,
    commits: Arc<Histogram>,
}

impl Thread {
    /// Works until all ways to the thread are gone, or the store fails.
    fn work(&mut self, mut waiting: mpsc::Receiver<Job>) -> Result<(), StoreError> {
        self.publish()?;
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH
                && let Ok(job) = waiting.try_recv()
            {
                batch.push(job);
            }
            let mut maintenance = Vec::new();
            let began = self.clock.now().instant;
            // When the batch fails, its answers are dropped unsent, and who waits for them is told
            // that the server failed.
            let (registry, clock) = (&mut self.registry, self.clock);
            let outcomes = self.store.batch(|rows| {
                let mut outcomes = Vec::with_capacity(batch.len());
                for job in batch {
                    if let Job::Maintain(job) = job {
                        maintenance.push(job);
                    } else {
                        outcomes.extend(carry_out(job, registry, rows, clock)?);
                    }
                }
                Ok(outcomes)
            })?;
            self.commits.observe(self.clock.now().instant.since(began));
            // Before anybody is told, so that whoever asks next finds what he was told.
            self.publish()?;
            outcomes.into_iter().for_each(tell);
            for job in maintenance {
                self.maintain(job)?;
            }
        }
        Ok(())
    }

    fn publish(&self) -> Result<(), StoreError> {
        self.publish.send_replace(Some(Arc::new(self.store.snapshot()?)));
        Ok(())
    }

    /// Takes back what is published, and waits for who is reading it.
    fn withdraw(&self) {
        let Some(withdrawn) = self.publish.send_replace(None) else { return };
        for _ in 0..WITHDRAWAL_POLLS {
            if Arc::strong_count(&withdrawn) == 1 {
                break;
            }
            std::thread::sleep(WITHDRAWAL_POLL);
        }
    }

    /// Whoever has gone away meanwhile misses the answer.
    fn maintain(&mut self, job: Maintenance) -> Result<(), StoreError> {
        match job {
            Maintenance::Compact(answer) => {
                self.withdraw();
                let _ = answer.send(self.store.compact());
                self.publish()?;
            }
            Maintenance::Snapshot(answer) => {
                let _ = answer.send(self.store.snapshot());
            }
        }
        Ok(())
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
            registry.configure(config);
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
