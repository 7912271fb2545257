//! What hostile members, relays and strangers try. They are played with OpenMLS directly, past our own
//! checks.

use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, Extensions, KeyPackage,
    LeafNodeParameters, Lifetime, MlsGroup, MlsGroupCreateConfig, MlsMessageOut,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, PreSharedKeyProposal, Proposal,
};
use openmls::schedule::{ExternalPsk, PreSharedKeyId, Psk};
use openmls_traits::OpenMlsProvider as _;

use super::*;
use crate::groups::credential::CredentialError;
use crate::groups::extension::{Validity, capabilities, group_extensions, leaf_extensions};
use crate::groups::message::{KIND_MLS, KIND_RECEIPT};
use crate::groups::policy::{Policy, PolicyError};
use crate::groups::provider::Provider;
use crate::groups::storage::Storage;

/// Whatever a member can make of the tip's state, wrapped as it should be. Nothing of it is kept.
pub(super) fn forge(
    node: &mut Node,
    group: &GroupId,
    f: impl FnOnce(&mut MlsGroup, &Provider<'_>, &LeafSigner) -> MlsMessageOut,
) -> Vec<u8> {
    forge_from(node, group, |_| {}, f)
}

/// The same, of what the member has made of its own rows of that state before.
pub(super) fn forge_from(
    node: &mut Node,
    group: &GroupId,
    spoil: impl Fn(&mut Vec<u8>),
    f: impl FnOnce(&mut MlsGroup, &Provider<'_>, &LeafSigner) -> MlsMessageOut,
) -> Vec<u8> {
    forge_with(&mut node.groups, &node.store.begin().unwrap(), group, spoil, f)
}

fn forge_with(
    groups: &mut Groups,
    tx: &Tx,
    group: &GroupId,
    spoil: impl Fn(&mut Vec<u8>),
    f: impl FnOnce(&mut MlsGroup, &Provider<'_>, &LeafSigner) -> MlsMessageOut,
) -> Vec<u8> {
    let tip = groups.record(tx, group).unwrap().tip();
    let loaded = groups.take(tx, group, tip).unwrap();
    let scratch = groups.engine.provider(tx, StateId::new([9; 16]));
    scratch.storage.copy_from(tip).unwrap();
    for (key, mut value) in tx.scan_prefix(Table::Mls, &[9; 16], usize::MAX).unwrap() {
        spoil(&mut value);
        tx.put(Table::Mls, &key, value);
    }
    let storage: &Storage<'_> = &scratch.storage;
    let mut mls = MlsGroup::load(storage, &states::mls_id(group)).unwrap().unwrap();
    let message = f(&mut mls, &scratch, &groups.signer).to_bytes().unwrap();
    loaded.keys.unwrap().wrap([1; 24], KIND_MLS, &message).unwrap()
}

/// What a hostile member puts into a commit.
#[derive(Default)]
struct Odd {
    adds: Vec<KeyPackage>,
    extensions: Option<Extensions<openmls::prelude::GroupContext>>,
    leaf: LeafNodeParameters,
    proposals: Vec<Proposal>,
}

fn forge_commit(node: &mut Node, group: &GroupId, odd: Odd) -> Vec<u8> {
    forge(node, group, |mls, provider, signer| odd_commit(mls, provider, signer, odd))
}

fn odd_commit(
    mls: &mut MlsGroup,
    provider: &Provider<'_>,
    signer: &LeafSigner,
    odd: Odd,
) -> MlsMessageOut {
    let mut builder = mls
        .commit_builder()
        .propose_adds(odd.adds)
        .add_proposals(odd.proposals)
        .leaf_node_parameters(odd.leaf);
    if let Some(extensions) = odd.extensions {
        builder = builder.propose_group_context_extensions(extensions).unwrap();
    }
    builder
        .load_psks(provider.storage())
        .unwrap()
        .build(provider.rand(), provider.crypto(), signer, |_| true)
        .unwrap()
        .stage_commit(provider)
        .unwrap()
        .into_commit()
}

/// For tests of whole nodes.
impl Groups {
    /// A commit that leaves the group without an admin, wrapped as it should be.
    pub(crate) fn commit_against_the_rules(&mut self, tx: &Tx, group: &GroupId) -> Vec<u8> {
        let tip = self.record(tx, group).unwrap().tip();
        let nobody = self.view(tx, group, tip).unwrap().policy.clone().demoted(&self.own);
        let commit = |mls: &mut MlsGroup, provider: &Provider<'_>, signer: &LeafSigner| {
            odd_commit(mls, provider, signer, with_policy(&nobody))
        };
        forge_with(self, tx, group, |_| {}, commit)
    }
}

fn with_policy(policy: &Policy) -> Odd {
    Odd { extensions: Some(group_extensions(policy.encode()).unwrap()), ..Odd::default() }
}

/// A group of the given id, made by somebody who should not, with a Welcome for `to` at `epoch`.
pub(super) fn group_of_id(by: &mut Node, id: &GroupId, to: &mut Node, epoch: u64) -> Vec<u8> {
    let package = by.checked(to);
    let leaf = by.leaf();
    let policy = Policy::new(GroupKind::Group, "fake", by.key).unwrap();
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(suite().mls())
        .capabilities(capabilities())
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .with_group_context_extensions(group_extensions(policy.encode()).unwrap())
        .with_leaf_node_extensions(leaf_extensions(&leaf).unwrap())
        .unwrap()
        .build();
    let tx = by.store.begin().unwrap();
    let provider = by.groups.engine.provider(&tx, StateId::new([9; 16]));
    let credential = by.signer.credential();
    let id = states::mls_id(id);
    let mut mls =
        MlsGroup::new_with_group_id(&provider, &by.signer, &config, id, credential).unwrap();
    while mls.epoch().as_u64() + 1 < epoch {
        mls.self_update(&provider, &by.signer, LeafNodeParameters::default()).unwrap();
        mls.merge_pending_commit(&provider).unwrap();
    }
    let (_, welcome, _) = mls.add_members(&provider, &by.signer, &[package.key_package]).unwrap();
    welcome.to_bytes().unwrap()
}

#[test]
fn m08_external_commits_are_refused() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes[..2]);
    let [a, b, stranger] = &mut nodes[..] else { unreachable!() };
    // A member hands its group info and its wrap keys to a stranger, who commits itself in.
    let signer = stranger.signer.clone();
    let leaf = stranger.leaf();
    let blob = forge(a, &group, |mls, provider, member| {
        let info = mls.export_group_info(provider.crypto(), member, true).unwrap();
        let bytes = info.to_bytes().unwrap();
        let info = openmls::prelude::tls_codec::Deserialize::tls_deserialize_exact(&bytes)
            .map(openmls::prelude::MlsMessageIn::extract);
        let Ok(openmls::prelude::MlsMessageBodyIn::GroupInfo(info)) = info else { panic!() };
        let other = Storage::new(storage_tx(provider), StateId::new([8; 16]));
        other.delete_all().unwrap();
        let parameters = LeafNodeParameters::builder()
            .with_capabilities(capabilities())
            .with_extensions(leaf_extensions(&leaf).unwrap())
            .build();
        MlsGroup::external_commit_builder()
            .skip_lifetime_validation()
            .build_group(provider, info, signer.credential())
            .unwrap()
            .leaf_node_parameters(parameters)
            .load_psks(provider.storage())
            .unwrap()
            .build(provider.rand(), provider.crypto(), &signer, |_| true)
            .unwrap()
            .finalize(provider)
            .unwrap()
            .1
            .into_commit()
    });
    assert!(matches!(
        b.open(&blob),
        Err(OpenError::Invalid { why: "not an MLS private message", .. })
    ));
    assert_eq!(b.epoch(&group), 1);
}

