//! Contents in every order, forged ones, and what is left of those that are gone.

use sremp_common::entropy::Entropy;
use sremp_common::id::GroupId;
use sremp_common::key::IdentitySecret;
use sremp_common::limit::MIN_LIFETIME;
use sremp_common::name::Username;
use sremp_common::time::Instant;

use super::super::NodeConfig;
use super::super::filing::Origin;
use super::*;
use crate::api::{Event, MessageKind, MessageView};
use crate::conversations::content::{FadingTextBody, TextBody};
use crate::groups::StateId;
use crate::identity::Own;
use crate::store::Store;

const START: u64 = 1_000_000;

fn at(millis: u64) -> Now {
    Now { instant: Instant::from_millis(millis), wall: Timestamp::from_millis(START + millis) }
}

/// A node to which others write, without groups: what is inside of messages is all that matters here.
struct Desk {
    store: Store,
    node: Node,
    id: ConversationId,
}

fn people() -> [IdentityKey; 3] {
    let mut entropy = Entropy::from_number(7);
    [(), (), ()].map(|()| IdentitySecret::generate(&mut entropy).public())
}

impl Desk {
    fn new() -> Self {
        let mut entropy = Entropy::from_number(3);
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let secret = IdentitySecret::generate(&mut entropy);
        let name = Username::new("me").unwrap();
        Own::create(&tx, secret.clone(), name, &mut entropy, at(0)).unwrap();
        tx.accept().unwrap();
        let own = Own::load(&tx, secret).unwrap();
        let node = Node::load(&tx, own, NodeConfig::default(), entropy, at(0)).unwrap();
        tx.commit().unwrap();
        Self { store, node, id: ConversationId::Group(GroupId::new([9; 16])) }
    }

    fn take(&mut self, sender: IdentityKey, number: u8, kind: Kind, now: Now) -> Verdict {
        let tx = self.store.begin().unwrap();
        let mut conversation = Conversation::find(&tx, self.id)
            .unwrap()
            .unwrap_or_else(|| Conversation::new(self.id, "group".to_owned()));
        let sealed_in = (GroupId::new([9; 16]), StateId::new([1; 16]));
        let origin = Origin { sender, sealed_in, receipts: true };
        let lamport = START + u64::from(number);
        let sent_at = Timestamp::from_millis(lamport);
        let content = Content::new(MessageId::new([number; 16]), &kind, lamport, sent_at);
        let verdict =
            self.node.file_content(&tx, &mut conversation, origin, &content, kind, now).unwrap();
        if verdict == Verdict::Applied {
            tx.accept().unwrap()
        } else {
            tx.refuse()
        }
        tx.commit().unwrap();
        verdict
    }

    fn history(&self) -> Vec<MessageView> {
        let tx = self.store.begin().unwrap();
        let rows = History::page_shown(&tx, self.id, None, 100).unwrap();
        rows.iter().map(|row| self.node.message_view(&tx, row, true).unwrap()).collect()
    }

    /// Whether a text is anywhere in the tables that hold what was said.
    fn holds(&self, text: &str) -> bool {
        let tx = self.store.begin().unwrap();
        [Table::Messages, Table::Changes, Table::Events].into_iter().any(|table| {
            let rows = tx.scan(table, &[], None, 10_000).unwrap();
            rows.iter().any(|(_, row)| row.windows(text.len()).any(|part| part == text.as_bytes()))
        })
    }
}

fn id(number: u8) -> MessageId {
    MessageId::new([number; 16])
}

fn text(text: &str) -> Kind {
    Kind::Text(TextBody { text: Text::new(text).unwrap(), reply_to: None })
}

fn reaction(author: IdentityKey, target: u8, reaction: &str) -> Kind {
    let (target, reaction) = (id(target), Text::new(reaction).unwrap());
    Kind::Reaction(ReactionBody { author, target, reaction })
}

fn edit(target: u8, text: &str) -> Kind {
    Kind::Edit(EditBody { target: id(target), text: Text::new(text).unwrap(), lifetime: None })
}

fn delete(target: u8) -> Kind {
    Kind::Delete(DeleteBody { target: id(target) })
}

