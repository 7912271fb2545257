//! One session for each pair (N19), whoever dials when.

use std::time::Duration;

use sremp_common::entropy::Entropy;

use super::world::{World, relay_info};
use crate::transport::{CallError, Direction};

/// The one session that both ends agree on: who dialled it.
fn agreed_dialler(world: &World, seed: u64) -> usize {
    let views: Vec<_> = world.nodes.iter().map(|node| node.transport.sessions()).collect();
    assert_eq!((views[0].len(), views[1].len()), (1, 1), "seed {seed}");
    let other = world.wire_of(0, views[0][0].session);
    assert_eq!(other, Some((1, views[1][0].session)), "seed {seed}: two ends of two sessions");
    if views[0][0].direction == Direction::Outgoing { 0 } else { 1 }
}

#[test]
fn n19_simultaneous_dials_leave_one_session() {
    let mut both_established = 0;
    for seed in 0..150 {
        let mut entropy = Entropy::from_number(seed);
        let mut world = World::new(2, seed);
        world.latency_ms.insert(0, 1 + entropy.below(300));
        world.latency_ms.insert(1, 1 + entropy.below(300));
        let (first, second) = if entropy.below(2) == 0 { (0, 1) } else { (1, 0) };
        world.call(first, second, 1);
        world.run(Duration::from_millis(entropy.below(350)));
        world.call(second, first, 2);
        world.run(Duration::from_secs(20));

        let dialler = agreed_dialler(&world, seed);
        let counters = world.nodes[0].transport.counters();
        if counters.duplicates_closed > 0 {
            both_established += 1;
            assert_eq!(dialler, 0, "seed {seed}: the lower key's session survives");
        }
        for (node, tag) in [(first, 1), (second, 2)] {
            let answer = world.answer(node, tag);
            assert!(
                matches!(answer, Some(Ok(_) | Err(CallError::Closed))),
                "seed {seed}: {answer:?}"
            );
        }
        // And it works, in both directions, without another dial.
        let dials = world.nodes[0].dials.len() + world.nodes[1].dials.len();
        world.call(0, 1, 3);
        world.call(1, 0, 4);
        world.run(Duration::from_secs(3));
        assert_eq!(world.answer(0, 3), Some(Ok(relay_info())), "seed {seed}");
        assert_eq!(world.answer(1, 4), Some(Ok(relay_info())), "seed {seed}");
        assert_eq!(world.nodes[0].dials.len() + world.nodes[1].dials.len(), dials);
    }
    assert!(both_established > 20, "only {both_established} seeds tried the tie-break");
}

#[test]
fn n19_exactly_simultaneous_dials_leave_the_session_of_the_lower_key() {
    let mut world = World::new(2, 1000);
    world.call(1, 0, 1);
    world.call(0, 1, 2);
    world.run(Duration::from_secs(2));
    assert_eq!(agreed_dialler(&world, 1000), 0);
    assert_eq!(world.nodes[0].transport.counters().duplicates_closed, 1);
    assert_eq!(world.nodes[1].transport.counters().duplicates_closed, 1);
    // What was announced and what is there agree.
    for node in &world.nodes {
        assert_eq!(node.sessions_up(), node.sessions_down() + 1);
    }
}

#[test]
fn a_peer_that_lost_its_session_is_let_in_again() {
    // The lower key's session stands, and its peer's host has lost it without a word: without a
    // limit in time the tie-break would keep the dead session and turn the peer away.
    let mut world = World::new(2, 1001);
    world.call(0, 1, 1);
    world.run(Duration::from_secs(20));
    world.cut_silently();
    let fresh = World::new(2, 1001);
    world.nodes[1] = fresh.nodes.into_iter().nth(1).unwrap();
    world.call(1, 0, 2);
    world.run(Duration::from_secs(2));
    assert_eq!(world.answer(1, 2), Some(Ok(relay_info())));
    assert_eq!(agreed_dialler(&world, 1001), 1);
    assert_eq!((world.nodes[0].sessions_up(), world.nodes[0].sessions_down()), (2, 1));
}

#[test]
fn the_same_side_replaces_its_own_session_at_once() {
    let mut world = World::new(2, 1002);
    world.call(1, 0, 1);
    world.run(Duration::from_secs(2));
    world.cut_silently();
    let fresh = World::new(2, 1002);
    world.nodes[1] = fresh.nodes.into_iter().nth(1).unwrap();
    world.call(1, 0, 2);
    world.run(Duration::from_secs(2));
    assert_eq!(world.answer(1, 2), Some(Ok(relay_info())));
    assert_eq!(agreed_dialler(&world, 1002), 1);
}
