//! What people see, letter by letter; and that nobody else decides what a terminal does.

use super::*;
use crate::api::json::{acts_on_text, to_string};
use crate::api::{
    ContactView, Direction, GroupState, GroupView, HealingStep, HealingView, MemberView,
    MessageKind, MessageView, PathState, PeerView, ReactionView, Reply, RequestView, Role, Trust,
    sample,
};

fn shown(command: &Command, reply: &Reply, show: Show) -> String {
    answer(command, &to_string(reply).unwrap(), show).unwrap()
}

fn is_harmless(text: &str) -> bool {
    !text.chars().any(|c| (c.is_control() && c != '\n') || acts_on_text(c))
}

/// Every byte, and the known attacks, in every field of every answer.
#[test]
fn c08_nothing_of_others_acts_on_the_terminal() {
    let mut texts: Vec<String> =
        (0..=u8::MAX).map(|byte| format!("a{}b", char::from(byte))).collect();
    texts.extend(
        [
            "\u{1B}]52;c;cm0gLXJmIH4=\u{7}",
            "\u{1B}]8;;http://a.example\u{1B}\\x\u{1B}]8;;\u{1B}\\",
            "\u{1B}[21t",
            "\u{202E}\u{2066}\u{FEFF}\u{E0041}",
        ]
        .map(str::to_owned),
    );
    let show = Show { qr: true, ids: true };
    for text in &texts {
        for (command, reply) in sample::answers(text) {
            let shown = shown(&command, &reply, show).replace('\t', "");
            assert!(is_harmless(&shown), "{command:?} of {text:?} shows {shown:?}");
        }
    }
    let reply = InitReply { id: "\u{1B}c".into(), name: "\u{9B}m".into(), link: "\r".into() };
    assert!(is_harmless(&init(&reply, "sremp run")));
}

/// Line feeds in names, ids, addresses and errors stay in their row.
#[test]
fn c08_names_do_not_make_rows() {
    for (command, reply) in sample::answers("bob\nann  verified") {
        let with = shown(&command, &reply, Show::default());
        let without = to_string(&reply).unwrap().replace("\\nann  verified", "");
        let without = answer(&command, &without, Show::default()).unwrap();
        // Texts of messages may have lines; everything else must not.
        if !matches!(reply, Reply::Message(_) | Reply::Messages(_)) {
            assert_eq!(with.lines().count(), without.lines().count(), "{command:?}\n{with}");
        }
    }
}

fn said(from: &str, direction: Direction, state: MessageState, text: &str) -> MessageView {
    MessageView {
        message_id: "00112233445566778899aabbccddeeff".to_owned(),
        from_name: from.to_owned(),
        from_is_machine_account: false,
        direction,
        state,
        text: text.to_owned(),
        reply_to: None,
        error: None,
        edited_at: None,
        reactions: vec![],
        ..sample::message("")
    }
}

