//! Rival commits: whatever arrives in whatever order, all members end in one state.

use proptest::prelude::*;

use super::*;

/// Blobs on their way to one node, opened in the order of the list; what is early is tried again.
fn deliver(node: &mut Node, mut mail: Vec<Vec<u8>>) -> Vec<GroupEvent> {
    let mut events = Vec::new();
    loop {
        let before = mail.len();
        mail.retain(|blob| match node.open(blob) {
            Ok(Opened::Changed { events: new, .. }) => {
                events.extend(new);
                false
            }
            Ok(_) | Err(OpenError::Duplicate(_)) => false,
            Err(OpenError::UnknownState | OpenError::Early(_)) => true,
            Err(error) => panic!("{error:?}"),
        });
        if mail.is_empty() || mail.len() == before {
            return events;
        }
    }
}

/// All orders of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert = |order: Vec<usize>| {
        (0..count).map(move |place| {
            let mut order = order.clone();
            order.insert(place, count - 1);
            order
        })
    };
    orders(count - 1).into_iter().flat_map(insert).collect()
}

fn lost(events: &[GroupEvent]) -> Vec<LostWork> {
    let of = |event: &GroupEvent| {
        if let GroupEvent::Switched { lost } = event { lost.clone() } else { Vec::new() }
    };
    events.iter().flat_map(of).collect()
}

/// Commits that a member makes of one state, and keeps none of.
fn rivals_of_its_own(node: &mut Node, group: &GroupId, count: usize) -> Vec<Vec<u8>> {
    let mut commits = Vec::new();
    for _ in 0..count {
        let leaf = node.leaf();
        let made: Result<(), GroupError> = node.run(|groups, tx, now| {
            commits.push(groups.change(tx, group, Change::Update(leaf), now)?.commit);
            Err(GroupError::NothingToCommit)
        });
        assert!(matches!(made, Err(GroupError::NothingToCommit)), "{made:?}");
    }
    commits
}

