//! The shell: the only module here that reads a clock, opens the system's generator, touches a
//! stream or starts a task.
#![expect(clippy::disallowed_methods, reason = "this is the shell that the rule is about")]

pub mod bans;
pub mod commands;
pub mod control;
pub mod doors;
pub mod gate;
pub mod invitations;
pub mod lifecycle;
pub mod listen;
pub mod metrics;
pub mod notify;
pub mod operator;
pub mod output;
pub mod private;
pub mod proxy;
pub mod reload;
pub mod settings;
pub mod signals;
pub mod sources;
pub mod stream;

mod http;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::entropy::Entropy;
use crate::time::{Instant, Now, Timestamp};

/// Both clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// One reading of both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let since_start = self.start.elapsed().as_millis();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Now {
            instant: Instant::from_millis(u64::try_from(since_start).unwrap_or(u64::MAX)),
            wall: Timestamp::from_millis(u64::try_from(wall).unwrap_or(u64::MAX)),
        }
    }
}

/// A generator seeded by the operating system.
///
/// # Errors
/// When the system has no entropy to give: nothing can be done safely then.
pub fn system_entropy() -> Result<Entropy, getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(Entropy::from_seed(seed))
}
