//! Tests of groups: whole nodes in memory that hand each other blobs. Helpers here, tests below.

mod attacks;
mod bits;
mod insiders;
mod life;
mod order;
mod passive;
mod permutations;
mod rejoin;
mod rivals;
mod vectors;

use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::key::{IdentitySecret, SealSecret};
use sremp_common::time::{Instant, Now, Timestamp};
use sremp_common::wire::List;

use super::*;
use crate::store::Store;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Names the suite that the tests use.
const SUITE_VARIABLE: &str = "SREMP_TEST_SUITE";

/// The suite of every group in these tests: the post-quantum one when this run was started by
/// [`everything_holds_with_the_post_quantum_suite`].
pub(super) fn suite() -> Suite {
    let named = std::env::var(SUITE_VARIABLE).ok();
    named.map_or(Suite::X25519, |name| name.parse().unwrap())
}

/// All tests of groups once more, in a process of their own, with the other suite.
#[test]
fn everything_holds_with_the_post_quantum_suite() {
    if suite() != Suite::X25519 {
        return;
    }
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .arg("groups::tests")
        .env(SUITE_VARIABLE, Suite::MlKem768X25519.name())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{report}");
    let passed = report.split(" passed").next().and_then(|text| text.rsplit(' ').next());
    assert!(passed.unwrap().parse::<usize>().unwrap() > 50, "{report}");
}

/// A fixed present, far from the real one: nothing may look at the machine's clock.
pub(super) fn start() -> Now {
    Now { instant: Instant::from_millis(0), wall: Timestamp::from_millis(4_000_000_000_000) }
}

pub(super) struct Node {
    pub(super) secret: IdentitySecret,
    pub(super) key: IdentityKey,
    pub(super) signer: LeafSigner,
    pub(super) entropy: Entropy,
    pub(super) store: Store,
    pub(super) groups: Groups,
    pub(super) now: Now,
}

impl Node {
    pub(super) fn new(seed: u64) -> Self {
        let mut entropy = Entropy::from_number(seed);
        let secret = IdentitySecret::generate(&mut entropy);
        let now = start();
        let until = now.wall + DAY * 3650;
        let signer = LeafSigner::generate(&secret, entropy.array(), now.wall, until, &mut entropy);
        Self::with_signer(secret, signer, entropy)
    }

    pub(super) fn with_signer(
        secret: IdentitySecret,
        signer: LeafSigner,
        mut entropy: Entropy,
    ) -> Self {
        let key = secret.public();
        let groups = Groups::new(signer.clone(), key, entropy.fork());
        let store = Store::in_memory().unwrap();
        Self { secret, key, signer, entropy, store, groups, now: start() }
    }

    /// Everything in memory is lost.
    pub(super) fn restart(&mut self) {
        let signer = LeafSigner::from_bytes(&self.signer.to_bytes()).unwrap();
        self.groups = Groups::new(signer, self.key, self.entropy.fork());
    }

    pub(super) fn leaf(&mut self) -> LeafInfo {
        LeafInfo {
            relays: List::default(),
            seal_key: SealSecret::generate(&mut self.entropy).public(),
            token: sremp_common::id::Token::new(self.entropy.array()),
        }
    }

    /// One input in one transaction: accepted when it succeeds, refused when it fails.
    pub(super) fn run<R, E>(
        &mut self,
        f: impl FnOnce(&mut Groups, &Tx, Now) -> Result<R, E>,
    ) -> Result<R, E> {
        let tx = self.store.begin().unwrap();
        let result = f(&mut self.groups, &tx, self.now);
        if result.is_ok() {
            tx.accept().unwrap();
            self.groups.accepted();
        } else {
            tx.refuse();
            self.groups.refused();
        }
        tx.commit().unwrap();
        result
    }

    pub(super) fn package(&mut self, last_resort: bool) -> Vec<u8> {
        let leaf = self.leaf();
        self.run(|groups, tx, now| groups.make_key_package(tx, suite(), &leaf, last_resort, now))
            .unwrap()
    }

    pub(super) fn checked(&self, of: &mut Self) -> CheckedKeyPackage {
        let bytes = of.package(false);
        self.groups.check_key_package(&bytes, &of.key, suite(), self.now).unwrap()
    }

    pub(super) fn create(&mut self, kind: GroupKind, name: &str) -> GroupId {
        let leaf = self.leaf();
        self.run(|groups, tx, now| groups.create(tx, kind, name, suite(), &leaf, now)).unwrap()
    }

