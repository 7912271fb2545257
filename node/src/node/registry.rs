//! Rendezvous servers: registering there, asking where somebody is, browsing who is listed.

mod suggested;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, Token};
use sremp_common::limit::{MAX_ENDPOINTS, REGISTRATION_TTL_MAX};
use sremp_common::time::{Instant, Now, Timestamp};
use sremp_common::wire::{
    Endpoint, List, ListServers, Lookup, LookupResponse, Message, PeerInfo, Registered,
    Registration,
};

pub(super) use self::suggested::Suggested;
use super::{Call, Node, NodeError, Output};
use crate::api::{ApiError, PeerView, RendezvousView, Reply};
use crate::delivery::Backoff;
use crate::identity::{Contacts, Lookalikes, Reach};
use crate::store::{StoreError, Table, Tx, decode_row};
use crate::transport::{CallError, RendezvousServer, Target};

/// Servers that a node registers with.
pub(super) const MAX_SERVERS: usize = 16;
/// Seconds that a registration is asked to last.
const TTL: u32 = 3600;
/// A registration is not renewed more often than this, whatever the server says.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);
/// A server that asks for silence is not asked for longer than this.
const LONGEST_SILENCE: Duration = Duration::from_secs(3600);
/// Somebody is not asked for more often than this.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Time for all servers to answer a search.
const SEARCH_TIME: Duration = Duration::from_secs(10);
/// People that one search finds.
const MAX_FOUND: usize = 1000;

/// A server, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServerRow {
    pub(super) endpoint: Endpoint,
    pub(super) ca: Option<PathBuf>,
    /// The invitation to it: shown with every registration. Absent in rows of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) invite: Option<Token>,
}

/// A server in this run.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) row: ServerRow,
    renew_at: Option<Instant>,
    /// Nothing is asked before, because the server said so.
    silent_until: Option<Instant>,
    registered_until: Option<Timestamp>,
    observed: Option<Endpoint>,
    error: Option<String>,
    backoff: Backoff,
}

impl Server {
    const fn new(row: ServerRow) -> Self {
        Self {
            row,
            renew_at: Some(Instant::from_millis(0)),
            silent_until: None,
            registered_until: None,
            observed: None,
            error: None,
            backoff: Backoff::new(),
        }
    }

    /// The same server as before in a list that has changed: to be registered with, but no sooner than
    /// it said. With another authority or invitation it is another one.
    fn carried_over(row: ServerRow, before: &[Self]) -> Self {
        let known = before.iter().find(|server| server.row == row);
        let silent_until = known.and_then(|server| server.silent_until);
        let renew_at = Some(silent_until.unwrap_or_default());
        Self { silent_until, renew_at, ..Self::new(row) }
    }

    pub(super) const fn wake_at(&self) -> Option<Instant> {
        self.renew_at
    }

    /// Whether something may be asked.
    fn may_be_asked(&self, now: Instant) -> bool {
        self.silent_until.is_none_or(|until| until <= now)
    }

    /// Heeds what a refusal says about when to come back; to be called with every failed call.
    fn heed(&mut self, error: &CallError, now: Instant) {
        if let CallError::Refused(body) = error
            && let Some(seconds) = body.retry_after
        {
            let silence = Duration::from_secs(seconds.into()).min(LONGEST_SILENCE);
            self.silent_until = Some(now + silence);
        }
    }

    /// The server dictates when to renew, by a span: its clock may be wrong (R13).
    fn registered(&mut self, registered: Registered, now: Instant) {
        let longest = Duration::from_secs((REGISTRATION_TTL_MAX / 2).into());
        let interval = Duration::from_secs(registered.renewal_interval.into());
        self.renew_at = Some(now + interval.clamp(SHORTEST_INTERVAL, longest));
        self.registered_until = Some(registered.expires_at);
        self.observed = registered.observed;
        self.error = None;
        self.backoff.reset();
    }

    fn not_registered(&mut self, error: String, entropy: &mut Entropy, now: Instant) {
        self.error = Some(error);
        let retry = now + self.backoff.fail(entropy);
        self.renew_at = Some(self.silent_until.map_or(retry, |until| until.max(retry)));
    }

    fn view(&self) -> RendezvousView {
        RendezvousView {
            server: self.row.endpoint.to_string(),
            ca: self.row.ca.as_ref().map(|path| path.display().to_string()),
            registered: self.registered_until.is_some() && self.error.is_none(),
            expires_at: self.registered_until,
            observed: self.observed.as_ref().map(ToString::to_string),
            suggested: false,
            error: self.error.clone(),
        }
    }
}

