//! Keys of TorchTitan's configs.

use linc_config::is_ignored;

use super::*;

/// Every key of TorchTitan's `JobConfig` from early 2025 to October 2025, in each spelling that it had: taken as a setting,
/// or with a reason why it has no effect, so that no config of that time is refused for a key that it was right to have.
#[test]
fn every_key_of_its_toml_era_is_known() {
    let sections = [
        "job: config_file dump_folder description print_args print_config use_for_integration_test custom_config_module \
         save_config_file",
        "profiling: enable_profiling save_traces_folder profile_freq enable_memory_snapshot \
         save_memory_snapshot_folder profiler_active profiler_warmup",
        "metrics: log_freq enable_tensorboard disable_color_printing enable_color_printing save_tb_folder rank_0_only \
         save_for_all_ranks enable_wandb",
        "model: name flavor tokenizer_path hf_assets_path norm_type converters print_after_conversion",
        "optimizer: name lr beta1 beta2 eps weight_decay implementation fused early_step_in_backward",
        "lr_scheduler: warmup_steps decay_ratio decay_type lr_min min_lr_factor total_steps",
        "training: dataset dataset_path batch_size local_batch_size global_batch_size seq_len warmup_steps max_norm \
         steps enable_cpu_offload dtype mixed_precision_param mixed_precision_reduce compile gc_freq gc_debug seed \
         deterministic debug_moe_force_load_balance data_parallel_degree data_parallel_replicate_degree \
         data_parallel_shard_degree tensor_parallel_degree pipeline_parallel_degree enable_loss_parallel",
        "parallelism: data_parallel_replicate_degree data_parallel_shard_degree enable_compiled_autograd \
         fsdp_reshard_after_forward tensor_parallel_degree disable_loss_parallel enable_async_tensor_parallel \
         pipeline_parallel_degree pipeline_parallel_split_points module_fqns_per_model_part \
         pipeline_parallel_first_stage_less_layers pipeline_parallel_last_stage_less_layers \
         pipeline_parallel_layers_per_stage pipeline_parallel_schedule pipeline_parallel_schedule_csv \
         pipeline_parallel_microbatch_size pipeline_parallel_microbatches context_parallel_degree \
         context_parallel_rotate_method expert_parallel_degree expert_tensor_parallel_degree",
        "checkpoint: enable enable_checkpoint enable_ft_dataloader_checkpoints folder interval interval_type \
         initial_load_path initial_load_model_only initial_load_model_weights_only initial_load_in_hf \
         initial_load_in_hf_quantized last_save_model_only last_save_model_weights_only model_weights_only \
         last_save_in_hf export_dtype create_seed_checkpoint async_mode keep_latest_k load_step exclude_from_loading \
         enable_first_step_checkpoint load_only",
        "activation_checkpoint: mode selective_ac_option per_op_sac_force_recompute_mm_shapes_by_fqns early_stop \
         memory_budget visualize_memory_budget_pareto preserve_rng_state determinism_check debug",
        "compile: enable components backend",
        "validation: enable enabled enable_validation dataset dataset_path local_batch_size seq_len freq steps",
        "comm: init_timeout_seconds train_timeout_seconds trace_buf_size save_traces_folder",
        "memory_estimation: enabled disable_fake_mode",
        "fault_tolerance: enable process_group replica_id group_size",
        "float8: enable_fsdp_float8_all_gather recipe_name filter_fqns",
        "mx: recipe_name",
        "experimental: custom_import custom_args_module",
    ];
    let keys = JobConfig::keys();
    for section in sections {
        let (section, names) = section.split_once(": ").expect("a section");
        for key in names.split_whitespace() {
            let name = format!("{section}.{key}");
            let is_read = keys.iter().any(|key| key.name == name || key.aliases.contains(&name));
            assert!(is_read != is_ignored(&name), "{name}");
        }
    }
}

#[test]
fn switches_are_turned_off_in_its_way() {
    let text = "[checkpoint]\nenable = true\n";
    assert!(!good(text, &["--checkpoint.no_enable"]).checkpoint.enable);
    let config = good(text, &["--checkpoint.no-initial-load-model-only", "--training.steps", "300"]);
    assert!(!config.checkpoint.initial_load_model_only && config.training.steps == 300);
    assert!(!good(text, &["--checkpoint.no_enable_checkpoint"]).checkpoint.enable);
    assert!(bad("", &["--training.no_steps"]).contains("unknown setting `training.no_steps`"));
    assert!(bad("", &["--checkpoint.no_enable", "true"]).contains("unknown setting `checkpoint.no_enable`"));
}

/// A value under another name that would train something else is refused, not passed over.
#[test]
fn an_older_name_is_held_to_the_same_limits() {
    assert!(
        bad("[training]\ntensor_parallel_degree = 2\n", &[])
            .contains("run.toml:2:26: error: `training.tensor_parallel_degree`")
    );
    assert!(good("[validation]\nenabled = true\n", &[]).validation.enable);
}
