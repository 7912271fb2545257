//! The life of a group: made, joined, changed, left.

use sremp_common::identity::RelayRecord;

use super::*;
use crate::groups::policy::PolicyError;

#[test]
fn two_talk() {
    let (mut a, mut b, group) = pair();
    let blob = a.send(&group, "hi");
    assert_eq!(blob.len(), 256);
    assert_eq!(b.read(&blob), "hi");
    let blob = b.send(&group, "hello");
    assert_eq!(a.read(&blob), "hello");
    let summary = b.summary(&group);
    assert_eq!((summary.kind, summary.name.as_str()), (GroupKind::Direct, ""));
    assert_eq!(summary.suite, suite().number());
    assert!(summary.members.iter().all(|member| member.role == Role::Admin));
    assert_eq!(summary.epoch_authenticator, a.authenticator(&group));
}

#[test]
fn everything_survives_a_restart() {
    let (mut a, mut b, group) = pair();
    let early = a.send(&group, "one");
    a.restart();
    b.restart();
    let late = a.send(&group, "two");
    assert_eq!(b.read(&late), "two");
    b.restart();
    assert_eq!(b.read(&early), "one");
    assert!(matches!(b.open(&early), Err(OpenError::Duplicate(_))));
}

#[test]
fn members_come_and_go() {
    let mut nodes = nodes(4);
    let group = team(&mut nodes[..3]);
    assert_agree(&mut nodes[..3], &group);
    let [a, b, c, d] = &mut nodes[..] else { unreachable!() };

    let (a_key, b_key) = (a.key, b.key);
    // Added.
    let package = a.checked(d);
    let changed = a.change(&group, Change::Add(vec![package])).unwrap();
    assert_eq!(changed.joined.len(), 1);
    assert_eq!(changed.recipients.len(), 2);
    for node in [&mut *b, &mut *c] {
        assert_eq!(node.events(&changed.commit), [GroupEvent::Added(d.key)]);
    }
    let joined = d.join(&changed.welcome.unwrap()).unwrap();
    assert_eq!((joined.inviter, joined.name.as_str(), joined.replaced), (a.key, "team", false));
    assert_eq!(joined.members.len(), 4);
    let blob = d.send(&group, "new here");
    assert_eq!(b.read(&blob), "new here");

    // Renamed, promoted, demoted.
    let changed = a.change(&group, Change::Rename("crew".into())).unwrap();
    for node in [&mut *b, &mut *c, &mut *d] {
        assert_eq!(node.events(&changed.commit), [GroupEvent::Renamed("crew".into())]);
    }
    let changed = a.change(&group, Change::Promote(b.key)).unwrap();
    assert_eq!(changed.events, [GroupEvent::Promoted(b.key)]);
    for node in [&mut *b, &mut *c, &mut *d] {
        assert_eq!(node.events(&changed.commit), [GroupEvent::Promoted(b_key)]);
    }
    let changed = b.change(&group, Change::Demote(a.key)).unwrap();
    for node in [&mut *a, &mut *c, &mut *d] {
        assert_eq!(node.events(&changed.commit), [GroupEvent::Demoted(a_key)]);
    }

    // Removed: reads what was sent before, and nothing after.
    let before = b.send(&group, "before");
    let changed = b.change(&group, Change::Remove(vec![c.key])).unwrap();
    assert_eq!(c.events(&changed.commit), [GroupEvent::MeRemoved]);
    assert!(!c.summary(&group).active);
    assert_eq!(c.read(&before), "before");
    assert!(matches!(
        c.run(|groups, tx, now| groups.encrypt(tx, &group, b"x", now)),
        Err(GroupError::NotMember)
    ));
    for node in [&mut *a, &mut *d] {
        assert_eq!(node.events(&changed.commit), [GroupEvent::Removed(c.key)]);
    }
    let after = b.send(&group, "after");
    assert_eq!(a.read(&after), "after");
    assert!(matches!(c.open(&after), Err(OpenError::UnknownState)));
}

