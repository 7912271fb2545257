//! What the server knows and decides: who is registered, until when, and who is told.
//!
//! An identity is here because its own key signed a registration in this very TLS session. The
//! newest version of it wins. A registration stands until it expires, judged when it is read; then
//! its endpoints are withheld, and for [`RETENTION`] more the identity, which names its relays,
//! can still be found by who knows its key.
//!
//! No socket and no clock: what a client wants comes with where it came from and when. A request is
//! carried out in the transaction that the caller holds open, and its answer may leave after the
//! commit only ([`Registry`]). A question is answered from what is on disk ([`Lookups`]).

pub mod invites;

mod admission;
mod entries;
mod lookups;
mod networks;
mod pace;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sremp_common::id::{IdentityKey, SoughtKey};
use sremp_common::identity::VerifiedIdentity;
use sremp_common::limit::{MAX_LIST_PAGE, MAX_RENDEZVOUS_MESSAGE, MAX_SERVERS};
use sremp_common::rate::{Rate, Rates, address_of};
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::{
    Endpoint, ErrorBody, ErrorCode, List, Message, PeerInfo, Register, Registered, encode,
};

pub use self::admission::Admission;
use self::admission::{Applicant, admitted, endpoints_allowed};
use self::entries::Entry;
pub use self::lookups::{Admitted, Lookups, Question};
use self::lookups::{found, shown};
use self::networks::Network;
use self::pace::{Pace, Return};
use crate::store::{Rows, StoreError, Table};

/// How long an identity can be found after its registration has expired.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Entries that one batch withdraws, and forgets, at most.
pub const SWEEP_LIMIT: usize = 1_024;

/// Expired entries that one registration may push out.
const MAX_EVICTIONS: usize = 64;

/// Bytes of a listing's message that are not its peers: type, request id, lengths, flag.
const LISTING_OVERHEAD: usize = 64;

/// Seconds after which a full registry may have room again.
const FULL_RETRY: u32 = 3_600;

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Identities that are kept, standing and expired.
    pub max_entries: u64,
    /// Bytes that their rows may have together.
    pub max_bytes: u64,
    /// Bytes that must be free on the disk for identities that are new.
    pub min_free_bytes: u64,
    /// Whether listings are answered at all.
    pub listing: bool,
    /// Other servers that are suggested.
    pub servers: List<Endpoint, MAX_SERVERS>,
    /// Who may register.
    pub admission: Admission,
    /// Who may not, and is not shown, whatever the admission.
    pub banned: BTreeSet<SoughtKey>,
    /// Whether clients from outside may name, and are told, endpoints in private networks.
    pub allow_private_endpoints: bool,
    /// See [`Limits`].
    pub limits: Limits,
}

/// How often one network address, and one identity, may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Registrations, with renewals.
    pub registrations: Rate,
    /// The same of one identity, wherever it comes from.
    pub registrations_of_identity: Rate,
    /// Registrations of identities that were not known.
    pub new_identities: Rate,
    /// Lookups of one identity.
    pub lookups: Rate,
    /// Pages of a listing.
    pub list_pages: Rate,
    /// Identities of one network, standing and expired.
    pub identities_per_network: u64,
    /// Registrations in a second, of everybody, beyond which clients are asked to come less often.
    pub wanted_registrations: u32,
}

/// What a client wants that is not the connection's own affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// For [`Lookups`].
    Question(Question),
    /// For [`Registry`].
    Request(Request),
}

/// What is carried out in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Registers or renews.
    Register(Box<Register>),
    /// A page of a listing, after this key.
    List(Option<IdentityKey>),
}

/// Where a request came from.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The other end of the connection.
    pub address: SocketAddr,
    /// Names its TLS session, and no other one.
    pub exporter: [u8; 32],
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").finish_non_exhaustive()
    }
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Identities that were not known.
    pub registered: u64,
    /// Registrations of known identities.
    pub renewed: u64,
    /// Registrations whose identity or signature does not hold.
    pub forged: u64,
    /// Registrations with an older version than is known.
    pub rollbacks: u64,
    /// Registrations with other content under a known version.
    pub equivocations: u64,
    /// Registrations that found no room.
    pub full: u64,
    /// New identities that found no room in the share of their network.
    pub network_full: u64,
    /// Registrations of somebody who may not, or with endpoints that are not told to others.
    pub not_admitted: u64,
    /// Lookups of one identity.
    pub lookups: u64,
    /// Pages of a listing.
    pub list_pages: u64,
    /// Requests that came too soon.
    pub rate_limited: u64,
    /// Registrations that have expired.
    pub expired: u64,
    /// Identities that were forgotten: after the retention, or for want of room.
    pub forgotten: u64,
}

