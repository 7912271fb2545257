//! What the thread does: batches into transactions, and what a full disk makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sremp_common::id::IdentityKey;
use sremp_common::io::Clock;
use sremp_common::io::control::Answer;
use sremp_common::io::gate::Slot;
use sremp_common::io::metrics::Histogram;
use sremp_common::io::stream::Command;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{ErrorCode, Message};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::super::disk::{Disk, Space};
use super::gather::{Gather, receive};
use super::orders::{self, Banned, Order};
use super::{Figures, Home, Job, KeeperStatus, Settings};
use crate::engine::{Durability, Engine, Input, Output, Room, SessionId};
use crate::store::{
    Journal, JournaledStore, Mailboxes as _, Recorder, RedbMailboxes, RedbStore, Snapshot,
    StoreError, Totals,
};

/// Inputs of one batch.
const MAX_BATCH: usize = 512;
/// How long acknowledgements may stay neither in the journal nor committed.
const LAZY: Duration = Duration::from_millis(200);
/// How long the database waits for what is in the journal: a restart has less to take over.
const COMMIT_AFTER: Duration = Duration::from_secs(1);
/// Between two portions of goodbyes.
const GOODBYE_STEP: Duration = Duration::from_millis(50);
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

/// When an open transaction wants attention, if nobody comes.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// Something that is not durable yet must be.
    lazy: Option<Instant>,
    /// The journal's records must come into the database.
    commit: Option<Instant>,
}

impl Open {
    /// Nothing when there is nothing to make durable or to commit.
    fn until(self) -> Option<Instant> {
        self.lazy.into_iter().chain(self.commit).min()
    }
}

/// See the module above.
pub(super) struct Thread {
    home: Home,
    engine: Engine,
    clock: Clock,
    waiting: mpsc::Receiver<Job>,
    runtime: Handle,
    sessions: BTreeMap<SessionId, Guest>,
    drain: Option<Drain>,
    batch: Vec<Job>,
    banned: Banned,
    /// The bans by order were read from this store.
    knows_banned: bool,
    /// Answers to orders, to be told after the commit.
    told: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// What an order wrote must be committed.
    is_written: bool,
    /// Asked for while a transaction was open.
    after: Vec<Upkeep>,
    figures: Figures,
    commits: Arc<Histogram>,
    gather: Gather,
    /// The disk is so full that every batch must be committed.
    commits_all: bool,
    look_at_disk: Instant,
    /// Bytes in all mailboxes at the last look.
    looked_at_bytes: u64,
    space: Space,
    full: Full,
}

/// A session, as the thread knows it.
#[derive(Debug)]
struct Guest {
    commands: mpsc::Sender<Command>,
    caller: Option<IdentityKey>,
    slot: Option<Arc<Slot>>,
}

/// Goodbyes that are still to be said.
#[derive(Debug)]
struct Drain {
    left: Vec<SessionId>,
    /// In one step.
    portion: usize,
    next: Instant,
}

/// What needs the store itself, with no transaction open.
#[derive(Debug)]
enum Upkeep {
    Snapshot(oneshot::Sender<Result<Snapshot, StoreError>>),
    Compact(oneshot::Sender<Result<bool, StoreError>>),
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
    pub(super) fn new(
        home: Home,
        engine: Engine,
        clock: Clock,
        waiting: mpsc::Receiver<Job>,
        runtime: Handle,
        commits: Arc<Histogram>,
    ) -> Self {
        Self {
            home,
            engine,
            clock,
            waiting,
            runtime,
            sessions: BTreeMap::new(),
            drain: None,
            batch: Vec::new(),
            banned: Banned::default(),
            knows_banned: false,
            told: Vec::new(),
            is_written: false,
            after: Vec::new(),
            figures: Figures::default(),
            commits,
            gather: Gather::default(),
            commits_all: false,
            look_at_disk: Instant::from_millis(0),
            looked_at_bytes: 0,
            space: Space { free: 0, file: 0, slack: 0 },
            full: Full { times: 0, until: Instant::from_millis(0) },
        }
    }

