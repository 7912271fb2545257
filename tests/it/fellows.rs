//! Members of a group who are not each other's contacts: they have names, and hear of new ones. Played
//! on the simulator.

use sremp_common::name::Username;
use sremp_node::api::{Command, GroupView};
use sremp_sim::World;

use crate::user::{add_member, create_group, group, history, promote, rename_group, send};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 60_000;
/// Virtual time in which every step of healing has had its turn.
const HEALED: u64 = 30 * 60_000;

/// How a node calls another one in the list of a group's members.
fn name_of(world: &mut World, host: usize, word: &str, who: usize) -> String {
    let id = world.node(who).key().to_string();
    let members = group(world, host, word).members;
    members.into_iter().find(|member| member.id == id).map(|member| member.name).unwrap_or_default()
}

fn shown(world: &World, name: &str, who: usize) -> String {
    format!("{name} ({})", world.node(who).key().short())
}

fn rename(world: &mut World, host: usize, name: &str) {
    let name = Username::new(name).unwrap();
    world.command(host, Command::IdentityRename { name }).unwrap();
}

/// node1 knows all others, and they know nobody but node1. All are in one group.
fn star(seed: u64, nodes: usize) -> (World, String) {
    let mut world = World::new(seed, nodes, 1);
    (0..nodes).for_each(|host| world.use_relays(host));
    world.pass(2_000);
    for other in 1..nodes {
        world.introduce(0, other);
        world.introduce(other, 0);
    }
    let members = (2..=nodes).map(|number| format!("contact:node{number}")).collect();
    let word = create_group(&mut world, 0, "circle", members);
    world.pass(A_WHILE);
    (world, word)
}

#[test]
fn fellow_members_have_names_before_they_write() {
    let (mut world, word) = star(80, 3);
    assert_eq!(name_of(&mut world, 1, &word, 2), "node3");
    assert_eq!(name_of(&mut world, 2, &word, 1), "node2");
    send(&mut world, 2, &word, "hello");
    promote(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    rename_group(&mut world, 2, &word, "square");
    world.pass(A_WHILE);
    let rows = history(&mut world, 1, &word);
    let from: Vec<_> = rows.iter().filter(|row| row.text == "hello").collect();
    // Nobody but the user has said that this is the one that it seems to be.
    assert_eq!(from[0].from_name, shown(&world, "node3", 2));
    let notice = format!("{} renamed the group to square", shown(&world, "node3", 2));
    assert!(rows.iter().any(|row| row.text == notice), "{rows:?}");
}

#[test]
fn whoever_comes_later_and_whoever_was_there_learn_each_others_names() {
    let mut world = World::new(81, 4, 1);
    (0..4).for_each(|host| world.use_relays(host));
    world.pass(2_000);
    for other in 1..4 {
        world.introduce(0, other);
        world.introduce(other, 0);
    }
    let members = vec!["contact:node2".into()];
    let word = create_group(&mut world, 0, "circle", members);
    for (number, who) in ["node3", "node4"].into_iter().enumerate() {
        world.pass(A_WHILE);
        add_member(&mut world, 0, &word, who);
        world.pass(A_WHILE);
        for one in 0..number + 3 {
            for other in (0..number + 3).filter(|other| *other != one) {
                let expected = format!("node{}", other + 1);
                assert_eq!(name_of(&mut world, one, &word, other), expected, "at node{}", one + 1);
            }
        }
    }
}

#[test]
fn in_a_large_group_whoever_writes_has_a_name() {
    let (mut world, word) = star(82, 18);
    assert_eq!(name_of(&mut world, 2, &word, 1), "");
    send(&mut world, 1, &word, "hello");
    world.pass(A_WHILE);
    for host in 2..18 {
        assert_eq!(name_of(&mut world, host, &word, 1), "node2");
    }
    assert_eq!(name_of(&mut world, 2, &word, 3), "", "who is silent sends nothing");
}

#[test]
fn fellow_members_hear_of_a_new_name_whatever_becomes_of_the_branch_on_which_it_was_told() {
    let (mut world, word) = star(83, 3);
    rename(&mut world, 2, "third");
    world.pass(A_WHILE);
    assert_eq!(name_of(&mut world, 1, &word, 2), "third");
    promote(&mut world, 0, &word, "node3");
    world.pass(A_WHILE);
    // Alone, node3 goes on on a branch of its own. Nobody keeps the states from which it left.
    world.isolate(&[2]);
    rename_group(&mut world, 2, &word, "mine");
    rename(&mut world, 2, "drei");
    for number in 0..12 {
        rename_group(&mut world, 0, &word, &format!("ours {number}"));
        world.pass(5_000);
    }
    world.heal();
    world.pass(HEALED);
    let views: Vec<GroupView> = (0..3).map(|host| group(&mut world, host, &word)).collect();
    assert!(
        views.windows(2).all(|pair| pair[0].epoch_authenticator == pair[1].epoch_authenticator)
    );
    assert_eq!(views[0].name, "mine", "done again on the branch that stands");
    assert_eq!(name_of(&mut world, 1, &word, 2), "drei");
}