/// A search for listed identities, and the command that waits for it.
#[derive(Debug)]
pub(super) struct PeerSearch {
    reply_to: u64,
    name: Option<String>,
    waiting: usize,
    found: Vec<PeerView>,
    until: Instant,
    error: Option<String>,
}

impl PeerSearch {
    pub(super) const fn wake_at(&self) -> Instant {
        self.until
    }
}

impl Node {
    pub(super) fn load_servers(&mut self, tx: &Tx) -> Result<(), NodeError> {
        let rows: Vec<ServerRow> = tx
            .scan(Table::Rendezvous, &[], None, MAX_SERVERS)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Rendezvous, &value))
            .collect::<Result<_, StoreError>>()?;
        let before = std::mem::take(&mut self.servers);
        self.servers = rows.into_iter().map(|row| Server::carried_over(row, &before)).collect();
        let servers = self
            .servers
            .iter()
            .map(|server| RendezvousServer {
                endpoint: server.row.endpoint.clone(),
                ca: server.row.ca.clone(),
                invite: server.row.invite,
            })
            .collect();
        self.transport.set_rendezvous(servers);
        self.suggested.clear();
        Ok(())
    }

    /// Something that servers tell others has changed.
    pub(super) fn register_everywhere(&mut self, now: Now) {
        for server in &mut self.servers {
            let silent_until = server.silent_until.unwrap_or_default();
            server.renew_at = Some(now.instant.max(silent_until));
        }
    }

    pub(super) fn renew_registrations(&mut self, now: Now) {
        let listed = self.listed;
        for place in 0..self.servers.len() {
            let Some(server) = self.servers.get_mut(place) else { return };
            if server.renew_at.is_none_or(|at| at > now.instant) {
                continue;
            }
            // Nothing more until the answer has come: it always does.
            server.renew_at = None;
            let registration = Registration {
                endpoints: List::<_, MAX_ENDPOINTS>::truncated(self.config.advertise.clone()),
                ttl: TTL,
                listed,
            };
            let tag = self.new_tag();
            self.calls.insert(tag, Call::Register { server: place });
            self.transport.register(place, registration, tag, now);
            let call = Call::ListServers { server: place };
            self.call(
                Target::Rendezvous(place),
                &[],
                Message::ListServers(ListServers()),
                call,
                now,
            );
        }
    }

    pub(super) fn registration_answered(
        &mut self,
        tx: &Tx,
        place: usize,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        self.heed(place, &result, now);
        let Some(server) = self.servers.get_mut(place) else { return Ok(()) };
        let was_registered = server.registered_until.is_some() && server.error.is_none();
        match result {
            Ok(Message::Registered(registered)) => server.registered(registered, now.instant),
            Ok(_) => {
                let error = "answered something else".to_owned();
                server.not_registered(error, &mut self.entropy, now.instant);
            }
            Err(error) => {
                let error = if let CallError::Refused(body) = &error {
                    format!("refused: {}", &*body.text)
                } else {
                    error.to_string()
                };
                server.not_registered(error, &mut self.entropy, now.instant);
            }
        }
        let registered = server.error.is_none();
        let name = server.row.endpoint.to_string();
        if registered != was_registered {
            self.tell(
                tx,
                crate::api::EventBody::Connection {
                    kind: crate::api::ConnectionKind::Rendezvous,
                    id: name,
                    name: None,
                    connected: registered,
                },
                now,
            )?;
        }
        Ok(())
    }

    pub(super) fn servers_answered(
        &mut self,
        place: usize,
        result: Result<Message, CallError>,
        now: Now,
    ) {
        self.heed(place, &result, now);
        if let Ok(Message::Servers(servers)) = result {
            self.suggested.told(place, servers.servers, self.config.allow_private_addresses);
        }
    }

    /// Heeds what a server said, if it was to come back later.
    fn heed(&mut self, place: usize, result: &Result<Message, CallError>, now: Now) {
        if let Err(error) = result
            && let Some(server) = self.servers.get_mut(place)
        {
            server.heed(error, now.instant);
        }
    }

    /// Asks all servers where somebody is, unless they were asked just now.
    pub(super) fn look_up(
        &mut self,
        tx: &Tx,
        who: &IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let mut reach = Reach::of(tx, who)?;
        let just_asked =
            reach.asked_at.is_some_and(|at| now.wall.since(at) < ASK_AGAIN && at <= now.wall);
        if just_asked || self.servers.is_empty() {
            return Ok(());
        }
        reach.asked_at = Some(now.wall);
        reach.save(tx, who)?;
        for server in 0..self.servers.len() {
            if !self.servers.get(server).is_some_and(|server| server.may_be_asked(now.instant)) {
                continue;
            }
            let message = Message::Lookup(Lookup::one(*who));
            let call = Call::Lookup { who: *who, server };
            self.call(Target::Rendezvous(server), &[], message, call, now);
        }
        Ok(())
    }

    pub(super) fn lookup_answered(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        server: usize,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        self.heed(server, &result, now);
        let Ok(Message::LookupResponse(response)) = result else { return Ok(()) };
        let Some(peer) = response.peers.into_vec().into_iter().next() else { return Ok(()) };
        let Ok(identity) = peer.identity.verify() else { return Ok(()) };
        if identity.key() != who {
            return Ok(());
        }
        let stands = self.learn_identity(tx, &identity, now)?;
        let mut reach = Reach::of(tx, &who)?;
        let before = reach.clone();
        if stands {
            reach.learn_relays(&identity.data().relays());
        }
        for endpoint in peer.endpoints.into_vec().into_iter().rev() {
            reach.learn_address(endpoint, false);
        }
        reach.save(tx, &who)?;
        let better = reach.addresses != before.addresses || reach.relays != before.relays;
        if better {
            if let Some(lane) = self.lanes.get_mut(&who) {
                lane.wake();
                self.awake.insert(who);
            }
            if self.fetches.contains_key(&who) {
                self.start_fetch(tx, who, now)?;
            }
        }
        Ok(())
    }

    /// Starts a search for listed identities; the command is answered when all servers have
    /// answered, or after ten seconds.
    pub(super) fn search_peers(
        &mut self,
        reply_to: u64,
        name: Option<String>,
        now: Now,
    ) -> Result<(), NodeError> {
        if self.servers.is_empty() {
            return Err(ApiError::refused(
                "no rendezvous server is configured; add one with: sremp rendezvous add HOST:PORT",
            )
            .into());
        }
        let mut search = PeerSearch {
            reply_to,
            name,
            waiting: 0,
            found: Vec::new(),
            until: now.instant + SEARCH_TIME,
            error: None,
        };
        let mut asked = Vec::new();
        for (place, server) in self.servers.iter().enumerate() {
            if server.may_be_asked(now.instant) {
                asked.push(place);
            } else {
                let name = &server.row.endpoint;
                search.error = Some(format!("{name}: it asked not to be asked for a while"));
            }
        }
        search.waiting = asked.len();
        if asked.is_empty() {
            self.end_search(search);
            return Ok(());
        }
        self.searches.insert(reply_to, search);
        for server in asked {
            let message = Message::Lookup(Lookup::listed(None));
            let call = Call::Listing { search: reply_to, server };
            self.call(Target::Rendezvous(server), &[], message, call, now);
        }
        Ok(())
    }

    pub(super) fn listing_answered(
        &mut self,
        tx: &Tx,
        id: u64,
        server: usize,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        self.heed(server, &result, now);
        let Some(mut search) = self.searches.remove(&id) else { return Ok(()) };
        let name = self.servers.get(server).map(|server| server.row.endpoint.to_string());
        match result {
            Ok(Message::LookupResponse(LookupResponse { peers, has_more })) => {
                let mut last = None;
                let names = Lookalikes::of(&Contacts::all(tx)?);
                for peer in peers {
                    let Ok(identity) = peer.identity.verify() else { continue };
                    last = Some(identity.key());
                    let server = name.clone().unwrap_or_default();
                    let view = peer_view(tx, &peer, &identity, server, &names)?;
                    let wanted = search.name.as_ref().is_none_or(|name| *name == view.name);
                    let known = search.found.iter().any(|other| other.id == view.id);
                    if wanted && !known && search.found.len() < MAX_FOUND {
                        search.found.push(view);
                    }
                }
                if has_more && last.is_some() && search.found.len() < MAX_FOUND {
                    let message = Message::Lookup(Lookup::listed(last));
                    let call = Call::Listing { search: id, server };
                    self.call(Target::Rendezvous(server), &[], message, call, now);
                } else {
                    search.waiting = search.waiting.saturating_sub(1);
                }
            }
            other => {
                let why = match other {
                    Err(CallError::Refused(body)) => body.text.to_string(),
                    Err(error) => error.to_string(),
                    Ok(_) => "answered something else".to_owned(),
                };
                search.error = Some(format!("{}: {why}", name.unwrap_or_default()));
                search.waiting = search.waiting.saturating_sub(1);
            }
        }
        if search.waiting == 0 {
            self.end_search(search);
        } else {
            self.searches.insert(id, search);
        }
        Ok(())
    }

    /// Ends searches whose time is over with what was found.
    pub(super) fn end_searches(&mut self, _tx: &Tx, now: Now) -> Result<(), NodeError> {
        let due: Vec<u64> = self
            .searches
            .iter()
            .filter(|(_, search)| search.until <= now.instant)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(search) = self.searches.remove(&id) {
                self.end_search(search);
            }
        }
        Ok(())
    }

    fn end_search(&mut self, mut search: PeerSearch) {
        search.found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        let result = match search.error {
            Some(error) if search.found.is_empty() => {
                Err(ApiError::failed(format!("no server answered the search; {error}")))
            }
            _ => Ok(Reply::Peers(search.found)),
        };
        self.outputs.push_back(Output::Reply { reply_to: search.reply_to, result });
    }

    pub(super) fn server_views(&self) -> Vec<RendezvousView> {
        self.servers.iter().map(Server::view).collect()
    }

    pub(super) fn suggested_views(&self) -> Vec<RendezvousView> {
        let known = |endpoint: &Endpoint| {
            self.servers.iter().any(|server| server.row.endpoint == *endpoint)
        };
        self.suggested
            .shown(known)
            .iter()
            .map(|endpoint| RendezvousView {
                server: endpoint.to_string(),
                ca: None,
                registered: false,
                expires_at: None,
                observed: None,
                suggested: true,
                error: None,
            })
            .collect()
    }
}

