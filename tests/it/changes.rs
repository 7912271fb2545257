//! Reactions, edits, deletions and messages that vanish, played on the simulator: whatever path they
//! take, and whatever comes first, all members end alike.

use sremp_node::api::{ApiError, Command, ErrorKind, MessageKind, MessageState, Reply, Role};
use sremp_sim::World;

use crate::user::{add_member, ask, create_group, history, promote, send, state};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 30_000;
const MINUTE: u64 = 60_000;

fn sent(reply: Result<Reply, ApiError>) -> String {
    match reply {
        Ok(Reply::Sent(view)) => view.message_id,
        other => panic!("not sent: {other:?}"),
    }
}

fn react(with: &str, message: &str, reaction: &str) -> Command {
    let reaction = (!reaction.is_empty()).then(|| reaction.to_owned());
    Command::React { with: with.into(), message: message.into(), reaction }
}

fn edit(with: &str, message: &str, text: &str) -> Command {
    Command::Edit { with: with.into(), message: message.into(), text: text.into() }
}

fn delete(with: &str, message: &str) -> Command {
    Command::Delete { with: with.into(), message: message.into() }
}

fn timer(with: &str, seconds: Option<u32>) -> Command {
    Command::TimerSet { with: with.into(), seconds }
}

/// What people see, without the notices that each node writes for itself.
fn seen(world: &mut World, host: usize, with: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for view in history(world, host, with) {
        let edited = if view.edited_at.is_some() { " (edited)" } else { "" };
        let mut line = match view.kind {
            MessageKind::Notice => continue,
            MessageKind::Text => format!("{}{edited}", view.text),
            MessageKind::Timer => format!("timer {:?}", view.lifetime),
            MessageKind::Deleted => "[deleted]".to_owned(),
            MessageKind::Reaction
            | MessageKind::Edit
            | MessageKind::Delete
            | MessageKind::Unsupported => panic!("{} is no line of a history", view.kind),
        };
        for reaction in view.reactions {
            line.push_str(&format!(" {}x{}", reaction.reaction, reaction.count));
        }
        lines.push(line);
    }
    lines
}

fn refused(world: &mut World, host: usize, command: Command) -> ErrorKind {
    match world.command(host, command) {
        Err(error) => error.code,
        Ok(reply) => panic!("not refused: {reply:?}"),
    }
}

/// A group of all, made by the first; its word.
fn team(world: &mut World, nodes: usize) -> String {
    let members = (2..=nodes).map(|node| format!("contact:node{node}")).collect();
    let word = create_group(world, 0, "team", members);
    world.pass(A_WHILE);
    word
}

fn pair(seed: u64) -> World {
    let mut world = World::new(seed, 2, 2);
    world.introduce_all();
    send(&mut world, 0, "node2", "hello");
    world.pass(A_WHILE);
    world
}

#[test]
fn two_people_react_edit_and_delete() {
    let mut world = pair(31);
    let hello = history(&mut world, 1, "node1").remove(0).message_id;
    let first = sent(world.command(1, react("node1", &hello, "+1")));
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 1, &first), MessageState::Delivered);
    for (host, with) in [(0, "node2"), (1, "node1")] {
        assert_eq!(seen(&mut world, host, with), ["hello +1x1"]);
    }
    world.command(1, react("node1", &hello, "-1")).unwrap();
    let better = sent(world.command(0, edit("node2", &hello, "hello, Bob")));
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &better), MessageState::Delivered);
    for (host, with) in [(0, "node2"), (1, "node1")] {
        assert_eq!(seen(&mut world, host, with), ["hello, Bob (edited) -1x1"]);
    }
    world.command(1, react("node1", &hello, "")).unwrap();
    world.pass(A_WHILE);
    assert_eq!(seen(&mut world, 0, "node2"), ["hello, Bob (edited)"]);
    // What cannot be is refused, with a code that says why.
    let nothing = "00".repeat(16);
    assert_eq!(refused(&mut world, 1, edit("node1", &hello, "mine")), ErrorKind::Refused);
    assert_eq!(refused(&mut world, 1, delete("node1", &hello)), ErrorKind::Refused);
    assert_eq!(refused(&mut world, 1, react("node1", &nothing, "x")), ErrorKind::NotFound);
    assert_eq!(refused(&mut world, 1, react("node1", &hello, &"x".repeat(65))), ErrorKind::Usage);
    assert_eq!(refused(&mut world, 0, edit("node2", &hello, " ")), ErrorKind::Usage);
    world.command(0, delete("node2", &hello)).unwrap();
    world.pass(A_WHILE);
    for (host, with) in [(0, "node2"), (1, "node1")] {
        assert_eq!(seen(&mut world, host, with), ["[deleted]"]);
    }
    assert_eq!(refused(&mut world, 0, edit("node2", &hello, "again")), ErrorKind::Refused);
    assert_eq!(refused(&mut world, 1, react("node1", &hello, "x")), ErrorKind::Refused);
    // Both start again from disk, and nothing of it comes back.
    for host in [0, 1] {
        world.crash(host);
        world.start(host);
    }
    send(&mut world, 0, "node2", "on we go");
    world.pass(A_WHILE);
    assert_eq!(seen(&mut world, 1, "node1"), ["[deleted]", "on we go"]);
}