/// What the registry holds, and what has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegistryStatus {
    /// Identities, standing and expired.
    pub entries: u64,
    /// Registrations that stand (those that expired in the last minute may be among them).
    pub online: u64,
    /// Those of them that a listing shows.
    pub listed: u64,
    /// Bytes of all entries.
    pub bytes: u64,
    /// Bound of `entries`.
    pub max_entries: u64,
    /// Bound of `bytes`.
    pub max_bytes: u64,
    /// How much the intervals of renewals are stretched, in percent; 100 without load.
    pub stretch_percent: u32,
    /// Since the start.
    pub counters: Counters,
}

/// The registry but for questions. Its memory is in the rows; here are only rates and counts.
#[derive(Debug)]
pub struct Registry {
    config: Arc<RegistryConfig>,
    rates: Rates<Kind>,
    /// Registrations of each identity: apart, so that many of them crowd out no network's count.
    identities: Rates<()>,
    pace: Pace,
    /// Bytes that are free on the disk, if anybody has said so.
    free_bytes: Option<u64>,
    counters: Counters,
}

/// What is counted for each network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Registrations, first ones and renewals.
    Register,
    /// Registrations of identities that were not known.
    NewIdentity,
    /// Pages of a listing.
    ListPage,
}

/// A request is refused, or the store failed.
enum Refusal {
    Answer(ErrorBody),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Refusal {
    fn new(code: ErrorCode, text: &str) -> Self {
        Self::Answer(ErrorBody::new(code, text))
    }

    fn retry(code: ErrorCode, text: &str, seconds: u32) -> Self {
        Self::Answer(ErrorBody { retry_after: Some(seconds), ..ErrorBody::new(code, text) })
    }
}

impl Registry {
    /// A registry over rows that it will be handed.
    #[must_use]
    pub fn new(config: Arc<RegistryConfig>) -> Self {
        Self {
            config,
            rates: Rates::default(),
            identities: Rates::default(),
            pace: Pace::new(),
            free_bytes: None,
            counters: Counters::default(),
        }
    }

    /// Other decisions of the operator from now on. What is kept stays, though it be too much now.
    pub fn configure(&mut self, config: Arc<RegistryConfig>) {
        if config.limits != self.config.limits {
            // Allowances were counted by the old measure.
            self.rates = Rates::default();
            self.identities = Rates::default();
        }
        self.config = config;
    }

    /// Says how many bytes are free on the disk. While there are too few nobody new is taken, so that
    /// those who are known can go on renewing (L02).
    pub const fn set_free_bytes(&mut self, free: Option<u64>) {
        self.free_bytes = free;
    }

    /// Carries out one request and gives its answer, to be sent after the commit.
    ///
    /// # Errors
    /// [`StoreError`]: the batch must be dropped then.
    pub fn handle(
        &mut self,
        rows: &mut impl Rows,
        request: &Request,
        origin: &Origin,
        now: Now,
    ) -> Result<Message, StoreError> {
        let answer = match request {
            Request::Register(register) => self.register(rows, register, origin, now),
            Request::List(after) => self.list(rows, after.as_ref(), origin, now),
        };
        match answer {
            Ok(message) => Ok(message),
            Err(Refusal::Answer(error)) => Ok(Message::Error(error)),
            Err(Refusal::Store(error)) => Err(error),
        }
    }

