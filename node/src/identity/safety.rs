//! The safety number of two people: easier to read aloud than two keys.

use sremp_common::hash::labelled_hash;
use sremp_common::id::IdentityKey;
use sremp_common::label::HashLabel;

/// Blocks of five digits: 60 digits carry 199 bits of the hash.
const BLOCKS: u16 = 12;

/// Sixty digits in blocks of five, the same on both sides.
#[must_use]
pub fn safety_number(a: &IdentityKey, b: &IdentityKey) -> String {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mut blocks = Vec::new();
    for block in 0..BLOCKS {
        let hash = labelled_hash(
            HashLabel::SafetyNumber,
            &block.to_le_bytes(),
            &[low.as_bytes().as_slice(), high.as_bytes()].concat(),
        );
        let (head, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        blocks.push(format!("{:05}", u64::from_le_bytes(*head) % 100_000));
    }
    blocks.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;

    #[test]
    fn both_sides_read_the_same_number_and_others_another() {
        let mut entropy = Entropy::from_number(4);
        let [a, b, c] = [0; 3].map(|_| IdentitySecret::generate(&mut entropy).public());
        assert_eq!(safety_number(&a, &b), safety_number(&b, &a));
        assert_ne!(safety_number(&a, &b), safety_number(&a, &c));
        assert_eq!(safety_number(&a, &b).len(), 71);
    }
}
