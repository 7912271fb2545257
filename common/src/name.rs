//! User names: readable, bounded, and unable to disturb the text around them.
//!
//! A name never identifies: two people may have the same one. Restriction levels of scripts are
//! deliberately not enforced; people mix scripts. What is refused is what cannot be seen.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::limit::{MAX_COMBINING_MARKS, MAX_NAME_BYTES, MAX_NAME_CHARS};

/// 1 to 40 characters, at most 160 bytes, NFC, no control, format, private-use or line-breaking
/// characters, no spaces at either end, at most two combining marks in a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Username(String);

/// Why a text is not a user name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing is left of it.
    #[error("a name needs at least one character")]
    Empty,
    /// Too long.
    #[error("a name has at most {MAX_NAME_CHARS} characters and {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// Not in the one form of its text.
    #[error("a name must be in normal form NFC, without spaces at its ends or two in a row")]
    NotNormal,
    /// A character that cannot be seen, or disturbs others.
    #[error("a name cannot contain the character U+{0:04X}")]
    Forbidden(u32),
    /// Marks stacked upon marks.
    #[error("a name has at most {MAX_COMBINING_MARKS} combining marks in a row")]
    Marks,
}

impl Username {
    /// Checks a name that must be right already: from the wire or a file.
    ///
    /// # Errors
    /// [`NameError`], naming the broken rule.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check(name)?;
        Ok(Self(name.to_owned()))
    }

    /// Brings what a person typed into normal form (trimmed, single spaces, NFC), then checks it.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn from_input(input: &str) -> Result<Self, NameError> {
        let words: Vec<&str> = input.split(' ').filter(|word| !word.is_empty()).collect();
        Self::new(&words.join(" ").nfc().collect::<String>())
    }
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > MAX_NAME_CHARS || name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    if let Some(bad) = name.chars().find(|c| !is_allowed(*c)) {
        return Err(NameError::Forbidden(bad.into()));
    }
    if !is_nfc(name) || name.starts_with(' ') || name.ends_with(' ') || name.contains("  ") {
        return Err(NameError::NotNormal);
    }
    let mut marks = 0_usize;
    for c in name.chars() {
        let is_mark = c.general_category_group() == GeneralCategoryGroup::Mark;
        marks = if is_mark { marks.saturating_add(1) } else { 0 };
        if marks > MAX_COMBINING_MARKS {
            return Err(NameError::Marks);
        }
    }
    Ok(())
}

/// Neither control (Cc), format (Cf, but the joiner inside emoji), private use (Co), unassigned
/// (Cn), line or paragraph separator (Zl, Zp), nor any space but the plain one.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else there is can be seen")]
fn is_allowed(c: char) -> bool {
    const ZERO_WIDTH_JOINER: char = '\u{200D}';
    match c.general_category() {
        GeneralCategory::Format => c == ZERO_WIDTH_JOINER,
        GeneralCategory::SpaceSeparator => c == ' ',
        GeneralCategory::Control
        | GeneralCategory::PrivateUse
        | GeneralCategory::Surrogate
        | GeneralCategory::Unassigned
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => false,
        _ => true,
    }
}

impl Deref for Username {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Username {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = crate::wire::Text::<MAX_NAME_BYTES>::deserialize(deserializer)?;
        Self::new(&name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r14_length_and_marks() {
        assert!(Username::new(&"x".repeat(40)).is_ok());
        assert_eq!(Username::new(&"x".repeat(41)), Err(NameError::TooLong));
        assert!(Username::new(&"\u{1F600}".repeat(40)).is_ok());
        assert_eq!(Username::new(""), Err(NameError::Empty));
        assert!(Username::new("x\u{0323}\u{0331}").is_ok());
        assert_eq!(Username::new("q\u{0323}\u{0331}\u{0316}"), Err(NameError::Marks));
        assert!(Username::new(&format!("a{}", "\u{0323}".repeat(7))).is_err());
    }

    #[test]
    fn r15_invisible_characters() {
        for bad in [
            "a\u{202E}b",
            "a\u{200B}b",
            "a\u{200F}b",
            "a\0b",
            "a\nb",
            "a\u{FEFF}b",
            "a\u{2028}b",
            "a\u{E000}b",
            "a\u{A0}b",
            "a\tb",
            "\u{1B}[31m",
            "a\u{AD}b",
        ] {
            assert!(matches!(Username::new(bad), Err(NameError::Forbidden(_))), "{bad:?}");
        }
        assert_eq!(Username::new(" a"), Err(NameError::NotNormal));
        assert_eq!(Username::new("e\u{301}"), Err(NameError::NotNormal));
        assert_eq!(&*Username::from_input("  e\u{301}ve   x ").unwrap(), "\u{e9}ve x");
    }
}
