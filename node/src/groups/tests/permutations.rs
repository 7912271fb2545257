//! The same inputs in any order, doubled, in any portions and over restarts: the same state and the
//! same verdicts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::rivals::{below, is_early, perform};
use super::*;

/// Members that act; those after them only listen, and nobody removes them.
const ACTORS: usize = 3;
const LISTENERS: usize = 4;

/// One act of a random story, short enough for all its states to be kept.
#[derive(Clone, Copy, Debug)]
struct Act {
    who: usize,
    what: u8,
    whom: usize,
    /// How many blobs that wait for `who` are read before it acts.
    reads: usize,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..ACTORS, 0..12_u8, 0..ACTORS, 0..6_usize)
        .prop_map(|(who, what, whom, reads)| Act { who, what, whom, reads });
    prop::collection::vec(act, 1..=12)
}

/// Everything that the actors send while each of them knows only part of what the others did.
fn tell(nodes: &mut [Node], group: &GroupId, acts: &[Act], entropy: &mut Entropy) -> Vec<Vec<u8>> {
    let mut mail: Vec<Vec<Vec<u8>>> = vec![Vec::new(); ACTORS];
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let mut changes = 0;
    for (number, act) in acts.iter().enumerate() {
        for _ in 0..act.reads.min(mail[act.who].len()) {
            let place = below(entropy, mail[act.who].len());
            let blob = mail[act.who].remove(place);
            if is_early(&nodes[act.who].open(&blob)) {
                mail[act.who].push(blob);
            }
        }
        let whom = nodes[act.whom].key;
        let node = &mut nodes[act.who];
        let blob = if act.what < 8 && changes < 8 {
            changes += 1;
            perform(node, group, act.what, whom)
        } else {
            let text = format!("message {number}");
            let sealed =
                node.run(|groups, tx, now| groups.encrypt(tx, group, text.as_bytes(), now));
            sealed.ok().map(|sealed| sealed.blob)
        };
        let Some(blob) = blob else { continue };
        for (actor, inbox) in mail.iter_mut().enumerate() {
            if actor != act.who {
                inbox.push(blob.clone());
            }
        }
        sent.push(blob);
    }
    sent
}

/// The verdict over an input, without what may depend on when it came: whether a message's author is
/// a member still, and what a commit changed at the tip.
fn verdict(result: Result<Opened, OpenError>) -> String {
    match result {
        Ok(Opened::Message { sender, content, epoch, .. }) => {
            format!("{} says in {epoch}: {}", sender.short(), String::from_utf8(content).unwrap())
        }
        Ok(Opened::Changed { by, .. }) => format!("a commit of {}", by.short()),
        Ok(Opened::LeaveProposed { who, .. }) => format!("{} leaves", who.short()),
        Ok(Opened::Receipt { .. }) => "a receipt".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// Hands over all inputs in some order, some of them twice, with restarts in between; what is early
/// waits. Gives the verdict over each.
fn hear(node: &mut Node, inputs: &[Vec<u8>], entropy: &mut Entropy) -> BTreeMap<usize, String> {
    let mut mail: Vec<usize> = (0..inputs.len()).collect();
    mail.extend((0..inputs.len()).filter(|_| entropy.below(3) == 0));
    for place in (1..mail.len()).rev() {
        mail.swap(place, below(entropy, place + 1));
    }
    let mut verdicts = BTreeMap::new();
    loop {
        let before = mail.len();
        mail.retain(|number| {
            if entropy.below(8) == 0 {
                node.restart();
            }
            let result = node.open(&inputs[*number]);
            if is_early(&result) {
                return true;
            }
            if verdicts.contains_key(number) {
                assert!(matches!(result, Err(OpenError::Duplicate(_))), "{result:?}");
            } else {
                verdicts.insert(*number, verdict(result));
            }
            false
        });
        if mail.len() == before || mail.is_empty() {
            return verdicts;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn m06_any_order_doubling_and_portion_of_inputs_gives_one_state_and_the_same_verdicts(
        acts in acts(),
        seed in any::<u64>(),
    ) {
        let mut entropy = Entropy::from_number(seed);
        let mut nodes = nodes(u64::try_from(ACTORS + LISTENERS).unwrap());
        let group = team(&mut nodes);
        let inputs = tell(&mut nodes, &group, &acts, &mut entropy);
        let mut ends = Vec::new();
        for node in &mut nodes[ACTORS..] {
            let verdicts = hear(node, &inputs, &mut entropy);
            let summary = node.summary(&group);
            let kept = node.run(|groups, tx, _| groups.record(tx, &group).map(|record| record.states().len()));
            let mut leaves = summary.leave_proposed;
            leaves.sort_unstable();
            ends.push((
                verdicts,
                summary.epoch,
                summary.epoch_authenticator,
                summary.name,
                summary.members,
                leaves,
                kept.unwrap(),
            ));
        }
        for end in &ends[1..] {
            prop_assert_eq!(end, &ends[0]);
        }
        // Whoever acted and is a member still comes to the same, too.
        for node in &mut nodes[..ACTORS] {
            hear(node, &inputs, &mut entropy);
            let summary = node.summary(&group);
            if summary.active {
                prop_assert_eq!(&summary.epoch_authenticator, &ends[0].2);
            }
        }
    }
}
