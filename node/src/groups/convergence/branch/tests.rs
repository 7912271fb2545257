//! Tests of the choice: each rule alone, and that nothing depends on the order of the slice.

use proptest::prelude::*;
use sremp_common::entropy::Entropy;
use sremp_common::key::IdentitySecret;

use super::*;

fn id(byte: u8) -> StateId {
    StateId::new([byte; 16])
}

/// Identities in ascending order.
fn people(count: usize) -> Vec<IdentityKey> {
    let mut entropy = Entropy::from_number(5);
    let mut people: Vec<_> =
        (0..count).map(|_| IdentitySecret::generate(&mut entropy).public()).collect();
    people.sort_unstable();
    people
}

#[derive(Clone, Debug)]
struct Node {
    id: u8,
    parent: u8,
    epoch: u64,
    commit: Commit,
}

/// A commit by `committer` that makes state `id` of `parent`.
fn node(id: u8, parent: u8, epoch: u64, committer: IdentityKey) -> Node {
    let digest = ByteArray::new([id; 32]);
    let commit = Commit { committer, by_admin: false, removes: Vec::new(), digest };
    Node { id, parent, epoch, commit }
}

impl Node {
    fn admin(mut self) -> Self {
        self.commit.by_admin = true;
        self
    }

    fn removes(mut self, who: IdentityKey) -> Self {
        self.commit.removes.push(who);
        self
    }

    fn digest(mut self, byte: u8) -> Self {
        self.commit.digest = ByteArray::new([byte; 32]);
        self
    }
}

fn chosen(nodes: &[Node]) -> StateId {
    let root = Branch { id: id(0), parent: None, epoch: 0, commit: None };
    let branches: Vec<_> = nodes
        .iter()
        .map(|node| Branch {
            id: id(node.id),
            parent: Some(id(node.parent)),
            epoch: node.epoch,
            commit: Some(&node.commit),
        })
        .chain([root])
        .collect();
    tip(&branches, id(0))
}

/// The tip of every permutation, which must be one.
fn chosen_in_all_orders(nodes: &[Node]) -> StateId {
    fn permute(nodes: &mut Vec<Node>, from: usize, seen: &mut Vec<StateId>) {
        if from == nodes.len() {
            seen.push(chosen(nodes));
        }
        for other in from..nodes.len() {
            nodes.swap(from, other);
            permute(nodes, from + 1, seen);
            nodes.swap(from, other);
        }
    }
    let mut seen = Vec::new();
    permute(&mut nodes.to_vec(), 0, &mut seen);
    assert!(seen.iter().all(|tip| *tip == seen[0]), "{nodes:?}");
    seen[0]
}

#[test]
fn without_rivals_the_deepest_state() {
    let p = people(2);
    assert_eq!(chosen(&[]), id(0));
    assert_eq!(chosen_in_all_orders(&[node(1, 0, 1, p[0]), node(2, 1, 2, p[1])]), id(2));
}

#[test]
fn an_admin_beats_depth_and_identity() {
    let p = people(2);
    let nodes = [
        node(1, 0, 1, p[0]),
        node(2, 1, 2, p[0]),
        node(3, 2, 3, p[0]).admin(),
        node(4, 0, 1, p[1]).admin(),
    ];
    assert_eq!(chosen_in_all_orders(&nodes), id(4));
}

#[test]
fn an_endless_stream_of_ordinary_commits_takes_back_no_decision_of_an_admin() {
    let p = people(3);
    // Two ordinary commits in one epoch; on one of the branches an admin has decided something.
    let mut nodes = vec![node(1, 0, 1, p[1]), node(2, 1, 2, p[2]).admin(), node(3, 0, 1, p[0])];
    for epoch in 2..60 {
        nodes.push(node(epoch + 2, epoch + 1, epoch.into(), p[0]));
        assert_eq!(chosen(&nodes), id(2), "epoch {epoch}");
    }
    // Among branches with as many decisions, the deeper one.
    nodes.push(node(100, 61, 60, p[2]).admin());
    assert_eq!(chosen(&nodes), id(100));
}

#[test]
fn a_removal_beats_the_removed_and_their_depth() {
    let p = people(3);
    let nodes = [
        node(1, 0, 1, p[0]).admin(),
        node(2, 1, 2, p[0]).admin(),
        node(3, 0, 1, p[1]).admin().removes(p[0]),
    ];
    assert_eq!(chosen_in_all_orders(&nodes), id(3));
    // Among members, too: a leave that is carried out.
    let nodes = [node(1, 0, 1, p[0]), node(2, 1, 2, p[0]), node(3, 0, 1, p[1]).removes(p[0])];
    assert_eq!(chosen_in_all_orders(&nodes), id(3));
    // And whatever removes nobody, however deep: whoever is removed does not hear of its depth.
    let nodes = [node(1, 0, 1, p[2]), node(2, 1, 2, p[2]), node(3, 0, 1, p[1]).removes(p[0])];
    assert_eq!(chosen_in_all_orders(&nodes), id(3));
}

