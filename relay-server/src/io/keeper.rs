//! The store's thread: takes everything that waits, applies it in the open transaction, writes it to
//! the [journal](crate::store::journal), and only then lets the answers go. A batch closes as soon as
//! the one before it is durable and those whom that one answered are back, or a quarter of its time
//! later: one sender waits for one sync, and a thousand share one. The transaction is committed when
//! the journal is full, after a second, and at once for what the journal has no words for.
//!
//! Acknowledgements alone wait for nothing, and do not cause a sync at once: more of them, or a
//! message, usually come in a moment.
//!
//! When the disk is full the store is opened anew, with what a restart would know: every session
//! ends, nothing that was acknowledged is lost, and clients come again.

mod figures;
mod gather;
mod orders;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use sremp_common::id::IdentityKey;
use sremp_common::io::Clock;
use sremp_common::io::control::Answer;
use sremp_common::io::gate::Slot;
use sremp_common::io::metrics::Histogram;
use sremp_common::io::stream::Command;
use sremp_common::wire::{Endpoint, Message, RequestId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

pub(super) use self::figures::Figures;
pub(super) use self::orders::Order;
use self::work::Thread;
use super::disk::{Disk, Space};
use crate::config::StoreSection;
use crate::engine::{Engine, EngineConfig, Room, SessionId};
use crate::store::{JournaledStore, Snapshot, StoreError};

/// Inputs that may wait for the thread; more wait in their connections, which read no further.
const MAX_WAITING: usize = 512;

/// Something for the thread to do.
#[derive(Debug)]
pub(super) enum Job {
    /// A session is established, and takes commands.
    Opened {
        session: SessionId,
        caller: Option<IdentityKey>,
        observed: Endpoint,
        commands: mpsc::Sender<Command>,
        /// Its place at the gate, if it came through one.
        slot: Option<Arc<Slot>>,
    },
    /// A request came.
    Request { session: SessionId, id: RequestId, message: Message },
    /// A session is over.
    Closed { session: SessionId },
    /// Nothing: an answer to something that we never ask.
    Ignored,
    /// New quotas and policy.
    Configure(Box<Settings>),
    /// An order of the operator.
    Order(Order, oneshot::Sender<Answer>),
    /// The store as it is now, to be copied.
    Snapshot(oneshot::Sender<Result<Snapshot, StoreError>>),
    /// Give room in the store's file back to the system.
    Compact(oneshot::Sender<Result<bool, StoreError>>),
    /// How much is stored?
    Status(oneshot::Sender<KeeperStatus>),
    /// End all sessions over this time, those too that are still being opened.
    Drain(Duration),
}

/// What can be changed while the thread works.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) engine: EngineConfig,
    pub(super) store: StoreSection,
    pub(super) banned: BTreeSet<IdentityKey>,
}

/// What the thread knows of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct KeeperStatus {
    pub(super) mailboxes: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) sessions: usize,
    /// Leading zero bits that strangers must show now.
    pub(super) pow_difficulty: u8,
    /// What is still taken, for want of room on the disk.
    pub(super) room: Room,
    pub(super) disk: Space,
    /// Since the start.
    pub(super) counts: Figures,
    pub(super) acknowledged: u64,
    pub(super) expired: u64,
}

/// Where the store is, and how it is opened again.
pub(super) struct Home {
    /// Opens it.
    pub(super) open: Box<dyn FnMut() -> Result<JournaledStore, StoreError> + Send>,
    /// The disk below it, if it is on one.
    pub(super) disk: Option<Disk>,
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Keeper {
    jobs: mpsc::Sender<Job>,
    /// Nothing once it was heard.
    failed: Option<oneshot::Receiver<StoreError>>,
    thread: JoinHandle<()>,
    commits: Arc<Histogram>,
}

impl Keeper {
    /// Starts the thread. Must be called in a runtime, whose timers the thread uses.
    pub(super) fn start(
        store: JournaledStore,
        home: Home,
        engine: Engine,
        banned: BTreeSet<IdentityKey>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (failure, failed) = oneshot::channel();
        let runtime = Handle::current();
        let commits = Arc::<Histogram>::default();
        let timed = Arc::clone(&commits);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let mut thread = Thread::new(home, engine, clock, waiting, runtime, timed);
            thread.ban(banned);
            if let Err(error) = thread.work(store) {
                // Nobody may be there to hear it, when the server ends anyway.
                let _ = failure.send(error);
            }
        })?;
        Ok(Self { jobs, failed: Some(failed), thread, commits })
    }

    pub(super) fn jobs(&self) -> mpsc::Sender<Job> {
        self.jobs.clone()
    }

    /// How long commits took.
    pub(super) fn commits(&self) -> Arc<Histogram> {
        Arc::clone(&self.commits)
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
        let Self { jobs, failed, thread, commits: _ } = self;
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

#[cfg(test)]
mod tests;