fn storage_tx<'a>(provider: &Provider<'a>) -> &'a Tx {
    provider.storage.tx()
}

#[test]
fn m09_a_key_package_is_used_once() {
    let mut nodes = nodes(3);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let bytes = c.package(false);
    let welcome = |node: &mut Node, key: &IdentityKey| {
        let package = node.groups.check_key_package(&bytes, key, suite(), node.now).unwrap();
        let group = node.create(GroupKind::Direct, "");
        node.change(&group, Change::Add(vec![package])).unwrap().welcome.unwrap()
    };
    let (first, second) = (welcome(a, &c.key), welcome(b, &c.key));
    c.join(&first).unwrap();
    assert!(matches!(c.join(&second), Err(GroupError::Welcome(WelcomeError::NotForUs))));
}

/// A key package of `node` that is not as it should be.
fn odd_package(
    node: &Node,
    suite: Ciphersuite,
    validity: Option<Validity>,
    credential: CredentialWithKey,
    leaf: Option<&LeafInfo>,
) -> Vec<u8> {
    let tx = node.store.begin().unwrap();
    let provider = node.groups.engine.provider(&tx, StateId::new([9; 16]));
    let extensions = capabilities().extensions().to_vec();
    let mut builder = KeyPackage::builder()
        .leaf_node_capabilities(Capabilities::new(
            None,
            Some(&[suite]),
            Some(&extensions),
            Some(&[]),
            None,
        ))
        .key_package_lifetime(Lifetime::init(0, u64::MAX));
    if let Some(leaf) = leaf {
        builder = builder.leaf_node_extensions(leaf_extensions(leaf).unwrap());
    }
    if let Some(validity) = validity {
        builder = builder.key_package_extensions(validity.extensions().unwrap());
    }
    let bundle = builder.build(suite, &provider, &node.signer, credential).unwrap();
    MlsMessageOut::from(bundle.into_key_package()).to_bytes().unwrap()
}

