//! Many messages for somebody who is away: all arrive, in order, and all are confirmed, although
//! their author's keys would have been renewed many times meanwhile.

use sremp_node::api::MessageState;
use sremp_sim::World;

use crate::user::{history, send};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 600_000;

fn write_many(world: &mut World, numbers: std::ops::Range<usize>) {
    for number in numbers {
        send(world, 0, "node2", &format!("message {number}"));
    }
}

fn assert_arrived(world: &mut World, count: usize) {
    let wanted: Vec<String> = (0..count).map(|number| format!("message {number}")).collect();
    for (host, with) in [(0, "node2"), (1, "node1")] {
        let views = history(world, host, with);
        let open = views.iter().filter(|view| view.state != MessageState::Delivered).count();
        assert_eq!(open, 0, "of {count} at node{} not all were delivered", host + 1);
        let texts: Vec<String> = views.into_iter().map(|view| view.text).collect();
        assert!(texts == wanted, "in another order at node{}", host + 1);
    }
}

#[test]
fn a_thousand_messages_wait_for_a_contact_who_is_away() {
    let mut world = World::new(11, 2, 1);
    world.introduce_all();
    write_many(&mut world, 0..1);
    world.pass(A_WHILE);
    world.crash(1);
    world.pass(1_000);
    write_many(&mut world, 1..1_000);
    world.pass(A_WHILE);
    world.start(1);
    world.pass(A_WHILE);
    assert_arrived(&mut world, 1_000);
}

#[test]
fn messages_wait_for_a_contact_whom_nobody_has_met() {
    let mut world = World::new(12, 2, 0);
    world.introduce_all();
    world.crash(1);
    write_many(&mut world, 0..300);
    world.pass(A_WHILE);
    world.start(1);
    world.pass(A_WHILE);
    assert_arrived(&mut world, 300);
}