#[test]
fn a_member_leaves() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let sealed = b.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap();
    assert_eq!(sealed.recipients.len(), 2);
    assert!(b.summary(&group).leaving);
    for node in [&mut *a, &mut *c] {
        let Opened::LeaveProposed { who, .. } = node.open(&sealed.blob).unwrap() else { panic!() };
        assert_eq!(who, b.key);
        assert_eq!(node.summary(&group).leave_proposed, [b.key]);
    }
    // The proposal stops nobody from sending.
    let blob = a.send(&group, "bye");
    assert_eq!(b.read(&blob), "bye");
    assert!(matches!(b.change(&group, Change::Rename("x".into())), Err(GroupError::Leaving)));

    // A plain member carries it out, after a restart.
    c.restart();
    let changed = c.change(&group, Change::CommitProposals).unwrap();
    assert_eq!(changed.events, [GroupEvent::Left(b.key)]);
    assert_eq!(a.events(&changed.commit), [GroupEvent::Left(b.key)]);
    assert_eq!(b.events(&changed.commit), [GroupEvent::MeRemoved]);
    assert!(!b.summary(&group).active);
    assert_eq!(a.members(&group), [a.key, c.key]);
    assert!(matches!(c.change(&group, Change::CommitProposals), Err(GroupError::NothingToCommit)));
}

#[test]
fn a_leave_that_the_next_epoch_forgot_is_proposed_again() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, _] = &mut nodes[..] else { unreachable!() };
    let first = b.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap();
    assert!(matches!(
        b.run(|groups, tx, now| groups.propose_leave(tx, &group, now)),
        Err(GroupError::Leaving)
    ));
    // The admin has not seen it when it commits.
    let changed = a.change(&group, Change::Rename("crew".into())).unwrap();
    b.events(&changed.commit);
    let summary = b.summary(&group);
    assert!(summary.active && summary.leaving);
    let again = b.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap();
    a.open(&first.blob).unwrap();
    a.open(&again.blob).unwrap();
    let changed = a.change(&group, Change::CommitProposals).unwrap();
    assert_eq!(b.events(&changed.commit), [GroupEvent::MeRemoved]);
}

#[test]
fn an_admin_leaves_and_the_rules_follow() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let leave = |groups: &mut Groups, tx: &Tx, now| groups.propose_leave(tx, &group, now);
    assert!(matches!(a.run(leave), Err(GroupError::Policy(PolicyError::LastAdmin))));
    assert!(!a.summary(&group).leaving);
    let changed = a.change(&group, Change::Promote(c.key)).unwrap();
    b.events(&changed.commit);
    c.events(&changed.commit);
    let proposal = a.run(leave).unwrap().blob;
    b.open(&proposal).unwrap();
    c.open(&proposal).unwrap();
    // B is no admin, and yet may take A off the list of admins: it must.
    let changed = b.change(&group, Change::CommitProposals).unwrap();
    assert_eq!(c.events(&changed.commit), [GroupEvent::Left(a.key)]);
    assert_eq!(c.summary(&group).member(&c.key).unwrap().role, Role::Admin);
    assert_eq!(c.summary(&group).member(&b.key).unwrap().role, Role::Member);
}

#[test]
fn who_is_alone_cannot_leave_but_forget() {
    let mut a = Node::new(1);
    let empty = a.rows();
    let group = a.create(GroupKind::Group, "team");
    assert!(matches!(
        a.run(|groups, tx, now| groups.propose_leave(tx, &group, now)),
        Err(GroupError::Policy(PolicyError::Alone))
    ));
    assert_eq!(a.run(|groups, tx, _| groups.groups(tx)).unwrap(), [group]);
    a.run(|groups, tx, _| groups.forget(tx, &group)).unwrap();
    assert_eq!(a.rows(), empty);
    assert!(matches!(
        a.run(|groups, tx, _| groups.summary(tx, &group)),
        Err(GroupError::NoSuchGroup)
    ));
}

#[test]
fn self_update_changes_how_a_member_is_reached() {
    let (mut a, mut b, group) = pair();
    assert_eq!(b.own_update_at(&group), Timestamp::from_millis(0));
    let leaf = b.leaf();
    let changed = b.change(&group, Change::Update(leaf.clone())).unwrap();
    assert_eq!(a.events(&changed.commit), [GroupEvent::Updated(b.key)]);
    assert_eq!(b.own_update_at(&group), b.now.wall);
    let sealed = a.seal(&group, "x");
    assert_eq!(sealed.recipients.as_ref(), [(b.key, leaf)]);
    assert_eq!(b.read(&sealed.blob), "x");
}

