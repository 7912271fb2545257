//! Invitations that are declined, expire, or are made again: nothing that was acknowledged stays out of
//! sight for ever. Played on the simulator.

use sremp_node::api::{Command, MessageKind, MessageState, Reply};
use sremp_node::groups::Suite;
use sremp_sim::World;

use crate::user::{ask, create_group, group, history, requests, send, state, texts};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 60_000;
/// Longer than a request waits for an answer.
const A_MONTH: i64 = 31 * 86_400_000;

fn decline(world: &mut World, host: usize, who: &str) {
    world.command(host, Command::RequestsDecline { who: who.into() }).unwrap();
    assert_eq!(requests(world, host).len(), 0, "it is not shown any more");
}

/// What waits for an answer at a node is too old.
fn expire_requests(world: &mut World, host: usize) {
    world.set_clock_error(host, A_MONTH);
    world.pass(700_000);
    world.set_clock_error(host, 0);
    assert_eq!(requests(world, host).len(), 0);
}

/// node2 has written to node1, a stranger to whom it is one.
fn first_contact(seed: u64) -> (World, String) {
    let mut world = World::new(seed, 2, 1);
    world.use_relays(0);
    world.use_relays(1);
    world.pass(2_000);
    world.introduce(0, 1);
    let id = send(&mut world, 1, "node1", "it is me");
    world.pass(A_WHILE);
    assert_eq!(requests(&mut world, 0).len(), 1);
    (world, id)
}

#[test]
fn whoever_was_declined_and_is_added_later_is_read_from_the_beginning() {
    // Which of two groups of a chat has the lower id is left to chance.
    for seed in 40..46 {
        let (mut world, first) = first_contact(seed);
        decline(&mut world, 0, "node2");
        let second = send(&mut world, 1, "node1", "are you there?");
        world.pass(A_WHILE);
        assert!(state(&mut world, 1, &second) < MessageState::Delivered);
        world.introduce(1, 0);
        let answer = send(&mut world, 0, "node2", "now I am");
        world.pass(A_WHILE);
        let third = send(&mut world, 1, "node1", "good");
        world.pass(A_WHILE);
        assert_eq!(state(&mut world, 0, &answer), MessageState::Delivered, "seed {seed}");
        for id in [&first, &second, &third] {
            assert_eq!(state(&mut world, 1, id), MessageState::Delivered, "seed {seed}");
        }
        let expected = ["it is me", "are you there?", "now I am", "good"];
        for (host, with) in [(0, "node2"), (1, "node1")] {
            assert_eq!(texts(&mut world, host, with), expected, "seed {seed}, host {host}");
        }
    }
}

#[test]
fn a_chat_goes_on_in_the_group_in_which_the_other_side_was_heard() {
    for seed in 50..58 {
        let (mut world, first) = first_contact(seed);
        if seed % 2 == 0 {
            decline(&mut world, 0, "node2");
        }
        expire_requests(&mut world, 0);
        // The first group is lost to node1 for ever: it makes one of its own.
        world.introduce(1, 0);
        let answer = send(&mut world, 0, "node2", "who is it?");
        world.pass(5_000);
        if seed % 4 == 1 {
            // Before what was lost is looked at.
            world.crash(1);
            world.pass(1_000);
            world.start(1);
        }
        world.pass(A_WHILE);
        let second = send(&mut world, 1, "node1", "me");
        world.pass(A_WHILE);
        assert_eq!(state(&mut world, 0, &answer), MessageState::Delivered, "seed {seed}");
        for id in [&first, &second] {
            assert_eq!(state(&mut world, 1, id), MessageState::Delivered, "seed {seed}");
        }
        let expected = ["it is me", "who is it?", "me"];
        for (host, with) in [(0, "node2"), (1, "node1")] {
            assert_eq!(texts(&mut world, host, with), expected, "seed {seed}, host {host}");
        }
    }
}

#[test]
fn a_link_given_once_more_invites_whoever_lost_the_invitation() {
    let (mut world, first) = first_contact(60);
    expire_requests(&mut world, 0);
    // They are a contact now, write nothing, and cannot read what comes.
    world.introduce(1, 0);
    let second = send(&mut world, 1, "node1", "still me");
    world.pass(A_WHILE);
    assert!(texts(&mut world, 0, "node2").is_empty());
    world.introduce(0, 1);
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 0, "node2"), ["it is me", "still me"]);
    for id in [&first, &second] {
        assert_eq!(state(&mut world, 1, id), MessageState::Delivered);
    }
    // Once they were heard, a link changes nothing.
    world.introduce(0, 1);
    world.pass(A_WHILE);
    send(&mut world, 1, "node1", "as before");
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 0, "node2"), ["it is me", "still me", "as before"]);
}

#[test]
fn strangers_who_become_contacts_in_the_end_have_read_everything() {
    for seed in 0..20 {
        let report = sremp_sim::run_strangers(seed);
        assert!(report.virtual_ms > 0);
    }
}