#[test]
fn what_overtakes_its_message_waits_for_it() {
    let mut world = pair(32);
    // The messages lie at relays that are down when their author changes them, directly.
    world.crash(1);
    world.pass(1_000);
    let ids: Vec<String> =
        (0..3).map(|n| send(&mut world, 0, "node2", &format!("late {n}"))).collect();
    world.pass(A_WHILE);
    for id in &ids {
        assert_eq!(state(&mut world, 0, id), MessageState::Sent);
    }
    [2, 3].into_iter().for_each(|relay| world.crash(relay));
    world.start(1);
    world.command(0, edit("node2", &ids[0], "late, but right")).unwrap();
    world.command(0, delete("node2", &ids[1])).unwrap();
    world.command(0, react("node2", &ids[2], "oops")).unwrap();
    let last = send(&mut world, 0, "node2", "last");
    world.pass(5_000);
    assert_eq!(state(&mut world, 0, &last), MessageState::Delivered);
    assert_eq!(seen(&mut world, 1, "node1"), ["hello", "last"], "nothing to change yet");
    [2, 3].into_iter().for_each(|relay| world.start(relay));
    world.pass(10 * MINUTE);
    let both = ["hello", "late, but right (edited)", "[deleted]", "late 2 oopsx1", "last"];
    assert_eq!(seen(&mut world, 0, "node2"), both);
    assert_eq!(seen(&mut world, 1, "node1"), both);
}

#[test]
fn changes_on_a_branch_that_lost_are_sent_again() {
    let mut world = World::new(33, 3, 2);
    world.introduce_all();
    let word = team(&mut world, 3);
    promote(&mut world, 0, &word, "node2");
    let first = send(&mut world, 0, &word, "by one");
    world.pass(A_WHILE);
    let texts = [first, send(&mut world, 1, &word, "by two")];
    world.pass(A_WHILE);
    for round in 0..5 {
        // Both admins commit at the same moment, and change messages on their own branches.
        for host in [0, 1] {
            let name = format!("round {round} of {host}");
            world.command(host, Command::GroupRename { group: word.clone(), name }).unwrap();
            let text = format!("edit {round} of {host}");
            world.command(host, edit(&word, &texts[host], &text)).unwrap();
            let reaction = format!("r{round}");
            world.command(host, react(&word, &texts[1 - host], &reaction)).unwrap();
        }
        world.command(2, react(&word, &texts[round % 2], "+1")).unwrap();
        world.pass(A_WHILE);
        let one = seen(&mut world, 0, &word);
        let expected = [0, 1].map(|host| format!("edit {round} of {host} (edited)"));
        assert!(one.iter().zip(&expected).all(|(seen, edit)| seen.starts_with(edit)), "{one:?}");
        for host in [1, 2] {
            assert_eq!(seen(&mut world, host, &word), one, "round {round}, host {host}");
        }
    }
    world.command(0, Command::GroupRename { group: word.clone(), name: "x".into() }).unwrap();
    world.command(1, Command::GroupRename { group: word.clone(), name: "y".into() }).unwrap();
    world.command(0, delete(&word, &texts[0])).unwrap();
    world.command(1, delete(&word, &texts[1])).unwrap();
    world.pass(A_WHILE);
    for host in 0..3 {
        assert_eq!(seen(&mut world, host, &word), ["[deleted]", "[deleted]"]);
    }
    // An admin deletes nobody else's.
    let theirs = send(&mut world, 2, &word, "mine");
    world.pass(A_WHILE);
    assert_eq!(refused(&mut world, 0, delete(&word, &theirs)), ErrorKind::Refused);
}

