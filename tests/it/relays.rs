//! Relays as those who write meet them: what a relay asks of strangers, when it wants to be asked
//! again, tokens that are taken back, relays that are gone for ever, policies of paths.

use sremp_node::api::{Command, MessageState, PathPolicy, PathState};
use sremp_relay::engine::EngineConfig;
use sremp_sim::World;

use crate::user::{
    contact, create_group, link, message, rename_group, requests, send, state, status, texts,
};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 30_000;

fn pair() -> World {
    let mut world = World::new(40, 2, 2);
    world.introduce_all();
    send(&mut world, 0, "node2", "hello");
    send(&mut world, 1, "node1", "hello");
    world.pass(A_WHILE);
    world
}

/// The link of a node without the token that opens its mailboxes, as others pass it on who know
/// somebody's id and relays only.
fn link_without_token(world: &mut World, host: usize) -> String {
    use sremp_common::text::{decode_contact_link, encode_contact_link};
    let mut link = decode_contact_link(&link(world, host)).unwrap();
    link.token = None;
    encode_contact_link(&link)
}

#[test]
fn a_stranger_works_for_a_first_contact_and_sees_how_far_it_is() {
    let mut world = World::new(41, 2, 1);
    world.configure_relay(2, EngineConfig { pow_difficulty: 17, ..EngineConfig::default() });
    world.use_relays(0);
    world.use_relays(1);
    world.pass(2_000);
    let link = link_without_token(&mut world, 1);
    let add = Command::ContactAdd { what: link, alias: Some("node2".into()) };
    world.command(0, add).unwrap();
    // Only their relay is there.
    world.crash(1);
    let id = send(&mut world, 0, "node2", "do you remember me?");
    let mut seen = Vec::new();
    for _ in 0..3_000 {
        world.pass(1);
        if let [work] = status(&mut world, 0).work.as_slice() {
            assert_eq!((work.difficulty, work.expected), (17, 1 << 17));
            assert_eq!(work.id, world.node(1).key().to_string());
            let error = message(&mut world, 0, &id).error.unwrap();
            assert!(error.contains("proof of work") && error.contains('%'), "{error}");
            seen.push(work.tried);
        }
    }
    assert!(seen.len() > 1 && seen.is_sorted() && seen.first() < seen.last(), "{seen:?}");
    world.pass(A_WHILE);
    assert!(status(&mut world, 0).work.is_empty());
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent, "the relay has it");
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(requests(&mut world, 1).len(), 1);
    world.command(1, Command::RequestsAccept { who: "node1".into() }).unwrap();
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, "node1"), ["do you remember me?"]);
}

#[test]
fn where_no_work_is_taken_a_stranger_needs_a_link() {
    let mut world = World::new(42, 2, 1);
    world.use_relays(0);
    world.use_relays(1);
    world.pass(2_000);
    let link = link_without_token(&mut world, 1);
    let add = Command::ContactAdd { what: link, alias: Some("node2".into()) };
    world.command(0, add).unwrap();
    world.crash(1);
    let id = send(&mut world, 0, "node2", "anybody there?");
    world.pass(A_WHILE);
    for is_there in [false, true] {
        assert!(status(&mut world, 0).work.is_empty());
        let view = message(&mut world, 0, &id);
        assert_eq!(view.state, MessageState::Queued);
        let error = view.error.unwrap();
        assert!(error.contains("ask them for a link"), "{error}");
        if !is_there {
            world.start(1);
            world.pass(600_000);
        }
    }
    world.introduce(1, 0);
    world.pass(600_000);
    assert_eq!(requests(&mut world, 1).len(), 1);
}

/// A relay that refuses and says when to come again hears nothing more of it until then.
#[test]
fn what_a_relay_says_about_coming_again_is_obeyed() {
    let mut world = pair();
    world.crash(1);
    // The second relay is gone; the first has no room, and says "in a minute".
    world.crash(3);
    world.configure_relay(2, EngineConfig { max_total_bytes: 0, ..EngineConfig::default() });
    let id = send(&mut world, 0, "node2", "is there room?");
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Queued);
    let before = world.bytes_carried(0, 2);
    world.pass(50_000);
    let said = world.bytes_carried(0, 2) - before;
    assert!(said < 1_000, "{said} bytes were sent to a relay that had asked for a pause");
    world.configure_relay(2, EngineConfig::default());
    world.pass(120_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
}

/// The other relay is not concerned.
#[test]
fn a_relay_that_refuses_is_passed_over() {
    let mut world = pair();
    world.crash(1);
    world.configure_relay(2, EngineConfig { max_total_bytes: 0, ..EngineConfig::default() });
    for number in 0..5 {
        let id = send(&mut world, 0, "node2", &format!("number {number}"));
        world.pass(3_000);
        assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    }
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, "node1").len(), 7);
}

