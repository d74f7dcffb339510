"""Pre-training: a config to a trained and evaluated model."""

import dataclasses
import os
import time

from bert_tf.config import PretrainingConfig
from bert_tf.data.pipeline import TrainingReader, evaluation_batches
from bert_tf.data.sampling import RecordOrder
from bert_tf.distribute import (
    Communicator,
    configure_devices,
    connect,
    is_worker_loss,
)
from bert_tf.errors import OtherWorkerFailed, RunError
from bert_tf.evaluation.metrics import evaluate_pretraining, write_results
from bert_tf.jobs.preparation import Plan, prepare, slots_by_name, weights_by_name
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import RunPosition
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.runlog import ConsoleLog, RunLog, SilentLog
from bert_tf.training.trainer import StepResult, Trainer

# The order of an evaluation set never changes, so that results can be compared.
_EVALUATION_SEED = 0


def run(config: PretrainingConfig) -> dict[str, float]:
    """Trains and evaluates as the config says.

    Args:
      config: The settings.

    Returns:
      The evaluation's results, as in eval_results.txt; empty without evaluation.

    Raises:
      RunError: if the run cannot begin or go on.
    """
    runtime = config.runtime
    communicator = connect(runtime.horovod, runtime.horovod_hierarchical_allreduce)
    threads = configure_devices(communicator, runtime.num_threads)
    plan, log = _agreed_plan(config, communicator)
    try:
        _describe(plan, communicator, threads, log)
        communicator.broadcast(_state(plan))
        if config.training.do_train:
            _train(plan, communicator, log)
        if config.training.do_eval:
            return _evaluate(plan, communicator, log)
        return {}
    except Exception as error:
        if is_worker_loss(error):
            raise OtherWorkerFailed("Another worker stopped.") from error
        raise
    finally:
        log.close()


def _agreed_plan(
    config: PretrainingConfig, communicator: Communicator
) -> tuple[Plan, RunLog]:
    """Prepares on every worker; all fail if one does."""
    error = plan = log = None
    try:
        plan = prepare(config, communicator)
        log = SilentLog()
        if communicator.rank == 0:
            checkpoints.remove_leftovers(config.files.output_dir)
            default = os.path.join(config.files.output_dir, "bert_dllog.json")
            path = config.files.dllog_path or default
            log = ConsoleLog(path, config.optimizer.num_train_steps)
    except (ValueError, OSError, RunError) as caught:
        error = caught
    communicator.agree(error)
    return plan, log


def _state(plan: Plan) -> list:
    """Every variable that the workers must have in common."""
    return [
        *plan.task.model.trainable_variables,
        *plan.optimizer.slots().values(),
        plan.optimizer.iterations,
    ]


def _describe(
    plan: Plan, communicator: Communicator, threads: int, log: RunLog
) -> None:
    """Says what is about to be done."""
    shape, start, config = plan.shape, plan.start, plan.config
    step = int(plan.optimizer.iterations)
    if start.is_own:
        log.message(f"Going on from {start.prefix} (step {step}).")
    elif start.prefix:
        taken = "all state" if start.takes_state else "weights"
        log.message(f"Starting with the {taken} of {start.prefix}, step {step}.")
    if plan.unused_tensors:
        names = ", ".join(plan.unused_tensors)
        log.message(f"Not used of {start.prefix}: {names}.")
    log.message(
        f"Model: {plan.task.model.count_params():,} weights, precision "
        f"{plan.policy.name}, {threads} threads per worker."
    )
    if not config.training.do_train:
        return
    log.message(
        f"Batch: {shape.size} workers x {shape.micro_batch_size} records per "
        f"micro-batch x {shape.num_micro_batches} accumulation = "
        f"{shape.global_batch_size} records per step."
    )
    asked = config.optimizer.learning_rate
    log.message(
        f"Optimizer: {config.optimizer.optimizer_type}, peak learning rate "
        f"{plan.learning_rate:g} (--learning_rate={asked:g}, {shape.size} workers), "
        f"{config.optimizer.warmup_steps} steps of warm-up, "
        f"{config.optimizer.num_train_steps} steps in all."
    )
    _describe_changes(plan, log)


def _describe_changes(plan: Plan, log: RunLog) -> None:
    """Says where a resumed run keeps its own values against the flags'."""
    position, config = plan.start.position, plan.config
    if position is None:
        return
    size = plan.shape.size if config.optimizer.scale_learning_rate else 1
    batch = config.batch
    flags_batch = batch.train_batch_size * batch.num_accumulation_steps * plan.shape.size
    pairs = {
        "learning rate": (position.learning_rate, config.optimizer.learning_rate * size),
        "global batch": (position.global_batch_size, flags_batch),
        "seed": (position.seed, config.training.seed),
    }
    for name, (kept, asked) in pairs.items():
        if kept != asked:
            log.message(f"Kept from the checkpoint: {name} {kept:g} (flags: {asked:g}).")
    if len(plan.train_records) != position.num_records:
        log.message(
            f"warning: the run began with {position.num_records} records and now has "
            f"{len(plan.train_records)}; the order of the records is another one."
        )


