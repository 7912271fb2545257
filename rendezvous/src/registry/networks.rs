//! How many identities came from one network, so that nobody with few addresses can fill the
//! registry with fresh keys.
//!
//! ```text
//! origins          identity key                       -> network
//! network_counts   network                            -> u64be      identities from there
//! network_expired  network || u64be(forget_at) || key -> nothing    those that have expired
//! ```
//! A network is an IPv4 address or an IPv6 /48, which is what one customer can have. An identity
//! counts for the network of its last registration.

use std::net::IpAddr;

use sremp_common::id::IdentityKey;

use crate::store::{ReadRows, Rows, StoreError, Table};

/// Bytes of a network's row key: one for the family, six for the prefix.
const NETWORK_BYTES: usize = 7;

/// A network, as the rows have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network([u8; NETWORK_BYTES]);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                Self([4, a, b, c, d, 0, 0])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Self([6, a, b, c, d, e, f])
            }
        }
    }

    fn row(self, due: &[u8]) -> Vec<u8> {
        [&self.0, due].concat()
    }
}

/// The network that an identity counts for.
fn origin(rows: &impl ReadRows, key: &[u8]) -> Result<Option<Network>, StoreError> {
    let row = rows.get(Table::Origins, key)?;
    Ok(row.and_then(|bytes| bytes.try_into().ok()).map(Network))
}

/// Identities that count for a network.
pub(super) fn count(rows: &impl ReadRows, network: Network) -> Result<u64, StoreError> {
    let row = rows.get(Table::NetworkCounts, &network.0)?;
    Ok(row.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

fn set_count(rows: &mut impl Rows, network: Network, count: u64) -> Result<(), StoreError> {
    if count == 0 {
        return rows.delete(Table::NetworkCounts, &network.0);
    }
    rows.put(Table::NetworkCounts, &network.0, &count.to_be_bytes())
}

/// The identity counts for `network` from now on.
pub(super) fn assign(
    rows: &mut impl Rows,
    key: &IdentityKey,
    network: Network,
) -> Result<(), StoreError> {
    if origin(rows, key.as_bytes())? == Some(network) {
        return Ok(());
    }
    release(rows, key.as_bytes())?;
    let count = count(rows, network)?;
    set_count(rows, network, count.saturating_add(1))?;
    rows.put(Table::Origins, key.as_bytes(), &network.0)
}

/// The identity counts for no network any more.
pub(super) fn release(rows: &mut impl Rows, key: &[u8]) -> Result<(), StoreError> {
    let Some(network) = origin(rows, key)? else { return Ok(()) };
    let count = count(rows, network)?;
    set_count(rows, network, count.saturating_sub(1))?;
    rows.delete(Table::Origins, key)
}

/// Its registration has expired: `due` is its row among the expired ones.
pub(super) fn expired(rows: &mut impl Rows, key: &[u8], due: &[u8]) -> Result<(), StoreError> {
    match origin(rows, key)? {
        Some(network) => rows.put(Table::NetworkExpired, &network.row(due), &[]),
        None => Ok(()),
    }
}

/// It has come back, or is forgotten.
pub(super) fn not_expired(rows: &mut impl Rows, key: &[u8], due: &[u8]) -> Result<(), StoreError> {
    match origin(rows, key)? {
        Some(network) => rows.delete(Table::NetworkExpired, &network.row(due)),
        None => Ok(()),
    }
}

/// The row, among the expired ones, of the identity of a network that has been expired for longest.
pub(super) fn longest_expired(
    rows: &impl Rows,
    network: Network,
) -> Result<Option<Vec<u8>>, StoreError> {
    let next = rows.next(Table::NetworkExpired, Some(&network.0))?;
    Ok(next.and_then(|(row, _)| row.strip_prefix(&network.0[..]).map(<[u8]>::to_vec)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_what_one_customer_has() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:ffff::9"));
        assert_ne!(of("2001:db8:1::"), of("2001:db8:2::"));
        assert_ne!(of("4.1.2.3"), of("401:203::"));
    }
}