#[test]
fn receipts_are_for_their_author_alone() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let blob = a.send(&group, "hi");
    let Opened::Message { state, .. } = b.open(&blob).unwrap() else { panic!() };
    let id = sremp_common::id::MessageId::new([7; 16]);
    let receipt = ReceiptBody {
        group,
        state,
        author: a.key,
        ids: List::new(vec![id]).unwrap(),
        kind: ReceiptKind::Read,
        time: b.now.wall,
    };
    let (blob, leaf) = b.run(|groups, tx, now| groups.receipt(tx, &receipt, now)).unwrap();
    assert_eq!(leaf, b.summary(&group).member(&a.key).unwrap().leaf);
    let Opened::Receipt { from, ids, kind, time, .. } = a.open(&blob).unwrap() else { panic!() };
    assert_eq!((from, ids, kind, time), (b.key, vec![id], ReceiptKind::Read, b.now.wall));
    assert!(matches!(c.open(&blob), Err(OpenError::Invalid { .. })));
    let nobody = ReceiptBody { author: Node::new(9).key, ..receipt };
    assert!(matches!(
        b.run(|groups, tx, now| groups.receipt(tx, &nobody, now)),
        Err(GroupError::NotMemberThen(_))
    ));
}

#[test]
fn sealed_blobs_open_for_one_key() {
    let (a, mut b, _) = pair();
    let secrets = [0, 1].map(|_| SealSecret::generate(&mut b.entropy));
    let blob = a.groups.seal(&secrets[1].public(), 3, b"welcome").unwrap();
    assert_eq!(blob.len(), 256);
    assert_eq!(b.groups.unseal(&secrets, &blob), Some((3, b"welcome".to_vec())));
    assert_eq!(b.groups.unseal(&secrets[..1], &blob), None);
    assert_eq!(b.groups.unseal(&secrets, &blob[..20]), None);
    let mut bad = blob;
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(b.groups.unseal(&secrets, &bad), None);
}

#[test]
fn the_largest_content_fits_and_one_more_byte_does_not() {
    let (mut a, mut b, group) = pair();
    let most = MAX_CONTENT - 1024;
    let send = |node: &mut Node, bytes: &[u8]| {
        node.run(|groups, tx, now| groups.encrypt(tx, &group, bytes, now))
    };
    let sealed = send(&mut a, &vec![1; most]).unwrap();
    assert_eq!(sealed.blob.len(), sremp_common::limit::MAX_BLOB);
    assert_eq!(b.read(&sealed.blob).len(), most);
    assert!(matches!(send(&mut a, &vec![1; most + 1]), Err(GroupError::TooLong(_))));
}

#[test]
fn a_taker_gets_a_key_package_for_each_suite_and_uses_one() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let leaf = b.leaf();
    let both = b.run(|groups, tx, now| groups.make_key_packages(tx, &leaf, false, now)).unwrap();
    assert!(both.len() < sremp_common::limit::MAX_KEY_PACKAGE / 2, "{}", both.len());
    for suite in Suite::ALL {
        let package = a.groups.check_key_package(&both, &b.key, suite, a.now).unwrap();
        let leaf = a.leaf();
        let create = |groups: &mut Groups, tx: &Tx, now: Now| {
            groups.create(tx, GroupKind::Group, "team", suite, &leaf, now)
        };
        let group = a.run(create).unwrap();
        let changed = a.change(&group, Change::Add(vec![package])).unwrap();
        b.join(&changed.welcome.unwrap()).unwrap();
        assert_eq!(b.summary(&group).suite, suite.number());
        let blob = a.send(&group, "in this suite");
        assert_eq!(b.read(&blob), "in this suite");
    }
    // Whoever has another suite alone is refused, and it is said why.
    let [has, lacks] = Suite::ALL;
    let one = b.run(|groups, tx, now| groups.make_key_package(tx, has, &leaf, false, now)).unwrap();
    let refused = a.groups.check_key_package(&one, &b.key, lacks, a.now).unwrap_err();
    assert!(matches!(refused, GroupError::KeyPackage(KeyPackageError::Suite)), "{refused}");
    // Nothing but key packages, and not too many.
    let many = one.repeat(9);
    let check = |bytes: &[u8]| a.groups.check_key_package(bytes, &b.key, has, a.now).is_ok();
    assert!(check(&one.repeat(8)) && !check(&many) && !check(&[one.as_slice(), &[0]].concat()));
}

