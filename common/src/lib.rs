//! What the three programs speak: identities, encoding, Noise sessions, messages.
//!
//! Everything outside [`io`] is pure: no socket, clock, generator or task. Whoever holds a state
//! machine of this crate feeds it bytes and moments, and carries out what it asks for.

pub mod label;
pub mod limit;

pub mod entropy;
pub mod time;

pub mod hash;
pub mod id;
pub mod invite;
pub mod key;
pub mod name;
pub mod neighbourhood;
pub mod pow;
pub mod public_address;
pub mod rate;
pub mod signed;

pub mod identity;
pub mod long_frame;
pub mod text;
pub mod wire;

pub mod frame;

pub mod chunk;
pub mod noise;

pub mod connection;

#[cfg(feature = "io")]
pub mod io;
