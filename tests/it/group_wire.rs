//! What a group costs on the wire, and what relays keep of it: production nodes and relays on the
//! simulator; then the bytes that left, and every byte on the relays' disks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::Stdio;
use std::sync::OnceLock;

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use sremp_common::id::IdentityKey;
use sremp_common::wire::{Admission, Bin, List, Message, Recipient, StoreMessage};
use sremp_node::api::{Command, MessageState};
use sremp_sim::World;
use sremp_sim::disk::Disk;
use tokio::runtime::Runtime;

use crate::relay_client::{Client, person, token_of};
use crate::relay_program::Relay;
use crate::user::{create_group, group, rename_group, send, state};

/// The blobs of a relay, by its own number.
const BLOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("relay.blobs");
/// What a relay knows of each message: owner and sequence, then blob, name, times, length.
const MESSAGES: TableDefinition<'_, &[u8; 40], &[u8; 48]> = TableDefinition::new("relay.messages");
/// Nonce and tag of a wrapped blob.
const HEAD: usize = 32;

/// The blobs on a relay's disk.
fn blobs(world: &World, relay: usize) -> Vec<Vec<u8>> {
    let disk = Disk::of(world.relay_image(relay));
    let database = redb::Builder::new().create_with_backend(disk).unwrap();
    let table = database.begin_read().unwrap().open_table(BLOBS).unwrap();
    table.iter().unwrap().map(|row| row.unwrap().1.value().to_vec()).collect()
}

/// A group named `team` of the first node and `members` others, who are switched off now. Relay
/// number `n` of `relays` keeps the mailboxes of every `relays`-th of them; the first node has none.
fn team(seed: u64, members: usize, relays: usize) -> World {
    let mut world = World::new(seed, members + 1, relays);
    for member in 1..=members {
        let link = world.relay_link(members + 1 + member % relays);
        world.command(member, Command::RelayAdd { link }).unwrap();
    }
    world.pass(2_000);
    for member in 1..=members {
        world.introduce(member, 0);
        world.introduce(0, member);
    }
    let names = (1..=members).map(|member| format!("node{}", member + 1)).collect();
    create_group(&mut world, 0, "team", names);
    for _ in 0..20 {
        world.pass(5_000);
        if group(&mut world, 0, "team").members.len() == members + 1 {
            break;
        }
    }
    assert_eq!(group(&mut world, 0, "team").members.len(), members + 1, "not all came in");
    world.pass(30_000);
    (1..=members).for_each(|member| world.crash(member));
    world.pass(5_000);
    world
}

#[test]
fn a_message_leaves_once_for_each_relay_and_is_kept_once_there() {
    const MEMBERS: usize = 16;
    const TEXT: usize = 3_000;
    let mut world = team(7, MEMBERS, 2);
    let relays = [MEMBERS + 1, MEMBERS + 2];
    // The first message opens the sessions, and renews the keys.
    send(&mut world, 0, "group:team", "hello");
    world.pass(5_000);
    let before: BTreeSet<_> = relays.iter().flat_map(|relay| blobs(&world, *relay)).collect();
    let carried = relays.map(|relay| world.bytes_carried(0, relay));

    let id = send(&mut world, 0, "group:team", &"x".repeat(TEXT));
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);

    let mut blob_bytes = Vec::new();
    for relay in relays {
        let all = blobs(&world, relay);
        let new: Vec<_> = all.iter().filter(|blob| !before.contains(*blob)).collect();
        assert_eq!(new.len(), 1, "one row for the blob of one message");
        blob_bytes.push(new[0].len());
    }
    assert_eq!(blob_bytes[0], blob_bytes[1]);
    let uploaded: u64 = relays
        .iter()
        .zip(carried)
        .map(|(relay, before)| world.bytes_carried(0, *relay) - before)
        .sum();
    let allowed = blob_bytes.iter().sum::<usize>() + 64 * MEMBERS;
    println!("{uploaded} bytes uploaded for two blobs of {}, {MEMBERS} members", blob_bytes[0]);
    assert!(
        uploaded <= u64::try_from(allowed).unwrap(),
        "{uploaded} bytes uploaded, {allowed} allowed"
    );
}

