//! Small damage, always the same: what an attacker or a second encoder would do.

/// `bytes` with one bit flipped.
pub(super) fn flip(bytes: &[u8], byte: usize, bit: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    *bytes.get_mut(byte).unwrap() ^= 1 << bit;
    bytes
}

/// Without the last byte.
pub(super) fn truncated(bytes: &[u8]) -> Vec<u8> {
    bytes.split_last().unwrap().1.to_vec()
}

/// With one byte more.
pub(super) fn extended(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0xC0]].concat()
}

/// The bytes at `at` replaced.
pub(super) fn replaced(bytes: &[u8], at: usize, length: usize, by: &[u8]) -> Vec<u8> {
    let (before, rest) = bytes.split_at(at);
    [before, by, rest.split_at(length).1].concat()
}

/// Where `part` stands in `bytes`.
pub(super) fn position(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}
