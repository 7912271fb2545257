//! Groups whose members fell out of step: noticed, and mended by themselves. Played on the simulator.

use std::collections::BTreeSet;

use sremp_node::api::{Change, Command, EventBody, GroupState, MessageState, Reply, Role};
use sremp_sim::{Tricks, World};

use crate::user::{
    add_member, ask, create_group, group, history, leave_group, message, promote, remove_member,
    rename_group, send, state, texts,
};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 30_000;
/// Virtual time in which every step of healing has had its turn.
const HEALED: u64 = 30 * 60_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 3_600_000;

/// What a node told of its groups.
fn changes(world: &mut World, host: usize) -> Vec<Change> {
    let of_group = |event| {
        if let EventBody::Group { change, .. } = event { Some(change) } else { None }
    };
    world.events(host).into_iter().filter_map(of_group).collect()
}

/// Nodes that know each other, and a group of all of them made by the first.
fn team(seed: u64, count: usize) -> (World, String) {
    let mut world = World::new(seed, count, 2);
    world.introduce_all();
    let members = (2..=count).map(|node| format!("contact:node{node}")).collect();
    let word = create_group(&mut world, 0, "team", members);
    world.pass(A_WHILE);
    (world, word)
}

fn assert_agree(world: &mut World, hosts: &[usize], word: &str) {
    let views: Vec<_> = hosts.iter().map(|host| group(world, *host, word)).collect();
    let marks: Vec<_> = views.iter().map(|view| (view.epoch, &view.epoch_authenticator)).collect();
    assert!(marks.windows(2).all(|pair| pair[0] == pair[1]), "{marks:?}");
    for view in &views {
        assert_eq!((view.state, &view.healing), (GroupState::Active, &None));
    }
}

#[test]
fn m17_a_node_restored_from_an_old_copy_notices_and_joins_its_groups_anew() {
    let (mut world, word) = team(11, 3);
    send(&mut world, 1, "group:team", "before the backup");
    send(&mut world, 1, "contact:node1", "to one, before");
    world.pass(A_WHILE);
    world.crash(1);
    let backup = world.backup(1);
    world.start(1);
    world.pass(A_WHILE);
    // What is done after the backup is unknown to it: messages of its own, and of its keys.
    for text in ["one", "two", "three"] {
        send(&mut world, 1, "group:team", text);
        send(&mut world, 1, "contact:node1", text);
    }
    world.pass(A_WHILE);
    world.crash(1);
    world.restore(1, &backup);
    world.start(1);
    world.pass(HEALED);
    let told = changes(&mut world, 1);
    assert!(told.contains(&Change::Rejoined), "it joined anew, and says so: {told:?}");
    assert_agree(&mut world, &[0, 1, 2], &word);
    let ids =
        ["group:team", "contact:node1"].map(|to| send(&mut world, 1, to, "after the restore"));
    world.pass(A_WHILE);
    for id in ids {
        assert_eq!(state(&mut world, 1, &id), MessageState::Delivered);
    }
    let expected = ["before the backup", "one", "two", "three", "after the restore"];
    assert_eq!(texts(&mut world, 0, "group:team"), expected);
    assert_eq!(texts(&mut world, 2, "group:team"), expected);
    let own = texts(&mut world, 0, "contact:node2");
    assert_eq!(own, ["to one, before", "one", "two", "three", "after the restore"]);
}

