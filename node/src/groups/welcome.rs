//! A Welcome taken apart: what is for one new member alone, and what is the same for all.
//!
//! ```text
//! MLSMessage = version || wire format || suite || secrets<V> || encrypted_group_info<V>
//! ```
//! The encrypted GroupInfo holds the ratchet tree, and is nearly all of a Welcome to a large group. It
//! is the same for everybody, so it can be kept once by a relay for all who have a mailbox there. Both
//! are put together again before MLS sees them: nothing of MLS changes.

/// Version, wire format and suite.
const HEAD: usize = 6;

/// The parts of a Welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcomes {
    /// For each new member a Welcome with its own secrets alone, without a GroupInfo.
    pub parts: Vec<Vec<u8>>,
    /// The encrypted GroupInfo.
    pub shared: Vec<u8>,
}

impl Welcomes {
    /// Takes apart the bytes of a Welcome for new members with these key package references.
    pub(super) fn split(welcome: &[u8], references: &[Vec<u8>]) -> Option<Self> {
        let (head, rest) = welcome.split_at_checked(HEAD)?;
        let (mut secrets, rest) = vector(rest)?;
        let (shared, rest) = vector(rest)?;
        if !rest.is_empty() {
            return None;
        }
        let mut own = std::collections::BTreeMap::new();
        while !secrets.is_empty() {
            let before = secrets;
            let (reference, rest) = vector(secrets)?;
            let (_, rest) = vector(rest)?;
            let (_, rest) = vector(rest)?;
            secrets = rest;
            own.insert(reference, before.get(..before.len().checked_sub(rest.len())?)?);
        }
        let part = |reference: &Vec<u8>| {
            let secrets = *own.get(reference.as_slice())?;
            Some([head, &header(secrets.len())?, secrets, &[0]].concat())
        };
        let parts = references.iter().map(part).collect::<Option<_>>()?;
        Some(Self { parts, shared: shared.to_vec() })
    }

    /// The Welcome of one new member, whole.
    #[must_use]
    pub fn whole(&self, place: usize) -> Option<Vec<u8>> {
        Self::join(self.parts.get(place)?, &self.shared)
    }

    /// Puts a part and what all have in common together; none when the part is none.
    #[must_use]
    pub fn join(part: &[u8], shared: &[u8]) -> Option<Vec<u8>> {
        let without = part.strip_suffix(&[0])?;
        Some([without, &header(shared.len())?, shared].concat())
    }
}

/// The length before a variable-size vector (RFC 9420 section 2.1.2).
fn header(length: usize) -> Option<Vec<u8>> {
    let length = u32::try_from(length).ok()?;
    Some(match length {
        0..=0x3f => length.to_be_bytes().get(3..)?.to_vec(),
        0x40..=0x3fff => (length | 0x4000).to_be_bytes().get(2..)?.to_vec(),
        0x4000..=0x3fff_ffff => (length | 0x8000_0000).to_be_bytes().to_vec(),
        0x4000_0000.. => return None,
    })
}

/// The content of the vector that the bytes begin with, and the rest.
fn vector(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = *bytes.first()?;
    let (width, mask) = match first >> 6 {
        0 => (1, 0x3f_u32),
        1 => (2, 0x3fff),
        2 => (4, 0x3fff_ffff),
        _ => return None,
    };
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) & mask;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reference: &[u8], kem: &[u8], sealed: &[u8]) -> Vec<u8> {
        let one = |bytes: &[u8]| [header(bytes.len()).unwrap(), bytes.to_vec()].concat();
        [one(reference), one(kem), one(sealed)].concat()
    }

    fn welcome(entries: &[Vec<u8>], info: &[u8]) -> Vec<u8> {
        let secrets = entries.concat();
        let (head, secrets_head) = ([0, 1, 0, 3, 0, 1], header(secrets.len()).unwrap());
        [&head[..], &secrets_head, &secrets, &header(info.len()).unwrap(), info].concat()
    }

    #[test]
    fn each_gets_its_own_secrets_and_what_all_share() {
        let entries = [entry(&[1; 32], &[5; 32], &[6; 100]), entry(&[2; 32], &[7; 1120], &[8; 90])];
        let info = vec![9; 20_000];
        let all = welcome(&entries, &info);
        let parts = Welcomes::split(&all, &[vec![2; 32], vec![1; 32]]).unwrap();
        assert_eq!(parts.shared, info);
        assert_eq!(parts.parts[0], welcome(&entries[1..], &[]));
        assert_eq!(parts.whole(0).unwrap(), welcome(&entries[1..], &info));
        assert_eq!(parts.whole(1).unwrap(), welcome(&entries[..1], &info));
        assert_eq!(parts.whole(2), None);
        assert_eq!(Welcomes::split(&all, &[vec![3; 32]]), None);
    }

    #[test]
    fn bytes_that_are_no_welcome_are_refused() {
        let all = welcome(&[entry(&[1; 32], &[5; 32], &[6; 100])], &[9; 100]);
        let split = |bytes: &[u8]| Welcomes::split(bytes, &[vec![1; 32]]);
        assert!(split(&all).is_some());
        assert_eq!(split(&[all.as_slice(), &[0]].concat()), None);
        for length in 0..all.len() {
            assert_eq!(split(&all[..length]), None, "{length}");
        }
        assert_eq!(Welcomes::join(&[1, 2, 3], b"x"), None);
    }

    #[test]
    fn lengths_have_one_form() {
        for length in [0, 1, 63, 64, 16_383, 16_384, 3_000_000] {
            let bytes = [header(length).unwrap(), vec![7; length]].concat();
            assert_eq!(vector(&bytes), Some((vec![7; length].as_slice(), &[][..])), "{length}");
        }
        assert_eq!(vector(&[0xc0; 20]), None);
        assert_eq!(header(0x4000_0000), None);
    }
}