fn peer_view(
    tx: &Tx,
    peer: &PeerInfo,
    identity: &sremp_common::identity::VerifiedIdentity,
    server: String,
    names: &Lookalikes,
) -> Result<PeerView, NodeError> {
    let (key, name) = (identity.key(), &identity.data().username);
    Ok(PeerView {
        id: key.to_string(),
        name: name.to_string(),
        alias: Contacts::find(tx, &key)?.and_then(|contact| contact.alias),
        looks_like: names.other_than(&key, name).map(|other| other.to_string()),
        flags: identity.data().flags.into(),
        online: peer.online,
        last_seen: Some(peer.last_seen),
        server,
    })
}

#[cfg(test)]
mod tests {
    use sremp_common::wire::{ErrorBody, ErrorCode};

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    fn server() -> Server {
        let endpoint = "rendezvous.example.org:7332".parse().unwrap();
        Server::new(ServerRow { endpoint, ca: None, invite: None })
    }

    #[test]
    fn r13_a_renewal_comes_after_a_span_whatever_the_servers_clock_says() {
        for year in [0, 1_795_132_800_000, u64::MAX] {
            for (told, waits) in [(0, 10), (300, 300), (7_200, 7_200), (u32::MAX, 43_200)] {
                let mut server = server();
                let expires_at = Timestamp::from_millis(year);
                let answer = Registered { expires_at, renewal_interval: told, observed: None };
                server.registered(answer, at(100));
                assert_eq!(server.wake_at(), Some(at(100 + waits)), "{told}");
            }
        }
    }