#[test]
fn history_reads_like_a_conversation() {
    let failed = MessageView {
        error: Some("the relay is full".to_owned()),
        ..said("me", Direction::Out, MessageState::Failed, "again")
    };
    let reply = MessageView {
        reply_to: Some("8899aabbccddeeff".to_owned()),
        from_is_machine_account: true,
        ..said("weather", Direction::In, MessageState::Delivered, "rain")
    };
    let notice = MessageView {
        kind: MessageKind::Notice,
        ..said("ann", Direction::In, MessageState::Delivered, "ann added bob")
    };
    let reaction = |reaction: &str, count| ReactionView {
        reaction: reaction.to_owned(),
        count,
        mine: false,
        from: vec![],
    };
    let (thumbs, heart) = (reaction("+1", 2), reaction("<3", 1));
    let ann = |text: &str| said("ann", Direction::In, MessageState::Delivered, text);
    let views = vec![
        notice,
        said("ann", Direction::In, MessageState::Read, "hello\nthere\n"),
        said("me", Direction::Out, MessageState::Delivered, "hi"),
        reply,
        failed,
        MessageView { kind: MessageKind::Timer, lifetime: Some(7200), ..ann("") },
        MessageView {
            edited_at: Some(sample::AT),
            reactions: vec![thumbs, heart],
            ..ann("better")
        },
        MessageView { kind: MessageKind::Deleted, ..ann("") },
    ];
    let command = Command::History { with: "ann".into(), limit: 5, before: None };
    let text = shown(&command, &Reply::Messages(views.clone()), Show::default());
    let expected = "\
2026-11-21 13:45:02  *                         ann added bob
2026-11-21 13:45:02  ann                       hello
                                               there
2026-11-21 13:45:02  me             delivered  hi
2026-11-21 13:45:02  weather [bot]             (to 8899aabb) rain
2026-11-21 13:45:02  me             failed     again
                                               ! the relay is full
2026-11-21 13:45:02  ann                       messages vanish after 2 hours
2026-11-21 13:45:02  ann                       better (edited)
                                               + +1 2, <3
2026-11-21 13:45:02  ann                       (deleted)";
    assert_eq!(text, expected);
    let with_ids = shown(&command, &Reply::Messages(views), Show { ids: true, qr: false });
    assert!(with_ids.starts_with("00112233445566778899aabbccddeeff  2026-11-21 13:45:02  *"));
    assert_eq!(shown(&command, &Reply::Messages(vec![]), Show::default()), "no messages");
}

fn bob() -> ContactView {
    ContactView {
        id: "sremp1qqqqqqqqqqqqqqqq".into(),
        name: "Bob".into(),
        alias: None,
        trust: Trust::Trusted,
        flags: FlagsView::default(),
        relays: vec![],
        endpoints: vec![],
        safety_number: "12345 67890".into(),
        path: PathState::Relay,
        relay_allowed: false,
        name_is_shared: false,
        looks_like: None,
        alias_hides: None,
        doubt: None,
        ..sample::contact("")
    }
}

#[test]
fn contacts_line_up() {
    let bot = ContactView {
        alias: Some("rain".into()),
        name: "Weather".into(),
        flags: FlagsView { is_machine_account: true, ..FlagsView::default() },
        verified: true,
        name_is_shared: true,
        ..bob()
    };
    let text = shown(&Command::ContactList, &Reply::Contacts(vec![bob(), bot]), Show::default());
    let expected = "\
Bob                   trusted   relay  sremp1qqqqqqqq
rain (Weather) [bot]  verified  relay  sremp1qqqqqqqq  same name as another contact";
    assert_eq!(text, expected);
}

#[test]
fn r16_somebody_who_looks_like_a_contact_is_pointed_out() {
    let other = "sremp1zzzzzzzzzzzzzzzz".to_owned();
    let alike = ContactView { looks_like: Some(other.clone()), ..bob() };
    let list = Reply::Contacts(vec![alike.clone()]);
    let text = shown(&Command::ContactList, &list, Show::default());
    assert!(text.ends_with("looks like another contact"), "{text}");
    let command = Command::ContactShow { who: "bob".into() };
    let text = shown(&command, &Reply::Contact(Box::new(alike)), Show::default());
    assert!(text.contains(&format!("looks like another contact's, who is {other}")), "{text}");
    let peer = PeerView { looks_like: Some(other.clone()), ..sample::peer("x") };
    let text = shown(&Command::Peers { name: None }, &Reply::Peers(vec![peer]), Show::default());
    assert!(text.ends_with("not your contact sremp1zzzzzzzz"), "{text}");
    let request = RequestView { looks_like: Some(other), ..sample::request("x") };
    let text = shown(&Command::RequestsList, &Reply::Requests(vec![request]), Show::default());
    assert!(text.ends_with("not your contact sremp1zzzzzzzz"), "{text}");
}

