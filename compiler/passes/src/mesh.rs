//! The ranks of a run as a mesh: axes with a degree each, along which work is shared out, and this rank's place.

use linc_ir::Group;

use crate::error::PassError;

/// What is shared out along an axis; TorchTitan's names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MeshAxis {
    /// Batches. Each rank has all that the optimizer keeps.
    DataReplicate,
    /// Batches. What the optimizer keeps is shared out: ZeRO-1 (arXiv 1910.02054).
    DataShard,
}

impl MeshAxis {
    /// All axes, the outermost first: neighbours along the last are neighbours in the world.
    pub const ALL: [MeshAxis; 2] = [MeshAxis::DataReplicate, MeshAxis::DataShard];

    /// Name in messages and texts.
    pub const fn name(self) -> &'static str {
        match self {
            MeshAxis::DataReplicate => "dp_replicate",
            MeshAxis::DataShard => "dp_shard",
        }
    }
}

/// The mesh, as one rank sees it. Its default is one rank alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mesh {
    rank: usize,
    /// In the order of [`MeshAxis::ALL`].
    degrees: [usize; MeshAxis::ALL.len()],
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh { rank: 0, degrees: [1; MeshAxis::ALL.len()] }
    }
}

impl Mesh {
    /// Rank `rank` of a mesh with those degrees; axes that are not named have degree 1.
    ///
    /// # Errors
    /// [`PassError::Setting`] for a degree of 0, and a rank that the mesh does not have.
    pub fn new(rank: usize, axes: &[(MeshAxis, usize)]) -> Result<Mesh, PassError> {
        let mut mesh = Mesh { rank, ..Mesh::default() };
        let mut world: usize = 1;
        for (axis, degree) in axes {
            mesh.degrees[*axis as usize] = *degree;
        }
        for (axis, degree) in mesh.axes() {
            world = world.saturating_mul(degree);
            if degree == 0 {
                return Err(PassError::Setting(format!(
                    "the degree of {} is 0, it is at least 1",
                    axis.name()
                )));
            }
        }
        if rank >= world {
            return Err(PassError::Setting(format!("rank {rank} of a mesh of {world} ranks")));
        }
        Ok(mesh)
    }

    /// The same mesh as another of its ranks sees it.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn at(&self, rank: usize) -> Result<Mesh, PassError> {
        Mesh::new(rank, &self.axes().collect::<Vec<_>>())
    }

    /// Axes with their degrees, the outermost first.
    pub fn axes(&self) -> impl Iterator<Item = (MeshAxis, usize)> {
        MeshAxis::ALL.into_iter().zip(self.degrees)
    }

    /// How many ranks there are.
    pub fn world(&self) -> usize {
        self.degrees.iter().product()
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are along an axis.
    pub fn degree(&self, axis: MeshAxis) -> usize {
        self.degrees[axis as usize]
    }

    /// The ranks that batches are shared out to.
    pub fn data_ranks(&self) -> usize {
        self.degree(MeshAxis::DataReplicate) * self.degree(MeshAxis::DataShard)
    }

    /// This rank's number among [`Mesh::data_ranks`], by which it takes its batches.
    pub fn data_rank(&self) -> usize {
        self.rank
    }

    /// From a rank to the next along an axis.
    fn stride(&self, axis: MeshAxis) -> usize {
        self.degrees[axis as usize + 1..].iter().product()
    }

    /// The ranks that differ from this one only along an axis.
    pub fn group(&self, axis: MeshAxis) -> Group {
        let (stride, size) = (self.stride(axis), self.degree(axis));
        let place = self.rank / stride % size;
        Group { name: axis.name().into(), first: self.rank - place * stride, stride, size, place, turn: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_the_ranks_along_an_axis() {
        let axes = [(MeshAxis::DataShard, 3), (MeshAxis::DataReplicate, 2)];
        let members = |rank, axis| {
            let group = Mesh::new(rank, &axes).unwrap_or_else(|e| panic!("{e}")).group(axis);
            assert_eq!(group.rank(), rank);
            group.members().collect::<Vec<_>>()
        };
        assert_eq!(members(4, MeshAxis::DataShard), [3, 4, 5]);
        assert_eq!(members(2, MeshAxis::DataShard), [0, 1, 2]);
        assert_eq!(members(4, MeshAxis::DataReplicate), [1, 4]);
        assert_eq!(Mesh::default().group(MeshAxis::DataShard).members().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_rank_is_one_of_the_mesh() {
        let error =
            |rank, degree| Mesh::new(rank, &[(MeshAxis::DataShard, degree)]).map_err(|e| e.to_string());
        assert!(error(2, 2).is_err_and(|e| e.contains("rank 2 of a mesh of 2 ranks")));
        assert!(error(0, 0).is_err_and(|e| e.contains("dp_shard is 0")));
    }
}