#[test]
fn the_tree_is_kept_once_for_all_who_are_invited() {
    const MEMBERS: usize = 12;
    let mut world = World::new(5, MEMBERS + 1, 1);
    let relay = MEMBERS + 1;
    for member in 1..=MEMBERS {
        world.use_relays(member);
    }
    world.pass(2_000);
    for member in 1..=MEMBERS {
        world.introduce(member, 0);
        world.introduce(0, member);
        // They share a chat of two: the inviter is no stranger to them.
        let to = format!("node{}", member + 1);
        let command = Command::Send { to, text: "hello".into(), reply_to: None };
        world.command(0, command).unwrap();
    }
    world.pass(20_000);
    (1..=MEMBERS).for_each(|member| world.crash(member));
    let before: BTreeSet<_> = blobs(&world, relay).into_iter().collect();
    let names = (1..=MEMBERS).map(|member| format!("node{}", member + 1)).collect();
    create_group(&mut world, 0, "team", names);
    world.pass(20_000);
    let mut sizes: Vec<usize> = blobs(&world, relay)
        .iter()
        .filter(|blob| !before.contains(*blob))
        .map(|blob| blob.len())
        .collect();
    sizes.sort_unstable();
    let (tree, parts) = sizes.split_last().unwrap();
    println!("invitations of {MEMBERS}: {parts:?} and {tree} in common");
    assert_eq!(parts.len(), MEMBERS, "a part for each, and one blob for all");
    assert!(parts.iter().all(|part| *part * 4 <= *tree));

    // Whatever comes first, all come in.
    (1..=MEMBERS).for_each(|member| world.start(member));
    world.pass(60_000);
    let ours = group(&mut world, 0, "team");
    assert_eq!((ours.members.len(), ours.epoch), (MEMBERS + 1, 1));
    for member in 1..=MEMBERS {
        let theirs = group(&mut world, member, "team");
        assert_eq!(theirs.epoch_authenticator, ours.epoch_authenticator);
    }
}

#[test]
fn a_group_has_the_suite_that_was_asked_for() {
    let mut world = World::new(9, 4, 1);
    world.introduce_all();
    let create = |world: &mut World, name: &str, suite: &str| {
        let members = (2..=4).map(|node| format!("node{node}")).collect();
        let suite = Some(suite.to_owned());
        world.command(0, Command::GroupCreate { name: name.into(), members, suite })
    };
    create(&mut world, "plain", "x25519").unwrap();
    create(&mut world, "hybrid", "0x004F").unwrap();
    let refused = create(&mut world, "odd", "0x0003").unwrap_err();
    assert!(refused.message.contains("mlkem768x25519 (0x004f)"), "{}", refused.message);
    world.pass(60_000);
    for (name, number) in [("plain", 0x0001), ("hybrid", 0x004f)] {
        let sent = send(&mut world, 0, name, &format!("to {name}"));
        world.pass(20_000);
        assert_eq!(state(&mut world, 0, &sent), MessageState::Delivered);
        for node in 0..4 {
            let view = group(&mut world, node, name);
            assert_eq!((view.suite, view.members.len()), (number, 4));
        }
    }
}

#[test]
fn those_who_are_invited_together_are_added_by_one_commit() {
    let mut world = team(3, 8, 1);
    assert_eq!(group(&mut world, 0, "team").epoch, 1);
    // One who cannot be reached does not keep the others waiting.
    world.crash(9);
    for member in [1, 2] {
        world.start(member);
    }
    world.pass(5_000);
    let names = vec!["node2".to_owned(), "node3".to_owned(), "node4".to_owned()];
    for member in 1..=3 {
        let who = format!("node{}", member + 1);
        world.command(0, Command::GroupRemove { group: "team".into(), who }).unwrap();
    }
    world.pass(5_000);
    let before = group(&mut world, 0, "team").epoch;
    world.command(0, Command::GroupAdd { group: "team".into(), who: names }).unwrap();
    world.pass(10_000);
    let after = group(&mut world, 0, "team");
    assert_eq!(after.epoch, before + 1, "the two who can be reached, in one commit");
    assert_eq!(after.members.iter().filter(|member| member.pending).count(), 1);
}

/// Every form in which something secret could stand somewhere: as bytes, as text, as hexadecimal.
#[derive(Clone, Default)]
struct Secrets(BTreeMap<String, Vec<u8>>);

impl Secrets {
    fn add(&mut self, what: &str, bytes: &[u8]) {
        self.0.insert(what.to_owned(), bytes.to_vec());
        self.0.insert(format!("{what}, in hexadecimal"), hex(bytes).into_bytes());
    }

