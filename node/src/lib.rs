//! A person's own node: identity, contacts, conversations, delivery.
pub mod api;
