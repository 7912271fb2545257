//! Other people's text, made harmless before a terminal sees it: an escape sequence in a name
//! could retitle the window, write to the clipboard, or redraw what was shown before.
//!
//! C0, DEL and C1 become caret notation, as `cat -v` writes them; characters that reorder or hide
//! text are dropped. Two forms: [`line()`] for what must stay in its row, [`block`] for what may
//! have lines of its own. Everything printed goes through [`block`] once more at the very end.

use crate::api::json::acts_on_text;

/// Text within one row: line feeds and tabs are shown, too, so that nobody can fake a row.
#[must_use]
pub fn line(text: &str) -> String {
    harmless(text, |_| false)
}

/// Text that may have lines and tabs.
#[must_use]
pub fn block(text: &str) -> String {
    harmless(text, |c| matches!(c, '\n' | '\t'))
}

fn harmless(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if is_kept(c) => out.push(c),
            '\0'..='\u{1F}' | '\u{7F}' => push_caret(&mut out, u32::from(c) ^ 0x40),
            '\u{80}'..='\u{9F}' => {
                out.push_str("M-");
                push_caret(&mut out, (u32::from(c) - 0x80) ^ 0x40);
            }
            _ if acts_on_text(c) => {}
            _ => out.push(c),
        }
    }
    out
}

fn push_caret(out: &mut String, code: u32) {
    out.push('^');
    out.extend(char::from_u32(code));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c08_every_byte_in_both_forms() {
        for byte in 0..=u8::MAX {
            let c = char::from(byte);
            let text = format!("a{c}b");
            for (form, kept) in [(line(&text), false), (block(&text), matches!(c, '\n' | '\t'))] {
                if kept {
                    assert_eq!(form, text);
                } else {
                    assert!(!form.chars().any(char::is_control), "{byte:#x}: {form:?}");
                    assert!(form.starts_with('a') && form.ends_with('b'), "{byte:#x}: {form:?}");
                }
            }
        }
        assert_eq!(line("\0\u{1B}\u{7F}\u{9B}\u{85}"), "^@^[^?M-^[M-^E");
        assert_eq!(line("a\nb\tc"), "a^Jb^Ic");
    }

    #[test]
    fn c08_known_attacks() {
        for (attack, shown) in [
            ("\u{1B}]52;c;cm0gLXJmIH4=\u{7}", "^[]52;c;cm0gLXJmIH4=^G"),
            (
                "\u{1B}]8;;http://a.example\u{1B}\\click\u{1B}]8;;\u{1B}\\",
                "^[]8;;http://a.example^[\\click^[]8;;^[\\",
            ),
            ("\u{1B}[21t", "^[[21t"),
            ("\u{9B}21t", "M-^[21t"),
            ("bob\rann", "bob^Mann"),
            ("\u{202E}txt.exe", "txt.exe"),
            ("a\u{2066}b\u{2069}\u{FEFF}\u{200F}\u{61C}\u{E0041}c", "abc"),
        ] {
            assert_eq!(block(attack), shown);
            assert_eq!(line(attack), shown);
        }
    }

    #[test]
    fn what_is_harmless_stays() {
        let text =
            "Gr\u{fc}\u{df}e \u{1F469}\u{200D}\u{1F680} \u{5E9}\u{5DC}\u{5D5}\u{5DD} e\u{301}";
        assert_eq!(line(text), text);
    }
}
