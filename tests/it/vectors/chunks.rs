//! `chunks.json`: how messages are cut into chunks and put together again, and frames.
//!
//! Byte `i` of message `k` is `(i + k) mod 251`. Each chunk is given by its header and by the piece of a
//! message that it carries, so that the file stays short.

use serde_json::{Value, json};
use sremp_common::chunk::{CHUNK_HEADER, Incoming, Outgoing};
use sremp_common::frame::FrameDecoder;
use sremp_common::id::{hex, unhex};
use sremp_common::label::VERSION_HEADER;
use sremp_common::limit::{CHUNK_PAYLOAD, MAX_MESSAGE_STRANGER};
use sremp_common::long_frame::{LongFrameReader, encode_long_frame};
use sremp_common::time::Instant;

use super::file::File;

/// A chunk header, and the piece that follows it: message, offset, length.
#[derive(Clone, Copy)]
struct Piece {
    message_id: u64,
    index: u16,
    total: u16,
    size: u16,
    message: usize,
    offset: usize,
    length: usize,
}

pub(super) fn file() -> File {
    let mut file = File::new(
        "chunks.json",
        "Chunks and frames; byte i of message k is (i + k) mod 251. Protocol sections 6.2, 6.6 and 10.1.",
    );
    for lengths in [
        vec![1],
        vec![CHUNK_PAYLOAD],
        vec![CHUNK_PAYLOAD + 1],
        vec![3 * CHUNK_PAYLOAD],
        vec![5, 300, 70],
        vec![40_000, 10],
        vec![20_000, 50_000, 33_000],
        vec![MAX_MESSAGE_STRANGER],
    ] {
        add_cut(&mut file, &lengths);
    }
    add_broken(&mut file);
    add_frames(&mut file);
    add_rendezvous_streams(&mut file);
    file
}

