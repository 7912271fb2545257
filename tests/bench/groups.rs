//! Groups of 2, 10, 100 and 1,000 members: ours beside bare OpenMLS with the same settings, in one run.
//!
//! Ours is the `groups` module over a store whose transaction is not committed, so what a durable
//! commit adds is left out on both sides (OpenMLS writes into its own memory store). Every group is
//! made by one commit that adds everybody: the tree has no keys between root and leaves yet.

use std::time::Instant;

use openmls::group::{JoinBuilder, ProcessedWelcome};
use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, Extension,
    ExtensionType, Extensions, KeyPackage, LeafNodeIndex, LeafNodeParameters, Lifetime, MlsGroup,
    MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    OpenMlsProvider as _, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent,
    SenderRatchetConfiguration, UnknownExtension,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, Token};
use sremp_common::io::Clock;
use sremp_common::key::SealSecret;
use sremp_common::time::Now;
use sremp_common::wire::{Admission, Bin, List, Message, Recipient, StoreMessage};
use sremp_node::groups::{Change, CheckedKeyPackage, GroupKind, LeafInfo, OpenError, Suite};

use super::Effort;
use super::figure::{Report, Target, micros};
use super::parts::Member;

/// Bytes of a message.
const TEXT: usize = 1024;
/// Messages of one round.
const MESSAGES: usize = 50;
/// Conversations, and states of each, among which the state of a blob is looked for.
const CONVERSATIONS: (usize, usize) = (1000, 9);

/// Adds the figures of groups.
pub fn measure(report: &mut Report, effort: Effort) {
    let sizes: &[usize] = if effort.rounds < 5 { &[2, 10, 100] } else { &[2, 10, 100, 1000] };
    for suite in Suite::ALL {
        for size in sizes {
            super::progress(&format!("a group of {size} with suite {suite}"));
            group(report, suite, *size, effort.rounds);
        }
    }
    super::progress("finding the state of a blob");
    finding(report, effort.rounds);
}

/// The values of one figure, over rounds.
fn rounds(count: usize, mut once: impl FnMut() -> f64) -> Vec<f64> {
    (0..count).map(|_| once()).collect()
}

