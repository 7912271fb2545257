//! What is pushed to whom, and when it stops.

use super::*;

const MEGABYTE: u32 = 1 << 20;

fn fill(rig: &mut Rig, count: u64, length: usize) {
    for number in 0..count {
        assert_eq!(rig.store_one(1, &blob(number, length), by_token(1, 1)), None);
    }
}

#[test]
fn everything_that_waits_then_everything_that_comes() {
    let mut rig = Rig::with_owner(|_| {});
    fill(&mut rig, 3, 10);
    let asked = rig.retrieve(1, MEGABYTE);
    let batches = rig.batches(1);
    assert_eq!(sequences(&batches[0].messages), [1, 2, 3]);
    assert!(batches.len() == 1 && !batches[0].has_more);
    assert_eq!(rig.store_one(1, b"live", by_token(1, 1)), None);
    let Some(Output::Answer { session: SessionId(1), request_id, .. }) = rig.outputs.first() else {
        panic!("{:?}", rig.outputs)
    };
    assert_eq!(*request_id, asked, "under the number of the request");
    let pushed = rig.pushed(1);
    assert_eq!((sequences(&pushed), &*pushed[0].blob), (vec![4], &b"live"[..]));
    // Reading deleted nothing.
    assert_eq!(rig.totals().messages, 4);
}

#[test]
fn an_empty_mailbox_is_answered_once() {
    let mut rig = Rig::with_owner(|_| {});
    rig.retrieve(1, MEGABYTE);
    let empty = MessageBatch { messages: List::default(), has_more: false };
    assert_eq!(rig.batches(1), [empty]);
    rig.pass(100_000);
    assert_eq!(rig.batches(1), []);
}

#[test]
fn l07_retrieval_by_another_identity() {
    let mut rig = Rig::with_owner(|_| {});
    fill(&mut rig, 3, 10);
    rig.open(2, Some(2));
    rig.register(2, 100, 100);
    rig.retrieve(2, MEGABYTE);
    let empty = MessageBatch { messages: List::default(), has_more: false };
    assert_eq!(rig.batches(2), [empty], "as if nothing were there");
    // Nor can it delete what is not its own.
    rig.acknowledge(2, &[1, 2, 3]);
    assert_eq!(rig.totals().messages, 3);
    assert_eq!(rig.store_one(1, b"more", by_token(1, 1)), None);
    assert_eq!(rig.pushed(2), []);
    rig.retrieve(1, MEGABYTE);
    assert_eq!(rig.pushed(1).len(), 4);
}

#[test]
fn a_full_window_waits_for_acknowledgements() {
    let mut rig = Rig::with_owner(|_| {});
    fill(&mut rig, 5, 400);
    rig.retrieve(1, 1000);
    let batches = rig.batches(1);
    assert_eq!(sequences(&batches[0].messages), [1, 2]);
    assert!(batches[0].has_more && batches.len() == 1);
    assert_eq!(rig.store_one(1, &blob(9, 100), by_token(1, 1)), None);
    assert_eq!(rig.pushed(1), [], "in order: what comes later waits, even if it fits");
    rig.acknowledge(1, &[2]);
    assert_eq!(sequences(&rig.pushed(1)), [3]);
    rig.acknowledge(1, &[77, 2]);
    assert_eq!(rig.pushed(1), [], "what is not under way frees nothing");
    rig.acknowledge(1, &[1, 3]);
    let batches = rig.batches(1);
    assert_eq!(sequences(&batches[0].messages), [4, 5, 6]);
    assert!(!batches[0].has_more);
}

#[test]
fn one_message_may_always_be_under_way() {
    let mut rig = Rig::with_owner(|_| {});
    fill(&mut rig, 3, 400);
    rig.retrieve(1, 0);
    for sequence in 1..=3 {
        assert_eq!(sequences(&rig.pushed(1)), [sequence]);
        rig.acknowledge(1, &[sequence]);
    }
    assert_eq!(rig.pushed(1), []);
}

#[test]
fn long_messages_come_one_by_one_while_the_window_has_room() {
    let mut rig = Rig::with_owner(|config| config.max_window = 3 * MEGABYTE);
    fill(&mut rig, 4, 1_000_000);
    rig.retrieve(1, u32::MAX);
    let batches = rig.batches(1);
    let lengths: Vec<_> = batches.iter().map(|batch| batch.messages.len()).collect();
    assert_eq!(lengths, [1, 1, 1]);
    assert!(batches[2].has_more);
}

#[test]
fn many_short_messages_are_bounded_by_count() {
    let mut rig = Rig::with_owner(|_| {});
    fill(&mut rig, 5_000, 8);
    rig.retrieve(1, MEGABYTE);
    let batches = rig.batches(1);
    assert!(batches.iter().all(|batch| batch.messages.len() <= 256 && batch.has_more));
    let under_way: Vec<_> = batches.iter().flat_map(|batch| sequences(&batch.messages)).collect();
    assert_eq!(under_way, (1..=4096).collect::<Vec<_>>(), "one acknowledgement can name them all");
    rig.acknowledge(1, &under_way);
    assert_eq!(sequences(&rig.pushed(1)), (4097..=5000).collect::<Vec<_>>());
}

