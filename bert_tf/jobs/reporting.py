"""What a training run says: before it begins, and while it goes."""

import os
import time

from bert_tf.distribute import Communicator
from bert_tf.evaluation.metrics import write_results
from bert_tf.jobs.changes import describe_changes
from bert_tf.jobs.plan import Plan
from bert_tf.jobs.preparation import PretrainingPlan
from bert_tf.resources import available_cores, describe_cores
from bert_tf.training.runlog import RunLog
from bert_tf.training.trainer import StepResult


def describe(
    plan: PretrainingPlan, communicator: Communicator, threads: int, log: RunLog
) -> None:
    """Says what is about to be done."""
    shape, config = plan.shape, plan.config
    describe_model(plan, threads, log)
    if plan.train_records is None:
        return
    log.message(
        f"Batch: {shape.size} workers x {shape.micro_batch_size} records per "
        f"micro-batch x {shape.num_micro_batches} accumulation = "
        f"{shape.global_batch_size} records per step."
    )
    average = plan.train_records.avg_seq_per_sample
    if plan.train_records.shape.is_packed:
        asked = config.batch.train_batch_size * config.batch.num_accumulation_steps
        log.message(
            f"Packed records, {average:.3f} sequences each: a step has about "
            f"{shape.global_batch_size * average:.0f} sequences (flags: "
            f"{asked * shape.size}, accumulation {config.batch.num_accumulation_steps} "
            f"-> {shape.num_micro_batches})."
        )
    asked = config.optimizer.learning_rate
    log.message(
        f"Optimizer: {config.optimizer.optimizer_type}, peak learning rate "
        f"{plan.learning_rate:g} (--learning_rate={asked:g}, {shape.size} workers), "
        f"{config.optimizer.warmup_steps} steps of warm-up, "
        f"{config.optimizer.num_train_steps} steps in all."
    )
    describe_changes(plan, log)


def report_results(
    plan: Plan, results: dict[str, float], communicator: Communicator, log: RunLog
) -> dict[str, float]:
    """Writes eval_results.txt on the first worker; returns results with the step."""
    results = results | {"global_step": int(plan.optimizer.iterations)}
    if communicator.rank == 0:
        path = os.path.join(plan.config.files.output_dir, "eval_results.txt")
        write_results(path, results)
        log.summary(results)
        for name in sorted(results):
            log.message(f"{name} = {results[name]:.6g}")
        log.message(f"Written to {path}.")
    return results


def describe_model(plan: Plan, threads: int, log: RunLog) -> None:
    """Logs what the run starts from, and what the model is."""
    start, step = plan.start, int(plan.optimizer.iterations)
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
        f"{plan.policy.name}, {threads} threads per worker ({describe_cores()})."
    )
    if plan.config.runtime.dump_precision:
        for (operation, name), dtype in sorted(plan.policy.decisions.items()):
            log.message(f"  {dtype:8}  {operation:11}  {name}")


def thread_warnings(threads: int, asked: int | None, num_workers: int) -> list[str]:
    """Settings of threads that cost speed, or that nobody reads.

    Args:
      threads: Of this worker.
      asked: What --num_threads says, if anything.
      num_workers: Workers on this host.

    Returns:
      The lines to print.
    """
    lines, cores = [], available_cores(num_workers)
    if threads > cores:
        lines.append(
            f"warning: {threads} threads are more than the {cores} that this worker "
            f"can keep busy ({num_workers} workers here, {describe_cores()}); they "
            f"wait for each other. {cores} are the default."
        )
    variable = os.environ.get("OMP_NUM_THREADS", "")
    if asked is None and variable.isdigit() and int(variable) != threads:
        lines.append(
            f"OMP_NUM_THREADS={variable} has no effect, TensorFlow does not read it: "
            f"pass --num_threads={variable}."
        )
    return lines


class StepReport:
    """Log lines of training steps, with the speed between them."""

    def __init__(self, plan: Plan, log: RunLog) -> None:
        self._plan = plan
        self._log = log
        self._every = plan.config.training.display_loss_steps
        self._sequences_per_step = (
            plan.shape.global_batch_size * plan.sequences_per_record
        )
        # The first step traces and compiles the graph: it is left out of all speeds.
        self._since: tuple[int, float] | None = None
        self._speeds: list[tuple[int, float]] = []

    def report(self, result: StepResult, is_last: bool) -> None:
        """Tells of one step."""
        values = {
            **result.losses,
            "total_loss": result.total_loss,
            # The older systems' mean over the micro-batches of a step: the same here.
            "avg_loss_step": result.total_loss,
            "learning_rate": float(self._plan.schedule(result.step - 1)),
        }
        if result.loss_scale is not None:
            values["loss_scaler"] = result.loss_scale
        self._log.progress(result.step, {"loss": result.total_loss})
        now = time.perf_counter()
        if self._since is None:
            self._since = (result.step, now)
            self._log.step(result.step, values)
        elif result.step % self._every == 0 or is_last:
            steps, seconds = result.step - self._since[0], now - self._since[1]
            self._speeds.append((steps, seconds))
            speed = steps * self._sequences_per_step / seconds
            self._log.step(result.step, {"throughput_train": speed} | values)
            self.restart_clock(result.step)

    def leave_out(self, seconds: float) -> None:
        """Takes time that was not training's from the measurement."""
        step, started = self._since
        self._since = (step, started + seconds)

    def restart_clock(self, step: int) -> None:
        """Begins a new measurement of speed after `step`."""
        self._since = (step, time.perf_counter())

    def summary(self) -> None:
        """Tells the speed of all measured steps."""
        seconds = sum(s for _, s in self._speeds)
        if seconds:
            steps = sum(n for n, _ in self._speeds)
            speed = steps * self._sequences_per_step / seconds
            self._log.summary({"throughput_train": speed})
            self._log.message(f"Training throughput: {speed:.1f} sequences/s.")
