//! The tables in memory: for tests and the simulator. Nothing is durable.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{ReadRows, Row, Rows, StoreError, Table};

/// All tables in one map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRows(BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>);

impl ReadRows for MemoryRows {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&table).and_then(|rows| rows.get(key)).cloned())
    }
}

impl Rows for MemoryRows {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.entry(table).or_default().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.0.entry(table).or_default().remove(key);
        Ok(())
    }

    fn next(&self, table: Table, after: Option<&[u8]>) -> Result<Option<Row>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let row = self
            .0
            .get(&table)
            .and_then(|rows| rows.range::<[u8], _>((from, Bound::Unbounded)).next());
        Ok(row.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn count(&self, table: Table) -> Result<u64, StoreError> {
        let count = self.0.get(&table).map_or(0, BTreeMap::len);
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }
}
