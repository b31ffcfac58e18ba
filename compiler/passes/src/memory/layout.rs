//! Where persistent tensors lie: once and for all programs of one arena, by name.
//!
//! Parameters lie side by side in one range, and so do the states of one role (all first moments), in the
//! order of their parameters: one kernel updates them all. What decides that order is the model alone, not which
//! passes are on; and the optimizer's groups, each of which has a range of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use linc_ir::{Graph, NodeId, Op, ParamState, StateRole, Value};

use super::{ALIGN, is_persistent};
use crate::error::PassError;

/// Byte offsets of persistent tensors by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PersistentLayout {
    places: BTreeMap<String, PersistentRange>,
    /// Parameters that lie behind all others: the number of their range, from 1.
    ranks: BTreeMap<String, usize>,
    /// Parameters that are placed together are followed by room up to a multiple of so many bytes; 0 for none.
    multiple: u64,
    /// Size of the persistent part.
    pub bytes: u64,
}

/// Bytes of the persistent part.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PersistentRange {
    offset: u64,
    bytes: u64,
}

impl PersistentLayout {
    /// A layout that has the parameters of each of these groups side by side; one that is in several belongs to the first.
    pub fn grouped<'n>(groups: impl IntoIterator<Item = &'n BTreeSet<String>>) -> Self {
        let mut ranks = BTreeMap::new();
        for (group, names) in groups.into_iter().enumerate() {
            for name in names {
                ranks.entry(name.clone()).or_insert(group + 1);
            }
        }
        PersistentLayout { ranks, ..PersistentLayout::default() }
    }

    /// Has room behind each range of parameters up to a multiple of so many elements of f32, for who takes them in equal parts.
    ///
    /// # Errors
    /// [`PassError::Setting`] where parameters are placed already, with other room.
    pub fn pad_params(&mut self, elements: usize) -> Result<(), PassError> {
        let multiple = if elements > 1 { elements as u64 * size_of::<f32>() as u64 } else { 0 };
        if self.multiple != multiple && !self.places.is_empty() {
            return Err(PassError::Setting(
                "programs of one arena share their parameters out to different numbers of ranks".into(),
            ));
        }
        self.multiple = multiple;
        Ok(())
    }

    /// Bytes from the end of a tensor to the next one, or to the end of all.
    pub fn room_behind(&self, name: &str) -> u64 {
        let Some(place) = self.places.get(name) else { return 0 };
        let end = place.offset + place.bytes;
        let later = self.places.values().map(|other| other.offset).filter(|start| *start >= end);
        later.min().unwrap_or(self.bytes) - end
    }

    fn rank(&self, name: &str) -> usize {
        self.ranks.get(name).copied().unwrap_or(0)
    }

    /// Where a tensor lies, if it is known.
    pub fn offset(&self, name: &str) -> Option<u64> {
        self.places.get(name).map(|place| place.offset)
    }

    /// Appends the parameters that are not placed yet, members of a group next to each other. What is more than once
    /// in `groups` belongs to the first.
    ///
    /// There are no gaps within a range. The better a size is aligned the earlier it comes, so each tensor or group is aligned as well
    /// as its own size, to at most [`ALIGN`].
    pub fn place_params(&mut self, graph: &Graph, groups: &[Vec<NodeId>]) {
        let mut units: Vec<Vec<NodeId>> = vec![];
        let mut taken: BTreeSet<NodeId> = BTreeSet::new();
        let mut group_of: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (group, ids) in groups.iter().enumerate() {
            for id in ids {
                group_of.entry(*id).or_insert(group);
            }
        }
        for id in graph.nodes().filter(|id| matches!(graph.op(*id), Op::Param { .. })) {
            let mut unit: Vec<NodeId> = group_of.get(&id).map_or(vec![id], |group| groups[*group].clone());
            unit.retain(|id| self.offset(name(graph, *id)).is_none() && taken.insert(*id));
            units.push(unit);
        }
        let bytes = |unit: &Vec<NodeId>| unit.iter().map(|id| size(graph, *id)).sum::<u64>();
        units.sort_by_key(|unit| Reverse((bytes(unit) | ALIGN).trailing_zeros()));
        let mut ranges: BTreeMap<usize, Vec<NodeId>> = BTreeMap::new();
        for unit in units {
            let rank = unit.first().map_or(0, |id| self.rank(name(graph, *id)));
            ranges.entry(rank).or_default().extend(unit);
        }
        for range in ranges.into_values() {
            let start = self.bytes;
            let used: u64 = range.iter().map(|id| size(graph, *id)).sum();
            self.append(graph, range);
            if self.multiple > 0 {
                self.bytes = self.bytes.max(start + used.next_multiple_of(self.multiple));
            }
        }
    }

    /// Appends all other persistent leaves that are not placed yet.
    ///
    /// # Errors
    /// [`PassError::Setting`] for a leaf whose place was made for another size: in two programs of one arena a parameter may not
    /// depend on the shape of the batch, nor a cache on the context, where those differ.
    pub fn extend(&mut self, graph: &Graph) -> Result<(), PassError> {
        for id in graph.nodes().filter(|id| is_persistent(graph.op(*id))) {
            let (name, bytes) = (name(graph, id), size(graph, id));
            if let Some(place) = self.places.get(name).filter(|place| place.bytes != bytes) {
                return Err(PassError::Setting(format!(
                    "{name} takes {bytes} bytes in this program and {} in another that shares it: its shape depends on the batch, the length of sequences or the context, which must then be the same in both",
                    place.bytes
                )));
            }
        }
        self.place_params(graph, &[]);
        let params: BTreeMap<&str, u64> = graph
            .nodes()
            .filter(|id| matches!(graph.op(*id), Op::Param { .. }))
            .filter_map(|id| Some((name(graph, id), self.offset(name(graph, id))?)))
            .collect();
        let mut roles: BTreeMap<(ParamState, usize), BTreeMap<u64, NodeId>> = BTreeMap::new();
        let mut alone = vec![];
        for id in graph.nodes().filter(|id| is_persistent(graph.op(*id))) {
            if self.offset(name(graph, id)).is_some() {
                continue;
            }
            let of_param = match graph.op(id) {
                Op::State {
                    role: StateRole::OfParam { state, of } | StateRole::OfShard { state, of, .. },
                    ..
                } => params.get(of.as_str()).map(|at| ((*state, self.rank(of)), *at)),
                _ => None,
            };
            match of_param {
                Some((range, at)) => {
                    roles.entry(range).or_default().insert(at, id);
                }
                None => alone.push(id),
            }
        }
        for states in roles.into_values() {
            self.append(graph, states.into_values());
        }
        for id in alone {
            self.append(graph, [id]);
        }
        Ok(())
    }

    /// Places leaves side by side; what comes next begins aligned.
    fn append(&mut self, graph: &Graph, leaves: impl IntoIterator<Item = NodeId>) {
        for id in leaves {
            let place = PersistentRange { offset: self.bytes, bytes: size(graph, id) };
            self.places.insert(name(graph, id).to_string(), place);
            self.bytes += place.bytes;
        }
        self.bytes = self.bytes.next_multiple_of(ALIGN);
    }
}

fn name(graph: &Graph, id: NodeId) -> &str {
    graph.op(id).leaf_name().unwrap_or_default()
}

fn size(graph: &Graph, id: NodeId) -> u64 {
    graph.ty(Value { node: id, port: 0 }).bytes() as u64
}
