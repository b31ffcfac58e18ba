//! What the degrees and sizes of a config come to for the ranks that there are.

use linc_config::ConfigError;
use linc_device::words::count;
use linc_driver::{CompileError, Mesh, MeshAxis, OptimizerOptions, ParamGroup, UpdateRule};

use crate::config::JobConfig;

/// What the settings come to for a number of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// This process among those that share a step, from 0.
    pub(super) rank: usize,
    /// How many processes share a step.
    pub(super) ranks: usize,
    /// How many of them share out the optimizer's states; the others have copies. Those of a copy are neighbours.
    pub(super) shards: usize,
    /// Batches of each rank for one optimizer step.
    pub(super) batches: usize,
}

const REPLICATE: &str = "parallelism.data_parallel_replicate_degree";
const SHARD: &str = "parallelism.data_parallel_shard_degree";

impl JobConfig {
    /// How so many ranks share a step, of which this is number `rank`.
    ///
    /// # Errors
    /// Degrees that do not multiply to the ranks or that are not there yet, and batches that the ranks do not divide; with the
    /// remedy.
    pub(super) fn shares(&self, rank: usize, ranks: usize) -> Result<Shares, ConfigError> {
        let shards = self.shards(ranks)?;
        let training = &self.training;
        let together = training.batch_size.saturating_mul(ranks);
        let Ok(global) = usize::try_from(training.global_batch_size) else {
            return Ok(Shares { rank, ranks, shards, batches: 1 });
        };
        if global % together != 0 {
            let message = format!(
                "global_batch_size {global} is not a multiple of {together}: batch_size {} on each of {}",
                training.batch_size,
                count(ranks, "rank")
            );
            let help = "each step runs a whole number of batches on each rank: choose another global_batch_size, batch_size or number of ranks";
            let names = ["training.global_batch_size", "training.batch_size"];
            return Err(self.problem(&names, message, Some(help.to_owned())));
        }
        Ok(Shares { rank, ranks, shards, batches: global / together })
    }

    /// Fills in the sequences of a step where the ranks decide them, so that a start with another number of ranks finds in the
    /// folder what they were.
    pub(super) fn fix_global_batch(&mut self, ranks: usize) {
        let training = &mut self.training;
        if ranks > 1 && training.global_batch_size < 0 {
            let together = training.batch_size.saturating_mul(ranks);
            training.global_batch_size = i64::try_from(together).unwrap_or(i64::MAX);
        }
    }

    /// How many ranks share out the optimizer's states.
    fn shards(&self, ranks: usize) -> Result<usize, ConfigError> {
        let wanted = |degree: i64| usize::try_from(degree).ok();
        let degrees = &self.parallelism;
        let (replicate, shard) =
            (wanted(degrees.data_parallel_replicate_degree), wanted(degrees.data_parallel_shard_degree));
        let refuse = |name: &str, message: String, help: String| {
            Err(self.problem(&[name, REPLICATE, SHARD], message, Some(help)))
        };
        let there = count(ranks, "rank");
        // One that is -1 is what the other leaves; of both, the replicas are 1 as by default.
        let (replicate, shard) = match (replicate, shard) {
            (Some(replicate), Some(shard)) => (replicate, shard),
            (None, Some(shard)) => ((ranks / shard.max(1)).max(1), shard),
            (replicate, None) => {
                let replicate = replicate.unwrap_or(1);
                (replicate, (ranks / replicate.max(1)).max(1))
            }
        };
        if replicate.checked_mul(shard) != Some(ranks) {
            let (of, help) = match ranks {
                1 => (
                    "this is one rank".to_owned(),
                    format!(
                        "start {} with linc launch -n, mpirun or srun, or leave the degrees out",
                        replicate.saturating_mul(shard)
                    ),
                ),
                _ => (
                    format!("there are {there}"),
                    format!(
                        "--{REPLICATE} {ranks} --{SHARD} 1 gives each rank the whole optimizer; --{REPLICATE} 1 --{SHARD} -1 shares its states out to all"
                    ),
                ),
            };
            let message = format!(
                "data_parallel_replicate_degree {replicate} times data_parallel_shard_degree {shard} is {}, but {of}",
                replicate.saturating_mul(shard)
            );
            return refuse(REPLICATE, message, help);
        }
        Ok(shard)
    }
}

impl Shares {
    /// The ranks as compilers see them.
    ///
    /// # Errors
    /// [`CompileError::Pass`] for degrees that make no mesh.
    pub(super) fn mesh(self) -> Result<Mesh, CompileError> {
        let axes = [(MeshAxis::DataReplicate, self.ranks / self.shards), (MeshAxis::DataShard, self.shards)];
        Mesh::new(self.rank, &axes).map_err(CompileError::Pass)
    }

