//! Two drivers over a stream in memory, under tokio's paused clock: no test waits in real time.

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::connection::{Closed, ConnectionError};
use crate::entropy::Entropy;
use crate::noise::testing::person;
use crate::time::Timestamp;
use crate::wire::{Ack, Bin, Done, List, Ping, Pong, StoreMessage};

struct End {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<Stopped>,
}

impl End {
    async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }
}

fn clock() -> impl Fn() -> Now + Send + 'static {
    let start = tokio::time::Instant::now();
    move || {
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap();
        Now { instant: Instant::from_millis(ms), wall: Timestamp::from_millis(ms) }
    }
}

fn spawn(stream: DuplexStream, connection: Connection, limits: DriveLimits) -> End {
    let (commands, command_queue) = mpsc::channel(16);
    let (event_queue, events) = mpsc::channel(1);
    let now = clock();
    let connection = Box::new(connection);
    let task = tokio::spawn(async move {
        drive(stream, connection, command_queue, &event_queue, |event| event, now, limits).await
    });
    End { commands, events, task }
}

fn dialled() -> Connection {
    let expect = Some(person(2).identity.key());
    Connection::dial(person(1).local(), expect, false, Entropy::from_number(1), Now::default())
}

fn accepted() -> Connection {
    Connection::accept(person(2).local(), Entropy::from_number(2), Now::default())
}

fn pair(buffer: usize, limits: DriveLimits) -> (End, End) {
    let (near, far) = duplex(buffer);
    (spawn(near, dialled(), limits), spawn(far, accepted(), limits))
}