fn message(number: usize, length: usize) -> Vec<u8> {
    (number..).take(length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// What production makes of messages that are queued together.
fn add_cut(file: &mut File, lengths: &[usize]) {
    let mut outgoing = Outgoing::default();
    for (number, length) in lengths.iter().enumerate() {
        outgoing.push(message(number, *length)).unwrap();
    }
    let mut pieces = Vec::new();
    let mut consumed = vec![0; lengths.len()];
    let mut of_id = std::collections::BTreeMap::new();
    while let Some(chunk) = outgoing.next_chunk() {
        let (header, payload) = chunk.split_at(CHUNK_HEADER);
        let (id, rest) = header.split_first_chunk().unwrap();
        let id = u64::from_le_bytes(*id);
        // A message that begins is recognised by its first bytes: no two begin alike.
        let number = *of_id.entry(id).or_insert_with(|| usize::from(*payload.first().unwrap()));
        let fields: Vec<u16> =
            rest.as_chunks::<2>().0.iter().map(|two| u16::from_le_bytes(*two)).collect();
        let offset = consumed.get_mut(number).unwrap();
        pieces.push(Piece {
            message_id: id,
            index: *fields.first().unwrap(),
            total: *fields.get(1).unwrap(),
            size: *fields.get(2).unwrap(),
            message: number,
            offset: *offset,
            length: payload.len(),
        });
        *offset += payload.len();
    }
    assert_eq!(consumed, lengths);
    let completed = reassemble(lengths, &pieces).unwrap();
    assert_eq!(completed.len(), lengths.len());
    for (number, whole) in &completed {
        assert!(*whole == message(*number, whole.len()), "message {number} was changed");
    }
    let completed: Vec<usize> = completed.into_iter().map(|(number, _)| number).collect();
    file.valid(&format!("cut {lengths:?}"), describe(lengths, &pieces, Some(&completed)));
}

impl Piece {
    /// The only chunk of message 0.
    const fn only(length: usize) -> Self {
        Self { message_id: 0, index: 0, total: 1, size: 0, message: 0, offset: 0, length }.honest()
    }

    /// Chunk `index` of `total` of message `number`, which is also its id.
    fn part(number: usize, index: u16, total: u16, length: usize) -> Self {
        let offset = usize::from(index) * CHUNK_PAYLOAD;
        let message_id = u64::try_from(number).unwrap();
        Self { message_id, index, total, size: 0, message: number, offset, length }.honest()
    }

    #[expect(clippy::as_conversions, reason = "lengths of vectors are short")]
    const fn honest(mut self) -> Self {
        self.size = self.length as u16;
        self
    }

    fn header(&self) -> Vec<u8> {
        [
            self.message_id.to_le_bytes().as_slice(),
            &self.index.to_le_bytes(),
            &self.total.to_le_bytes(),
            &self.size.to_le_bytes(),
        ]
        .concat()
    }

    fn bytes(&self, lengths: &[usize]) -> Vec<u8> {
        let whole = message(self.message, *lengths.get(self.message).unwrap());
        let payload = whole.get(self.offset..self.offset + self.length).unwrap();
        [self.header().as_slice(), payload].concat()
    }
}

/// The messages that come out, with the number of the one whose last chunk completed each.
fn reassemble(lengths: &[usize], pieces: &[Piece]) -> Option<Vec<(usize, Vec<u8>)>> {
    let mut incoming = Incoming::default();
    let mut completed = Vec::new();
    for piece in pieces {
        let chunk = piece.bytes(lengths);
        let whole =
            incoming.handle_chunk(&chunk, MAX_MESSAGE_STRANGER, Instant::from_millis(0)).ok()?;
        completed.extend(whole.map(|whole| (piece.message, whole)));
    }
    Some(completed)
}

fn describe(lengths: &[usize], pieces: &[Piece], completed: Option<&[usize]>) -> Value {
    let chunks: Vec<Value> = pieces
        .iter()
        .map(|piece| {
            json!({
                "header": hex(&piece.header()),
                "message": piece.message,
                "offset": piece.offset,
                "length": piece.length,
            })
        })
        .collect();
    json!({
        "kind": "chunks",
        "max_message": MAX_MESSAGE_STRANGER,
        "lengths": lengths,
        "chunks": chunks,
        "completed": completed,
    })
}

fn add_broken(file: &mut File) {
    const FULL: usize = CHUNK_PAYLOAD;
    let lengths = [4 * FULL, FULL + 9, FULL + 9, FULL + 9, FULL + 9, MAX_MESSAGE_STRANGER + 1, 10];
    let mut refuse = |name: &str, why: &str, pieces: &[Piece]| {
        assert!(reassemble(&lengths, pieces).is_none(), "{name} is accepted");
        file.mutated(name, why, describe(&lengths, pieces, None));
    };
    let only = Piece { message: 6, ..Piece::only(10) };
    let part = Piece::part;
    refuse("chunk without payload", "no chunk is empty", &[Piece::only(0)]);
    refuse(
        "size too small",
        "chunk_size is the length of the payload",
        &[Piece { size: 9, ..only }],
    );
    refuse(
        "size too large",
        "chunk_size is the length of the payload",
        &[Piece { size: 11, ..only }],
    );
    refuse("total zero", "a message has at least one chunk", &[Piece { total: 0, ..only }]);
    refuse(
        "index beyond the total",
        "chunk_index is below total_chunks",
        &[Piece { index: 1, ..only }],
    );
    refuse("overfull chunk", "at most 16,384 bytes in a chunk", &[Piece::only(FULL + 1)]);
    refuse(
        "first chunk not full",
        "only the last chunk may be shorter",
        &[part(0, 0, 2, FULL - 1)],
    );
    refuse("first id not zero", "message ids begin with 0", &[Piece { message_id: 1, ..only }]);
    refuse("id skipped", "message ids follow each other", &[only, Piece { message_id: 2, ..only }]);
    refuse("id repeated", "the message is whole already", &[only, only]);
    refuse("begins in the middle", "chunks come in order", &[part(0, 1, 4, FULL)]);
    refuse("chunk left out", "chunks come in order", &[part(0, 0, 4, FULL), part(0, 2, 4, FULL)]);
    refuse("chunk repeated", "chunks come in order", &[part(0, 0, 4, FULL), part(0, 0, 4, FULL)]);
    refuse(
        "total changed",
        "one total for all chunks",
        &[part(0, 0, 4, FULL), part(0, 1, 3, FULL)],
    );
    let five: Vec<Piece> = (0..5).map(|number| part(number, 0, 2, FULL)).collect();
    refuse("five incomplete messages", "at most four", &five);
    refuse(
        "message too long",
        "the announced total alone is beyond the bound",
        &[Piece { message_id: 0, ..part(5, 0, 7, FULL) }],
    );
    refuse(
        "65,535 chunks announced",
        "the announced total alone is beyond the bound",
        &[part(0, 0, u16::MAX, FULL)],
    );
}

fn frames_of(stream: &[u8]) -> Result<Vec<Vec<u8>>, ()> {
    let (mut decoder, mut input, mut frames) = (FrameDecoder::default(), stream, Vec::new());
    while let Some(frame) = decoder.pull(&mut input, usize::from(u16::MAX)).map_err(|_| ())? {
        frames.push(frame.into_owned());
    }
    if decoder.is_partial() { Err(()) } else { Ok(frames) }
}

fn add_frames(file: &mut File) {
    for (name, stream) in
        [("no frame", ""), ("one frame", "0300aabbcc"), ("two frames", "0100aa0200bbcc")]
    {
        let frames = frames_of(&unhex(stream).unwrap()).unwrap();
        let frames: Vec<String> = frames.iter().map(|frame| hex(frame)).collect();
        file.valid(name, json!({ "kind": "frames", "stream": stream, "frames": frames }));
    }
    for (name, why, stream) in [
        ("empty frame", "a frame has at least one byte", "0000"),
        ("frame cut off", "the stream ends within a frame", "0300aabb"),
        ("length cut off", "the stream ends within a length", "03"),
        ("length in the other order", "lengths are little-endian", "0003aabbcc"),
    ] {
        assert!(frames_of(&unhex(stream).unwrap()).is_err(), "{name} is accepted");
        file.mutated(name, why, json!({ "kind": "frames", "stream": stream }));
    }
}

/// The messages of a whole stream inside TLS, its header included.
fn messages_of(stream: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut reader, mut rest, mut messages) = (LongFrameReader::new(), stream, Vec::new());
    while let Some(message) = reader.read(&mut rest).ok()? {
        messages.push(message);
    }
    reader.at_boundary().then_some(messages)
}

fn add_rendezvous_streams(file: &mut File) {
    let messages = [b"\x93\x44\x00\x90".to_vec(), b"\x93\x01\x02\x90".to_vec()];
    for (name, messages) in [
        ("rendezvous stream, header only", &messages[..0]),
        ("rendezvous stream, one message", &messages[..1]),
        ("rendezvous stream, two messages", &messages[..]),
    ] {
        let frames = messages.iter().map(|message| encode_long_frame(message).unwrap());
        let stream =
            [VERSION_HEADER.to_vec()].into_iter().chain(frames).collect::<Vec<_>>().concat();
        assert_eq!(messages_of(&stream).unwrap(), messages);
        let messages: Vec<String> = messages.iter().map(|message| hex(message)).collect();
        let item = json!({ "kind": "rendezvous", "stream": hex(&stream), "messages": messages });
        file.valid(name, item);
    }
    for (name, why, stream) in [
        ("no header", "the header comes first", "0400000093440090"),
        ("another protocol", "not SREMP", "5352454d5101000400000093440090"),
        ("major version 2", "another major version", "5352454d5002000400000093440090"),
        ("header cut off", "the stream ends within the header", "5352454d5001"),
        ("length cut off", "the stream ends within a length", "5352454d500100040000"),
        ("message cut off", "the stream ends within a message", "5352454d50010004000000934400"),
        ("65,537 bytes announced", "at most 65,536", "5352454d50010001000100"),
        (
            "length in the other order",
            "lengths are little-endian",
            "5352454d5001000000000493440090",
        ),
    ] {
        assert!(messages_of(&unhex(stream).unwrap()).is_none(), "{name} is accepted");
        let item = json!({ "kind": "rendezvous", "stream": stream });
        file.mutated(&format!("rendezvous stream, {name}"), why, item);
    }
}
