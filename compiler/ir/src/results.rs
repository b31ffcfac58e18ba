//! Named results of a graph, in order, and who they are: outputs and updates.

use std::collections::BTreeMap;
use std::ops::Deref;

use crate::graph::Value;

/// `(key, value)` pairs in order, read as a slice. Which of them have a value is known without a search, since a training
/// step has some updates for each parameter.
#[derive(Clone, Debug)]
pub struct ResultList<K> {
    entries: Vec<(K, Value)>,
    /// Positions of each value, ascending.
    positions: BTreeMap<Value, Vec<usize>>,
}

impl<K> Default for ResultList<K> {
    fn default() -> Self {
        ResultList { entries: vec![], positions: BTreeMap::new() }
    }
}

impl<K> ResultList<K> {
    /// Appends a result.
    pub fn push(&mut self, (key, value): (K, Value)) {
        self.positions.entry(value).or_default().push(self.entries.len());
        self.entries.push((key, value));
    }

    /// Removes the result at a position; those behind it move up.
    ///
    /// # Panics
    /// If there is none.
    pub fn remove(&mut self, position: usize) -> (K, Value) {
        let removed = self.entries.remove(position);
        let rest = std::mem::take(self);
        self.extend(rest.entries);
        removed
    }

    /// Removes all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// True if a result has that value.
    pub fn has(&self, value: Value) -> bool {
        self.positions.contains_key(&value)
    }

    /// The keys of a value, in order.
    pub fn keys_of(&self, value: Value) -> impl Iterator<Item = &K> {
        self.positions.get(&value).into_iter().flatten().map(|position| &self.entries[*position].0)
    }

    /// Gives the results of `old` the value `new`.
    pub fn replace(&mut self, old: Value, new: Value) {
        let Some(moved) = self.positions.remove(&old) else { return };
        for position in &moved {
            self.entries[*position].1 = new;
        }
        let positions = self.positions.entry(new).or_default();
        positions.extend(moved);
        positions.sort_unstable();
    }
}

impl<K> Extend<(K, Value)> for ResultList<K> {
    fn extend<I: IntoIterator<Item = (K, Value)>>(&mut self, entries: I) {
        for entry in entries {
            self.push(entry);
        }
    }
}

impl<K> Deref for ResultList<K> {
    type Target = [(K, Value)];

    fn deref(&self) -> &[(K, Value)] {
        &self.entries
    }
}

impl<'a, K> IntoIterator for &'a ResultList<K> {
    type Item = &'a (K, Value);
    type IntoIter = std::slice::Iter<'a, (K, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}