/// Every order of so many things (Heap's algorithm).
fn orders(count: usize) -> Vec<Vec<usize>> {
    fn permute(rest: usize, order: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if rest <= 1 {
            all.push(order.clone());
            return;
        }
        for place in 0..rest {
            permute(rest - 1, order, all);
            order.swap(if rest.is_multiple_of(2) { place } else { 0 }, rest - 1);
        }
    }
    let mut all = Vec::new();
    permute(count, &mut (0..count).collect(), &mut all);
    all
}

/// What every order of these contents, each of which comes twice, ends in.
fn outcome(contents: &[(IdentityKey, u8, Kind)]) -> MessageView {
    let mut ends: Vec<MessageView> = Vec::new();
    let mut desk = Desk::new();
    for (round, order) in orders(contents.len()).into_iter().enumerate() {
        let round = u8::try_from(round).unwrap();
        desk.id = ConversationId::Group(GroupId::new([round; 16]));
        // A message is known by its author and its id: each round has ids of its own.
        let tx = desk.store.begin().unwrap();
        for (key, _) in tx.scan(Table::MessageIndex, &[], None, 10_000).unwrap() {
            tx.delete(Table::MessageIndex, &key);
        }
        tx.accept().unwrap();
        tx.commit().unwrap();
        for place in order.iter().chain(&order) {
            let (sender, number, kind) = contents[*place].clone();
            assert_eq!(desk.take(sender, number, kind, at(0)), Verdict::Applied);
        }
        let mut views = desk.history();
        assert_eq!(views.len(), 1, "{order:?}");
        let mut view = views.remove(0);
        view.conversation = String::new();
        ends.push(view);
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "the order decides");
    ends.remove(0)
}

#[test]
fn reactions_and_edits_end_alike_in_every_order() {
    let [ann, bob, cy] = people();
    let view = outcome(&[
        (ann, 1, text("first")),
        (ann, 3, edit(1, "second")),
        (ann, 4, edit(1, "third")),
        (bob, 5, reaction(ann, 1, "+1")),
        (cy, 6, reaction(ann, 1, "")),
    ]);
    assert_eq!((view.kind, view.text.as_str()), (MessageKind::Text, "third"));
    assert_eq!(view.edited_at, Some(Timestamp::from_millis(START + 4)));
    let [shown] = view.reactions.as_slice() else { panic!("{:?}", view.reactions) };
    assert_eq!((shown.reaction.as_str(), shown.count, shown.mine), ("+1", 1, false));
    let view = outcome(&[
        (ann, 1, text("first")),
        (bob, 5, reaction(ann, 1, "+1")),
        (bob, 6, reaction(ann, 1, "-1")),
        (cy, 7, reaction(ann, 1, "-1")),
    ]);
    let [shown] = view.reactions.as_slice() else { panic!("{:?}", view.reactions) };
    assert_eq!((shown.reaction.as_str(), shown.count), ("-1", 2), "the last of each");
}

#[test]
fn what_was_deleted_stays_so_in_every_order() {
    let [ann, bob, _] = people();
    let view = outcome(&[
        (ann, 1, text("regretted")),
        (ann, 3, edit(1, "regretted, too")),
        (ann, 4, delete(1)),
        (ann, 5, edit(1, "back again")),
        (bob, 6, reaction(ann, 1, "+1")),
    ]);
    assert_eq!((view.kind, view.text.as_str()), (MessageKind::Deleted, ""));
    assert!(view.reactions.is_empty() && view.edited_at.is_none());
}

