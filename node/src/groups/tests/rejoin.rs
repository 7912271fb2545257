//! Members that lost their state: they come back from outside, and nobody else does.

use super::*;

pub(super) fn offer(node: &mut Node, group: &GroupId) -> Offer {
    node.run(|groups, tx, _| groups.offer(tx, group, false)).unwrap()
}

pub(super) fn rejoin(
    node: &mut Node,
    group: &GroupId,
    offer: &Offer,
) -> Result<Changed, GroupError> {
    let leaf = node.leaf();
    node.run(|groups, tx, now| groups.rejoin(tx, group, offer, &leaf, now))
}

#[test]
fn a_lost_member_comes_back_and_all_agree() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    // The third member misses more than anybody keeps.
    for _ in 0..3 {
        let commit = nodes[0].update(&group).commit;
        nodes[1].open(&commit).unwrap();
    }
    let offer = offer(&mut nodes[1], &group);
    nodes[2].run(|groups, tx, _| groups.distrust(tx, &group)).unwrap();
    let refused = nodes[2].run(|groups, tx, now| groups.encrypt(tx, &group, b"x", now));
    assert!(matches!(refused, Err(GroupError::Stale)));
    let changed = rejoin(&mut nodes[2], &group, &offer).unwrap();
    assert_eq!(changed.recipients.len(), 2);
    let back = nodes[2].key;
    for node in &mut nodes[..2] {
        let events = node.events(&changed.commit);
        assert_eq!(events[0], GroupEvent::Rejoined(back));
    }
    assert_agree(&mut nodes, &group);
    let text = nodes[2].send(&group, "back");
    assert_eq!(nodes[0].read(&text), "back");
    let text = nodes[0].send(&group, "welcome");
    assert_eq!(nodes[2].read(&text), "welcome");
    // The same commit again, and to whoever made it.
    assert!(matches!(nodes[0].open(&changed.commit), Err(OpenError::Duplicate(_))));
    nodes[2].restart();
    assert_agree(&mut nodes, &group);
}

#[test]
fn m08_an_external_commit_brings_back_members_alone_and_changes_nothing_else() {
    let mut nodes = nodes(4);
    let (team_nodes, stranger) = nodes.split_at_mut(3);
    let group = team(team_nodes);
    let way = offer(&mut team_nodes[0], &group);
    // Somebody outside has got hold of an offer; its own record of such a group does not help.
    let stranger = &mut stranger[0];
    assert!(matches!(rejoin(stranger, &group, &way), Err(GroupError::NoSuchGroup)));
    // Somebody who was removed uses an offer from before.
    let removed = team_nodes[2].key;
    let commit = team_nodes[0].change(&group, Change::Remove(vec![removed])).unwrap().commit;
    team_nodes[1].open(&commit).unwrap();
    let changed = rejoin(&mut team_nodes[2], &group, &way).unwrap();
    for node in &mut team_nodes[..2] {
        // A rival of the removal, and it loses against the admin.
        assert!(node.events(&changed.commit).is_empty());
        assert_eq!(node.members(&group).len(), 2);
    }
    // With an offer from after the removal it is no member any more.
    let way = offer(&mut team_nodes[0], &group);
    let changed = rejoin(&mut team_nodes[2], &group, &way);
    if let Ok(changed) = changed {
        let verdict = team_nodes[1].open(&changed.commit);
        assert!(matches!(verdict, Err(OpenError::Policy { .. })), "{verdict:?}");
    }
    assert_eq!(team_nodes[1].members(&group).len(), 2);
}

#[test]
fn m08_a_stale_group_info_loses_against_what_came_after_it() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let old = offer(&mut nodes[0], &group);
    let name = nodes[0].change(&group, Change::Rename("newer".into())).unwrap().commit;
    nodes[1].open(&name).unwrap();
    let changed = rejoin(&mut nodes[2], &group, &old).unwrap();
    for node in &mut nodes[..2] {
        assert!(node.events(&changed.commit).is_empty(), "kept as a rival only");
        assert_eq!(node.summary(&group).name, "newer");
    }
    // It lacks the state that both have in common, so it cannot follow the rules by which it lost: it
    // sees who stands where, and comes back once more.
    let marks = nodes[2].run(|groups, tx, _| groups.marks(tx, &group)).unwrap();
    let standing = nodes[0].run(|groups, tx, _| groups.compare(tx, &group, &marks)).unwrap();
    assert_eq!(standing, Standing::Unrelated);
    let fresh = offer(&mut nodes[0], &group);
    let changed = rejoin(&mut nodes[2], &group, &fresh).unwrap();
    nodes[0].open(&changed.commit).unwrap();
    nodes[1].open(&changed.commit).unwrap();
    assert_agree(&mut nodes, &group);
}

