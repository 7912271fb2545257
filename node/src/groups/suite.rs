//! The cipher suites that groups are made with.
//!
//! A group has one suite for its life. Every node supports all of them, says so in its leaves, and
//! hands out a key package for each.

use std::fmt;
use std::str::FromStr;

use openmls::prelude::Ciphersuite;

/// A cipher suite of MLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// 0x0001, which every implementation of MLS supports (RFC 9420 section 17.1).
    X25519,
    /// 0x004F: secrets are agreed on with ML-KEM-768 and X25519 together, so that what is recorded today
    /// cannot be read with a quantum computer later. The number is that of a draft
    /// (draft-ietf-mls-pq-ciphersuites).
    MlKem768X25519,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::X25519, Self::MlKem768X25519];

    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X25519 => "x25519",
            Self::MlKem768X25519 => "mlkem768x25519",
        }
    }

    /// The number in the registry of MLS cipher suites.
    #[must_use]
    pub fn number(self) -> u16 {
        self.mls().into()
    }

    /// The suite with this number, if we support it.
    #[must_use]
    pub fn of_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }

    pub(super) const fn mls(self) -> Ciphersuite {
        match self {
            Self::X25519 => Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
            Self::MlKem768X25519 => Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519,
        }
    }

    pub(super) fn of(suite: Ciphersuite) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.mls() == suite)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No suite has this name or number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no cipher suite has this name or number")]
pub struct NoSuchSuite;

impl FromStr for Suite {
    type Err = NoSuchSuite;

    /// By name, or by number: decimal, or hexadecimal after `0x`.
    fn from_str(text: &str) -> Result<Self, NoSuchSuite> {
        if let Some(suite) = Self::ALL.into_iter().find(|suite| suite.name() == text) {
            return Ok(suite);
        }
        let number = match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.ok().and_then(Self::of_number).ok_or(NoSuchSuite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_to_a_suite() {
        for (text, suite) in [
            ("x25519", Suite::X25519),
            ("0x0001", Suite::X25519),
            ("1", Suite::X25519),
            ("mlkem768x25519", Suite::MlKem768X25519),
            ("0x004F", Suite::MlKem768X25519),
            ("0x4f", Suite::MlKem768X25519),
            ("79", Suite::MlKem768X25519),
        ] {
            assert_eq!(text.parse(), Ok(suite), "{text}");
        }
        for text in ["", "0x", "2", "0x0003", "X25519", "-1", "65537"] {
            assert_eq!(text.parse::<Suite>(), Err(NoSuchSuite), "{text}");
        }
    }
}
