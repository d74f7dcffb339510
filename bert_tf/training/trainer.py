"""One optimizer step as one graph."""

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.training.averages import WeightAverages
from bert_tf.training.clipping import clip_scale, global_norm
from bert_tf.training.clock import TrainingClock
from bert_tf.training.gradients import (
    GradientAccumulator,
    GradientSettings,
    Task,
)
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.nonfinite import Cause, find_cause
from bert_tf.training.optimizer_base import BertOptimizer
from bert_tf.training.sharding import OptimizerShards

# A run that skips this many steps one after another has diverged.
MAX_SKIPPED_IN_A_ROW = 10
# Makes the context in which a step that was not finite is computed again.
Recomputing = Callable[[], contextlib.AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True)
class StepResult:
    """The result of one step.

    Attributes:
      step: Steps taken, this one included.
      losses: Mean of each of the task's losses over the global batch, in nats.
      gradient_norm: Global norm before clipping.
      loss_scale: That of float16; None without one.
      skipped: Why the weights were not changed; empty if they were.
      must_stop: A worker was asked to stop: all leave after this step.
      is_dropped: They left in the middle of the step after `step`, which changed
        nothing; there are no losses then.
      is_time_over: The time of the training is over; all end after this step.
      saves: The first worker saves this step; known if the optimizer is sharded.
    """

    step: int
    losses: dict[str, float]
    gradient_norm: float
    loss_scale: float | None = None
    skipped: str = ""
    must_stop: bool = False
    is_dropped: bool = False
    is_time_over: bool = False
    saves: bool = False

    @property
    def total_loss(self) -> float:
        """Sum of the losses."""
        return sum(self.losses.values())


