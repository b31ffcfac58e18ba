//! What the optimizer keeps, of which each rank may have a part: whole for checkpoints, which know no ranks.

use std::collections::BTreeMap;

use linc_device::available_memory::zeroed;
use linc_exec::{ExecError, Executor, TensorInfo};
use linc_plan::Role;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::team::Team;

/// The optimizer's states of all ranks, by name.
pub(super) struct Kept {
    tensors: BTreeMap<String, Whole>,
}

/// One of them.
struct Whole {
    shape: Vec<usize>,
    /// Bytes of an element.
    width: usize,
    /// Who has what of it, each part once, in the order of elements; one part of the first rank where all ranks have all.
    parts: Vec<Part>,
}

/// Elements that a rank has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Part {
    start: usize,
    rank: usize,
    len: usize,
}

/// What a rank says of a tensor.
#[derive(Serialize, Deserialize)]
struct Said {
    name: String,
    shape: Vec<usize>,
    width: usize,
    start: usize,
    len: usize,
}

impl Said {
    fn of(tensor: TensorInfo) -> Said {
        let whole = tensor.shape.iter().product();
        let (start, len) = tensor.shard.map_or((0, whole), |shard| (shard.start, shard.len));
        Said { name: tensor.name, shape: tensor.shape, width: tensor.dtype.bytes() as usize, start, len }
    }
}

impl Kept {
    /// Of all ranks, each of which calls this.
    ///
    /// # Errors
    /// [`TrainError::OfRank`] where parts do not make up a whole, which is a fault of linc; and as all that is exchanged.
    pub(super) fn of_all(team: &Team, executor: &Executor) -> Result<Kept, TrainError> {
        let mine: Vec<Said> = executor.tensors(Role::is_optimizer_state).into_iter().map(Said::of).collect();
        let all = match team.is_alone() {
            true => vec![mine],
            false => team.gather_values("the optimizer's states", &mine)?,
        };
        let mut tensors: BTreeMap<String, Whole> = BTreeMap::new();
        for (rank, said) in all.into_iter().enumerate() {
            for Said { name, shape, width, start, len } in said {
                let whole = tensors.entry(name).or_insert_with(|| Whole { shape, width, parts: vec![] });
                whole.parts.push(Part { start, rank, len });
            }
        }
        for (name, whole) in &mut tensors {
            // Replicas have the same parts: the first one that has it speaks for it.
            whole.parts.sort_unstable();
            whole.parts.dedup_by_key(|part| part.start);
            let end =
                whole.parts.iter().try_fold(0, |end, part| (part.start == end).then_some(end + part.len));
            if end != Some(whole.shape.iter().product()) {
                let message =
                    format!("the ranks do not have all of {name} between them: this is a fault of linc");
                return Err(TrainError::OfRank { rank: 0, message });
            }
        }
        Ok(Kept { tensors })
    }

    /// Names and shapes of the whole tensors.
    pub(super) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.tensors.iter().map(|(name, whole)| (name.clone(), whole.shape.clone())).collect()
    }

    /// Whether other ranks than the first have parts of a tensor that it lacks.
    pub(super) fn is_spread(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|whole| whole.parts.iter().any(|part| part.rank > 0))
    }

    /// Names of the tensors of which other ranks have parts, in order.
    pub(super) fn spread(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str).filter(|name| self.is_spread(name))
    }

    /// The contents of a whole tensor, on the first rank; on the others, which hand over what they have of it, nothing. All ranks call
    /// this where it is [spread](Kept::is_spread), in one order.
    ///
    /// # Errors
    /// What the device refuses; and as all that is exchanged.
    pub(super) fn read(&self, name: &str, executor: &Executor, team: &Team) -> Result<Vec<u8>, TrainError> {
        let Some(whole) = self.tensors.get(name).filter(|_| self.is_spread(name)) else {
            return Ok(if team.is_first() { executor.read_tensor(name)? } else { vec![] });
        };
        // What the first rank has to do before it asks for this may take minutes: the others wait as long as it gives signs, and
        // no longer than any exchange once they are in one.
        team.attend_to_first(name)?;
        let numel: usize = whole.shape.iter().product();
        let mut bytes =
            if team.is_first() { zeroed(numel * whole.width).map_err(ExecError::from)? } else { vec![] };
        for part in &whole.parts {
            let place = part.start * whole.width..(part.start + part.len) * whole.width;
            match (part.rank == team.rank(), team.is_first()) {
                (true, true) => bytes[place].copy_from_slice(&executor.read_tensor(name)?),
                (true, false) => team.hand_to_first(name, part.rank, &mut executor.read_tensor(name)?)?,
                (false, true) => team.hand_to_first(name, part.rank, &mut bytes[place])?,
                (false, false) => {}
            }
        }
        Ok(bytes)
    }
}
