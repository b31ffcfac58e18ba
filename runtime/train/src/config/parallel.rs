//! How a run is shared among ranks: TorchTitan's `[parallelism]` and `[comm]`.

use linc_config::check::{Check, minus_one_or_positive, positive};
use linc_config::{choice, section};
use serde_json::json;

choice! {
    /// In which order gradients of the batches of one rank are added up.
    Accumulate {
        /// One after the other.
        Sequence = "sequence",
        /// Neighbours, then pairs of neighbours, and so on, as over ranks.
        Tree = "tree",
    }
}

choice! {
    /// Who adds up what ranks exchange.
    Reduced {
        /// linc's own kernels.
        Exact = "exact",
        /// NCCL.
        Library = "library",
    }
}

section! {
    /// How the ranks of a run share it. The degrees multiply to the number of ranks.
    Parallelism "parallelism" {
        /// Copies of the optimizer's states. All ranks have all parameters, and batches of their own.
        data_parallel_replicate_degree: i64 = 1,
            aka ["training.data_parallel_replicate_degree", "experimental.data_parallel_replicate_degree"],
            check minus_one_or_positive();
        /// Ranks that share out the optimizer's states among themselves (ZeRO-1); -1 for all that the other degrees leave. 1 gives each
        /// rank the whole optimizer.
        data_parallel_shard_degree: i64 = -1,
            aka [
                "training.data_parallel_degree",
                "training.data_parallel_shard_degree",
                "experimental.data_parallel_shard_degree"
            ],
            check minus_one_or_positive();
        /// Parts of each matmul.
        tensor_parallel_degree: i64 = 1,
            aka ["training.tensor_parallel_degree", "experimental.tensor_parallel_degree"],
            check not_there_yet();
        /// Groups of layers.
        pipeline_parallel_degree: i64 = 1,
            aka ["training.pipeline_parallel_degree", "experimental.pipeline_parallel_degree"],
            check not_there_yet();
        /// Parts of the sequence.
        context_parallel_degree: i64 = 1,
            aka ["training.context_parallel_degree", "experimental.context_parallel_degree"],
            check not_there_yet();
        /// Groups of experts.
        expert_parallel_degree: i64 = 1, check not_there_yet();
        /// Who adds up gradients that ranks exchange: "exact" is linc itself, in an order that gives the same bits on every machine and in
        /// every mode; "library" is NCCL, whose sums may have other last bits with each number of ranks, topology or version.
        reduce: Reduced = Reduced::Exact;
        /// In which order gradients of several batches of one rank are added up. "tree" gives bits that do not depend on the number of
        /// ranks, where each has a power of two of batches; it takes room for further gradients, the binary logarithm of these batches less one.
        accumulate: Accumulate = Accumulate::Sequence;
    }
}

section! {
    /// How long ranks wait for each other.
    Comm "comm" {
        /// Seconds that a rank waits for others before the first step, and for what is done once, checkpoints and the end, after the last
        /// sign of life of the rank that is at work.
        init_timeout_seconds: usize = 300, check positive();
        /// Seconds that a rank waits for others in a step.
        train_timeout_seconds: usize = 100, check positive();
        /// Steps after which ranks compare checksums of their weights and moments, besides before each checkpoint and at the end; 0 for
        /// then alone.
        compare_weights_freq: usize = 100;
    }
}

fn not_there_yet() -> Check<i64> {
    Check::new(
        "1 (or -1, which comes to 1): linc has data parallelism, and nothing of this kind yet",
        |value| matches!(value, 1 | -1),
    )
    .in_schema(json!({ "enum": [1, -1] }))
}
