//! What TorchTitan's configs hold that linc has no use for. Such a key is accepted with a warning, so
//! that a config can be brought along, and never silently: a setting that does nothing must say so.

/// Sections of TorchTitan that linc does not have.
const FOREIGN_SECTIONS: &[(&str, &str)] = &[
    ("debug", "runs are always deterministic; the seed is training.seed"),
    ("experimental", "linc has no such option"),
    ("fault_tolerance", "a run goes on from its checkpoints, with any number of ranks"),
    ("float8", "linc does not compute in float8"),
    ("memory_estimation", "`linc compile` prints the exact memory plan"),
    ("mx", "linc does not compute in MX formats"),
    ("quantize", "linc does not quantize"),
];

/// Keys of TorchTitan, inside sections that linc has, with the reason why they do nothing here.
const IGNORED: &[(&str, &str)] = &[
    ("activation_checkpoint.debug", "recomputation is planned when compiling"),
    ("activation_checkpoint.determinism_check", "what is computed again has the bits of the first time"),
    ("activation_checkpoint.early_stop", "recomputation is planned when compiling"),
    (
        "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns",
        "recomputation is planned when compiling",
    ),
    ("activation_checkpoint.preserve_rng_state", "nothing random is computed again"),
    (
        "activation_checkpoint.visualize_memory_budget_pareto",
        "`linc compile --modes` compares what each mode saves and costs",
    ),
    ("checkpoint.create_seed_checkpoint", "initial weights depend on the seed only"),
    ("checkpoint.enable_first_step_checkpoint", "checkpoints follow checkpoint.interval"),
    ("checkpoint.enable_ft_dataloader_checkpoints", "the place in the data is the same on all ranks"),
    ("checkpoint.exclude_from_loading", "a resume always loads the whole state"),
    (
        "checkpoint.initial_load_in_hf",
        "`linc import` makes a checkpoint of a Hugging Face folder, which initial_load_path takes",
    ),
    ("checkpoint.initial_load_in_hf_quantized", "linc does not quantize"),
    ("checkpoint.interval_type", "checkpoint.interval counts steps"),
    ("checkpoint.last_save_in_hf", "`linc export` writes a checkpoint as a Hugging Face folder"),
    (
        "checkpoint.load_only",
        "a run that is not to save says checkpoint.enable = false, with initial_load_path",
    ),
    ("comm.save_traces_folder", "who waits names the exchange and the ranks that are missing"),
    ("comm.trace_buf_size", "who waits names the exchange and the ranks that are missing"),
    ("compile.backend", "linc has one compiler"),
    ("compile.components", "linc compiles the whole training step"),
    ("job.config_file", "the config is the first argument"),
    ("job.custom_config_module", "linc has no such option"),
    ("job.save_config_file", "config.toml in the dump folder has all settings"),
    ("job.use_for_integration_test", "linc has no such option"),
    (
        "lr_scheduler.total_steps",
        "the schedule goes over training.steps; lr_scheduler.segments says any other",
    ),
    (
        "metrics.enable_color_printing",
        "a terminal gets colours; disable_color_printing = true prints without",
    ),
    ("metrics.enable_wandb", "linc writes metrics.jsonl"),
    ("metrics.log_loss_metrics_freq", "the loss is logged every metrics.log_freq steps"),
    ("metrics.rank_0_only", "rank 0 writes what all ranks know"),
    ("metrics.save_for_all_ranks", "rank 0 writes what all ranks know"),
    ("model.converters", "linc does not convert layers"),
    ("model.norm_type", "the norm is what the .linc file says"),
    ("model.print_after_conversion", "linc does not convert layers"),
    ("optimizer.early_step_in_backward", "the update is scheduled when compiling"),
    ("optimizer.fused", "the update is compiled"),
    ("optimizer.implementation", "the update is compiled"),
    ("parallelism.context_parallel_rotate_method", "ranks share batches only"),
    ("parallelism.disable_loss_parallel", "ranks share batches only"),
    ("parallelism.enable_async_tensor_parallel", "ranks share batches only"),
    ("parallelism.enable_compiled_autograd", "linc derives the backward pass when compiling"),
    ("parallelism.expert_tensor_parallel_degree", "ranks share batches only"),
    ("parallelism.fsdp_reshard_after_forward", "ranks share batches only"),
    ("parallelism.module_fqns_per_model_part", "ranks share batches only"),
    ("parallelism.pipeline_parallel_first_stage_less_layers", "ranks share batches only"),
    ("parallelism.pipeline_parallel_last_stage_less_layers", "ranks share batches only"),
    ("parallelism.pipeline_parallel_layers_per_stage", "ranks share batches only"),
    ("parallelism.pipeline_parallel_microbatch_size", "ranks share batches only"),
    ("parallelism.pipeline_parallel_microbatches", "ranks share batches only"),
    ("parallelism.pipeline_parallel_schedule", "ranks share batches only"),
    ("parallelism.pipeline_parallel_schedule_csv", "ranks share batches only"),
    ("parallelism.pipeline_parallel_split_points", "ranks share batches only"),
    ("profiling.enable_memory_snapshot", "`linc compile` prints the exact memory plan"),
    ("profiling.profiler_active", "every step is profiled"),
    ("profiling.profiler_warmup", "every step is profiled"),
    ("profiling.save_memory_snapshot_folder", "`linc compile` prints the exact memory plan"),
    ("training.debug_moe_force_load_balance", "linc has no mixture of experts"),
    ("training.dtype", "parameters are kept in float32"),
    ("training.enable_cpu_offload", "linc has no offloading"),
    ("training.enable_loss_parallel", "ranks share batches only"),
    ("training.gc_debug", "linc has no garbage collector"),
    ("training.gc_freq", "linc has no garbage collector"),
    ("validation.local_batch_size", "validation uses training.batch_size"),
    ("validation.seq_len", "validation uses training.seq_len"),
];

