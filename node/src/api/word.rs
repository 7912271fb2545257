//! Closed sets of words: one spelling in JSON, on the command line and on the screen.

/// A text that is none of a closed set of words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {what}; it is one of: {words}")]
pub struct UnknownWord {
    /// As given.
    pub found: String,
    /// What was asked for.
    pub what: &'static str,
    /// The words there are.
    pub words: &'static str,
}

/// `Display` and `FromStr` of an enum in exactly the words of its JSON.
macro_rules! text_form {
    ($name:ident, $what:literal, { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// The word for it, the same in JSON, on the command line and on the screen.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::api::word::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::api::word::UnknownWord {
                        found: text.chars().take(40).collect(),
                        what: $what,
                        words: concat!($($word, " "),+),
                    }),
                }
            }
        }
    };
}
pub(crate) use text_form;
