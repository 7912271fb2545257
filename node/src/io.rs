//! The shell: sockets, clocks, tasks. It imports everything, and nothing imports it.

pub mod handle;
pub mod http;
