//! NATS JetStream: one stream in a file, a durable consumer for each mailbox, explicit
//! acknowledgements, and its default of syncing every two minutes: it, too, acknowledges before
//! anything is on disk.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt as _;
use tokio::time::sleep;

use crate::load::{Reader, Sender, System};
use crate::machine::{Server, directory, free_address, installed, text};

const STREAM: &str = "MAILBOXES";
/// Messages asked for at a time.
const BATCH: usize = 256;
/// Messages that may be under way to one reader.
const UNDER_WAY: i64 = 20_000;
/// Acknowledgements are not answered, and many may wait in the client; they are not in the measured
/// time.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLES: u32 = 200;

pub fn start(parent: &Path) -> (Server, JetStream) {
    let data = directory(parent, "nats", None);
    let address = free_address();
    let file = parent.join("nats.conf");
    let config = format!(
        "listen: \"{address}\"\nmax_connections: 65536\njetstream {{ store_dir: \"{}\" }}\n",
        data.display()
    );
    fs::write(&file, config).unwrap();
    let mut server = Server::start(&installed("nats-server"), &["-c", text(&file)], None, "TERM");
    server.wait_for(address);
    (server, JetStream { address })
}

#[derive(Clone)]
pub struct JetStream {
    address: SocketAddr,
}

impl JetStream {
    async fn connect(&self) -> Context {
        jetstream::new(async_nats::connect(self.address.to_string()).await.unwrap())
    }

    async fn stream(&self) -> Stream {
        self.connect().await.get_stream(STREAM).await.unwrap()
    }
}

fn name(pair: usize) -> String {
    format!("reader-{pair}")
}

fn subject(pair: usize) -> String {
    format!("mailbox.{pair}")
}

impl System for JetStream {
    type Sender = Publishing;
    type Reader = Pulling;

    async fn prepare(&self, pairs: usize) {
        let context = self.connect().await;
        // There is none before the first run.
        let _ = context.delete_stream(STREAM).await;
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec!["mailbox.*".to_owned()],
            storage: StorageType::File,
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        };
        let stream = context.create_stream(config).await.unwrap();
        for pair in 0..pairs {
            let config = pull::Config {
                durable_name: Some(name(pair)),
                filter_subject: subject(pair),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: UNDER_WAY,
                ..pull::Config::default()
            };
            stream.create_consumer(config).await.unwrap();
        }
    }

    async fn sender(&self, pair: usize) -> Publishing {
        Publishing { context: self.connect().await, subject: subject(pair) }
    }

    async fn reader(&self, pair: usize) -> Pulling {
        let consumer = self.stream().await.get_consumer::<pull::Config>(&name(pair)).await.unwrap();
        let messages = consumer.stream().max_messages_per_batch(BATCH).messages().await.unwrap();
        Pulling(messages)
    }

    async fn settle(&self) {
        for _ in 0..SETTLES {
            sleep(SETTLE).await;
            if self.left(0).await == 0 {
                return;
            }
        }
    }

    async fn left(&self, _pairs: usize) -> u64 {
        self.stream().await.cached_info().state.messages
    }
}

pub struct Publishing {
    context: Context,
    subject: String,
}

impl Sender for Publishing {
    async fn send(&mut self, message: Vec<u8>) {
        let publishing = self.context.publish(self.subject.clone(), message.into()).await;
        publishing.unwrap().await.unwrap();
    }
}

pub struct Pulling(pull::Stream);

impl Reader for Pulling {
    async fn read(&mut self, mut got: impl FnMut(&[u8]) + Send) -> u64 {
        let message = self.0.next().await.unwrap().unwrap();
        got(&message.payload);
        message.ack().await.unwrap();
        1
    }
}
