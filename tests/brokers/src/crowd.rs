//! Ten thousand clients: what each costs while it says nothing, and what it costs when all of them
//! come back at once, because the relay was restarted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use sremp_common::connection::Local;
use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::label::VERSION_HEADER;
use sremp_common::noise::{Called, Calling};
use sremp_common::wire::{Message, RelayCapabilities, RelayRegister};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::figure::{Report, Target};
use crate::machine::{cpu, resident};
use crate::ours::Relay;
use crate::relay_client::{Client, person};
use crate::{Effort, progress};

/// Dials under way at a time, where nothing is measured.
const DIALS: usize = 64;
/// Handshakes by which the floor is measured.
const HANDSHAKES: u32 = 2_000;
/// Time in which a process comes to rest.
const REST: Duration = Duration::from_millis(1500);
/// After so long somebody is not served.
const PATIENCE: Duration = Duration::from_secs(60);
/// First of the addresses from which clients come: no port and no bound of a network is in the way.
const SOURCES: u32 = 0x7F10_0001;

/// Where a client's relay is.
#[derive(Clone, Copy)]
struct Place {
    address: SocketAddr,
    key: IdentityKey,
}

/// Measures both; the bytes of an idle connection, in rounds.
pub fn measure(report: &mut Report, effort: Effort) -> Vec<f64> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let count = effort.connections;
    let people: Vec<Arc<Local>> = (1..=count as u64).map(person).collect();
    let (mut idle, mut wall, mut used, mut floors) = (vec![], vec![], vec![], vec![]);
    for round in 0..effort.rounds {
        progress(&format!("{count} connections, round {}", round + 1));
        let floor = floor().mul_f64(count as f64);
        floors.push(floor.as_secs_f64());
        let (bytes, storm) = runtime.block_on(one_round(&people));
        idle.push(bytes);
        wall.push(storm.wall.as_secs_f64() / floor.as_secs_f64());
        used.push(storm.cpu.as_secs_f64() / floor.as_secs_f64());
    }
    let kib: Vec<f64> = idle.iter().map(|bytes| bytes / 1024.0).collect();
    let name = format!("relay: memory of an idle connection ({count})");
    report.add(&name, "KiB", &kib, Some(Target::AtMost(8.0)));
    report.add(&format!("{count} bare handshakes, the responder's CPU"), "s", &floors, None);
    let name = format!("{count} clients after a restart, until all are served, over that");
    report.add(&name, "times", &wall, Some(Target::AtMost(1.5)));
    report.add("  the relay's CPU in that time, over that", "times", &used, None);
    idle
}

struct Storm {
    wall: Duration,
    cpu: Duration,
}

async fn one_round(people: &[Arc<Local>]) -> (f64, Storm) {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), "127.0.0.1:0");
    let target = Place { address: relay.address, key: relay.key };
    sleep(REST / 3).await;
    let before = resident(relay.process());
    let clients = dial_all(people, target).await;
    sleep(REST).await;
    let bytes = (resident(relay.process()) - before) / people.len() as f64;
    // They get their mailboxes, and the relay ends under them.
    let registered = register_all(clients).await;
    drop(relay);
    drop(registered);
    let relay = Relay::start(directory.path(), &target.address.to_string());
    (bytes, storm(people, target, relay.process()).await)
}

/// One client for each of the people, one after the other as far as it matters.
async fn dial_all(people: &[Arc<Local>], target: Place) -> Vec<Client> {
    let places = Arc::new(Semaphore::new(DIALS));
    let mut dials = JoinSet::new();
    for (number, local) in people.iter().enumerate() {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let local = Arc::clone(local);
        dials.spawn(async move {
            let client = dial(number, local, target).await.unwrap();
            drop(place);
            client
        });
    }
    dials.join_all().await
}

async fn register_all(clients: Vec<Client>) -> Vec<Client> {
    let mut asking = JoinSet::new();
    for mut client in clients {
        asking.spawn(async move {
            register(&mut client).await.unwrap();
            client
        });
    }
    asking.join_all().await
}

/// All of them at once, until each has its mailbox and knows what is in it.
async fn storm(people: &[Arc<Local>], target: Place, process: u32) -> Storm {
    let used = cpu(process);
    let began = Instant::now();
    let mut coming = JoinSet::new();
    for (number, local) in people.iter().enumerate() {
        let local = Arc::clone(local);
        coming.spawn(async move {
            loop {
                match timeout(PATIENCE, come_back(number, Arc::clone(&local), target)).await {
                    Ok(Ok(client)) => return client,
                    // Turned away, as in a crowd: again, after a pause of one's own.
                    Ok(Err(_)) => sleep(Duration::from_millis(50 + number as u64 % 100)).await,
                    Err(_) => panic!("client {number} is not served"),
                }
            }
        });
    }
    let clients = coming.join_all().await;
    let storm = Storm { wall: began.elapsed(), cpu: cpu(process).saturating_sub(used) };
    assert_eq!(clients.len(), people.len());
    storm
}

async fn come_back(number: usize, local: Arc<Local>, target: Place) -> std::io::Result<Client> {
    let mut client = dial(number, local, target).await?;
    register(&mut client).await?;
    client.retrieve(1 << 20).await?;
    client.batch().await?;
    Ok(client)
}

async fn dial(number: usize, local: Arc<Local>, target: Place) -> std::io::Result<Client> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::from(SOURCES + u32::try_from(number).unwrap()), 0).into())?;
    let stream = socket.connect(target.address).await?;
    Client::over(stream, target.key, local, false, number as u64).await
}

async fn register(client: &mut Client) -> std::io::Result<()> {
    let capabilities =
        RelayCapabilities { max_message_size: 1 << 22, max_storage_duration: 1 << 22 };
    let register = RelayRegister { capabilities, invite: None };
    match client.ask(&Message::RelayRegister(register)).await? {
        Message::RelayRegistered(_) => Ok(()),
        other => Err(std::io::Error::other(format!("{other:?}"))),
    }
}

/// What one bare handshake costs the responder: its part alone, in this thread's own time.
fn floor() -> Duration {
    let (relay, owner) = (person(1), person(2));
    let mut entropy = Entropy::from_number(3);
    let mut spent = Duration::ZERO;
    for _ in 0..HANDSHAKES {
        let expect = Some(relay.identity.key());
        let (calling, first) =
            Calling::start(Arc::clone(&owner), expect, false, &mut entropy).unwrap();
        let began = thread_time();
        let called = Called::start(Arc::clone(&relay), &VERSION_HEADER, &mut entropy).unwrap();
        let (answered, second) = called.answer(&first).unwrap();
        spent += thread_time() - began;
        let (_, third) = calling.finish(&VERSION_HEADER, &second).unwrap();
        let began = thread_time();
        answered.finish(&third).unwrap();
        spent += thread_time() - began;
    }
    spent / HANDSHAKES
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}