fn timed<R>(f: impl FnOnce() -> R) -> (R, f64) {
    let began = Instant::now();
    let result = f();
    (result, micros(began.elapsed()))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn leaf(number: u64) -> LeafInfo {
    let mut entropy = Entropy::from_number(number);
    LeafInfo {
        relays: List::default(),
        seal_key: SealSecret::generate(&mut entropy).public(),
        token: Token::new(entropy.array()),
    }
}

/// One of ours that takes part: the first admin, a second admin, and a plain member.
struct Ours {
    members: Vec<Member>,
    group: GroupId,
    now: Now,
    number: u64,
    added: sremp_node::groups::Changed,
}

impl Ours {
    fn new(suite: Suite, size: usize) -> Self {
        let now = Clock::start().now();
        let mut first = Member::new(1, now);
        let group =
            first.groups.create(&first.tx, GroupKind::Group, "team", suite, &leaf(1), now).unwrap();
        let mut members: Vec<Member> =
            (2..=3.min(size as u64)).map(|number| Member::new(number, now)).collect();
        let mut packages: Vec<CheckedKeyPackage> =
            members.iter_mut().map(|member| package(member, suite, now)).collect();
        for number in packages.len() + 2..=size {
            packages.push(package(&mut Member::new(number as u64, now), suite, now));
        }
        let added = first.groups.change(&first.tx, &group, Change::Add(packages), now).unwrap();
        first.accept();
        members.insert(0, first);
        Self { members, group, now, number: 10_000, added }
    }

    /// Joins by the first Welcome; answers how long that took.
    fn join(&mut self, place: usize) -> f64 {
        let member = &mut self.members[place];
        let welcome = self.added.welcome.as_ref().unwrap();
        let (_, took) = timed(|| member.groups.join(&member.tx, welcome, self.now).unwrap());
        member.accept();
        took
    }

    /// As [`Self::join`], undone.
    fn try_join(&mut self, place: usize) -> f64 {
        let member = &mut self.members[place];
        let welcome = self.added.welcome.as_ref().unwrap();
        let (_, took) = timed(|| member.groups.join(&member.tx, welcome, self.now).unwrap());
        member.tx.refuse();
        member.groups.refused();
        took
    }

    fn change(&mut self, place: usize, change: Change) -> (Vec<u8>, f64) {
        let member = &mut self.members[place];
        let (changed, took) =
            timed(|| member.groups.change(&member.tx, &self.group, change, self.now).unwrap());
        member.accept();
        (changed.commit, took)
    }

    fn update(&mut self, place: usize) -> (Vec<u8>, f64) {
        self.number += 1;
        let leaf = leaf(self.number);
        self.change(place, Change::Update(leaf))
    }

    /// The third member follows, unmeasured: it takes part when branches are switched.
    fn follow(&mut self, blob: &[u8]) {
        if self.members.len() > 2 {
            self.open(2, blob);
        }
    }

    fn open(&mut self, place: usize, blob: &[u8]) -> f64 {
        let member = &mut self.members[place];
        let (_, took) = timed(|| member.groups.open(&member.tx, blob, self.now).unwrap());
        member.accept();
        took
    }
}

fn package(member: &mut Member, suite: Suite, now: Now) -> CheckedKeyPackage {
    let leaf = leaf(u64::from(member.key.as_bytes()[0]));
    let bytes = member.groups.make_key_package(&member.tx, suite, &leaf, false, now).unwrap();
    member.accept();
    member.groups.check_key_package(&bytes, &member.key, suite, now).unwrap()
}

/// Bare OpenMLS: the first member and one that receives.
struct Bare {
    first: (OpenMlsRustCrypto, Member, MlsGroup),
    second: (OpenMlsRustCrypto, Member, MlsGroup),
    suite: Ciphersuite,
    now: Now,
    number: u64,
    join: Vec<f64>,
}

const LEAF: u16 = 0xF0A1;

fn capabilities(suite: Ciphersuite) -> Capabilities {
    Capabilities::new(
        None,
        Some(&[suite]),
        Some(&[ExtensionType::Unknown(LEAF)]),
        Some(&[]),
        Some(&[CredentialType::Basic]),
    )
}

fn credential(member: &Member) -> CredentialWithKey {
    CredentialWithKey {
        // As long as our certificates.
        credential: BasicCredential::new(vec![7; 170]).into(),
        signature_key: member.signer.leaf_key().to_vec().into(),
    }
}

fn bare_package(provider: &OpenMlsRustCrypto, member: &Member, suite: Ciphersuite) -> KeyPackage {
    KeyPackage::builder()
        .leaf_node_capabilities(capabilities(suite))
        .leaf_node_extensions(
            Extensions::single(Extension::Unknown(LEAF, UnknownExtension(vec![8; 56]))).unwrap(),
        )
        .key_package_lifetime(Lifetime::init(0, u64::MAX))
        .build(suite, provider, &member.signer, credential(member))
        .unwrap()
        .into_key_package()
}

impl Bare {
    fn new(suite: Suite, size: usize, rounds: usize) -> Self {
        let now = Clock::start().now();
        let suite = Ciphersuite::try_from(suite.number()).unwrap();
        let (first, second) = (Member::new(1, now), Member::new(2, now));
        let provider = OpenMlsRustCrypto::default();
        let ratchet = SenderRatchetConfiguration::new(256, 4096);
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite)
            .capabilities(capabilities(suite))
            .lifetime(Lifetime::init(0, u64::MAX))
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(ratchet)
            .with_leaf_node_extensions(
                Extensions::single(Extension::Unknown(LEAF, UnknownExtension(vec![8; 56])))
                    .unwrap(),
            )
            .unwrap()
            .build();
        let mut group =
            MlsGroup::new(&provider, &first.signer, &config, credential(&first)).unwrap();
        let receiver = OpenMlsRustCrypto::default();
        let mut packages = vec![bare_package(&receiver, &second, suite)];
        let others = OpenMlsRustCrypto::default();
        for number in 3..=size {
            packages.push(bare_package(&others, &Member::new(number as u64, now), suite));
        }
        let (_, welcome, _) = group.add_members(&provider, &first.signer, &packages).unwrap();
        group.merge_pending_commit(&provider).unwrap();
        let welcome = welcome.to_bytes().unwrap();
        let join_config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(ratchet)
            .build();
        let stored = receiver.storage().values.read().unwrap().clone();
        let mut join = Vec::new();
        let mut joined = None;
        for _ in 0..rounds {
            // Each round joins anew: the key package stands again.
            *receiver.storage().values.write().unwrap() = stored.clone();
            let (group, took) = timed(|| {
                let message = MlsMessageIn::tls_deserialize_exact(&welcome).unwrap();
                let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!() };
                let processed =
                    ProcessedWelcome::new_from_welcome(&receiver, &join_config, welcome).unwrap();
                JoinBuilder::new(&receiver, processed)
                    .skip_lifetime_validation()
                    .build()
                    .unwrap()
                    .into_group(&receiver)
                    .unwrap()
            });
            join.push(took);
            joined = Some(group);
        }
        let second = (receiver, second, joined.unwrap());
        Self { first: (provider, first, group), second, suite, now, number: 20_000, join }
    }

    fn send(&mut self) -> (Vec<u8>, f64) {
        let (provider, member, group) = &mut self.first;
        timed(|| {
            let text = vec![5; TEXT];
            group.create_message(provider, &member.signer, &text).unwrap().to_bytes().unwrap()
        })
    }

    fn process(&mut self, bytes: &[u8]) -> f64 {
        let (provider, _, group) = &mut self.second;
        let (_, took) = timed(|| {
            let message = MlsMessageIn::tls_deserialize_exact(bytes).unwrap();
            let message = message.try_into_protocol_message().unwrap();
            let processed = group.process_message(provider, message).unwrap();
            if let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() {
                group.merge_staged_commit(provider, *staged).unwrap();
            }
        });
        took
    }

    fn commit(
        &mut self,
        make: impl FnOnce(&OpenMlsRustCrypto, &Member, &mut MlsGroup) -> MlsMessageOut,
    ) -> (Vec<u8>, f64) {
        let (provider, member, group) = &mut self.first;
        timed(|| {
            let bytes = make(provider, member, group).to_bytes().unwrap();
            group.merge_pending_commit(provider).unwrap();
            bytes
        })
    }

    fn update(&mut self) -> (Vec<u8>, f64) {
        self.commit(|provider, member, group| {
            let parameters = LeafNodeParameters::default();
            group.self_update(provider, &member.signer, parameters).unwrap().into_commit()
        })
    }

    fn add(&mut self) -> (Vec<u8>, f64) {
        self.number += 1;
        let new = Member::new(self.number, self.now);
        let package = bare_package(&OpenMlsRustCrypto::default(), &new, self.suite);
        self.commit(|provider, member, group| {
            group.add_members(provider, &member.signer, &[package]).unwrap().0
        })
    }

    fn remove_last(&mut self) -> (Vec<u8>, f64) {
        let last = self.first.2.members().last().unwrap().index;
        self.commit(|provider, member, group| {
            let index = LeafNodeIndex::new(last.u32());
            group.remove_members(provider, &member.signer, &[index]).unwrap().0
        })
    }
}

