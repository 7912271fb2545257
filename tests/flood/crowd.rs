//! Those who mean ill, from many addresses of 127.0.0.0/8.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sremp_common::connection::Connection;
use sremp_common::entropy::Entropy;
use sremp_common::io::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::relay_client::person;

/// Attempts that are under way at a time: the flood must not drown its own machine.
const MAX_UNDER_WAY: usize = 2_000;

/// A kind of flood.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crowd {
    /// To compare with.
    Nobody,
    /// Handshakes that are begun, answered, and dropped.
    Handshakes {
        /// How many are begun in a second.
        per_second: u32,
        /// From how many addresses.
        addresses: u32,
    },
    /// Connections that say the first bytes and nothing more.
    HalfOpen {
        /// How many are held at a time.
        connections: u32,
        /// From how many addresses.
        addresses: u32,
    },
    /// Connections that say one byte a second.
    Dripping {
        /// How many are held at a time.
        connections: u32,
        /// From how many addresses.
        addresses: u32,
    },
}

/// What the flood came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) attempts: u64,
    pub(crate) answered: u64,
    pub(crate) cut_off: u64,
}

#[derive(Debug, Default)]
struct Counts {
    attempts: AtomicU64,
    answered: AtomicU64,
    cut_off: AtomicU64,
}

impl Crowd {
    /// For people.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Nobody => "calm".to_owned(),
            Self::Handshakes { per_second, addresses } => {
                format!("{per_second} handshakes a second from {addresses} addresses")
            }
            Self::HalfOpen { connections, addresses } => {
                format!("{connections} half-open connections from {addresses} addresses")
            }
            Self::Dripping { connections, addresses } => {
                format!("{connections} connections with a byte a second from {addresses} addresses")
            }
        }
    }

    /// Floods `target` for so long.
    pub(crate) async fn flood(self, target: SocketAddr, long: Duration) -> Tally {
        let end = Instant::now() + long;
        let counts = Arc::<Counts>::default();
        match self {
            Self::Nobody => sleep(long).await,
            Self::Handshakes { per_second, addresses } => {
                handshakes(target, per_second, addresses, end, &counts).await;
            }
            Self::HalfOpen { connections, addresses } => {
                hold(target, connections, addresses, end, None, &counts).await;
            }
            Self::Dripping { connections, addresses } => {
                let drip = Some(Duration::from_secs(1));
                hold(target, connections, addresses, end, drip, &counts).await;
            }
        }
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            attempts: read(&counts.attempts),
            answered: read(&counts.answered),
            cut_off: read(&counts.cut_off),
        }
    }
}

/// The first bytes of a handshake, of which a responder cannot tell that nothing will follow.
fn first_bytes(seed: u64) -> Vec<u8> {
    let (local, clock) = (person(0), Clock::start());
    let entropy = Entropy::from_number(seed);
    let mut connection = Connection::dial(local, None, true, entropy, clock.now());
    connection.poll_transmit().unwrap()
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x7F0A_0001 + number)
}

async fn connect(source: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(target).await
}

async fn handshakes(
    target: SocketAddr,
    per_second: u32,
    addresses: u32,
    end: Instant,
    counts: &Arc<Counts>,
) {
    let messages: Arc<Vec<Vec<u8>>> = Arc::new((0..64).map(first_bytes).collect());
    let places = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    let mut number = 0_u32;
    while Instant::now() < end {
        let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u32;
        while number < due {
            number += 1;
            counts.attempts.fetch_add(1, Ordering::Relaxed);
            // One that finds no place is an attempt that the attacker's machine could not make.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (messages, counts) = (Arc::clone(&messages), Arc::clone(counts));
            tasks.spawn(async move {
                let attempt = async {
                    let mut stream = connect(address(number % addresses), target).await?;
                    stream.write_all(&messages[number as usize % messages.len()]).await?;
                    stream.read_u8().await
                };
                match timeout_at(end, attempt).await {
                    Ok(Ok(_)) => counts.answered.fetch_add(1, Ordering::Relaxed),
                    Ok(Err(_)) | Err(_) => counts.cut_off.fetch_add(1, Ordering::Relaxed),
                };
                drop(place);
            });
        }
        while tasks.try_join_next().is_some() {}
        sleep(Duration::from_millis(2)).await;
    }
    tasks.shutdown().await;
}

/// Holds so many connections, opening another one for each that is cut off.
async fn hold(
    target: SocketAddr,
    connections: u32,
    addresses: u32,
    end: Instant,
    drip: Option<Duration>,
    counts: &Arc<Counts>,
) {
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let counts = Arc::clone(counts);
        tasks.spawn(async move {
            while Instant::now() < end {
                counts.attempts.fetch_add(1, Ordering::Relaxed);
                let held = hold_one(address(number % addresses), target, end, drip);
                let answered = held.await.unwrap_or(false);
                let count = if answered { &counts.answered } else { &counts.cut_off };
                count.fetch_add(1, Ordering::Relaxed);
                // A second between two attempts: ten thousand of these are a flood all the same.
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    sleep_until(end).await;
    tasks.shutdown().await;
}

/// True when the relay kept the connection until the end.
async fn hold_one(
    source: Ipv4Addr,
    target: SocketAddr,
    end: Instant,
    drip: Option<Duration>,
) -> std::io::Result<bool> {
    // Made once: what the crowd computes is taken from those who mean well, on this machine.
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| first_bytes(1));
    let mut stream = connect(source, target).await?;
    let mut said = 3;
    stream.write_all(&bytes[..said]).await?;
    while Instant::now() < end {
        let pause = drip.unwrap_or(Duration::from_secs(60));
        let until = (Instant::now() + pause).min(end);
        match timeout(until - Instant::now(), stream.read_u8()).await {
            Ok(_) => return Ok(false),
            Err(_) if drip.is_some() && said < bytes.len() => {
                stream.write_all(&bytes[said..=said]).await?;
                said += 1;
            }
            Err(_) => {}
        }
    }
    Ok(true)
}