#[test]
fn a_contact_has_everything() {
    let command = Command::ContactShow { who: "bob".into() };
    let text = shown(&command, &Reply::Contact(Box::new(bob())), Show::default());
    let expected = "\
name           Bob
alias          none
id             sremp1qqqqqqqqqqqqqqqq
trust          trusted
safety number  12345 67890
flags          none
version        3 of 2026-11-21 13:45:02
first seen     2026-11-21 13:45:02
last seen      never
path           relay (policy: as the node)
addresses      none
relays         none";
    assert_eq!(text, expected);
}

#[test]
fn a_group_shows_its_members() {
    let member = |name: &str, alias: Option<&str>, is_me, pending| MemberView {
        id: "sremp1x".into(),
        name: name.into(),
        alias: alias.map(str::to_owned),
        is_machine_account: false,
        role: if is_me { Role::Admin } else { Role::Member },
        is_me,
        pending,
        last_seen: (!is_me).then_some(sample::AT),
        keys_since: (!is_me && !pending).then_some(sample::AT),
    };
    let group = GroupView {
        id: "00ff".into(),
        name: "club".into(),
        state: GroupState::Recovering,
        epoch_authenticator: "abcd".into(),
        healing: Some(HealingView {
            step: HealingStep::Checking,
            why: "other members have changes that are missing here".into(),
            since: sample::AT,
        }),
        members: vec![
            member("ann", None, true, false),
            member("Bob", Some("bobby"), false, true),
            member("cleo", None, false, false),
        ],
        ..sample::group("")
    };
    let command = Command::GroupShow { group: "club".into() };
    let text = shown(&command, &Reply::Group(Box::new(group)), Show::default());
    let expected = "\
name           club
id             00ff
state          recovering
epoch          7
authenticator  abcd
suite          0x0001 x25519
healing        checking: other members have changes that are missing here

members
  ann (you)    admin   sremp1x
  bobby (Bob)  member  sremp1x  invited
  cleo         member  sremp1x  seen 2026-11-21 13:45:02  keys of 2026-11-21 13:45:02";
    assert_eq!(text, expected);
}

#[test]
fn status_at_a_glance() {
    let view = StatusView {
        id: "sremp1me".into(),
        name: "ann".into(),
        version: "0.1.0".into(),
        listening: vec!["127.0.0.1:7330".into()],
        advertised: vec![],
        sessions: vec![],
        relays: vec![],
        rendezvous: vec![],
        outbox: 1,
        requests: 0,
        refused_changes: 0,
        work: vec![sample::work("bob")],
        started_at: sample::AT,
    };
    let text = shown(&Command::Status, &Reply::Status(Box::new(view)), Show::default());
    let expected = "\
name           ann
id             sremp1me
version        0.1.0
running since  2026-11-21 13:45:02
listening      127.0.0.1:7330
advertised     none
outbox         1 message waiting
requests       nothing waiting
proof of work  for bob: 20 bits, 50 % of what it takes on average

no sessions

relays
  no relays; add one with: sremp relay add LINK

rendezvous
  no rendezvous servers; add one with: sremp rendezvous add HOST:PORT";
    assert_eq!(text, expected);
}

#[test]
fn relays_are_shown_in_the_order_in_which_they_are_tried() {
    let relay = |connected, retired_until| crate::api::RelayView {
        id: "sremp1relay".into(),
        endpoints: vec!["relay.example:7331".into()],
        connected,
        retired_until,
        error: None,
    };
    let text = |views: Vec<crate::api::RelayView>| {
        shown(&Command::RelayList, &Reply::Relays(views), Show::default())
    };
    let both = text(vec![relay(true, None), relay(false, Some(sample::AT)), relay(false, None)]);
    let firsts: Vec<&str> = both.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(firsts, ["1", "-", "2"]);
    assert!(both.contains("given up") && !both.contains("fewer than two"), "{both}");
    assert!(text(vec![relay(true, None)]).contains("fewer than two"));
}

#[test]
fn another_kind_of_answer_is_an_error() {
    assert!(answer(&Command::Status, "[]", Show::default()).is_err());
    assert!(answer(&Command::ContactList, "{}", Show::default()).is_err());
    assert!(answer(&Command::GroupList, "not json", Show::default()).is_err());
}
