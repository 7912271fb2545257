//! How members of a group end in one state without a server that orders their commits.
//!
//! ```text
//!   commits, in any order ─→ record (a tree of states) ─→ branch (which of rivals stands) ─→ tip
//!   what members tell of themselves ─→ marks (who misses what) ─→ sides (who comes back, if nothing helps)
//! ```
//! Pure: states, commits and marks in, decisions out. No clock but the one that is handed in, no store, no
//! MLS. What enters the decisions is the same on every member: the oldest retained state, the valid
//! commits, and the policy that the group context pins.

pub(super) mod branch;
pub(super) mod marks;
pub(super) mod record;
pub(super) mod sides;
