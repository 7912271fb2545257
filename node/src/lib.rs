//! A person's own node: identity, contacts, conversations, delivery.
pub mod api;
pub mod groups;
pub mod io;
pub mod store;
pub mod transport;
