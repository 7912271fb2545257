//! What a message that means harm makes a process hold, measured: its resident memory at its highest, in
//! a process of its own, where nothing else allocates.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde_json::Value;
use sremp_common::wire::Message;

/// Set in the process that decodes.
const VARIABLE: &str = "SREMP_TEST_BOMBS";
/// Bytes of a bomb.
const BYTES: usize = 800_000;
/// What announces them, and what they are: arrays of nils, of empty texts, of numbers, of what stands in
/// answers about stored messages, of messages; a map, bytes, a text.
const KINDS: [(u8, &[u8]); 8] = [
    (0xdd, &[0xc0]),
    (0xdd, &[0xa0]),
    (0xdd, &[0]),
    (0xdd, &[0x93, 0xc0, 0xc0, 0xc0]),
    (0xdd, &[0x94, 0, 0xc4, 16, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0xc4, 0]),
    (0xdf, &[0, 0]),
    (0xc6, &[0]),
    (0xdb, &[0x20]),
];
/// Memory for each byte that came in. A blob is copied once, and compared with its encoding; lists are
/// refused before they cost anything, so that this is far below the sixteen that would be borne.
const MOST: u64 = 5;
/// Places in a message at which a bomb is put.
const PLACES: usize = 16;

/// The highest resident memory of this process so far, in bytes.
fn highest() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

/// One legal message of each type.
fn samples() -> BTreeMap<u8, Vec<u8>> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/messages.json");
    let vectors: Value = serde_json::from_slice(&fs::read(vectors).unwrap()).unwrap();
    let legal = vectors["items"].as_array().unwrap().iter().filter(|item| item["valid"] == true);
    let mut samples: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for item in legal {
        let bytes = crate::group_wire::bytes_of(item["bytes"].as_str().unwrap());
        let (_, message) = Message::decode(&bytes).unwrap();
        // The longest has something in its lists.
        let longest = samples.entry(message.type_number()).or_default();
        if longest.len() < bytes.len() {
            *longest = bytes;
        }
    }
    assert!(samples.keys().eq(Message::TYPE_NUMBERS), "a sample of each type");
    samples
}

/// Whether something with a length may begin with this byte, or be in the place of what does.
const fn may_announce(byte: u8) -> bool {
    matches!(byte, 0x90..=0x9f | 0xa0..=0xbf | 0xc0 | 0xc4 | 0xd9 | 0xdc)
}

/// Decodes bombs of every type: in each place an array, a map, a byte string or a text of very many
/// elements, which are there.
fn decode_bombs() {
    let samples = samples();
    let fillings = KINDS.map(|(marker, element)| {
        let count = BYTES / element.len();
        let announced = u32::try_from(count).unwrap().to_be_bytes();
        [&[marker], announced.as_slice(), &element.repeat(count)].concat()
    });
    let mut bomb = Vec::with_capacity(2 * BYTES);
    let mut start = None;
    for sample in samples.values() {
        let places = sample.iter().enumerate().filter(|(_, byte)| may_announce(**byte));
        for (place, _) in places.take(PLACES) {
            for filling in &fillings {
                bomb.clear();
                bomb.extend_from_slice(&sample[..place]);
                bomb.extend_from_slice(filling);
                // A long text or blob may be legal; so many of anything else are not.
                let _ = Message::decode(&bomb);
                // The first one brings in what the program itself needs.
                start.get_or_insert_with(highest);
            }
        }
    }
    let grown = highest() - start.unwrap();
    assert!(grown <= MOST * u64::try_from(BYTES).unwrap(), "{grown} bytes");
}

#[test]
fn l16_no_message_makes_more_of_its_bytes() {
    if env::var(VARIABLE).is_ok() {
        return decode_bombs();
    }
    let run = Command::new(env::current_exe().unwrap())
        .args(["bombs::", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("1 passed"), "{said}");
}