#[test]
fn m06_who_makes_rivals_without_end_takes_nobodys_room() {
    let mut nodes = nodes(5);
    let group = team(&mut nodes);
    let mut flood = rivals_of_its_own(&mut nodes[4], &group, 80);
    let mut crowded = Vec::new();
    for reader in &mut nodes[1..3] {
        let refused = flood.iter().filter(|blob| {
            let opened = reader.open(blob);
            assert!(matches!(opened, Ok(Opened::Changed { .. }) | Err(OpenError::Outdone(_))));
            opened.is_err()
        });
        crowded.push(refused.count());
        // The next one reads them in another order.
        flood.reverse();
    }
    assert!(crowded.iter().all(|count| *count > 0), "{crowded:?}");
    // Both keep the same ones, and stand where all of them would have led.
    let kept = |node: &mut Node| -> Vec<StateId> {
        let tx = node.store.begin().unwrap();
        let record = node.groups.record(&tx, &group).unwrap();
        let mut ids: Vec<_> = record.states().iter().map(|state| state.id).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(kept(&mut nodes[1]), kept(&mut nodes[2]));
    assert_eq!(nodes[1].authenticator(&group), nodes[2].authenticator(&group));
    // Whoever else changes the group is heard, ordinary members too.
    let commit = nodes[1].update(&group).commit;
    assert!(matches!(nodes[2].open(&commit), Ok(Opened::Changed { .. })));
    assert_eq!(nodes[1].authenticator(&group), nodes[2].authenticator(&group));
    let key = nodes[4].key;
    let removal = nodes[0].change(&group, Change::Remove(vec![key])).unwrap().commit;
    for node in &mut nodes[1..3] {
        assert!(matches!(node.open(&removal), Ok(Opened::Changed { .. })));
        assert!(!node.members(&group).contains(&key));
    }
}

#[test]
fn m06_an_ordinary_member_changes_nothing_where_nobody_would_keep_it_and_an_admin_does() {
    let mut nodes = nodes(9);
    let group = team(&mut nodes);
    for hostile in 2..9 {
        for blob in rivals_of_its_own(&mut nodes[hostile], &group, 40) {
            for node in &mut nodes[..2] {
                let opened = node.open(&blob);
                assert!(
                    matches!(
                        opened,
                        Ok(Opened::Changed { .. })
                            | Err(OpenError::TooManyRivals(_) | OpenError::Outdone(_))
                    ),
                    "{opened:?}"
                );
            }
        }
    }
    let leaf = nodes[1].leaf();
    let refused = nodes[1].change(&group, Change::Update(leaf));
    assert!(matches!(refused, Err(GroupError::TooManyRivals)), "{refused:?}");
    let room = nodes[1].run(|groups, tx, _| groups.has_room(tx, &group));
    assert!(matches!(room, Ok(false)));
    let hostile = nodes[2..].iter().map(|node| node.key).collect();
    let removal = nodes[0].change(&group, Change::Remove(hostile)).unwrap().commit;
    assert!(matches!(nodes[1].open(&removal), Ok(Opened::Changed { .. })));
    assert_eq!(nodes[1].members(&group).len(), 2);
}

#[test]
fn m06_every_order_of_rival_commits_ends_in_one_state() {
    // Four commits of three authors: two rivals of one epoch, and two more on one of the branches.
    // One watcher for each order, so that all orders are seen at once.
    let orders = orders(4);
    let mut nodes = nodes(3 + u64::try_from(orders.len()).unwrap());
    let group = team(&mut nodes);
    let rename = nodes[0].change(&group, Change::Rename("admin".into())).unwrap().commit;
    let second = nodes[2].update(&group).commit;
    let first = nodes[1].update(&group).commit;
    deliver(&mut nodes[2], vec![first.clone()]);
    let third = if nodes[2].key < nodes[1].key {
        nodes[2].update(&group).commit
    } else {
        deliver(&mut nodes[1], vec![second.clone()]);
        nodes[1].update(&group).commit
    };
    let commits = [rename, first, second, third];
    for (node, order) in nodes[3..].iter_mut().zip(&orders) {
        deliver(node, order.iter().map(|place| commits[*place].clone()).collect());
    }
    for node in &mut nodes[..3] {
        deliver(node, commits.to_vec());
    }
    assert_agree(&mut nodes, &group);
    // The admin's commit stands, although the other branch is deeper.
    assert_eq!(nodes[5].summary(&group).name, "admin");
    assert_eq!(nodes[5].epoch(&group), 2);
}

#[test]
fn the_loser_of_two_admins_is_told_what_to_do_again() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let second = nodes[1].key;
    let promote = nodes[0].change(&group, Change::Promote(second)).unwrap().commit;
    for node in &mut nodes[1..] {
        node.open(&promote).unwrap();
    }
    nodes[..2].sort_by_key(|node| node.key);
    let [winner, loser, watcher] = &mut nodes[..] else { unreachable!() };
    let won = winner.change(&group, Change::Rename("winner".into())).unwrap();
    let gone = loser.change(&group, Change::Rename("loser".into())).unwrap();
    let message = loser.seal(&group, "said on the losing branch");
    assert!(loser.run(|groups, tx, _| groups.is_on_branch(tx, &group, &message.state)).unwrap());

    assert_eq!(winner.events(&gone.commit), []);
    let events = loser.events(&won.commit);
    assert_eq!(lost(&events), [LostWork::Renamed("loser".into())]);
    assert!(events.contains(&GroupEvent::Renamed("winner".into())));
    assert!(!loser.run(|groups, tx, _| groups.is_on_branch(tx, &group, &message.state)).unwrap());

    // A watcher that saw the losing commit first reads its messages, and is moved, too.
    assert_eq!(watcher.events(&gone.commit), [GroupEvent::Renamed("loser".into())]);
    assert_eq!(watcher.read(&message.blob), "said on the losing branch");
    let events = watcher.events(&won.commit);
    assert_eq!(lost(&events), []);
    assert!(matches!(events[0], GroupEvent::Switched { .. }));

    // Done again, it stands.
    let again = loser.change(&group, Change::Rename("loser".into())).unwrap();
    winner.events(&again.commit);
    watcher.events(&again.commit);
    assert_agree(&mut nodes, &group);
    assert_eq!(nodes[0].summary(&group).name, "loser");
}

#[test]
fn a_removal_beats_whatever_the_removed_commits() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let second = nodes[1].key;
    let promote = nodes[0].change(&group, Change::Promote(second)).unwrap().commit;
    for node in &mut nodes[1..] {
        node.open(&promote).unwrap();
    }
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let removal = a.change(&group, Change::Remove(vec![b.key])).unwrap().commit;
    let mut rivals: Vec<_> = (0..3).map(|_| b.update(&group).commit).collect();
    deliver(c, rivals.clone());
    assert_eq!(c.epoch(&group), 5);
    let events = deliver(c, vec![removal.clone()]);
    assert!(events.contains(&GroupEvent::Removed(b.key)), "{events:?}");
    deliver(a, rivals.clone());
    rivals.push(removal);
    let events = deliver(b, rivals);
    assert!(events.contains(&GroupEvent::MeRemoved), "{events:?}");
    assert_eq!(lost(&events), [LostWork::Updated, LostWork::Updated, LostWork::Updated]);
    assert!(!b.summary(&group).active);
    let [a, _, c] = &mut nodes[..] else { unreachable!() };
    assert_eq!(a.authenticator(&group), c.authenticator(&group));
}