fn ask() -> Command {
    Command::Request { message: Box::new(Message::RelayInfoRequest(Ping())), asked: None }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_and_both_sides_see_the_farewell() {
    let (mut near, mut far) = pair(4096, DriveLimits::default());
    assert!(matches!(near.event().await, Event::Established(_)));
    assert!(matches!(far.event().await, Event::Established(_)));

    let (asked, number) = oneshot::channel();
    let message = Box::new(Message::RelayInfoRequest(Ping()));
    near.commands.send(Command::Request { message, asked: Some(asked) }).await.unwrap();
    let number = number.await.unwrap().unwrap();
    let Event::Request { id, message: Message::RelayInfoRequest(_) } = far.event().await else {
        panic!()
    };
    assert_eq!(id, number);
    let message = Box::new(Message::Done(Done()));
    far.commands.send(Command::Respond { id, message }).await.unwrap();
    let Event::Response { id, message: Message::Done(_) } = near.event().await else { panic!() };
    assert_eq!(id, number);

    near.commands.send(Command::Close(ErrorCode::Duplicate)).await.unwrap();
    for end in [&mut near, &mut far] {
        let closed = end.event().await;
        assert!(matches!(closed, Event::Closed(Closed::Clean(ErrorCode::Duplicate))));
    }
    assert!(matches!(near.task.await.unwrap(), Stopped::Closed));
    assert!(matches!(far.task.await.unwrap(), Stopped::Closed));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_commands_ends_the_connection_in_order() {
    let (mut near, mut far) = pair(1 << 16, DriveLimits::default());
    assert!(matches!(near.event().await, Event::Established(_)));
    assert!(matches!(far.event().await, Event::Established(_)));
    drop(near.commands);
    assert!(matches!(far.event().await, Event::Closed(Closed::Clean(ErrorCode::Goodbye))));
}

#[tokio::test(start_paused = true)]
async fn n15_a_cut_stream_is_unclean() {
    let (near, mut far) = pair(1 << 16, DriveLimits::default());
    assert!(matches!(far.event().await, Event::Established(_)));
    near.task.abort();
    assert!(matches!(far.event().await, Event::Closed(Closed::Unclean)));
}

#[tokio::test(start_paused = true)]
async fn n16_whoever_says_nothing_is_cut_off() {
    let (silent, listening) = duplex(1 << 16);
    let mut end = spawn(listening, accepted(), DriveLimits::default());
    let began = tokio::time::Instant::now();
    let Event::Closed(Closed::Failed(ConnectionError::HandshakeTimedOut)) = end.event().await
    else {
        panic!()
    };
    assert_eq!(began.elapsed().as_secs(), 10);
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up_in_time() {
    let (near, mut far) = duplex(64);
    let mut end = spawn(near, dialled(), DriveLimits::default());
    // The handshake is answered by hand, and then nothing more is read.
    let mut other = accepted();
    let mut bytes = [0; 64];
    while !other.is_established() {
        let count = far.read(&mut bytes).await.unwrap();
        other.handle_bytes(&bytes[..count], Now::default());
        while let Some(out) = other.poll_transmit() {
            far.write_all(&out).await.unwrap();
        }
    }
    assert!(matches!(end.event().await, Event::Established(_)));
    for _ in 0..8 {
        end.commands.send(ask()).await.unwrap();
    }
    assert!(matches!(end.event().await, Event::Closed(Closed::Unclean)));
    assert!(matches!(end.task.await.unwrap(), Stopped::SlowReader));
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_for_a_peer_is_bounded() {
    let limits = DriveLimits { max_queued: 1 << 20, ..DriveLimits::default() };
    let (mut near, mut far) = pair(64, limits);
    assert!(matches!(near.event().await, Event::Established(_)));
    assert!(matches!(far.event().await, Event::Established(_)));
    let store =
        StoreMessage { blob: Bin::new(vec![7; 1 << 20]).unwrap(), recipients: List::default() };
    let message = Box::new(Message::StoreMessage(store));
    near.commands.send(Command::Request { message, asked: None }).await.unwrap();
    assert!(matches!(near.event().await, Event::Closed(Closed::Unclean)));
    assert!(matches!(near.task.await.unwrap(), Stopped::SlowReader));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_the_owner_is_busy() {
    const LIMIT: usize = 300 * 1024;
    let (mut near, far) = duplex(4096);
    let end = spawn(far, accepted(), DriveLimits::default());
    let mut other = dialled();
    let mut written = 0;
    let mut bytes = [0; 4096];
    // Nobody takes the events. Whatever the peer sends stays with the peer.
    while written < LIMIT {
        let ack = Message::Ack(Ack { sequences: List::default() });
        while other.is_established() && other.queued_bytes() < 10_000 {
            other.request(&ack).unwrap();
        }
        while let Some(out) = other.poll_transmit() {
            if timeout(Duration::from_secs(5), near.write_all(&out)).await.is_err() {
                assert!(other.is_established() && written < LIMIT / 2);
                drop(end);
                return;
            }
            written += out.len();
        }
        if !other.is_established() {
            let count = near.read(&mut bytes).await.unwrap();
            other.handle_bytes(&bytes[..count], Now::default());
            assert!(matches!(other.poll_event(), None | Some(Event::Established(_))));
        }
    }
    panic!("everything was read");
}

#[tokio::test(start_paused = true)]
async fn a_busy_owner_loses_nothing() {
    let (mut near, mut far) = pair(1 << 16, DriveLimits::default());
    assert!(matches!(near.event().await, Event::Established(_)));
    for _ in 0..200 {
        near.commands.send(ask()).await.unwrap();
    }
    assert!(matches!(far.event().await, Event::Established(_)));
    // The queue of events has one place.
    for _ in 0..200 {
        let Event::Request { id, .. } = far.event().await else { panic!() };
        let message = Box::new(Message::Pong(Pong()));
        far.commands.send(Command::Respond { id, message }).await.unwrap();
        assert!(matches!(near.event().await, Event::Response { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_gone_ends_the_driver() {
    let (near, mut far) = pair(1 << 16, DriveLimits::default());
    drop(near.events);
    assert!(matches!(near.task.await.unwrap(), Stopped::Abandoned));
    assert!(matches!(far.event().await, Event::Established(_) | Event::Closed(_)));
}

#[test]
fn an_idle_driver_is_small() {
    let (near, _far) = duplex(64);
    let (_commands, queue) = mpsc::channel(1);
    let (events, _events) = mpsc::channel::<Event>(1);
    let now = Now::default;
    let limits = DriveLimits::default();
    let future = drive(near, Box::new(dialled()), queue, &events, |event| event, now, limits);
    assert!(size_of_val(&future) < 1024, "{}", size_of_val(&future));
}
