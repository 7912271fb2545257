//! The simulator: whole networks of production cores under virtual time, replayed from a seed.
//!
//! A [`World`] holds nodes and relays (the cores that ship, with their real sessions, MLS and
//! redb), a virtual clock, and a network that delays, breaks and partitions. Nothing in it reads a
//! clock or the system's generator, but for HPKE inside the MLS provider: bytes of Welcomes differ
//! from run to run, their order and what they do does not.
//!
//! What is *not* simulated: TLS to rendezvous servers, the local socket, the file system.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::wildcard_enum_match_arm,
    reason = "the simulator is test code: a broken assumption shall stop the run"
)]

pub mod disk;
pub mod groups;
pub mod host;
pub mod hostile;
pub mod model;
pub mod net;
pub mod script;
pub mod trick;
pub mod world;

pub use groups::{GroupReport, Knobs, run_group_seed};
pub use script::{Report, run_seed, run_strangers};
pub use trick::Tricks;
pub use world::World;
