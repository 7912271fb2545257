//! What the thread does: batches into transactions, and what a full disk makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use sremp_common::io::Clock;
use sremp_common::io::stream::Command;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::ErrorCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::super::disk::{Disk, Space};
use super::{Home, Job, KeeperStatus};
use crate::engine::{Durability, Engine, Input, Output, Room, SessionId};
use crate::store::{Mailboxes as _, RedbMailboxes, RedbStore, StoreError, Totals};

/// Inputs of one batch.
const MAX_BATCH: usize = 512;
/// How long acknowledgements may stay uncommitted.
const LAZY: Duration = Duration::from_millis(200);
/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time without new messages after the disk was full, doubled each time it is full again.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Doublings at most: about a minute.
const FULL_DOUBLINGS: u32 = 6;

/// What came of waiting for jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// There is something to do, or it is time.
    Awake,
    /// Nobody can hand in anything any more.
    Ended,
}

/// See the module above.
pub(super) struct Thread {
    home: Home,
    engine: Engine,
    clock: Clock,
    waiting: mpsc::Receiver<Job>,
    runtime: Handle,
    sessions: BTreeMap<SessionId, mpsc::Sender<Command>>,
    is_draining: bool,
    batch: Vec<Job>,
    look_at_disk: Instant,
    space: Space,
    full: Full,
}

/// How the store fares with a full disk.
#[derive(Clone, Copy, Debug, Default)]
struct Full {
    /// Times that it was full, without a message stored in between.
    times: u32,
    /// No new messages before this moment, whatever the disk says.
    until: Instant,
}

impl Thread {
    pub(super) const fn new(
        home: Home,
        engine: Engine,
        clock: Clock,
        waiting: mpsc::Receiver<Job>,
        runtime: Handle,
    ) -> Self {
        Self {
            home,
            engine,
            clock,
            waiting,
            runtime,
            sessions: BTreeMap::new(),
            is_draining: false,
            batch: Vec::new(),
            look_at_disk: Instant::from_millis(0),
            space: Space { free: 0, file: 0, slack: 0 },
            full: Full { times: 0, until: Instant::from_millis(0) },
        }
    }

    /// Works until nobody can hand in anything any more.
    ///
    /// # Errors
    /// When the store fails, other than for want of room.
    pub(super) fn work(&mut self, mut store: RedbStore) -> Result<(), StoreError> {
        loop {
            match self.serve(&store) {
                Ok(()) => return Ok(()),
                Err(StoreError::Full(error)) => {
                    tracing::error!(%error, "the disk is full: all sessions end, and nothing new is taken");
                    drop(store);
                    store = match self.open_anew()? {
                        Some(store) => store,
                        None => return Ok(()),
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn serve(&mut self, store: &RedbStore) -> Result<(), StoreError> {
        while self.wait(self.engine.poll_timeout()) == Waited::Awake {
            self.carry_out(store)?;
        }
        Ok(())
    }

    /// As a restart would: sessions and what was not released are forgotten, the reserve is given
    /// up, and the store is opened as often as it takes. Nothing when nobody is there any more.
    fn open_anew(&mut self) -> Result<Option<RedbStore>, StoreError> {
        self.engine.restart();
        for (_, commands) in std::mem::take(&mut self.sessions) {
            // Without a commander the session ends anyway.
            let _ = commands.try_send(Command::Close(ErrorCode::Unavailable));
        }
        self.full.times = self.full.times.saturating_add(1);
        let pause = FULL_PAUSE.saturating_mul(1 << self.full.times.min(FULL_DOUBLINGS));
        self.full.until = self.clock.now().instant + pause;
        self.look_at_disk = Instant::from_millis(0);
        if self.home.disk.as_ref().is_some_and(Disk::release_reserve) {
            tracing::warn!("the reserve on the disk is given up, to have room to drain");
        }
        loop {
            match (self.home.open)() {
                Ok(store) => return Ok(Some(store)),
                Err(StoreError::Full(_)) => {}
                Err(error) => return Err(error),
            }
            if self.turn_away(self.clock.now().instant + FULL_PAUSE) == Waited::Ended {
                return Ok(None);
            }
        }
    }

    /// Ends every session that comes, for a while.
    fn turn_away(&mut self, until: Instant) -> Waited {
        loop {
            for job in self.batch.drain(..) {
                if let Job::Opened { commands, .. } = job {
                    let _ = commands.try_send(Command::Close(ErrorCode::Unavailable));
                }
            }
            if self.clock.now().instant >= until {
                return Waited::Awake;
            }
            if self.wait(until) == Waited::Ended {
                return Waited::Ended;
            }
        }
    }

    /// Looks how much room there is, once in a while.
    fn check_disk(&mut self, totals: Totals, now: Instant) {
        if now < self.look_at_disk {
            return;
        }
        self.look_at_disk = now + LOOK_EVERY;
        let mut room = Room::Plenty;
        if let Some(disk) = &self.home.disk {
            match disk.space(totals) {
                Ok(space) => {
                    room = disk.room(space);
                    self.space = space;
                    if room == Room::Plenty {
                        disk.keep_reserve(space);
                    }
                }
                Err(error) => tracing::warn!(%error, "the disk does not say how full it is"),
            }
        }
        if now < self.full.until {
            room = Room::NoNewMessages;
        }
        let before = self.engine.room();
        if room != before {
            let Space { free, slack, .. } = self.space;
            tracing::warn!(?before, ?room, free, slack, "the room on the disk has changed");
            self.engine.set_room(room);
        }
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
        if self.engine.room() == Room::Plenty {
            self.full.times = 0;
        }
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
        self.check_disk(mailboxes.totals()?, now.instant);
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
            Job::Configure(config, marks) => {
                self.engine.set_config(*config);
                if let Some(disk) = &mut self.home.disk {
                    disk.set_marks(marks);
                }
                self.look_at_disk = Instant::from_millis(0);
                return Ok(());
            }
            Job::Status(answer) => {
                let Totals { mailboxes, messages, bytes } = mailboxes.totals()?;
                // Whoever asked may be gone.
                let _ = answer.send(KeeperStatus {
                    mailboxes,
                    messages,
                    bytes,
                    sessions: self.engine.sessions(),
                    pow_difficulty: self.engine.difficulty(now.instant),
                    room: self.engine.room(),
                    disk: self.space,
                });
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
