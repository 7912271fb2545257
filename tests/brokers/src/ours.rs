//! Our relay: the program as it is shipped, with durable commits, beside this one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sremp_common::id::IdentityKey;
use sremp_common::text::decode_relay_link;
use sremp_common::wire::{Admission, Message, Recipient, RelayCapabilities, RelayRegister};

use crate::load::{Reader, Sender, System};
use crate::machine::text;
use crate::relay_client::{Client, person, token_of};

/// The quotas would stop a benchmark: all clients have one address, and each fills one mailbox.
const LIMITS: &str = "[server]\nmax_connections = 30000\nmax_connections_per_network = 30000\n\
    [network]\narrivals_per_minute = 1000000\nmax_half_open = 30000\n\
    [rates]\nnew_mailboxes_per_hour = 0\nstores_per_minute = 0\nchanges_per_minute = 0\n\
    [mailboxes]\nmax_messages = 10000000\nmax_bytes = 10000000000\nsender_share = 100\n\
    [metrics]\nlisten = \"off\"\n";

/// A relay that runs. Killed when dropped.
pub struct Relay {
    child: Child,
    pub address: SocketAddr,
    pub key: IdentityKey,
}

impl Relay {
    /// Starts it with data in `directory`, at `listen`.
    pub fn start(directory: &Path, listen: &str) -> Self {
        let config = directory.join("relay.toml");
        fs::write(&config, LIMITS).unwrap();
        let data = directory.join("data");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", text(&beside("sremp-relay")), "--json", "run"])
            .args(["--listen", listen, "--data", text(&data), "--config", text(&config)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("a ready line");
        let address = ready["listening"].as_str().unwrap().parse().unwrap();
        let key = decode_relay_link(ready["link"].as_str().unwrap()).unwrap().identity_key;
        Self { child, address, key }
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn beside(program: &str) -> PathBuf {
    std::env::current_exe().unwrap().with_file_name(program)
}

/// Its clients.
#[derive(Clone)]
pub struct Ours {
    address: SocketAddr,
    key: IdentityKey,
    /// People of the runs before.
    used: Arc<AtomicU64>,
}

impl Ours {
    pub fn new(relay: &Relay) -> Self {
        Self { address: relay.address, key: relay.key, used: Arc::new(AtomicU64::new(1)) }
    }

    fn number(&self, pair: usize) -> u64 {
        self.used.load(Ordering::Relaxed) + u64::try_from(pair).unwrap()
    }

    async fn owner(&self, pair: usize) -> Client {
        let number = self.number(pair);
        Client::dial(self.address, self.key, person(number), false, number).await.unwrap()
    }
}

impl System for Ours {
    type Sender = Storing;
    type Reader = Reading;

    async fn prepare(&self, pairs: usize) {
        self.used.fetch_add(1000, Ordering::Relaxed);
        for pair in 0..pairs {
            let mut owner = self.owner(pair).await;
            owner.open_mailbox(self.number(pair), 1 << 20).await.unwrap();
            owner.batch().await.unwrap();
        }
    }

    async fn sender(&self, pair: usize) -> Storing {
        let number = self.number(pair);
        let seed = number + 1_000_000;
        let client = Client::dial(self.address, self.key, person(0), true, seed).await.unwrap();
        let identity_key = person(number).identity.key();
        let admission = Admission::Token(token_of(number));
        Storing { client, recipient: Recipient { identity_key, admission } }
    }

    async fn reader(&self, pair: usize) -> Reading {
        let mut owner = self.owner(pair).await;
        owner.retrieve(1 << 20).await.unwrap();
        Reading(owner)
    }

    async fn left(&self, pairs: usize) -> u64 {
        let mut left = 0;
        for pair in 0..pairs {
            let mut owner = self.owner(pair).await;
            let capabilities =
                RelayCapabilities { max_message_size: 1 << 22, max_storage_duration: 1 << 22 };
            let register = RelayRegister { capabilities, invite: None };
            let answer = owner.ask(&Message::RelayRegister(register)).await.unwrap();
            let Message::RelayRegistered(registered) = answer else { panic!("{answer:?}") };
            left += registered.messages;
        }
        left
    }
}

pub struct Storing {
    client: Client,
    recipient: Recipient,
}

impl Sender for Storing {
    async fn send(&mut self, message: Vec<u8>) {
        let result = self.client.store_for(self.recipient, message).await.unwrap();
        assert!(result.refused.is_none(), "{result:?}");
    }
}

pub struct Reading(Client);

impl Reader for Reading {
    async fn read(&mut self, mut got: impl FnMut(&[u8]) + Send) -> u64 {
        let batch = self.0.batch().await.unwrap();
        if batch.messages.is_empty() {
            return 0;
        }
        batch.messages.iter().for_each(|message| got(&message.blob));
        self.0.acknowledge(&batch).await.unwrap();
        batch.messages.len() as u64
    }
}
