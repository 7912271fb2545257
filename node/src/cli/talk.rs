//! What can be typed about messages that were written already.

use std::str::FromStr;

use clap::Args;

/// `react`
#[derive(Debug, Args)]
pub struct React {
    /// A contact or a group
    #[arg(value_name = "CONVERSATION")]
    pub with: String,
    /// The message's id
    pub message: String,
    /// An emoji, or a short word
    #[arg(value_name = "EMOJI", required_unless_present = "none")]
    pub reaction: Option<String>,
    /// Take my reaction back
    #[arg(long, conflicts_with = "reaction")]
    pub none: bool,
}

/// `edit`
#[derive(Debug, Args)]
pub struct Edit {
    /// A contact or a group
    #[arg(value_name = "CONVERSATION")]
    pub with: String,
    /// The message's id
    pub message: String,
    /// The text; without it, standard input
    pub text: Option<String>,
}

/// How long messages stay: a number and a unit, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After(pub Option<u32>);

impl FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let wrong =
            || format!("`{text}` is no time; write for example 90s, 30m, 12h, 7d, 4w or off");
        let (at, unit) = text.char_indices().next_back().ok_or_else(wrong)?;
        let unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(wrong()),
        };
        let number: u32 = text.get(..at).unwrap_or_default().parse().map_err(|_| wrong())?;
        Ok(Self(Some(number.saturating_mul(unit))))
    }
}