    fn register(
        &mut self,
        rows: &mut impl Rows,
        register: &Register,
        origin: &Origin,
        now: Now,
    ) -> Result<Message, Refusal> {
        self.take(Kind::Register, origin, now)?;
        let identity = self.verified(register, origin)?;
        let key = identity.key();
        self.take_of(&key, now)?;
        let known = entries::load(rows, &key)?;
        let is_invited = invites::is_good(rows, register.invite.as_ref(), now.wall)?;
        let applicant = Applicant { key: &key, is_known: known.is_some(), is_invited };
        self.admit(register, applicant, origin)?;
        self.check_succession(known.as_ref(), &identity)?;
        let network = Network::of(origin.address.ip());
        if known.is_none() {
            self.take(Kind::NewIdentity, origin, now)?;
            if self.free_bytes.is_some_and(|free| free < self.config.min_free_bytes) {
                count(&mut self.counters.full);
                let text = "this server has no room for anybody new";
                return Err(Refusal::retry(ErrorCode::Unavailable, text, FULL_RETRY));
            }
            self.make_room_in(rows, network)?;
        }
        let asked = register.registration.ttl;
        let wanted = self.config.limits.wanted_registrations;
        let Return { interval, ttl } = self.pace.registered(&key, asked, wanted, now.instant);
        let entry = Entry {
            identity: register.identity.clone(),
            version: identity.version(),
            endpoints: register.registration.endpoints.clone(),
            listed: register.registration.listed,
            registered_at: now.wall,
            expires_at: now.wall + Duration::from_secs(ttl.into()),
            withdrawn: false,
        };
        if !self.make_room(rows, &key, known.as_ref(), &entry, now.wall)? {
            count(&mut self.counters.full);
            return Err(Refusal::retry(ErrorCode::Unavailable, "the registry is full", FULL_RETRY));
        }
        if known.is_none() && self.config.admission == Admission::Invited {
            // Last of all, so that nobody who is not let in uses it up.
            invites::spend(rows, register.invite.as_ref(), now.wall)?;
        }
        entries::save(rows, &key, known.as_ref(), &entry, network)?;
        count(if known.is_some() {
            &mut self.counters.renewed
        } else {
            &mut self.counters.registered
        });
        Ok(Message::Registered(Registered {
            expires_at: entry.expires_at,
            renewal_interval: interval,
            observed: Some(observed(origin)),
        }))
    }

    /// Who may register, and with which endpoints.
    fn admit(
        &mut self,
        register: &Register,
        applicant: Applicant<'_>,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        let config = &self.config;
        let endpoints = &register.registration.endpoints;
        let client = origin.address.ip();
        let allowed = admitted(&config.admission, &config.banned, applicant)
            .and_then(|()| endpoints_allowed(endpoints, client, config.allow_private_endpoints));
        allowed.map_err(|error| {
            count(&mut self.counters.not_admitted);
            Refusal::Answer(error)
        })
    }

    /// One more identity of a network: beyond its share, the one of its own that has been expired
    /// for longest makes room.
    fn make_room_in(&mut self, rows: &mut impl Rows, network: Network) -> Result<(), Refusal> {
        if networks::count(rows, network)? < self.config.limits.identities_per_network {
            return Ok(());
        }
        if entries::forget_longest_expired_of(rows, network)? {
            count(&mut self.counters.forgotten);
            return Ok(());
        }
        count(&mut self.counters.network_full);
        let text = "too many identities of this network are registered here";
        Err(Refusal::retry(ErrorCode::QuotaExceeded, text, FULL_RETRY))
    }

    /// Nothing of a registration is looked at before both signatures hold.
    fn verified(
        &mut self,
        register: &Register,
        origin: &Origin,
    ) -> Result<VerifiedIdentity, Refusal> {
        let identity = register.identity.verify().ok();
        let holds = |identity: &VerifiedIdentity| {
            register.registration.verify(&register.signature, identity, &origin.exporter).is_ok()
        };
        identity.filter(holds).ok_or_else(|| {
            count(&mut self.counters.forged);
            Refusal::new(
                ErrorCode::AuthenticationFailed,
                "the registration's signature does not hold",
            )
        })
    }

    /// The newest version wins, and one version has one content (specification 3.1.5).
    fn check_succession(
        &mut self,
        known: Option<&Entry>,
        identity: &VerifiedIdentity,
    ) -> Result<(), Refusal> {
        let Some(known) = known else { return Ok(()) };
        if identity.version() < known.version {
            count(&mut self.counters.rollbacks);
            return Err(Refusal::new(
                ErrorCode::Stale,
                "a newer version of this identity is known",
            ));
        }
        if identity.version() == known.version && *identity.identity() != known.identity {
            count(&mut self.counters.equivocations);
            let text = "this version of the identity is known with another content";
            return Err(Refusal::new(ErrorCode::Stale, text));
        }
        Ok(())
    }

    /// Whether the entry fits, if need be after the longest expired ones are gone. Entries that
    /// stand are never pushed out.
    fn make_room(
        &mut self,
        rows: &mut impl Rows,
        key: &IdentityKey,
        known: Option<&Entry>,
        entry: &Entry,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let more_entries = u64::from(known.is_none());
        let more_bytes = entry.bytes().saturating_sub(known.map_or(0, Entry::bytes));
        if more_entries == 0 && more_bytes == 0 {
            return Ok(true);
        }
        for attempt in 0..=MAX_EVICTIONS {
            let entries = rows.count(Table::Entries)?.saturating_add(more_entries);
            let bytes = entries::total_bytes(rows)?.saturating_add(more_bytes);
            if entries <= self.config.max_entries && bytes <= self.config.max_bytes {
                return Ok(true);
            }
            if attempt == 0 {
                self.sweep(rows, now)?;
            } else if !entries::forget_longest_expired(rows, key)? {
                return Ok(false);
            } else {
                count(&mut self.counters.forgotten);
            }
        }
        Ok(false)
    }

