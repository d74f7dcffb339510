"""Pre-training: a config to a trained and evaluated model."""

import dataclasses
import os
import time

import numpy as np
import tensorflow as tf

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
from bert_tf.jobs.preparation import (
    Plan,
    prepare,
    prepare_output_dir,
    slots_by_name,
    weights_by_name,
)
from bert_tf.jobs.reporting import StepReport, describe
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import RunPosition
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.profiling import StepProfiler
from bert_tf.training.runlog import ConsoleLog, RunLog
from bert_tf.training.trainer import Trainer

# The order of an evaluation set never changes, so that results can be compared.
EVALUATION_SEED = 0


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
    log = RunLog()
    try:
        plan, log = _agreed_plan(config, communicator)
        describe(plan, communicator, threads, log)
        communicator.broadcast(shared_state(plan))
        if config.training.do_train:
            train(plan, communicator, log)
        if config.training.do_eval:
            return evaluate(plan, communicator, log)
        return {}
    except Exception as error:
        if is_worker_loss(error):
            raise OtherWorkerFailed("Another worker stopped.") from error
        if isinstance(error, OSError):
            raise RunError(f"A file cannot be read or written: {error}") from error
        raise
    finally:
        log.close()


def _agreed_plan(
    config: PretrainingConfig, communicator: Communicator
) -> tuple[Plan, RunLog]:
    """Prepares on every worker; all fail if one does."""
    error = plan = log = None
    try:
        if communicator.rank == 0:
            prepare_output_dir(config)
    except OSError as caught:
        error = caught
    communicator.agree(error)
    try:
        plan = prepare(config, communicator)
        log = RunLog()
        if communicator.rank == 0:
            default = os.path.join(config.files.output_dir, "bert_dllog.json")
            path = config.files.dllog_path or default
            log = ConsoleLog(
                path,
                config.optimizer.num_train_steps,
                may_show_bar=communicator.size == 1,
            )
    except (ValueError, OSError, RunError, tf.errors.OpError) as caught:
        error = caught
    communicator.agree(error)
    communicator.agree(_difference_between_workers(plan, communicator))
    return plan, log


def _difference_between_workers(
    plan: Plan, communicator: Communicator
) -> ValueError | None:
    """What the workers do not have in common, though they must."""
    found = {
        "step of the checkpoint": int(plan.optimizer.iterations),
        "accumulation steps": plan.shape.num_micro_batches,
        "micro-batch": plan.shape.micro_batch_size,
        "learning rate": plan.learning_rate,
        "seed": plan.seed,
        "training records": len(plan.train_records or ()),
        "evaluation records": len(plan.eval_records or ()),
    }
    table = communicator.gather(list(found.values()))
    differing = np.flatnonzero((table != table[0]).any(axis=0))
    if not differing.size:
        return None
    name = list(found)[differing[0]]
    values = ", ".join(f"{value:.12g}" for value in table[:, differing[0]])
    return ValueError(
        f"All workers must have the same {name}. Received, by worker: {values}. Give "
        "all the same command, and folders that all of them can read and share."
    )


def shared_state(plan: Plan) -> list:
    """Every variable that the workers must have in common."""
    return [
        *plan.task.model.trainable_variables,
        *plan.optimizer.slots().values(),
        plan.optimizer.iterations,
    ]


class _CheckpointWriter:
    """Saves a run's state, and deletes checkpoints that are no longer wanted."""

    def __init__(
        self,
        plan: Plan,
        reader: TrainingReader,
        loss_scale: LossScale | None,
        rank: int,
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._loss_scale = loss_scale
        self._rank = rank
        directory = plan.config.files.output_dir
        overwrite = plan.config.files.overwrite_output_dir and not plan.start.is_own
        self._stale = checkpoints.committed_steps(directory) if overwrite else []

    def save(self, step: int) -> None:
        """Writes the state after `step` steps, on the first worker."""
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
            **self._scale_state(),
        )
        checkpoints.save(files.output_dir, tensors, position)
        old = [s for s in self._stale if s != step]
        kept = [
            s for s in checkpoints.committed_steps(files.output_dir) if s not in old
        ]
        for unwanted in old + kept[: -files.keep_checkpoint_max]:
            checkpoints.remove(files.output_dir, unwanted)
        self._stale = []

    def _scale_state(self) -> dict[str, float]:
        scale = self._loss_scale
        if scale is None:
            return {}
        return {"loss_scale": scale.value, "num_finite_steps": scale.num_finite_steps}


def _loss_scale(plan: Plan) -> LossScale | None:
    """That of the run to go on with, or a new one; None but in float16."""
    if plan.policy.name != "fp16":
        return None
    position = plan.start.position
    if position is None or position.loss_scale is None:
        return LossScale(plan.config.runtime.init_loss_scale)
    return LossScale(position.loss_scale, position.num_finite_steps)


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


def train(plan: Plan, communicator: Communicator, log: RunLog) -> None:
    """Takes the steps that are left."""
    config = plan.config
    num_train_steps = config.optimizer.num_train_steps
    settings = _gradient_settings(plan)
    scale = _loss_scale(plan)
    trainer = Trainer(plan.task, plan.optimizer, communicator, settings, scale)
    if trainer.step >= num_train_steps:
        log.message(f"All steps are done: {trainer.step} of {num_train_steps}.")
        return
    reader = _reader(plan)
    writer = _CheckpointWriter(plan, reader, scale, communicator.rank)
    report = StepReport(plan, log)
    if not plan.start.is_own:
        # A folder that cannot hold a checkpoint is found now, not after hours.
        writer.save(trainer.step)
    last_step = num_train_steps
    if config.training.steps_this_run:
        last_step = min(last_step, trainer.step + config.training.steps_this_run)
    traces = os.path.join(config.files.output_dir, "profile")
    steps = config.runtime.profile if communicator.rank == 0 else ""
    profiler = StepProfiler(steps, traces)
    for line in profiler.check(trainer.step + 1, last_step):
        log.message(line)
    for batch in reader.batches(last_step):
        profiler.before(trainer.step + 1)
        result = trainer.train_step(batch)
        is_last = result.step == last_step
        report.report(result, is_last)
        for line in profiler.after(result.step, is_last=is_last):
            log.message(line)
        if is_last or result.step % config.training.save_checkpoints_steps == 0:
            writer.save(result.step)
            report.restart_clock(result.step)
    report.summary()


def evaluate(plan: Plan, communicator: Communicator, log: RunLog) -> dict[str, float]:
    """Evaluates, and writes eval_results.txt on the first worker."""
    config = plan.config
    order = RecordOrder(num_records=len(plan.eval_records), seed=EVALUATION_SEED)
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
