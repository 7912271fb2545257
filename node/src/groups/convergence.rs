//! How members of a group end in one state without a server that orders their commits.
//!
//! ```text
//!   commits, in any order ─→ record (a tree of states) ─→ branch (which of rivals stands) ─→ tip
//! ```
//! Pure: states, commits and marks in, decisions out. No clock but the one that is handed in, no store, no
//! MLS. What enters the decisions is the same on every member: the oldest retained state, the valid
//! commits, and the policy that the group context pins.

pub(super) mod branch;
pub(super) mod record;
