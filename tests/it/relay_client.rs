//! A small client of a relay, for tests and the load generator: one connection, driven by hand.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use sremp_common::connection::{Closed, Connection, Event, Local};
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, Token};
use sremp_common::identity::{Flags, IdentityData};
use sremp_common::io::Clock;
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::time::Timestamp;
use sremp_common::wire::{
    Ack, Admission, AdmissionClass, AdmissionEntry, Bin, List, Message, MessageBatch, Recipient,
    RelayCapabilities, RelayRegister, RequestId, RetrieveMessages, SetAdmission, StoreMessage,
    StoreResult,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Somebody, made from a number.
pub(crate) fn person(number: u64) -> Arc<Local> {
    let mut entropy = Entropy::from_number(number);
    let identity_secret = IdentitySecret::generate(&mut entropy);
    let noise_secret = NoiseSecret::generate(&mut entropy);
    let data = IdentityData {
        username: Username::new(&format!("person {number}")).unwrap(),
        identity_key: identity_secret.public(),
        noise_key: noise_secret.public(),
        flags: Flags::default(),
        extensions: None,
        version: 1,
        created: Timestamp::from_millis(1),
    };
    let identity = data.sign(&identity_secret).unwrap();
    Arc::new(Local { identity, identity_secret, noise_secret })
}

/// The token of somebody's contacts.
pub(crate) fn token_of(number: u64) -> Token {
    Token::new([u8::try_from(number % 251).unwrap(); 16])
}

/// One established connection.
pub(crate) struct Client {
    stream: TcpStream,
    connection: Connection,
    clock: Clock,
    /// What came while something else was waited for.
    events: VecDeque<Event>,
    buffer: Vec<u8>,
}

impl Client {
    /// Dials `relay` at `address` and waits until the session stands.
    pub(crate) async fn dial(
        address: SocketAddr,
        relay: IdentityKey,
        local: Arc<Local>,
        anonymous: bool,
        seed: u64,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        Self::over(stream, relay, local, anonymous, seed).await
    }

    /// As [`Self::dial`], over a stream that is there.
    pub(crate) async fn over(
        stream: TcpStream,
        relay: IdentityKey,
        local: Arc<Local>,
        anonymous: bool,
        seed: u64,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let clock = Clock::start();
        let entropy = Entropy::from_number(seed);
        let mut connection = Connection::dial(local, Some(relay), anonymous, entropy, clock.now());
        connection.set_peer_trusted(true);
        let events = VecDeque::new();
        let mut client = Self { stream, connection, clock, events, buffer: vec![0; 64 * 1024] };
        let event = client.event().await?;
        if matches!(event, Event::Established(_)) { Ok(client) } else { Err(unexpected(&event)) }
    }

    /// The next event. An error when the connection is over.
    pub(crate) async fn event(&mut self) -> io::Result<Event> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        loop {
            self.flush().await?;
            if let Some(event) = self.connection.poll_event() {
                let is_cut_off = matches!(event, Event::Closed(Closed::Unclean));
                return if is_cut_off { Err(unexpected(&event)) } else { Ok(event) };
            }
            let count = self.stream.read(&mut self.buffer).await?;
            if count == 0 {
                self.connection.handle_eof(self.clock.now());
            } else {
                self.connection.handle_bytes(&self.buffer[..count], self.clock.now());
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        while let Some(bytes) = self.connection.poll_transmit() {
            self.stream.write_all(&bytes).await?;
        }
        Ok(())
    }

    /// Sends a request without waiting for its answer.
    pub(crate) async fn send(&mut self, message: &Message) -> io::Result<RequestId> {
        let id = self.connection.request(message).map_err(io::Error::other)?;
        self.flush().await?;
        Ok(id)
    }

    /// Asks, and waits for the answer. What comes in between is kept.
    pub(crate) async fn ask(&mut self, message: &Message) -> io::Result<Message> {
        let asked = self.send(message).await?;
        let mut others = VecDeque::new();
        loop {
            let event = self.event().await?;
            if let Event::Closed(_) = event {
                return Err(unexpected(&event));
            }
            if !matches!(&event, Event::Response { id, .. } if *id == asked) {
                others.push_back(event);
                continue;
            }
            self.events = others;
            let Event::Response { message, .. } = event else { return Err(unexpected(&event)) };
            return Ok(message);
        }
    }

    /// Opens the mailbox of `owner`, admits the token of its number, and starts reading.
    pub(crate) async fn open_mailbox(&mut self, number: u64, window: u32) -> io::Result<()> {
        let capabilities =
            RelayCapabilities { max_message_size: 1 << 22, max_storage_duration: 1 << 22 };
        let registered =
            self.ask(&Message::RelayRegister(RelayRegister { capabilities, invite: None })).await?;
        assert!(matches!(registered, Message::RelayRegistered(_)), "{registered:?}");
        let token_hash = token_of(number).hash();
        let entry = AdmissionEntry { token_hash, class: AdmissionClass::Contact, daily_quota: 0 };
        let entries = List::new(vec![entry]).unwrap();
        let done = self.ask(&Message::SetAdmission(SetAdmission { entries })).await?;
        assert!(matches!(done, Message::Done(_)), "{done:?}");
        self.retrieve(window).await
    }

    /// Starts reading a mailbox that is open.
    pub(crate) async fn retrieve(&mut self, window: u32) -> io::Result<()> {
        self.send(&Message::RetrieveMessages(RetrieveMessages { window })).await.map(drop)
    }

    /// The next batch that is pushed.
    pub(crate) async fn batch(&mut self) -> io::Result<MessageBatch> {
        loop {
            let event = self.event().await?;
            if let Event::Closed(_) = event {
                return Err(unexpected(&event));
            }
            if let Event::Response { message: Message::MessageBatch(batch), .. } = event {
                return Ok(batch);
            }
        }
    }

    /// Messages that have come and were not asked for yet.
    pub(crate) fn messages_here(&self) -> usize {
        let count = |event: &Event| {
            if let Event::Response { message: Message::MessageBatch(batch), .. } = event {
                batch.messages.len()
            } else {
                0
            }
        };
        self.events.iter().map(count).sum()
    }

    /// Acknowledges a batch.
    pub(crate) async fn acknowledge(&mut self, batch: &MessageBatch) -> io::Result<()> {
        let sequences = batch.messages.iter().map(|message| message.sequence).collect();
        let sequences = List::new(sequences).unwrap();
        self.send(&Message::Ack(Ack { sequences })).await.map(drop)
    }

    /// Stores a blob for the person of a number, admitted by their token.
    pub(crate) async fn store(&mut self, number: u64, blob: Vec<u8>) -> io::Result<StoreResult> {
        let recipient = Recipient {
            identity_key: person(number).identity.key(),
            admission: Admission::Token(token_of(number)),
        };
        self.store_for(recipient, blob).await
    }

    /// Stores a blob for a recipient.
    pub(crate) async fn store_for(
        &mut self,
        recipient: Recipient,
        blob: Vec<u8>,
    ) -> io::Result<StoreResult> {
        let recipients = List::new(vec![recipient]).unwrap();
        let message = StoreMessage { blob: Bin::new(blob).unwrap(), recipients };
        let answer = self.ask(&Message::StoreMessage(message)).await?;
        let Message::StoreResponse(response) = answer else { return Err(unexpected(&answer)) };
        Ok(response.results[0])
    }
}

/// Something else than what had to come, or the end.
fn unexpected(what: &impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{what:?}"))
}
