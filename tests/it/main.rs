//! The one test binary for what crosses a crate: one link, one run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of this is test code, helpers included"
)]

mod backlog;
mod bombs;
mod changes;
mod contacts;
mod decoders;
mod dependencies;
mod documents;
mod every_key;
mod fellows;
mod group_wire;
mod groups;
mod healing;
mod hostile_relay;
mod invitations;
mod layers;
mod leaving;
mod node_at_rendezvous;
mod node_process;
mod operating;
mod paths;
mod relay_client;
mod relay_flood;
mod relay_operator;
mod relay_process;
mod relay_program;
mod relay_replay;
mod relay_settings;
mod relays;
mod rendezvous_tls;
mod stories;
mod user;
mod vectors;