#[test]
fn a_forged_or_foreign_offer_is_refused_and_changes_nothing() {
    let mut nodes = nodes(2);
    let group = team(&mut nodes);
    let other = nodes[0].create(GroupKind::Group, "other");
    let before = nodes[1].authenticator(&group);
    let foreign = offer(&mut nodes[0], &other);
    assert!(matches!(rejoin(&mut nodes[1], &group, &foreign), Err(GroupError::Offer(_))));
    let good = offer(&mut nodes[0], &group);
    let bytes = good.group_info().to_vec();
    for place in (0..bytes.len()).step_by(7) {
        let mut forged = bytes.clone();
        forged[place] ^= 1;
        let forged = good.with_group_info(forged);
        assert!(rejoin(&mut nodes[1], &group, &forged).is_err(), "byte {place}");
    }
    let mut late = good;
    late.mark.epoch += 1;
    assert!(matches!(rejoin(&mut nodes[1], &group, &late), Err(GroupError::Offer(_))));
    assert_eq!(nodes[1].authenticator(&group), before);
    let text = nodes[1].send(&group, "still here");
    assert_eq!(nodes[0].read(&text), "still here");
}

#[test]
fn notes_are_for_one_member_and_by_one() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let seal = SealSecret::generate(&mut nodes[1].entropy);
    let to = nodes[1].key;
    let marks = nodes[0].run(|groups, tx, _| groups.marks(tx, &group)).unwrap();
    let (way, leaf) = (Some(nodes[0].leaf()), None);
    let probe = NoteBody::Probe(Probe { marks, wants: Wants::Answer, yours: 7, way, leaf });
    let blob = nodes[0].groups.note(&group, (&to, &seal.public()), &probe).unwrap();
    let (kind, bytes) = nodes[1].groups.unseal(std::slice::from_ref(&seal), &blob).unwrap();
    assert_eq!(kind, SEALED_NOTE);
    let mut open = |place: usize, bytes: &[u8]| {
        let bytes = bytes.to_vec();
        nodes[place].run(|groups, tx, _| groups.open_note(tx, &bytes)).unwrap()
    };
    let note = open(1, &bytes).unwrap();
    let NoteBody::Probe(read) = note.body else { panic!("another note") };
    assert_eq!((read.wants, read.yours), (Wants::Answer, 7));
    // Passed on to somebody else, it says nothing; nor does any change of it.
    assert!(open(2, &bytes).is_none());
    for place in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[place] ^= 1;
        assert!(open(1, &forged).is_none(), "byte {place}");
    }
}

#[test]
fn a_former_member_is_known_by_its_question_alone_when_no_state_with_it_is_kept() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let (asked, gone) = (nodes[0].key, nodes[2].key);
    nodes[0].change(&group, Change::Remove(vec![gone])).unwrap();
    nodes[0].update(&group);
    nodes[0].now.wall = nodes[0].now.wall + DAY * 30;
    nodes[0].run(|groups, tx, now| groups.expire(tx, now)).unwrap();
    nodes[0].restart();

    let seal = SealSecret::generate(&mut nodes[0].entropy);
    let hears = |nodes: &mut [Node], body: &NoteBody| {
        let blob = nodes[2].groups.note(&group, (&asked, &seal.public()), body).unwrap();
        let (_, bytes) = nodes[0].groups.unseal(std::slice::from_ref(&seal), &blob).unwrap();
        let note = nodes[0].run(|groups, tx, _| groups.open_note(tx, &bytes)).unwrap();
        note.is_some_and(|note| note.from == gone)
    };
    let marks = nodes[2].run(|groups, tx, _| groups.marks(tx, &group)).unwrap();
    let (way, leaf) = (Some(nodes[2].leaf()), None);
    let question = NoteBody::Probe(Probe { marks, wants: Wants::Answer, yours: 0, way, leaf });
    assert!(hears(&mut nodes, &question));
    assert!(!hears(&mut nodes, &NoteBody::ReaddMe));
    let mark = nodes[2].run(|groups, tx, _| groups.mark(tx, &group)).unwrap().unwrap();
    assert!(!hears(&mut nodes, &NoteBody::NotMember(mark)));

    // It is added again, with another leaf key: whoever got hold of the former one cannot ask any more.
    let mut entropy = nodes[1].entropy.fork();
    let until = start().wall + DAY * 3650;
    let secret = nodes[2].secret.clone();
    let signer = LeafSigner::generate(&secret, [9; 16], start().wall, until, &mut entropy);
    let mut again = Node::with_signer(secret, signer, entropy);
    let package = nodes[0].checked(&mut again);
    nodes[0].change(&group, Change::Add(vec![package])).unwrap();
    assert!(!hears(&mut nodes, &question));
}