#[test]
fn m07_a_member_from_whom_a_commit_was_withheld_gets_it_from_others() {
    let (mut world, word) = team(12, 3);
    send(&mut world, 2, "group:team", "hello");
    world.pass(A_WHILE);
    // The only relay that the commit reaches loses everything before its owner is back.
    world.crash(2);
    world.crash(4);
    rename_group(&mut world, 0, &word, "renamed");
    world.pass(A_WHILE);
    world.crash(3);
    world.forget_all(3);
    [2, 3, 4].into_iter().for_each(|host| world.start(host));
    world.pass(A_WHILE);
    let name = group(&mut world, 2, &word).name;
    send(&mut world, 0, "group:renamed", "can you read this?");
    world.pass(HEALED);
    let told = changes(&mut world, 2);
    assert_eq!(name, "team");
    assert!(told.contains(&Change::Recovered), "it says so: {told:?}");
    assert!(texts(&mut world, 2, &word).contains(&"can you read this?".to_owned()));
    assert_eq!(group(&mut world, 2, &word).name, "renamed");
    assert_agree(&mut world, &[0, 1, 2], &word);
    send(&mut world, 0, "group:renamed", "in step again");
    world.pass(A_WHILE);
    assert!(texts(&mut world, 2, &word).contains(&"in step again".to_owned()));
}

/// Relays that withhold one kind of blob for ever: what is as long as a commit. Both sides are told, and
/// not by a clock: whoever misses the commit by what it cannot read, the others by who does not confirm.
#[test]
fn m07_a_withheld_commit_is_noticed_on_both_sides() {
    /// Longer than a short message, a receipt or a question, shorter than any commit.
    const LONGEST: usize = 1024;
    let (mut world, word) = team(22, 3);
    for host in 0..3 {
        send(&mut world, host, "group:team", &format!("hello from {host}"));
    }
    world.pass(A_WHILE);
    let victim = world.node(2).key();
    for relay in [3, 4] {
        let withholds_from = BTreeSet::from([victim]);
        world.play(relay, Tricks { withholds_from, longest: Some(LONGEST), ..Tricks::default() });
    }
    // Nobody reaches the victim but by relay.
    world.net.cut(0, 2);
    world.net.cut(1, 2);
    rename_group(&mut world, 0, &word, "renamed");
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 2, &word).name, "team", "it is withheld");
    assert!(!changes(&mut world, 2).contains(&Change::Checking), "nothing tells of it yet");
    let ids = [0, 1].map(|host| send(&mut world, host, &word, &format!("do you agree, {host}?")));
    world.pass(2 * 60_000);
    let told = changes(&mut world, 2);
    assert!(told.contains(&Change::Checking), "the victim knows: {told:?}");
    assert!(group(&mut world, 2, &word).healing.is_some(), "and is shown it");
    for (host, id) in ids.iter().enumerate() {
        let recipients = message(&mut world, host, id).recipients;
        let of = |key: String| recipients.iter().find(|it| it.id == key).unwrap().state;
        assert_eq!(of(victim.to_string()), MessageState::Sent, "their authors know");
        let other = world.node(1 - host).key().to_string();
        assert_eq!(of(other), MessageState::Delivered);
    }
    assert_eq!(texts(&mut world, 2, &word).len(), 3, "nothing is shown that cannot be placed");
    for relay in [3, 4] {
        world.play(relay, Tricks::default());
    }
    world.pass(HEALED);
    assert_agree(&mut world, &[0, 1, 2], &word);
    assert_eq!(group(&mut world, 2, &word).name, "renamed");
    assert_eq!(texts(&mut world, 2, &word), texts(&mut world, 0, &word));
    for (host, id) in ids.iter().enumerate() {
        assert_eq!(state(&mut world, host, id), MessageState::Delivered);
    }
}

