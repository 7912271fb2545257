//! One transaction: reads through two overlays into the database.
//!
//! The upper overlay belongs to the current input. [`Tx::accept`] moves it into the lower one, which
//! belongs to the batch; [`Tx::refuse`] drops it. The lower one is written into redb's transaction
//! once, at the end (or earlier, when it grows large): a row that every input of a batch rewrites, as
//! the ratchet of a busy conversation is, reaches the database once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Durability, ReadOnlyTable, ReadTransaction, ReadableTable, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{StoreError, Table};

/// Bytes that the batch's overlay may hold before it is written into the database's transaction.
const MAX_OVERLAY_BYTES: usize = 16 * 1024 * 1024;

/// Clears the store's flag when the transaction ends, however it ends.
#[derive(Debug)]
pub(super) struct OpenGuard(pub(super) Arc<AtomicBool>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

type Row = (Vec<u8>, Vec<u8>);
type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
type Snapshot = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One transaction over one batch of inputs. Dropped without [`Self::commit`], it changes nothing.
///
/// All methods take `&self`, because OpenMLS does; no method calls out while it borrows.
pub struct Tx {
    state: RefCell<State>,
    writer: WriteTransaction,
    // After the transactions: the next one may begin only when they are gone.
    _guard: OpenGuard,
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tx")
    }
}

struct State {
    reader: ReadTransaction,
    /// Tables of the snapshot that were opened; `Some(None)` when the table does not exist yet.
    snapshots: BTreeMap<Table, Option<Snapshot>>,
    input: BTreeMap<Table, Rows>,
    batch: BTreeMap<Table, Rows>,
    batch_bytes: usize,
    /// Rows of the batch were written: reads have to go through the writer from now on.
    flushed: bool,
    /// Something was accepted, or written directly: there is something to commit.
    dirty: bool,
}

impl Tx {
    pub(super) fn new(
        guard: OpenGuard,
        reader: ReadTransaction,
        mut writer: WriteTransaction,
    ) -> Result<Self, StoreError> {
        writer.set_durability(Durability::Immediate)?;
        writer.set_two_phase_commit(true);
        writer.set_quick_repair(true);
        let state = State {
            reader,
            snapshots: BTreeMap::new(),
            input: BTreeMap::new(),
            batch: BTreeMap::new(),
            batch_bytes: 0,
            flushed: false,
            dirty: false,
        };
        Ok(Self { state: RefCell::new(state), writer, _guard: guard })
    }