#[test]
fn a_mailbox_that_is_refused_for_a_while_is_asked_for_again_when_the_relay_said() {
    let mut world = World::new(43, 1, 1);
    world.configure_relay(1, EngineConfig { max_mailboxes: 0, ..EngineConfig::default() });
    world.use_relays(0);
    world.pass(5_000);
    let relays = status(&mut world, 0).relays;
    assert!(relays[0].error.as_deref().is_some_and(|error| error.starts_with("refused")));
    let before = world.bytes_carried(0, 1);
    world.pass(50_000);
    assert_eq!(world.bytes_carried(0, 1), before, "it was asked not to come for a minute");
    world.configure_relay(1, EngineConfig::default());
    world.pass(120_000);
    let relays = status(&mut world, 0).relays;
    assert!(relays[0].connected && relays[0].error.is_none(), "{relays:?}");
}

/// A token that is made while a mailbox is being opened reaches the relay as well: nothing else
/// changes after it, so nobody would tell the relay later.
#[test]
fn a_link_that_is_made_while_a_mailbox_is_opened_opens_it() {
    for moment in (0..400).step_by(10) {
        let mut world = World::new(53, 2, 1);
        world.use_relays(1);
        world.pass(A_WHILE);
        world.crash(1);
        world.start(1);
        world.pass(moment);
        world.introduce(1, 0);
        world.pass(A_WHILE);
        world.crash(1);
        let id = send(&mut world, 0, "node2", "hello");
        world.pass(A_WHILE);
        assert_eq!(message(&mut world, 0, &id).state, MessageState::Sent, "after {moment} ms");
    }
}

/// Rotating cuts off everybody else: old links and whoever only knew a token; contacts are given
/// the new one, also those who were away, and nothing that was under way is lost.
#[test]
fn rotated_tokens_cut_off_everybody_but_contacts() {
    let mut world = World::new(44, 3, 2);
    world.use_relays(0);
    world.use_relays(1);
    world.use_relays(2);
    world.pass(2_000);
    world.introduce(0, 1);
    world.introduce(1, 0);
    send(&mut world, 0, "node2", "hello");
    send(&mut world, 1, "node1", "hello");
    world.pass(A_WHILE);
    // The third one has a link, and has not used it.
    world.introduce(1, 2);
    world.crash(0);
    world.command(1, Command::IdentityRotateTokens).unwrap();
    world.pass(A_WHILE);
    // Both can reach each other by relays only from now on.
    world.crash(1);
    let stranger = send(&mut world, 2, "node2", "by the old link");
    world.start(0);
    world.pass(A_WHILE);
    let id = send(&mut world, 0, "node2", "by the new token");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    assert_eq!(state(&mut world, 2, &stranger), MessageState::Queued);
    world.start(1);
    // What can only be sent to the node itself is not what this is about.
    world.net.cut(1, 2);
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, "node1"), ["hello", "hello", "by the new token"]);
    assert!(requests(&mut world, 1).is_empty());
    // A new link opens the mailboxes again, and so do the key packages at the relays.
    world.introduce(1, 2);
    world.pass(120_000);
    world.crash(1);
    world.pass(A_WHILE);
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(requests(&mut world, 1).len(), 1);
}

/// The commit that brings the new token loses against a rival's, in some of these lives: members
/// reach whoever rotated all the same, and the old token stays worthless.
#[test]
fn rotated_tokens_outlive_a_lost_race() {
    for seed in 46..50 {
        let mut world = World::new(seed, 2, 1);
        world.introduce_all();
        let members = vec!["contact:node2".to_owned()];
        let word = create_group(&mut world, 0, "both", members);
        world.pass(A_WHILE);
        for machine in [1, 2] {
            world.net.cut(0, machine);
        }
        world.command(1, Command::IdentityRotateTokens).unwrap();
        rename_group(&mut world, 0, &word, "all");
        world.pass(1_000);
        world.heal();
        world.pass(900_000);
        world.crash(1);
        let id = send(&mut world, 0, &word, "where are you?");
        world.pass(A_WHILE);
        assert_eq!(state(&mut world, 0, &id), MessageState::Sent, "seed {seed}");
        world.start(1);
        world.pass(A_WHILE);
        assert_eq!(texts(&mut world, 1, &word), ["where are you?"], "seed {seed}");
    }
}

/// One of two relays is gone for ever, with everything that lay there alone: what the other one
/// acknowledged arrives, and what was acknowledged by none arrives over the one that is left.
#[test]
fn a_relay_that_vanishes_for_ever_costs_nothing_that_another_acknowledged() {
    let mut world = pair();
    world.crash(1);
    // The first in the order of preference is away: these lie at the second.
    world.crash(2);
    let mut all = vec!["hello".to_owned(), "hello".to_owned()];
    for number in 0..10 {
        let text = format!("number {number}");
        let id = send(&mut world, 0, "node2", &text);
        world.pass(2_000);
        assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
        all.push(text);
    }
    // It never comes back. More is written, and the recipient moves away from it.
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, "node1"), all);
    let gone = world.relay_link(2);
    world.command(1, Command::RelayRemove { relay: gone.clone() }).unwrap();
    world.command(1, Command::RelayRemove { relay: gone }).unwrap();
    world.pass(A_WHILE);
    world.crash(1);
    let id = send(&mut world, 0, "node2", "the last");
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(texts(&mut world, 1, "node1").last().unwrap(), "the last");
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
}

