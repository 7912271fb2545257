//! Who leaves, is removed, was invited by somebody who is gone, or was away for weeks: what a relay lost
//! of it, or nobody keeps any more, is said again. Played on the simulator.

use sremp_node::api::{Command, GroupState, MessageState, Reply};
use sremp_sim::World;

use crate::user::{
    add_member, create_group, group, leave_group, promote, remove_member, rename_group, send,
    state, texts,
};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 30_000;
/// Virtual time in which whatever is said again has been said.
const SAID_AGAIN: u64 = 45 * 60_000;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Nodes that know each other, and a group of the first `members`, made by the first.
fn team(seed: u64, nodes: usize, members: usize) -> (World, String) {
    let mut world = World::new(seed, nodes, 2);
    world.introduce_all();
    let others = (2..=members).map(|node| format!("contact:node{node}")).collect();
    let word = create_group(&mut world, 0, "team", others);
    world.pass(A_WHILE);
    // Whoever writes is heard, and has renewed its keys.
    for member in 0..members {
        send(&mut world, member, &word, "hello");
        world.pass(A_WHILE);
    }
    (world, word)
}

fn members(world: &mut World, host: usize, word: &str) -> usize {
    group(world, host, word).members.len()
}

fn waiting(world: &mut World, host: usize) -> u64 {
    let Ok(Reply::Status(status)) = world.command(host, Command::Status) else { panic!() };
    status.outbox
}

#[test]
fn a_wish_to_leave_that_a_relay_lost_is_said_again() {
    let (mut world, word) = team(41, 3, 3);
    (0..2).for_each(|host| world.crash(host));
    leave_group(&mut world, 2, &word);
    world.pass(A_WHILE);
    world.lose_everything([3, 4]);
    (0..2).for_each(|host| world.start(host));
    world.pass(SAID_AGAIN);
    for host in 0..2 {
        assert_eq!(members(&mut world, host, &word), 2);
    }
    assert_eq!(group(&mut world, 2, &word).state, GroupState::Left);
    assert_eq!(waiting(&mut world, 2), 0);
}

#[test]
fn two_who_removed_each_other_hear_of_it_after_days_in_which_nothing_could_be_sent() {
    let mut world = World::new(49, 2, 1);
    world.introduce_all();
    let word = create_group(&mut world, 0, "team", vec!["contact:node2".into()]);
    world.pass(A_WHILE);
    promote(&mut world, 0, &word, "node2");
    world.pass(A_WHILE);
    world.crash(2);
    world.net.cut(0, 1);
    remove_member(&mut world, 0, &word, "node2");
    remove_member(&mut world, 1, &word, "node1");
    world.pass(A_WHILE);
    (0..2).for_each(|host| world.crash(host));
    world.pass(2 * DAY);
    // The relay comes last: the first attempts of both are in vain.
    (0..2).for_each(|host| world.start(host));
    world.pass(A_WHILE);
    world.start(2);
    world.heal();
    world.pass(SAID_AGAIN);
    let mut states = [0, 1].map(|host| group(&mut world, host, &word).state);
    states.sort_by_key(|state| *state == GroupState::Removed);
    assert_eq!(states, [GroupState::Active, GroupState::Removed], "one of them has won");
    assert_eq!([0, 1].map(|host| waiting(&mut world, host)), [0, 0]);
}

#[test]
fn what_the_last_member_writes_waits_for_whoever_comes() {
    let (mut world, word) = team(48, 3, 2);
    leave_group(&mut world, 1, &word);
    world.pass(A_WHILE);
    assert_eq!(members(&mut world, 0, &word), 1);
    let alone = send(&mut world, 0, &word, "nobody");
    add_member(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &alone), MessageState::Delivered);
    assert!(texts(&mut world, 2, &word).contains(&"nobody".to_owned()));
}

#[test]
fn a_leave_is_carried_out_by_whoever_is_there_each_in_turn() {
    let (mut world, word) = team(47, 4, 4);
    let epoch = group(&mut world, 2, &word).epoch;
    // The first two in leaf order are away, and the one whose turn it is then is started again.
    (0..2).for_each(|host| world.crash(host));
    leave_group(&mut world, 3, &word);
    world.pass(A_WHILE);
    assert_eq!(members(&mut world, 2, &word), 4, "it is not on the third one yet");
    world.crash(2);
    world.start(2);
    world.pass(4 * MINUTE);
    assert_eq!(members(&mut world, 2, &word), 3);
    assert_eq!(group(&mut world, 3, &word).state, GroupState::Left);
    let carried_out = group(&mut world, 2, &word).epoch_authenticator;
    // The admin would be the first, and reads the wish before it reads that it was carried out.
    (0..2).for_each(|host| world.start(host));
    world.pass(5 * MINUTE);
    for host in 0..3 {
        let view = group(&mut world, host, &word);
        assert_eq!((view.members.len(), view.epoch), (3, epoch + 1), "committed once, at {host}");
        assert_eq!(view.epoch_authenticator, carried_out, "by the one who was there, at {host}");
    }
}

#[test]
fn who_was_invited_by_somebody_who_left_is_invited_by_another_admin() {
    let (mut world, word) = team(42, 4, 3);
    promote(&mut world, 0, &word, "node2");
    world.pass(A_WHILE);
    // It takes the key package from a relay, and the invitation is lost there.
    world.crash(3);
    add_member(&mut world, 1, &word, "node4");
    world.pass(A_WHILE);
    assert_eq!(members(&mut world, 0, &word), 4);
    world.lose_everything([4, 5]);
    leave_group(&mut world, 1, &word);
    world.pass(A_WHILE);
    assert_eq!(members(&mut world, 0, &word), 3);
    world.start(3);
    world.pass(SAID_AGAIN);
    assert_eq!(group(&mut world, 3, &word).state, GroupState::Active);
    send(&mut world, 0, &word, "welcome");
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 3, &word).last().map(String::as_str), Some("welcome"));
}

