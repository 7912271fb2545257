//! For tests: one of every answer and event, with a text of the caller's in every field that others
//! can fill.

use sremp_common::time::Timestamp;

use super::*;

pub(crate) const AT: Timestamp = Timestamp::from_millis(1_795_268_702_000);

pub(crate) fn contact(text: &str) -> ContactView {
    ContactView {
        id: text.to_owned(),
        name: text.to_owned(),
        alias: Some(text.to_owned()),
        trust: Trust::Trusted,
        verified: false,
        flags: FlagsView { is_machine_account: true, ..FlagsView::default() },
        version: 3,
        created: Some(AT),
        first_seen: AT,
        last_seen: None,
        relays: vec![relay_record(text), relay_record(text)],
        path: PathState::Direct,
        path_policy: None,
        endpoints: vec![text.to_owned()],
        safety_number: text.to_owned(),
        relay_allowed: true,
        name_is_shared: true,
        looks_like: Some(text.to_owned()),
        alias_hides: Some(text.to_owned()),
        doubt: Some(DoubtView { kind: DoubtKind::OldIdentity, version: 2, at: AT }),
    }
}

fn relay_record(text: &str) -> RelayRecordView {
    RelayRecordView { id: text.to_owned(), endpoints: vec![text.to_owned()] }
}

pub(crate) fn relay(text: &str) -> RelayView {
    RelayView {
        id: text.to_owned(),
        endpoints: vec![text.to_owned()],
        connected: false,
        retired_until: None,
        error: Some(text.to_owned()),
    }
}

pub(crate) fn rendezvous(text: &str) -> RendezvousView {
    RendezvousView {
        server: text.to_owned(),
        ca: Some(text.to_owned()),
        registered: false,
        expires_at: None,
        observed: Some(text.to_owned()),
        suggested: false,
        error: Some(text.to_owned()),
    }
}

pub(crate) fn work(text: &str) -> WorkView {
    WorkView {
        id: text.to_owned(),
        name: text.to_owned(),
        relay: text.to_owned(),
        difficulty: 20,
        tried: 524_288,
        expected: 1_048_576,
    }
}

pub(crate) fn status(text: &str) -> StatusView {
    StatusView {
        id: text.to_owned(),
        name: text.to_owned(),
        version: text.to_owned(),
        listening: vec![text.to_owned()],
        advertised: vec![text.to_owned(), text.to_owned()],
        sessions: vec![SessionView {
            id: text.to_owned(),
            name: text.to_owned(),
            alias: Some(text.to_owned()),
            is_machine_account: true,
            relay: false,
            direction: Direction::In,
        }],
        relays: vec![relay(text)],
        rendezvous: vec![rendezvous(text)],
        outbox: 2,
        requests: 1,
        refused_changes: 3,
        work: vec![work(text)],
        started_at: AT,
    }
}

pub(crate) fn message(text: &str) -> MessageView {
    MessageView {
        message_id: text.to_owned(),
        conversation: text.to_owned(),
        kind: MessageKind::Text,
        from: text.to_owned(),
        from_name: text.to_owned(),
        from_is_machine_account: true,
        direction: Direction::Out,
        text: text.to_owned(),
        reply_to: Some(text.to_owned()),
        sent_at: AT,
        received_at: None,
        state: MessageState::Queued,
        error: Some(text.to_owned()),
        final_state: MessageState::Read,
        edited_at: Some(AT),
        reactions: vec![ReactionView {
            reaction: text.to_owned(),
            count: 2,
            mine: true,
            from: vec![PersonView { id: text.to_owned(), name: text.to_owned() }],
        }],
        lifetime: Some(3600),
        vanishes_at: Some(AT),
        recipients: vec![RecipientView {
            id: text.to_owned(),
            name: text.to_owned(),
            is_machine_account: false,
            state: MessageState::Failed,
            error: Some(text.to_owned()),
        }],
    }
}

