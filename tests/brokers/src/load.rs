//! The load, the same for every system: N senders with one message of 1 KiB under way each, N
//! mailboxes, of which every second one is read at once and the others after the sending has ended.
//! Every message is acknowledged to its sender, delivered, acknowledged by its reader and removed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

/// Bytes of a message: its number, the moment at which it was due, and filling.
pub const MESSAGE: usize = 1024;
/// After so long what has not arrived is counted as undelivered.
const PATIENCE: Duration = Duration::from_secs(60);

/// One system under load.
pub trait System: Clone + Send + Sync + 'static {
    type Sender: Sender;
    type Reader: Reader;

    /// Makes `pairs` mailboxes, empty, known to the system and not being read.
    fn prepare(&self, pairs: usize) -> impl Future<Output = ()> + Send;
    /// Connects the sender of a mailbox.
    fn sender(&self, pair: usize) -> impl Future<Output = Self::Sender> + Send;
    /// Connects the reader of a mailbox.
    fn reader(&self, pair: usize) -> impl Future<Output = Self::Reader> + Send;
    /// Waits until the acknowledgements of readers that nobody answers have arrived.
    fn settle(&self) -> impl Future<Output = ()> + Send {
        sleep(Duration::from_millis(100))
    }
    /// What is left in all mailboxes, with nobody reading.
    fn left(&self, pairs: usize) -> impl Future<Output = u64> + Send;
}

pub trait Sender: Send + 'static {
    /// Hands a message in, and waits for its acknowledgement.
    fn send(&mut self, message: Vec<u8>) -> impl Future<Output = ()> + Send;
}

pub trait Reader: Send + 'static {
    /// Waits for messages, gives each to `got`, acknowledges them, and says how many they were.
    fn read(&mut self, got: impl FnMut(&[u8]) + Send) -> impl Future<Output = u64> + Send;
}

/// How one run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub pairs: usize,
    /// How long is sent.
    pub window: Duration,
    /// Messages a second over all senders; as many as can be without.
    pub rate: Option<f64>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub messages: u64,
    /// Whole cycles a second, from the first message to the last acknowledgement of a reader.
    pub per_s: f64,
    /// Acknowledgements to senders a second, while they sent.
    pub sent_per_s: f64,
    /// From the moment when a message was due to be sent until its reader, who waits, has it.
    pub latencies: Vec<Duration>,
    /// Acknowledged to the sender, and not delivered or not removed.
    pub undelivered: u64,
}

struct Ledger {
    epoch: Instant,
    stop: AtomicBool,
    sent: AtomicU64,
    removed: AtomicU64,
    /// Told when `removed` may have reached `sent`.
    moved: Notify,
    boxes: Vec<Mutex<Mailbox>>,
}

/// What one mailbox's reader has seen.
#[derive(Default)]
struct Mailbox {
    seen: Vec<bool>,
    distinct: u64,
    latencies: Vec<Duration>,
}

const fn is_live(pair: usize) -> bool {
    pair.is_multiple_of(2)
}

