//! The settings of checkpoints.

use std::path::{Component, Path};

use linc_config::check::{self, Check, one_of};
use linc_config::{FileSize, choice, section};

choice! {
    /// Whether training waits for a checkpoint to reach the disk.
    AsyncMode {
        /// It waits.
        Disabled = "disabled",
        /// It goes on.
        Async = "async",
        /// As "async"; copies do not go through pinned memory yet.
        AsyncPinned = "async_with_pinned_mem",
    }
}

section! {
    /// Saving and loading.
    Checkpoint "checkpoint" {
        /// Save checkpoints, and resume from them.
        enable: bool = false, aka ["enable_checkpoint"];
        /// Folder, inside the dump folder, of the step-N folders.
        folder: String = "checkpoint".to_owned(), check inside_dump_folder();
        /// Steps between two checkpoints; the last step is always saved.
        interval: usize = 500, check check::positive();
        /// How many of the newest checkpoints stay; 0 for all.
        keep_latest_k: usize = 10;
        /// Step to resume from; -1 for the newest there is.
        load_step: i64 = -1, check check::at_least_minus_one();
        /// A step-N folder whose weights start a new run.
        initial_load_path: Option<String> = None, check check::not_empty().if_set();
        /// Take only the weights from initial_load_path, not optimizer and data position.
        initial_load_model_only: bool = true, aka ["initial_load_model_weights_only"];
        /// Let the model of initial_load_path have other parameters, as where layers of one kind of attention have some of their own:
        /// weights are taken by their names, and parameters that it does not have begin with initial values. Where the parameters are
        /// the same, layers may be of other kinds without it, and a line says which are.
        initial_load_linearize: bool = false;
        /// Save only the weights at the last step.
        last_save_model_only: bool = false, aka ["model_weights_only", "last_save_model_weights_only"];
        /// Number format of saved weights.
        export_dtype: String = "float32".to_owned(), check one_of(&["float32"]);
        /// Bytes of a file of weights or of the optimizer's state at most; more are cut into shards with an index.
        max_shard_size: FileSize = FileSize(5_000_000_000);
        /// Whether training goes on while a checkpoint is written: it then waits only while its tensors are copied, into at most
        /// half of the memory that is free.
        async_mode: AsyncMode = AsyncMode::Disabled;
    }
}

/// A folder elsewhere could be that of several runs, each of which would take the other's files for its own.
pub fn inside_dump_folder() -> Check<String> {
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    Check::new(
        "the name of a folder inside the dump folder, not absolute and without ..",
        move |value: &String| !value.trim().is_empty() && Path::new(value).components().all(stays),
    )
}