#[test]
fn m11_key_packages_of_wrong_time_suite_owner_or_form() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let (now, leaf) = (start().wall, b.leaf());
    let check = |node: &Node, bytes: &[u8], key: &IdentityKey, now: Now| match node
        .groups
        .check_key_package(bytes, key, suite(), now)
    {
        Err(GroupError::KeyPackage(error)) => Some(error),
        Ok(_) => None,
        Err(other) => panic!("{other:?}"),
    };
    let odd = |suite, from: Timestamp, until: Timestamp| {
        let validity = Validity { not_before: from, not_after: until };
        odd_package(&b, suite, Some(validity), b.signer.credential(), Some(&leaf))
    };
    let chacha = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
    for (wanted, bytes) in [
        (None, odd(suite().mls(), now, now + DAY)),
        (Some(KeyPackageError::Expired), odd(suite().mls(), now.minus(DAY * 2), now.minus(DAY))),
        (Some(KeyPackageError::NotYetValid), odd(suite().mls(), now + DAY, now + DAY * 2)),
        (Some(KeyPackageError::Lifetime), odd(suite().mls(), now, now + DAY * 365)),
        (Some(KeyPackageError::Lifetime), odd(suite().mls(), now + DAY, now)),
        (Some(KeyPackageError::Suite), odd(chacha, now, now + DAY)),
        (
            Some(KeyPackageError::Lifetime),
            odd_package(&b, suite().mls(), None, b.signer.credential(), Some(&leaf)),
        ),
        (Some(KeyPackageError::Leaf), {
            let validity = Validity::starting(now);
            odd_package(&b, suite().mls(), Some(validity), b.signer.credential(), None)
        }),
        (Some(KeyPackageError::Malformed), b"nonsense".to_vec()),
        (Some(KeyPackageError::Malformed), vec![0; 1 << 20]),
    ] {
        assert_eq!(check(&a, &bytes, &b.key, a.now), wanted);
    }
    let good = b.package(false);
    assert_eq!(check(&a, &good, &a.key, a.now), Some(KeyPackageError::WrongOwner));
    // It expires, by the clock that we are given, and an hour of difference is forgiven.
    let at = |wall| Now { wall, ..a.now };
    assert_eq!(check(&a, &good, &b.key, at(now.minus(CLOCK_MARGIN))), None);
    assert_eq!(check(&a, &good, &b.key, at(now + DAY * 84)), None);
    assert_eq!(check(&a, &good, &b.key, at(now + DAY * 85)), Some(KeyPackageError::Expired));
    // Our own are deleted some time after that.
    let rows = b.rows().len();
    b.now.wall = now + DAY * 85;
    b.run(|groups, tx, now| groups.expire(tx, now)).unwrap();
    assert_eq!(b.rows().len(), rows);
    b.now.wall = now + DAY * 92;
    b.run(|groups, tx, now| groups.expire(tx, now)).unwrap();
    assert_eq!(b.rows().len(), rows - 2);
    a.restart();
}

