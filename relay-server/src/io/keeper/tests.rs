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
    Ack, Admission, Bin, ErrorCode, List, Ping, Recipient, RelayCapabilities, RelayRegister,
    RetrieveMessages, StoreMessage,
};
use tokio::runtime::Runtime;

use super::*;
use crate::store::{JournaledStore, Mailboxes as _, RedbMailboxes, RedbStore};

/// A disk in memory that can be told to fail, and counts what is made durable.
#[derive(Clone, Debug)]
struct Disk(Arc<DiskState>);

#[derive(Debug)]
struct DiskState {
    memory: InMemoryBackend,
    fails: AtomicBool,
    /// No byte beyond this one finds room.
    size: AtomicU64,
    syncs: AtomicU64,
}

impl Disk {
    fn new() -> Self {
        let (memory, fails, syncs) = (InMemoryBackend::new(), false.into(), 0.into());
        Self(Arc::new(DiskState { memory, fails, size: u64::MAX.into(), syncs }))
    }

    /// Whether bytes up to here find room.
    fn check(&self, end: u64) -> io::Result<()> {
        let fits = end <= self.0.size.load(Ordering::SeqCst);
        if fits { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn set_size(&self, size: u64) {
        self.0.size.store(size, Ordering::SeqCst);
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
        self.check(len)?;
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
        self.check(offset + u64::try_from(data.len()).unwrap())?;
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
    session: SessionId,
    requests: RequestId,
}

impl Rig {
    fn new(room: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let disk = Disk::new();
        let store = RedbStore::with_backend(disk.clone(), 1 << 20).unwrap();
        let engine = Engine::new(EngineConfig::default(), key(100), Incarnation::new([1; 16]));
        let again = disk.clone();
        let store = JournaledStore::without_journal(store);
        let open = Box::new(move || {
            RedbStore::with_backend(again.clone(), 1 << 20).map(JournaledStore::without_journal)
        });
        let home = Home { open, disk: None };
        let keeper = runtime.block_on(async {
            Keeper::start(store, home, engine, BTreeSet::new(), Clock::start())
        });
        let keeper = keeper.unwrap();
        let jobs = keeper.jobs();
        let (sender, commands) = mpsc::channel(room);
        let mut rig =
            Self { runtime, disk, keeper, jobs, commands, session: SessionId(1), requests: 0 };
        rig.open(sender);
        rig.register();
        rig
    }

    fn open(&self, commands: mpsc::Sender<Command>) {
        let (session, caller) = (self.session, Some(key(1)));
        let observed = "192.0.2.1:1".parse().unwrap();
        self.hand_in(Job::Opened { session, caller, observed, commands, slot: None });
    }

    /// Another session of the same person, in place of one that has ended.
    fn come_again(&mut self) {
        let (sender, commands) = mpsc::channel(100);
        self.session = SessionId(self.session.0 + 1);
        self.commands = commands;
        self.open(sender);
    }

    fn register(&mut self) {
        let capabilities =
            RelayCapabilities { max_message_size: 100_000, max_storage_duration: 99 };
        self.ask(Message::RelayRegister(RelayRegister { capabilities, invite: None }));
        assert!(matches!(self.answer(), Some(Message::RelayRegistered(_))));
    }

    /// Stores a long blob; gives the refusal, or nothing at the end of the session.
    fn store_long(&mut self, number: u8) -> Option<Option<ErrorCode>> {
        let to = Recipient { identity_key: key(1), admission: Admission::Session };
        let blob = Bin::new(vec![number; 60_000]).unwrap();
        let recipients = List::new(vec![to]).unwrap();
        self.ask(Message::StoreMessage(StoreMessage { blob, recipients }));
        let answer = self.answer()?;
        let Message::StoreResponse(response) = answer else { panic!("{answer:?}") };
        Some(response.results[0].refused)
    }

    fn hand_in(&self, job: Job) {
        self.jobs.blocking_send(job).unwrap();
    }

    fn ask(&mut self, message: Message) {
        self.requests += 2;
        self.hand_in(Job::Request { session: self.session, id: self.requests, message });
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
    rig.hand_in(Job::Drain(Duration::ZERO));
    let is_goodbye = |command| matches!(command, Some(Command::Close(ErrorCode::Goodbye)));
    assert!(is_goodbye(rig.commands.blocking_recv()));
    let (commands, mut late) = mpsc::channel(1);
    let (session, observed) = (SessionId(2), "192.0.2.1:1".parse().unwrap());
    rig.hand_in(Job::Opened { session, caller: None, observed, commands, slot: None });
    assert!(is_goodbye(late.blocking_recv()));
    assert!(rig.stop().is_none());
}

/// L02: the disk is full to the last byte in the middle of a commit. Nothing acknowledged is lost,
/// what waits can be read and deleted, and the service comes back by itself.
#[test]
fn l02_a_full_disk_loses_nothing_and_passes() {
    let mut rig = Rig::new(100);
    let mut kept: u8 = 0;
    rig.disk.set_size(4 << 20);
    // Until the disk is full: that store is not answered, and the session ends.
    while let Some(refused) = rig.store_long(kept) {
        assert_eq!(refused, None, "no mark was set, so nothing is refused before");
        kept += 1;
    }
    assert!(kept > 10, "{kept}");
    // Now new messages are refused, and what was acknowledged is there.
    rig.come_again();
    rig.register();
    assert_eq!(rig.store_long(200), Some(Some(ErrorCode::Unavailable)));
    assert_eq!(rig.status().messages, u64::from(kept));
    rig.ask(Message::RetrieveMessages(RetrieveMessages { window: 4 << 20 }));
    let mut read = Vec::new();
    while read.len() < usize::from(kept) {
        let Some(Message::MessageBatch(batch)) = rig.answer() else { panic!() };
        for message in batch.messages {
            assert!(message.blob.len() == 60_000 && message.blob.iter().all(|b| *b < kept));
            read.push(message.sequence);
            let sequences = List::new(vec![message.sequence]).unwrap();
            rig.ask(Message::Ack(Ack { sequences }));
        }
    }
    assert_eq!(rig.status().messages, 0, "drained on the full disk");
    // After a pause, in the room that became free.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while rig.store_long(201) != Some(None) {
        assert!(std::time::Instant::now() < deadline, "the service does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(matches!(rig.answer(), Some(Message::MessageBatch(_))));
    assert!(rig.stop().is_none());
}

/// L02: not even the reopening finds room, until somebody makes some.
#[test]
fn l02_a_disk_without_any_room_is_waited_for() {
    let mut rig = Rig::new(100);
    assert_eq!(rig.store_long(1), Some(None));
    rig.disk.set_size(0);
    assert_eq!(rig.store_long(2), None);
    rig.come_again();
    rig.ask(Message::RelayInfoRequest(Ping()));
    assert_eq!(rig.answer(), None, "turned away");
    rig.disk.set_size(u64::MAX);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        rig.come_again();
        rig.ask(Message::RelayInfoRequest(Ping()));
        if rig.answer().is_some() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the service does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(rig.status().messages, 1);
    assert!(rig.stop().is_none());
}