pub(crate) fn group(text: &str) -> GroupView {
    GroupView {
        id: text.to_owned(),
        name: text.to_owned(),
        epoch: 7,
        epoch_authenticator: text.to_owned(),
        suite: 1,
        state: GroupState::Active,
        healing: None,
        members: vec![MemberView {
            id: text.to_owned(),
            name: text.to_owned(),
            alias: Some(text.to_owned()),
            is_machine_account: false,
            role: Role::Admin,
            is_me: true,
            pending: true,
            last_seen: None,
            keys_since: Some(AT),
        }],
    }
}

pub(crate) fn identity(text: &str) -> IdentityView {
    IdentityView {
        id: text.to_owned(),
        name: text.to_owned(),
        version: 1,
        created: AT,
        flags: FlagsView::default(),
        noise_key: text.to_owned(),
        relays: vec![relay_record(text)],
        picture_bytes: 0,
    }
}

pub(crate) fn peer(text: &str) -> PeerView {
    PeerView {
        id: text.to_owned(),
        name: text.to_owned(),
        alias: Some(text.to_owned()),
        flags: FlagsView::default(),
        online: false,
        last_seen: Some(AT),
        server: text.to_owned(),
        looks_like: Some(text.to_owned()),
    }
}

pub(crate) fn request(text: &str) -> RequestView {
    RequestView {
        id: text.to_owned(),
        name: text.to_owned(),
        flags: FlagsView::default(),
        group: Some(text.to_owned()),
        received_at: AT,
        looks_like: Some(text.to_owned()),
    }
}

fn group_row(text: &str) -> GroupRow {
    GroupRow {
        id: text.to_owned(),
        name: text.to_owned(),
        state: GroupState::Removed,
        members: 2,
        role: Role::Member,
    }
}

/// One of every event that can be recorded.
pub(crate) fn events(text: &str) -> Vec<EventBody> {
    let own = || text.to_owned();
    let some = || Some(text.to_owned());
    vec![
        EventBody::Message(Box::new(message(text))),
        EventBody::State {
            message_id: own(),
            conversation: own(),
            state: MessageState::Sent,
            error: some(),
        },
        EventBody::Changed {
            message_id: own(),
            conversation: own(),
            change: MessageChange::Reaction,
            by: own(),
            by_name: own(),
            text: some(),
        },
        EventBody::Request { id: own(), name: own(), flags: FlagsView::default(), group: some() },
        EventBody::Contact { id: own(), name: own(), alias: some(), change: Change::Renamed },
        EventBody::Group {
            id: own(),
            name: own(),
            change: Change::Joined,
            by: some(),
            who: some(),
            epoch: 4,
        },
        EventBody::Connection {
            kind: ConnectionKind::Peer,
            id: own(),
            name: some(),
            connected: true,
        },
        EventBody::Typing { conversation: own(), by: own(), by_name: own(), typing: true },
    ]
}

