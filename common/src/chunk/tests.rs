//! Division and reassembly, honest and hostile.

use proptest::prelude::*;

use super::*;
use crate::limit::{MAX_MESSAGE, MAX_MESSAGE_STRANGER, REASSEMBLY_TIMEOUT};
use crate::time::Instant;

const NOW: Instant = Instant::from_millis(0);

fn chunk(message_id: u64, index: u16, total: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Header { message_id, index, total }.append(payload, &mut out);
    out
}

fn full(message_id: u64, index: u16, total: u16) -> Vec<u8> {
    chunk(message_id, index, total, &[7; CHUNK_PAYLOAD])
}

/// Feeds chunks to a fresh connection; the first refusal, or what came out.
fn feed(chunks: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ChunkError> {
    let mut incoming = Incoming::default();
    let mut whole = Vec::new();
    for chunk in chunks {
        whole.extend(incoming.handle_chunk(chunk, MAX_MESSAGE, NOW)?);
    }
    Ok(whole)
}

#[test]
fn a_chunk_is_fourteen_bytes_and_its_payload() {
    let mut outgoing = Outgoing::default();
    outgoing.push(b"hello".to_vec()).unwrap();
    let bytes = outgoing.next_chunk().unwrap();
    assert_eq!(bytes, [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 5, 0], &b"hello"[..]].concat());
    assert_eq!(bytes.len(), CHUNK_HEADER + 5);
    assert_eq!(outgoing.next_chunk(), None);
}

#[test]
fn a_small_message_overtakes_large_ones() {
    let mut outgoing = Outgoing::default();
    for _ in 0..6 {
        outgoing.push(vec![1; 1 << 20]).unwrap();
    }
    outgoing.next_chunk().unwrap();
    outgoing.push(b"urgent".to_vec()).unwrap();
    let next = [outgoing.next_chunk().unwrap(), outgoing.next_chunk().unwrap()];
    assert!(next.iter().any(|chunk| chunk.ends_with(b"urgent")));
}

#[test]
fn a_flood_of_small_messages_does_not_starve_a_large_one() {
    let mut outgoing = Outgoing::default();
    outgoing.push(vec![1; 10 * CHUNK_PAYLOAD]).unwrap();
    for _ in 0..100 {
        outgoing.push(vec![2; CHUNK_PAYLOAD / 2]).unwrap();
    }
    let large = |chunk: &Vec<u8>| chunk.ends_with(&[1]);
    let first: Vec<_> = std::iter::from_fn(|| outgoing.next_chunk()).take(30).collect();
    assert_eq!(first.iter().filter(|chunk| large(chunk)).count(), 10);
}

#[test]
fn the_last_message_is_the_last() {
    let mut outgoing = Outgoing::default();
    outgoing.push(vec![1; 3 * CHUNK_PAYLOAD]).unwrap();
    outgoing.push_last(b"farewell".to_vec());
    outgoing.push(b"small".to_vec()).unwrap();
    let chunks: Vec<_> = std::iter::from_fn(|| outgoing.next_chunk()).collect();
    assert_eq!(chunks.len(), 5);
    assert!(chunks[4].ends_with(b"farewell"));
    outgoing.push(vec![1; 3 * CHUNK_PAYLOAD]).unwrap();
    outgoing.push(vec![1; 2 * CHUNK_PAYLOAD]).unwrap();
    outgoing.next_chunk().unwrap();
    outgoing.push_last(b"farewell".to_vec());
    outgoing.drop_large();
    assert_eq!((outgoing.queued_bytes(), outgoing.queued_messages()), (8, 1));
    assert!(outgoing.next_chunk().unwrap().ends_with(b"farewell"));
    assert_eq!((outgoing.next_chunk(), outgoing.queued_bytes()), (None, 0));
}

#[test]
fn no_more_messages_are_open_than_the_receiver_takes() {
    let (mut outgoing, mut incoming) = (Outgoing::default(), Incoming::default());
    for size in [MAX_MESSAGE, MAX_MESSAGE, 1 << 20, 50_000, 50_000, 50_000, 50_000, 50_000] {
        outgoing.push(vec![3; size]).unwrap();
    }
    assert!(outgoing.push(vec![0; MAX_MESSAGE + 1]).is_err());
    assert!(outgoing.push(Vec::new()).is_err());
    let mut whole = 0;
    while let Some(chunk) = outgoing.next_chunk() {
        let complete = incoming.handle_chunk(&chunk, MAX_MESSAGE, NOW).unwrap();
        whole += usize::from(complete.is_some());
    }
    assert_eq!((whole, outgoing.queued_bytes(), incoming.buffered_bytes()), (8, 0, 0));
}

