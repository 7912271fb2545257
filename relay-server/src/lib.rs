//! Mailboxes over Noise: stores and forwards sealed blobs, hands out key packages, reads nothing.
//!
//! ```text
//!  cli, config      what people type and write
//!  io               sockets, the store thread, the control socket: the only module with effects
//!  engine           pure: requests in, answers and pushes out, one transaction at a time
//!  store            the operations inside one transaction, and redb that carries them out
//! ```
//! The relay server is a thin program around this library, and a node uses the same engine and
//! store for mailboxes that it holds for its owner's contacts.

pub mod cli;
pub mod config;
pub mod engine;
pub mod io;
pub mod store;