/// node1 has invited node2, who knows it, and node3, to whom it is a stranger, to a group.
fn invited_by_a_stranger(seed: u64) -> (World, String) {
    let mut world = World::new(seed, 3, 1);
    (0..3).for_each(|host| world.use_relays(host));
    world.pass(2_000);
    for (who, to) in [(0, 1), (1, 0), (2, 0)] {
        world.introduce(who, to);
    }
    let members = vec!["contact:node2".into(), "contact:node3".into()];
    let word = create_group(&mut world, 0, "circle", members);
    world.pass(A_WHILE);
    send(&mut world, 0, &word, "welcome");
    world.pass(5_000);
    send(&mut world, 1, &word, "hello");
    world.pass(A_WHILE);
    assert_eq!(requests(&mut world, 2).len(), 1);
    (world, word)
}

#[test]
fn a_member_who_declined_reads_all_after_adding_the_inviter() {
    let (mut world, word) = invited_by_a_stranger(70);
    decline(&mut world, 2, "node1");
    world.pass(A_WHILE);
    world.introduce(0, 2);
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 2, &word), ["welcome", "hello"]);
    send(&mut world, 2, &word, "here I am");
    world.pass(A_WHILE);
    for host in 0..3 {
        assert_eq!(texts(&mut world, host, &word), ["welcome", "hello", "here I am"]);
    }
}

#[test]
fn a_member_who_was_never_heard_can_be_invited_again() {
    for expired in [false, true] {
        let (mut world, word) = invited_by_a_stranger(71);
        decline(&mut world, 2, "node1");
        if expired {
            expire_requests(&mut world, 2);
        }
        let add = Command::GroupAdd { group: word.clone(), who: vec!["node3".into()] };
        let view = ask!(world, 0, add.clone(), Reply::Group);
        let node3 = world.node(2).key().to_string();
        let member = view.members.iter().find(|member| member.id == node3).unwrap();
        assert!(member.pending, "invited once more");
        let notices = history(&mut world, 0, &word);
        let last = notices.iter().rfind(|view| view.kind == MessageKind::Notice).unwrap();
        assert_eq!(last.text, "node3 has not been heard here; they are invited again");
        // Nobody else would add them anew.
        let refused = world.command(0, Command::GroupLeave { group: word.clone() }).unwrap_err();
        assert!(refused.message.contains("node3 is being invited again"), "{refused:?}");
        world.pass(A_WHILE);
        assert_eq!(requests(&mut world, 2).len(), 1, "asked once more");
        world.command(2, Command::RequestsAccept { who: "node1".into() }).unwrap();
        world.pass(A_WHILE);
        send(&mut world, 2, &word, "yes");
        world.pass(A_WHILE);
        // What it never confirmed comes again from whoever has the right to say it.
        assert_eq!(texts(&mut world, 2, &word).first().unwrap(), "welcome");
        send(&mut world, 1, &word, "good");
        world.pass(A_WHILE);
        for host in 0..3 {
            let expected = ["welcome", "hello", "yes", "good"];
            assert_eq!(texts(&mut world, host, &word), expected, "host {host}");
            let view = group(&mut world, host, &word);
            assert_eq!(view.members.len(), 3);
        }
        let refused = world.command(0, add).unwrap_err();
        assert_eq!(refused.message, "node3 is a member already");
    }
}

/// An invitation that is longer than what mailboxes take from strangers, for a contact with whom there is
/// no chat yet: it is refused, the owner reads why, and it comes once there is one.
#[test]
fn a_long_invitation_comes_by_relay_when_both_were_heard_in_a_chat() {
    let count = 52;
    let mut world = World::new(71, count, 1);
    world.introduce_to(1);
    world.pass(A_WHILE);
    // The second one is reached by the relay alone, the third one directly; the others are of no
    // interest.
    world.net.cut(0, 1);
    world.crash(1);
    (3..count).for_each(|node| world.crash(node));
    let members = (2..=count).map(|node| format!("contact:node{node}")).collect();
    let suite = Some(Suite::MlKem768X25519.name().to_owned());
    let command = Command::GroupCreate { name: "many".into(), members, suite };
    let Ok(Reply::Group(view)) = world.command(0, command) else { panic!("no group") };
    let word = format!("group:{}", view.id);
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 2, &word).members.len(), count, "a session takes it");
    let notices = history(&mut world, 0, &word);
    let is_told = |name: &str| notices.iter().any(|row| row.text.starts_with(name));
    assert!(is_told("node2 could not be invited yet") && !is_told("node3 could not"));
    world.start(1);
    world.pass(45 * 60_000);
    assert_eq!(group(&mut world, 1, &word).members.len(), count);
    send(&mut world, 1, &word, "here at last");
    world.pass(A_WHILE);
    assert!(texts(&mut world, 2, &word).contains(&"here at last".to_owned()));
}