class _CheckpointWriter:
    """Saves a run's state, and deletes checkpoints that are no longer wanted."""

    def __init__(self, plan: Plan, reader: TrainingReader, rank: int) -> None:
        self._plan = plan
        self._reader = reader
        self._rank = rank
        directory = plan.config.files.output_dir
        overwrite = plan.config.files.overwrite_output_dir and not plan.start.is_own
        self._stale = checkpoints.committed_steps(directory) if overwrite else []
        self.last_step = int(plan.optimizer.iterations) if plan.start.is_own else -1

    def save(self, step: int) -> None:
        """Writes the state after `step` steps, on the first worker."""
        self.last_step = step
        if self._rank:
            return
        plan, files = self._plan, self._plan.config.files
        tensors = weights_by_name(plan.task.model) | slots_by_name(plan.optimizer)
        position = RunPosition(
            step=step,
            records=self._reader.position(step),
            global_batch_size=plan.shape.global_batch_size,
            learning_rate=plan.learning_rate,
            seed=plan.seed,
            num_records=len(plan.train_records),
            config=dataclasses.asdict(plan.config),
        )
        for stale in self._stale:
            if stale == step:
                checkpoints.remove(files.output_dir, stale)
        checkpoints.save(files.output_dir, tensors, position)
        old = [s for s in self._stale if s != step]
        kept = [s for s in checkpoints.committed_steps(files.output_dir) if s not in old]
        for unwanted in old + kept[: -files.keep_checkpoint_max]:
            checkpoints.remove(files.output_dir, unwanted)
        self._stale = []


class _StepReport:
    """Log lines of training steps, with the speed between them."""

    def __init__(self, plan: Plan, log: RunLog) -> None:
        self._plan = plan
        self._log = log
        self._every = plan.config.training.display_loss_steps
        # The first step traces and compiles the graph: it is left out of all speeds.
        self._since: tuple[int, float] | None = None
        self._speeds: list[tuple[int, float]] = []

    def report(self, result: StepResult, is_last: bool) -> None:
        """Tells of one step."""
        values = {
            **result.losses,
            "total_loss": result.total_loss,
            "avg_loss_step": result.total_loss,
            "learning_rate": float(self._plan.schedule(result.step - 1)),
        }
        self._log.progress(result.step, {"loss": result.total_loss})
        now = time.perf_counter()
        if self._since is None:
            self._since = (result.step, now)
            self._log.step(result.step, values)
        elif result.step % self._every == 0 or is_last:
            steps, seconds = result.step - self._since[0], now - self._since[1]
            self._speeds.append((steps, seconds))
            speed = steps * self._plan.shape.global_batch_size / seconds
            self._log.step(result.step, {"throughput_train": speed} | values)
            self.restart_clock(result.step)

    def restart_clock(self, step: int) -> None:
        """Begins a new measurement of speed after `step`."""
        self._since = (step, time.perf_counter())

    def summary(self) -> None:
        """Tells the speed of all measured steps."""
        seconds = sum(s for _, s in self._speeds)
        if seconds:
            steps = sum(n for n, _ in self._speeds)
            speed = steps * self._plan.shape.global_batch_size / seconds
            self._log.summary({"throughput_train": speed})
            self._log.message(f"Training throughput: {speed:.1f} sequences/s.")


def _gradient_settings(plan: Plan) -> GradientSettings:
    training = plan.config.training
    return GradientSettings(
        first_row=plan.shape.first_row,
        seed=plan.seed,
        max_grad_norm=plan.config.optimizer.max_grad_norm,
        allreduce_post_accumulation=training.allreduce_post_accumulation,
        is_micro_batch_mean=training.is_micro_batch_mean,
        clip_each_micro_batch=training.clip_each_micro_batch,
        use_xla=plan.config.runtime.use_xla,
    )


def _reader(plan: Plan) -> TrainingReader:
    step = int(plan.optimizer.iterations)
    position = plan.start.position
    default = step * plan.shape.global_batch_size
    order = RecordOrder(
        num_records=len(plan.train_records),
        seed=plan.seed,
        is_shuffled=not plan.config.training.deterministic_run,
    )
    return TrainingReader(
        plan.train_records.parser,
        order,
        plan.shape,
        first_step=step,
        first_position=position.records if position else default,
    )


def _train(plan: Plan, communicator: Communicator, log: RunLog) -> None:
    """Takes the steps that are left."""
    num_train_steps = plan.config.optimizer.num_train_steps
    settings = _gradient_settings(plan)
    trainer = Trainer(plan.task, plan.optimizer, communicator, settings)
    if trainer.step >= num_train_steps:
        log.message(f"All {num_train_steps} steps are done.")
        return
    reader = _reader(plan)
    writer = _CheckpointWriter(plan, reader, communicator.rank)
    report = _StepReport(plan, log)
    for batch in reader.batches(num_train_steps):
        result = trainer.train_step(batch)
        is_last = result.step == num_train_steps
        report.report(result, is_last)
        if is_last or result.step % plan.config.training.save_checkpoints_steps == 0:
            writer.save(result.step)
            report.restart_clock(result.step)
    report.summary()


def _evaluate(plan: Plan, communicator: Communicator, log: RunLog) -> dict[str, float]:
    """Evaluates, and writes eval_results.txt on the first worker."""
    config = plan.config
    order = RecordOrder(num_records=len(plan.eval_records), seed=_EVALUATION_SEED)
    batches = evaluation_batches(
        plan.eval_records.parser,
        order,
        batch_size=config.batch.eval_batch_size,
        max_batches=config.training.max_eval_steps,
        rank=communicator.rank,
        size=communicator.size,
    )
    started = time.perf_counter()
    results = evaluate_pretraining(plan.task, batches, communicator)
    seconds = time.perf_counter() - started
    results["global_step"] = int(plan.optimizer.iterations)
    if communicator.rank == 0:
        path = os.path.join(config.files.output_dir, "eval_results.txt")
        write_results(path, results)
        log.summary({"throughput_val": results["next_sentence_count"] / seconds})
        log.summary(results)
        for name in sorted(results):
            log.message(f"{name} = {results[name]:.6g}")
        log.message(f"Written to {path}.")
    return results