#[test]
fn m12_ghosts_are_refused() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes[..2]);
    let [a, b, ghost] = &mut nodes[..] else { unreachable!() };
    // The admin itself adds a key that no identity certified, or that another identity certified.
    let validity = Validity::starting(start().wall);
    let leaf = ghost.leaf();
    let mut certificate_of_a = a.signer.credential();
    certificate_of_a.signature_key = ghost.signer.credential().signature_key;
    let unknown = CredentialWithKey {
        credential: BasicCredential::new(b"nobody".to_vec()).into(),
        signature_key: ghost.signer.credential().signature_key,
    };
    let cases = [
        (unknown, Some(&leaf), CredentialError::Malformed),
        (certificate_of_a, Some(&leaf), CredentialError::WrongKey),
        (ghost.signer.credential(), None, CredentialError::LeafInfo),
    ];
    for (credential, leaf, wanted) in cases {
        let bytes = odd_package(ghost, suite().mls(), Some(validity), credential, leaf);
        let key_package = a.groups.parse(&bytes, suite()).unwrap();
        let blob = forge_commit(a, &group, Odd { adds: vec![key_package], ..Odd::default() });
        let result = b.open(&blob);
        assert!(
            matches!(result, Err(OpenError::Credential { source, .. }) if source == wanted),
            "{result:?}"
        );
    }
    // A second leaf of somebody who is a member, certified by that very member.
    let mut entropy = Entropy::from_number(77);
    let until = start().wall + DAY * 3650;
    let signer =
        LeafSigner::generate(&b.secret, entropy.array(), start().wall, until, &mut entropy);
    let mut twin = Node::with_signer(b.secret.clone(), signer, entropy);
    let adds = vec![a.checked(&mut twin).key_package];
    let result = b.open(&forge_commit(a, &group, Odd { adds, ..Odd::default() }));
    assert!(
        matches!(result, Err(OpenError::Policy { source: PolicyError::AlreadyMember, .. })),
        "{result:?}"
    );
    // Somebody real, added by whoever is no admin.
    let adds = vec![b.checked(ghost).key_package];
    let result = a.open(&forge_commit(b, &group, Odd { adds, ..Odd::default() }));
    assert!(
        matches!(result, Err(OpenError::Policy { source: PolicyError::NotAdmin, .. })),
        "{result:?}"
    );
    for node in [&mut *a, &mut *b] {
        assert_eq!(node.members(&group).len(), 2);
    }
    // Whom an admin adds is said to everybody, by its identity.
    let adds = vec![a.checked(ghost).key_package];
    let added = forge_commit(a, &group, Odd { adds, ..Odd::default() });
    assert_eq!(b.events(&added), [GroupEvent::Added(ghost.key)]);
    assert_eq!(b.members(&group), [a.key, b.key, ghost.key]);
}

#[test]
fn m13_a_member_cannot_become_somebody_else() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    // B commits with a leaf whose certificate is C's, or a stranger's, for B's own leaf key.
    let leaf = b.leaf();
    let update = |signer: &LeafSigner| {
        LeafNodeParameters::builder()
            .with_credential_with_key(signer.credential())
            .with_capabilities(capabilities())
            .with_extensions(leaf_extensions(&leaf).unwrap())
            .build()
    };
    let stranger = Node::new(9);
    let certified_by_stranger = LeafSigner::certify(&stranger.secret, &b.signer, start().wall);
    let mut stolen = c.signer.credential();
    stolen.signature_key = b.signer.credential().signature_key;
    let stolen = LeafNodeParameters::builder()
        .with_credential_with_key(stolen)
        .with_capabilities(capabilities())
        .with_extensions(leaf_extensions(&leaf).unwrap())
        .build();
    for (parameters, wanted) in [
        (stolen, CredentialError::WrongKey),
        (update(&certified_by_stranger), CredentialError::IdentityChanged),
    ] {
        let blob = forge_commit(b, &group, Odd { leaf: parameters, ..Odd::default() });
        let result = a.open(&blob);
        assert!(
            matches!(result, Err(OpenError::Credential { source, .. }) if source == wanted),
            "{result:?}"
        );
    }
    // A fresh certificate of B itself is fine.
    let renewed = LeafSigner::certify(&b.secret, &b.signer, start().wall + DAY);
    let blob = forge_commit(b, &group, Odd { leaf: update(&renewed), ..Odd::default() });
    assert_eq!(a.events(&blob), [GroupEvent::Updated(b.key)]);
}

