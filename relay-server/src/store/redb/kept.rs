//! Rows that one transaction reads and writes again and again: a mailbox with its counters, the use of
//! a token. They are read once and written once, however many messages come and go between; most of
//! the work of a message at the store would be these rows.

use std::collections::BTreeMap;

/// Rows of one table that are kept at most. A batch that touches more writes them, and begins anew.
const MAX_KEPT: usize = 4096;

/// What is known of some rows of one table.
#[derive(Debug)]
pub(super) struct Kept<K, R> {
    rows: BTreeMap<K, Row<R>>,
}

#[derive(Clone, Copy, Debug)]
struct Row<R> {
    value: R,
    /// The table has another value.
    is_changed: bool,
}

impl<K: Ord, R: Copy> Kept<K, R> {
    pub(super) const fn new() -> Self {
        Self { rows: BTreeMap::new() }
    }

    pub(super) fn get(&self, key: &K) -> Option<R> {
        self.rows.get(key).map(|row| row.value)
    }

    /// No more rows may be added before those that are here were written.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= MAX_KEPT
    }

    /// Notes what was read from the table.
    pub(super) fn read(&mut self, key: K, value: R) {
        self.rows.insert(key, Row { value, is_changed: false });
    }

    /// Notes what is to be written into the table.
    pub(super) fn write(&mut self, key: K, value: R) {
        self.rows.insert(key, Row { value, is_changed: true });
    }

    pub(super) fn forget(&mut self, key: &K) {
        self.rows.remove(key);
    }

    /// Everything that is to be written, in the table's order; nothing is known after it.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (K, R)> + use<K, R> {
        let rows = std::mem::take(&mut self.rows);
        rows.into_iter().filter(|(_, row)| row.is_changed).map(|(key, row)| (key, row.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_taken_and_what_was_read_is_not() {
        let mut kept = Kept::new();
        kept.read(3, 30);
        kept.write(2, 20);
        kept.write(1, 10);
        kept.write(3, 31);
        kept.read(4, 40);
        kept.write(5, 50);
        kept.forget(&5);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|key| kept.get(&key)),
            [Some(10), Some(20), Some(31), Some(40), None]
        );
        assert_eq!(kept.take().collect::<Vec<_>>(), [(1, 10), (2, 20), (3, 31)]);
        assert_eq!(kept.get(&1), None);
        (0..MAX_KEPT).for_each(|key| kept.read(key, 0));
        assert!(kept.is_full());
    }
}
