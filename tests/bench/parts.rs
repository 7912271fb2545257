//! What a direct message is made of, each part on its own: encryption and decryption of the message
//! and of its receipt, sealing and opening of what carries them, durable commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sremp_common::connection::{Connection, Event};
use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, IdentityKey, MessageId, Token};
use sremp_common::io::Clock;
use sremp_common::key::{IdentitySecret, SealSecret};
use sremp_common::time::Now;
use sremp_common::wire::{
    Admission, Bin, List, Message, Recipient, StoreMessage, StoreResponse, StoreResult,
};
use sremp_node::groups::{
    Change, GroupKind, Groups, LeafInfo, LeafSigner, Opened, ReceiptBody, ReceiptKind, Suite,
};
use sremp_node::io::workers::Threads;
use sremp_node::store::{Store, Table, Tx};
use tempfile::TempDir;

use super::direct::TEXT;
use super::figure::{Report, micros, percentile};
use super::relay::relay_client::person;

/// Repetitions in one round.
const TIMES: usize = 100;
/// Pause before each commit. A disk that is kept busy syncs faster than one that is asked now and
/// then, as it is by messages that come one by one.
const PAUSE: Duration = Duration::from_millis(1);
/// Durable commits on the way: the author's message, the recipient's copy with the receipt that is
/// made of it, the author's note of the receipt.
const COMMITS: f64 = 3.0;

/// One member: groups over a store in memory, whose transaction is never committed.
pub struct Member {
    pub key: IdentityKey,
    pub signer: LeafSigner,
    pub groups: Groups,
    pub tx: Tx,
    _store: Store,
}

impl Member {
    pub fn new(number: u64, now: Now) -> Self {
        let mut entropy = Entropy::from_number(number);
        let secret = IdentitySecret::generate(&mut entropy);
        let until = now.wall + Duration::from_secs(365 * 86_400);
        let signer = LeafSigner::generate(&secret, entropy.array(), now.wall, until, &mut entropy);
        let key = secret.public();
        let groups = Groups::new(signer.clone(), key, entropy.fork());
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        Self { key, signer, groups, tx, _store: store }
    }

    pub fn accept(&mut self) {
        self.tx.accept().unwrap();
        self.groups.accepted();
    }

    /// Everything in memory is lost; what is in the store stays. With threads, as a node has them, or
    /// without.
    pub fn forget(&mut self, with_threads: bool) {
        let entropy = Entropy::from_number(u64::from(self.key.as_bytes()[1]));
        self.groups = Groups::new(self.signer.clone(), self.key, entropy);
        if with_threads {
            self.groups.set_workers(Arc::new(Threads::of_machine()));
        }
    }
}

fn leaf_info(number: u64) -> LeafInfo {
    let mut entropy = Entropy::from_number(number);
    LeafInfo {
        relays: List::default(),
        seal_key: SealSecret::generate(&mut entropy).public(),
        token: Token::new(entropy.array()),
    }
}

/// The parts, ready to be measured again and again.
pub struct Parts {
    now: Now,
    ann: Member,
    bob: Member,
    group: GroupId,
    dialled: Connection,
    accepted: Connection,
    file: Store,
    commits: u64,
    _directory: TempDir,
    mls: Vec<f64>,
    receipt: Vec<f64>,
    noise: Vec<f64>,
    commit: Vec<f64>,
}

impl Parts {
    pub fn prepare() -> Self {
        let now = Clock::start().now();
        let (mut ann, mut bob) = (Member::new(1, now), Member::new(2, now));
        let group = ann
            .groups
            .create(&ann.tx, GroupKind::Direct, "", Suite::X25519, &leaf_info(1), now)
            .unwrap();
        let package = bob.groups.make_key_packages(&bob.tx, &leaf_info(2), false, now).unwrap();
        let package = ann.groups.check_key_package(&package, &bob.key, Suite::X25519, now).unwrap();
        let added = ann.groups.change(&ann.tx, &group, Change::Add(vec![package]), now).unwrap();
        bob.groups.join(&bob.tx, &added.welcome.unwrap(), now).unwrap();
        ann.accept();
        bob.accept();

        let directory = tempfile::tempdir().unwrap();
        let file = Store::open(&directory.path().join("parts.redb")).unwrap();
        let (dialled, accepted) = connected(now);
        Self {
            now,
            ann,
            bob,
            group,
            dialled,
            accepted,
            file,
            commits: 0,
            _directory: directory,
            mls: Vec::new(),
            receipt: Vec::new(),
            noise: Vec::new(),
            commit: Vec::new(),
        }
    }

    /// Bytes of a message's blob.
    pub fn blob_bytes(&mut self) -> usize {
        self.message().0.len()
    }

    /// Measures each part once; the first time only warms up.
    pub fn round(&mut self) {
        let mls = median(|| self.message().1);
        let receipt = median(|| self.receipt());
        let blob = self.message().0;
        let noise = median(|| self.carry(&blob));
        let commit = median(|| self.commit(&blob));
        self.mls.push(micros(mls));
        self.receipt.push(micros(receipt));
        self.noise.push(micros(noise));
        self.commit.push(micros(commit));
    }