/// One operation, ours and bare, and how much slower ours may be.
fn compare(
    report: &mut Report,
    name: &str,
    what: &str,
    ours: &[f64],
    bare: &[f64],
    factor: Option<f64>,
) {
    report.add(&format!("{name}: {what}, OpenMLS"), "us", bare, None);
    let target = factor.map(|factor| Target::AtMost(factor * median(bare)));
    report.add(&format!("{name}: {what}"), "us", ours, target);
}

#[expect(clippy::too_many_lines, reason = "one operation after the other, in one group")]
fn group(report: &mut Report, suite: Suite, size: usize, count: usize) {
    let name = format!("{suite}, {size}");
    let mut ours = Ours::new(suite, size);
    let mut bare = Bare::new(suite, size, count);
    let join = rounds(count, || ours.try_join(1));
    (1..ours.members.len()).for_each(|place| {
        ours.join(place);
    });
    compare(report, &name, "join", &join, &bare.join, (size == 1000).then_some(1.3));

    let (mut send, mut receive) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let mut blob = Vec::new();
    for _ in 0..count {
        let (mut a, mut b, mut c, mut d) = (0.0, 0.0, 0.0, 0.0);
        for _ in 0..MESSAGES {
            let member = &mut ours.members[0];
            let text = vec![5; TEXT];
            let (sealed, took) =
                timed(|| member.groups.encrypt(&member.tx, &ours.group, &text, ours.now).unwrap());
            member.accept();
            a += took;
            c += ours.open(1, &sealed.blob);
            blob = sealed.blob;
            let (bytes, took) = bare.send();
            b += took;
            d += bare.process(&bytes);
        }
        let each = |sum: f64| sum / MESSAGES as f64;
        send.0.push(each(a));
        send.1.push(each(b));
        receive.0.push(each(c));
        receive.1.push(each(d));
    }
    compare(report, &name, "send", &send.0, &send.1, Some(1.5));
    compare(report, &name, "receive", &receive.0, &receive.1, Some(1.5));

    let mut bytes = Vec::new();
    let mut figures: Vec<(&str, Vec<f64>, Vec<f64>)> =
        ["update", "process update", "add", "remove"]
            .map(|what| (what, Vec::new(), Vec::new()))
            .into();
    for round in 0..count {
        let (commit, took) = ours.update(0);
        figures[0].1.push(took);
        figures[1].1.push(ours.open(1, &commit));
        ours.follow(&commit);
        if round == 0 {
            bytes.push(("first update", commit.len()));
        }
        let (theirs, took) = bare.update();
        figures[0].2.push(took);
        figures[1].2.push(bare.process(&theirs));

        ours.number += 1;
        let mut new = Member::new(ours.number, ours.now);
        let package = package(&mut new, suite, ours.now);
        let (added, took) = ours.change(0, Change::Add(vec![package]));
        figures[2].1.push(took);
        ours.open(1, &added);
        ours.follow(&added);
        let (theirs, took) = bare.add();
        figures[2].2.push(took);
        bare.process(&theirs);

        let (removed, took) = ours.change(0, Change::Remove(vec![new.key]));
        figures[3].1.push(took);
        ours.open(1, &removed);
        ours.follow(&removed);
        let (theirs, took) = bare.remove_last();
        figures[3].2.push(took);
        bare.process(&theirs);
        if round == 0 {
            bytes.extend([("add", added.len()), ("remove", removed.len())]);
        }
    }
    for (what, ours, bare) in &figures {
        compare(report, &name, what, ours, bare, None);
    }

    let welcomes = ours.added.welcomes().unwrap();
    let (part, shared) = (welcomes.parts[0].len(), welcomes.shared.len());
    bytes.extend([("invitation, own part", part), ("invitation, in common", shared)]);
    bytes.push(("message of 1 KiB", blob.len()));
    for (what, length) in bytes {
        report.add(&format!("{name}: {what}"), "B", &[length as f64], None);
    }
    let upload = upload(&blob, size - 1);
    let allowed = 2 * blob.len() + 64 * (size - 1);
    let allowed = (size > 2).then_some(Target::AtMost(allowed as f64));
    report.add(&format!("{name}: upload to two relays"), "B", &[upload as f64], allowed);
    if ours.members.len() > 2 {
        let target = match size {
            100 => Some(Target::AtMost(30_000.0)),
            1000 => Some(Target::AtMost(300_000.0)),
            _ => None,
        };
        let switch = switch(ours);
        report.add(&format!("{name}: switch, three commits deep"), "us", &[switch], target);
    }
}