    pub(super) fn change(
        &mut self,
        group: &GroupId,
        change: Change,
    ) -> Result<Changed, GroupError> {
        self.run(|groups, tx, now| groups.change(tx, group, change, now))
    }

    pub(super) fn update(&mut self, group: &GroupId) -> Changed {
        let leaf = self.leaf();
        self.change(group, Change::Update(leaf)).unwrap()
    }

    pub(super) fn join(&mut self, welcome: &[u8]) -> Result<Joined, GroupError> {
        self.run(|groups, tx, now| groups.join(tx, welcome, now))
    }

    pub(super) fn send(&mut self, group: &GroupId, text: &str) -> Vec<u8> {
        self.seal(group, text).blob
    }

    pub(super) fn seal(&mut self, group: &GroupId, text: &str) -> Sealed {
        self.run(|groups, tx, now| groups.encrypt(tx, group, text.as_bytes(), now)).unwrap()
    }

    pub(super) fn open(&mut self, blob: &[u8]) -> Result<Opened, OpenError> {
        self.run(|groups, tx, now| groups.open(tx, blob, now))
    }

    pub(super) fn read(&mut self, blob: &[u8]) -> String {
        let opened = self.open(blob).unwrap();
        let Opened::Message { content, .. } = opened else { panic!("not a message: {opened:?}") };
        String::from_utf8(content).unwrap()
    }

    pub(super) fn events(&mut self, blob: &[u8]) -> Vec<GroupEvent> {
        let opened = self.open(blob).unwrap();
        let Opened::Changed { events, .. } = opened else { panic!("not a change: {opened:?}") };
        events
    }

    pub(super) fn summary(&mut self, group: &GroupId) -> Summary {
        self.run(|groups, tx, _| groups.summary(tx, group)).unwrap()
    }

    pub(super) fn own_update_at(&mut self, group: &GroupId) -> Timestamp {
        self.run(|groups, tx, _| groups.own_update_at(tx, group)).unwrap()
    }

    pub(super) fn epoch(&mut self, group: &GroupId) -> u64 {
        self.summary(group).epoch
    }

    pub(super) fn authenticator(&mut self, group: &GroupId) -> Vec<u8> {
        self.summary(group).epoch_authenticator
    }

    pub(super) fn members(&mut self, group: &GroupId) -> Vec<IdentityKey> {
        let members = self.summary(group).members;
        members.iter().map(|member| member.identity_key).collect()
    }

    pub(super) fn rows(&self) -> Vec<(Table, Vec<u8>)> {
        let tx = self.store.begin().unwrap();
        let all = |table: &Table| {
            let rows = tx.scan(*table, &[], None, usize::MAX).unwrap();
            rows.into_iter().map(|(key, _)| (*table, key)).collect::<Vec<_>>()
        };
        Table::ALL.iter().flat_map(all).collect()
    }
}

/// A group named `team`, made by the first node, to which all others were added at once; none has joined
/// yet.
pub(super) fn all_added(nodes: &mut [Node]) -> (GroupId, Changed) {
    let (first, rest) = nodes.split_first_mut().unwrap();
    let group = first.create(GroupKind::Group, "team");
    let packages = rest.iter_mut().map(|node| first.checked(node)).collect();
    (group, first.change(&group, Change::Add(packages)).unwrap())
}

/// The same, with all nodes in it.
pub(super) fn team(nodes: &mut [Node]) -> GroupId {
    let (group, changed) = all_added(nodes);
    let welcome = changed.welcome.unwrap();
    for node in nodes.iter_mut().skip(1) {
        assert_eq!(node.join(&welcome).unwrap().group, group);
    }
    group
}

/// A chat of two.
pub(super) fn pair() -> (Node, Node, GroupId) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let group = a.create(GroupKind::Direct, "");
    let package = a.checked(&mut b);
    let changed = a.change(&group, Change::Add(vec![package])).unwrap();
    b.join(&changed.welcome.unwrap()).unwrap();
    (a, b, group)
}

pub(super) fn nodes(count: u64) -> Vec<Node> {
    (1..=count).map(Node::new).collect()
}

/// All nodes are in the same state.
pub(super) fn assert_agree(nodes: &mut [Node], group: &GroupId) {
    let states: Vec<_> =
        nodes.iter_mut().map(|node| (node.epoch(group), node.authenticator(group))).collect();
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
}