#[test]
fn l13_lies_about_size_and_total() {
    assert_eq!(feed(&[vec![0; CHUNK_HEADER - 1]]), Err(ChunkError::Truncated));
    let mut lie = chunk(0, 0, 1, b"abc");
    lie[12] = 200;
    assert_eq!(feed(&[lie]), Err(ChunkError::SizeLie { announced: 200, carried: 3 }));
    assert_eq!(feed(&[chunk(0, 0, 0, b"x")]), Err(ChunkError::BeyondTotal));
    assert_eq!(feed(&[chunk(0, 3, 3, b"x")]), Err(ChunkError::BeyondTotal));
    assert_eq!(feed(&[chunk(0, 0, 1, b"")]), Err(ChunkError::IllegalSize));
    assert_eq!(feed(&[chunk(0, 0, 2, b"x")]), Err(ChunkError::IllegalSize));
    assert_eq!(feed(&[chunk(0, 0, 1, &[0; CHUNK_PAYLOAD + 1])]), Err(ChunkError::IllegalSize));
    // 65,535 chunks are announced: refused at the first one.
    assert_eq!(feed(&[full(0, 0, u16::MAX)]), Err(ChunkError::TooLong { max: MAX_MESSAGE }));
}

#[test]
fn l13_order_gaps_repeats_and_changing_totals() {
    assert_eq!(feed(&[full(1, 0, 2)]), Err(ChunkError::UnknownMessage));
    let out_of_order = |expected, found| Err(ChunkError::OutOfOrder { expected, found });
    assert_eq!(feed(&[full(0, 1, 3)]), out_of_order(0, 1));
    assert_eq!(feed(&[full(0, 0, 3), full(0, 2, 3)]), out_of_order(1, 2));
    assert_eq!(feed(&[full(0, 0, 3), full(0, 0, 3)]), out_of_order(1, 0));
    assert_eq!(feed(&[full(0, 0, 3), full(0, 1, 4)]), Err(ChunkError::TotalChanged));
    // A message that is complete, or was never begun, has no more chunks.
    let again = [chunk(0, 0, 1, b"x"), chunk(0, 0, 1, b"x")];
    assert_eq!(feed(&again), Err(ChunkError::UnknownMessage));
    assert_eq!(feed(&[chunk(0, 0, 1, b"x"), full(2, 0, 2)]), Err(ChunkError::UnknownMessage));
}

#[test]
fn l13_what_is_incomplete_is_bounded() {
    let open: Vec<_> = (0..5).map(|id| full(id, 0, 2)).collect();
    assert_eq!(feed(&open[..4]), Ok(vec![]));
    assert_eq!(feed(&open), Err(ChunkError::TooManyOpen));

    let mut incoming = Incoming::default();
    let refused = (0_u16..256)
        .flat_map(|index| [full(0, index, 256), full(1, index, 256)])
        .find_map(|chunk| incoming.handle_chunk(&chunk, MAX_MESSAGE, NOW).err());
    assert_eq!(refused, Some(ChunkError::TooManyBytes));
    assert!(incoming.buffered_bytes() <= MAX_REASSEMBLY_BYTES);
}

#[test]
fn l13_strangers_have_a_lower_bound() {
    let max = MAX_MESSAGE_STRANGER;
    let mut incoming = Incoming::default();
    let too_long = Err(ChunkError::TooLong { max });
    assert_eq!(incoming.handle_chunk(&full(0, 0, 7), max, NOW), too_long);
    assert_eq!(max, 6 * CHUNK_PAYLOAD);
    for index in 0..5 {
        assert_eq!(incoming.handle_chunk(&full(0, index, 6), max, NOW), Ok(None));
    }
    let whole = incoming.handle_chunk(&full(0, 5, 6), max, NOW).unwrap().unwrap();
    assert_eq!(whole.len(), max);
    // Trust that is withdrawn counts from the next chunk.
    assert_eq!(incoming.handle_chunk(&full(1, 0, 7), MAX_MESSAGE, NOW), Ok(None));
    assert_eq!(incoming.handle_chunk(&full(1, 1, 7), max, NOW), too_long);
}

