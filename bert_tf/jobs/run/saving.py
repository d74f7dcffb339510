"""Saves the state of a run while the training continues."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np

from bert_tf.data.batches.record_batches import StepReader
from bert_tf.errors import RunError
from bert_tf.interop.tensor_names import of_variable
from bert_tf.jobs.run.best_checkpoint import FORGET_BEST
from bert_tf.jobs.run.checkpoint_policy import CheckpointPolicy
from bert_tf.jobs.run.output_dir import changed_files
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.resume import slots_by_name, weights_by_name
from bert_tf.report.log_curves import SAVE_SECONDS
from bert_tf.stages import stage
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import Tensors
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.manifest import RunPosition
from bert_tf.training.runlog import RunLog
from bert_tf.training.sharding import OptimizerShards

BLOCKED_SECONDS = "checkpoint_blocked_seconds"


class _Save(NamedTuple):
    """A checkpoint that is being written.

    Attributes:
      step: Its step.
      blocked: Seconds that the training waited.
      seconds: Ends with the seconds that writing took.
    """

    step: int
    blocked: float
    seconds: Future[float]


class CheckpointSaver:
    """Saves the state of a run, and deletes older checkpoints; for the first worker.

    The training waits while the state is copied; one thread writes the copy, and there
    is one copy at a time. A context: at its end nothing is being written.
    """

    def __init__(
        self,
        plan: Plan,
        reader: StepReader,
        loss_scale: LossScale | None,
        log: RunLog,
        shards: OptimizerShards | None = None,
    ) -> None:
        """Prepares for one run.

        Args:
          plan: The run.
          reader: Knows how many records were read after a step.
          loss_scale: Of float16.
          log: Gets a line for each checkpoint.
          shards: The optimizer's state, if it is sharded: all workers must have
            gathered it before a checkpoint is saved.
        """
        self._shards = shards
        self._plan = plan
        self._reader = reader
        self._loss_scale = loss_scale
        self._log = log
        files = plan.config.files
        overwrites = files.overwrite_output_dir and not plan.start.is_own
        # Checkpoints of the overwritten run, kept until the first new one is complete.
        self._overwritten = (
            checkpoints.committed_steps(files.output_dir) if overwrites else []
        )
        self._is_first_save = not plan.start.is_own
        self._policy = CheckpointPolicy(plan.config, self._num_samples)
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._current: _Save | None = None
        self._saved_step: int | None = plan.step if plan.start.is_own else None
        self._last_time = time.monotonic()

    def __enter__(self) -> Self:
        """Logs when it saves, if that is not as it is by default."""
        for line in self._policy.notes():
            self._log.message(line)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Waits for the checkpoint that is being written."""
        try:
            self.wait()
        except (RunError, OSError) as own:
            if error is None:
                raise
            self._log.message(f"warning: {own}")  # The first error is reported.
        finally:
            self._thread.shutdown()

    def try_save(self) -> None:
        """Finds, at a run's start, a folder in which no checkpoint can be saved.

        Raises:
          RunError: if it cannot be written.
        """
        if self._plan.start.is_own or not self._policy.saves:
            return
        checkpoints.try_save(
            self._plan.config.files.output_dir,
            self._tensors(),
            self._position(self._plan.step),
        )

    def before_report(self, step: int) -> None:
        """Waits for the last checkpoint if the next one is due, or it is complete.

        So a step that is reported is never further from a checkpoint than the one
        before it.

        Raises:
          RunError: if it cannot be written.
        """
        is_done = self._current is not None and self._current.seconds.done()
        if is_done or self._is_due(step):
            self.wait()

    def after_step(self, step: int, *, is_last: bool) -> None:
        """Saves if a checkpoint is due; the last one is complete when this returns.

        Raises:
          RunError: if this checkpoint or the one before cannot be written.
        """
        if is_last:
            self.save_now(step)
        elif self._is_due(step):
            self.save(step)

    def is_due(self, step: int) -> bool:
        """Whether to save after a step, by the settings and the time now."""
        return self._policy.is_due(step, time.monotonic() - self._last_time)

    def _is_due(self, step: int) -> bool:
        if self._shards is None:
            return self.is_due(step)
        # All workers have agreed on it before the step, and gathered the state.
        return self._policy.saves and self._shards.gathered is not None

    def _num_samples(self, step: int) -> float:
        """Sequences that the run has trained on after `step` steps."""
        average = self._plan.training_set.sequences_per_record
        return self._reader.position(step) * average

    def save(self, step: int) -> None:
        """Copies the state after `step` steps, and writes the copy in the thread.

        Raises:
          RunError: if the checkpoint before cannot be written.
        """
        started = time.perf_counter()
        self.wait()
        copy = {
            name: value if isinstance(value, np.ndarray) else value.numpy()
            for name, value in self._tensors().items()
        }
        seconds = self._thread.submit(self._write, copy, self._position(step))
        self._current = _Save(step, time.perf_counter() - started, seconds)
        self._last_time = time.monotonic()

    def save_now(self, step: int) -> None:
        """Saves the state after `step` steps, unless it has been saved, and waits.

        The state must be that of the model and the optimizer: no later step has begun.

        Raises:
          RunError: if this checkpoint cannot be written.
        """
        if not self._policy.saves:
            self._log.message(f"Step {step} is not saved: its weights are lost.")
            return
        started = time.perf_counter()
        try:
            self.wait()
        except (RunError, OSError) as error:  # There may be room again.
            self._log.message(f"warning: {error}")
        if self._saved_step == step:
            return
        # Without a copy: nothing changes meanwhile.
        with stage(f"Saving step {step}", self._log.message):
            content = (self._tensors(), self._position(step))
            write = self._thread.submit(self._write, *content)
            write.exception()
        self._current = _Save(step, time.perf_counter() - started, write)
        self.wait()

    def save_first(self, step: int) -> None:
        """Saves as `save_now` does, unless this run has a checkpoint.

        What a run keeps elsewhere replaces that of an earlier run only then.

        Raises:
          RunError: if this checkpoint cannot be written.
        """
        if self._is_first_save:
            self.save_now(step)

    def wait(self) -> None:
        """Waits until nothing is being written.

        Raises:
          RunError: if the checkpoint cannot be written.
        """
        current, self._current = self._current, None
        if current is None:
            return
        seconds = current.seconds.result()
        self._saved_step = current.step
        values = {SAVE_SECONDS: seconds, BLOCKED_SECONDS: current.blocked}
        self._log.saved(current.step, values)

    def _tensors(self) -> Tensors:
        plan = self._plan
        weights = plan.averages.tensors() if plan.averages else {}
        weights = weights or weights_by_name(plan.task.model)
        if self._shards is None:
            return weights | slots_by_name(plan.optimizer)
        if self._shards.gathered is None:
            raise RuntimeError("The optimizer's state has not been gathered.")
        moments = self._shards.gathered.items()
        return weights | {of_variable(name): moment for name, moment in moments}

    def _position(self, step: int) -> RunPosition:
        plan, scale, trained = self._plan, self._loss_scale, self._plan.training_set
        return RunPosition(
            step=step,
            records=self._reader.position(step),
            global_batch_size=plan.shape.global_batch_size,
            learning_rate=plan.learning_rate,
            seed=plan.seed,
            num_records=trained.num_records,
            loss_scale=scale.value if scale else None,
            num_finite_steps=scale.num_finite_steps if scale else 0,
            data_sha256=trained.sha256,
            is_packed=trained.is_packed,
            config=plan.settings(),
            fingerprint=plan.fingerprint,
            elapsed_seconds=plan.clock.seconds() if plan.clock else None,
        )

    def _write(self, tensors: Tensors, position: RunPosition) -> float:
        """Writes a checkpoint and deletes old ones; returns the seconds."""
        started = time.perf_counter()
        files = self._plan.config.files
        folder, replaces = files.output_dir, self._overwritten
        beside = changed_files(folder, self._plan.model_files)
        if self._is_first_save:
            beside |= FORGET_BEST
        checkpoints.save(folder, tensors, position, replaces=replaces, beside=beside)
        self._overwritten, self._is_first_save = [], False
        for step in checkpoints.committed_steps(folder)[: -files.keep_checkpoint_max]:
            checkpoints.remove(folder, step)
        return time.perf_counter() - started