#[test]
fn changes_that_relays_lost_are_sent_again() {
    let mut world = pair(34);
    let hello = history(&mut world, 0, "node2").remove(0).message_id;
    world.crash(1);
    world.pass(1_000);
    let change = sent(world.command(0, edit("node2", &hello, "hello again")));
    world.pass(A_WHILE);
    assert_eq!(state(&mut world, 0, &change), MessageState::Sent);
    world.lose_everything([2, 3]);
    world.start(1);
    world.pass(5_000);
    send(&mut world, 0, "node2", "after the gap");
    world.pass(2 * MINUTE);
    assert_eq!(state(&mut world, 0, &change), MessageState::Delivered);
    assert_eq!(seen(&mut world, 1, "node1"), ["hello again (edited)", "after the gap"]);
}

#[test]
fn what_was_deleted_before_it_could_be_sent_never_leaves() {
    let mut world = World::new(35, 2, 1);
    world.introduce(1, 0);
    let id = send(&mut world, 0, "node2", "too fast");
    world.command(0, delete("node2", &id)).unwrap();
    assert_eq!(state(&mut world, 0, &id), MessageState::Failed);
    let id = send(&mut world, 0, "node2", "better");
    world.introduce(0, 1);
    world.pass(2 * MINUTE);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert_eq!(seen(&mut world, 0, "node2"), ["[deleted]", "better"]);
    assert_eq!(seen(&mut world, 1, "node1"), ["better"]);
}

#[test]
fn messages_vanish_on_both_sides_and_do_not_come_back() {
    let mut world = pair(36);
    world.command(1, timer("node1", Some(300))).unwrap();
    world.pass(A_WHILE);
    assert!(matches!(
        world.command(0, Command::TimerShow { with: "node2".into() }),
        Ok(Reply::Timer(view)) if view.seconds == Some(300)
    ));
    let id = send(&mut world, 0, "node2", "not for long");
    world.pass(A_WHILE);
    world.command(1, react("node1", &id, "ok")).unwrap();
    world.pass(A_WHILE);
    let before = ["hello", "timer Some(300)", "not for long okx1"];
    for (host, with) in [(0, "node2"), (1, "node1")] {
        assert_eq!(seen(&mut world, host, with), before);
    }
    // Neither a restart nor the time that it takes lets it live longer.
    world.crash(1);
    world.pass(4 * MINUTE);
    assert_eq!(seen(&mut world, 0, "node2"), before[..2]);
    world.start(1);
    world.pass(1_000);
    assert_eq!(seen(&mut world, 1, "node1"), before[..2]);
    assert_eq!(refused(&mut world, 1, react("node1", &id, "x")), ErrorKind::NotFound);
    // Losing its confirmation does not bring it back, nor is this home taken for an old copy.
    world.pass(60 * MINUTE);
    assert_eq!(seen(&mut world, 1, "node1"), before[..2]);
    // Whoever was away finds it for half of its time.
    world.crash(1);
    send(&mut world, 0, "node2", "read this");
    world.pass(20 * MINUTE);
    assert_eq!(seen(&mut world, 0, "node2"), before[..2]);
    world.start(1);
    world.pass(A_WHILE);
    assert_eq!(seen(&mut world, 1, "node1").last().unwrap(), "read this");
    world.pass(3 * MINUTE);
    assert_eq!(seen(&mut world, 1, "node1"), before[..2]);
    world.command(0, timer("node2", None)).unwrap();
    send(&mut world, 0, "node2", "for good");
    world.pass(60 * MINUTE);
    let after = ["hello", "timer Some(300)", "timer None", "for good"];
    for (host, with) in [(0, "node2"), (1, "node1")] {
        assert_eq!(seen(&mut world, host, with), after);
    }
    assert_eq!(refused(&mut world, 0, timer("node2", Some(59))), ErrorKind::Usage);
}

