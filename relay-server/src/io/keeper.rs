//! The store's thread: takes everything that waits, applies it in one transaction, commits, and
//! only then lets the answers go. A batch closes as soon as the commit before it is done, never
//! on a timer: one sender waits for one commit, and a thousand wait for two.
//!
//! Acknowledgements alone do not wait for a commit, and do not cause one at once: they stay in the
//! open transaction for a moment, in which more of them, or a message, usually come.

//!
//! When the disk is full the store is opened anew, with what a restart would know: every session
//! ends, nothing that was acknowledged is lost, and clients come again.

mod work;

use std::thread::JoinHandle;

use serde::Serialize;
use sremp_common::id::IdentityKey;
use sremp_common::io::Clock;
use sremp_common::io::stream::Command;
use sremp_common::wire::{Endpoint, Message, RequestId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use self::work::Thread;
use super::disk::{Disk, Space};
use crate::config::StoreSection;
use crate::engine::{Engine, EngineConfig, Room, SessionId};
use crate::store::{RedbStore, StoreError};

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
    },
    /// A request came.
    Request { session: SessionId, id: RequestId, message: Message },
    /// A session is over.
    Closed { session: SessionId },
    /// Nothing: an answer to something that we never ask.
    Ignored,
    /// New quotas and policy.
    Configure(Box<EngineConfig>, StoreSection),
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
    /// Leading zero bits that strangers must show now.
    pow_difficulty: u8,
    /// What is still taken, for want of room on the disk.
    room: Room,
    disk: Space,
}

/// Where the store is, and how it is opened again.
pub(super) struct Home {
    /// Opens it.
    pub(super) open: Box<dyn FnMut() -> Result<RedbStore, StoreError> + Send>,
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
}

impl Keeper {
    /// Starts the thread. Must be called in a runtime, whose timers the thread uses.
    pub(super) fn start(
        store: RedbStore,
        home: Home,
        engine: Engine,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let (failure, failed) = oneshot::channel();
        let runtime = Handle::current();
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let mut thread = Thread::new(home, engine, clock, waiting, runtime);
            if let Err(error) = thread.work(store) {
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

#[cfg(test)]
mod tests;
