//! Questions: where somebody is, and which other servers there are.
//!
//! They change no row, so they need no transaction, and do not wait for the commits of others. A
//! question is answered in two steps, so that what is counted can stand behind a lock that nobody
//! holds while rows are read: [`Lookups::admit`] counts, and [`Admitted::answer`] reads.

use std::sync::Arc;

use sremp_common::id::SoughtKey;
use sremp_common::rate::Rates;
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::{ErrorBody, List, LookupResponse, Message, PeerInfo, Servers};

use super::admission::endpoints_shown;
use super::entries::{self, Entry};
use super::{Counters, Origin, RegistryConfig, count, too_soon};
use crate::store::{ReadRows, StoreError};

/// What is asked without anything being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Where is somebody?
    One(SoughtKey),
    /// Which other servers are there?
    Servers,
}

/// Who may ask, how often.
#[derive(Debug)]
pub struct Lookups {
    config: Arc<RegistryConfig>,
    rates: Rates<()>,
    lookups: u64,
    rate_limited: u64,
}

/// Somebody who may be answered once, by the rules that stood when he was let in.
#[derive(Debug)]
pub struct Admitted(Arc<RegistryConfig>);

impl Lookups {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new(config: Arc<RegistryConfig>) -> Self {
        Self { config, rates: Rates::default(), lookups: 0, rate_limited: 0 }
    }

    /// Other decisions of the operator from now on.
    pub fn configure(&mut self, config: Arc<RegistryConfig>) {
        if config.limits.lookups != self.config.limits.lookups {
            // Allowances were counted by the old measure.
            self.rates = Rates::default();
        }
        self.config = config;
    }

    /// Counts a question, and lets it in.
    ///
    /// # Errors
    /// What is said to whoever asks too often.
    pub fn admit(
        &mut self,
        question: &Question,
        origin: &Origin,
        now: Now,
    ) -> Result<Admitted, ErrorBody> {
        let limit = self.config.limits.lookups;
        self.rates.take((), origin.address.ip(), limit, now.instant).map_err(|seconds| {
            count(&mut self.rate_limited);
            too_soon(seconds)
        })?;
        if matches!(question, Question::One(_)) {
            count(&mut self.lookups);
        }
        Ok(Admitted(Arc::clone(&self.config)))
    }

    /// Adds what has happened here to what has happened elsewhere.
    pub const fn add_to(&self, counters: &mut Counters) {
        counters.lookups = counters.lookups.saturating_add(self.lookups);
        counters.rate_limited = counters.rate_limited.saturating_add(self.rate_limited);
    }
}

impl Admitted {
    /// The answer, from rows that are on disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn answer(
        self,
        rows: &impl ReadRows,
        question: &Question,
        origin: &Origin,
        now: Now,
    ) -> Result<Message, StoreError> {
        let Self(config) = self;
        let key = match question {
            Question::One(key) => key,
            Question::Servers => {
                let servers = config.servers.clone();
                return Ok(Message::Servers(Servers { servers, time: now.wall }));
            }
        };
        // Read whoever is asked for: somebody who is not shown costs what a stranger costs.
        let entry = entries::load_row(rows, key.as_bytes())?;
        let may_be_shown =
            |entry: &Entry| !entry.is_forgotten(now.wall) && !config.banned.contains(key);
        let peer = entry.filter(may_be_shown).map(|entry| shown(&config, entry, origin, now.wall));
        Ok(found(peer.into_iter().collect(), false))
    }
}

/// What a client is told of somebody.
pub(super) fn shown(
    config: &RegistryConfig,
    entry: Entry,
    origin: &Origin,
    now: Timestamp,
) -> PeerInfo {
    let peer = entry.shown(now);
    let (client, private) = (origin.address.ip(), config.allow_private_endpoints);
    PeerInfo { endpoints: endpoints_shown(peer.endpoints, client, private), ..peer }
}

/// The same shape whoever is asked for, known or not.
pub(super) fn found(peers: Vec<PeerInfo>, has_more: bool) -> Message {
    Message::LookupResponse(LookupResponse { peers: List::truncated(peers), has_more })
}