#[test]
fn commits_against_the_rules_are_refused() {
    let mut nodes = nodes(4);
    let group = team(&mut nodes[..3]);
    let [a, b, c, stranger] = &mut nodes[..] else { unreachable!() };
    let policy = Policy::new(GroupKind::Group, "team", a.key).unwrap();
    let mut refused = |blob: Vec<u8>, wanted: PolicyError| {
        let before = a.authenticator(&group);
        let rows = a.rows();
        let result = a.open(&blob);
        assert!(
            matches!(result, Err(OpenError::Policy { source, .. }) if source == wanted),
            "{result:?}"
        );
        assert_eq!(a.authenticator(&group), before);
        assert_eq!(a.rows(), rows);
    };
    // A member that is no admin renames, promotes itself, adds, removes.
    let renamed = with_policy(&policy.clone().renamed("mine"));
    refused(forge_commit(b, &group, renamed), PolicyError::NotAdmin);
    let promoted = with_policy(&policy.promoted(b.key));
    refused(forge_commit(b, &group, promoted), PolicyError::NotAdmin);
    let adds = vec![b.checked(stranger).key_package];
    refused(forge_commit(b, &group, Odd { adds, ..Odd::default() }), PolicyError::NotAdmin);
    let c_index = openmls::prelude::LeafNodeIndex::new(2);
    let removal = forge(b, &group, |mls, provider, signer| {
        mls.remove_members(provider, signer, &[c_index]).unwrap().0
    });
    refused(removal, PolicyError::NotAdmin);
    // The rules vanish, or become something else.
    let kind = with_policy(&Policy::new(GroupKind::Direct, "", b.key).unwrap());
    refused(forge_commit(b, &group, kind), PolicyError::KindChanged);
    let nothing = Odd { extensions: Some(Extensions::empty()), ..Odd::default() };
    refused(forge_commit(b, &group, nothing), PolicyError::Malformed);
    // A proposal of another kind.
    let psk = forge(b, &group, |mls, provider, signer| {
        let psk = Psk::External(ExternalPsk::new(b"x".to_vec()));
        let id = PreSharedKeyId::new(suite().mls(), provider.rand(), psk).unwrap();
        id.store(provider, &[7; 32]).unwrap();
        let proposal = Proposal::PreSharedKey(Box::new(PreSharedKeyProposal::new(id)));
        odd_commit(mls, provider, signer, Odd { proposals: vec![proposal], ..Odd::default() })
    });
    let result = a.open(&psk);
    assert!(
        matches!(result, Err(OpenError::Invalid { .. } | OpenError::Policy { .. })),
        "{result:?}"
    );
    // Our own calls say the same.
    let denied = |result| matches!(result, Err(GroupError::Policy(PolicyError::NotAdmin)));
    assert!(denied(b.change(&group, Change::Rename("mine".into()))));
    assert!(denied(b.change(&group, Change::Promote(b.key))));
    assert!(denied(b.change(&group, Change::Remove(vec![c.key]))));
    let package = b.checked(stranger);
    assert!(denied(b.change(&group, Change::Add(vec![package]))));
    for (change, wanted) in [
        (Change::Remove(vec![a.key]), PolicyError::RemoveSelf),
        (Change::Remove(vec![stranger.key]), PolicyError::NotMember),
        (Change::Demote(a.key), PolicyError::LastAdmin),
        (Change::Rename("\u{202E}".into()), PolicyError::Name),
        (Change::Promote(stranger.key), PolicyError::NotMember),
    ] {
        let result = a.change(&group, change);
        assert!(
            matches!(&result, Err(GroupError::Policy(error)) if *error == wanted),
            "{result:?} {wanted:?}"
        );
    }
}

#[test]
fn proposals_but_to_leave_are_refused() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, _] = &mut nodes[..] else { unreachable!() };
    let c_index = openmls::prelude::LeafNodeIndex::new(2);
    let removal = forge(b, &group, |mls, provider, signer| {
        mls.propose_remove_member(provider, signer, c_index).unwrap().0
    });
    let update = forge(b, &group, |mls, provider, signer| {
        mls.propose_self_update(provider, signer, LeafNodeParameters::default()).unwrap().0
    });
    for blob in [removal, update] {
        let result = a.open(&blob);
        assert!(
            matches!(result, Err(OpenError::Policy { source: PolicyError::Proposal, .. })),
            "{result:?}"
        );
    }
    assert!(a.summary(&group).leave_proposed.is_empty());
}

#[test]
fn m20_invitations_by_who_may_not_invite() {
    // A Direct group of three, or a group whose admins are not its members, cannot be joined.
    let mut nodes = nodes(2);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let group = a.create(GroupKind::Direct, "");
    let package = a.checked(b);
    let extra = a.checked(&mut Node::new(7));
    let result = a.change(&group, Change::Add(vec![package.clone(), extra.clone()]));
    assert!(matches!(result, Err(GroupError::Policy(PolicyError::DirectIsFull))));
    let tx = a.store.begin().unwrap();
    let tip = a.groups.record(&tx, &group).unwrap().tip();
    let mut loaded = a.groups.take(&tx, &group, tip).unwrap();
    let provider = a.groups.engine.provider(&tx, tip);
    let packages = [package.key_package, extra.key_package];
    let (_, welcome, _) = loaded.mls.add_members(&provider, &a.signer, &packages).unwrap();
    let welcome = welcome.to_bytes().unwrap();
    drop(tx);
    assert!(matches!(b.join(&welcome), Err(GroupError::Welcome(WelcomeError::Policy))));
    assert!(b.run(|groups, tx, _| groups.groups(tx)).unwrap().is_empty());
}

