//! What users do at nodes of the simulator, and what they are shown there: commands whose answers have one
//! form. Every story is told with these words.

use sremp_node::api::{
    Command, ContactView, ErrorKind, GroupView, MessageKind, MessageState, MessageView, Reply,
    RequestView, StatusView,
};
use sremp_sim::World;

/// Rows of history in one answer: more than any story needs.
const PAGE: u32 = 1000;

/// Asks a question whose answer has one form.
macro_rules! ask {
    ($world:expr, $host:expr, $command:expr, $form:path) => {
        match $world.command($host, $command) {
            Ok($form(view)) => view,
            other => panic!("unexpected answer: {other:?}"),
        }
    };
}
pub(crate) use ask;

pub(crate) fn send(world: &mut World, from: usize, to: &str, text: &str) -> String {
    let command = Command::Send { to: to.into(), text: text.into(), reply_to: None };
    ask!(world, from, command, Reply::Sent).message_id
}

pub(crate) fn message(world: &mut World, host: usize, id: &str) -> MessageView {
    *ask!(world, host, Command::MessageShow { id: id.into() }, Reply::Message)
}

pub(crate) fn state(world: &mut World, host: usize, id: &str) -> MessageState {
    message(world, host, id).state
}

/// All rows of a conversation, notices included; none where there is no such conversation yet.
pub(crate) fn history(world: &mut World, host: usize, with: &str) -> Vec<MessageView> {
    let command = Command::History { with: with.into(), limit: PAGE, before: None };
    match world.command(host, command) {
        Ok(Reply::Messages(views)) => views,
        Err(error) if error.code == ErrorKind::NotFound => Vec::new(),
        other => panic!("unexpected answer: {other:?}"),
    }
}

/// What people wrote in a conversation.
pub(crate) fn texts(world: &mut World, host: usize, with: &str) -> Vec<String> {
    let views = history(world, host, with).into_iter();
    views.filter(|view| view.kind == MessageKind::Text).map(|view| view.text).collect()
}

pub(crate) fn contact(world: &mut World, host: usize, who: &str) -> ContactView {
    *ask!(world, host, Command::ContactShow { who: who.into() }, Reply::Contact)
}

pub(crate) fn contacts(world: &mut World, host: usize) -> Vec<ContactView> {
    ask!(world, host, Command::ContactList, Reply::Contacts)
}

pub(crate) fn requests(world: &mut World, host: usize) -> Vec<RequestView> {
    ask!(world, host, Command::RequestsList, Reply::Requests)
}

pub(crate) fn status(world: &mut World, host: usize) -> StatusView {
    *ask!(world, host, Command::Status, Reply::Status)
}

/// The link that makes its owner a contact of whoever has it.
pub(crate) fn link(world: &mut World, host: usize) -> String {
    ask!(world, host, Command::Link { once: false }, Reply::Link).link
}

/// A new group of the given members; returns the word for it, `group:<id>`.
pub(crate) fn create_group(
    world: &mut World,
    host: usize,
    name: &str,
    members: Vec<String>,
) -> String {
    let command = Command::GroupCreate { name: name.into(), members, suite: None };
    format!("group:{}", ask!(world, host, command, Reply::Group).id)
}

pub(crate) fn group(world: &mut World, host: usize, word: &str) -> GroupView {
    *ask!(world, host, Command::GroupShow { group: word.into() }, Reply::Group)
}

pub(crate) fn rename_group(world: &mut World, host: usize, word: &str, name: &str) {
    let command = Command::GroupRename { group: word.into(), name: name.into() };
    world.command(host, command).unwrap();
}

pub(crate) fn promote(world: &mut World, host: usize, word: &str, who: &str) {
    let command = Command::GroupPromote { group: word.into(), who: who.into() };
    world.command(host, command).unwrap();
}

pub(crate) fn add_member(world: &mut World, host: usize, word: &str, who: &str) {
    let command = Command::GroupAdd { group: word.into(), who: vec![who.into()] };
    world.command(host, command).unwrap();
}

pub(crate) fn remove_member(world: &mut World, host: usize, word: &str, who: &str) {
    let command = Command::GroupRemove { group: word.into(), who: who.into() };
    world.command(host, command).unwrap();
}

pub(crate) fn leave_group(world: &mut World, host: usize, word: &str) {
    world.command(host, Command::GroupLeave { group: word.into() }).unwrap();
}
