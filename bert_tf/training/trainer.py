"""One optimizer step as one graph."""

import dataclasses

import numpy as np
import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.distribute import Communicator
from bert_tf.errors import NonFiniteError
from bert_tf.training.gradients import (
    GradientAccumulator,
    GradientSettings,
    Task,
    clip_scale,
    global_norm,
)
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.optimizers import BertOptimizer


@dataclasses.dataclass(frozen=True)
class StepResult:
    """The result of one step.

    Attributes:
      step: Steps taken, this one included.
      losses: Mean of each of the task's losses over the global batch, in nats.
      gradient_norm: Global norm before clipping.
      loss_scale: That of float16; None without one.
      must_stop: A worker was asked to stop: all leave after this step.
      is_dropped: They left in the middle of the step after `step`, which changed
        nothing; there are no losses then.
    """

    step: int
    losses: dict[str, float]
    gradient_norm: float
    loss_scale: float | None = None
    must_stop: bool = False
    is_dropped: bool = False

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
        *,
        rows_vary: bool = False,
    ) -> None:
        """Prepares the graph of a step, which is traced at the first batch.

        Args:
          task: The model and its losses.
          optimizer: Updates the model's trainable variables.
          communicator: The workers.
          settings: How the gradient of a step is made.
          loss_scale: Of float16; None without one.
          rows_vary: Whether batches have different numbers of rows. One graph is then
            traced for any number: a graph for the first number alone, and a general
            one from the second on, would round differently, and so would a resumed run
            and one that was never stopped.
        """
        self.task = task
        self.optimizer = optimizer
        self.optimizer.is_fused = fused_ops.are_in_use()
        self._settings = settings
        self._variables = task.model.trainable_variables
        self.optimizer.build(self._variables)
        self.loss_scale = loss_scale
        scale = loss_scale.variable if loss_scale else None
        self._stop = tf.Variable(0.0, trainable=False)
        self._gradients = GradientAccumulator(
            task, communicator, settings, scale, self._stop
        )
        self._graph = tf.function(self._step)
        self._rows_vary = rows_vary

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.optimizer.iterations.numpy())

    def ask_to_stop(self) -> None:
        """Makes all workers leave the current step, or the next; from any thread."""
        self._stop.assign(1.0)

    def train_step(self, batch: dict[str, np.ndarray]) -> StepResult:
        """Takes one step, and repeats it with half the loss scale if float16 overflows.

        Args:
          batch: This worker's features, [k, B, ...].

        Returns:
          The step's losses, and whether to stop; equal on every worker.

        Raises:
          NonFiniteError: on every worker, if the gradient is not finite; the weights
            are not changed.
        """
        tensors = {name: tf.convert_to_tensor(x) for name, x in batch.items()}
        if self._rows_vary and not self._graph.experimental_get_tracing_count():
            self._graph.get_concrete_function(
                {
                    name: tf.TensorSpec([len(x), None, *x.shape[2:]], x.dtype)
                    for name, x in tensors.items()
                }
            )
        losses, norm, stops = self._graph(tensors)
        while (
            not stops.numpy().any()
            and not np.isfinite(norm.numpy())
            and self._may_try_again(losses)
        ):
            losses, norm, stops = self._graph(tensors)
        must_drop, must_stop = map(bool, stops.numpy())
        if must_drop or (must_stop and not np.isfinite(norm.numpy())):
            return StepResult(self.step, {}, 0.0, must_stop=True, is_dropped=True)
        values = dict(
            zip(self.task.loss_names, map(float, losses.numpy()), strict=True)
        )
        if not np.isfinite(norm.numpy()):
            raise NonFiniteError(
                f"The gradient of step {self.step + 1} is not finite "
                f"(losses: {values}). The weights are those of step {self.step}. A "
                "resumed run keeps its learning rate: start a new run with another "
                "--output_dir, the last checkpoint as --init_checkpoint, and a lower "
                "--learning_rate or a longer warm-up."
            )
        scale = None
        if self.loss_scale is not None:
            scale = self.loss_scale.value
            self.loss_scale.note_finite_step()
        norm = float(norm.numpy())
        return StepResult(self.step, values, norm, scale, must_stop=must_stop)

    def _may_try_again(self, losses: tf.Tensor) -> bool:
        """Halves the loss scale if the gradient alone overflowed, on all workers."""
        is_overflow = np.isfinite(losses.numpy()).all()
        return is_overflow and self.loss_scale is not None and self.loss_scale.lower()

    def _step(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        gradients, sums = self._gradients(batch, self.optimizer.iterations.value)
        losses, stops = sums[:-2], sums[-2:]
        settings = self._settings
        limit = 0.0 if settings.clip_each_micro_batch else settings.max_grad_norm
        # The norm is taken after the allreduce, and its scale is applied by the update
        # itself: clipping costs one pass over the gradients, and makes no tensor.
        norm = global_norm(gradients)

        def update() -> tf.Tensor:
            scale = clip_scale(norm, limit)
            self.optimizer.apply_scaled(gradients, self._variables, scale)
            return tf.constant(True)

        # Decided in the graph, from sums that are equal on all workers: either all of
        # them update their weights, or none does.
        finite = tf.reduce_all(tf.math.is_finite(losses)) & tf.math.is_finite(norm)
        tf.cond(finite & (stops[0] == 0.0), update, lambda: tf.constant(False))
        return losses, tf.where(finite, norm, float("nan")), stops
