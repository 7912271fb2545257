//! A person's own node: identity, contacts, conversations, delivery.
//!
//! Layers import downwards only; everything outside [`io`] is free of sockets, clocks and tasks:
//!
//! ```text
//!   cli ─→ api ─→ node ─→ conversations ─→ delivery
//!                  │  └─→ groups (MLS)  ─→ store
//!                  └────→ identity      ─→ transport
//!   io imports all of them, and only the program's entry imports io
//! ```

pub mod store;

pub mod groups;
pub mod transport;

pub mod identity;

pub mod delivery;

pub mod conversations;

pub mod api;
pub mod node;

pub mod cli;
pub mod config;

pub mod io;