#[test]
fn who_was_invited_onto_a_losing_branch_is_invited_again() {
    let mut nodes = nodes(4);
    let group = team(&mut nodes[..3]);
    let second = nodes[1].key;
    let promote = nodes[0].change(&group, Change::Promote(second)).unwrap().commit;
    for node in &mut nodes[1..3] {
        node.open(&promote).unwrap();
    }
    nodes[..2].sort_by_key(|node| node.key);
    let [winner, loser, _, invited] = &mut nodes[..] else { unreachable!() };
    let won = winner.change(&group, Change::Rename("won".into())).unwrap().commit;
    let package = loser.checked(invited);
    let add = loser.change(&group, Change::Add(vec![package])).unwrap();
    invited.join(&add.welcome.unwrap()).unwrap();
    let alone = invited.send(&group, "hello?");
    assert_eq!(loser.read(&alone), "hello?");

    let events = loser.events(&won);
    assert_eq!(lost(&events), [LostWork::Added(vec![invited.key])]);
    let package = loser.checked(invited);
    let again = loser.change(&group, Change::Add(vec![package])).unwrap();
    winner.events(&add.commit);
    winner.events(&again.commit);
    let joined = invited.join(&again.welcome.unwrap()).unwrap();
    assert!(joined.replaced);
    let blob = invited.send(&group, "hello");
    assert_eq!(winner.read(&blob), "hello");
    let blob = winner.send(&group, "welcome");
    assert_eq!(invited.read(&blob), "welcome");
}

#[test]
fn of_two_invitations_into_one_epoch_that_onto_the_branch_that_stands_is_followed() {
    for first in 0..2 {
        let mut nodes = nodes(3);
        let group = team(&mut nodes[..2]);
        let second = nodes[1].key;
        let promote = nodes[0].change(&group, Change::Promote(second)).unwrap().commit;
        nodes[1].open(&promote).unwrap();
        let [a, b, invited] = &mut nodes[..] else { unreachable!() };
        let package = a.checked(invited);
        let by_a = a.change(&group, Change::Add(vec![package])).unwrap();
        let package = b.checked(invited);
        let by_b = b.change(&group, Change::Add(vec![package])).unwrap();
        let welcomes = [by_a.welcome.unwrap(), by_b.welcome.unwrap()];
        // Whichever comes first: the other one is followed, or refused.
        invited.join(&welcomes[first]).unwrap();
        let _ = invited.join(&welcomes[1 - first]);
        a.open(&by_b.commit).unwrap();
        b.open(&by_a.commit).unwrap();
        assert_agree(&mut nodes, &group);
    }
}

#[test]
fn whoever_lacks_a_commit_that_decides_and_loses_itself_is_brought_it() {
    let mut nodes = nodes(5);
    let group = team(&mut nodes);
    let keys: Vec<IdentityKey> = nodes.iter().map(|node| node.key).collect();
    for admin in [1, 2] {
        let promote = nodes[0].change(&group, Change::Promote(keys[admin])).unwrap().commit;
        (1..5).for_each(|node| drop(nodes[node].open(&promote).unwrap()));
    }
    // Two admins remove each other, so a third one's commit stands, which would lose to either.
    let by_first = nodes[0].change(&group, Change::Remove(vec![keys[1]])).unwrap().commit;
    let by_second = nodes[1].change(&group, Change::Remove(vec![keys[0]])).unwrap().commit;
    let by_third = nodes[2].change(&group, Change::Rename("third".into())).unwrap().commit;
    for commit in [&by_first, &by_second, &by_third] {
        nodes[3].open(commit).unwrap();
    }
    // One member lacks the second.
    for commit in [&by_first, &by_third] {
        nodes[4].open(commit).unwrap();
    }
    let marks = nodes[4].run(|groups, tx, _| groups.marks(tx, &group)).unwrap();
    let standing = nodes[3].run(|groups, tx, _| groups.compare(tx, &group, &marks)).unwrap();
    let Standing::OnLostBranch(from) = standing else { panic!("{standing:?}") };
    let (way, rivals) = nodes[3]
        .run(|groups, tx, _| {
            Ok::<_, GroupError>((
                groups.commits_after(tx, &group, from)?,
                groups.rivals_after(tx, &group, from)?,
            ))
        })
        .unwrap();
    assert_eq!((&*way, rivals.len()), (&[by_third][..], 2));
    for commit in way.iter().chain(&rivals) {
        let _ = nodes[4].open(commit);
    }
    assert_agree(&mut nodes[3..], &group);
    assert_eq!(nodes[4].summary(&group).name, "third");
}