class Trainer:
    """Takes optimizer steps; the step counter is the optimizer's `iterations`."""

    def __init__(
        self,
        task: Task,
        optimizer: BertOptimizer,
        communicator: Communicator,
        settings: GradientSettings,
        loss_scale: LossScale | None = None,
        clock: TrainingClock | None = None,
        *,
        rows_vary: bool = False,
        skip_nonfinite: bool = False,
        averages: WeightAverages | None = None,
        shards_optimizer: bool = False,
        name_rows: Callable[[int, int], str] = lambda step, part: "",
        recomputing: Recomputing = contextlib.nullcontext,
    ) -> None:
        """Prepares the graph of a step, which is traced at the first batch.

        Args:
          task: The model and its losses.
          optimizer: Updates the model's trainable variables.
          communicator: The workers.
          settings: How the gradient of a step is made.
          loss_scale: Of float16; None without one.
          clock: Of a training that has a time; None without one.
          rows_vary: Whether batches have different numbers of rows. One graph is then
            traced for any number: a graph for the first number alone, and a general
            one from the second on, would round differently, and so would a resumed run
            and one that was never stopped.
          skip_nonfinite: Leave out steps whose gradient is not finite.
          averages: Follow each update of the weights.
          shards_optimizer: Divide the optimizer's state among several workers.
          name_rows: Step, from 0, and index of a micro-batch -> the records that this
            worker reads for it, for messages.
          recomputing: Is entered while a step that was not finite is computed again.
        """
        self.task = task
        self.optimizer = optimizer
        self.optimizer.is_fused = fused_ops.are_in_use()
        self._settings = settings
        self._communicator = communicator
        self._skip_nonfinite = skip_nonfinite
        self._averages = averages
        self._name_rows = name_rows
        self._recomputing = recomputing
        self._skipped_in_a_row = 0
        self._variables = task.model.trainable_variables
        self.optimizer.build(self._variables)
        self.loss_scale = loss_scale
        scale = loss_scale.variable if loss_scale else None
        self._stop = tf.Variable(0.0, trainable=False)
        self._clock = clock
        self._own_share = tf.Variable(0.0, trainable=False)
        self._saves = tf.Variable(0.0, trainable=False)
        own_values = [self._own_share] if clock else []
        self.shards = None
        if shards_optimizer and communicator.size > 1:
            self.shards = OptimizerShards(optimizer, self._variables, communicator)
            settings = dataclasses.replace(settings, sums_over_workers=False)
            own_values.append(self._saves)
        self._gradients = GradientAccumulator(
            *(task, communicator, settings, scale, self._stop, own_values)
        )
        self._norm, self._update = global_norm, self._assign
        # The fused optimizer is one operation for each variable, outside of XLA.
        if settings.use_xla and not (self.shards or optimizer.is_fused):
            self._norm, self._update = (
                tf.function(each, autograph=False, jit_compile=True)
                for each in (global_norm, self._assign)
            )
        self._graph = tf.function(self._step, autograph=False)
        # Traced after a step that is not finite only.
        self._prepared = tf.function(self._gradients.prepared, autograph=False)
        self._micro_batch = tf.function(self._gradients.micro_batch, autograph=False)
        self._rows_vary = rows_vary

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.optimizer.iterations.numpy())

    @property
    def _is_time_over(self) -> bool:
        return self._clock is not None and bool(self._clock.share.numpy() >= 1.0)

    def ask_to_stop(self) -> None:
        """Makes all workers leave the current step, or the next; from any thread."""
        self._stop.assign(1.0)

    def train_step(
        self, batch: dict[str, np.ndarray], *, saves: bool = False
    ) -> StepResult:
        """Takes one step, and repeats it with half the loss scale if float16 overflows.

        Args:
          batch: This worker's features, [k, B, ...].
          saves: Whether this worker saves the step; the others of a sharded optimizer
            then know it.

        Returns:
          The step's losses, and whether to stop; equal on every worker.

        Raises:
          NonFiniteError: on every worker, if the gradient is not finite, and may not be
            skipped; the weights are not changed.
        """
        tensors = self._tensors(batch)
        if self._clock and not self._communicator.rank:
            self._own_share.assign(self._clock.own_share())
        if self.shards:
            self.shards.forget()
            self._saves.assign(float(saves))
        losses, norm, stops, saves = self._computed(tensors)
        scale = self.loss_scale.value if self.loss_scale else None
        while not np.isfinite(norm) and not stops.any() and self._may_try_again(losses):
            losses, norm, stops, saves = self._computed(tensors)
        is_finite = bool(np.isfinite(norm))
        must_drop, must_stop = map(bool, stops)
        if must_drop or (must_stop and not is_finite):
            return StepResult(self.step, {}, 0.0, must_stop=True, is_dropped=True)
        values = dict(zip(self.task.loss_names, map(float, losses), strict=True))
        if not is_finite:
            result = self._skip(tensors, values)
            result = dataclasses.replace(result, saves=bool(saves))
            if self.loss_scale is not None:  # A smaller scale has not helped.
                self.loss_scale.change(scale)
            return result
        self._skipped_in_a_row = 0
        if self.loss_scale is not None:
            scale = self.loss_scale.value
            self.loss_scale.note_finite_step()
        return StepResult(
            *(self.step, values, float(norm), scale),
            must_stop=must_stop,
            is_time_over=self._is_time_over,
            saves=bool(saves),
        )

    def gather_state(self) -> None:
        """Collects a sharded optimizer's state on the first worker, for a checkpoint.

        To be called on all workers, between two steps. The next step forgets it.
        """
        if self.shards and self.shards.gathered is None:
            self.shards.gather()

    def warm_up(self, batch: dict[str, np.ndarray], num_steps: int) -> None:
        """Takes steps on made-up rows, and undoes them; all workers must call it.

        Afterwards the graph is compiled, memory is allocated and workers are connected.

        Args:
          batch: Its shapes and types are those of the rows.
          num_steps: How many.
        """
        tensors = self._tensors({name: _made_up(name, x) for name, x in batch.items()})
        changed = [*self._variables, self.optimizer.iterations]
        changed += self.optimizer.slots().values()
        changed += self._averages.variables if self._averages else []
        changed += self.shards.variables if self.shards else []
        before = [variable.numpy() for variable in changed]
        for _ in range(num_steps):
            results = self._graph(tensors)
        results.numpy()  # Waits for the last step.
        for variable, value in zip(changed, before, strict=True):
            variable.assign(value)

    def _tensors(self, batch: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
        """A batch for the graph, which is traced for the first one."""
        tensors = {name: tf.convert_to_tensor(x) for name, x in batch.items()}
        if self._rows_vary and not self._graph.experimental_get_tracing_count():
            self._graph.get_concrete_function(_of_any_rows(tensors))
        return tensors

    def _computed(self, tensors: dict[str, tf.Tensor]) -> list[np.ndarray]:
        """Takes a step: losses, norm, both stops, and whether it is saved."""
        results = self._graph(tensors).numpy()  # The only wait for the device.
        ends = len(self.task.loss_names) + np.array([0, 1, 3])
        losses, (norm,), stops, (saves,) = np.split(results, ends)
        return [losses, norm, stops, saves]

    def _may_try_again(self, losses: np.ndarray) -> bool:
        """Halves the loss scale if the gradient alone overflowed, on all workers."""
        is_overflow = np.isfinite(losses).all()
        return is_overflow and self.loss_scale is not None and self.loss_scale.lower()

    def _skip(
        self, batch: dict[str, tf.Tensor], losses: dict[str, float]
    ) -> StepResult:
        """Counts a step without changing the weights, if that is allowed.

        The learning rate goes on, and the step's records count as read, so that step
        and position stay a function of each other, on every worker and after a restart.
        The moments stay as they are; the optimizer's bias correction counts the step.
        """
        step = self.step + 1
        with self._recomputing():
            cause = self._find_cause(batch)
        values = ", ".join(f"{name}={value:g}" for name, value in losses.items())
        message = f"The gradient of step {step} is not finite ({values}). {cause.text}"
        self._skipped_in_a_row += 1
        has_diverged = self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW
        if self._skip_nonfinite and not (has_diverged or cause.is_in_weights):
            self.optimizer.iterations.assign_add(1)
            return StepResult(
                *(step, losses, float("nan")),
                skipped=message,
                is_time_over=self._is_time_over,
            )
        if self._skip_nonfinite and has_diverged:
            message += (
                f" It is the {MAX_SKIPPED_IN_A_ROW}th in a row, the run diverged."
            )
        skipping = "; or pass --skip_nonfinite to leave out single steps"
        which = "an earlier" if cause.is_in_weights else "the last"
        raise NonFiniteError(
            f"{message} The weights are those of step {self.step}. A resumed run keeps "
            f"its learning rate: start a new run with another --output_dir, {which} "
            "checkpoint as --init_checkpoint, if there is one, and a lower "
            "--learning_rate or a longer warm-up"
            f"{'' if self._skip_nonfinite or cause.is_in_weights else skipping}."
        )

    def _find_cause(self, batch: dict[str, tf.Tensor]) -> Cause:
        """Computes the micro-batches of the step again."""
        step = tf.identity(self.optimizer.iterations.value)
        counts = self._gradients.divisors(batch)
        batch = self._prepared(batch, step)
        specs = _of_any_rows(batch) if self._rows_vary else batch
        graph = self._micro_batch.get_concrete_function(
            specs, step, counts, tf.constant(0)
        )
        return find_cause(
            lambda i: graph(batch, step, counts, tf.constant(i)),
            batch["input_ids"].shape[0],
            self._variables,
            self.task.loss_names,
            self._communicator,
            lambda i: self._name_rows(self.step, i),
        )

    def _step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Takes a step; see `_computed` for the results, a float32 vector."""
        gradients, sums = self._gradients(batch, self.optimizer.iterations.value)
        # The norm is taken after the allreduce, and its scale is applied by the update
        # itself: clipping costs one pass over the gradients, and makes no tensor.
        if self.shards:
            gradients, sums, norm = self.shards.reduce(gradients, sums)
        else:
            norm = self._norm(gradients)
        num_losses = len(self.task.loss_names)
        losses, stops = sums[:num_losses], sums[num_losses : num_losses + 2]
        if self._clock:  # Before the update, which reads it.
            self._clock.share.assign(sums[num_losses + 2])
        saves = sums[-1] if self.shards else tf.constant(0.0)
        settings = self._settings
        limit = 0.0 if settings.clip_each_micro_batch else settings.max_grad_norm

        def update() -> tf.Tensor:
            self._update(gradients, clip_scale(norm, limit))
            return tf.constant(True)

        # Decided in the graph, from sums that are equal on all workers: either all of
        # them update their weights, or none does.
        finite = tf.reduce_all(tf.math.is_finite(losses)) & tf.math.is_finite(norm)
        tf.cond(finite & (stops[0] == 0.0), update, lambda: tf.constant(False))
        norm = tf.where(finite, norm, float("nan"))
        return tf.concat([losses, norm[None], stops, saves[None]], axis=0)

    def _assign(self, gradients: list[tf.Tensor], scale: tf.Tensor) -> None:
        """Updates weights, moments and averages by gradients times `scale`."""
        if self.shards:
            self.shards.update(gradients, scale)
        else:
            self.optimizer.apply_scaled(gradients, self._variables, scale)
        if self._averages:
            self._averages.update()


def _made_up(name: str, values: np.ndarray) -> np.ndarray:
    """Rows without padding, whose every id, position and label is 0."""
    if name == "batch_slots":
        return values
    is_on = name.endswith(("_mask", "_weights"))
    return np.full_like(values, 1 if is_on else 0)


def _of_any_rows(batch: dict[str, tf.Tensor]) -> dict[str, tf.TensorSpec]:
    """The signature of batches with another number of rows."""
    return {
        name: tf.TensorSpec([len(x), None, *x.shape[2:]], x.dtype)
        for name, x in batch.items()
    }
