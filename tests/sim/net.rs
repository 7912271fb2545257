//! The simulated network: connections with latency, in order; they break, and partitions swallow.

use std::collections::{BTreeMap, BTreeSet};

use sremp_common::entropy::Entropy;

/// A machine.
pub type HostId = usize;
/// A machine's own number of a connection.
pub type ConnId = u64;
/// A connection in the world.
pub type LinkId = u64;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Whose.
    pub host: HostId,
    /// Its number there.
    pub conn: ConnId,
}

/// A connection between two ends.
#[derive(Clone, Debug)]
pub struct Link {
    /// Both ends.
    pub ends: [End; 2],
    /// When the last bytes arrive, for each direction: bytes never overtake each other.
    busy_until: [u64; 2],
}

/// All connections, and who cannot reach whom.
#[derive(Debug, Default)]
pub struct Net {
    links: BTreeMap<LinkId, Link>,
    by_end: BTreeMap<End, LinkId>,
    next: LinkId,
    cut: BTreeSet<(HostId, HostId)>,
    /// From whom to whom nothing arrives, although the other direction works.
    silenced: BTreeSet<(HostId, HostId)>,
    /// Milliseconds one way: least, and what comes on top at most.
    latency: (u64, u64),
}

impl Net {
    /// No connections; one way takes between `least` and `least + more` milliseconds.
    #[must_use]
    pub fn with_latency(least: u64, more: u64) -> Self {
        Self { latency: (least, more), ..Self::default() }
    }

    /// Whether nothing passes between two machines.
    #[must_use]
    pub fn is_cut(&self, a: HostId, b: HostId) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Lets nothing pass between two machines; nobody is told.
    pub fn cut(&mut self, a: HostId, b: HostId) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// Swallows what one machine says to another, and not what it hears from it; nobody is told.
    pub fn silence(&mut self, from: HostId, to: HostId) {
        self.silenced.insert((from, to));
    }

    /// Heals every cut; answers the ends of connections that lost bytes in between: they are dead.
    pub fn heal(&mut self) -> Vec<End> {
        let mut cut = std::mem::take(&mut self.cut);
        let silenced = std::mem::take(&mut self.silenced);
        cut.extend(silenced.into_iter().map(|(a, b)| (a.min(b), a.max(b))));
        let dead: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| {
                let [a, b] = link.ends.map(|end| end.host);
                cut.contains(&(a.min(b), a.max(b)))
            })
            .map(|(id, _)| *id)
            .collect();
        dead.into_iter().flat_map(|id| self.remove(id)).collect()
    }

    /// A delay for one way.
    pub fn delay(&self, entropy: &mut Entropy) -> u64 {
        self.latency.0 + entropy.below(self.latency.1 + 1)
    }

    /// Connects two ends.
    pub fn connect(&mut self, from: End, to: End) {
        let id = self.next;
        self.next += 1;
        self.links.insert(id, Link { ends: [from, to], busy_until: [0; 2] });
        self.by_end.insert(from, id);
        self.by_end.insert(to, id);
    }

    /// The other end, and when bytes that leave now get there; `None` when they never do.
    pub fn carry(&mut self, from: End, now: u64, entropy: &mut Entropy) -> Option<(End, u64)> {
        let delay = self.delay(entropy);
        let link = self.links.get_mut(self.by_end.get(&from)?)?;
        let direction = usize::from(link.ends[1] == from);
        let to = link.ends[1 - direction];
        let is_cut = self.cut.contains(&(from.host.min(to.host), from.host.max(to.host)));
        if is_cut || self.silenced.contains(&(from.host, to.host)) {
            return None;
        }
        let at = (now + delay).max(link.busy_until[direction]);
        link.busy_until[direction] = at;
        Some((to, at))
    }

    /// Whether an end is still connected.
    #[must_use]
    pub fn is_open(&self, end: End) -> bool {
        self.by_end.contains_key(&end)
    }

    /// Closes the connection of an end; answers the other end.
    pub fn close(&mut self, end: End) -> Option<End> {
        let id = *self.by_end.get(&end)?;
        self.remove(id).into_iter().find(|other| *other != end)
    }

    /// Closes all connections of a machine; answers the other ends.
    pub fn close_all(&mut self, host: HostId) -> Vec<End> {
        let ids: BTreeSet<LinkId> =
            self.by_end.iter().filter(|(end, _)| end.host == host).map(|(_, id)| *id).collect();
        ids.into_iter().flat_map(|id| self.remove(id)).filter(|end| end.host != host).collect()
    }

    /// Some connection, chosen at random.
    pub fn any(&self, entropy: &mut Entropy) -> Option<End> {
        let links: Vec<&Link> = self.links.values().collect();
        let choice = usize::try_from(entropy.below(links.len() as u64)).ok()?;
        links.get(choice).map(|link| link.ends[0])
    }

    fn remove(&mut self, id: LinkId) -> Vec<End> {
        let Some(link) = self.links.remove(&id) else { return Vec::new() };
        link.ends.iter().for_each(|end| {
            self.by_end.remove(end);
        });
        link.ends.to_vec()
    }
}