/// A relay has one message of each epoch and is not reached, while the commits come by another way.
#[test]
fn m04_a_message_from_each_of_the_last_epochs_is_shown_however_late_it_comes() {
    let (mut world, word) = team(23, 2);
    send(&mut world, 0, &word, "hello");
    send(&mut world, 1, &word, "hello");
    world.pass(A_WHILE);
    let mut sent = texts(&mut world, 0, &word);
    let mut hold = |world: &mut World, text: String| {
        let known = texts(world, 1, &word).len();
        let before = group(world, 1, &word).epoch;
        world.net.cut(0, 1);
        world.net.cut(1, 2);
        world.crash(3);
        let id = send(world, 0, &word, &text);
        world.pass(3_000);
        assert_eq!(state(world, 0, &id), MessageState::Sent);
        world.start(3);
        world.heal();
        world.net.cut(1, 2);
        rename_group(world, 0, &word, &text);
        let mut passed = 0;
        while group(world, 1, &word).epoch == before {
            world.pass(1_000);
            passed += 1;
            assert!(passed < 60, "the commit does not come");
        }
        assert_eq!(texts(world, 1, &word).len(), known, "the message does not come");
        sent.push(text);
    };
    for number in 0..7 {
        hold(&mut world, format!("in epoch {number}"));
    }
    world.heal();
    let mut passed = 0;
    while texts(&mut world, 1, &word).len() == 2 {
        world.pass(1_000);
        passed += 1;
        assert!(passed < 300, "the relay is not reached");
    }
    // All at once, by the states that were kept: sooner than anything is sent again.
    world.pass(5_000);
    assert_eq!(texts(&mut world, 1, &word), sent);
}

