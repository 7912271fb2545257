//! A message to a contact whose node can be reached: from the command to the event that it was
//! delivered, beside a bare TCP echo and the parts that it is made of.
//!
//! Both nodes are whole: data file, core thread, network tasks, TCP on the loopback. Only the local
//! socket and its HTTP are left out.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sremp_common::name::Username;
use sremp_node::api::{Command, Event, EventBody, InitOptions, MessageState, Reply};
use sremp_node::config::{Home, NodeConfig};
use sremp_node::io::handle::CoreHandle;
use sremp_node::io::running::Running;
use sremp_node::io::setup;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::broadcast;

use super::figure::{Report, Target, micros, millis, percentile};
use super::{Effort, parts, progress};

/// Bytes of a message's text.
pub const TEXT: usize = 200;
/// Patience with a message: something is wrong then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node in this process, with a runtime of its own, as its process would have.
pub struct TestNode {
    id: String,
    runtime: Runtime,
    running: Option<Running>,
    _directory: TempDir,
}

impl TestNode {
    pub fn start(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::new(directory.path().join("home"));
        let options = InitOptions {
            name: Username::new(name).unwrap(),
            listen: None,
            advertise: Vec::new(),
            rendezvous: Vec::new(),
            relays: Vec::new(),
        };
        let id = setup::init(&home, &options).unwrap().id;
        let (store, own) = setup::open(&home).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let config = NodeConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            allow_private_addresses: true,
            ..NodeConfig::default()
        };
        let running = runtime.block_on(Running::start(store, own, &config)).unwrap();
        Self { id, runtime, running: Some(running), _directory: directory }
    }

    pub fn core(&self) -> &CoreHandle {
        self.running.as_ref().unwrap().core()
    }

    fn contact(&self) -> String {
        format!("{}@{}", self.id, self.running.as_ref().unwrap().address())
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            self.runtime.block_on(running.join()).unwrap();
        }
    }
}

/// Two nodes that know each other as `peer`, whose conversation is settled.
pub async fn introduce(a: &TestNode, b: &TestNode) {
    for (node, other) in [(a, b), (b, a)] {
        let what = other.contact();
        let command = Command::ContactAdd { what, alias: Some("peer".to_owned()) };
        node.core().command(command).await.unwrap();
    }
    for node in [a, b, a] {
        let mut events = node.core().events().unwrap();
        deliver(node.core(), &mut events).await;
    }
}

pub fn send_command() -> Command {
    Command::Send { to: "peer".to_owned(), text: "x".repeat(TEXT), reply_to: None }
}

/// The message that an event says was delivered.
pub fn delivered(event: &Event) -> Option<&str> {
    if let EventBody::State { message_id, state: MessageState::Delivered, .. } = &event.body {
        Some(message_id)
    } else {
        None
    }
}

/// Sends one message and waits until it is delivered.
async fn deliver(core: &CoreHandle, events: &mut broadcast::Receiver<Arc<Event>>) {
    let Reply::Sent(sent) = core.command(send_command()).await.unwrap() else { panic!() };
    let wait = async {
        while delivered(&events.recv().await.unwrap()) != Some(sent.message_id.as_str()) {}
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("a message was not delivered");
}

pub fn measure(report: &mut Report, effort: Effort) {
    progress("direct round trips");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = (TestNode::start("ann"), TestNode::start("bob"));
    let (mut p50, mut p99, mut echo) = (Vec::new(), Vec::new(), Vec::new());
    runtime.block_on(introduce(&a, &b));
    let mut parts = parts::Parts::prepare();
    let size = parts.blob_bytes();
    for round in 0..=effort.rounds {
        let mut times = runtime.block_on(round_of_trips(a.core(), effort.trips));
        let echoed = echo_p50(size, effort.trips);
        parts.round();
        // The first one warms up.
        if round > 0 {
            p50.push(millis(percentile(&mut times, 50)));
            p99.push(millis(percentile(&mut times, 99)));
            echo.push(micros(echoed));
        }
    }
    drop((a, b));
    let target = Some(Target::AtMost(5.0));
    report.add("direct: send to delivered, p50", "ms", &p50, target);
    report.add("direct: send to delivered, p99", "ms", &p99, None);
    report.add(&format!("  bare TCP echo of {size} bytes, p50"), "us", &echo, None);
    let sum = parts.report(report, &echo);
    let times: Vec<f64> = p50.iter().zip(&sum).map(|(whole, parts)| whole * 1e3 / parts).collect();
    report.add("  whole / sum of parts", "times", &times, None);
}

async fn round_of_trips(core: &CoreHandle, trips: usize) -> Vec<Duration> {
    let mut events = core.events().unwrap();
    let mut times = Vec::with_capacity(trips);
    for _ in 0..trips {
        let began = Instant::now();
        deliver(core, &mut events).await;
        times.push(began.elapsed());
    }
    times
}

/// Round trips of so many bytes between two threads, with nothing around them.
fn echo_p50(bytes: usize, trips: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut buffer = vec![0; bytes];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer).unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![7; bytes];
    let mut times = Vec::with_capacity(trips);
    for _ in 0..trips {
        let began = Instant::now();
        stream.write_all(&buffer).unwrap();
        stream.read_exact(&mut buffer).unwrap();
        times.push(began.elapsed());
    }
    drop(stream);
    echo.join().unwrap();
    percentile(&mut times, 50)
}