#[test]
fn whoever_lost_its_keys_and_cannot_read_a_commit_comes_back_from_outside() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    // The keys of one member are gone: the path of a commit is of no use to it.
    let tx = nodes[2].store.begin().unwrap();
    for (key, _) in tx.scan(Table::Mls, &[], None, usize::MAX).unwrap() {
        if key[16] == 14 {
            tx.delete(Table::Mls, &key);
        }
    }
    tx.accept().unwrap();
    tx.commit().unwrap();
    nodes[2].restart();
    let before = nodes[2].authenticator(&group);
    let commit = nodes[0].update(&group).commit;
    nodes[1].open(&commit).unwrap();
    for _ in 0..2 {
        let refused = nodes[2].open(&commit);
        assert!(matches!(refused, Err(OpenError::Invalid { .. })), "{refused:?}");
    }
    assert_eq!(nodes[2].authenticator(&group), before, "nothing of it stays");
    // It sees that it misses something, and comes back.
    let marks = nodes[0].run(|groups, tx, _| groups.marks(tx, &group)).unwrap();
    let standing = nodes[2].run(|groups, tx, _| groups.compare(tx, &group, &marks)).unwrap();
    assert_eq!(standing, Standing::WeMiss);
    let way = offer(&mut nodes[0], &group);
    let changed = rejoin(&mut nodes[2], &group, &way).unwrap();
    nodes[0].open(&changed.commit).unwrap();
    nodes[1].open(&changed.commit).unwrap();
    assert_agree(&mut nodes, &group);
}

#[test]
fn commits_that_several_members_miss_are_read_once() {
    let mut nodes = nodes(4);
    let group = team(&mut nodes);
    let [a, b, c, d] = &mut nodes[..] else { unreachable!() };
    let from = a.summary(&group).state;
    let leave = d.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap().blob;
    a.open(&leave).unwrap();
    let commits = [
        a.change(&group, Change::CommitProposals).unwrap().commit,
        a.change(&group, Change::Rename("one".into())).unwrap().commit,
    ];
    let [first, second] = commits;
    let read =
        |a: &mut Node| a.run(|groups, tx, _| groups.commits_after(tx, &group, from)).unwrap();
    let brought = read(a);
    assert_eq!(*brought, [leave, first, second]);
    assert!(Arc::ptr_eq(&brought, &read(a)));
    for blob in brought.iter() {
        b.open(blob).unwrap();
    }
    // One more is no reason to forget it.
    let third = a.update(&group).commit;
    let all = read(a);
    assert_eq!(all.len(), 4);
    assert_eq!(all[3], third);
    a.restart();
    assert_eq!(read(a), all);
    for blob in all.iter() {
        c.open(blob).unwrap();
    }
    b.open(&third).unwrap();
    assert_agree(&mut nodes[..3], &group);
}

/// So many new epochs, each after an hour: what was before them is not kept any more.
fn pass_epochs(node: &mut Node, group: &GroupId, count: u64) {
    for _ in 0..count {
        node.now.wall = node.now.wall + Duration::from_secs(3600);
        node.update(group);
    }
}

fn standing(node: &mut Node, of: &mut Node, group: &GroupId) -> Standing {
    let marks = of.run(|groups, tx, _| groups.marks(tx, group)).unwrap();
    node.run(|groups, tx, _| groups.compare(tx, group, &marks)).unwrap()
}

fn lost(changed: &Changed) -> &[LostWork] {
    let GroupEvent::Switched { lost } = &changed.events[0] else { panic!("{:?}", changed.events) };
    lost
}

