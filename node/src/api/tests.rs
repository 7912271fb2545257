//! The JSON that scripts rely on.

use serde_json::Value;

use super::*;

fn value(of: &impl Serialize) -> Value {
    serde_json::from_str(&json::to_string(of).unwrap()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The fields of the command line's grammar, which may grow but never lose one.
#[test]
fn every_promised_field_is_there() {
    for (promised, found) in [
        (
            "id name version listening sessions relays rendezvous outbox",
            value(&Reply::Status(Box::new(sample::status("x")))),
        ),
        (
            "id name alias trust verified flags version created first_seen last_seen relays path",
            value(&Reply::Contact(Box::new(sample::contact("x")))),
        ),
        (
            "message_id conversation kind from from_name direction text reply_to sent_at received_at state error",
            value(&Reply::Message(Box::new(sample::message("x")))),
        ),
        (
            "id name epoch epoch_authenticator suite state members",
            value(&Reply::Group(Box::new(sample::group("x")))),
        ),
        ("id name alias role", value(&sample::group("x"))["members"][0].clone()),
        (
            "message_id conversation state",
            value(&Reply::Sent(SentView {
                message_id: "x".into(),
                conversation: "x".into(),
                state: MessageState::Queued,
            })),
        ),
        ("link", value(&Reply::Link(LinkView { link: "x".into(), kind: LinkKind::Standing }))),
        ("id name link", value(&InitReply { id: "x".into(), name: "x".into(), link: "x".into() })),
    ] {
        for field in promised.split(' ') {
            assert!(keys(&found).contains(&field), "{field} is not in {found}");
        }
    }
}

#[test]
fn what_is_absent_is_null_and_times_are_numbers() {
    let contact = value(&sample::contact("x"));
    assert_eq!(contact["last_seen"], Value::Null);
    assert_eq!(contact["created"], 1_795_268_702_000_u64);
    assert_eq!(contact["flags"]["is_machine_account"], true);
    let message = value(&sample::message("x"));
    assert_eq!(message["received_at"], Value::Null);
    assert_eq!((&message["state"], &message["direction"]), (&"queued".into(), &"out".into()));
    assert_eq!(value(&Reply::Done {}), serde_json::json!({}));
    assert_eq!(value(&Reply::Contacts(vec![])), serde_json::json!([]));
}

#[test]
fn every_event_has_kind_number_and_time_beside_its_fields() {
    for (body, kind) in sample::events("x").into_iter().zip([
        EventKind::Message,
        EventKind::State,
        EventKind::Changed,
        EventKind::Request,
        EventKind::Contact,
        EventKind::Group,
        EventKind::Connection,
        EventKind::Typing,
    ]) {
        let event = Event { seq: 9, at: sample::AT, body };
        let found = value(&event);
        assert_eq!(found["event"], kind.word());
        assert_eq!(found["seq"], 9);
        assert_eq!(found["at"], sample::AT.as_millis());
        assert!(keys(&found).len() > 5, "{found}");
        assert_eq!(serde_json::from_value::<Event>(found).unwrap(), event);
    }
}

#[test]
fn an_unknown_kind_of_message_is_no_error() {
    let mut found = value(&sample::message("x"));
    found["kind"] = "hologram".into();
    found["new_field"] = 7.into();
    let view: MessageView = serde_json::from_value(found).unwrap();
    assert_eq!(view.kind, MessageKind::Unsupported);
}

#[test]
fn errors_have_fixed_codes() {
    let kinds = [
        (ErrorKind::Failed, "failed", 1, 500),
        (ErrorKind::Usage, "usage", 2, 400),
        (ErrorKind::NoDaemon, "no_daemon", 3, 503),
        (ErrorKind::NotFound, "not_found", 4, 404),
        (ErrorKind::Refused, "refused", 5, 403),
        (ErrorKind::TimedOut, "timed_out", 6, 504),
    ];
    for (kind, word, exit, status) in kinds {
        assert_eq!((kind.exit_code(), kind.http_status()), (exit, status));
        assert_eq!(word.parse(), Ok(kind));
        let body = value(&ErrorBody { error: ApiError::new(kind, "why") });
        assert_eq!(body, serde_json::json!({ "error": { "code": word, "message": "why" } }));
    }
}

#[test]
fn words_are_the_same_in_json_and_on_the_command_line() {
    use clap::ValueEnum;
    fn check<T: ValueEnum + Serialize + std::fmt::Display>() {
        for variant in T::value_variants() {
            let shown = variant.to_string();
            assert_eq!(value(variant), Value::from(shown.as_str()));
            assert_eq!(variant.to_possible_value().unwrap().get_name(), shown);
        }
    }
    check::<MessageState>();
    check::<PathPolicy>();
    check::<Flag>();
}

#[test]
fn states_only_move_forward() {
    use MessageState::{Delivered, Failed, Queued, Read, Sent};
    assert!(Queued < Sent && Sent < Delivered && Delivered < Read);
    assert!(Delivered.has_reached(Sent) && !Sent.has_reached(Delivered));
    assert!(!Failed.has_reached(Sent) && Failed.ends_wait_for(Read));
}

#[test]
fn c06_what_is_said_is_not_in_debug_output() {
    for (command, reply) in sample::answers("canary") {
        let shown = format!("{command:?} {:?}", route::encode(&command.clone().into()).method);
        assert!(!shown.contains("canary"), "{shown}");
        assert!(!format!("{reply:?}").contains("canary"));
    }
    let message =
        format!("{:?}", MessageView { message_id: "1".into(), ..sample::message("canary") });
    assert!(!message.contains("canary"), "{message}");
    for body in sample::events("canary") {
        assert!(!format!("{:?}", Event { seq: 1, at: sample::AT, body }).contains("canary"));
    }
}
