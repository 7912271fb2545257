//! Late, early, doubled, lost: what a network does to blobs, and what a crash does to a store.

use super::*;

#[test]
fn m02_two_hundred_reversed() {
    let (mut a, mut b, group) = pair();
    let blobs: Vec<_> = (0..200).map(|n| (n, a.send(&group, &n.to_string()))).collect();
    for (n, blob) in blobs.iter().rev() {
        assert_eq!(b.read(blob), n.to_string());
    }
}

/// Long gaps, the longest that is bridged, and the first that is too long: that one is said, and costs
/// nothing that came before or comes after.
#[test]
fn m03_long_gap() {
    let (mut a, mut b, group) = pair();
    let mut send = |count: u32| {
        a.run(|groups, tx, now| {
            let mut last = Vec::new();
            for number in 0..count {
                last = groups.encrypt(tx, &group, number.to_string().as_bytes(), now)?.blob;
            }
            Ok::<_, GroupError>(last)
        })
        .unwrap()
    };
    for lost in [1_001, 4_000] {
        let blob = send(lost + 1);
        assert_eq!(b.read(&blob), lost.to_string());
    }
    let (near, far) = (send(4_096 + 1), send(1));
    for _ in 0..2 {
        assert!(matches!(b.open(&far), Err(OpenError::Gap(_))));
        b.restart();
    }
    assert_eq!(b.read(&near), "4096");
    assert_eq!(b.read(&far), "0", "the gap has become smaller");
}

#[test]
fn m02_too_late_within_an_epoch_is_said() {
    let (mut a, mut b, group) = pair();
    let first = a.send(&group, "first");
    let mut last = Vec::new();
    for _ in 0..300 {
        last = a.send(&group, "x");
    }
    b.read(&last);
    assert!(matches!(b.open(&first), Err(OpenError::TooLate(_))));
}

#[test]
fn m04_late_messages_of_old_epochs() {
    let (mut a, mut b, group) = pair();
    let mut held = Vec::new();
    for n in 0..9 {
        held.push((n, a.send(&group, &n.to_string())));
        let changed = a.update(&group);
        b.open(&changed.commit).unwrap();
    }
    // The first is nine epochs behind, the others eight and fewer. An epoch that was left just now is
    // kept all the same.
    let (_, first) = held.remove(0);
    b.now.wall = b.now.wall + Duration::from_secs(601);
    b.run(|groups, tx, now| groups.expire(tx, now)).unwrap();
    assert!(matches!(b.open(&first), Err(OpenError::UnknownState)));
    for (n, blob) in held {
        assert_eq!(b.read(&blob), n.to_string());
        assert!(matches!(b.open(&blob), Err(OpenError::Duplicate(_))));
    }
}

#[test]
fn a_stored_state_that_is_another_than_was_stored_is_not_used() {
    let (mut a, mut b, group) = pair();
    b.open(&a.update(&group).commit).unwrap();
    let swapped: Result<(), GroupError> = b.run(|groups, tx, _| {
        let record = groups.record(tx, &group)?;
        let tip = record.tip();
        let parent = record.state(tip).unwrap().parent.unwrap();
        let rows = storage::Storage::new(tx, tip);
        rows.delete_all()?;
        Ok(rows.copy_from(parent)?)
    });
    swapped.unwrap();
    b.restart();
    let refused = b.run(|groups, tx, _| groups.summary(tx, &group));
    assert!(matches!(refused, Err(GroupError::Mls(_))), "{refused:?}");
}

#[test]
fn m04_states_expire_by_time_but_never_the_tip() {
    let (mut a, mut b, group) = pair();
    let old = a.send(&group, "old");
    let changed = a.update(&group);
    b.open(&changed.commit).unwrap();
    let tip = a.send(&group, "tip");
    b.now.wall = b.now.wall + DAY * 6;
    b.run(|groups, tx, now| groups.expire(tx, now)).unwrap();
    let before = b.rows().len();
    b.now.wall = b.now.wall + DAY * 2;
    b.run(|groups, tx, now| groups.expire(tx, now)).unwrap();
    assert!(b.rows().len() < before);
    assert!(matches!(b.open(&old), Err(OpenError::UnknownState)));
    b.restart();
    assert_eq!(b.read(&tip), "tip");
}

#[test]
fn a_refused_expiry_leaves_the_states() {
    let (mut a, mut b, group) = pair();
    let old = a.send(&group, "old");
    let changed = a.update(&group);
    b.open(&changed.commit).unwrap();
    b.now.wall = b.now.wall + DAY * 30;
    let result = b.run(|groups, tx, now| {
        groups.expire(tx, now)?;
        Err::<(), _>(GroupError::NothingToCommit)
    });
    assert!(result.is_err());
    assert_eq!(b.read(&old), "old");
}

#[test]
fn early_messages_wait_for_their_commit() {
    let (mut a, mut b, group) = pair();
    let commit = a.update(&group).commit;
    let early = a.send(&group, "early");
    assert!(matches!(b.open(&early), Err(OpenError::UnknownState)));
    b.open(&commit).unwrap();
    assert_eq!(b.read(&early), "early");
}

