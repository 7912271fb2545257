//! What a person is told about contacts and members, played on the simulator.

use sremp_common::name::Username;
use sremp_node::api::{Change, Command, DoubtKind, EventBody, Reply};
use sremp_sim::World;

use crate::user::{ask, contact, create_group, link, send};

/// Virtual time in which anything that can arrive has arrived.
const A_WHILE: u64 = 30_000;

fn trio() -> World {
    let mut world = World::new(7, 3, 2);
    world.introduce_all();
    world
}

/// Both at once: a home that was restored from a copy, and then lived on differently.
#[test]
fn c02_an_older_and_a_second_identity_are_told_of() {
    let mut world = trio();
    send(&mut world, 0, "node2", "hello");
    world.pass(A_WHILE);
    world.crash(1);
    let copy = world.backup(1);
    world.start(1);
    let rename = |world: &mut World, name: &str| {
        let name = Username::new(name).unwrap();
        world.command(1, Command::IdentityRename { name }).unwrap();
        world.pass(A_WHILE);
    };
    rename(&mut world, "beth");
    let known = contact(&mut world, 0, "contact:node2");
    assert_eq!((known.name.as_str(), known.doubt), ("beth", None));

    world.crash(1);
    world.restore(1, &copy);
    world.start(1);
    send(&mut world, 0, "node2", "how are you?");
    world.pass(A_WHILE);
    let doubt = contact(&mut world, 0, "contact:node2").doubt.unwrap();
    assert_eq!((doubt.kind, doubt.version), (DoubtKind::OldIdentity, known.version - 1));

    rename(&mut world, "eve");
    world.crash(1);
    world.start(1);
    send(&mut world, 0, "node2", "is it you?");
    world.pass(A_WHILE);
    let view = contact(&mut world, 0, "contact:node2");
    let doubt = view.doubt.unwrap();
    assert_eq!((doubt.kind, doubt.version), (DoubtKind::SecondIdentity, known.version));
    assert_eq!(view.name, "beth", "the first one stays");
    let told = |world: &mut World, wanted| {
        let is = |event: &EventBody| matches!(event, EventBody::Contact { change, id, .. } if *change == wanted && *id == known.id);
        world.events(0).iter().filter(|event| is(event)).count()
    };
    assert_eq!(told(&mut world, Change::OldIdentity), 1, "once, however often it is shown");
    assert_eq!(told(&mut world, Change::SecondIdentity), 1);
    // Judged anew by the owner.
    world.command(0, Command::ContactTrust { who: "contact:node2".into() }).unwrap();
    assert_eq!(contact(&mut world, 0, "contact:node2").doubt, None);
}

#[test]
fn an_alias_that_hides_a_name_and_a_removal_that_lifts_a_rejection_say_so() {
    let mut world = World::new(11, 3, 1);
    world.introduce(2, 0);
    let link = link(&mut world, 1);
    world.command(0, Command::ContactAdd { what: link, alias: None }).unwrap();
    let hidden = contact(&mut world, 0, "node2").id;
    assert_eq!(contact(&mut world, 0, "node3").alias_hides, None);
    let command = Command::ContactAlias { who: "node3".into(), alias: "node2".into() };
    let view = *ask!(world, 0, command, Reply::Contact);
    assert_eq!(view.alias_hides, Some(hidden));
    let remove = || Command::ContactRemove { who: "node2".into() };
    world.command(0, Command::ContactReject { who: "node2".into() }).unwrap();
    assert!(ask!(world, 0, remove(), Reply::Removed).rejection_lifted);
    assert!(!ask!(world, 0, remove(), Reply::Removed).rejection_lifted);
}

#[test]
fn a_role_that_somebody_has_already_is_refused_in_words() {
    let mut world = trio();
    let members = vec!["contact:node2".to_owned()];
    let group = create_group(&mut world, 0, "friends", members);
    world.pass(A_WHILE);
    let promote = || Command::GroupPromote { group: group.clone(), who: "contact:node2".into() };
    let demote = || Command::GroupDemote { group: group.clone(), who: "contact:node2".into() };
    let refusal = |world: &mut World, command| world.command(0, command).unwrap_err().message;
    assert_eq!(refusal(&mut world, demote()), "node2 is no admin");
    world.command(0, promote()).unwrap();
    world.pass(A_WHILE);
    assert_eq!(refusal(&mut world, promote()), "node2 is an admin already");
}

#[test]
fn r16_names_that_look_alike_are_told_apart() {
    let mut world = World::new(12, 3, 1);
    let told = |world: &mut World, wanted: Change| {
        let is_it = |event: &&EventBody| matches!(event, EventBody::Contact { change, .. } if *change == wanted);
        world.events(0).iter().filter(is_it).count()
    };
    let rename = |world: &mut World, who: usize, name: &str| {
        let name = Username::new(name).unwrap();
        world.command(who, Command::IdentityRename { name }).unwrap();
        world.pass(A_WHILE);
    };
    // A Cyrillic letter in the middle: written otherwise, and nobody can see it.
    rename(&mut world, 1, "alice");
    rename(&mut world, 2, "al\u{456}ce");
    world.introduce(1, 0);
    let alice = contact(&mut world, 0, "alice");
    assert_eq!(alice.looks_like, None);
    // As a stranger, and as a contact.
    world.introduce(0, 2);
    send(&mut world, 2, "node1", "it is me, alice");
    world.pass(A_WHILE);
    let Ok(Reply::Requests(requests)) = world.command(0, Command::RequestsList) else {
        panic!("no requests")
    };
    assert_eq!(requests[0].looks_like, Some(alice.id.clone()));
    let accept = Command::RequestsAccept { who: requests[0].id.clone() };
    let other = *ask!(world, 0, accept, Reply::Contact);
    world.pass(A_WHILE);
    assert!(!other.name_is_shared);
    assert_eq!(other.looks_like, Some(alice.id.clone()));
    assert_eq!(contact(&mut world, 0, &alice.id).looks_like, Some(other.id.clone()));
    assert_eq!(told(&mut world, Change::NameLookalike), 1);
    // Nothing is merged, and the name means whose it is.
    assert_eq!(contact(&mut world, 0, "alice").id, alice.id);
    // Whoever takes such a name later on is pointed out, too.
    rename(&mut world, 2, "bob");
    send(&mut world, 2, "node1", "no, bob");
    world.pass(A_WHILE);
    assert_eq!(contact(&mut world, 0, &other.id).looks_like, None);
    rename(&mut world, 2, "a1ice");
    send(&mut world, 2, "node1", "yes, alice");
    world.pass(A_WHILE);
    assert_eq!(told(&mut world, Change::NameLookalike), 2);
}