    #[test]
    fn a_server_that_asks_for_silence_gets_it() {
        let mut entropy = Entropy::from_number(1);
        for (told, silence) in [(30, 30), (u32::MAX, 3_600)] {
            let error = ErrorBody::new(ErrorCode::RateLimited, "slowly");
            let refused = CallError::Refused(ErrorBody { retry_after: Some(told), ..error });
            let mut server = server();
            server.heed(&refused, at(100));
            server.not_registered(refused.to_string(), &mut entropy, at(100));
            assert!(!server.may_be_asked(at(100 + silence - 1)));
            assert!(server.may_be_asked(at(100 + silence)));
            assert_eq!(server.wake_at(), Some(at(100 + silence)));
        }
        // Nor is it asked sooner because another server was added.
        let mut refusing = server();
        let error = ErrorBody::new(ErrorCode::NotAdmitted, "by invitation");
        refusing.heed(&CallError::Refused(ErrorBody { retry_after: Some(600), ..error }), at(100));
        let row = refusing.row.clone();
        let before = [refusing];
        let after = Server::carried_over(row.clone(), &before);
        assert_eq!((after.wake_at(), after.may_be_asked(at(699))), (Some(at(700)), false));
        let invite = Some(Token::new([1; 16]));
        let invited = Server::carried_over(ServerRow { invite, ..row }, &before);
        assert!(invited.may_be_asked(at(100)) && invited.wake_at() == Some(at(0)));
        // Without a word about it, it is asked again soon.
        let mut server = server();
        server.heed(&CallError::TimedOut, at(100));
        server.not_registered(String::new(), &mut entropy, at(100));
        assert!(server.may_be_asked(at(100)) && server.wake_at() <= Some(at(101)));
    }
}
