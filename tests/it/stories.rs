//! What users do, played on the simulator: one story each, with production cores on virtual time.

use sremp_node::api::{Change, Command, EventBody, GroupState, GroupView, MessageState};
use sremp_sim::World;

use crate::user::{
    add_member, contacts, create_group, group, leave_group, link, message, promote, remove_member,
    rename_group, requests, send, state, status, texts,
};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 30_000;

/// A group of the first node and these, whose members have all come in.
fn friends(world: &mut World, members: &[&str]) -> String {
    let members = members.iter().map(|member| format!("contact:{member}")).collect();
    let word = create_group(world, 0, "friends", members);
    world.pass(A_WHILE);
    word
}

fn trio() -> World {
    let mut world = World::new(7, 3, 2);
    world.introduce_all();
    world
}

#[test]
fn a_direct_message_is_delivered_and_read() {
    let mut world = trio();
    let id = send(&mut world, 0, "node2", "hello");
    assert_eq!(state(&mut world, 0, &id), MessageState::Queued);
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert_eq!(texts(&mut world, 1, "node1"), ["hello"]);
    world.command(1, Command::MarkRead { with: "node1".into() }).unwrap();
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Read);
}

#[test]
fn a_relay_holds_what_is_for_somebody_who_is_off() {
    let mut world = trio();
    send(&mut world, 0, "node2", "first");
    world.pass(5_000);
    world.crash(1);
    let id = send(&mut world, 0, "node2", "while you were away");
    world.pass(2_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent, "a relay has it within 2 s");
    world.start(1);
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert_eq!(texts(&mut world, 1, "node1"), ["first", "while you were away"]);
}

#[test]
fn somebody_who_goes_right_after_first_contact_has_their_messages_at_a_relay() {
    let mut world = trio();
    send(&mut world, 0, "node2", "first");
    // Just long enough for the key package and the Welcome, far less than the pause between two
    // lists of tokens.
    world.pass(250);
    world.crash(1);
    let id = send(&mut world, 0, "node2", "second");
    world.pass(3_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    world.start(1);
    world.pass(5_000);
    assert_eq!(texts(&mut world, 1, "node1"), ["first", "second"]);
}

#[test]
fn whoever_is_rejected_cannot_write_by_relay_and_whoever_is_taken_back_can() {
    let mut world = trio();
    send(&mut world, 0, "node2", "hello");
    world.pass(A_WHILE);
    world.command(1, Command::ContactReject { who: "contact:node1".into() }).unwrap();
    world.pass(5_000);
    let id = send(&mut world, 0, "node2", "are you there?");
    world.pass(A_WHILE);
    let view = message(&mut world, 0, &id);
    assert_eq!(view.state, MessageState::Queued, "no relay lets it in");
    let why = view.error.unwrap();
    assert!(why.contains("their relay: does not let us in"), "{why}");
    world.command(1, Command::ContactReset { who: "contact:node1".into() }).unwrap();
    world.pass(120_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert_eq!(texts(&mut world, 1, "node1"), ["hello", "are you there?"]);
}

#[test]
fn without_any_path_a_message_waits_visibly_and_leaves_by_itself() {
    let mut world = trio();
    send(&mut world, 0, "node2", "first");
    world.pass(5_000);
    [1, 3, 4].into_iter().for_each(|host| world.crash(host));
    let id = send(&mut world, 0, "node2", "patience");
    world.pass(60_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Queued);
    let status = status(&mut world, 0);
    assert!(status.outbox > 0, "what waits is counted");
    world.start(1);
    world.pass(600_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
}

#[test]
fn a_stranger_waits_for_a_yes() {
    let mut world = World::new(8, 2, 1);
    world.use_relays(0);
    world.use_relays(1);
    world.pass(2_000);
    world.introduce(1, 0);
    let id = send(&mut world, 0, "node2", "do you remember me?");
    world.pass(A_WHILE);
    let waiting = requests(&mut world, 1);
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].name.as_str(), waiting[0].group.as_deref()), ("node1", None));
    assert!(contacts(&mut world, 1).is_empty());
    assert!(state(&mut world, 0, &id) < MessageState::Delivered);
    world.command(1, Command::RequestsAccept { who: "node1".into() }).unwrap();
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, "node1"), ["do you remember me?"]);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert!(requests(&mut world, 1).is_empty());
}

