//! Names that look alike, so that nobody passes for somebody whom the user knows (R16). It warns; a
//! name never decides anything, and none is refused for what it looks like.
//!
//! Compared is what is left of a name when all characters that look alike are one, by the skeletons
//! of Unicode Technical Standard 39, capitals or not.

use std::collections::{BTreeMap, BTreeSet};

use sremp_common::id::IdentityKey;
use unicode_security::confusable_detection::skeleton;

use super::Contact;

/// The names and aliases of all contacts, by what they look like.
#[derive(Debug, Default)]
pub struct Lookalikes(BTreeMap<String, BTreeSet<IdentityKey>>);

impl Lookalikes {
    /// Of these contacts.
    #[must_use]
    pub fn of(contacts: &[Contact]) -> Self {
        let mut all = Self::default();
        for contact in contacts {
            let names = [Some(contact.name()), contact.alias.as_deref()];
            for look in names.into_iter().flatten().flat_map(looks) {
                all.0.entry(look).or_default().insert(contact.key);
            }
        }
        all
    }

    /// A contact other than `who` whose name or alias is `name`, or looks like it.
    #[must_use]
    pub fn other_than(&self, who: &IdentityKey, name: &str) -> Option<IdentityKey> {
        let mut alike = looks(name).into_iter().filter_map(|look| self.0.get(&look)).flatten();
        alike.find(|key| *key != who).copied()
    }
}

/// What a name looks like, in two ways: as it is written, so that a capital I is a small l, and in
/// small letters, so that a capital is the small letter of it. Nothing for a name that is not known.
fn looks(name: &str) -> Vec<String> {
    let visible: String = name.chars().filter(|c| !is_invisible(*c)).collect();
    if visible.is_empty() {
        return Vec::new();
    }
    let written = skeleton(&visible).collect::<String>().to_lowercase();
    let small = skeleton(&visible.to_lowercase()).collect::<String>();
    vec![format!("written {written}"), format!("small {small}")]
}

/// What a user name may have in it and is not seen: the joiner inside emoji, variation selectors, and
/// the fillers and marks that Unicode lets programs ignore.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{200D}'
            | '\u{34F}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FFA0}'
            | '\u{E0100}'..='\u{E01EF}'
    )
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;
    use sremp_common::name::Username;
    use sremp_common::time::Now;

    use super::*;

    fn contact(number: u64, alias: &str) -> Contact {
        let key = IdentitySecret::generate(&mut Entropy::from_number(number)).public();
        let mut contact = Contact::new(key, Now::default());
        contact.alias = Some(alias.to_owned());
        contact
    }

    #[test]
    fn r16_names_that_look_alike_are_found_whatever_they_are_made_of() {
        let alice = contact(1, "Alice Miller");
        let all = Lookalikes::of(std::slice::from_ref(&alice));
        let stranger = contact(2, "").key;
        for name in [
            "Alice Miller",
            "alice miller",
            "ALICE MILLER",
            // A capital I for the l, and the other way round.
            "AIice MiIIer",
            "AIice MilIer",
            // Cyrillic, Greek, mathematical letters, a digit, two letters for one.
            "\u{410}lice Miller",
            "Al\u{456}ce Miller",
            "\u{391}lice Miller",
            "A\u{2113}ice Miller",
            "\u{1D400}lice Miller",
            "A1ice Miller",
            "Alice rniller",
            // What is not seen.
            "Ali\u{200D}ce Miller",
            "Alice\u{FE0F} Miller",
            "Alice Mil\u{3164}ler",
        ] {
            assert!(Username::new(name).is_ok(), "{name:?} is no name");
            assert_eq!(all.other_than(&stranger, name), Some(alice.key), "{name:?}");
            assert_eq!(all.other_than(&alice.key, name), None, "her own");
        }
        for name in ["Alicia Miller", "Alice M\u{FC}ller", "Bob", "\u{30A2}\u{30EA}\u{30B9}", ""] {
            assert_eq!(all.other_than(&stranger, name), None, "{name:?}");
        }
    }
}
