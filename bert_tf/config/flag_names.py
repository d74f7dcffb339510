"""Names of flags: those of other systems' scripts, and those that --help lists."""

# Flags of other systems' scripts that have no effect here: their commands still run.
WITHOUT_EFFECT: dict[str, type] = {
    "dump_config": str,
    "enable_scoped_allocator": bool,
    "cpu_only": bool,
    "use_tpu": bool,
    "tpu_name": str,
    "tpu_zone": str,
    "gcp_project": str,
    "master": str,
    "num_tpu_cores": int,
    "iterations_per_loop": int,
    "manual_fp16": bool,
    "report_loss": bool,
    "eval_script": str,
    "use_trt": bool,
    "num_eval_iterations": int,
    "export_triton": bool,
    "triton_model_name": str,
    "triton_model_version": int,
    "triton_server_url": str,
    "triton_model_overwrite": bool,
    "triton_max_batch_size": int,
    "triton_dyn_batching_delay": float,
    "triton_engine_count": int,
    "save_summary_steps": int,
    "verbose_logging": bool,
    "is_dist_eval_enabled": bool,  # An evaluation is always over all workers.
}
# What --help lists; --helpfull lists all.
OFTEN_USED = frozenset(
    "input_files_dir eval_files_dir vocab_file output_dir preset bert_config_file "
    "init_checkpoint train_file predict_file task_name data_dir text_a_column "
    "text_b_column label_column version_2_with_negative "
    "do_train do_eval do_predict train_batch_size num_accumulation_steps "
    "max_seq_length optimizer_type learning_rate num_train_steps num_train_epochs "
    "num_warmup_steps save_checkpoints_steps horovod precision".split()
)
# Names of the same settings in the scripts of Habana, Google, Intel and MLPerf.
ALIASES = {
    "use_horovod": "horovod",
    "dataset_path": "data_dir",
    "deterministic_seed": "seed",
    "max_steps": "num_train_steps",
    "warmup_steps": "num_warmup_steps",
    "log_freq": "display_loss_steps",
    "keep_n_most_recent_checkpoints": "keep_checkpoint_max",
    "opt_lamb_beta_1": "beta_1",
    "opt_lamb_beta_2": "beta_2",
    "input_file": "input_files_dir",
    "input_dir": "input_files_dir",
    "eval_dir": "eval_files_dir",
    "checkpoint_activations": "recompute",
    "stop_threshold": "target_mlm_accuracy",
    "eval_iter_samples": "samples_between_eval",
    "eval_iter_start_samples": "samples_start_eval",
    "max_samples_termination": "max_samples",
}
