//! Requests: Welcomes from people who are not contacts. They wait for the user, and are bounded.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::identity::Identity;
use sremp_common::time::{Now, Timestamp};

use crate::store::{StoreError, Table, Tx, decode_row};

/// Requests that wait at a time, from all strangers together.
pub const MAX_REQUESTS: usize = 32;
/// Requests of one stranger that are kept at a time.
const MAX_REQUESTS_OF_ONE: usize = 2;
/// A request that nobody answered for so long makes room for others. Whoever sent it may ask again.
const REQUEST_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// A Welcome that waits for the user's word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Who invites, as the Welcome proves.
    pub from: IdentityKey,
    /// The identity that came with it, verified.
    pub identity: Identity,
    /// The group.
    pub group: GroupId,
    /// A direct conversation, not a group with a name.
    pub direct: bool,
    /// The group's name.
    pub name: String,
    /// When it came.
    pub received_at: Timestamp,
    /// When the user said no. It is not shown any more, and taken all the same should the user add
    /// its author later.
    #[serde(default)]
    pub declined_at: Option<Timestamp>,
    /// The MLS Welcome.
    #[serde(with = "serde_bytes")]
    pub welcome: Vec<u8>,
}

/// The requests table.
#[derive(Debug)]
pub struct Requests;

impl Requests {
    /// Writes a request, if there is room for it: one with the same group always has room, and those
    /// that were declined make room.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(tx: &Tx, request: &Request) -> Result<bool, StoreError> {
        let all = Self::all(tx)?;
        let is_same = |other: &Request| other.from == request.from && other.group == request.group;
        let of_one = all.iter().filter(|other| other.from == request.from && !is_same(other));
        if of_one.count() >= MAX_REQUESTS_OF_ONE {
            return Ok(false);
        }
        if all.len() >= MAX_REQUESTS && !all.iter().any(is_same) {
            let declined = all.iter().filter(|other| other.declined_at.is_some());
            let Some(oldest) = declined.min_by_key(|other| other.declined_at) else {
                return Ok(false);
            };
            Self::remove(tx, oldest);
        }
        tx.write(Table::Requests, &key(&request.from, &request.group), request)?;
        Ok(true)
    }

    /// The user said no: it is kept for the case that its author becomes a contact after all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn decline(tx: &Tx, mut request: Request, now: Now) -> Result<(), StoreError> {
        request.declined_at = Some(now.wall);
        tx.write(Table::Requests, &key(&request.from, &request.group), &request)
    }

    /// Removes a request that was taken, or is of no use.
    pub fn remove(tx: &Tx, request: &Request) {
        tx.delete(Table::Requests, &key(&request.from, &request.group));
    }

    /// Forgets what nobody answered in time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expire(tx: &Tx, now: Now) -> Result<(), StoreError> {
        for request in Self::all(tx)? {
            if now.wall.since(request.received_at) > REQUEST_LIFETIME {
                Self::remove(tx, &request);
            }
        }
        Ok(())
    }

    /// Those that wait for the user's word.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(tx: &Tx) -> Result<Vec<Request>, StoreError> {
        let all = Self::all(tx)?.into_iter();
        Ok(all.filter(|request| request.declined_at.is_none()).collect())
    }

    /// All that are here, also those that were declined.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(tx: &Tx) -> Result<Vec<Request>, StoreError> {
        tx.scan(Table::Requests, &[], None, MAX_REQUESTS)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Requests, &value))
            .collect()
    }
}

fn key(from: &IdentityKey, group: &GroupId) -> Vec<u8> {
    [from.as_bytes().as_slice(), group.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::identity::{Flags, IdentityData};
    use sremp_common::key::{IdentitySecret, NoiseSecret};
    use sremp_common::name::Username;
    use sremp_common::time::Instant;

    use super::*;
    use crate::store::Store;

    const fn at(millis: u64) -> Now {
        Now { instant: Instant::from_millis(0), wall: Timestamp::from_millis(millis) }
    }

    /// Somebody's requests, for any group.
    fn stranger(entropy: &mut Entropy) -> impl Fn(u8, u64) -> Request + use<> {
        let secret = IdentitySecret::generate(entropy);
        let data = IdentityData {
            username: Username::new("somebody").unwrap(),
            identity_key: secret.public(),
            noise_key: NoiseSecret::generate(entropy).public(),
            flags: Flags::default(),
            extensions: None,
            version: 1,
            created: at(0).wall,
        };
        let identity = data.sign(&secret).unwrap().identity().clone();
        let from = secret.public();
        move |group, millis| Request {
            from,
            identity: identity.clone(),
            group: GroupId::new([group; 16]),
            direct: false,
            name: "circle".to_owned(),
            received_at: at(millis).wall,
            declined_at: None,
            welcome: vec![group],
        }
    }

    #[test]
    fn what_was_declined_is_hidden_kept_and_makes_room() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let mut entropy = Entropy::from_number(5);
        let first = stranger(&mut entropy);
        assert!(Requests::add(&tx, &first(1, 1)).unwrap());
        Requests::decline(&tx, first(1, 1), at(2)).unwrap();
        assert!(Requests::open(&tx).unwrap().is_empty());
        assert_eq!(Requests::all(&tx).unwrap().len(), 1);
        // Invited anew to the same group: asked anew.
        assert!(Requests::add(&tx, &first(1, 3)).unwrap());
        assert_eq!(Requests::open(&tx).unwrap().len(), 1);
        Requests::decline(&tx, first(1, 3), at(4)).unwrap();
        // Nobody fills the room, whether declined or not.
        assert!(Requests::add(&tx, &first(2, 5)).unwrap());
        assert!(!Requests::add(&tx, &first(3, 5)).unwrap());
        for _ in 2..MAX_REQUESTS {
            assert!(Requests::add(&tx, &stranger(&mut entropy)(1, 6)).unwrap());
        }
        assert_eq!(Requests::all(&tx).unwrap().len(), MAX_REQUESTS);
        assert!(
            Requests::add(&tx, &stranger(&mut entropy)(1, 7)).unwrap(),
            "the declined one goes"
        );
        assert_eq!(Requests::open(&tx).unwrap().len(), MAX_REQUESTS);
        assert!(!Requests::add(&tx, &stranger(&mut entropy)(1, 8)).unwrap());
        let late = at(9 + 31 * 86_400_000);
        Requests::expire(&tx, late).unwrap();
        assert!(Requests::all(&tx).unwrap().is_empty());
    }
}