/// One run, with mailboxes of its own.
pub async fn run<S: System>(system: &S, plan: Plan) -> Outcome {
    system.prepare(plan.pairs).await;
    let ledger = Arc::new(Ledger {
        epoch: Instant::now(),
        stop: AtomicBool::new(false),
        sent: AtomicU64::new(0),
        removed: AtomicU64::new(0),
        moved: Notify::new(),
        boxes: (0..plan.pairs).map(|_| Mutex::default()).collect(),
    });
    let mut readers = JoinSet::new();
    for pair in (0..plan.pairs).filter(|pair| is_live(*pair)) {
        let reader = system.reader(pair).await;
        readers.spawn(read(reader, pair, Arc::clone(&ledger)));
    }
    let mut senders = JoinSet::new();
    let start = Arc::new(Barrier::new(plan.pairs + 1));
    for pair in 0..plan.pairs {
        let sender = system.sender(pair).await;
        senders.spawn(send(sender, pair, plan, Arc::clone(&ledger), Arc::clone(&start)));
    }
    start.wait().await;
    let began = Instant::now();
    sleep(plan.window).await;
    ledger.stop.store(true, Ordering::Relaxed);
    while let Some(sent) = senders.join_next().await {
        sent.unwrap();
    }
    let sending = began.elapsed();
    // Now the others come.
    for pair in (0..plan.pairs).filter(|pair| !is_live(*pair)) {
        let (system, ledger) = (system.clone(), Arc::clone(&ledger));
        readers.spawn(async move { read(system.reader(pair).await, pair, ledger).await });
    }
    let messages = ledger.sent.load(Ordering::Relaxed);
    let all = async {
        while ledger.removed.load(Ordering::Relaxed) < messages {
            ledger.moved.notified().await;
        }
    };
    let _ = timeout(PATIENCE, all).await;
    let took = began.elapsed();
    system.settle().await;
    readers.shutdown().await;
    let mut outcome = Outcome {
        messages,
        per_s: messages as f64 / took.as_secs_f64(),
        sent_per_s: messages as f64 / sending.as_secs_f64(),
        ..Outcome::default()
    };
    let mut distinct = 0;
    for mailbox in &ledger.boxes {
        let mut mailbox = mailbox.lock().unwrap();
        distinct += mailbox.distinct;
        outcome.latencies.append(&mut mailbox.latencies);
    }
    let left = system.left(plan.pairs).await;
    outcome.undelivered = messages.saturating_sub(distinct).max(left);
    outcome
}

async fn send<S: Sender>(
    mut sender: S,
    pair: usize,
    plan: Plan,
    ledger: Arc<Ledger>,
    start: Arc<Barrier>,
) {
    // Filling that does not compress, and that no two mailboxes share.
    let mut word = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(pair as u64 + 1);
    let mut message = Vec::with_capacity(MESSAGE);
    while message.len() < MESSAGE {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        message.extend_from_slice(&word.to_le_bytes());
    }
    start.wait().await;
    let began = Instant::now();
    // Senders take turns, so that the whole is even.
    let due = |number: u64| {
        plan.rate.map(|rate| {
            let turn = number as f64 * plan.pairs as f64 + pair as f64;
            began + Duration::from_secs_f64(turn / rate)
        })
    };
    for number in 0_u64.. {
        let due = due(number);
        if let Some(due) = due {
            sleep_until(due.into()).await;
        }
        if ledger.stop.load(Ordering::Relaxed) {
            return;
        }
        // What comes late because the one before was slow counts from when it was due.
        let moment = due.unwrap_or_else(Instant::now).duration_since(ledger.epoch);
        message[..8].copy_from_slice(&number.to_le_bytes());
        message[8..16].copy_from_slice(&u64::try_from(moment.as_nanos()).unwrap().to_le_bytes());
        sender.send(message.clone()).await;
        ledger.sent.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read<R: Reader>(mut reader: R, pair: usize, ledger: Arc<Ledger>) {
    loop {
        let got = |message: &[u8]| {
            assert_eq!(message.len(), MESSAGE);
            let word = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
            let moment = ledger.epoch + Duration::from_nanos(word(8));
            let number = usize::try_from(word(0)).unwrap();
            let mut mailbox = ledger.boxes[pair].lock().unwrap();
            if mailbox.seen.len() <= number {
                mailbox.seen.resize(number + 1, false);
            }
            if !std::mem::replace(&mut mailbox.seen[number], true) {
                mailbox.distinct += 1;
                if is_live(pair) {
                    mailbox.latencies.push(moment.elapsed());
                }
            }
        };
        let count = reader.read(got).await;
        let removed = ledger.removed.fetch_add(count, Ordering::Relaxed) + count;
        if ledger.stop.load(Ordering::Relaxed) && removed >= ledger.sent.load(Ordering::Relaxed) {
            ledger.moved.notify_one();
        }
    }
}
