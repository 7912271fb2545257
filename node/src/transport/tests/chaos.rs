//! Everything at once, at random: whatever happens, each call has one answer, and no invariant
//! breaks (the world checks them after every step).

use std::collections::BTreeSet;
use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::identity::RelayRecord;
use sremp_common::wire::{Bin, ErrorCode, List, Message, Recipient, StoreMessage};

use super::world::{World, ask};
use crate::transport::{Candidate, Origin, SessionKind, SessionView, Target};

const NODES: usize = 3;

/// One run: its world, its generator, and the calls that were made.
struct Run {
    world: World,
    entropy: Entropy,
    calls: Vec<(usize, u64)>,
}

#[test]
fn whatever_happens_each_call_is_answered_once() {
    for seed in 0..60 {
        let mut run = Run {
            world: World::new(NODES, seed),
            entropy: Entropy::from_number(seed),
            calls: Vec::new(),
        };
        for _ in 0..80 {
            run.act();
            let pause = run.entropy.below(400) * run.entropy.below(8);
            run.world.run(Duration::from_millis(pause));
        }
        run.settle(seed);
    }
}

impl Run {
    fn node(&mut self) -> usize {
        usize::try_from(self.entropy.below(3)).unwrap()
    }

    fn act(&mut self) {
        let (node, other) = (self.node(), self.node());
        let (key, now) = (self.world.key(other), self.world.now);
        match self.entropy.below(20) {
            0..=9 => self.call(node, other),
            10 => self.world.crash(node),
            11 => self.world.cut_silently(),
            12 => {
                let rejected = if node == other { BTreeSet::new() } else { BTreeSet::from([key]) };
                self.world.with(node, |transport| transport.set_rejected(rejected, now));
            }
            13 => self.world.with(node, |transport| transport.set_known([key].into())),
            14 => self
                .world
                .with(node, |transport| transport.close_peer(&key, ErrorCode::Goodbye, now)),
            15 => {
                let candidates = self.candidates(other);
                self.world.with(node, |transport| transport.probe_peer(key, &candidates, now));
            }
            16 => {
                let endpoints = self.candidates(other).into_iter().map(|c| c.endpoint).collect();
                let endpoints = List::truncated(endpoints);
                let record = RelayRecord { identity_key: key, endpoints };
                self.world.with(node, |transport| transport.keep_relay(&record, Origin::Told, now));
            }
            17 => self.world.with(node, |transport| transport.drop_relay(&key, now)),
            18 => self.world.nodes[node].answers ^= true,
            _ => {
                let latency = 1 + self.entropy.below(400);
                self.world.latency_ms.insert(node, latency);
                // Early and twice is harmless.
                self.world.with(node, |transport| transport.handle_timeout(now));
            }
        }
    }

    fn call(&mut self, node: usize, other: usize) {
        let tag = u64::try_from(self.calls.len()).unwrap();
        let key = self.world.key(other);
        let target = match self.entropy.below(4) {
            0 => Target::Anonymous(key, self.entropy.below(3)),
            1 => Target::OwnRelay(key),
            _ => Target::Peer(key),
        };
        let message = if self.entropy.below(3) == 0 { self.store() } else { ask() };
        let candidates = self.candidates(other);
        self.world.call_with(node, target, &candidates, message, tag);
        self.calls.push((node, tag));
    }

    fn store(&mut self) -> Message {
        let size = usize::try_from(self.entropy.below(60_000)).unwrap();
        let recipients: Vec<Recipient> = Vec::new();
        Message::StoreMessage(StoreMessage {
            blob: Bin::new(vec![5; size]).unwrap(),
            recipients: List::truncated(recipients),
        })
    }

    /// Right, wrong, dead and absent addresses, in some order.
    fn candidates(&mut self, other: usize) -> Vec<Candidate> {
        let wrong = self.node();
        let all = [
            self.world.candidate(other),
            self.world.candidate(wrong),
            Candidate::told("198.51.100.7:1".parse().unwrap()),
        ];
        let keep = self.entropy.below(8);
        let kept = (0..3).filter(|i| keep & (1 << i) != 0);
        kept.map(|i| all[usize::try_from(i).unwrap()].clone()).collect()
    }

    fn settle(&mut self, seed: u64) {
        for node in 0..NODES {
            self.world.nodes[node].answers = true;
        }
        self.world.run(Duration::from_secs(60));
        for (node, tag) in std::mem::take(&mut self.calls) {
            let answer = self.world.answer(node, tag);
            assert!(answer.is_some(), "seed {seed}: call {tag} of node {node} has no answer");
        }
        for (place, node) in self.world.nodes.iter().enumerate() {
            // What was announced and what is there agree. Our anonymous sessions are not announced.
            let announced = node.sessions_up() - node.sessions_down();
            let is_announced = |view: &&SessionView| view.kind != SessionKind::AnonymousOutgoing;
            let there = node.transport.sessions().iter().filter(is_announced).count();
            assert_eq!(announced, there, "seed {seed}, node {place}");
        }
    }
}