#[test]
fn a_welcome_does_not_replace_a_live_group() {
    // Somebody who is no admin of the group makes another group of the same id.
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [_, b, c] = &mut nodes[..] else { unreachable!() };
    let mut fake = Node::with_signer(b.secret.clone(), b.signer.clone(), b.entropy.fork());
    let welcome = attacks::group_of_id(&mut fake, &group, c, 3);
    let state = c.authenticator(&group);
    assert!(matches!(
        c.join(&welcome),
        Err(GroupError::Welcome(WelcomeError::UnknownAdmin(id))) if id == group
    ));
    assert_eq!(c.authenticator(&group), state);
}

pub(super) fn below(entropy: &mut Entropy, bound: usize) -> usize {
    usize::try_from(entropy.below(u64::try_from(bound).unwrap())).unwrap()
}

pub(super) fn is_early(result: &Result<Opened, OpenError>) -> bool {
    matches!(result, Err(OpenError::UnknownState | OpenError::Early(_)))
}

/// One act of a random story. A story is short enough for all its states to be kept.
#[derive(Clone, Copy, Debug)]
struct Act {
    who: usize,
    what: u8,
    whom: usize,
    /// How many blobs that wait for `who` are read before it acts.
    reads: usize,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..4_usize, 0..8_u8, 0..4_usize, 0..6_usize)
        .prop_map(|(who, what, whom, reads)| Act { who, what, whom, reads });
    prop::collection::vec(act, 1..=8)
}

/// What the act sends, if it is allowed where the actor stands.
pub(super) fn perform(
    node: &mut Node,
    group: &GroupId,
    what: u8,
    whom: IdentityKey,
) -> Option<Vec<u8>> {
    let change = match what {
        0..3 => Change::Update(node.leaf()),
        3 => Change::Rename(format!("for {}", whom.short())),
        4 => Change::Promote(whom),
        5 => Change::Remove(vec![whom]),
        6 => Change::CommitProposals,
        _ => {
            let leave = node.run(|groups, tx, now| groups.propose_leave(tx, group, now));
            return leave.ok().map(|sealed| sealed.blob);
        }
    };
    node.change(group, change).ok().map(|made| made.commit)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Four members act while knowing only part of what the others did. When everything has arrived,
    /// in a different order for each, all who are members are in one state.
    #[test]
    fn m06_partitioned_members_converge(acts in acts(), seed in any::<u64>()) {
        let mut entropy = Entropy::from_number(seed);
        let mut nodes = nodes(4);
        let group = team(&mut nodes);
        let mut mail: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 4];
        // Everything ever sent: whoever is a member at the end may ask for it (heal ladder, first step).
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for act in acts {
            for _ in 0..act.reads.min(mail[act.who].len()) {
                let place = below(&mut entropy, mail[act.who].len());
                let blob = mail[act.who].remove(place);
                if is_early(&nodes[act.who].open(&blob)) {
                    mail[act.who].push(blob);
                }
            }
            let whom = nodes[act.whom].key;
            let Some(blob) = perform(&mut nodes[act.who], &group, act.what, whom) else { continue };
            sent.push(blob.clone());
            for (node, inbox) in mail.iter_mut().enumerate() {
                if node != act.who {
                    inbox.push(blob.clone());
                }
            }
        }
        for node in &mut nodes {
            let mut all = sent.clone();
            for place in (1..all.len()).rev() {
                let other = below(&mut entropy, place + 1);
                all.swap(place, other);
            }
            deliver(node, all);
        }
        let summaries: Vec<Summary> = nodes.iter_mut().map(|node| node.summary(&group)).collect();
        let active: Vec<_> = summaries.iter().filter(|summary| summary.active).collect();
        let agree = active.windows(2).all(|pair| {
            pair[0].epoch_authenticator == pair[1].epoch_authenticator
        });
        prop_assert!(agree);
        // They agree about who they are, too.
        if let Some(first) = active.first() {
            prop_assert_eq!(first.members.len(), active.len());
        }
    }
}
