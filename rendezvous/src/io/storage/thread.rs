//! What the store's thread does: batches, their commits, what is published after each, and a disk
//! that is full.
//!
//! When the disk is full the store is opened anew, which is what a restart would do: nothing that
//! was acknowledged is lost, questions are answered, and requests are refused for a moment.

use std::sync::Arc;
use std::time::Duration;

use sremp_common::io::Clock;
use sremp_common::io::control::Answer;
use sremp_common::io::invitations;
use sremp_common::io::metrics::Histogram;
use sremp_common::time::{Instant, Timestamp};
use sremp_common::wire::{ErrorBody, ErrorCode, Message};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Home, InviteOrder, Job, Maintenance, Published};
use crate::registry::{Registry, RegistryStatus, invites};
use crate::store::{RedbRows, Snapshot, Store, StoreError};

/// Requests of one transaction.
const MAX_BATCH: usize = 256;

/// How long requests are refused after the disk was full, and what clients are told to wait: opening
/// the store anew costs more than a refusal.
const FULL_PAUSE: Duration = Duration::from_secs(10);
pub(super) const FULL_RETRY: u32 = 60;

/// How often a store that cannot be opened for want of room is tried again.
const OPEN_RETRY: Duration = Duration::from_secs(1);

/// How often the disk is looked at.
const DISK_POLL: Duration = Duration::from_secs(1);

/// How often the thread looks whether somebody still reads what it has withdrawn, and how many
/// times: readers hold it while they read one row.
const WITHDRAWAL_POLL: Duration = Duration::from_millis(1);
const WITHDRAWAL_POLLS: u32 = 1_000;

/// What a job came to, to be told after the commit.
enum Outcome {
    Answer(oneshot::Sender<Message>, Message),
    Status(oneshot::Sender<RegistryStatus>, RegistryStatus),
    Swept(oneshot::Sender<usize>, usize),
    Ordered(oneshot::Sender<Answer>, Answer),
}

/// What is said to whoever asked for something that needs room.
fn full() -> Message {
    let error = ErrorBody::new(ErrorCode::Unavailable, "the server's disk is full");
    Message::Error(ErrorBody { retry_after: Some(FULL_RETRY), ..error })
}

/// What the thread has, but for the store.
pub(super) struct Thread {
    home: Home,
    registry: Registry,
    clock: Clock,
    publish: watch::Sender<Published>,
    /// What is published, and what was and is still being read.
    shown: Vec<Arc<Snapshot>>,
    commits: Arc<Histogram>,
    /// When the disk was looked at.
    looked_at: Option<Instant>,
    full_until: Instant,
}

impl Thread {
    pub(super) const fn new(
        home: Home,
        registry: Registry,
        clock: Clock,
        publish: watch::Sender<Published>,
        commits: Arc<Histogram>,
    ) -> Self {
        let full_until = Instant::from_millis(0);
        Self {
            home,
            registry,
            clock,
            publish,
            shown: Vec::new(),
            commits,
            looked_at: None,
            full_until,
        }
    }

