"""What a run logs: the model, what a resumed run changes, its steps and its results."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping

from bert_tf import fused_ops
from bert_tf.errors import counted
from bert_tf.jobs.run.agreement import versions
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.resume import accumulation_steps
from bert_tf.resources import available_cores, describe_cores
from bert_tf.training.runlog import RunLog
from bert_tf.training.trainer import StepResult

# Settings that are compared with the checkpoint, the records, the fingerprint or
# task.json instead.
_COMPARED_ELSEWHERE = (
    *("learning_rate", "scale_learning_rate", "seed"),
    *("train_batch_size", "num_accumulation_steps"),
    *("max_seq_length", "max_predictions_per_seq", "precision"),
    *("loss_normalization", "clip_each_micro_batch", "doc_stride", "max_query_length"),
    *("version_2_with_negative", "task_name", "dynamic_masking", "class_weights"),
    "do_nsp",
)
# Settings that do not change what a step of a resumed run computes.
_OF_THIS_RUN = (
    *("do_train", "do_eval", "do_predict", "steps_this_run"),
    *("save_checkpoints_steps", "save_checkpoints_minutes", "display_loss_steps"),
    *("max_eval_steps", "skip_nonfinite", "skip_records", "max_corrupt_records"),
    *("eval_batch_size", "predict_batch_size", "evaluate_each_epoch"),
    *("n_best_size", "max_answer_length", "null_score_diff_threshold"),
    *("num_processes", "new_head", "allow_config_change", "early_stopping_patience"),
    *("eval_steps", "samples_between_eval", "samples_start_eval"),
    *("target_mlm_accuracy", "max_samples"),
)
_GROUPS_NOT_COMPARED = ("files", "saving")
# Settings of the group `runtime` that change how numbers are rounded.
_RUNTIME = (
    *("use_xla", "recompute", "unpad", "num_threads"),
    *("horovod_compression", "horovod_fusion_threshold"),
)
_OF_OPTIMIZER = (
    *("beta_1", "beta_2", "epsilon", "weight_decay_rate"),
    *("exclude_from_weight_decay", "exclude_from_layer_adaptation", "max_grad_norm"),
    "ema_decay",
)


def describe_run(plan: Plan) -> str:
    """One line with what decides how the run computes."""
    config = plan.config
    parts = [
        ", ".join(f"{name} {version}" for name, version in versions().items()),
        f"compute path {fused_ops.in_use()}",
        f"precision {plan.policy.name}",
        counted(plan.shape.size, "worker"),
    ]
    if plan.training_set is not None:
        settings = config.optimizer
        values = {name: getattr(settings, name) for name in _OF_OPTIMIZER}
        values |= {
            "learning_rate": plan.learning_rate,
            "num_warmup_steps": settings.warmup_steps,
            "start_warmup_step": settings.start_warmup_step,
            "num_train_steps": settings.num_train_steps,
            "poly_power": settings.power,
        }
        listed = ", ".join(
            f"{name}={'|'.join(value) if isinstance(value, tuple) else value}"
            for name, value in values.items()
        )
        parts.append(f"{settings.optimizer_type} with {listed}")
    return f"Run: {'; '.join(parts)}."


def describe_model(plan: Plan, threads: int, log: RunLog) -> None:
    """Logs what is used, the starting point and the model."""
    start, step = plan.start, plan.step
    log.message(describe_run(plan))
    if start.is_own:
        verb = "Resuming from" if plan.config.training.do_train else "Using"
        log.message(f"{verb} {start.prefix} (step {step}).")
    elif start.prefix:
        taken = "whole state" if start.takes_state else "weights"
        log.message(f"Starting with the {taken} of {start.prefix}, step {step}.")
    for note in plan.notes:
        log.message(note)
    log.message(
        f"Model: {plan.task.model.count_params():,} weights, precision "
        f"{plan.policy.name}, {counted(threads, 'thread')} per worker "
        f"({describe_cores()})."
    )
    for line in [*plan.policy.unused_entries(), *unused_settings(plan)]:
        log.message(line)
    if plan.config.runtime.dump_precision:
        for (operation, name), dtype in sorted(plan.policy.decisions.items()):
            log.message(f"  {dtype:8}  {operation:11}  {name}")


def unused_settings(plan: Plan) -> list[str]:
    """A line about each setting that was passed and has no effect in this training."""
    if plan.training_set is None:
        return []
    runtime, optimizer = plan.config.runtime, plan.config.optimizer
    unused = {}
    if plan.policy.name != "fp16":
        unused["init_loss_scale"] = "--precision=fp16"
    if plan.shape.size == 1:
        names = ("horovod_compression", "horovod_fusion_threshold")
        unused |= dict.fromkeys(names, "other workers")
    if optimizer.optimizer_type != "lamb":
        unused["exclude_from_layer_adaptation"] = "--optimizer_type=lamb"
    return [
        f"--{name} has no effect without {needed}."
        for name, needed in unused.items()
        for group in (runtime, optimizer)
        if hasattr(group, name) and getattr(group, name) != getattr(type(group), name)
    ]


def describe_changes(plan: Plan, log: RunLog) -> None:
    """Logs what a resumed run keeps although flags differ, and what it changes."""
    if plan.start.position is None:
        return
    describe_kept(plan, log, plan.training_set.sequences_per_record)
    if changes := _new_settings(plan):
        log.message(f"New from here on: {', '.join(changes)}.")
    _describe_warmup(plan, log)


def describe_kept(plan: Plan, log: RunLog, average: float | None = None) -> None:
    """Logs what a resumed or finished run keeps although flags differ.

    Args:
      plan: The run.
      log: Its log.
      average: Sequences per record; None if no records are read: the global batch is
        not compared then.
    """
    position, config = plan.start.position, plan.config
    if position is None:
        return
    size = plan.shape.size if config.optimizer.scale_learning_rate else 1
    pairs = {
        "learning rate": (position.learning_rate, config.optimizer.learning_rate * size)
    }
    if average is not None:
        steps = accumulation_steps(config.batch, None, plan.shape.size, average)
        asked = config.batch.train_batch_size * steps * plan.shape.size
        pairs["global batch"] = (position.global_batch_size, asked)
    pairs["seed"] = (position.seed, config.training.seed)
    for name, (kept, asked) in pairs.items():
        if kept != asked:
            log.message(
                f"Kept from the checkpoint: {name} {kept:g} (flags: {asked:g})."
            )


def _new_settings(plan: Plan) -> list[str]:
    """Settings that the flags of a resumed run change."""
    # JSON makes lists of tuples, as in the manifest.
    now = _compared(json.loads(json.dumps(plan.settings())))
    before = _compared(plan.start.position.config)
    return [
        f"{name} {before[key]} -> {value}"
        for key, value in now.items()
        for name in key[-1:]
        if key in before and before[key] != value
    ]


def _compared(settings: Mapping[str, object]) -> dict[tuple[str, str], object]:
    """(group, name) -> value of the settings that change what a step computes."""
    left_out = (*_COMPARED_ELSEWHERE, *_OF_THIS_RUN)
    compared = {}
    for group, values in settings.items():
        if group in _GROUPS_NOT_COMPARED:
            continue
        members = values if isinstance(values, dict) else {group: values}
        if group == "runtime":
            members = {n: value for n, value in members.items() if n in _RUNTIME}
        compared |= {
            (group, name): value
            for name, value in members.items()
            # Data are compared by checksum, not by path.
            if name not in left_out and not name.endswith(("_dir", "_file"))
        }
    return compared


def _describe_warmup(plan: Plan, log: RunLog) -> None:
    """Without --num_warmup_steps the warm-up changes with the number of steps."""
    settings, before = plan.config.optimizer, plan.start.position.config
    num_train_steps = before.get("optimizer", {}).get("num_train_steps")
    if num_train_steps is None or settings.num_warmup_steps is not None:
        return
    steps = {"num_train_steps": num_train_steps, "start_warmup_step": 0}
    earlier = dataclasses.replace(settings, **steps)
    if earlier.warmup_steps != settings.warmup_steps:
        log.message(
            f"The warm-up follows num_train_steps: {earlier.warmup_steps} -> "
            f"{settings.warmup_steps} steps. --num_warmup_steps={earlier.warmup_steps} "
            "keeps it."
        )


def thread_warnings(threads: int, asked: int | None, num_workers: int) -> list[str]:
    """Settings of threads that cost speed, or have no effect.

    Args:
      threads: Of this worker.
      asked: The value of --num_threads, if it was passed.
      num_workers: Workers on this host.

    Returns:
      The lines to print.
    """
    lines, cores = [], available_cores(num_workers)
    if threads > cores:
        lines.append(
            f"warning: {threads} threads share {counted(cores, 'core')} "
            f"({counted(num_workers, 'worker')} "
            f"on this host, {describe_cores()}) and wait for each other. Pass "
            f"--num_threads={cores}, the default."
        )
    variable = os.environ.get("OMP_NUM_THREADS", "")
    if asked is None and variable.isdigit() and int(variable) != threads:
        lines.append(
            f"OMP_NUM_THREADS={variable} has no effect, TensorFlow does not read it: "
            f"pass --num_threads={variable}."
        )
    return lines


# Steps of --benchmark that do not count, and that do: those of Intel's trainer.
BENCHMARK_STEPS = (10, 40)


class StepReport:
    """Log lines of training steps, with the speed between them."""

    def __init__(self, plan: Plan, log: RunLog) -> None:
        self._plan = plan
        self._is_benchmark = plan.config.saving.benchmark
        # The step after which the speed of a benchmark counts.
        self._warm_step = plan.step + BENCHMARK_STEPS[0] if self._is_benchmark else None
        self._log = log
        self._every = plan.config.training.display_loss_steps
        self._sequences_per_step = plan.sequences_per_step
        # The first step traces and compiles the graph: only its own line has its speed.
        self._since: tuple[int, float] | None = None
        self._speeds: list[tuple[int, float]] = []
        self._num_skipped = 0
        self._began, self._stopped = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Since the report was made, without the time of the stopped clock."""
        return time.perf_counter() - self._began - self._stopped

    def step(self, result: StepResult, *, is_last: bool) -> None:
        """Logs one step, if it is due or was skipped."""
        if result.skipped:
            self._num_skipped += 1
            self._log.message(f"warning: skipped: {result.skipped}")
            self.restart_clock(result.step)  # It was computed again, to find the cause.
            return
        # The only loss of a fine-tuning is its total.
        losses = {n: loss for n, loss in result.losses.items() if n != "loss"}
        values = {**losses, "total_loss": result.total_loss}
        if losses:  # In pre-training the published name of the micro-batches' mean.
            values["avg_loss_step"] = result.total_loss
        values["learning_rate"] = float(self._plan.schedule(result.step - 1))
        values["gradient_norm"] = result.gradient_norm
        if result.loss_scale is not None:
            values["loss_scaler"] = result.loss_scale
        now = time.perf_counter()
        shown = {"loss": result.total_loss}
        if self._since is not None:
            steps, seconds = result.step - self._since[0], now - self._since[1]
            speed = steps * self._sequences_per_step / max(seconds, 1e-9)
            shown["sequences/s"] = speed
        self._log.progress(result.step, shown)
        logs = self._every > 0
        is_due = is_last or (logs and result.step % self._every == 0)
        if self._since is None:
            self._since = (result.step, now)
            speed = self._sequences_per_step / self.seconds
            values = {"throughput_train": speed} | values
        elif is_due:
            self._speeds.append((steps, seconds))
            values = {"throughput_train": speed} | values
            self.restart_clock(result.step)
        else:
            logs = False
        if logs:
            self._log.step(result.step, values)
        if result.step == self._warm_step:
            self._speeds.clear()
            self.restart_clock(result.step)

    def end_early(self, result: StepResult) -> None:
        """Logs a step that turns out to be the last one, unless it was logged."""
        if self._since is None or self._since[0] != result.step:
            self.step(result, is_last=True)

    @contextlib.contextmanager
    def stopped_clock(self) -> Iterator[None]:
        """Leaves the time spent inside out of the speed."""
        stopped = time.perf_counter()
        yield
        seconds = time.perf_counter() - stopped
        self._stopped += seconds
        if self._since:
            step, started = self._since
            self._since = (step, started + seconds)

    def restart_clock(self, step: int) -> None:
        """Starts a new measurement of speed after `step`."""
        self._since = (step, time.perf_counter())

    def summary(self) -> None:
        """Logs the number of skipped steps, and the speed of all measured ones."""
        if self._num_skipped:
            self._log.message(
                f"warning: skipped {counted(self._num_skipped, 'step')} of this "
                "run, since gradients were not finite: the weights stayed as they were."
            )
        seconds = sum(s for _, s in self._speeds)
        if seconds:
            steps = sum(n for n, _ in self._speeds)
            speed = steps * self._sequences_per_step / seconds
            self._log.summary({"throughput_train": speed})
            self._log.message(f"Training throughput: {speed:.1f} sequences/s.")
            if self._is_benchmark:  # The line of Intel's trainer.
                self._log.message(f"Throughput: {speed:.3f} sentence/s")
