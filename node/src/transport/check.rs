//! What is always true of a transport: checked at every entry in debug builds, and by simulators
//! after every step.

use std::collections::BTreeSet;

use super::Transport;
use super::link::LinkKey;
use super::session::Way;

impl Transport {
    pub(super) fn debug_check(&self) {
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    /// Checks that every call is in exactly one place, and that links and sessions name each
    /// other.
    ///
    /// # Panics
    /// When an invariant is broken, which is a defect of this module: nothing that a peer sends
    /// may lead there. Release builds do not call it.
    pub fn check_invariants(&self) {
        self.check_calls();
        self.check_links();
        self.check_sessions();
    }

    fn check_calls(&self) {
        let mut placed = BTreeSet::new();
        let waiting = self.links.values().flat_map(|link| link.waiting.iter().copied());
        let sent = self
            .sessions
            .values()
            .filter_map(|session| session.open.as_ref())
            .flat_map(|open| open.outstanding.values().copied());
        let at_servers = self.servers.iter().flat_map(|server| server.calls());
        for id in waiting.chain(sent).chain(at_servers) {
            assert!(placed.insert(id), "a call is in two places");
        }
        let known: BTreeSet<_> = self.calls.iter().map(|(id, _)| id).collect();
        assert_eq!(placed, known, "a call is nowhere, or answered and still somewhere");
    }

    fn check_links(&self) {
        for (key, link) in &self.links {
            assert!(
                link.session.is_none() || link.dial.is_none(),
                "a link with a session goes on dialling"
            );
            assert!(link.session.is_some() || link.dial.is_some(), "a link without a purpose");
            assert!(!self.rejected.contains(key.identity()), "a link to somebody rejected");
            if let Some(conn) = link.session {
                let session = self.sessions.get(&conn);
                assert!(
                    session.is_some_and(|session| session.open.is_some()),
                    "a link names a session that is not open"
                );
            }
            for conn in link.dial.iter().flat_map(|dial| dial.attempts()) {
                let session = self.sessions.get(conn);
                assert!(
                    session.is_some_and(|session| session.open.is_none()),
                    "a dial names an attempt that is none"
                );
            }
        }
    }

    fn check_sessions(&self) {
        for (conn, session) in &self.sessions {
            let link = match (session.way, session.peer_key()) {
                (Way::Dialled(key), _) => key,
                (Way::Accepted(_), Some(key)) => LinkKey::Identified(key),
                (Way::Accepted(_), None) => continue,
            };
            let link = self.links.get(&link);
            let is_named = link.is_some_and(|link| {
                link.session == Some(*conn)
                    || link.dial.as_ref().is_some_and(|dial| dial.attempts().contains(conn))
            });
            assert!(is_named, "a session that its link does not know");
            assert_eq!(
                session.open.is_some(),
                session.deadline.is_none(),
                "an open session has no deadline, any other has one"
            );
        }
    }
}