#[test]
fn a_thousand_are_added_by_one_commit_and_talk() {
    const MEMBERS: u64 = 1000;
    let mut all = nodes(MEMBERS);
    let (group, changed) = all_added(&mut all);
    let welcome = changed.welcome.unwrap();
    let [first, a, .., b] = &mut all[..] else { unreachable!() };
    for node in [&mut *a, &mut *b] {
        assert_eq!(node.join(&welcome).unwrap().members.len(), 1000);
    }
    let commit = a.update(&group).commit;
    assert_eq!(b.events(&commit), [GroupEvent::Updated(a.key)]);
    assert_eq!(first.events(&commit), [GroupEvent::Updated(a.key)]);
    let sealed = b.seal(&group, "from the last one");
    assert_eq!(sealed.recipients.len(), 999);
    assert_eq!(
        (a.read(&sealed.blob), first.read(&sealed.blob).len()),
        ("from the last one".into(), 17)
    );
    let gone = first.change(&group, Change::Remove(vec![b.key])).unwrap().commit;
    assert!(matches!(a.open(&gone), Ok(Opened::Changed { .. })));
    assert_eq!(a.members(&group).len(), 999);
    assert_eq!(a.authenticator(&group), first.authenticator(&group));
}

/// The tree of the largest group, as far as a small one shows it: all have renewed their keys, and are
/// reached by as many relays as there may be.
#[test]
fn the_tree_of_the_largest_group_fits_into_a_blob() {
    let mut all = nodes(16);
    let group = team(&mut all);
    for place in 0..all.len() {
        let mut leaf = all[place].leaf();
        let endpoints = vec!["relay.of-somebody.example:7331".parse().unwrap(); 2];
        let relays = all[..4].iter().map(|node| RelayRecord {
            identity_key: node.key,
            endpoints: List::new(endpoints.clone()).unwrap(),
        });
        leaf.relays = List::new(relays.collect()).unwrap();
        let commit = all[place].change(&group, Change::Update(leaf)).unwrap().commit;
        for (other, node) in all.iter_mut().enumerate() {
            if other != place {
                node.open(&commit).unwrap();
            }
        }
    }
    let offer = rejoin::offer(&mut all[0], &group);
    let largest = offer.group_info().len() / all.len() * policy::MAX_MEMBERS;
    assert!(largest < MAX_TREE && MAX_TREE + 16 * 1024 < MAX_CONTENT, "{largest} bytes");
}

#[test]
fn two_hundred_join_by_parts_with_the_tree_in_common() {
    const MEMBERS: u64 = 200;
    let mut team_nodes = nodes(MEMBERS);
    let (_, changed) = all_added(&mut team_nodes);
    let (first, rest) = team_nodes.split_first_mut().unwrap();
    let welcomes = changed.welcomes().unwrap();
    assert_eq!(welcomes.parts.len(), rest.len());
    let parts: usize = welcomes.parts.iter().map(Vec::len).sum();
    let (whole, shared) = (changed.welcome.as_ref().unwrap().len(), welcomes.shared.len());
    // A post-quantum secret alone takes more than a kilobyte.
    let most = if suite() == Suite::X25519 { 256 } else { 1536 };
    assert!(parts < most * rest.len(), "{parts} bytes for each alone");
    assert!(shared > 256 * rest.len() && shared + parts < whole + 16 * rest.len());

    let key = [7; 32];
    let blob = first.groups.wrap_shared(&key, &welcomes.shared).unwrap();
    for place in [0, 97, 198] {
        let node = &mut rest[place];
        assert_eq!(node.groups.unwrap_shared(&[8; 32], &blob), None);
        let shared = node.groups.unwrap_shared(&key, &blob).unwrap();
        let whole = Welcomes::join(&welcomes.parts[place], &shared).unwrap();
        assert_eq!(whole, welcomes.whole(place).unwrap());
        // Somebody else's part opens nothing.
        let others = welcomes.whole((place + 1) % 199).unwrap();
        assert!(node.join(&others).is_err());
        assert_eq!(node.join(&whole).unwrap().members.len(), 200);
    }
}
