//! The store's thread: takes everything that waits, applies it in one transaction, commits, and
//! only then lets the answers go. A batch closes as soon as the commit before it is done, never
//! on a timer: one sender waits for one commit, and a thousand wait for two.
//!
//! Acknowledgements alone do not wait for a commit, and do not cause one at once: they stay in the
//! open transaction for a moment, in which more of them, or a message, usually come.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use sremp_common::id::IdentityKey;
use sremp_common::io::Clock;
use sremp_common::io::stream::Command;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Endpoint, ErrorCode, Message, RequestId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Durability, Engine, EngineConfig, Input, Output, SessionId};
use crate::store::{Mailboxes as _, RedbMailboxes, RedbStore, StoreError, Totals};

/// Inputs that may wait for the thread; more wait in their connections, which read no further.
const MAX_WAITING: usize = 512;
/// Inputs of one batch.
const MAX_BATCH: usize = 512;
/// How long acknowledgements may stay uncommitted.
const LAZY: Duration = Duration::from_millis(200);

/// Something for the thread to do.
#[derive(Debug)]
pub(super) enum Job {
    /// A session is established, and takes commands.
    Opened {
        session: SessionId,
        caller: Option<IdentityKey>,
        observed: Endpoint,
        commands: mpsc::Sender<Command>,
    },
    /// A request came.
    Request { session: SessionId, id: RequestId, message: Message },
    /// A session is over.
    Closed { session: SessionId },
    /// Nothing: an answer to something that we never ask.
    Ignored,
    /// New quotas and policy.
    Configure(EngineConfig),
    /// How much is stored?
    Status(oneshot::Sender<KeeperStatus>),
    /// End all sessions, those too that are still being opened.
    Drain,
}

/// What the thread knows of itself.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct KeeperStatus {
    mailboxes: u64,
    messages: u64,
    bytes: u64,
    sessions: usize,
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Keeper {
    jobs: mpsc::Sender<Job>,
    /// Nothing once it was heard.
    failed: Option<oneshot::Receiver<StoreError>>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts the thread. Must be called in a runtime, whose timers the thread uses.
    pub(super) fn start(store: RedbStore, engine: Engine, clock: Clock) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (failure, failed) = oneshot::channel();
        let runtime = Handle::current();
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let mut thread = Thread::new(engine, clock, waiting, runtime);
            if let Err(error) = thread.work(&store) {
                // Nobody may be there to hear it, when the server ends anyway.
                let _ = failure.send(error);
            }
        })?;
        Ok(Self { jobs, failed: Some(failed), thread })
    }

    pub(super) fn jobs(&self) -> mpsc::Sender<Job> {
        self.jobs.clone()
    }

    /// Waits until the thread ends before it was asked to: because the store failed.
    pub(super) async fn failed(&mut self) -> StoreError {
        let Some(failed) = &mut self.failed else { return std::future::pending().await };
        let failure = failed.await;
        self.failed = None;
        failure.unwrap_or(PANICKED)
    }

    /// Waits until everything that was handed in is committed. All other senders of jobs must be
    /// dropped before.
    pub(super) async fn stop(self) -> Option<StoreError> {
        let Self { jobs, failed, thread } = self;
        drop(jobs);
        let failure = match failed {
            Some(failed) => failed.await.ok(),
            None => None,
        };
        // The thread has nothing left to do. A panic in it was printed, and is a failure.
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match (failure, joined) {
            (None, Ok(Ok(()))) => None,
            (None, _) => Some(PANICKED),
            (failure, _) => failure,
        }
    }
}

/// The thread is gone without a word.
const PANICKED: StoreError = StoreError::Corrupt("the store's thread panicked");

/// What came of waiting for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// There is something to do, or it is time.
    Awake,
    /// Nobody can hand in anything any more.
    Ended,
}

struct Thread {
    engine: Engine,
    clock: Clock,
    waiting: mpsc::Receiver<Job>,
    runtime: Handle,
    sessions: BTreeMap<SessionId, mpsc::Sender<Command>>,
    is_draining: bool,
    batch: Vec<Job>,
}

impl Thread {
    const fn new(
        engine: Engine,
        clock: Clock,
        waiting: mpsc::Receiver<Job>,
        runtime: Handle,
    ) -> Self {
        Self {
            engine,
            clock,
            waiting,
            runtime,
            sessions: BTreeMap::new(),
            is_draining: false,
            batch: Vec::new(),
        }
    }

