//! What a group costs on the wire, and what relays keep of it: production nodes and relays on the
//! simulator; then the bytes that left, and every byte on the relays' disks.

use std::collections::BTreeSet;

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use sremp_node::api::{Command, GroupView, MessageState, Reply};
use sremp_sim::World;
use sremp_sim::disk::Disk;

/// The blobs of a relay, by its own number.
const BLOBS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("relay.blobs");

/// The blobs on a relay's disk.
fn blobs(world: &World, relay: usize) -> Vec<Vec<u8>> {
    let disk = Disk::of(world.relay_image(relay));
    let database = redb::Builder::new().create_with_backend(disk).unwrap();
    let table = database.begin_read().unwrap().open_table(BLOBS).unwrap();
    table.iter().unwrap().map(|row| row.unwrap().1.value().to_vec()).collect()
}

fn group_of(world: &mut World, host: usize, name: &str) -> GroupView {
    match world.command(host, Command::GroupShow { group: name.into() }) {
        Ok(Reply::Group(view)) => *view,
        other => panic!("no group: {other:?}"),
    }
}

fn send(world: &mut World, text: &str) -> String {
    let command = Command::Send { to: "group:team".into(), text: text.into(), reply_to: None };
    match world.command(0, command) {
        Ok(Reply::Sent(view)) => view.message_id,
        other => panic!("not sent: {other:?}"),
    }
}

fn state_of(world: &mut World, id: &str) -> MessageState {
    match world.command(0, Command::MessageShow { id: id.into() }) {
        Ok(Reply::Message(view)) => view.state,
        other => panic!("no message: {other:?}"),
    }
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
    world.command(0, Command::GroupCreate { name: "team".into(), members: names }).unwrap();
    for _ in 0..20 {
        world.pass(5_000);
        if group_of(&mut world, 0, "team").members.len() == members + 1 {
            break;
        }
    }
    assert_eq!(group_of(&mut world, 0, "team").members.len(), members + 1, "not all came in");
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
    send(&mut world, "hello");
    world.pass(5_000);
    let before: BTreeSet<_> = relays.iter().flat_map(|relay| blobs(&world, *relay)).collect();
    let carried = relays.map(|relay| world.bytes_carried(0, relay));

    let id = send(&mut world, &"x".repeat(TEXT));
    world.pass(5_000);
    assert_eq!(state_of(&mut world, &id), MessageState::Sent);

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
