//! The transport against itself, over queues with a virtual clock.
