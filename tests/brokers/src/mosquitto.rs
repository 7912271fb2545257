//! Mosquitto: QoS 1, persistent sessions, persistence on. It writes its file every half hour and
//! at its end, so it acknowledges what a power failure takes away.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet, QoS};
use tokio::time::timeout;

use crate::load::{Reader, Sender, System};
use crate::machine::{Server, directory, free_address, installed, text};

/// Nobody says anything more after this.
const SILENCE: Duration = Duration::from_millis(100);

/// The configuration: what is not said here is as Debian ships it. No bound on what is queued,
/// because it would drop messages beyond that; several under way to a reader, as with the others.
fn config(address: SocketAddr, data: &Path) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
         max_queued_messages 0\nmax_inflight_messages 100\nset_tcp_nodelay true\n\
         log_dest none\nuser root\n",
        address.port(),
        address.ip(),
        data.display()
    )
}

pub fn start(parent: &Path) -> (Server, Mosquitto) {
    let data = directory(parent, "mosquitto", None);
    let address = free_address();
    let file = parent.join("mosquitto.conf");
    fs::write(&file, config(address, &data)).unwrap();
    let mut server = Server::start(&installed("mosquitto"), &["-c", text(&file)], None, "TERM");
    server.wait_for(address);
    (server, Mosquitto { address, run: Arc::default() })
}

#[derive(Clone)]
pub struct Mosquitto {
    address: SocketAddr,
    run: Arc<AtomicUsize>,
}

impl Mosquitto {
    fn name(&self, what: &str, pair: usize) -> String {
        format!("{what}-{}-{pair}", self.run.load(Ordering::Relaxed))
    }

    fn topic(&self, pair: usize) -> String {
        format!("mailbox/{}/{pair}", self.run.load(Ordering::Relaxed))
    }

    async fn connect(&self, name: String) -> Session {
        let mut options =
            MqttOptions::new(name, self.address.ip().to_string(), self.address.port());
        options.set_keep_alive(Duration::from_secs(60)).set_clean_session(false).set_inflight(100);
        let (client, mut events) = AsyncClient::new(options, 256);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let mut session = Session { client, events };
        session.until(|event| matches!(event, Event::Incoming(Packet::ConnAck(_)))).await;
        session
    }

    async fn owner(&self, pair: usize) -> Session {
        self.connect(self.name("reader", pair)).await
    }
}

impl System for Mosquitto {
    type Sender = Publishing;
    type Reader = Session;

    async fn prepare(&self, pairs: usize) {
        self.run.fetch_add(1, Ordering::Relaxed);
        for pair in 0..pairs {
            let mut owner = self.owner(pair).await;
            owner.client.subscribe(self.topic(pair), QoS::AtLeastOnce).await.unwrap();
            owner.until(|event| matches!(event, Event::Incoming(Packet::SubAck(_)))).await;
        }
    }

    async fn sender(&self, pair: usize) -> Publishing {
        let session = self.connect(self.name("sender", pair)).await;
        Publishing { session, topic: self.topic(pair) }
    }

    async fn reader(&self, pair: usize) -> Session {
        self.owner(pair).await
    }

    async fn left(&self, pairs: usize) -> u64 {
        let mut left = 0;
        for pair in 0..pairs {
            let mut owner = self.owner(pair).await;
            let is_message = |event: &Event| matches!(event, Event::Incoming(Packet::Publish(_)));
            // All of them at once would be quicker; one in eight is looked at for longer.
            let patience = if pair % 8 == 0 { SILENCE } else { SILENCE / 10 };
            while timeout(patience, owner.until(is_message)).await.is_ok() {
                left += 1;
            }
        }
        left
    }
}

pub struct Session {
    client: AsyncClient,
    events: EventLoop,
}

impl Session {
    async fn until(&mut self, is_wanted: impl Fn(&Event) -> bool + Send) {
        while !is_wanted(&self.events.poll().await.unwrap()) {}
    }
}

pub struct Publishing {
    session: Session,
    topic: String,
}

impl Sender for Publishing {
    async fn send(&mut self, message: Vec<u8>) {
        let Session { client, .. } = &self.session;
        client.try_publish(&self.topic, QoS::AtLeastOnce, false, message).unwrap();
        self.session.until(|event| matches!(event, Event::Incoming(Packet::PubAck(_)))).await;
    }
}

impl Reader for Session {
    async fn read(&mut self, mut got: impl FnMut(&[u8]) + Send) -> u64 {
        loop {
            match self.events.poll().await.unwrap() {
                Event::Incoming(Packet::Publish(publish)) => got(&publish.payload),
                Event::Outgoing(Outgoing::PubAck(_)) => return 1,
                _ => {}
            }
        }
    }
}
