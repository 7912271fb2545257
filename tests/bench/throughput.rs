//! Messages a second of one conversation, with many under way at a time, from the commands to the
//! events that all were delivered; beside OpenMLS alone, which encrypts and decrypts as many.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, MlsGroup, MlsGroupCreateConfig,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY,
    ProcessedMessageContent, SenderRatchetConfiguration, StagedWelcome,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use sremp_common::io::Clock;
use sremp_node::api::{Event, MAX_EVENT_PAGE, Reply};
use sremp_node::io::handle::CoreHandle;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::direct::{TEXT, TestNode, delivered, introduce, send_command};
use super::figure::{Report, Target};
use super::parts::Member;
use super::{Effort, progress};

/// Commands under way at a time.
const OUTSTANDING: usize = 128;
/// Patience with one round.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn measure(report: &mut Report, effort: Effort) {
    progress("throughput of one conversation");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = (TestNode::start("ann"), TestNode::start("bob"));
    runtime.block_on(introduce(&a, &b));
    let mut mls = Bare::new();
    let (mut whole, mut alone, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=effort.rounds {
        let ours = runtime.block_on(messages_a_second(a.core(), effort.messages));
        let theirs = mls.messages_a_second(effort.messages);
        // The first one warms up.
        if round > 0 {
            whole.push(ours);
            alone.push(theirs);
            ratio.push(100.0 * ours / theirs);
        }
    }
    drop((a, b));
    let target = Some(Target::AtLeast(3000.0));
    report.add("one conversation, pipelined, all delivered", "messages/s", &whole, target);
    report.add("  OpenMLS alone, encrypt and decrypt", "messages/s", &alone, None);
    let target = Some(Target::AtLeast(30.0));
    report.add("  share of OpenMLS alone", "%", &ratio, target);
}

async fn messages_a_second(core: &CoreHandle, messages: usize) -> f64 {
    let mut events = core.events().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Cell::new(0);
    let began = Instant::now();
    let senders: Vec<_> = (0..OUTSTANDING).map(|_| send_some(core, &sent, messages)).collect();
    let all = async {
        tokio::join!(join_all(senders), all_delivered(core, &mut events, messages, &count));
    };
    let in_time = tokio::time::timeout(PATIENCE, all).await.is_ok();
    assert!(in_time, "only {} of {messages} messages were delivered", count.get());
    messages as f64 / began.elapsed().as_secs_f64()
}

/// Sends until all together have sent enough.
fn send_some(
    core: &CoreHandle,
    sent: &Arc<AtomicUsize>,
    messages: usize,
) -> tokio::task::JoinHandle<()> {
    let (core, sent) = (core.clone(), Arc::clone(sent));
    tokio::spawn(async move {
        while sent.fetch_add(1, Ordering::Relaxed) < messages {
            let reply = core.command(send_command()).await.unwrap();
            assert!(matches!(reply, Reply::Sent(_)));
        }
    })
}

async fn join_all(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.await.unwrap();
    }
}

/// Waits for so many deliveries. Events come faster than they are read at times; what was missed
/// is read from the node's record, as a watcher would.
async fn all_delivered(
    core: &CoreHandle,
    events: &mut broadcast::Receiver<Arc<Event>>,
    messages: usize,
    count: &Cell<usize>,
) {
    let mut last = 0;
    let note = |event: &Event| count.set(count.get() + usize::from(delivered(event).is_some()));
    while count.get() < messages {
        match events.recv().await {
            Ok(event) if event.seq > last => {
                last = event.seq;
                note(&event);
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => loop {
                let page = core.event_page(Some(last), MAX_EVENT_PAGE).await.unwrap();
                for event in &page.events {
                    last = event.seq;
                    note(event);
                }
                if last >= page.last {
                    break;
                }
            },
            Err(RecvError::Closed) => panic!("the node has stopped"),
        }
    }
}

/// Two members of a group in OpenMLS, with its own provider in memory.
struct Bare {
    ann: (OpenMlsRustCrypto, MlsGroup),
    bob: (OpenMlsRustCrypto, MlsGroup),
    signer: Member,
}

impl Bare {
    fn new() -> Self {
        let suite = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
        let ratchet = SenderRatchetConfiguration::new(256, 4096);
        let now = Clock::start().now();
        let (ann, bob) = (Member::new(3, now), Member::new(4, now));
        let credential = |member: &Member| CredentialWithKey {
            // As long as a certificate of ours.
            credential: BasicCredential::new(vec![7; 180]).into(),
            signature_key: member.signer.leaf_key().to_vec().into(),
        };
        let (provider_a, provider_b) = (OpenMlsRustCrypto::default(), OpenMlsRustCrypto::default());
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite)
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(ratchet)
            .build();
        let mut group_a =
            MlsGroup::new(&provider_a, &ann.signer, &config, credential(&ann)).unwrap();
        let package = KeyPackage::builder()
            .build(suite, &provider_b, &bob.signer, credential(&bob))
            .unwrap()
            .into_key_package();
        let (_, welcome, _) = group_a.add_members(&provider_a, &ann.signer, &[package]).unwrap();
        group_a.merge_pending_commit(&provider_a).unwrap();
        let welcome = MlsMessageIn::tls_deserialize_exact(welcome.to_bytes().unwrap()).unwrap();
        let MlsMessageBodyIn::Welcome(welcome) = welcome.extract() else { panic!() };
        let join = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .sender_ratchet_configuration(ratchet)
            .build();
        let group_b = StagedWelcome::new_from_welcome(&provider_b, &join, welcome, None)
            .unwrap()
            .into_group(&provider_b)
            .unwrap();
        Self { ann: (provider_a, group_a), bob: (provider_b, group_b), signer: ann }
    }

    fn messages_a_second(&mut self, messages: usize) -> f64 {
        let Self { ann: (provider_a, group_a), bob: (provider_b, group_b), signer } = self;
        let text = [b'x'; TEXT + 60];
        let began = Instant::now();
        for _ in 0..messages {
            let message = group_a.create_message(provider_a, &signer.signer, &text).unwrap();
            let bytes = message.to_bytes().unwrap();
            let message = MlsMessageIn::tls_deserialize_exact(&bytes).unwrap();
            let message = message.try_into_protocol_message().unwrap();
            let processed = group_b.process_message(provider_b, message).unwrap();
            let content = processed.into_content();
            assert!(matches!(content, ProcessedMessageContent::ApplicationMessage(_)));
        }
        messages as f64 / began.elapsed().as_secs_f64()
    }
}
