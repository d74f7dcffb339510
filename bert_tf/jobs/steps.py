"""The steps of a training, with checkpoints, log lines and profile."""

import os
import time
from collections.abc import Iterator

from bert_tf.data.batches.record_batches import StepReader
from bert_tf.distribute import Communicator
from bert_tf.jobs.changes import run_settings
from bert_tf.jobs.plan import Plan, slots_by_name, weights_by_name
from bert_tf.jobs.reporting import StepReport
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import RunPosition
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.profiling import StepProfiler
from bert_tf.training.runlog import RunLog
from bert_tf.training.trainer import Trainer


class _CheckpointWriter:
    """Saves a run's state, and deletes checkpoints that are no longer wanted."""

    def __init__(
        self,
        plan: Plan,
        reader: StepReader,
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
            num_records=plan.num_train_records,
            data_sha256=plan.data_sha256,
            is_packed=plan.is_packed,
            config=run_settings(plan),
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
        rank=plan.shape.rank,
        seed=plan.seed,
        max_grad_norm=plan.config.optimizer.max_grad_norm,
        allreduce_post_accumulation=training.allreduce_post_accumulation,
        is_micro_batch_mean=training.is_micro_batch_mean,
        clip_each_micro_batch=training.clip_each_micro_batch,
        use_xla=plan.config.runtime.use_xla,
    )


def take_steps(
    plan: Plan, reader: StepReader, communicator: Communicator, log: RunLog
) -> Iterator[int]:
    """Takes the steps of a run that are left, and saves checkpoints.

    Args:
      plan: The run.
      reader: Its batches.
      communicator: The workers.
      log: Where steps are told.

    Yields:
      The number of each step that is done.
    """
    config = plan.config
    settings, scale = _gradient_settings(plan), _loss_scale(plan)
    trainer = Trainer(
        plan.task,
        plan.optimizer,
        communicator,
        settings,
        scale,
        rows_vary=reader.rows_vary,
    )
    writer = _CheckpointWriter(plan, reader, scale, communicator.rank)
    report = StepReport(plan, log)
    # The file may have steps after this one, of a run that was killed, or of another.
    log.parameters({"first_step": trainer.step + 1})
    if not plan.start.is_own:
        # A folder that cannot hold a checkpoint is found now, not after hours.
        writer.save(trainer.step)
    last_step = config.optimizer.num_train_steps
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
        paused = time.perf_counter()
        yield result.step
        report.leave_out(time.perf_counter() - paused)
    report.summary()