#[test]
fn a_revoked_link_opens_nothing() {
    let mut world = World::new(9, 2, 1);
    world.use_relays(0);
    world.use_relays(1);
    world.pass(2_000);
    world.introduce(1, 0);
    world.command(1, Command::LinkRevoke).unwrap();
    world.pass(1_000);
    send(&mut world, 0, "node2", "anybody there?");
    world.pass(A_WHILE);
    assert!(requests(&mut world, 1).is_empty());
}

#[test]
fn c01_same_name_and_another_key_is_somebody_else() {
    let mut world = World::new(10, 3, 1);
    let name = sremp_common::name::Username::new("node2").unwrap();
    world.command(2, Command::IdentityRename { name }).unwrap();
    world.introduce(1, 0);
    let link = link(&mut world, 2);
    world.command(0, Command::ContactAdd { what: link, alias: None }).unwrap();
    let all = contacts(&mut world, 0);
    assert_eq!(all.len(), 2, "two entries, never merged");
    assert!(all.iter().all(|contact| contact.name == "node2" && contact.name_is_shared));
    let warned = world
        .events(0)
        .iter()
        .any(|event| matches!(event, EventBody::Contact { change: Change::NameClash, .. }));
    assert!(warned, "the user is told");
    // The alias decides; the shared name alone is refused as ambiguous where no alias has it.
    send(&mut world, 0, "contact:node2", "for the first one");
    world.pass(A_WHILE);
    assert!(requests(&mut world, 2).is_empty(), "the second one gets nothing of it");
    assert_eq!(requests(&mut world, 1).len(), 1);
}

#[test]
fn c03_a_rejected_contact_gets_no_session_no_row_and_no_receipt() {
    let mut world = trio();
    send(&mut world, 1, "node1", "before");
    world.pass(5_000);
    world.command(0, Command::ContactReject { who: "node2".into() }).unwrap();
    let id = send(&mut world, 1, "node1", "after");
    world.pass(120_000);
    assert_eq!(texts(&mut world, 0, "node2"), ["before"]);
    assert!(state(&mut world, 1, &id) < MessageState::Delivered);
    let status = status(&mut world, 0);
    let rejected = world.node(1).key().to_string();
    assert!(status.sessions.iter().all(|session| session.id != rejected));
    let refused = Command::Send { to: "node2".into(), text: "x".into(), reply_to: None };
    assert!(world.command(0, refused).is_err());
}

/// Every message takes both paths: directly it arrives and its answer does not, so that a relay gets it,
/// too.
#[test]
fn c14_one_message_over_two_paths_is_shown_once() {
    const ROUNDS: usize = 10;
    const EACH: usize = 100;
    /// No blob is smaller.
    const BLOB: u64 = 256;
    let mut world = trio();
    send(&mut world, 0, "node2", "hello");
    world.pass(5_000);
    let by = |world: &World, from: &[usize]| -> u64 {
        from.iter().map(|host| world.bytes_carried(*host, 1)).sum()
    };
    let mut sent = vec!["hello".to_owned()];
    for round in 0..ROUNDS {
        // The direct way is found again, by whatever is to be said.
        let mut calls = 0;
        let mut before = u64::MAX - BLOB;
        while by(&world, &[0]) < before + BLOB {
            before = by(&world, &[0]);
            sent.push(format!("call {round}.{calls}"));
            send(&mut world, 0, "node2", sent.last().unwrap());
            world.pass(10_000);
            calls += 1;
            assert!(calls < 100, "not direct any more");
        }
        let before = [by(&world, &[0]), by(&world, &[3, 4])];
        world.net.silence(1, 0);
        for number in 0..EACH {
            let text = format!("number {round}.{number}");
            send(&mut world, 0, "node2", &text);
            sent.push(text);
        }
        world.pass(5_000);
        let bytes = [by(&world, &[0]) - before[0], by(&world, &[3, 4]) - before[1]];
        let all = BLOB * u64::try_from(EACH).unwrap();
        assert!(bytes.iter().all(|bytes| *bytes > all), "all took both paths: {bytes:?}");
        world.heal();
    }
    world.pass(600_000);
    let shown = texts(&mut world, 1, "node1");
    assert!(shown.len() == ROUNDS * EACH && sent.ends_with(&shown), "each once, in order");
}