    fn work(&mut self, store: &RedbStore) -> Result<(), StoreError> {
        while self.wait(self.engine.poll_timeout()) == Waited::Awake {
            self.carry_out(store)?;
        }
        Ok(())
    }

    /// One transaction: the batch that waits, and those that may share it.
    fn carry_out(&mut self, store: &RedbStore) -> Result<(), StoreError> {
        let transaction = store.begin()?;
        let mut mailboxes = RedbMailboxes::open(&transaction)?;
        let mut commit_by: Option<Instant> = None;
        loop {
            self.apply(&mut mailboxes)?;
            match (self.engine.take_durability(), commit_by) {
                (Durability::Now, _) => break,
                (Durability::Lazy, None) => commit_by = Some(self.clock.now().instant + LAZY),
                (Durability::Lazy, Some(_)) | (Durability::Nothing, _) => {}
            }
            self.release();
            let Some(commit_by) = commit_by else {
                // Nothing was written.
                drop(mailboxes);
                return Ok(transaction.abort()?);
            };
            let waited = self.wait(commit_by.min(self.engine.poll_timeout()));
            if waited == Waited::Ended || self.clock.now().instant >= commit_by {
                break;
            }
        }
        mailboxes.finish()?;
        transaction.commit()?;
        self.release();
        Ok(())
    }

    /// Waits for jobs until `until`. What waits already is taken at once.
    fn wait(&mut self, until: Instant) -> Waited {
        let Self { waiting, batch, runtime, clock, .. } = self;
        // A transaction that had to end left its batch.
        if !batch.is_empty() {
            return Waited::Awake;
        }
        let patience = until.since(clock.now().instant);
        let taken = runtime.block_on(async {
            tokio::time::timeout(patience, waiting.recv_many(batch, MAX_BATCH)).await
        });
        if taken == Ok(0) { Waited::Ended } else { Waited::Awake }
    }

    fn apply(&mut self, mailboxes: &mut RedbMailboxes<'_>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut batch = std::mem::take(&mut self.batch);
        for job in batch.drain(..) {
            self.apply_one(mailboxes, job, now)?;
        }
        // Its room is used again.
        self.batch = batch;
        if now.instant >= self.engine.poll_timeout() {
            return self.engine.handle_timeout(mailboxes, now);
        }
        self.engine.settle(mailboxes)
    }

    fn apply_one(
        &mut self,
        mailboxes: &mut RedbMailboxes<'_>,
        job: Job,
        now: Now,
    ) -> Result<(), StoreError> {
        let input = match job {
            Job::Opened { session, caller, observed, commands } => {
                if self.is_draining {
                    say_goodbye(&commands);
                }
                self.sessions.insert(session, commands);
                Input::Opened { session, caller, observed: Some(observed) }
            }
            Job::Request { session, id, message } => {
                Input::Request { session, request_id: id, message }
            }
            Job::Closed { session } => {
                self.sessions.remove(&session);
                Input::Closed { session }
            }
            Job::Ignored => return Ok(()),
            Job::Configure(config) => {
                self.engine.set_config(config);
                return Ok(());
            }
            Job::Status(answer) => {
                let Totals { mailboxes, messages, bytes } = mailboxes.totals()?;
                let sessions = self.engine.sessions();
                // Whoever asked may be gone.
                let _ = answer.send(KeeperStatus { mailboxes, messages, bytes, sessions });
                return Ok(());
            }
            Job::Drain => {
                self.is_draining = true;
                self.sessions.values().for_each(say_goodbye);
                return Ok(());
            }
        };
        self.engine.handle(mailboxes, input, now)
    }

    /// Lets the outputs go. A session whose queue is full reads too slowly, and is given up: its
    /// driver ends when it has no commander any more.
    fn release(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            let (session, command) = match output {
                Output::Answer { session, request_id, message } => {
                    (session, Command::Respond { id: request_id, message: Box::new(message) })
                }
                Output::Tell { session, message } => {
                    (session, Command::Request { message: Box::new(message), asked: None })
                }
            };
            let Some(commands) = self.sessions.get(&session) else { continue };
            if commands.try_send(command).is_err() {
                self.sessions.remove(&session);
                self.batch.push(Job::Closed { session });
            }
        }
    }
}

/// Asks a connection to end. If its queue is full it is given up at the end of draining.
fn say_goodbye(commands: &mpsc::Sender<Command>) {
    let _ = commands.try_send(Command::Close(ErrorCode::Goodbye));
}

#[cfg(test)]
mod tests;