/// Advice for settings whose refusal needs more than the allowed values.
const HELP: &[(&str, &str)] = &[
    (
        "training.mixed_precision_param",
        "\"bfloat16\" and \"float16\" halve the memory of activations; leave it out to compute in float32",
    ),
    (
        "training.dataset",
        "\"stories\" and \"mqar\" are built in; for other text say dataset = \"text\" and dataset_path = \"FILE, FOLDER or GLOB\"",
    ),
    (
        "model.linear_attn_ratio",
        "0 keeps softmax attention everywhere, 0.75 leaves it in every fourth layer, 1 in none",
    ),
];

/// Keys of TorchTitan that have no effect, with the reason.
pub(crate) fn ignored_keys() -> &'static [(&'static str, &'static str)] {
    IGNORED
}

/// Sections of TorchTitan that linc does not have, with the reason.
pub(crate) fn foreign_sections() -> &'static [(&'static str, &'static str)] {
    FOREIGN_SECTIONS
}

/// Whether a whole section is TorchTitan's and has no counterpart.
pub(crate) fn is_foreign_section(name: &str) -> bool {
    let top = name.split('.').next().unwrap_or(name);
    FOREIGN_SECTIONS.iter().any(|(section, _)| *section == top)
}

/// Whether a key is TorchTitan's and has no effect here.
pub fn is_ignored(name: &str) -> bool {
    ignored(name).is_some()
}

/// Why a key of TorchTitan's has no effect, if it is one.
pub(crate) fn ignored(name: &str) -> Option<&'static str> {
    let exact = IGNORED.iter().find(|(key, _)| *key == name);
    let section = || {
        let top = name.split('.').next().unwrap_or(name);
        FOREIGN_SECTIONS.iter().find(|(section, _)| *section == top)
    };
    exact.or_else(section).map(|(_, reason)| *reason)
}

/// Advice for a setting that was refused.
pub(crate) fn help(name: &str) -> Option<&'static str> {
    HELP.iter().find(|(key, _)| *key == name).map(|(_, help)| *help)
}