#[test]
fn who_left_in_a_state_that_nobody_else_keeps_says_so() {
    let (mut world, word) = team(43, 3, 3);
    promote(&mut world, 0, &word, "node2");
    world.pass(A_WHILE);
    // The second one carries it out, and loses its home; the first one hears of nothing.
    (0..2).for_each(|host| world.crash(host));
    let backup = world.backup(1);
    world.start(1);
    leave_group(&mut world, 2, &word);
    world.pass(A_WHILE);
    rename_group(&mut world, 1, &word, "smaller");
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 2, &word).members.len(), 2);
    (1..3).for_each(|host| world.crash(host));
    world.restore(1, &backup);
    world.lose_everything([3, 4]);
    // Until nobody keeps the state in which it was carried out.
    world.pass(8 * DAY);
    (0..3).for_each(|host| world.start(host));
    send(&mut world, 0, &word, "who is there?");
    world.pass(SAID_AGAIN);
    for host in 0..2 {
        let view = group(&mut world, host, &word);
        assert_eq!((view.state, view.members.len()), (GroupState::Active, 2));
    }
    assert_eq!(group(&mut world, 2, &word).state, GroupState::Left);
}

#[test]
fn who_was_added_anew_and_lacks_the_invitation_is_not_taken_for_gone() {
    let (mut world, word) = team(46, 3, 3);
    promote(&mut world, 0, &word, "node2");
    world.pass(A_WHILE);
    // The third one is removed, and added anew while it is away; its invitation is lost.
    world.crash(1);
    remove_member(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 2, &word).state, GroupState::Removed);
    world.crash(2);
    add_member(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    assert_eq!(members(&mut world, 0, &word), 3);
    world.lose_everything([3, 4]);
    // The second one comes back from outside: of what was done it knows the outcome alone.
    for number in 0..12 {
        rename_group(&mut world, 0, &word, &format!("name {number}"));
        world.pass(15 * 60_000);
    }
    world.lose_everything([3, 4]);
    world.start(1);
    send(&mut world, 0, &word, "back?");
    world.pass(SAID_AGAIN);
    let mark = group(&mut world, 0, &word).epoch_authenticator;
    assert_eq!(group(&mut world, 1, &word).epoch_authenticator, mark);
    // It asks the third one, whom nobody else can tell.
    world.crash(0);
    world.start(2);
    send(&mut world, 1, &word, "who is there?");
    world.pass(SAID_AGAIN);
    assert_eq!(members(&mut world, 1, &word), 3);
    // The first one still has the invitation.
    world.start(0);
    send(&mut world, 0, &word, "now");
    world.pass(DAY);
    for host in 0..3 {
        let view = group(&mut world, host, &word);
        assert_eq!((view.state, view.members.len()), (GroupState::Active, 3), "at {host}");
    }
    assert_eq!(texts(&mut world, 2, &word).last().map(String::as_str), Some("now"));
}

#[test]
fn what_waits_for_somebody_who_is_no_member_any_more_is_given_up() {
    let (mut world, word) = team(44, 3, 3);
    (2..5).for_each(|host| world.crash(host));
    let id = send(&mut world, 0, &word, "to all");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Queued);
    remove_member(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    assert!(waiting(&mut world, 0) > 0);
    world.pass(3 * HOUR);
    assert_eq!(waiting(&mut world, 0), 0);
    // For those who are members it has come as far as it can.
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
}

#[test]
fn whoever_was_away_until_the_tokens_that_they_know_are_over_gets_newer_ones_with_a_question() {
    let mut world = World::new(45, 3, 2);
    // The second and the third one share nothing but the group.
    world.introduce_to(1);
    let others = vec!["contact:node2".into(), "contact:node3".into()];
    let word = create_group(&mut world, 0, "team", others);
    world.pass(A_WHILE);
    for member in 0..3 {
        send(&mut world, member, &word, "hello");
        world.pass(A_WHILE);
    }
    world.crash(0);
    world.crash(2);
    // It renews its keys once a week, and with them its token; the one before is good for eight days.
    for text in ["one", "two", "three"] {
        // Nothing runs meanwhile: keep-alives of weeks take a while to play.
        [1, 3, 4].into_iter().for_each(|machine| world.crash(machine));
        world.pass(9 * DAY);
        [1, 3, 4].into_iter().for_each(|machine| world.start(machine));
        world.pass(A_WHILE);
        send(&mut world, 1, &word, text);
        world.pass(A_WHILE);
    }
    world.lose_everything([3, 4]);
    world.start(2);
    world.pass(A_WHILE);
    send(&mut world, 1, &word, "is anybody there?");
    // Since the first one does not answer, nobody is asked more often than once a day.
    world.pass(DAY + HOUR);
    assert_eq!(
        group(&mut world, 1, &word).epoch_authenticator,
        group(&mut world, 2, &word).epoch_authenticator
    );
    let read = texts(&mut world, 2, &word);
    for text in ["one", "two", "three", "is anybody there?"] {
        assert!(read.iter().any(|it| it == text), "{text} is not in {read:?}");
    }
}