    /// One page: as many as its count and the length of a message allow, at least one.
    fn list(
        &mut self,
        rows: &mut impl Rows,
        after: Option<&IdentityKey>,
        origin: &Origin,
        now: Now,
    ) -> Result<Message, Refusal> {
        if !self.config.listing {
            return Err(Refusal::new(ErrorCode::Unsupported, "this server does not list anybody"));
        }
        self.take(Kind::ListPage, origin, now)?;
        count(&mut self.counters.list_pages);
        // Not for correctness, but so that a page does not have to step over expired rows.
        self.sweep(rows, now.wall)?;
        let mut peers: Vec<PeerInfo> = Vec::new();
        let mut room = MAX_RENDEZVOUS_MESSAGE.saturating_sub(LISTING_OVERHEAD);
        let mut after = after.map(|key| key.as_bytes().to_vec());
        while let Some((key, _)) = rows.next(Table::Listed, after.as_deref())? {
            let entry = entries::load_row(rows, &key)?;
            let is_banned = self.config.banned.iter().any(|banned| banned.as_bytes()[..] == key);
            after = Some(key);
            let may_be_shown = |entry: &Entry| entry.listed && entry.stands(now.wall) && !is_banned;
            let Some(entry) = entry.filter(may_be_shown) else { continue };
            let peer = shown(&self.config, entry, origin, now.wall);
            let length = encode(&peer).len();
            if peers.len() == MAX_LIST_PAGE || length > room {
                return Ok(found(peers, true));
            }
            room = room.saturating_sub(length);
            peers.push(peer);
        }
        Ok(found(peers, false))
    }

    /// Withdraws registrations that have expired, and forgets identities whose time is over; at
    /// most [`SWEEP_LIMIT`] of each. Gives how many it changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sweep(&mut self, rows: &mut impl Rows, now: Timestamp) -> Result<usize, StoreError> {
        let expired = entries::withdraw_due(rows, now, SWEEP_LIMIT)?;
        let forgotten = entries::forget_due(rows, now, SWEEP_LIMIT)?;
        count_many(&mut self.counters.expired, expired);
        count_many(&mut self.counters.forgotten, forgotten);
        Ok(expired.saturating_add(forgotten))
    }

    /// What it holds, and what has happened.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn status(&self, rows: &impl Rows) -> Result<RegistryStatus, StoreError> {
        Ok(RegistryStatus {
            entries: rows.count(Table::Entries)?,
            online: rows.count(Table::Standing)?,
            listed: rows.count(Table::Listed)?,
            bytes: entries::total_bytes(rows)?,
            max_entries: self.config.max_entries,
            max_bytes: self.config.max_bytes,
            stretch_percent: self.pace.factor(),
            counters: self.counters,
        })
    }

    /// One more registration that an identity has signed.
    fn take_of(&mut self, key: &IdentityKey, now: Now) -> Result<(), Refusal> {
        let rate = self.config.limits.registrations_of_identity;
        self.identities.take((), address_of(key), rate, now.instant).map_err(|seconds| {
            count(&mut self.counters.rate_limited);
            let text = "too many registrations of this identity";
            Refusal::retry(ErrorCode::RateLimited, text, seconds)
        })
    }

    fn take(&mut self, kind: Kind, origin: &Origin, now: Now) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let rate = match kind {
            Kind::Register => limits.registrations,
            Kind::NewIdentity => limits.new_identities,
            Kind::ListPage => limits.list_pages,
        };
        self.rates.take(kind, origin.address.ip(), rate, now.instant).map_err(|seconds| {
            count(&mut self.counters.rate_limited);
            Refusal::Answer(too_soon(seconds))
        })
    }
}

/// What is said to whoever asks too often.
fn too_soon(seconds: u32) -> ErrorBody {
    let error = ErrorBody::new(ErrorCode::RateLimited, "too many requests from this network");
    ErrorBody { retry_after: Some(seconds), ..error }
}

/// The client's address as seen here. The port is the one that it dialled from.
fn observed(origin: &Origin) -> Endpoint {
    SocketAddr::new(origin.address.ip().to_canonical(), origin.address.port()).into()
}

fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

fn count_many(counter: &mut u64, more: usize) {
    *counter = counter.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
}
