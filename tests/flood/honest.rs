//! Those who mean well: owners with a mailbox, and senders who write to them, each from an address
//! of its own. They keep count of what was acknowledged, and of what arrived.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sremp_common::id::IdentityKey;
use sremp_common::wire::{Message, Ping};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::program::Relay;
use crate::relay_client::{Client, person};

/// Pairs of owner and sender.
const PAIRS: u64 = 8;
/// Between two messages of a sender, and between two dials.
const PAUSE: Duration = Duration::from_millis(20);
/// After so long a dial has failed.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Ledger {
    stores: Vec<Duration>,
    dials: Vec<Duration>,
    failed_dials: u64,
    acknowledged: BTreeSet<(u64, u64)>,
    arrived: BTreeSet<(u64, u64)>,
    is_over: bool,
}

/// The 99th percentile, of how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) p99: Duration,
    pub(crate) count: usize,
}

/// All of them.
pub(crate) struct Honest {
    ledger: Arc<Mutex<Ledger>>,
    tasks: JoinSet<()>,
}

async fn dial(
    number: u64,
    target: SocketAddr,
    relay: IdentityKey,
    anonymous: bool,
    seed: u64,
) -> std::io::Result<Client> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::from(0x7F4D_0001 + u32::try_from(number).unwrap());
    socket.bind((source, 0).into())?;
    let stream = socket.connect(target).await?;
    let who = if anonymous { person(0) } else { person(number) };
    Client::over(stream, relay, who, anonymous, seed).await
}

impl Honest {
    /// Opens the mailboxes, and begins.
    pub(crate) async fn start(relay: &Relay) -> Self {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let mut tasks = JoinSet::new();
        let (target, key) = (relay.address, relay.key);
        for number in 1..=PAIRS {
            let mut owner = dial(number, target, key, false, number).await.unwrap();
            owner.open_mailbox(number, 1 << 20).await.unwrap();
            tasks.spawn(read(owner, number, Arc::clone(&ledger)));
            let sender = dial(number, target, key, true, 1000 + number).await.unwrap();
            tasks.spawn(write(sender, number, Arc::clone(&ledger)));
            tasks.spawn(come_again(number, target, key, Arc::clone(&ledger)));
        }
        Self { ledger, tasks }
    }

    /// Begins a new measurement.
    pub(crate) fn forget(&self) {
        let mut ledger = self.ledger.lock().unwrap();
        (ledger.stores, ledger.dials, ledger.failed_dials) = (Vec::new(), Vec::new(), 0);
    }

    /// Stores and dials since then, and dials that failed.
    pub(crate) fn figures(&self) -> (Figure, Figure, u64) {
        let mut ledger = self.ledger.lock().unwrap();
        let (stores, dials) = (figure(&mut ledger.stores), figure(&mut ledger.dials));
        (stores, dials, ledger.failed_dials)
    }

    /// Waits until everything has arrived; how many were acknowledged, and how many are lost.
    pub(crate) async fn end(mut self) -> (usize, usize) {
        self.ledger.lock().unwrap().is_over = true;
        let deadline = Instant::now() + Duration::from_secs(20);
        let lost = loop {
            sleep(Duration::from_millis(200)).await;
            let ledger = self.ledger.lock().unwrap();
            let lost = ledger.acknowledged.difference(&ledger.arrived).count();
            if lost == 0 || Instant::now() > deadline {
                break lost;
            }
        };
        self.tasks.shutdown().await;
        let stored = self.ledger.lock().unwrap().acknowledged.len();
        (stored, lost)
    }
}

fn figure(times: &mut [Duration]) -> Figure {
    times.sort_unstable();
    let p99 = times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1)));
    Figure { p99: p99.copied().unwrap_or_default(), count: times.len() }
}

async fn read(mut owner: Client, number: u64, ledger: Arc<Mutex<Ledger>>) {
    while let Ok(batch) = owner.batch().await {
        for message in batch.messages.iter() {
            let which = u64::from_le_bytes(message.blob[..8].try_into().unwrap());
            ledger.lock().unwrap().arrived.insert((number, which));
        }
        if !batch.messages.is_empty() && owner.acknowledge(&batch).await.is_err() {
            return;
        }
    }
}

async fn write(mut sender: Client, number: u64, ledger: Arc<Mutex<Ledger>>) {
    let mut blob = vec![7; 1024];
    for which in 0_u64.. {
        if ledger.lock().unwrap().is_over {
            return;
        }
        blob[..8].copy_from_slice(&which.to_le_bytes());
        let began = Instant::now();
        let Ok(result) = sender.store(number, blob.clone()).await else { return };
        if result.refused.is_none() {
            let mut ledger = ledger.lock().unwrap();
            ledger.stores.push(began.elapsed());
            ledger.acknowledged.insert((number, which));
        }
        sleep(PAUSE).await;
    }
}

/// Comes as a sender comes: with a new session, anonymous, from the address of somebody known.
async fn come_again(
    number: u64,
    target: SocketAddr,
    relay: IdentityKey,
    ledger: Arc<Mutex<Ledger>>,
) {
    for seed in 0_u64.. {
        if ledger.lock().unwrap().is_over {
            return;
        }
        let began = Instant::now();
        let attempt = async {
            let mut client = dial(number, target, relay, true, 1_000_000 * number + seed).await?;
            client.ask(&Message::RelayInfoRequest(Ping())).await
        };
        let done = timeout(PATIENCE, attempt).await;
        note(&ledger, matches!(done, Ok(Ok(_))).then(|| began.elapsed()));
        // Within what one address may: ten a second.
        sleep(PAUSE * 10).await;
    }
}

fn note(ledger: &Mutex<Ledger>, took: Option<Duration>) {
    let mut ledger = ledger.lock().unwrap();
    match took {
        Some(took) => ledger.dials.push(took),
        None => ledger.failed_dials += 1,
    }
}