#[test]
fn a_clock_that_is_wrong_neither_keeps_a_message_nor_hides_it() {
    const DAY: i64 = 86_400_000;
    for (error, seed) in [(1000 * DAY, 37), (-1000 * DAY, 38)] {
        let mut world = pair(seed);
        world.command(0, timer("node2", Some(600))).unwrap();
        world.pass(A_WHILE);
        world.set_clock_error(0, error);
        world.pass(A_WHILE);
        send(&mut world, 0, "node2", "what time is it?");
        world.pass(A_WHILE);
        let last = seen(&mut world, 1, "node1").pop().unwrap();
        assert_eq!(last, "what time is it?", "{error}");
        world.pass(3 * MINUTE);
        assert_eq!(seen(&mut world, 1, "node1").pop().unwrap(), last, "{error}");
        world.pass(7 * MINUTE);
        assert_eq!(seen(&mut world, 1, "node1"), ["hello", "timer Some(600)"], "{error}");
    }
}

#[test]
fn admins_set_a_groups_timer_and_whoever_joins_learns_it() {
    let mut world = World::new(39, 3, 2);
    world.introduce_all();
    let members = vec!["contact:node2".to_owned()];
    let command = Command::GroupCreate { name: "team".into(), members, suite: None };
    let Ok(Reply::Group(view)) = world.command(0, command) else { panic!("no group") };
    world.pass(A_WHILE);
    let word = format!("group:{}", view.id);
    assert!(view.members.iter().any(|member| member.role == Role::Admin));
    assert_eq!(refused(&mut world, 1, timer(&word, Some(600))), ErrorKind::Refused);
    world.command(0, timer(&word, Some(600))).unwrap();
    world.pass(A_WHILE);
    add_member(&mut world, 0, &word, "node3");
    world.pass(MINUTE);
    send(&mut world, 2, &word, "new here");
    world.pass(A_WHILE);
    for host in 0..3 {
        assert_eq!(seen(&mut world, host, &word).last().unwrap(), "new here");
    }
    world.pass(11 * MINUTE);
    for host in 0..3 {
        let lines = seen(&mut world, host, &word);
        assert!(lines.iter().all(|line| line == "timer Some(600)"), "{lines:?}");
        assert!(!lines.is_empty());
    }
}

fn typists(world: &mut World, host: usize, with: &str) -> Vec<String> {
    let people = ask!(world, host, Command::TypingShow { with: with.into() }, Reply::Typing);
    people.into_iter().map(|person| person.name).collect()
}

#[test]
fn who_types_is_told_on_open_sessions_and_nowhere_else() {
    let mut world = World::new(40, 3, 2);
    world.introduce_all();
    let word = team(&mut world, 3);
    let types = |typing| Command::TypingTell { with: word.clone(), typing };
    assert_eq!(refused(&mut world, 0, types(true)), ErrorKind::Refused, "off unless wanted");
    for host in [0, 1] {
        world.set_typing(host, true);
        world.crash(host);
        world.start(host);
    }
    send(&mut world, 0, &word, "hello");
    send(&mut world, 1, &word, "hello");
    world.pass(A_WHILE);
    world.command(0, types(true)).unwrap();
    world.pass(1_000);
    assert_eq!(typists(&mut world, 1, &word), ["node1"]);
    assert!(typists(&mut world, 2, &word).is_empty(), "who does not want to tell is not told");
    world.pass(15_000);
    assert!(typists(&mut world, 1, &word).is_empty(), "it ends by itself");
    // The text ends it, and so does whoever says so.
    for _ in 0..2 {
        world.command(0, types(true)).unwrap();
        world.pass(3_000);
        assert_eq!(typists(&mut world, 1, &word), ["node1"]);
        send(&mut world, 0, &word, "here it is");
        world.pass(5_000);
        assert!(typists(&mut world, 1, &word).is_empty());
    }
    world.command(0, types(true)).unwrap();
    world.pass(3_000);
    world.command(0, types(false)).unwrap();
    world.pass(1_000);
    assert!(typists(&mut world, 1, &word).is_empty());
    // Nothing waits for whoever is away, here or at a relay.
    world.crash(1);
    world.pass(A_WHILE);
    world.command(0, types(true)).unwrap();
    world.pass(1_000);
    let Ok(Reply::Status(status)) = world.command(0, Command::Status) else { panic!("no status") };
    assert_eq!(status.outbox, 0);
    world.start(1);
    world.pass(2_000);
    assert!(typists(&mut world, 1, &word).is_empty());
}
