//! The store's thread: takes all requests that wait, carries them out in one transaction, and
//! lets the answers go when it is on disk. A batch closes as soon as the one before is done.
//!
//! After each batch it publishes what is on disk now. Questions are answered from that by whoever
//! asks, without the thread; somebody who was told that he is registered is in it already.

mod thread;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use sremp_common::id::TokenHash;
use sremp_common::invite::Invite;
use sremp_common::io::Clock;
use sremp_common::io::control::{Answer, Refused};
use sremp_common::io::metrics::Histogram;
use sremp_common::time::Now;
use sremp_common::wire::{ErrorBody, ErrorCode, Message};
use tokio::sync::{mpsc, oneshot, watch};

use self::thread::Thread;
use crate::registry::{
    Lookups, Origin, Question, Registry, RegistryConfig, RegistryStatus, Request, SWEEP_LIMIT,
};
use crate::store::{Snapshot, Store, StoreError, StoreOptions};

/// Requests that may wait for the thread; more wait in their connections.
const MAX_WAITING: usize = 1_024;

/// What clients are told to wait when the store has failed: a restart takes less.
const FAILURE_RETRY: u32 = 10;

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
    Invitation(InviteOrder, oneshot::Sender<Answer>),
    /// Withdraws and forgets a batch; the answer says how many.
    Sweep(Option<oneshot::Sender<usize>>),
    Maintain(Maintenance),
}

/// What the operator wants of the invitations.
pub(super) enum InviteOrder {
    Add(TokenHash, Invite),
    List,
    Revoke(TokenHash),
}

/// What cannot be part of a transaction of requests.
enum Maintenance {
    Compact(oneshot::Sender<Result<bool, StoreError>>),
    Snapshot(oneshot::Sender<Result<Snapshot, StoreError>>),
}

/// Where the store is.
pub(super) struct Home {
    /// Opens it.
    pub(super) open: Box<dyn FnMut() -> Result<Store, StoreError> + Send>,
    /// Bytes that are free on its disk, if that can be told.
    pub(super) free: Box<dyn Fn() -> Option<u64> + Send>,
}

impl Home {
    /// A file.
    pub(super) fn file(path: PathBuf, options: StoreOptions) -> Self {
        let directory = path.parent().map(PathBuf::from).unwrap_or_default();
        let free = move || {
            let system = rustix::fs::statvfs(&directory).ok()?;
            Some(system.f_bavail.saturating_mul(system.f_frsize))
        };
        Self { open: Box::new(move || Store::open(&path, options)), free: Box::new(free) }
    }
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
    /// Starts the thread with an open store.
    pub(super) fn start(
        store: Store,
        home: Home,
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
            let mut thread = Thread::new(home, registry, clock, publish, commits);
            if let Err(error) = thread.work(store, waiting) {
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
        answer.unwrap_or_else(failure)
    }

    /// Answers a question from what is on disk.
    pub(super) async fn answer(&self, question: &Question, origin: &Origin, now: Now) -> Message {
        let admitted = self.lookups().admit(question, origin, now);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return Message::Error(refusal),
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

    /// Does what the operator wants of the invitations; told when it is on disk.
    pub(super) async fn invitation(&self, order: InviteOrder) -> Answer {
        self.told(|answer| Job::Invitation(order, answer)).await.ok_or_else(ended)?
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
    let error = ErrorBody::new(ErrorCode::Internal, "the server failed; try again later");
    Message::Error(ErrorBody { retry_after: Some(FAILURE_RETRY), ..error })
}

fn ended() -> Refused {
    Refused::new("unavailable", "the server is about to end")
}