    /// The value of a row, as this input sees it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut state = self.state.borrow_mut();
        for overlay in [&state.input, &state.batch] {
            if let Some(value) = overlay.get(&table).and_then(|rows| rows.get(key)) {
                return Ok(value.clone());
            }
        }
        if state.flushed {
            let rows = self.writer.open_table(table.definition())?;
            return Ok(rows.get(key)?.map(|value| value.value().to_vec()));
        }
        match state.snapshot(table)? {
            Some(rows) => Ok(rows.get(key)?.map(|value| value.value().to_vec())),
            None => Ok(None),
        }
    }

    /// Writes a row.
    pub fn put(&self, table: Table, key: &[u8], value: Vec<u8>) {
        self.set(table, key.to_vec(), Some(value));
    }

    /// Deletes a row, if it exists.
    pub fn delete(&self, table: Table, key: &[u8]) {
        self.set(table, key.to_vec(), None);
    }

    fn set(&self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.state.borrow_mut().input.entry(table).or_default().insert(key, value);
    }

    /// At most `limit` rows with keys from `from` (inclusive) until `until` (exclusive), ascending.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        until: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.range(table, from, until, limit, false)
    }

    /// At most `limit` rows with keys from `from` (inclusive) until `until` (exclusive), descending.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn scan_back(
        &self,
        table: Table,
        from: &[u8],
        until: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.range(table, from, Some(until), limit, true)
    }

    /// At most `limit` rows whose keys begin with `prefix`, ascending.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn scan_prefix(
        &self,
        table: Table,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.scan(table, prefix, after_prefix(prefix).as_deref(), limit)
    }

    fn range(
        &self,
        table: Table,
        from: &[u8],
        until: Option<&[u8]>,
        limit: usize,
        back: bool,
    ) -> Result<Vec<Row>, StoreError> {
        if until.is_some_and(|until| from >= until) {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(from), until.map_or(Bound::Unbounded, Bound::Excluded));
        let mut state = self.state.borrow_mut();
        let mut changed: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for overlay in [&state.batch, &state.input] {
            let Some(rows) = overlay.get(&table) else { continue };
            for (key, value) in rows.range::<[u8], _>(bounds) {
                changed.insert(key.clone(), value.clone());
            }
        }
        if state.flushed {
            let rows = self.writer.open_table(table.definition())?;
            return merge(Some(&rows), bounds, changed, limit, back);
        }
        merge(state.snapshot(table)?, bounds, changed, limit, back)
    }

    /// The value of a row, decoded.
    ///
    /// # Errors
    /// [`StoreError::Row`] when it does not decode, [`StoreError::Database`].
    pub fn read<T: DeserializeOwned>(
        &self,
        table: Table,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.get(table, key)? else { return Ok(None) };
        decode_row(table, &bytes).map(Some)
    }

    /// Encodes a value with the names of its fields, so that fields can be added, and writes it.
    ///
    /// # Errors
    /// [`StoreError::Encode`].
    pub fn write<T: Serialize>(
        &self,
        table: Table,
        key: &[u8],
        value: &T,
    ) -> Result<(), StoreError> {
        let bytes = rmp_serde::to_vec_named(value).map_err(|_| StoreError::Encode(table))?;
        self.put(table, key, bytes);
        Ok(())
    }

    /// Ends an input: what it wrote belongs to the batch now.
    ///
    /// # Errors
    /// [`StoreError::Database`]: then the transaction is of no more use.
    pub fn accept(&self) -> Result<(), StoreError> {
        let mut state = self.state.borrow_mut();
        let input = std::mem::take(&mut state.input);
        for (table, rows) in input {
            state.dirty |= !rows.is_empty();
            let mut bytes = 0_usize;
            let batch = state.batch.entry(table).or_default();
            for (key, value) in rows {
                let row_bytes = key.len().saturating_add(value.as_ref().map_or(0, Vec::len));
                bytes = bytes.saturating_add(row_bytes);
                batch.insert(key, value);
            }
            state.batch_bytes = state.batch_bytes.saturating_add(bytes);
        }
        if state.batch_bytes > MAX_OVERLAY_BYTES {
            self.flush(&mut state)?;
        }
        Ok(())
    }

    /// Ends an input as if it had never come.
    pub fn refuse(&self) {
        self.state.borrow_mut().input.clear();
    }

    /// Writes the batch's rows into the database's transaction, in the order of their keys.
    fn flush(&self, state: &mut State) -> Result<(), StoreError> {
        for (table, rows) in std::mem::take(&mut state.batch) {
            let mut target = self.writer.open_table(table.definition())?;
            for (key, value) in rows {
                match value {
                    Some(value) => drop(target.insert(key.as_slice(), value.as_slice())?),
                    None => drop(target.remove(key.as_slice())?),
                }
            }
        }
        state.batch_bytes = 0;
        state.flushed = true;
        Ok(())
    }

    /// Hands out the database's transaction, for tables that are not in [`Table`]. What `f` writes is
    /// committed with the batch and is not undone by [`Self::refuse`].
    pub fn with_transaction<R>(&self, f: impl FnOnce(&WriteTransaction) -> R) -> R {
        self.state.borrow_mut().dirty = true;
        f(&self.writer)
    }

    /// Whether [`Self::commit`] would write anything.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.state.borrow().dirty
    }

    /// Makes everything that was accepted durable. What the last input left unaccepted is dropped.
    /// When nothing was accepted, nothing is written and nothing waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Database`]: it is not known what reached the disk, so start again from there.
    pub fn commit(self) -> Result<(), StoreError> {
        let mut state = self.state.borrow_mut();
        if !state.dirty {
            drop(state);
            self.writer.abort()?;
            return Ok(());
        }
        self.flush(&mut state)?;
        drop(state);
        self.writer.commit()?;
        Ok(())
    }
}

impl State {
    fn snapshot(&mut self, table: Table) -> Result<Option<&Snapshot>, StoreError> {
        if !self.snapshots.contains_key(&table) {
            let opened = match self.reader.open_table(table.definition()) {
                Ok(opened) => Some(opened),
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                Err(error) => return Err(error.into()),
            };
            self.snapshots.insert(table, opened);
        }
        Ok(self.snapshots.get(&table).and_then(Option::as_ref))
    }
}

/// The first key after all keys that begin with `prefix`; none when there is no such key.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// Merges the rows of the database with what was changed since, in one order.
fn merge(
    rows: Option<&impl ReadableTable<&'static [u8], &'static [u8]>>,
    bounds: (Bound<&[u8]>, Bound<&[u8]>),
    changed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    limit: usize,
    back: bool,
) -> Result<Vec<Row>, StoreError> {
    let mut stored = match rows {
        Some(rows) => Some(rows.range::<&[u8]>(bounds)?),
        None => None,
    };
    let mut changed = changed.into_iter();
    let mut next_stored = || -> Result<Option<Row>, StoreError> {
        let next =
            stored.as_mut().and_then(|rows| if back { rows.next_back() } else { rows.next() });
        let Some(row) = next else { return Ok(None) };
        let (key, value) = row?;
        Ok(Some((key.value().to_vec(), value.value().to_vec())))
    };
    let mut next_changed = || if back { changed.next_back() } else { changed.next() };

    let mut found = Vec::new();
    let (mut stored_row, mut changed_row) = (next_stored()?, next_changed());
    while found.len() < limit {
        let order = match (&stored_row, &changed_row) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((stored, _)), Some((changed, _))) if back => changed.cmp(stored),
            (Some((stored, _)), Some((changed, _))) => stored.cmp(changed),
        };
        if order.is_le() {
            let row = std::mem::replace(&mut stored_row, next_stored()?);
            // An equal key was changed since: the change is what counts.
            if order.is_lt() {
                found.extend(row);
            }
        }
        if order.is_ge()
            && let Some((key, value)) = std::mem::replace(&mut changed_row, next_changed())
            && let Some(value) = value
        {
            found.push((key, value));
        }
    }
    Ok(found)
}

/// The value of a row that a scan gave.
///
/// # Errors
/// [`StoreError::Row`] when it does not decode.
pub fn decode_row<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|_| StoreError::Row(table))
}