#[test]
fn a_split_for_longer_than_states_are_kept_heals_on_the_side_of_the_admin() {
    let (mut world, word) = team(13, 4);
    for host in 0..4 {
        send(&mut world, host, "group:team", &format!("hello from {host}"));
    }
    world.pass(A_WHILE);
    // Two sides that cannot reach each other, nor the same relay.
    for left in [0, 1, 4] {
        for right in [2, 3, 5] {
            world.net.cut(left, right);
        }
    }
    for round in 0..12 {
        rename_group(&mut world, 0, &word, &format!("name {round}"));
        for host in 0..4 {
            for part in 0..5 {
                send(&mut world, host, &word, &format!("{host} in round {round}.{part}"));
            }
        }
        // Twelve epochs of one side, and longer than an epoch is kept at least.
        world.pass(15 * 60_000);
    }
    world.heal();
    world.pass(2 * 3_600_000);
    assert_agree(&mut world, &[0, 1, 2, 3], &word);
    assert_eq!(group(&mut world, 3, &word).name, "name 11", "the admin's side stands");
    let mut all: Vec<Vec<String>> = (0..4).map(|host| texts(&mut world, host, &word)).collect();
    for texts in &mut all {
        texts.sort_unstable();
        assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "twice in one history");
    }
    for texts in &all {
        let missing: Vec<_> = all[0].iter().filter(|text| !texts.contains(text)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
    assert_eq!(all[0].len(), 4 + 12 * 4 * 5, "{:?}", all[0]);
}

/// The step after offers, which never arrive here: an admin removes and adds the lost member.
#[test]
fn a_member_whom_no_offer_reaches_is_added_anew_and_is_an_admin_as_before() {
    let (mut world, word) = team(15, 3);
    promote(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    // The third can be reached by relays only, and they keep from it what is as long as an offer.
    world.net.cut(0, 2);
    world.net.cut(1, 2);
    world.crash(2);
    for round in 0..12 {
        rename_group(&mut world, 0, &word, &format!("name {round}"));
        world.pass(15 * 60_000);
    }
    for relay in [3, 4] {
        // Whatever waits for it there is gone.
        world.lose_everything([relay]);
        let withholds_from = BTreeSet::from([world.node(2).key()]);
        world.play(relay, Tricks { withholds_from, longest: Some(2048), ..Tricks::default() });
    }
    world.start(2);
    send(&mut world, 0, &word, "can you read this?");
    world.pass(HEALED);
    assert!(changes(&mut world, 0).contains(&Change::Removed), "an admin has removed it");
    let [kept, lost] = [0, 2].map(|host| group(&mut world, host, &word).epoch);
    assert!(lost < kept, "and its invitation is withheld, too");
    let told = changes(&mut world, 2);
    let steps = [Change::Rejoining, Change::WaitingForAdmin];
    assert!(steps.iter().all(|step| told.contains(step)), "each step is told: {told:?}");
    let Ok(Reply::Groups(rows)) = world.command(2, Command::GroupList) else { panic!() };
    assert_eq!(rows[0].state, GroupState::Recovering);
    for relay in [3, 4] {
        world.play(relay, Tricks::default());
    }
    world.pass(HEALED);
    assert_agree(&mut world, &[0, 1, 2], &word);
    let view = group(&mut world, 2, &word);
    assert_eq!((view.name.as_str(), view.members.len()), ("name 11", 3));
    assert!(view.members.iter().all(|it| it.role == Role::Admin || it.name == "node2"), "{view:?}");
    send(&mut world, 2, &word, "here again");
    world.pass(A_WHILE);
    assert!(texts(&mut world, 1, &word).contains(&"here again".to_owned()));
}

/// In a group of so many nobody confirms anything: what somebody lacks who is back from outside is not
/// known, and comes again if it is not old.
#[test]
fn who_comes_back_to_a_large_group_reads_what_was_written_meanwhile() {
    let count = 52;
    let mut world = World::new(25, count, 1);
    world.introduce_to(1);
    let others = (2..=count).map(|node| format!("contact:node{node}")).collect();
    let word = create_group(&mut world, 0, "many", others);
    world.pass(A_WHILE);
    // What most of them do is not of interest; it takes its time.
    (3..count).for_each(|node| world.crash(node));
    send(&mut world, 1, &word, "hello");
    world.crash(2);
    world.pass(A_WHILE);
    send(&mut world, 1, &word, "said while one was away");
    for round in 0..10 {
        rename_group(&mut world, 0, &word, &format!("name {round}"));
        world.pass(15 * MINUTE);
    }
    world.lose_everything([count]);
    world.start(2);
    send(&mut world, 0, &word, "can you read this?");
    world.pass(HEALED);
    assert_agree(&mut world, &[0, 1, 2], &word);
    let read = texts(&mut world, 2, &word);
    for text in ["said while one was away", "can you read this?"] {
        assert_eq!(read.iter().filter(|it| *it == text).count(), 1, "{text} in {read:?}");
    }
    // Whoever is removed and added anew gets nothing of what was said meanwhile.
    remove_member(&mut world, 0, &word, "node3");
    world.pass(MINUTE);
    send(&mut world, 0, &word, "not for everybody");
    world.pass(MINUTE);
    add_member(&mut world, 0, &word, "node3");
    world.pass(MINUTE);
    send(&mut world, 0, &word, "welcome back");
    world.pass(HEALED);
    let read = texts(&mut world, 2, &word);
    assert!(read.contains(&"welcome back".to_owned()), "{read:?}");
    assert!(!read.contains(&"not for everybody".to_owned()), "{read:?}");
}

/// A relay loses what it acknowledged, and nobody says anything afterwards.
#[test]
fn a_message_that_a_relay_lost_is_sent_again_when_its_recipient_answers() {
    let (mut world, _) = team(16, 2);
    send(&mut world, 0, "contact:node2", "hello");
    world.pass(A_WHILE);
    world.crash(1);
    let lost = send(&mut world, 0, "contact:node2", "do not lose this");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &lost), MessageState::Sent);
    world.lose_everything([2, 3]);
    world.start(1);
    world.pass(HEALED);
    assert_eq!(texts(&mut world, 1, "contact:node1"), ["hello", "do not lose this"]);
    assert_eq!(state(&mut world, 0, &lost), MessageState::Delivered);
}

