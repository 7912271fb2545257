//! Transports against each other, over a network of queues under a virtual clock.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks the events that it is about and passes over the others"
)]

mod bounds;
mod calls;
mod chaos;
mod duplicates;
mod policy;
mod relays;
mod rendezvous;
mod world;