/// A turn is bounded; what is left follows in the next one, which is due at once.
#[test]
fn many_readers_take_turns() {
    let mut rig = Rig::new(|config| config.max_window = 4 * MEGABYTE);
    for number in 1..=5 {
        rig.open(number, Some(number));
        rig.register(number, u32::MAX, u32::MAX);
        rig.admit(number, &[(1, AdmissionClass::Contact, 0)]);
    }
    for number in 0..4 {
        let to: Vec<_> = (1..=5).map(|owner| by_token(owner, 1)).collect();
        rig.store(1, &blob(number, 1_040_000), &to);
    }
    // All five ask before the first turn.
    for number in 1..=5 {
        let message = Message::RetrieveMessages(RetrieveMessages { window: u32::MAX });
        let session = SessionId(number);
        let input = Input::Request { session, request_id: 1, message };
        rig.engine.handle(&mut rig.store, input, rig.now).unwrap();
    }
    rig.engine.settle(&mut rig.store).unwrap();
    rig.collect();
    assert_eq!(rig.outputs.len(), 17, "16 MiB and the message that crossed the line");
    assert_eq!(rig.engine.poll_timeout(), Instant::from_millis(0));
    rig.pass(0);
    for number in 1..=5 {
        assert_eq!(rig.pushed(number).len(), 4);
    }
    assert!(rig.engine.poll_timeout() > rig.now.instant);
}

#[test]
fn the_newest_session_is_pushed_to() {
    let mut rig = Rig::with_owner(|_| {});
    fill(&mut rig, 2, 10);
    rig.retrieve(1, MEGABYTE);
    assert_eq!(rig.pushed(1).len(), 2);
    rig.open(2, Some(1));
    rig.retrieve(2, MEGABYTE);
    assert_eq!(sequences(&rig.pushed(2)), [1, 2], "from the start: there is no cursor to lose");
    assert_eq!(rig.store_one(1, b"live", by_token(1, 1)), None);
    assert_eq!((rig.pushed(1).len(), rig.pushed(2).len()), (0, 1));
    // The older one may still acknowledge, and its end does not disturb the newer one.
    rig.acknowledge(1, &[1]);
    rig.close(1);
    rig.open(3, None);
    assert_eq!(rig.store_one(3, b"live 2", by_token(1, 1)), None);
    assert_eq!(sequences(&rig.pushed(2)), [4]);
    rig.close(2);
    assert_eq!(rig.store_one(3, b"later", by_token(1, 1)), None);
    assert_eq!(rig.totals().messages, 4);
    assert!(rig.engine.readers.is_empty() && rig.engine.due.is_empty());
}

#[test]
fn l12_no_message_is_lost_when_the_clock_goes_back() {
    let mut rig = Rig::with_owner(|_| {});
    fill(&mut rig, 500, 10);
    rig.now.wall = rig.now.wall.minus(Duration::from_secs(3600));
    for number in 500..1000 {
        assert_eq!(rig.store_one(1, &blob(number, 10), by_token(1, 1)), None);
    }
    rig.retrieve(1, 500);
    let mut read = Vec::new();
    loop {
        let messages = rig.pushed(1);
        if messages.is_empty() {
            break;
        }
        rig.acknowledge(1, &sequences(&messages));
        read.extend(messages);
    }
    assert_eq!(sequences(&read), (1..=1000).collect::<Vec<_>>());
    assert!(read.is_sorted_by(|a, b| a.stored_at < b.stored_at));
}

#[test]
fn what_expires_frees_its_place() {
    let mut rig = Rig::with_owner(|config| config.limits.retention = 7_200);
    fill(&mut rig, 2, 400);
    rig.retrieve(1, 800);
    assert_eq!(rig.pushed(1).len(), 2);
    rig.pass(3_600_000);
    assert_eq!(rig.store_one(1, b"later", by_token(1, 1)), None);
    assert_eq!(rig.store_one(1, &blob(9, 400), by_token(1, 1)), None);
    assert_eq!(rig.pushed(1), []);
    rig.pass(3_540_000);
    assert_eq!(rig.totals().messages, 4, "not before its time");
    rig.pass(60_000);
    assert_eq!(rig.durability, Durability::Lazy);
    assert_eq!(sequences(&rig.pushed(1)), [3, 4]);
    assert_eq!(rig.totals().messages, 2);
}

#[test]
fn expiry_is_bounded_and_goes_on_soon() {
    let mut rig = Rig::with_owner(|config| config.limits.retention = 3_600);
    fill(&mut rig, 1_500, 8);
    rig.pass(4_000_000);
    assert_eq!(rig.totals().messages, 500);
    assert_eq!(rig.engine.poll_timeout(), rig.now.instant + EXPIRE_AGAIN);
    rig.pass(999);
    assert_eq!(rig.totals().messages, 500);
    rig.pass(1);
    assert_eq!(rig.totals().messages, 0);
    assert_eq!(rig.engine.poll_timeout(), rig.now.instant + EXPIRE_EVERY);
}