/// Relays lose invitations that they acknowledged, of one who was invited alone and of some who were
/// invited together: they come again, when their members meet, or else after a while.
#[test]
fn an_invitation_that_a_relay_lost_is_sent_again() {
    for meet in [true, false] {
        for invited in [1, 3] {
            let (mut world, _) = team(21, 5);
            let members = (2..2 + invited).map(|node| format!("contact:node{node}")).collect();
            let command = Command::GroupCreate { name: "late".into(), members, suite: None };
            (1..=invited).for_each(|host| world.crash(host));
            let Ok(Reply::Group(view)) = world.command(0, command) else { panic!("no group") };
            world.pass(A_WHILE);
            world.lose_everything([5, 6]);
            if !meet {
                (1..5).for_each(|host| world.net.cut(0, host));
            }
            (1..=invited).for_each(|host| world.start(host));
            if meet {
                (1..=invited).for_each(|host| drop(send(&mut world, host, "node1", "back")));
            }
            world.pass(if meet { A_WHILE } else { HEALED });
            for host in 1..=invited {
                let state = group(&mut world, host, &view.id).state;
                assert_eq!(state, GroupState::Active, "{invited} invited, they meet: {meet}");
            }
            send(&mut world, 0, &format!("group:{}", view.id), "welcome");
            world.pass(A_WHILE);
            for host in 1..=invited {
                assert_eq!(texts(&mut world, host, &format!("group:{}", view.id)), ["welcome"]);
            }
        }
    }
}

/// A relay lost an invitation whose author has left since. Another admin makes it anew: one whom the
/// invited knows, and not the one on whose invitation it would have to decide.
#[test]
fn an_invitation_whose_author_has_left_is_made_anew_by_an_admin_whom_the_invited_knows() {
    let mut world = World::new(22, 4, 2);
    world.introduce_to(1);
    let known = if world.node(1).key() < world.node(2).key() { 2 } else { 1 };
    world.introduce(known, 3);
    world.introduce(3, known);
    let word = create_group(&mut world, 0, "team", vec!["node2".into(), "node3".into()]);
    world.pass(A_WHILE);
    for admin in ["node2", "node3"] {
        promote(&mut world, 0, &word, admin);
    }
    world.crash(3);
    add_member(&mut world, 0, &word, "node4");
    world.pass(A_WHILE);
    world.lose_everything([4, 5]);
    leave_group(&mut world, 0, &word);
    world.pass(A_WHILE);
    world.start(3);
    // Asked twice, because it is the second one that knows them, and invited an hour after it began.
    world.pass(80 * MINUTE);
    assert_agree(&mut world, &[1, 2, 3], &word);
    send(&mut world, 3, &word, "here I am");
    world.pass(A_WHILE);
    for host in 1..4 {
        assert_eq!(texts(&mut world, host, &word), ["here I am"], "host {host}");
    }
}

#[test]
fn whoever_was_removed_while_away_for_longer_than_states_are_kept_is_told() {
    let (mut world, word) = team(17, 3);
    send(&mut world, 2, "group:team", "hello");
    world.pass(A_WHILE);
    world.crash(2);
    world.pass(DAY);
    for round in 0..12 {
        if round == 10 {
            remove_member(&mut world, 0, &word, "node3");
        }
        rename_group(&mut world, 0, &word, &format!("name {round}"));
        world.pass(15 * 60_000);
    }
    world.lose_everything([3, 4]);
    world.start(2);
    world.pass(A_WHILE);
    send(&mut world, 2, &word, "am I still here?");
    // A minute, until an admin's word is believed, and what it takes to ask it again.
    world.pass(3 * 60_000);
    let view = group(&mut world, 2, &word);
    assert_eq!(view.state, GroupState::Removed, "{view:?}");
    let told = changes(&mut world, 2);
    assert_eq!(told.last(), Some(&Change::Removed), "{told:?}");
    assert!(!texts(&mut world, 1, &word).contains(&"am I still here?".to_owned()));
}

