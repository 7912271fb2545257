//! The thread over disks that fail and sessions that do not read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use sremp_common::entropy::Entropy;
use sremp_common::id::Incarnation;
use sremp_common::key::IdentitySecret;
use sremp_common::wire::{
    Ack, Admission, Bin, List, Ping, Recipient, RelayCapabilities, RelayRegister, RetrieveMessages,
    StoreMessage,
};
use tokio::runtime::Runtime;

use super::*;

/// A disk in memory that can be told to fail, and counts what is made durable.
#[derive(Clone, Debug)]
struct Disk(Arc<DiskState>);

#[derive(Debug)]
struct DiskState {
    memory: InMemoryBackend,
    fails: AtomicBool,
    syncs: AtomicU64,
}

impl Disk {
    fn new() -> Self {
        let (memory, fails, syncs) = (InMemoryBackend::new(), false.into(), 0.into());
        Self(Arc::new(DiskState { memory, fails, syncs }))
    }

    fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::SeqCst)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.0.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.memory.write(offset, data)
    }
}

fn key(number: u64) -> IdentityKey {
    IdentitySecret::generate(&mut Entropy::from_number(number)).public()
}

/// A thread over a disk, with one session of person 1, whose mailbox is open.
struct Rig {
    runtime: Runtime,
    disk: Disk,
    keeper: Keeper,
    jobs: mpsc::Sender<Job>,
    commands: mpsc::Receiver<Command>,
    requests: RequestId,
}

const SESSION: SessionId = SessionId(1);

impl Rig {
    fn new(room: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let disk = Disk::new();
        let store = RedbStore::with_backend(disk.clone(), 1 << 20).unwrap();
        let engine = Engine::new(EngineConfig::default(), key(100), Incarnation::new([1; 16]));
        let keeper = runtime.block_on(async { Keeper::start(store, engine, Clock::start()) });
        let keeper = keeper.unwrap();
        let jobs = keeper.jobs();
        let (sender, commands) = mpsc::channel(room);
        let mut rig = Self { runtime, disk, keeper, jobs, commands, requests: 0 };
        rig.hand_in(Job::Opened {
            session: SESSION,
            caller: Some(key(1)),
            observed: "192.0.2.1:1".parse().unwrap(),
            commands: sender,
        });
        let capabilities = RelayCapabilities { max_message_size: 99, max_storage_duration: 99 };
        rig.ask(Message::RelayRegister(RelayRegister { capabilities, invite: None }));
        assert!(matches!(rig.answer(), Some(Message::RelayRegistered(_))));
        rig
    }

    fn hand_in(&self, job: Job) {
        self.jobs.blocking_send(job).unwrap();
    }

    fn ask(&mut self, message: Message) {
        self.requests += 2;
        self.hand_in(Job::Request { session: SESSION, id: self.requests, message });
    }

    fn store(&mut self, number: u8) {
        let to = Recipient { identity_key: key(1), admission: Admission::Session };
        let blob = Bin::new(vec![number]).unwrap();
        let recipients = List::new(vec![to]).unwrap();
        self.ask(Message::StoreMessage(StoreMessage { blob, recipients }));
    }

    /// The next answer or push; nothing when the thread has let the session go.
    fn answer(&mut self) -> Option<Message> {
        match self.commands.blocking_recv()? {
            Command::Respond { message, .. } => Some(*message),
            Command::Request { .. } | Command::Trust(_) | Command::Close(_) => None,
        }
    }

    fn status(&self) -> KeeperStatus {
        let (answer, told) = oneshot::channel();
        self.hand_in(Job::Status(answer));
        told.blocking_recv().unwrap()
    }

    fn stop(self) -> Option<StoreError> {
        let Self { runtime, keeper, jobs, .. } = self;
        drop(jobs);
        runtime.block_on(keeper.stop())
    }
}

#[test]
fn l22_nothing_is_answered_that_is_not_on_disk() {
    let mut rig = Rig::new(100);
    let before = rig.disk.syncs();
    rig.store(1);
    assert!(matches!(rig.answer(), Some(Message::StoreResponse(_))));
    assert!(rig.disk.syncs() > before, "synced before it was answered");

    rig.disk.0.fails.store(true, Ordering::SeqCst);
    rig.store(2);
    assert_eq!(rig.answer(), None, "the thread ends without a word");
    assert!(matches!(rig.stop(), Some(StoreError::Database(_))));
}

#[test]
fn a_failure_is_heard_once_and_does_not_hang_the_end() {
    let mut rig = Rig::new(100);
    rig.disk.0.fails.store(true, Ordering::SeqCst);
    rig.store(1);
    let Rig { runtime, mut keeper, jobs, .. } = rig;
    let failure = runtime.block_on(keeper.failed());
    assert!(matches!(failure, StoreError::Database(_)));
    drop(jobs);
    assert!(runtime.block_on(keeper.stop()).is_none());
}

#[test]
fn acknowledgements_share_commits_and_survive_an_orderly_end() {
    let mut rig = Rig::new(100);
    for number in 0..20 {
        rig.store(number);
        assert!(matches!(rig.answer(), Some(Message::StoreResponse(_))));
    }
    rig.ask(Message::RetrieveMessages(RetrieveMessages { window: 1000 }));
    assert!(matches!(rig.answer(), Some(Message::MessageBatch(_))));
    for sequence in 1..=20 {
        let sequences = List::new(vec![sequence]).unwrap();
        rig.ask(Message::Ack(Ack { sequences }));
    }
    // Seen at once, though perhaps not durable yet.
    assert_eq!((rig.status().messages, rig.status().sessions), (0, 1));
    let disk = rig.disk.clone();
    assert!(rig.stop().is_none());
    let store = RedbStore::with_backend(disk, 1 << 20).unwrap();
    let transaction = store.begin().unwrap();
    let mut mailboxes = RedbMailboxes::open(&transaction).unwrap();
    assert_eq!(mailboxes.totals().unwrap().messages, 0);
}

#[test]
fn a_session_that_does_not_take_its_answers_is_let_go() {
    let mut rig = Rig::new(2);
    for _ in 0..3 {
        rig.ask(Message::RelayInfoRequest(Ping()));
    }
    rig.status();
    assert_eq!(rig.status().sessions, 0, "the engine, too, has let it go");
    assert!(matches!(rig.answer(), Some(Message::RelayInfo(_))));
    assert!(matches!(rig.answer(), Some(Message::RelayInfo(_))));
    assert_eq!(rig.answer(), None, "the third found no room");
    assert!(rig.stop().is_none());
}

#[test]
fn draining_says_goodbye_to_all_sessions_and_to_late_ones() {
    let mut rig = Rig::new(10);
    rig.hand_in(Job::Drain);
    let is_goodbye = |command| matches!(command, Some(Command::Close(ErrorCode::Goodbye)));
    assert!(is_goodbye(rig.commands.blocking_recv()));
    let (commands, mut late) = mpsc::channel(1);
    let (session, observed) = (SessionId(2), "192.0.2.1:1".parse().unwrap());
    rig.hand_in(Job::Opened { session, caller: None, observed, commands });
    assert!(is_goodbye(late.blocking_recv()));
    assert!(rig.stop().is_none());
}