    /// Does nothing for these, whatever the store says.
    pub(super) fn ban(&mut self, banned: BTreeSet<IdentityKey>) {
        self.banned.configure(banned);
        self.engine.set_banned(self.banned.all());
    }

    /// Works until nobody can hand in anything any more.
    ///
    /// # Errors
    /// When the store fails, other than for want of room.
    pub(super) fn work(&mut self, mut store: JournaledStore) -> Result<(), StoreError> {
        loop {
            match self.serve(&mut store) {
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

    fn serve(&mut self, opened: &mut JournaledStore) -> Result<(), StoreError> {
        while self.wait(self.wakes()) == Waited::Awake {
            self.say_goodbyes();
            self.carry_out(opened)?;
            for upkeep in std::mem::take(&mut self.after) {
                keep_up(upkeep, &mut opened.store)?;
            }
        }
        Ok(())
    }

    /// When there is something to do even if nobody comes.
    fn wakes(&self) -> Instant {
        let goodbyes = self.drain.as_ref().filter(|drain| !drain.left.is_empty());
        let timeout = self.engine.poll_timeout();
        goodbyes.map_or(timeout, |drain| drain.next.min(timeout))
    }

    /// Begins to end all sessions, in an order that has nothing to do with when they came.
    fn begin_drain(&mut self, over: Duration, now: Instant) {
        let mut left: Vec<SessionId> = self.sessions.keys().copied().collect();
        left.sort_by_key(|session| session.0.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let steps = over.as_millis().checked_div(GOODBYE_STEP.as_millis()).unwrap_or(0);
        let steps = usize::try_from(steps).unwrap_or(1).max(1);
        self.drain = Some(Drain { portion: left.len().div_ceil(steps).max(1), left, next: now });
        self.say_goodbyes();
    }

    fn say_goodbyes(&mut self) {
        let now = self.clock.now().instant;
        let Some(drain) = &mut self.drain else { return };
        while drain.next <= now && !drain.left.is_empty() {
            let kept = drain.left.len().saturating_sub(drain.portion);
            for session in drain.left.drain(kept..) {
                if let Some(guest) = self.sessions.get(&session) {
                    say_goodbye(&guest.commands);
                }
            }
            drain.next = drain.next + GOODBYE_STEP;
        }
    }

    /// As a restart would: sessions and what was not released are forgotten, the reserve is given
    /// up, and the store is opened as often as it takes. Nothing when nobody is there any more.
    fn open_anew(&mut self) -> Result<Option<JournaledStore>, StoreError> {
        self.engine.restart();
        self.told = Vec::new();
        self.is_written = false;
        self.figures.disk_full = self.figures.disk_full.saturating_add(1);
        for (_, guest) in std::mem::take(&mut self.sessions) {
            // Without a commander the session ends anyway.
            let _ = guest.commands.try_send(Command::Close(ErrorCode::Unavailable));
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

    /// Looks how much room there is: once in a while, and after each batch that stored something.
    fn check_disk(&mut self, totals: Totals, journaled: u64, now: Instant) {
        if now < self.look_at_disk && totals.bytes <= self.looked_at_bytes {
            return;
        }
        self.look_at_disk = now + LOOK_EVERY;
        self.looked_at_bytes = totals.bytes;
        let mut room = Room::Plenty;
        let mut budget = u64::MAX;
        if let Some(disk) = &self.home.disk {
            match disk.space(totals) {
                Ok(space) => {
                    room = disk.room(space);
                    budget = disk.budget(space);
                    self.commits_all = !disk.has_room_to_journal(space, journaled);
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
        }
        self.engine.set_room(room, budget);
    }

    /// One transaction: the batch that waits, and those that follow it as long as the journal has room.
    fn carry_out(&mut self, opened: &mut JournaledStore) -> Result<(), StoreError> {
        let JournaledStore { store, journal } = opened;
        let transaction = store.begin()?;
        let mut mailboxes = Recorder::new(RedbMailboxes::open(&transaction)?, journal);
        let mut open = Open::default();
        loop {
            self.apply(&mut mailboxes)?;
            let needed = if self.is_written { Durability::Now } else { Durability::Nothing };
            match self.engine.take_durability().max(needed) {
                Durability::Now => {
                    self.gather(&mut mailboxes)?;
                    if !self.write(&mut mailboxes, journal, &mut open)? {
                        break;
                    }
                }
                Durability::Lazy => {
                    open.lazy.get_or_insert(self.clock.now().instant + LAZY);
                }
                Durability::Nothing => {}
            }
            self.release();
            let Some(until) = open.until() else {
                // Nothing was written.
                drop(mailboxes);
                return Ok(transaction.abort()?);
            };
            let waited = self.wait(until.min(self.wakes()));
            let now = self.clock.now().instant;
            let is_old = open.commit.is_some_and(|commit| now >= commit);
            if waited == Waited::Ended || is_old {
                break;
            }
            if open.lazy.is_some_and(|lazy| now >= lazy)
                && !self.write(&mut mailboxes, journal, &mut open)?
            {
                break;
            }
            self.say_goodbyes();
        }
        self.is_written = false;
        mailboxes.finish(journal)?;
        let began = std::time::Instant::now();
        transaction.commit()?;
        journal.restart();
        self.durable(began.elapsed());
        // A record of the journal says nothing about the disk: its room was there before.
        if self.engine.room() == Room::Plenty {
            self.full.times = 0;
        }
        self.release();
        Ok(())
    }

    /// Writes what has happened to the journal. False when it must be committed instead.
    fn write(
        &mut self,
        mailboxes: &mut Recorder<RedbMailboxes<'_>>,
        journal: &mut Journal,
        open: &mut Open,
    ) -> Result<bool, StoreError> {
        if std::mem::take(&mut self.is_written) || self.commits_all {
            mailboxes.need_commit();
        }
        let began = std::time::Instant::now();
        if !mailboxes.write(journal)? {
            return Ok(false);
        }
        self.durable(began.elapsed());
        open.lazy = None;
        open.commit.get_or_insert(self.clock.now().instant + COMMIT_AFTER);
        Ok(true)
    }

    /// What has happened is on the disk, which took so long.
    fn durable(&mut self, took: Duration) {
        self.commits.observe(took);
        self.gather.committed(took);
    }

    /// Takes in who comes back from the last answers, see [`Gather`].
    fn gather(&mut self, mailboxes: &mut Recorder<RedbMailboxes<'_>>) -> Result<(), StoreError> {
        let began = std::time::Instant::now();
        while let Some(patience) = self.gather.patience(began.elapsed()) {
            if !receive(&mut self.waiting, &mut self.batch, MAX_BATCH, patience) {
                break;
            }
            self.apply(mailboxes)?;
        }
        // All of it becomes durable together.
        self.engine.take_durability();
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

    fn apply(&mut self, mailboxes: &mut Recorder<RedbMailboxes<'_>>) -> Result<(), StoreError> {
        let now = self.clock.now();
        if !self.knows_banned {
            self.banned.load(mailboxes)?;
            self.engine.set_banned(self.banned.all());
            self.knows_banned = true;
        }
        self.check_disk(mailboxes.totals()?, mailboxes.journaled(), now.instant);
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
        mailboxes: &mut Recorder<RedbMailboxes<'_>>,
        job: Job,
        now: Now,
    ) -> Result<(), StoreError> {
        let input = match job {
            Job::Opened { session, caller, observed, commands, slot } => {
                if self.drain.is_some() {
                    say_goodbye(&commands);
                }
                self.sessions.insert(session, Guest { commands, caller, slot });
                Input::Opened { session, caller, observed: Some(observed) }
            }
            Job::Request { session, id, message } => {
                self.gather.came(&message);
                Input::Request { session, request_id: id, message }
            }
            Job::Closed { session } => {
                self.sessions.remove(&session);
                Input::Closed { session }
            }
            Job::Ignored => return Ok(()),
            Job::Configure(settings) => {
                self.configure(*settings);
                return Ok(());
            }
            Job::Order(order, answer) => return self.obey(mailboxes, order, answer, now),
            Job::Snapshot(answer) => {
                self.after.push(Upkeep::Snapshot(answer));
                // What is acknowledged lazily belongs to it.
                self.is_written = true;
                return Ok(());
            }
            Job::Compact(answer) => {
                self.after.push(Upkeep::Compact(answer));
                self.is_written = true;
                return Ok(());
            }
            Job::Status(answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.status(mailboxes.totals()?, now));
                return Ok(());
            }
            Job::Drain(over) => {
                self.begin_drain(over, now.instant);
                return Ok(());
            }
        };
        self.engine.handle(mailboxes, input, now)
    }

    fn configure(&mut self, settings: Settings) {
        self.engine.set_config(settings.engine);
        self.ban(settings.banned);
        if let Some(disk) = &mut self.home.disk {
            disk.set_marks(settings.store);
        }
        self.look_at_disk = Instant::from_millis(0);
    }

    fn obey(
        &mut self,
        mailboxes: &mut Recorder<RedbMailboxes<'_>>,
        order: Order,
        answer: oneshot::Sender<Answer>,
        now: Now,
    ) -> Result<(), StoreError> {
        let Self { engine, banned, .. } = self;
        let carried = orders::carry_out(order, engine, mailboxes, banned, now)?;
        self.is_written |= carried.is_written;
        self.told.push((answer, carried.answer));
        if let Some(ended) = carried.ends {
            for guest in self.sessions.values().filter(|guest| guest.caller == Some(ended)) {
                let _ = guest.commands.try_send(Command::Close(ErrorCode::NotAllowed));
            }
        }
        Ok(())
    }

    fn status(&mut self, totals: Totals, now: Now) -> KeeperStatus {
        let Totals { mailboxes, messages, bytes } = totals;
        let (acknowledged, expired) = self.engine.gone();
        KeeperStatus {
            mailboxes,
            messages,
            bytes,
            sessions: self.engine.sessions(),
            pow_difficulty: self.engine.difficulty(now.instant),
            room: self.engine.room(),
            disk: self.space,
            counts: self.figures.clone(),
            acknowledged,
            expired,
        }
    }

    /// Lets the outputs go. A session whose queue is full reads too slowly, and is given up: its
    /// driver ends when it has no commander any more.
    fn release(&mut self) {
        for (asker, answer) in std::mem::take(&mut self.told) {
            // Whoever asked may be gone.
            let _ = asker.send(answer);
        }
        while let Some(output) = self.engine.poll_output() {
            let (session, message, request_id) = match output {
                Output::Answer { session, request_id, message } => {
                    (session, message, Some(request_id))
                }
                Output::Tell { session, message } => (session, message, None),
            };
            self.figures.count(&message);
            self.gather.answered(&message);
            let Some(guest) = self.sessions.get(&session) else { continue };
            if let (Message::RelayRegistered(_), Some(slot)) = (&message, &guest.slot) {
                // Whoever has a mailbox finds a way in when strangers crowd the gate.
                slot.established(true);
            }
            let message = Box::new(message);
            let command = match request_id {
                Some(id) => Command::Respond { id, message },
                None => Command::Request { message, asked: None },
            };
            if guest.commands.try_send(command).is_err() {
                self.figures.slow_readers = self.figures.slow_readers.saturating_add(1);
                self.sessions.remove(&session);
                self.batch.push(Job::Closed { session });
            }
        }
    }
}

/// Does what needs the store itself. Only a failure that breaks the store is an error.
fn keep_up(upkeep: Upkeep, store: &mut RedbStore) -> Result<(), StoreError> {
    match upkeep {
        // Whoever asked may be gone.
        Upkeep::Snapshot(answer) => drop(answer.send(store.snapshot())),
        Upkeep::Compact(answer) => match store.compact() {
            Err(error @ StoreError::Full(_)) => return Err(error),
            done => drop(answer.send(done)),
        },
    }
    Ok(())
}

/// Asks a connection to end. If its queue is full it is given up at the end of draining.
fn say_goodbye(commands: &mpsc::Sender<Command>) {
    let _ = commands.try_send(Command::Close(ErrorCode::Goodbye));
}