#[test]
fn early_commits_wait_for_their_parents_and_proposals() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let first = a.change(&group, Change::Rename("one".into())).unwrap().commit;
    let second = a.change(&group, Change::Rename("two".into())).unwrap().commit;
    assert!(matches!(b.open(&second), Err(OpenError::UnknownState)));
    b.open(&first).unwrap();
    b.open(&second).unwrap();
    for commit in [&first, &second] {
        c.open(commit).unwrap();
    }
    // A commit by reference to a proposal that has not come.
    let leave = c.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap().blob;
    a.open(&leave).unwrap();
    let commit = a.change(&group, Change::CommitProposals).unwrap().commit;
    assert!(matches!(b.open(&commit), Err(OpenError::Early(_))));
    b.open(&leave).unwrap();
    assert_eq!(b.events(&commit), [GroupEvent::Left(c.key)]);
}

#[test]
fn m05_replay_of_message_commit_proposal_and_welcome() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes[..2]);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let message = a.send(&group, "once");
    let package = a.checked(c);
    let changed = a.change(&group, Change::Add(vec![package])).unwrap();
    let welcome = changed.welcome.unwrap();
    b.read(&message);
    b.open(&changed.commit).unwrap();
    c.join(&welcome).unwrap();
    let leave = c.run(|groups, tx, now| groups.propose_leave(tx, &group, now)).unwrap().blob;
    b.open(&leave).unwrap();
    let state = (b.authenticator(&group), c.authenticator(&group));
    for _ in 0..3 {
        for blob in [&message, &changed.commit, &leave] {
            assert!(matches!(b.open(blob), Err(OpenError::Duplicate(_))));
        }
        assert!(matches!(c.join(&welcome), Err(GroupError::Welcome(WelcomeError::NotForUs))));
        // One's own blobs, sent back.
        assert!(matches!(a.open(&message), Err(OpenError::Duplicate(_))));
        assert!(matches!(a.open(&changed.commit), Err(OpenError::Duplicate(_))));
        assert!(matches!(c.open(&leave), Err(OpenError::Duplicate(_))));
        for node in [&mut *a, &mut *b, &mut *c] {
            node.restart();
        }
    }
    assert_eq!(state, (b.authenticator(&group), c.authenticator(&group)));
}

#[test]
fn m05_replay_of_a_welcome_to_a_last_resort() {
    let mut nodes = nodes(2);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let group = a.create(GroupKind::Group, "team");
    let bytes = b.package(true);
    let package = a.groups.check_key_package(&bytes, &b.key, suite(), a.now).unwrap();
    let changed = a.change(&group, Change::Add(vec![package.clone()])).unwrap();
    let welcome = changed.welcome.unwrap();
    b.join(&welcome).unwrap();
    let replayed = |result| matches!(result, Err(GroupError::Welcome(WelcomeError::Replayed)));
    assert!(replayed(b.join(&welcome)));
    // M21: not after the removal either, and not after everything was forgotten.
    let removed = a.change(&group, Change::Remove(vec![b.key])).unwrap();
    b.events(&removed.commit);
    assert!(replayed(b.join(&welcome)));
    b.run(|groups, tx, _| groups.forget(tx, &group)).unwrap();
    assert!(replayed(b.join(&welcome)));
    // The same key package serves again, for another state.
    let changed = a.change(&group, Change::Add(vec![package])).unwrap();
    b.join(&changed.welcome.unwrap()).unwrap();
    let blob = a.send(&group, "again");
    assert_eq!(b.read(&blob), "again");
}

#[test]
fn m20_a_welcome_that_was_held_back_leads_nowhere() {
    let mut nodes = nodes(2);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let group = a.create(GroupKind::Group, "team");
    let mut add = || {
        let package = a.checked(b);
        let welcome = a.change(&group, Change::Add(vec![package])).unwrap().welcome.unwrap();
        (welcome, a.change(&group, Change::Remove(vec![b.key])).unwrap().commit)
    };
    let (first, _) = add();
    let (second, removal) = add();
    b.join(&second).unwrap();
    let late = |result| matches!(result, Err(GroupError::Welcome(WelcomeError::Late)));
    assert!(late(b.join(&first)));
    b.events(&removal);
    assert!(late(b.join(&first)));
}

#[test]
fn m17_a_sender_restored_from_a_copy_is_noticed() {
    let (mut a, mut b, group) = pair();
    let path = tempfile::tempdir().unwrap();
    let (original, copy) = (path.path().join("a.redb"), path.path().join("copy.redb"));
    // The same rows in a file that can be copied.
    let rows = a.rows();
    let old = a.store.begin().unwrap();
    let file = Store::open(&original).unwrap();
    let new = file.begin().unwrap();
    for (table, key) in rows {
        let value = old.get(table, &key).unwrap().unwrap();
        new.put(table, &key, value);
    }
    new.accept().unwrap();
    new.commit().unwrap();
    drop((old, file));
    std::fs::copy(&original, &copy).unwrap();
    a.store = Store::open(&original).unwrap();
    a.restart();
    let sent = a.send(&group, "one");
    b.read(&sent);
    a.store = Store::open(&copy).unwrap();
    a.restart();
    // The same key for another text: refused as what it looks like, and the next one passes.
    let again = a.send(&group, "two");
    assert!(matches!(b.open(&again), Err(OpenError::Duplicate(_))));
    let next = a.send(&group, "three");
    assert_eq!(b.read(&next), "three");
}