    /// Works until all ways to the thread are gone, or the store fails.
    pub(super) fn work(
        &mut self,
        store: Store,
        mut waiting: mpsc::Receiver<Job>,
    ) -> Result<(), StoreError> {
        let mut next = Some(store);
        while let Some(mut store) = next {
            let ended = self.work_with(&mut store, &mut waiting);
            self.withdraw();
            match ended {
                Err(StoreError::Full(error)) => {
                    tracing::error!(%error, "the disk is full; only lookups are answered");
                    self.full_until = self.clock.now().instant + FULL_PAUSE;
                    drop(store);
                    next = self.open_again(&mut waiting)?;
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    fn work_with(
        &mut self,
        store: &mut Store,
        waiting: &mut mpsc::Receiver<Job>,
    ) -> Result<(), StoreError> {
        self.publish(store)?;
        while let Some(first) = waiting.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_BATCH
                && let Ok(job) = waiting.try_recv()
            {
                batch.push(job);
            }
            if self.clock.now().instant < self.full_until {
                batch.retain_mut(refused_for_want_of_room);
            } else {
                self.look_at_the_disk();
            }
            self.carry_out(store, batch)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, store: &mut Store, batch: Vec<Job>) -> Result<(), StoreError> {
        let mut maintenance = Vec::new();
        let began = self.clock.now().instant;
        // When the batch fails, its answers are dropped unsent, and who waits for them is told that
        // the server failed.
        let (registry, clock) = (&mut self.registry, self.clock);
        let outcomes = store.batch(|rows| {
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
        self.publish(store)?;
        outcomes.into_iter().for_each(tell);
        maintenance.into_iter().try_for_each(|job| self.maintain(job, store))
    }

    /// Opens the store when there is room to do so; whoever asks for something meanwhile is refused.
    /// Nothing when nobody is left to work for.
    fn open_again(
        &mut self,
        waiting: &mut mpsc::Receiver<Job>,
    ) -> Result<Option<Store>, StoreError> {
        loop {
            match (self.home.open)() {
                Err(StoreError::Full(_)) => std::thread::sleep(OPEN_RETRY),
                opened => return opened.map(Some),
            }
            loop {
                match waiting.try_recv() {
                    Ok(mut job) => {
                        let _ = refused_for_want_of_room(&mut job);
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return Ok(None),
                }
            }
        }
    }

    fn look_at_the_disk(&mut self) {
        let now = self.clock.now().instant;
        if self.looked_at.is_none_or(|at| now.since(at) >= DISK_POLL) {
            self.looked_at = Some(now);
            self.registry.set_free_bytes((self.home.free)());
        }
    }

    fn publish(&mut self, store: &Store) -> Result<(), StoreError> {
        let snapshot = Arc::new(store.snapshot()?);
        self.publish.send_replace(Some(Arc::clone(&snapshot)));
        self.shown.push(snapshot);
        self.let_go();
        Ok(())
    }

    /// Drops what was published and is read by nobody. Only here is it dropped for good, so that the
    /// store knows of it when this returns.
    fn let_go(&mut self) {
        self.shown.retain(|shown| Arc::strong_count(shown) > 1);
    }

    /// Takes back what is published, and waits for who is reading it, or what was published before.
    fn withdraw(&mut self) {
        self.publish.send_replace(None);
        for _ in 0..WITHDRAWAL_POLLS {
            self.let_go();
            if self.shown.is_empty() {
                break;
            }
            std::thread::sleep(WITHDRAWAL_POLL);
        }
    }

    /// Whoever has gone away meanwhile misses the answer.
    fn maintain(&mut self, job: Maintenance, store: &mut Store) -> Result<(), StoreError> {
        match job {
            Maintenance::Compact(answer) => {
                self.withdraw();
                let _ = answer.send(store.compact());
                self.publish(store)?;
            }
            Maintenance::Snapshot(answer) => {
                let _ = answer.send(store.snapshot());
            }
        }
        Ok(())
    }
}

/// False for requests, which are refused, and for what can wait.
fn refused_for_want_of_room(job: &mut Job) -> bool {
    match job {
        Job::Request { answer, .. } => {
            let (nobody, _) = oneshot::channel();
            // Whoever has gone away meanwhile misses the answer.
            let _ = std::mem::replace(answer, nobody).send(full());
            false
        }
        Job::Sweep(None) => false,
        Job::Status(_)
        | Job::Configure(_)
        | Job::Invitation(..)
        | Job::Sweep(Some(_))
        | Job::Maintain(_) => true,
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
        Job::Invitation(order, answer) => {
            Ok(Some(Outcome::Ordered(answer, ordered(order, rows, now.wall)?)))
        }
        Job::Sweep(answer) => {
            invites::expire(rows, now.wall)?;
            let changed = registry.sweep(rows, now.wall)?;
            tracing::trace!(changed, "swept");
            Ok(answer.map(|answer| Outcome::Swept(answer, changed)))
        }
        Job::Maintain(_) => Ok(None),
    }
}

fn ordered(
    order: InviteOrder,
    rows: &mut RedbRows<'_>,
    now: Timestamp,
) -> Result<Answer, StoreError> {
    Ok(match order {
        InviteOrder::Add(token, invite) => {
            let is_kept = invites::add(rows, &token, invite, now)?;
            if is_kept {
                Ok(invitations::shown(&token, &invite))
            } else {
                Err(invitations::too_many())
            }
        }
        InviteOrder::List => Ok(invitations::list(&invites::all(rows)?, now)),
        InviteOrder::Revoke(token) => {
            let was_there = invites::remove(rows, &token)?;
            if was_there { Ok(invitations::revoked()) } else { Err(invitations::none_such()) }
        }
    })
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
        Outcome::Ordered(answer, outcome) => {
            let _ = answer.send(outcome);
        }
    }
}