    /// Nothing of it is in `bytes`.
    fn check(&self, place: &str, bytes: &[u8]) {
        let mut heads: BTreeMap<&[u8], Vec<(&str, &[u8])>> = BTreeMap::new();
        for (what, secret) in &self.0 {
            heads.entry(&secret[..4]).or_default().push((what, secret));
        }
        for (at, head) in bytes.windows(4).enumerate() {
            for (what, secret) in heads.get(head).into_iter().flatten() {
                assert!(!bytes[at..].starts_with(secret), "{place} holds {what}");
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A group of five whose first member, and creator, has no mailbox at the relay; everybody wrote,
/// the name and the keys changed, then all but the first were switched off, and it wrote again.
fn conversation() -> &'static Conversation {
    static CONVERSATION: OnceLock<Conversation> = OnceLock::new();
    CONVERSATION.get_or_init(converse)
}

/// What is left of a conversation.
struct Conversation {
    /// Everything on the relay's disk.
    image: Vec<u8>,
    /// What may not be there.
    secrets: Secrets,
    /// The group's blobs.
    wrapped: BTreeSet<Vec<u8>>,
    /// Somebody who has a mailbox there.
    owner: IdentityKey,
}

fn converse() -> Conversation {
    const MEMBERS: usize = 4;
    let mut world = team(11, MEMBERS, 1);
    let relay = MEMBERS + 1;
    let mut secrets = Secrets::default();
    let mut wrapped = BTreeSet::new();
    for round in 0..6 {
        let name = format!("a telling name {round}");
        rename_group(&mut world, 0, "team", &name);
        let before: BTreeSet<_> = blobs(&world, relay).into_iter().collect();
        let text = format!("a telling text {round}");
        let sent = send(&mut world, 0, &name, &text);
        world.pass(3_000);
        wrapped.extend(blobs(&world, relay).into_iter().filter(|blob| !before.contains(blob)));
        let view = group(&mut world, 0, &name);
        secrets.add("the group's name", name.as_bytes());
        secrets.add("a text", text.as_bytes());
        secrets.add("a message id", &bytes_of(&sent));
        secrets.add("the group's id", &bytes_of(&view.id));
        secrets.add("an epoch authenticator", &bytes_of(&view.epoch_authenticator));
        rename_group(&mut world, 0, &name, "team");
    }
    secrets.add("the sender's name", b"node1");
    secrets.add("the sender's identity key", world.node(0).key().as_bytes());
    secrets.add("the sender's id", world.node(0).key().to_string().as_bytes());
    let owner = world.node(1).key();
    Conversation { image: world.relay_image(relay), secrets, wrapped, owner }
}

#[test]
fn a_relay_keeps_nothing_that_tells_a_group() {
    let Conversation { image, secrets, wrapped, owner } = conversation();
    secrets.check("the relay's disk", image);
    // The check finds what is there: the owners of mailboxes, and their names.
    let there = |needle: &[u8]| image.windows(needle.len()).any(|window| window == needle);
    assert!(there(owner.as_bytes()) && there(b"node2"));

    // Two blobs of the group have nothing in common: neither nonce nor tag nor eight bytes anywhere.
    assert!(wrapped.len() >= 12, "six messages and as many commits, at least");
    let mut seen = BTreeSet::new();
    for blob in wrapped {
        let own: BTreeSet<&[u8]> = blob.windows(8).collect();
        assert!(own.is_disjoint(&seen), "two blobs have bytes in common");
        seen.extend(own);
    }
}

#[test]
fn what_a_relay_knows_of_two_messages_of_a_group_is_who_got_them() {
    let disk = Disk::of(conversation().image.clone());
    let database = redb::Builder::new().create_with_backend(disk).unwrap();
    let table = database.begin_read().unwrap().open_table(MESSAGES).unwrap();
    let mut owners: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for row in table.iter().unwrap() {
        let (key, value) = row.unwrap();
        let (key, value) = (key.value(), value.value());
        let blob = u64::from_le_bytes(value[..8].try_into().unwrap());
        owners.entry(blob).or_default().insert(key[..32].to_vec());
        assert!(names.insert(value[8..24].to_vec()), "a blob has one name in each mailbox");
    }
    let of_all = owners.values().filter(|owners| owners.len() == 4).count();
    assert!(of_all >= 12, "each message is one row for each mailbox, over one blob");
}

#[test]
fn a_relay_logs_nothing_that_tells_a_group() {
    let Conversation { secrets, wrapped, .. } = conversation();
    let mut secrets = secrets.clone();
    wrapped.iter().for_each(|blob| secrets.add("the head of a blob", &blob[..HEAD]));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("relay.toml");
    std::fs::write(&config, "[log]\nlevel = \"trace\"\n").unwrap();
    let log = directory.path().join("log");
    let data = directory.path().join("data");
    let arguments = ["--config", config.to_str().unwrap()];
    let relay = Relay::start_logging(&data, &arguments, Stdio::from(File::create(&log).unwrap()));
    Runtime::new().unwrap().block_on(async {
        let mut recipients = Vec::new();
        for number in 1..=4 {
            let owner = person(number);
            let identity_key = owner.identity.key();
            let admission = Admission::Token(token_of(number));
            recipients.push(Recipient { identity_key, admission });
            let mut client =
                Client::dial(relay.address, relay.key, owner, false, number).await.unwrap();
            client.open_mailbox(number, 1024 * 1024).await.unwrap();
        }
        let mut sender = Client::dial(relay.address, relay.key, person(9), true, 9).await.unwrap();
        for blob in wrapped {
            let message = Message::StoreMessage(StoreMessage {
                blob: Bin::new(blob.clone()).unwrap(),
                recipients: List::truncated(recipients.clone()),
            });
            let answer = sender.ask(&message).await.unwrap();
            let Message::StoreResponse(response) = answer else { panic!("{answer:?}") };
            assert!(response.results.iter().all(|result| result.refused.is_none()));
        }
    });
    assert_eq!(relay.terminate(), Some(0));
    let log = std::fs::read(&log).unwrap();
    assert!(!log.is_empty(), "the relay logs something at this level");
    (1..=4).for_each(|number| {
        secrets.add("a recipient's name", format!("person {number}").as_bytes());
        secrets.add("a recipient's id", person(number).identity.key().to_string().as_bytes());
    });
    secrets.add("the sender", person(9).identity.key().to_string().as_bytes());
    secrets.check("the relay's log", &log);
}
