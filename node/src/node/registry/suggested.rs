//! Servers that other servers suggest, for a person to consider: shown, never used by themselves.
//!
//! A server may lie (R09). So one list is kept of each, its last one, and all have a turn before
//! one has a second, so that nobody crowds out the suggestions of others.

use std::collections::BTreeMap;

use sremp_common::limit::MAX_SERVERS as MAX_SUGGESTED;
use sremp_common::wire::{Endpoint, List};

/// What each server, by its place, said last.
#[derive(Debug, Default)]
pub(in crate::node) struct Suggested(BTreeMap<usize, Vec<Endpoint>>);

impl Suggested {
    /// A server's list, in place of the one before. What only exists inside somebody's network is
    /// left out, unless such places are allowed.
    pub(super) fn told(
        &mut self,
        place: usize,
        servers: List<Endpoint, MAX_SUGGESTED>,
        allow_private: bool,
    ) {
        let may_be_shown =
            |endpoint: &Endpoint| endpoint.port != 0 && (allow_private || endpoint.may_be_public());
        self.0.insert(place, servers.into_iter().filter(may_be_shown).collect());
    }

    /// The places stand for other servers from now on.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is shown: each once, none that `is_known`.
    pub(super) fn shown(&self, is_known: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
        let mut shown: Vec<Endpoint> = Vec::new();
        for rank in 0..MAX_SUGGESTED {
            for endpoint in self.0.values().filter_map(|list| list.get(rank)) {
                if shown.len() < MAX_SUGGESTED && !shown.contains(endpoint) && !is_known(endpoint) {
                    shown.push(endpoint.clone());
                }
            }
        }
        shown.sort();
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: impl IntoIterator<Item = String>) -> List<Endpoint, MAX_SUGGESTED> {
        List::truncated(names.into_iter().map(|name| name.parse().unwrap()).collect())
    }

    fn names(suggested: &Suggested) -> Vec<String> {
        suggested.shown(|_| false).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn r09_a_poisoned_list_is_bounded_public_and_crowds_out_nobody() {
        let mut suggested = Suggested::default();
        // Ten thousand in a hundred answers, and duplicates: no more than one list stays.
        for answer in 0..100 {
            let flood = (0..100).map(|n| format!("evil{answer}-{}.example.org:7332", n / 2));
            suggested.told(0, list(flood), false);
        }
        assert!(names(&suggested).len() <= MAX_SUGGESTED);
        assert!(names(&suggested).iter().all(|name| name.starts_with("evil99-")));
        // Nowhere inside.
        let inside =
            ["127.0.0.1:7332", "[::1]:7332", "10.0.0.1:7332", "localhost:7332", "nas.local:1"];
        suggested.told(1, list(inside.map(String::from)), false);
        assert!(names(&suggested).iter().all(|name| name.starts_with("evil99-")));
        suggested.told(1, list(inside.map(String::from)), true);
        assert!(names(&suggested).contains(&"127.0.0.1:7332".to_owned()));
        // An honest server is heard beside sixteen of the others.
        for place in 0..16 {
            let flood = (0..64).map(|n| format!("evil{place}-{n}.example.org:7332"));
            suggested.told(place, list(flood), false);
        }
        suggested.told(16, list(["good.example.org:7332".to_owned()]), false);
        assert_eq!(names(&suggested).len(), MAX_SUGGESTED);
        assert!(names(&suggested).contains(&"good.example.org:7332".to_owned()));
        // What is in use is not suggested again.
        let good = "good.example.org:7332".parse().unwrap();
        assert!(!suggested.shown(|endpoint| *endpoint == good).contains(&good));
        suggested.clear();
        assert!(names(&suggested).is_empty());
    }
}