#[test]
fn a_group_adds_and_removes_and_the_removed_read_no_more() {
    let mut world = trio();
    let word = friends(&mut world, &["node2"]);
    send(&mut world, 0, &word, "two of us");
    world.pass(A_WHILE);
    add_member(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    send(&mut world, 1, &word, "three of us");
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 2, &word), ["three of us"]);
    remove_member(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    send(&mut world, 0, &word, "two again");
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, &word), ["two of us", "three of us", "two again"]);
    assert_eq!(texts(&mut world, 2, &word), ["three of us"]);
    assert_eq!(group(&mut world, 2, &word).state, GroupState::Removed);
    let refused = Command::Send { to: word.clone(), text: "let me in".into(), reply_to: None };
    assert!(world.command(2, refused).is_err());
    let (one, two) = (group(&mut world, 0, &word), group(&mut world, 1, &word));
    assert_eq!(one.epoch_authenticator, two.epoch_authenticator);
    assert_eq!(one.members.len(), 2);
}

#[test]
fn a_member_leaves_by_itself() {
    let mut world = trio();
    let word = friends(&mut world, &["node2", "node3"]);
    leave_group(&mut world, 2, &word);
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 0, &word).members.len(), 2);
    assert_eq!(group(&mut world, 2, &word).state, GroupState::Left);
}

#[test]
fn two_admins_at_the_same_moment_end_in_one_state() {
    let mut world = trio();
    let word = friends(&mut world, &["node2", "node3"]);
    promote(&mut world, 0, &word, "node2");
    world.pass(A_WHILE);
    for round in 0..5 {
        for host in [0, 1] {
            let name = format!("name {round} of node{}", host + 1);
            rename_group(&mut world, host, &word, &name);
            send(&mut world, host, &word, &format!("round {round} of node{}", host + 1));
        }
        world.pass(A_WHILE);
        let views: Vec<GroupView> = (0..3).map(|host| group(&mut world, host, &word)).collect();
        assert!(views.windows(2).all(|pair| {
            pair[0].epoch_authenticator == pair[1].epoch_authenticator
                && pair[0].name == pair[1].name
        }));
    }
    let histories: Vec<Vec<String>> = (0..3).map(|host| texts(&mut world, host, &word)).collect();
    assert_eq!(histories[0].len(), 10);
    assert_eq!(histories[0], histories[1]);
    assert_eq!(histories[0], histories[2]);
}

#[test]
fn a_friends_node_keeps_a_mailbox() {
    let mut world = World::new(11, 3, 0);
    for (who, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2), (2, 0)] {
        world.introduce(who, to);
    }
    // node3 keeps a mailbox for node2; node1 learns of it with node2's new identity.
    world.command(2, Command::RelayAllow { who: "node2".into() }).unwrap();
    let link = link(&mut world, 2);
    send(&mut world, 0, "node2", "hello");
    world.pass(5_000);
    world.command(1, Command::RelayAdd { link }).unwrap();
    world.pass(A_WHILE);
    send(&mut world, 1, "node1", "from now on I use a friend's node as relay");
    world.pass(A_WHILE);
    world.crash(1);
    let id = send(&mut world, 0, "node2", "are you there?");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert_eq!(texts(&mut world, 1, "node1").last().map(String::as_str), Some("are you there?"));
}

#[test]
fn contacts_learn_of_a_new_name_and_a_new_key() {
    let mut world = trio();
    send(&mut world, 0, "node2", "hello");
    world.pass(5_000);
    let name = sremp_common::name::Username::new("renamed").unwrap();
    world.command(1, Command::IdentityRename { name }).unwrap();
    world.command(1, Command::IdentityRotateNoiseKey).unwrap();
    world.pass(A_WHILE);
    let all = contacts(&mut world, 0);
    let other = world.node(1).key().to_string();
    let contact = all.iter().find(|contact| contact.id == other).unwrap();
    assert_eq!((contact.name.as_str(), contact.alias.as_deref()), ("renamed", Some("node2")));
    world.crash(1);
    world.start(1);
    let id = send(&mut world, 0, "node2", "under the new key");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
}

/// Some messages lie at a relay that is down, while 300 others of the same author go direct.
fn late_messages(mut world: World, place: &dyn Fn(usize) -> String) {
    let (to, back) = (place(1), place(0));
    let mut sent = Vec::new();
    let mut ids = Vec::new();
    let mut write = |world: &mut World, count: usize| {
        for _ in 0..count {
            let text = format!("number {}", sent.len());
            ids.push(send(world, 0, &to, &text));
            sent.push(text);
        }
    };
    write(&mut world, 1);
    world.pass(A_WHILE);
    world.crash(1);
    world.pass(1_000);
    write(&mut world, 5);
    world.pass(A_WHILE);
    [3, 4].into_iter().for_each(|relay| world.crash(relay));
    world.start(1);
    for _ in 0..30 {
        write(&mut world, 10);
        world.pass(2_000);
    }
    let arrived = texts(&mut world, 1, &back).len();
    assert!(arrived >= 301, "{arrived} of those that the relays do not have");
    [3, 4].into_iter().for_each(|relay| world.start(relay));
    world.pass(900_000);
    assert_eq!(texts(&mut world, 1, &back), sent, "each once, in order");
    for id in ids {
        assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    }
}