    /// The first of the ranks that have the same part of the optimizer's states as one of all.
    pub(super) fn first_with_part_of(self, rank: usize) -> usize {
        rank % self.shards
    }

    /// Refuses what cannot be done where the optimizer is shared out.
    ///
    /// # Errors
    /// At the place of its name, with the remedy.
    pub(super) fn check_optimizer(
        self,
        config: &JobConfig,
        optimizer: &OptimizerOptions,
    ) -> Result<(), ConfigError> {
        let is_muon = |group: &ParamGroup| matches!(group.rule, UpdateRule::Muon(_));
        let (shards, names, why) = match self.shards {
            1 => return Ok(()),
            shards if optimizer.groups.iter().any(is_muon) => {
                (shards, ["optimizer.name", "optimizer.groups"], "Muon updates whole matrices")
            }
            shards if !optimizer.norms.is_empty() => {
                let names = ["metrics.grad_norms", "metrics.grad_norms"];
                (shards, names, "metrics.grad_norms are of whole gradients")
            }
            _ => return Ok(()),
        };
        let message =
            format!("{why}, and data_parallel_shard_degree {shards} gives each rank parts that cut them");
        let help = format!("--{REPLICATE} {} --{SHARD} 1 gives each rank the whole optimizer", self.ranks);
        Err(config.problem(&[names[0], names[1], SHARD], message, Some(help)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(text: &str, ranks: usize) -> Result<usize, String> {
        let shares = of(text, ranks)?;
        assert_eq!((shares.rank, shares.ranks), (ranks - 1, ranks));
        Ok(shares.batches)
    }

    fn of(text: &str, ranks: usize) -> Result<Shares, String> {
        let config = JobConfig::load(text, "run.toml", &[]).unwrap_or_else(|e| panic!("{e}")).config;
        config.shares(ranks - 1, ranks).map_err(|error| error.to_string())
    }

    #[test]
    fn degrees_multiply_to_the_ranks_and_batches_are_shared() {
        let replicate = |degree: i64| format!("[parallelism]\ndata_parallel_replicate_degree = {degree}\n");
        let batches = |global: i64, degree: i64| {
            format!("[training]\nbatch_size = 2\nglobal_batch_size = {global}\n{}", replicate(degree))
        };
        assert_eq!(shares("", 1), Ok(1));
        assert_eq!(shares(&replicate(4), 4), Ok(1));
        assert_eq!(shares(&batches(24, 4), 4), Ok(3));
        assert_eq!(shares(&batches(24, 1), 1), Ok(12));
        // -1 is what the other leaves; of both, one process comes to 1 and 1.
        let both = |replicate: i64, shard: i64| {
            format!(
                "[parallelism]\ndata_parallel_replicate_degree = {replicate}\ndata_parallel_shard_degree = {shard}\n"
            )
        };
        assert_eq!(shares(&both(-1, 1), 3), Ok(1));
        assert_eq!(shares(&both(-1, -1), 1), Ok(1));
        let refused = |text: &str, ranks: usize, words: &[&str]| {
            let error = shares(text, ranks).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        };
        let shards = |text: &str, ranks: usize| of(text, ranks).map(|shares| shares.shards);
        assert_eq!(shards("", 4), Ok(4));
        assert_eq!(shards(&replicate(2), 4), Ok(2));
        assert_eq!(shards(&replicate(4), 4), Ok(1));
        assert_eq!(shards(&both(-1, 2), 6), Ok(2));
        // Those that share parts out are neighbours, and a copy of all of them begins behind the last.
        let shares = of(&replicate(2), 6).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!([0, 2, 3, 5].map(|rank| shares.first_with_part_of(rank)), [0, 2, 0, 2]);
        let mesh = shares.mesh().unwrap_or_else(|e| panic!("{e}"));
        let group = |axis| mesh.group(axis).members().collect::<Vec<_>>();
        assert_eq!((group(MeshAxis::DataShard), group(MeshAxis::DataReplicate)), (vec![3, 4, 5], vec![2, 5]));
        refused(&replicate(4), 1, &["run.toml:2", "4 times", "is 4, but this is one rank", "start 4 with"]);
        refused(&both(-1, 4), 1, &["run.toml:2", "is 4, but this is one rank", "start 4 with"]);
        refused(
            &replicate(3),
            4,
            &[
                "3 times data_parallel_shard_degree 1 is 3, but there are 4 ranks",
                "-1 shares its states out to all",
            ],
        );
        refused(&both(i64::MAX, i64::MAX), 4, &["but there are 4 ranks"]);
        refused(
            &batches(6, 4),
            4,
            &["global_batch_size 6 is not a multiple of 8: batch_size 2 on each of 4 ranks"],
        );
    }
}