#[test]
fn m21_a_removed_member_cannot_come_back() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let removal = a.change(&group, Change::Remove(vec![c.key])).unwrap().commit;
    b.open(&removal).unwrap();
    // It commits in the epoch that it still has: the removal stands.
    let late = c.send(&group, "still here");
    let Opened::Message { former, .. } = b.open(&late).unwrap() else { panic!() };
    assert!(former);
    let rival = c.update(&group).commit;
    assert_eq!(b.events(&rival), []);
    assert_eq!(a.events(&rival), []);
    assert_eq!(b.members(&group), [a.key, b.key]);
    // What it writes there is opened, and said to be of somebody who is no member any more.
    c.events(&removal);
    let after = a.send(&group, "secret");
    assert!(matches!(c.open(&after), Err(OpenError::UnknownState)));
}

#[test]
fn m23_sender_attribution() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    // C wraps A's message anew, as if it were its own: it is still A's, and still counts once.
    let blob = a.send(&group, "by a");
    let tx = c.store.begin().unwrap();
    let parsed = wrap::Blob::parse(&blob).unwrap();
    let entry = c.groups.index(&tx).unwrap().find(&parsed).unwrap();
    let (_, message) = entry.keys.unwrap(&parsed).unwrap();
    drop(tx);
    let again = entry.keys.wrap([3; 24], KIND_MLS, &message).unwrap();
    let Opened::Message { sender, .. } = b.open(&again).unwrap() else { panic!() };
    assert_eq!(sender, a.key);
    assert!(matches!(b.open(&blob), Err(OpenError::Duplicate(_))));
    // C confirms in B's name, or signs B's confirmation itself.
    let id = sremp_common::id::MessageId::new([1; 16]);
    let receipt = ReceiptBody {
        group,
        state: entry.state,
        author: a.key,
        ids: List::new(vec![id]).unwrap(),
        kind: ReceiptKind::Delivered,
        time: c.now.wall,
    };
    let own = c.key;
    c.groups.own = b.key;
    let forged = c.run(|groups, tx, now| groups.receipt(tx, &receipt, now)).unwrap().0;
    c.groups.own = own;
    let result = a.open(&forged);
    assert!(
        matches!(
            result,
            Err(OpenError::Invalid { why: "the receipt's signature does not hold", .. })
        ),
        "{result:?}"
    );
    // A receipt does not count in another epoch.
    let real = c.run(|groups, tx, now| groups.receipt(tx, &receipt, now)).unwrap().0;
    let parsed = wrap::Blob::parse(&real).unwrap();
    let (_, signed) = entry.keys.unwrap(&parsed).unwrap();
    a.open(&real).unwrap();
    let commit = a.update(&group).commit;
    c.open(&commit).unwrap();
    let tx = c.store.begin().unwrap();
    let tip = c.groups.record(&tx, &group).unwrap().tip();
    let keys = c.groups.take(&tx, &group, tip).unwrap().keys.unwrap();
    drop(tx);
    let moved = keys.wrap([4; 24], KIND_RECEIPT, &signed).unwrap();
    assert!(matches!(a.open(&moved), Err(OpenError::Invalid { .. })));
}

#[test]
fn m24_one_key_one_purpose() {
    // An identity key as leaf key.
    let a = Node::new(1);
    let twice = LeafSigner::of_identity(&a.secret, start().wall);
    assert_eq!(
        LeafSigner::from_bytes(&twice.to_bytes()).unwrap_err(),
        CredentialError::IdentityKeyReused
    );
    // No MLS key of ours equals the identity key.
    assert_ne!(a.signer.leaf_key(), *a.key.as_bytes());
    // A signature by the identity key for another purpose certifies nothing.
    assert_eq!(
        credential::verify(
            &LeafSigner::certify_wrongly(&a.secret, &a.signer, start().wall),
            &a.signer.leaf_key()
        ),
        Err(CredentialError::Signature)
    );
}