    /// Encrypts a message and opens it.
    fn message(&mut self) -> (Vec<u8>, Duration) {
        let Self { ann, bob, group, now, .. } = self;
        // As much as a text and what stands around it.
        let content = [b'x'; TEXT + 60];
        let began = Instant::now();
        let sealed = ann.groups.encrypt(&ann.tx, group, &content, *now).unwrap();
        let opened = bob.groups.open(&bob.tx, &sealed.blob, *now).unwrap();
        let took = began.elapsed();
        assert!(matches!(opened, Opened::Message { .. }));
        ann.accept();
        bob.accept();
        (sealed.blob, took)
    }

    /// Makes a receipt and opens it.
    fn receipt(&mut self) -> Duration {
        let Self { ann, bob, group, now, .. } = self;
        let state = bob.groups.summary(&bob.tx, group).unwrap().state;
        let ids = List::new(vec![MessageId::new([7; 16])]).unwrap();
        let kind = ReceiptKind::Delivered;
        let body = ReceiptBody { group: *group, state, author: ann.key, ids, kind, time: now.wall };
        let began = Instant::now();
        let (blob, _) = bob.groups.receipt(&bob.tx, &body, *now).unwrap();
        let opened = ann.groups.open(&ann.tx, &blob, *now).unwrap();
        let took = began.elapsed();
        assert!(matches!(opened, Opened::Receipt { .. }));
        ann.accept();
        bob.accept();
        took
    }

    /// Carries a blob over a session, and the answer back.
    fn carry(&mut self, blob: &[u8]) -> Duration {
        let Self { dialled, accepted, now, .. } = self;
        let recipient = Recipient {
            identity_key: self.bob.key,
            admission: Admission::Token(Token::new([1; 16])),
        };
        let message = Message::StoreMessage(StoreMessage {
            blob: Bin::new(blob.to_vec()).unwrap(),
            recipients: List::new(vec![recipient]).unwrap(),
        });
        let stored = StoreResult { refused: None, expires_at: None, retry_after: None };
        let answer =
            Message::StoreResponse(StoreResponse { results: List::truncated(vec![stored]) });
        let began = Instant::now();
        dialled.request(&message).unwrap();
        transfer(dialled, accepted, *now);
        let Some(Event::Request { id, .. }) = accepted.poll_event() else { panic!() };
        accepted.respond(id, &answer);
        transfer(accepted, dialled, *now);
        let took = began.elapsed();
        assert!(matches!(dialled.poll_event(), Some(Event::Response { .. })));
        took
    }

    /// Commits rows as a message writes them: one that is rewritten each time (the ratchet), some
    /// that are new (message, index, event, parcel, blob), a counter.
    fn commit(&mut self, blob: &[u8]) -> Duration {
        self.commits += 1;
        let key = self.commits.to_be_bytes();
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        let tx = self.file.begin().unwrap();
        tx.put(Table::Mls, b"ratchet", vec![1; 1024]);
        tx.put(Table::Messages, &key, vec![2; 500]);
        tx.put(Table::MessageIndex, &key, vec![3; 90]);
        tx.put(Table::Events, &key, vec![4; 400]);
        tx.put(Table::Outbox, &key, vec![5; 120]);
        tx.put(Table::OutboxBlobs, &key, blob.to_vec());
        tx.put(Table::Conversations, b"conversation", vec![6; 200]);
        tx.put(Table::Meta, b"next", key.to_vec());
        tx.accept().unwrap();
        tx.commit().unwrap();
        began.elapsed()
    }

    /// Adds the parts to the report; answers their sum in each round, in microseconds.
    pub fn report(&self, report: &mut Report, echo: &[f64]) -> Vec<f64> {
        let rounds = 1..;
        let part = |values: &[f64]| values[rounds.start..].to_vec();
        let (mls, receipt) = (part(&self.mls), part(&self.receipt));
        let (noise, commit) = (part(&self.noise), part(&self.commit));
        let sum: Vec<f64> = (0..mls.len())
            .map(|round| {
                // Message and receipt are carried alike, one there and one back.
                mls[round]
                    + receipt[round]
                    + 2.0 * noise[round]
                    + COMMITS * commit[round]
                    + echo[round]
            })
            .collect();
        report.add("  message: encrypt and open (MLS, wrap)", "us", &mls, None);
        report.add("  receipt: make and open (signature, wrap)", "us", &receipt, None);
        report.add("  session: seal and open, with answer (Noise)", "us", &noise, None);
        report.add("  durable commit of a message's rows", "us", &commit, None);
        report.add("  sum: message, receipt, 2 sessions, 3 commits, echo", "us", &sum, None);
        sum
    }
}

fn median(mut once: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..TIMES).map(|_| once()).collect();
    percentile(&mut times, 50)
}

/// Both ends of a session, established.
fn connected(now: Now) -> (Connection, Connection) {
    let (ann, bob) = (person(1), person(2));
    let expect = Some(bob.identity.key());
    let mut dialled =
        Connection::dial(Arc::clone(&ann), expect, false, Entropy::from_number(1), now);
    let mut accepted = Connection::accept(bob, Entropy::from_number(2), now);
    for _ in 0..4 {
        transfer(&mut dialled, &mut accepted, now);
        transfer(&mut accepted, &mut dialled, now);
    }
    assert!(matches!(dialled.poll_event(), Some(Event::Established(_))));
    assert!(matches!(accepted.poll_event(), Some(Event::Established(_))));
    (dialled, accepted)
}

fn transfer(from: &mut Connection, to: &mut Connection, now: Now) {
    while let Some(bytes) = from.poll_transmit() {
        to.handle_bytes(&bytes, now);
    }
}
