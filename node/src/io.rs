//! The shell: sockets, clocks, tasks. It imports everything, and nothing imports it.
//!
//! ```text
//!   net tasks ──bytes──→┐                        ┌──→ net tasks (dial, write, close)
//!   http      ─commands→│ core thread: batch,    │
//!   timer     ─────────→┘ handle, finish, COMMIT ┴──→ replies, events
//! ```
#![expect(clippy::disallowed_methods, reason = "this is the shell that the rule is about")]

pub mod client;
pub mod core;
pub mod handle;
pub mod http;
pub mod net;
pub mod run;
pub mod running;
pub mod setup;
pub mod tls;
pub mod workers;

pub use run::run;
pub use setup::{check, init};