#[test]
fn nobody_changes_what_another_one_wrote() {
    let [ann, bob, _] = people();
    let mut desk = Desk::new();
    desk.take(ann, 1, text("mine"), at(0));
    for forged in [edit(1, "yours"), delete(1)] {
        assert_eq!(desk.take(bob, 2, forged, at(0)), Verdict::Applied);
    }
    assert_eq!(desk.node.changes_refused, 2);
    // Before the message has come, nobody can tell; it has no effect all the same.
    assert_eq!(desk.take(bob, 3, edit(4, "yours"), at(0)), Verdict::Applied);
    assert_eq!(desk.take(bob, 5, delete(4), at(0)), Verdict::Applied);
    desk.take(ann, 4, text("mine, too"), at(0));
    let texts: Vec<String> = desk.history().into_iter().map(|view| view.text).collect();
    assert_eq!(texts, ["mine", "mine, too"]);
    // Whoever takes the id of a message that is still to come keeps nobody from editing it.
    desk.take(bob, 10, text("squatter"), at(0));
    assert_eq!(desk.take(ann, 11, edit(10, "edited"), at(0)), Verdict::Applied);
    desk.take(ann, 10, text("original"), at(0));
    let texts: Vec<String> = desk.history().into_iter().map(|view| view.text).collect();
    assert_eq!(texts.len(), 4);
    assert!(texts.contains(&"squatter".to_owned()) && texts.contains(&"edited".to_owned()));
    // In another conversation the same author has no such message.
    desk.id = ConversationId::Contact(ann);
    assert!(matches!(desk.take(ann, 6, delete(1), at(0)), Verdict::Invalid(_)));
    assert!(matches!(desk.take(bob, 7, reaction(ann, 1, "+1"), at(0)), Verdict::Invalid(_)));
}

#[test]
fn of_what_was_edited_deleted_or_has_vanished_no_word_is_left() {
    let [ann, bob, _] = people();
    let mut desk = Desk::new();
    desk.take(ann, 1, text("slip of the tongue"), at(0));
    desk.take(ann, 2, edit(1, "slip of the pen"), at(0));
    desk.take(ann, 3, edit(1, "well said"), at(0));
    assert!(!desk.holds("slip of the pen") && desk.holds("well said"));
    desk.take(ann, 4, delete(1), at(0));
    assert!(!desk.holds("slip of the tongue") && !desk.holds("well said"));

    let lifetime = Lifetime::try_from(MIN_LIFETIME).unwrap();
    let fading = |text: &str| {
        Kind::FadingText(FadingTextBody {
            text: Text::new(text).unwrap(),
            reply_to: None,
            lifetime,
        })
    };
    desk.take(ann, 5, fading("for your eyes only"), at(5));
    desk.take(bob, 6, reaction(ann, 5, "wow"), at(6));
    desk.take(ann, 7, fading("not seen before it was deleted"), at(7));
    desk.take(ann, 8, delete(7), at(8));
    let life = u64::from(MIN_LIFETIME) * 1000;
    assert_eq!(desk.node.vanishing_at, Some(Instant::from_millis(5 + life)));
    assert!(desk.node.poll_timeout().is_some_and(|due| due <= Instant::from_millis(5 + life)));
    let pass = |desk: &mut Desk, now: Now| {
        let tx = desk.store.begin().unwrap();
        desk.node.vanish(&tx, now).unwrap();
        tx.accept().unwrap();
        tx.commit().unwrap();
    };
    pass(&mut desk, at(4 + life));
    assert!(desk.holds("for your eyes only"));
    pass(&mut desk, at(5 + life));
    assert!(!desk.holds("for your eyes only") && !desk.holds("wow"));
    assert_eq!(desk.history().len(), 2, "two tombstones");
    pass(&mut desk, at(7 + life));
    assert_eq!((desk.history().len(), desk.node.vanishing_at), (1, None));
    // Its author sends it once more, because a receipt was lost: it does not come back.
    assert_eq!(desk.take(ann, 5, fading("for your eyes only"), at(8 + life)), Verdict::Applied);
    desk.take(bob, 9, reaction(ann, 5, "late"), at(8 + life));
    assert!(!desk.holds("for your eyes only") && !desk.holds("late"));
    // Whoever reads the events afterwards sees that there was something, and not what.
    let tx = desk.store.begin().unwrap();
    let rows = tx.scan(Table::Events, &[], None, 10_000).unwrap();
    let vanished = rows.iter().filter(|(_, row)| {
        let event: Event = serde_json::from_slice(row).unwrap();
        matches!(event.body, EventBody::Changed { change: MessageChange::Vanished, .. })
    });
    assert_eq!(vanished.count(), 2);
}