/// Sent to two of two relays: either may vanish for ever, and what comes twice is shown once.
#[test]
fn a_message_that_two_relays_took_outlives_either_of_them() {
    for gone in [2, 3] {
        let mut world = pair();
        world.crash(0);
        world.set_relay_copies(0, 2);
        world.start(0);
        world.crash(1);
        for number in 0..5 {
            let id = send(&mut world, 0, "node2", &format!("number {number}"));
            world.pass(3_000);
            assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
        }
        // Neither the relay nor the sender ever comes back.
        world.crash(gone);
        world.forget_all(gone);
        world.crash(0);
        world.start(1);
        world.pass(A_WHILE);
        let expected =
            ["hello", "hello", "number 0", "number 1", "number 2", "number 3", "number 4"];
        assert_eq!(texts(&mut world, 1, "node1"), expected);
        world.start(0);
        world.start(gone);
        world.pass(120_000);
        assert_eq!(texts(&mut world, 1, "node1"), expected, "once each");
    }
}

/// The clocks of both relays jump ahead by ten years, and are put right hours later.
#[test]
fn what_relays_hold_outlives_a_step_of_their_clocks() {
    const DECADE: i64 = 3_650 * 86_400_000;
    let mut world = pair();
    world.crash(1);
    let id = send(&mut world, 0, "node2", "before the step");
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    for relay in [2, 3] {
        world.set_clock_error(relay, DECADE);
    }
    world.pass(3 * 3_600_000);
    let id = send(&mut world, 0, "node2", "after the step");
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent, "service goes on");
    for relay in [2, 3] {
        world.set_clock_error(relay, -DECADE);
    }
    world.pass(3 * 3_600_000);
    for relay in [2, 3] {
        world.set_clock_error(relay, 0);
    }
    world.start(1);
    world.pass(A_WHILE);
    let expected = ["hello", "hello", "before the step", "after the step"];
    assert_eq!(texts(&mut world, 1, "node1"), expected);
}

/// C15: whoever kills the direct path cannot force a relay on somebody who wants none, and which
/// path is used is shown.
#[test]
fn c15_a_lost_direct_path_leads_to_a_relay_only_where_that_is_allowed() {
    let mut world = pair();
    assert_eq!(contact(&mut world, 0, "node2").path, PathState::Direct);
    let direct = Command::ContactPath { who: "node2".into(), path: Some(PathPolicy::Direct) };
    world.command(0, direct).unwrap();
    world.net.cut(0, 1);
    let id = send(&mut world, 0, "node2", "not by relay");
    world.pass(600_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Queued);
    assert_eq!(contact(&mut world, 0, "node2").path, PathState::None);
    assert_eq!(texts(&mut world, 1, "node1"), ["hello", "hello"], "no relay has it");
    // The owner allows it: then it goes, and the state says how.
    let auto = Command::ContactPath { who: "node2".into(), path: Some(PathPolicy::Auto) };
    world.command(0, auto).unwrap();
    world.pass(600_000);
    assert_eq!(contact(&mut world, 0, "node2").path, PathState::Relay);
    assert_eq!(texts(&mut world, 1, "node1"), ["hello", "hello", "not by relay"]);
}

/// C18: a crowd of strangers, and hundreds of messages of a contact: what is kept of strangers is
/// bounded, contacts are not concerned, and the owner's own questions are answered.
#[test]
fn c18_a_storm_of_strangers_and_messages_is_bounded() {
    const STRANGERS: usize = 36;
    let mut world = World::new(45, 2 + STRANGERS, 1);
    world.use_relays(0);
    world.pass(2_000);
    world.introduce(0, 1);
    world.introduce(1, 0);
    send(&mut world, 0, "node2", "hello");
    world.pass(A_WHILE);
    for stranger in 2..2 + STRANGERS {
        world.introduce(0, stranger);
        for number in 0..3 {
            send(&mut world, stranger, "node1", &format!("buy {number}"));
        }
    }
    for number in 0..500 {
        send(&mut world, 1, "node1", &format!("number {number}"));
    }
    for _ in 0..60 {
        world.pass(1_000);
        // However much comes in, the owner is answered at once, and sees few of them.
        assert!(requests(&mut world, 0).len() <= 32);
    }
    world.pass(120_000);
    let waiting = requests(&mut world, 0).len();
    assert!((1..=32).contains(&waiting), "{waiting}");
    assert_eq!(texts(&mut world, 0, "node2").len(), 501, "contacts are not concerned");
}