#[test]
fn who_comes_back_learns_what_of_its_work_is_undone_however_long_ago_it_was() {
    let mut nodes = nodes(4);
    let group = team(&mut nodes);
    let removed = nodes[3].key;
    let promoted = nodes[1].key;
    let before = nodes[0].change(&group, Change::Promote(promoted)).unwrap().commit;
    nodes[1].open(&before).unwrap();
    nodes[2].open(&before).unwrap();
    // Two sides, each of which goes on for so long that neither keeps what both came through.
    let removal = nodes[0].change(&group, Change::Remove(vec![removed])).unwrap().commit;
    nodes[2].open(&removal).unwrap();
    pass_epochs(&mut nodes[0], &group, 70);
    pass_epochs(&mut nodes[1], &group, 60);
    let way = offer(&mut nodes[1], &group);
    let changed = rejoin(&mut nodes[0], &group, &way).unwrap();
    // The promotion is on both sides.
    assert_eq!(lost(&changed), [LostWork::Removed(vec![removed])]);
    // It comes back once more: that is known of work which was done again, too.
    nodes[1].open(&changed.commit).unwrap();
    let removal = nodes[0].change(&group, Change::Remove(vec![removed])).unwrap().commit;
    pass_epochs(&mut nodes[0], &group, 12);
    let without = offer(&mut nodes[1], &group);
    nodes[1].open(&removal).unwrap();
    pass_epochs(&mut nodes[1], &group, 14);
    let with = offer(&mut nodes[1], &group);
    nodes[0].restart();
    let leaf = nodes[0].leaf();
    let refused = nodes[0].run(|groups, tx, now| {
        Err::<(), _>(Box::new(groups.rejoin(tx, &group, &with, &leaf, now).unwrap()))
    });
    assert_eq!(lost(&refused.unwrap_err()), []);
    let changed = rejoin(&mut nodes[0], &group, &without).unwrap();
    assert_eq!(lost(&changed), [LostWork::Removed(vec![removed])]);
}

#[test]
fn who_stands_where_we_stood_before_we_went_over_to_another_side_is_not_behind() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let name = a.change(&group, Change::Rename("ours".into())).unwrap().commit;
    c.open(&name).unwrap();
    pass_epochs(a, &group, 12);
    pass_epochs(b, &group, 14);
    assert_eq!(standing(a, c, &group), Standing::TheyAreLost);
    let changed = rejoin(a, &group, &offer(b, &group)).unwrap();
    b.open(&changed.commit).unwrap();
    assert_eq!(standing(a, c, &group), Standing::Unrelated);
    assert_eq!(standing(c, a, &group), Standing::Unrelated);
    assert_eq!(standing(a, b, &group), Standing::Same);
}

#[test]
fn who_was_leaving_and_comes_back_still_wants_to_leave() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, _, c] = &mut nodes[..] else { unreachable!() };
    c.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap();
    let kept = c.run(|groups, tx, _| groups.own_proposal(tx, &group)).unwrap();
    assert!(kept.is_some());
    pass_epochs(a, &group, 14);
    let changed = rejoin(c, &group, &offer(a, &group)).unwrap();
    assert!(c.summary(&group).leaving);
    a.open(&changed.commit).unwrap();
    let proposal = c.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap();
    assert!(matches!(a.open(&proposal.blob), Ok(Opened::LeaveProposed { .. })));
    let commit = a.change(&group, Change::CommitProposals).unwrap().commit;
    assert!(c.events(&commit).contains(&GroupEvent::MeRemoved));
}

#[test]
fn what_our_own_side_has_overruled_is_not_done_again() {
    let mut nodes = nodes(4);
    let group = team(&mut nodes);
    let (second, removed) = (nodes[1].key, nodes[3].key);
    let promotion = nodes[0].change(&group, Change::Promote(second)).unwrap().commit;
    nodes[1].open(&promotion).unwrap();
    nodes[2].open(&promotion).unwrap();
    // The first one removes somebody and renames the group; on the same side the second one overrules
    // both. The third one stays behind, and goes on by itself.
    for change in [Change::Remove(vec![removed]), Change::Rename("first".into())] {
        let commit = nodes[0].change(&group, change).unwrap().commit;
        nodes[1].open(&commit).unwrap();
    }
    let package = {
        let [_, second, _, fourth] = &mut nodes[..] else { unreachable!() };
        second.checked(fourth)
    };
    for change in [Change::Add(vec![package]), Change::Rename("second".into())] {
        let commit = nodes[1].change(&group, change).unwrap().commit;
        nodes[0].open(&commit).unwrap();
    }
    pass_epochs(&mut nodes[2], &group, 14);
    let way = offer(&mut nodes[2], &group);
    let changed = rejoin(&mut nodes[0], &group, &way).unwrap();
    assert_eq!(lost(&changed), []);
}

#[test]
fn who_was_added_or_went_since_is_not_what_was_to_be_done_again() {
    let [one, two] = [1, 2].map(|seed| Node::new(seed).key);
    let mut work = LostWork::Removed(vec![one, two]);
    assert!(work.outlives(&GroupEvent::Removed(one)));
    assert!(work.outlives(&GroupEvent::Added(one)));
    assert_eq!(work, LostWork::Removed(vec![two]));
    assert!(!work.outlives(&GroupEvent::Added(two)));
    for since in [GroupEvent::Removed(one), GroupEvent::Left(one)] {
        assert!(!LostWork::Added(vec![one]).outlives(&since));
    }
    assert!(LostWork::Renamed("a".into()).outlives(&GroupEvent::Renamed("b".into())));
}