/// One of every command that a person can type, with the answer that it has.
pub(crate) fn answers(text: &str) -> Vec<(Command, Reply)> {
    use Command as C;
    let own = || text.to_owned();
    let server = || "192.0.2.1:7332".parse().unwrap();
    let a_contact = || Reply::Contact(Box::new(contact(text)));
    let a_group = || Reply::Group(Box::new(group(text)));
    let me = || Reply::Identity(Box::new(identity(text)));
    let link = LinkView { link: own(), kind: LinkKind::Once };
    let sent = SentView { message_id: own(), conversation: own(), state: MessageState::Queued };
    let kinds = [
        MessageKind::Text,
        MessageKind::Timer,
        MessageKind::Deleted,
        MessageKind::Reaction,
        MessageKind::Edit,
        MessageKind::Delete,
        MessageKind::Notice,
        MessageKind::Unsupported,
    ];
    let timer = TimerView { conversation: own(), seconds: Some(90) };
    let person = PersonView { id: own(), name: own() };
    let changed = |reply: &SentView| Reply::Sent(reply.clone());
    let history = kinds.map(|kind| MessageView { kind, ..message(text) }).to_vec();
    vec![
        (C::Status, Reply::Status(Box::new(status(text)))),
        (C::Link { once: false }, Reply::Link(link)),
        (C::LinkRevoke, Reply::Done {}),
        (C::ContactAdd { what: own(), alias: None }, a_contact()),
        (C::ContactList, Reply::Contacts(vec![contact(text), contact("bob")])),
        (C::ContactShow { who: own() }, a_contact()),
        (C::ContactAlias { who: own(), alias: own() }, a_contact()),
        (C::ContactTrust { who: own() }, a_contact()),
        (C::ContactVerify { who: own() }, a_contact()),
        (C::ContactReject { who: own() }, a_contact()),
        (C::ContactReset { who: own() }, a_contact()),
        (C::ContactPath { who: own(), path: None }, a_contact()),
        (C::ContactRemove { who: own() }, Reply::Removed(RemovedView { rejection_lifted: true })),
        (C::Peers { name: None }, Reply::Peers(vec![peer(text)])),
        (C::RequestsList, Reply::Requests(vec![request(text)])),
        (C::RequestsAccept { who: own() }, a_contact()),
        (C::RequestsDecline { who: own() }, Reply::Done {}),
        (C::React { with: own(), message: own(), reaction: Some(own()) }, changed(&sent)),
        (C::Edit { with: own(), message: own(), text: own() }, changed(&sent)),
        (C::Delete { with: own(), message: own() }, changed(&sent)),
        (C::TimerSet { with: own(), seconds: Some(90) }, changed(&sent)),
        (C::TimerShow { with: own() }, Reply::Timer(timer)),
        (C::TypingShow { with: own() }, Reply::Typing(vec![person])),
        (C::TypingTell { with: own(), typing: true }, Reply::Done {}),
        (C::Send { to: own(), text: own(), reply_to: None }, Reply::Sent(sent)),
        (C::MessageShow { id: own() }, Reply::Message(Box::new(message(text)))),
        (C::History { with: own(), limit: 9, before: None }, Reply::Messages(history)),
        (C::MarkRead { with: own() }, Reply::Done {}),
        (C::GroupCreate { name: own(), members: vec![], suite: None }, a_group()),
        (C::GroupList, Reply::Groups(vec![group_row(text)])),
        (C::GroupShow { group: own() }, a_group()),
        (C::GroupAdd { group: own(), who: vec![own()] }, a_group()),
        (C::GroupRemove { group: own(), who: own() }, a_group()),
        (C::GroupPromote { group: own(), who: own() }, a_group()),
        (C::GroupDemote { group: own(), who: own() }, a_group()),
        (C::GroupRename { group: own(), name: own() }, a_group()),
        (C::GroupLeave { group: own() }, Reply::Done {}),
        (C::RelayAdd { link: own() }, Reply::Relay(relay(text))),
        (C::RelayRemove { relay: own() }, Reply::Done {}),
        (C::RelayMigrate { relay: own(), link: own() }, Reply::Relay(relay(text))),
        (C::RelayList, Reply::Relays(vec![relay(text)])),
        (C::RelayAllow { who: own() }, a_contact()),
        (C::RelayDisallow { who: own() }, a_contact()),
        (
            C::RendezvousAdd(ServerOptions { server: server(), ca: None, invite: None }),
            Reply::Rendezvous(vec![rendezvous(text)]),
        ),
        (C::RendezvousRemove { server: server() }, Reply::Done {}),
        (C::RendezvousList, Reply::Rendezvous(vec![rendezvous(text)])),
        (C::IdentityShow, me()),
        (C::IdentityRename { name: Username::new("ann").unwrap() }, me()),
        (C::IdentityFlag { flag: Flag::PrefersAsync, on: true }, me()),
        (C::IdentityPicture { bytes: vec![1] }, me()),
        (C::IdentityRotateNoiseKey, me()),
        (C::IdentityRotateTokens, Reply::Done {}),
    ]
}