#[test]
fn m18_crash_between_state_and_plaintext() {
    let (mut a, mut b, group) = pair();
    let message = a.send(&group, "not lost");
    let commit = a.update(&group).commit;
    for blob in [&message, &commit] {
        // The process dies before its transaction is committed.
        let tx = b.store.begin().unwrap();
        b.groups.open(&tx, blob, b.now).unwrap();
        tx.accept().unwrap();
        drop(tx);
        b.restart();
    }
    assert_eq!(b.read(&message), "not lost");
    b.open(&commit).unwrap();
    let blob = a.send(&group, "on");
    assert_eq!(b.read(&blob), "on");
}

#[test]
fn m18_a_refused_input_can_be_given_again() {
    let (mut a, mut b, group) = pair();
    let message = a.send(&group, "again");
    let commit = a.update(&group).commit;
    for blob in [&message, &commit] {
        // Opened, and then the application refuses it.
        let refused = b.run(|groups, tx, now| {
            groups.open(tx, blob, now).unwrap();
            Err::<(), _>(())
        });
        assert!(refused.is_err());
    }
    assert_eq!(b.read(&message), "again");
    b.open(&commit).unwrap();
    let blob = a.send(&group, "on");
    assert_eq!(b.read(&blob), "on");
}

#[test]
fn m19_crash_between_commit_and_sending() {
    let (mut a, mut b, group) = pair();
    // The commit is made, and the process dies before it is durable: it never was.
    let tx = a.store.begin().unwrap();
    let leaf = a.leaf();
    a.groups.change(&tx, &group, Change::Update(leaf), a.now).unwrap();
    tx.accept().unwrap();
    drop(tx);
    a.restart();
    // Made durable, and the process dies: it is sent after the restart, and stands.
    let commit = a.update(&group).commit;
    a.restart();
    b.open(&commit).unwrap();
    let blob = a.send(&group, "on");
    assert_eq!(b.read(&blob), "on");
}

#[test]
fn m20_welcome_before_its_commit_is_known_to_others() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes[..2]);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let package = a.checked(c);
    let changed = a.change(&group, Change::Add(vec![package])).unwrap();
    c.join(&changed.welcome.unwrap()).unwrap();
    let blob = c.send(&group, "first");
    assert!(matches!(b.open(&blob), Err(OpenError::UnknownState)));
    b.open(&changed.commit).unwrap();
    assert_eq!(b.read(&blob), "first");
}

#[test]
fn m20_welcome_for_another_user() {
    let mut nodes = nodes(3);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let group = a.create(GroupKind::Direct, "");
    let package = a.checked(b);
    let welcome = a.change(&group, Change::Add(vec![package])).unwrap().welcome.unwrap();
    let rows = c.rows();
    for node in [&mut *a, &mut *c] {
        assert!(matches!(node.join(&welcome), Err(GroupError::Welcome(WelcomeError::NotForUs))));
    }
    assert_eq!(c.rows(), rows);
}

#[test]
fn m20_a_failed_join_does_not_burn_the_key_package() {
    let mut nodes = nodes(2);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let group = a.create(GroupKind::Direct, "");
    let package = a.checked(b);
    let welcome = a.change(&group, Change::Add(vec![package])).unwrap().welcome.unwrap();
    let rows = b.rows();
    let mut damaged = welcome.clone();
    let end = damaged.len() - 5;
    damaged[end] ^= 1;
    assert!(matches!(b.join(&damaged), Err(GroupError::Welcome(WelcomeError::Malformed))));
    // And an inviter that the application does not want.
    let refused = b.run(|groups, tx, now| {
        groups.join(tx, &welcome, now).unwrap();
        Err::<(), _>(())
    });
    assert!(refused.is_err());
    assert_eq!(b.rows(), rows);
    b.join(&welcome).unwrap();
}

#[test]
fn many_inputs_share_one_transaction() {
    let (mut a, mut b, group) = pair();
    let mut blobs: Vec<_> = (0..20).map(|n| a.send(&group, &n.to_string())).collect();
    blobs.push(blobs[3].clone());
    blobs.push(a.update(&group).commit);
    blobs.push(a.send(&group, "20"));
    let tx = b.store.begin().unwrap();
    let mut read = Vec::new();
    for blob in &blobs {
        match b.groups.open(&tx, blob, b.now) {
            Ok(opened) => {
                if let Opened::Message { content, .. } = opened {
                    read.push(String::from_utf8(content).unwrap());
                }
                tx.accept().unwrap();
                b.groups.accepted();
            }
            Err(_) => {
                tx.refuse();
                b.groups.refused();
            }
        }
    }
    tx.commit().unwrap();
    assert_eq!(read, (0..=20).map(|n| n.to_string()).collect::<Vec<_>>());
    b.restart();
    let blob = a.send(&group, "on");
    assert_eq!(b.read(&blob), "on");
}