#[test]
fn a_member_that_removes_an_admin_does_not_win() {
    let p = people(2);
    // It carries out a leave, while the leaver, an admin, commits.
    let nodes = [node(1, 0, 1, p[0]).removes(p[1]), node(2, 0, 1, p[1]).admin()];
    assert_eq!(chosen_in_all_orders(&nodes), id(2));
}

#[test]
fn removals_in_a_circle_are_left_to_the_identities_whatever_the_depth() {
    let p = people(3);
    let nodes = [
        node(1, 0, 1, p[0]).admin().removes(p[1]),
        node(2, 0, 1, p[1]).admin().removes(p[2]),
        node(3, 0, 1, p[2]).admin().removes(p[0]),
        // Whom the third has removed does not hear of this.
        node(4, 3, 2, p[2]).admin(),
    ];
    assert_eq!(chosen_in_all_orders(&nodes), id(1));
    let two =
        [node(1, 0, 1, p[0]).admin().removes(p[1]), node(2, 0, 1, p[1]).admin().removes(p[0])];
    assert_eq!(chosen_in_all_orders(&two), id(1));
}

#[test]
fn then_depth_then_identity_then_digest() {
    let p = people(2);
    let deeper = [node(1, 0, 1, p[0]), node(2, 0, 1, p[1]), node(3, 2, 2, p[0])];
    assert_eq!(chosen_in_all_orders(&deeper), id(3));
    let identity = [node(1, 0, 1, p[1]).digest(0), node(2, 0, 1, p[0]).digest(9)];
    assert_eq!(chosen_in_all_orders(&identity), id(2));
    let digest = [node(1, 0, 1, p[0]).digest(9), node(2, 0, 1, p[0]).digest(3)];
    assert_eq!(chosen_in_all_orders(&digest), id(2));
}

#[test]
fn depth_is_that_of_the_branch_that_would_stand() {
    let p = people(3);
    // Below state 1 the admin's short branch stands, so state 1 is not the deeper one.
    let nodes = [
        node(1, 0, 1, p[2]),
        node(2, 1, 2, p[0]),
        node(3, 2, 3, p[0]),
        node(4, 3, 4, p[0]),
        node(5, 1, 2, p[1]).admin(),
        node(6, 0, 1, p[1]),
        node(7, 6, 2, p[1]).admin(),
    ];
    assert_eq!(chosen_in_all_orders(&nodes), id(7));
}

#[test]
fn the_choice_starts_at_the_root() {
    let p = people(1);
    let commit = node(2, 1, 7, p[0]).commit;
    let branch =
        |state, parent, epoch| Branch { id: id(state), parent, epoch, commit: Some(&commit) };
    let branches = [branch(1, None, 6), branch(2, Some(id(1)), 7), branch(3, Some(id(9)), 99)];
    assert_eq!(tip(&branches, id(1)), id(2));
    assert_eq!(tip(&branches, id(8)), id(8));
    assert!(is_ancestor(&branches, id(1), id(2)));
    assert!(!is_ancestor(&branches, id(3), id(2)));
}

prop_compose! {
    /// A tree of up to 24 commits by five people, shuffled.
    fn trees()(
        commits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..5_usize, any::<bool>(), prop::option::of(0..5_usize), any::<u8>()),
            1..24,
        ),
    ) -> Vec<Node> {
        let p = people(5);
        let mut nodes: Vec<Node> = Vec::new();
        for (place, (parent, who, admin, removes, digest)) in commits.into_iter().enumerate() {
            let parent = parent.index(nodes.len() + 1);
            let (parent, epoch) = match parent.checked_sub(1) {
                Some(parent) => (nodes[parent].id, nodes[parent].epoch),
                None => (0, 0),
            };
            let mut new = node(u8::try_from(place + 1).unwrap(), parent, epoch + 1, p[who]).digest(digest);
            new.commit.by_admin = admin;
            new.commit.removes.extend(removes.map(|who| p[who]));
            nodes.push(new);
        }
        nodes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Any order of the same commits gives the same tip, and the tip is a leaf.
    #[test]
    fn m06_order_does_not_matter(
        (nodes, shuffled) in trees().prop_flat_map(|nodes| (Just(nodes.clone()), Just(nodes).prop_shuffle())),
    ) {
        let chosen_tip = chosen(&nodes);
        prop_assert_eq!(chosen_tip, chosen(&shuffled));
        prop_assert!(nodes.iter().all(|node| id(node.parent) != chosen_tip));
    }

    /// A commit that comes later on the branch that stands never makes another branch stand.
    #[test]
    fn going_on_never_switches(nodes in trees()) {
        let before = chosen(&nodes);
        let end = nodes.iter().find(|node| id(node.id) == before).unwrap();
        let mut more = nodes.clone();
        more.push(node(200, end.id, end.epoch + 1, end.commit.committer));
        prop_assert_eq!(chosen(&more), id(200));
    }
}
