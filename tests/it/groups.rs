//! Groups on the simulator: races that once ended badly, each played as it was found, and lives
//! from seeds that are kept.

use sremp_node::api::{Command, GroupState, GroupView};
use sremp_node::groups::Suite;
use sremp_sim::world::SUITE_VARIABLE;
use sremp_sim::{Knobs, World};

use crate::user::{create_group, group, leave_group, promote, remove_member, rename_group, send};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 30_000;
/// The same after machines were cut off: their connections have to be found dead first.
const LONG: u64 = 900_000;
const DAY: u64 = 24 * 3_600_000;

/// A group, made by the first node, of all nodes; the first `admins` of them are admins.
fn group_of_all(seed: u64, nodes: usize, admins: usize) -> (World, String) {
    let mut world = World::new(seed, nodes, 1);
    world.introduce_all();
    let members = (2..=nodes).map(|number| format!("contact:node{number}")).collect();
    let word = create_group(&mut world, 0, "friends", members);
    world.pass(A_WHILE);
    for number in 2..=admins {
        promote(&mut world, 0, &word, &format!("node{number}"));
        world.pass(A_WHILE);
    }
    (world, word)
}

/// Time in which nothing runs.
fn all_off(world: &mut World, time: u64) {
    let nodes = world.nodes();
    (0..=nodes).for_each(|machine| world.crash(machine));
    world.pass(time);
    (0..=nodes).for_each(|machine| world.start(machine));
    world.pass(A_WHILE);
}

fn assert_agree(world: &mut World, hosts: &[usize], word: &str) {
    let views: Vec<GroupView> = hosts.iter().map(|host| group(world, *host, word)).collect();
    for view in &views {
        assert_eq!(view.state, GroupState::Active);
        assert_eq!(view.epoch_authenticator, views[0].epoch_authenticator);
        assert_eq!(view.members.len(), hosts.len());
    }
}

#[test]
fn a_commit_waits_for_the_leave_that_it_carries_out() {
    let (mut world, word) = group_of_all(21, 3, 1);
    // node2 hears of the commit of node1, and only later of what it refers to.
    world.crash(3);
    world.net.cut(1, 2);
    leave_group(&mut world, 2, &word);
    // Not so long that it finds out by asking what it misses.
    world.pass(2_000);
    assert_eq!(group(&mut world, 0, &word).members.len(), 2);
    assert_eq!(group(&mut world, 1, &word).members.len(), 3);
    world.start(3);
    world.heal();
    world.pass(LONG);
    assert_agree(&mut world, &[0, 1], &word);
}

#[test]
fn a_leave_that_comes_late_is_kept_for_a_rival_that_carries_it_out() {
    // Whichever of the two admins has the lower key wins: both cases are among these seeds.
    let mut winners = Vec::new();
    for seed in 30..36 {
        let (mut world, word) = group_of_all(seed, 3, 2);
        for machine in 1..4 {
            world.net.cut(0, machine);
        }
        leave_group(&mut world, 2, &word);
        world.pass(1_000);
        rename_group(&mut world, 1, &word, "carried out by node2");
        rename_group(&mut world, 0, &word, "by node1");
        winners.push(world.node(0).key() < world.node(1).key());
        world.heal();
        world.pass(LONG);
        assert_agree(&mut world, &[0, 1], &word);
        assert_eq!(group(&mut world, 2, &word).state, GroupState::Left);
    }
    assert!(winners.contains(&true) && winners.contains(&false));
}

#[test]
fn who_is_removed_on_the_branch_that_wins_learns_of_it_whatever_it_said_on_the_other() {
    let (mut world, word) = group_of_all(22, 3, 1);
    for machine in [0, 1, 3] {
        world.net.cut(2, machine);
    }
    // Its first message renews its keys: a commit, and a message in the state behind it.
    send(&mut world, 2, &word, "said where nobody hears it");
    remove_member(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    world.heal();
    world.pass(LONG);
    assert_eq!(group(&mut world, 2, &word).state, GroupState::Removed);
    assert_agree(&mut world, &[0, 1], &word);
}

#[test]
fn an_invitation_from_the_future_waits_until_the_clock_is_right() {
    let mut world = World::new(23, 2, 1);
    world.introduce_all();
    world.pass(A_WHILE);
    world.set_clock_error(1, -3 * i64::try_from(DAY).unwrap());
    let members = vec!["contact:node2".to_owned()];
    let word = create_group(&mut world, 0, "friends", members);
    world.pass(A_WHILE);
    assert!(world.command(1, Command::GroupShow { group: word.clone() }).is_err(), "not yet");
    world.set_clock_error(1, 0);
    world.pass(LONG);
    assert_agree(&mut world, &[0, 1], &word);
}

#[test]
fn keys_are_renewed_once_a_week_however_often_somebody_writes() {
    let (mut world, word) = group_of_all(24, 2, 1);
    for _ in 0..3 {
        send(&mut world, 1, &word, "said soon after the keys were renewed");
        world.pass(A_WHILE);
    }
    let renewed = group(&mut world, 1, &word).epoch;
    let idle = |world: &mut World| {
        let view = group(world, 0, &word);
        let other = view.members.into_iter().find(|member| !member.is_me).unwrap();
        (other.last_seen.unwrap(), other.keys_since.unwrap())
    };
    let first = idle(&mut world);
    all_off(&mut world, 6 * DAY);
    send(&mut world, 1, &word, "a week has not passed");
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 1, &word).epoch, renewed);
    let second = idle(&mut world);
    assert!(second.0 > first.0 && second.1 == first.1, "heard, with the keys that it had");
    all_off(&mut world, 2 * DAY);
    send(&mut world, 1, &word, "a week has passed");
    world.pass(A_WHILE);
    assert_eq!(group(&mut world, 1, &word).epoch, renewed + 1);
    assert!(idle(&mut world).1 > second.1);
    assert_agree(&mut world, &[0, 1], &word);
}

#[test]
fn lives_that_are_kept() {
    // The last two are lives of groups with the post-quantum suite.
    for seed in [6, 12, 14, 16, 25, 576, 3650, 9249, 11013, 12028, 12353, 16938, 19891, 3, 7] {
        let report = sremp_sim::run_group_seed(seed, &Knobs::default());
        assert!(report.messages > 0, "seed {seed} says nothing");
    }
}

/// Every story in which a group is made, once more with the other suite, in a process of its own.
#[test]
fn everything_holds_with_the_post_quantum_suite() {
    if std::env::var(SUITE_VARIABLE).is_ok() {
        return;
    }
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["groups::", "group_wire::", "healing::", "stories::"])
        .args(["changes::", "contacts::", "fellows::", "invitations::", "leaving::", "relays::"])
        .env(SUITE_VARIABLE, Suite::MlKem768X25519.name())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{report}");
    let passed = report.split(" passed").next().and_then(|text| text.rsplit(' ').next());
    assert!(passed.unwrap().parse::<usize>().unwrap() > 25, "{report}");
}
