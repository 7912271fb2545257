//! What the thread counts for monitoring: how many of what, never whose.

use std::collections::BTreeMap;

use serde::Serialize;
use sremp_common::wire::{ErrorCode, Message};

/// Counts since the start. Refusals are by the name of their code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::io) struct Figures {
    /// Blobs stored, once for each recipient; those that were there already included.
    pub(in crate::io) stored: u64,
    /// Blobs refused, once for each recipient.
    pub(in crate::io) stores_refused: BTreeMap<&'static str, u64>,
    /// Other requests refused.
    pub(in crate::io) requests_refused: BTreeMap<&'static str, u64>,
    /// Registrations, of new mailboxes and of open ones.
    pub(in crate::io) registrations: u64,
    /// Messages pushed to their owners.
    pub(in crate::io) pushed: u64,
    /// Key packages handed out.
    pub(in crate::io) key_packages: u64,
    /// Sessions that were given up because they did not take their answers.
    pub(in crate::io) slow_readers: u64,
    /// Times that the disk was full.
    pub(in crate::io) disk_full: u64,
}

impl Figures {
    /// Counts something that leaves for a session.
    #[expect(clippy::wildcard_enum_match_arm, reason = "these answers are counted, and no others")]
    pub(super) fn count(&mut self, message: &Message) {
        match message {
            Message::StoreResponse(response) => {
                for result in response.results.iter() {
                    match result.refused {
                        None => self.stored = self.stored.saturating_add(1),
                        Some(code) => raise(&mut self.stores_refused, code),
                    }
                }
            }
            Message::MessageBatch(batch) => {
                let count = u64::try_from(batch.messages.len()).unwrap_or(u64::MAX);
                self.pushed = self.pushed.saturating_add(count);
            }
            Message::RelayRegistered(_) => {
                self.registrations = self.registrations.saturating_add(1);
            }
            Message::KeyPackageTaken(_) => {
                self.key_packages = self.key_packages.saturating_add(1);
            }
            Message::Error(error) => raise(&mut self.requests_refused, error.code),
            _ => {}
        }
    }
}

fn raise(counts: &mut BTreeMap<&'static str, u64>, code: ErrorCode) {
    let count = counts.entry(name_of(code)).or_default();
    *count = count.saturating_add(1);
}

/// A code as monitoring knows it: as in the protocol, with underscores.
const fn name_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Malformed => "malformed",
        ErrorCode::Unsupported => "unsupported",
        ErrorCode::NotAllowed => "not_allowed",
        ErrorCode::AuthenticationFailed => "authentication_failed",
        ErrorCode::NotAdmitted => "not_admitted",
        ErrorCode::NotFound => "not_found",
        ErrorCode::TooLarge => "too_large",
        ErrorCode::RateLimited => "rate_limited",
        ErrorCode::QuotaExceeded => "quota_exceeded",
        ErrorCode::Unavailable => "unavailable",
        ErrorCode::Stale => "stale",
        ErrorCode::Internal => "internal",
        ErrorCode::Goodbye => "goodbye",
        ErrorCode::Duplicate => "duplicate",
        ErrorCode::VersionMismatch => "version_mismatch",
        ErrorCode::TimedOut => "timed_out",
        ErrorCode::Other(_) => "other",
    }
}
