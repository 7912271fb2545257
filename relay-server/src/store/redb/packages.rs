//! The stock of key packages. Used seldom, so its tables are opened when they are needed.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};
use sremp_common::hash::sha256;
use sremp_common::id::IdentityKey;
use sremp_common::identity::Identity;
use sremp_common::wire::{decode, encode};

use super::backup::Copy;
use super::rows::{OwnerName, OwnerNumber, join, number_at_end, owner_name, owner_number};
use crate::store::{PACKAGES_REMEMBERED, Publication, StoreError};

const IDENTITIES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("relay.identities");
const LAST_RESORTS: TableDefinition<'_, &[u8; 32], &[u8]> =
    TableDefinition::new("relay.last_resorts");
const PACKAGES: TableDefinition<'_, &OwnerNumber, &[u8]> = TableDefinition::new("relay.packages");
const PACKAGE_NAMES: TableDefinition<'_, &OwnerName, u64> =
    TableDefinition::new("relay.package_names");

/// The name of a key package: enough of its digest.
fn name_of(key_package: &[u8]) -> [u8; 16] {
    join(&[&sha256(key_package)])
}

pub(super) fn identity(
    transaction: &WriteTransaction,
    owner: &IdentityKey,
) -> Result<Option<Identity>, StoreError> {
    let identities = transaction.open_table(IDENTITIES)?;
    let row = identities.get(owner.as_bytes())?;
    row.map(|row| decode(row.value()).map_err(|_| StoreError::Corrupt("identity"))).transpose()
}

pub(super) fn last_resort(
    transaction: &WriteTransaction,
    owner: &IdentityKey,
) -> Result<Option<Vec<u8>>, StoreError> {
    let last_resorts = transaction.open_table(LAST_RESORTS)?;
    let row = last_resorts.get(owner.as_bytes())?;
    Ok(row.map(|row| row.value().to_vec()))
}

pub(super) fn copy(copy: &mut Copy<'_>) -> Result<(), StoreError> {
    copy.table(IDENTITIES)?;
    copy.table(LAST_RESORTS)?;
    copy.table(PACKAGES)?;
    copy.table(PACKAGE_NAMES)
}

/// Takes the oldest key package out of the stock.
pub(super) fn take(
    transaction: &WriteTransaction,
    owner: &IdentityKey,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut packages = transaction.open_table(PACKAGES)?;
    let (from, until) = (owner_number(owner, 0), owner_number(owner, u64::MAX));
    let first = match packages.range::<&OwnerNumber>(&from..=&until)?.next() {
        Some(row) => *row?.0.value(),
        None => return Ok(None),
    };
    let row = packages.remove(&first)?;
    Ok(row.map(|row| row.value().to_vec()))
}

/// Adds to the stock; gives its size.
pub(super) fn publish(
    transaction: &WriteTransaction,
    owner: &IdentityKey,
    publication: &Publication<'_>,
    limit: u32,
) -> Result<u32, StoreError> {
    let mut packages = transaction.open_table(PACKAGES)?;
    let mut names = transaction.open_table(PACKAGE_NAMES)?;

    let mut stock = BTreeMap::new();
    let (from, until) = (owner_number(owner, 0), owner_number(owner, u64::MAX));
    for row in packages.range::<&OwnerNumber>(&from..=&until)? {
        let (key, package) = row?;
        stock.insert(number_at_end(key.value()), name_of(package.value()));
    }
    let mut known = BTreeMap::new();
    let (from, until) = (owner_name(owner, &[0; 16]), owner_name(owner, &[255; 16]));
    for row in names.range::<&OwnerName>(&from..=&until)? {
        let (key, number) = row?;
        known.insert(number.value(), *key.value());
    }
    let mut next = known.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));

    if publication.replace {
        // These were not handed out: they may come back.
        for (number, name) in std::mem::take(&mut stock) {
            packages.remove(&owner_number(owner, number))?;
            names.remove(&owner_name(owner, &name))?;
            known.remove(&number);
        }
    }
    let mut count = u32::try_from(stock.len()).unwrap_or(u32::MAX);
    for package in publication.key_packages {
        let key = owner_name(owner, &name_of(package));
        if count >= limit || names.get(&key)?.is_some() {
            continue;
        }
        packages.insert(&owner_number(owner, next), &**package)?;
        names.insert(&key, next)?;
        known.insert(next, key);
        next = next.saturating_add(1);
        count = count.saturating_add(1);
    }
    // The lowest numbers are gone longest: the stock is handed out in ascending order, and it is
    // smaller than what is remembered.
    while u64::try_from(known.len()).unwrap_or(u64::MAX) > PACKAGES_REMEMBERED {
        let Some((_, key)) = known.pop_first() else { break };
        names.remove(&key)?;
    }

    let owner_key = owner.as_bytes();
    transaction
        .open_table(IDENTITIES)?
        .insert(owner_key, encode(publication.identity).as_slice())?;
    if let Some(last_resort) = publication.last_resort {
        transaction.open_table(LAST_RESORTS)?.insert(owner_key, last_resort)?;
    }
    Ok(count)
}

/// Deletes everything of an owner.
pub(super) fn forget(
    transaction: &WriteTransaction,
    owner: &IdentityKey,
) -> Result<(), StoreError> {
    let (from, until) = (owner_number(owner, 0), owner_number(owner, u64::MAX));
    transaction.open_table(PACKAGES)?.retain_in::<&OwnerNumber, _>(&from..=&until, |_, _| false)?;
    let (from, until) = (owner_name(owner, &[0; 16]), owner_name(owner, &[255; 16]));
    transaction
        .open_table(PACKAGE_NAMES)?
        .retain_in::<&OwnerName, _>(&from..=&until, |_, _| false)?;
    transaction.open_table(IDENTITIES)?.remove(owner.as_bytes())?;
    transaction.open_table(LAST_RESORTS)?.remove(owner.as_bytes())?;
    Ok(())
}