#[test]
fn whoever_was_removed_and_comes_back_after_weeks_is_told_when_nobody_keeps_a_state_with_it() {
    let (mut world, word) = team(20, 3);
    promote(&mut world, 0, &word, "node2");
    send(&mut world, 2, &word, "hello");
    world.pass(A_WHILE);
    world.crash(2);
    remove_member(&mut world, 1, &word, "node3");
    world.pass(A_WHILE);
    rename_group(&mut world, 0, &word, "smaller");
    world.pass(A_WHILE);
    // States are kept for a week.
    (0..2).for_each(|host| world.crash(host));
    world.lose_everything([3, 4]);
    world.pass(20 * DAY);
    (0..3).for_each(|host| world.start(host));
    world.pass(A_WHILE);
    send(&mut world, 2, &word, "am I still here?");
    world.pass(2 * HEALED);
    assert_eq!(group(&mut world, 2, &word).state, GroupState::Removed);
    assert_eq!(changes(&mut world, 2).last(), Some(&Change::Removed));
}

/// A commit refers to a proposal that never came: both are brought.
#[test]
fn a_proposal_that_a_relay_lost_is_brought_with_the_commit_that_carries_it_out() {
    let (mut world, word) = team(18, 4);
    for host in 0..4 {
        send(&mut world, host, "group:team", &format!("hello from {host}"));
    }
    world.pass(A_WHILE);
    world.crash(2);
    leave_group(&mut world, 3, &word);
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 0, &word).members.len(), 3);
    world.lose_everything([4, 5]);
    world.start(2);
    send(&mut world, 0, &word, "can you read this?");
    world.pass(HEALED);
    assert!(texts(&mut world, 2, &word).contains(&"can you read this?".to_owned()));
    assert_agree(&mut world, &[0, 1, 2], &word);
    assert!(!changes(&mut world, 0).contains(&Change::Rejoined), "nobody had to join anew");
}

#[test]
fn whoever_becomes_the_last_admin_while_leaving_stays_and_reads_why() {
    let (mut world, word) = team(19, 3);
    promote(&mut world, 0, &word, "node2");
    world.pass(A_WHILE);
    world.net.cut(0, 1);
    world.net.cut(1, 2);
    [3, 4].into_iter().for_each(|relay| world.net.cut(1, relay));
    leave_group(&mut world, 1, &word);
    let demote = Command::GroupDemote { group: word.clone(), who: "node1".into() };
    world.command(0, demote).unwrap();
    world.pass(A_WHILE);
    world.heal();
    world.pass(HEALED);
    assert_agree(&mut world, &[0, 1, 2], &word);
    let view = group(&mut world, 1, &word);
    let admins: Vec<_> = view.members.iter().filter(|it| it.role == Role::Admin).collect();
    assert!(matches!(admins[..], [only] if only.is_me), "{view:?}");
    let rows = history(&mut world, 1, &word);
    assert!(rows.iter().any(|row| row.text.contains("last admin")), "{rows:?}");
}

#[test]
fn c17_of_two_copies_of_one_home_the_second_sends_nothing() {
    let mut world = World::new(14, 3, 2);
    world.introduce_all();
    send(&mut world, 1, "contact:node1", "hello");
    world.pass(A_WHILE);
    world.crash(1);
    let copy = world.backup(1);
    world.start(1);
    world.pass(A_WHILE);
    // The copy runs on another machine while the first one still runs.
    let twin = world.run_copy(1, &copy);
    let id = send(&mut world, twin, "contact:node1", "who am I?");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, twin, &id), MessageState::Queued);
    let relays = ask!(world, twin, Command::RelayList, Reply::Relays);
    let errors: Vec<_> = relays.iter().filter_map(|relay| relay.error.clone()).collect();
    assert!(errors.iter().any(|error| error.contains("another copy of this home")), "{errors:?}");
    // The first one is not disturbed.
    let id = send(&mut world, 1, "contact:node1", "it is me");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 1, &id), MessageState::Delivered);
    assert_eq!(texts(&mut world, 0, "contact:node2"), ["hello", "it is me"]);
}
