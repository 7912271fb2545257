//! The local interface over a real socket, with a core that only pretends.
