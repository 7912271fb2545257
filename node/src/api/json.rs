//! JSON that is harmless on a terminal: beside what JSON must escape, DEL, C1 and every character
//! that reorders or hides text is written as `\uXXXX`. Any JSON parser reads it back unchanged.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Whether a character acts on the text around it instead of being seen.
#[must_use]
pub const fn acts_on_text(c: char) -> bool {
    matches!(c,
        '\u{7F}'..='\u{9F}'          // DEL and C1: CSI, OSC and others in one character
        | '\u{61C}'                  // Arabic letter mark
        | '\u{200E}' | '\u{200F}'    // left-to-right and right-to-left mark
        | '\u{2028}'..='\u{202E}'    // line and paragraph separator, embeddings, overrides
        | '\u{2066}'..='\u{206F}'    // isolates, deprecated format characters
        | '\u{FEFF}'                 // byte order mark
        | '\u{FFF9}'..='\u{FFFB}'    // interlinear annotation
        | '\u{E0000}'..='\u{E007F}') // invisible tags
}

/// One line of JSON, without a line feed.
///
/// # Errors
/// When a value refuses to be serialised: none of ours does.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, Harmless))?;
    String::from_utf8(out).map_err(serde::ser::Error::custom)
}

/// The same JSON text with the additional escapes, whoever wrote it. Raw control characters, which
/// are only white space between tokens in valid JSON, are dropped, and with them the final line feed.
#[must_use]
pub fn harmless(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if acts_on_text(c) {
            // Outside of strings these are not JSON at all; inside, this is their other spelling.
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else if !c.is_control() {
            out.push(c);
        }
    }
    out
}

/// Compact, with the additional escapes.
#[derive(Clone, Copy, Debug)]
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(acts_on_text) {
            let (harmless, tail) = rest.split_at(at);
            writer.write_all(harmless.as_bytes())?;
            let mut chars = tail.chars();
            for unit in chars.next().unwrap_or_default().encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c08_json_escapes_what_acts_on_a_terminal() {
        let hostile: String = (0..=0x9F_u8)
            .map(char::from)
            .chain("\u{202E}\u{2066}\u{FEFF}\u{E0041}x\u{e9}\u{1F600}".chars())
            .collect();
        let json = to_string(&hostile).unwrap();
        assert!(!json.chars().any(|c| c.is_control() || acts_on_text(c)), "{json:?}");
        assert!(json.contains("\\u202e") && json.contains("\\udb40\\udc41"));
        assert!(json.contains('\u{e9}') && json.contains('\u{1F600}'), "harmless text stays");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
    }

    #[test]
    fn c08_json_of_others_is_made_harmless() {
        let raw = serde_json::to_string(&["a\u{9B}21t\u{202E}b", "\u{1B}\n", "c"]).unwrap();
        let json = harmless(&format!("{raw}\n"));
        assert!(!json.chars().any(|c| c.is_control() || acts_on_text(c)), "{json:?}");
        let same: Vec<String> = serde_json::from_str(&json).unwrap();
        assert_eq!(same, ["a\u{9B}21t\u{202E}b", "\u{1B}\n", "c"]);
        assert_eq!(harmless("{\u{1B}[2J}\n"), "{[2J}");
    }
}
