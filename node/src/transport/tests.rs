//! Transports against each other, over a network of queues under a virtual clock.

mod bounds;
mod calls;
mod chaos;
mod duplicates;
mod policy;
mod relays;
mod rendezvous;
mod world;