#[test]
fn what_lay_at_a_relay_while_three_hundred_others_went_direct_is_read_after_all() {
    late_messages(trio(), &|host| format!("node{}", host + 1));
}

#[test]
fn what_lay_at_a_relay_for_a_group_is_read_after_all() {
    let mut world = trio();
    let word = friends(&mut world, &["node2", "node3"]);
    late_messages(world, &|_| word.clone());
}

#[test]
fn seeds_that_are_kept() {
    for seed in 0..8 {
        let report = sremp_sim::run_seed(seed);
        assert!(report.messages > 0, "seed {seed} says nothing");
    }
}

#[test]
fn a_mailbox_moves_to_another_relay_and_loses_nothing() {
    let mut world = World::new(21, 2, 3);
    let (new, old) = (world.relay_link(4), world.relay_link(2));
    world.introduce_all();
    // The third relay is the one to move to: nobody uses it yet.
    for host in [0, 1] {
        for _ in 0..2 {
            world.command(host, Command::RelayRemove { relay: new.clone() }).unwrap();
        }
    }
    send(&mut world, 0, "node2", "hello");
    world.pass(A_WHILE);
    // The old relay holds something when its owner moves away, and cannot be reached just then.
    world.crash(1);
    world.crash(3);
    send(&mut world, 0, "node2", "at the old relay");
    world.pass(A_WHILE);
    world.net.cut(1, 2);
    world.start(1);
    world.start(3);
    let moved = Command::RelayMigrate { relay: old, link: new };
    world.command(1, moved.clone()).unwrap();
    world.pass(A_WHILE);
    assert!(world.command(1, moved).is_err(), "it is used already");
    assert_eq!(texts(&mut world, 1, "node1"), ["hello"]);
    world.heal();
    world.pass(120_000);
    assert_eq!(texts(&mut world, 1, "node1"), ["hello", "at the old relay"], "still read");
    // Whoever writes knows the new place; the old one is gone for ever.
    world.crash(2);
    world.crash(3);
    world.crash(1);
    let id = send(&mut world, 0, "node2", "at the new relay");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, "node1").last().unwrap(), "at the new relay");
}

#[test]
fn m01_messages_that_a_relay_lost_are_sent_again() {
    let mut world = trio();
    send(&mut world, 0, "node2", "hello");
    world.pass(A_WHILE);
    world.crash(1);
    let lost: Vec<_> = (0..5).map(|n| send(&mut world, 0, "node2", &format!("lost {n}"))).collect();
    world.pass(5_000);
    for id in &lost {
        assert_eq!(state(&mut world, 0, id), MessageState::Sent);
    }
    // Both relays acknowledged, and forget everything.
    world.lose_everything([3, 4]);
    world.start(1);
    world.pass(5_000);
    send(&mut world, 0, "node2", "after the gap");
    world.pass(120_000);
    for id in &lost {
        assert_eq!(state(&mut world, 0, id), MessageState::Delivered);
    }
    let expected = ["hello", "lost 0", "lost 1", "lost 2", "lost 3", "lost 4", "after the gap"];
    assert_eq!(texts(&mut world, 1, "node1"), expected);
}

#[test]
fn c13_messages_flow_whatever_the_clock_says() {
    let mut world = trio();
    send(&mut world, 0, "node2", "hello");
    send(&mut world, 1, "node1", "hello");
    world.pass(A_WHILE);
    const DAY: i64 = 86_400_000;
    for error in [-40_000 * DAY, 30_000 * DAY, DAY, -DAY, 0] {
        world.set_clock_error(1, error);
        world.pass(A_WHILE);
        let ids = [send(&mut world, 0, "node2", "to it"), send(&mut world, 1, "node1", "from it")];
        world.pass(A_WHILE);
        for (host, id) in ids.iter().enumerate() {
            let state = state(&mut world, host, id);
            assert_eq!(state, MessageState::Delivered, "{error} ms, host {host}");
        }
    }
}
