//! A rendezvous server: a registry over TLS 1.3 of who is online, and where.
//!
//! It holds no secret of its users and no message. Everything outside [`io`] is pure but for
//! [`store`], which writes the one file: [`registry`] decides, [`protocol`] is one connection.

pub mod registry;
pub mod store;

pub mod protocol;

pub mod config;

pub mod cli;
pub mod io;