/// Bytes of the messages that bring a blob to so many recipients at two relays.
fn upload(blob: &[u8], recipients: usize) -> usize {
    let mut entropy = Entropy::from_number(1);
    let key = sremp_common::key::IdentitySecret::generate(&mut entropy).public();
    let store = |count: usize| {
        let recipient =
            Recipient { identity_key: key, admission: Admission::Token(Token::new([1; 16])) };
        let message = Message::StoreMessage(StoreMessage {
            blob: Bin::new(blob.to_vec()).unwrap(),
            recipients: List::truncated(vec![recipient; count]),
        });
        message.encode(2).len()
    };
    let half = recipients / 2;
    [half, recipients - half].into_iter().filter(|count| *count > 0).map(store).sum()
}

/// A member has followed three commits of another; then three of an admin come, which stand.
fn switch(mut ours: Ours) -> f64 {
    let second = ours.members[1].key;
    let (commit, _) = ours.change(0, Change::Promote(second));
    ours.open(1, &commit);
    ours.open(2, &commit);
    // The plain member has not seen what came before: it follows in order.
    let lost: Vec<Vec<u8>> = (0..3).map(|_| ours.update(2).0).collect();
    let standing: Vec<Vec<u8>> = (0..3).map(|_| ours.update(0).0).collect();
    for commit in &lost {
        ours.open(1, commit);
    }
    standing.iter().map(|commit| ours.open(1, commit)).sum()
}

fn finding(report: &mut Report, count: usize) {
    let now = Clock::start().now();
    let mut member = Member::new(1, now);
    for number in 0..CONVERSATIONS.0 as u64 {
        let group = member
            .groups
            .create(&member.tx, GroupKind::Group, "team", Suite::X25519, &leaf(1), now)
            .unwrap();
        for update in 1..CONVERSATIONS.1 as u64 {
            let leaf = leaf(number * 100 + update);
            member.groups.change(&member.tx, &group, Change::Update(leaf), now).unwrap();
            member.accept();
        }
    }
    let mut entropy = Entropy::from_number(5);
    let values = rounds(count.max(5), || {
        let mut blob = vec![0; 256];
        entropy.fill(&mut blob);
        let (result, took) = timed(|| member.groups.open(&member.tx, &blob, now));
        assert!(matches!(result, Err(OpenError::UnknownState)));
        member.tx.refuse();
        member.groups.refused();
        took
    });
    let name = "a blob of no state, 1,000 conversations of 9";
    report.add(name, "us", &values, Some(Target::AtMost(1000.0)));
}