#[test]
fn l13_incomplete_messages_time_out() {
    let mut incoming = Incoming::default();
    assert_eq!(incoming.deadline(), None);
    incoming.handle_chunk(&full(0, 0, 3), MAX_MESSAGE, NOW).unwrap();
    let deadline = NOW + REASSEMBLY_TIMEOUT;
    assert_eq!(incoming.deadline(), Some(deadline));
    assert_eq!(incoming.check_time(Instant::from_millis(29_999)), Ok(()));
    assert_eq!(incoming.check_time(deadline), Err(ChunkError::TimedOut));
    // Each chunk that comes buys one second.
    let late = Instant::from_millis(29_000);
    incoming.handle_chunk(&full(0, 1, 3), MAX_MESSAGE, late).unwrap();
    assert_eq!(incoming.deadline(), Some(Instant::from_millis(31_000)));
    incoming.handle_chunk(&chunk(0, 2, 3, b"end"), MAX_MESSAGE, late).unwrap().unwrap();
    assert_eq!(incoming.deadline(), None);
}

#[test]
fn l13_all_connections_share_one_budget() {
    let budget = ReassemblyBudget::new(5 * CHUNK_PAYLOAD);
    let connection = || {
        let mut incoming = Incoming::default();
        incoming.set_budget(budget.clone());
        incoming
    };
    let mut open: Vec<_> = (0..10_000).map(|_| connection()).collect();
    let results: Vec<_> = open
        .iter_mut()
        .map(|incoming| incoming.handle_chunk(&full(0, 0, 2), MAX_MESSAGE, NOW))
        .collect();
    assert_eq!(results.iter().filter(|result| **result == Ok(None)).count(), 5);
    assert!(results[5..].iter().all(|result| *result == Err(ChunkError::NoRoom)));
    assert_eq!(budget.used(), 5 * CHUNK_PAYLOAD);
    // A message of one chunk needs no room, and a completed message gives its room back.
    assert!(connection().handle_chunk(&chunk(0, 0, 1, b"x"), MAX_MESSAGE, NOW).unwrap().is_some());
    open.truncate(4);
    assert_eq!(budget.used(), 4 * CHUNK_PAYLOAD);
    open[0].handle_chunk(&chunk(0, 1, 2, b"x"), MAX_MESSAGE, NOW).unwrap().unwrap();
    assert_eq!(budget.used(), 3 * CHUNK_PAYLOAD);
    drop(open);
    assert_eq!(budget.used(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_of_all_sizes_arrive_whole(
        sizes in prop::collection::vec(
            prop_oneof![1..50_usize, CHUNK_PAYLOAD - 2..CHUNK_PAYLOAD + 2, 1..200_000_usize],
            1..12,
        ),
    ) {
        let (mut outgoing, mut incoming) = (Outgoing::default(), Incoming::default());
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for (number, size) in sizes.iter().enumerate() {
            let message = vec![u8::try_from(number).unwrap(); *size];
            outgoing.push(message.clone()).unwrap();
            sent.push(message);
        }
        let mut seen = Vec::new();
        while let Some(chunk) = outgoing.next_chunk() {
            prop_assert!(chunk.len() <= CHUNK_HEADER + CHUNK_PAYLOAD);
            seen.extend(incoming.handle_chunk(&chunk, MAX_MESSAGE, NOW).unwrap());
        }
        seen.sort();
        sent.sort();
        prop_assert_eq!(seen, sent);
        prop_assert_eq!((outgoing.queued_bytes(), outgoing.queued_messages()), (0, 0));
    }

    #[test]
    fn any_chunks_are_taken_or_refused(
        chunks in prop::collection::vec(
            (0..4_u64, 0..4_u16, 0..5_u16, prop_oneof![Just(0_usize), Just(3), Just(CHUNK_PAYLOAD)]),
            0..20,
        ),
    ) {
        let mut incoming = Incoming::default();
        for (id, index, total, size) in chunks {
            let chunk = chunk(id, index, total, &vec![0; size]);
            if incoming.handle_chunk(&chunk, MAX_MESSAGE, NOW).is_err() {
                break;
            }
            prop_assert!(incoming.buffered_bytes() <= MAX_REASSEMBLY_BYTES);
        }
    }
}
