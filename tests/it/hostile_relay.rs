//! A relay that lies about what is in a mailbox: its owner takes every message once, in order, and
//! neither believes the rest nor goes in circles.

use sremp_sim::World;

use crate::user::{send, texts};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 600_000;
const MESSAGES: usize = 60;

#[test]
fn l21_a_relay_that_lies_about_batches_changes_nothing() {
    // Three nodes with one relay: what it keeps for one it shows to the other.
    let mut world = World::new(21, 3, 1);
    world.introduce_all();
    world.pass(A_WHILE);
    world.set_hostile(3, true);
    let mut wanted = Vec::new();
    for round in 0..3 {
        // The others are away: everything goes by the relay.
        world.crash(1);
        world.crash(2);
        world.pass(1_000);
        for number in 0..MESSAGES {
            let text = format!("message {round} {number}");
            for to in ["node2", "node3"] {
                send(&mut world, 0, to, &text);
            }
            wanted.push(text);
        }
        world.pass(A_WHILE);
        world.start(1);
        world.start(2);
        world.pass(A_WHILE);
    }
    let lies = world.lies(3);
    assert!(lies > 20, "{lies}");
    // What it held back comes when it is honest again.
    world.set_hostile(3, false);
    for host in [1, 2] {
        world.crash(host);
        world.pass(1_000);
        world.start(host);
    }
    world.pass(A_WHILE);
    for host in [1, 2] {
        let found = texts(&mut world, host, "node1");
        assert!(found == wanted, "node{}: {} of {}", host + 1, found.len(), wanted.len());
    }
    for with in ["node2", "node3"] {
        assert!(texts(&mut world, 0, with) == wanted, "at the author");
    }
    // Ten quiet minutes: nobody asks again and again for the "more" that never comes.
    let before: Vec<u64> = (0..3).map(|node| world.bytes_carried(node, 3)).collect();
    world.set_hostile(3, true);
    world.pass(A_WHILE);
    for (node, before) in before.into_iter().enumerate() {
        let bytes = world.bytes_carried(node, 3) - before;
        assert!(bytes < 20_000, "node{} sent {bytes} bytes", node + 1);
    }
}
