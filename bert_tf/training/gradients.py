"""From the loss sums of micro-batches to one gradient of the whole global batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import keras
import tensorflow as tf

from bert_tf.distribute import Communicator
from bert_tf.training.clipping import clip_by_global_norm

Features = dict[str, tf.Tensor]


class Task(Protocol):
    """A model and its losses, as training sees them.

    Attributes:
      model: The Keras model.
      loss_names: Names of the L losses; the gradient is that of the sum of their means.

    A task whose loss of one micro-batch depends on all others has two more methods,
    `logits` and `whole_batch`; see `modeling.sentences`.
    """

    model: keras.Model
    loss_names: Sequence[str]

    def counts(self, features: Features) -> tf.Tensor:
        """How many predictions each loss is a mean of: [L] float32."""

    def loss_sums(self, features: Features, *, training: bool) -> tf.Tensor:
        """Each loss summed over the predictions of a micro-batch: [L] float32."""

    def step_scope(self, *, accumulates: bool) -> Any:  # noqa: ANN401
        """The scope of a step, a `ModelStep` of `modeling.backends.step`.

        Args:
          accumulates: Whether it may own accumulators: the backward pass then adds the
            gradients of kernels into them, over all micro-batches inside.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientSettings:
    """How the gradient of a step is made.

    Attributes:
      rank: This worker; its rows of the global batch follow those of lower ranks.
      seed: Decides dropout.
      max_grad_norm: Clip to this global norm; 0: no clipping.
      allreduce_post_accumulation: Sum over the workers once per step.
      is_micro_batch_mean: Mean of the micro-batches' means, not of the global batch.
      clip_each_micro_batch: Clip before accumulating instead of after.
      use_xla: Compile each micro-batch. Of a model with precision bf16 that was built
        without `allow_fused`, activations are then bfloat16.
      sums_over_workers: Whether the gradient is that of all workers; otherwise theirs
        are added up by someone else.
    """

    rank: int = 0
    seed: int = 0
    max_grad_norm: float = 1.0
    allreduce_post_accumulation: bool = True
    is_micro_batch_mean: bool = False
    clip_each_micro_batch: bool = False
    use_xla: bool = False
    sums_over_workers: bool = True


def _first_sum(shape: tf.TensorShape) -> tf.Tensor:
    """The initial accumulator of a loop: zeros, but for a matrix an empty tensor.

    A matrix of zeros would be a constant of the graph: in memory as long as the graph,
    and copied in each step.
    """
    return tf.zeros([0] * len(shape) if len(shape) > 1 else shape)


def _next_sum(total: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Adds a gradient to an accumulator, which may be that of `_first_sum`."""
    if len(total.shape) < 2:
        return total + gradient
    return tf.cond(tf.size(total) == 0, lambda: gradient, lambda: total + gradient)


def _without_empty_rows(features: Features) -> Features:
    """Cuts off the empty rows at the end of a micro-batch; at least one row is kept.

    The rows of a packed step are padded to a multiple of the number of micro-batches.
    """
    is_used = tf.reduce_any(features["input_mask"] > 0, axis=1)
    ends = tf.range(1, tf.shape(is_used)[0] + 1)
    count = tf.reduce_max(tf.where(is_used, ends, 1))
    return {name: array[:count] for name, array in features.items()}


class GradientAccumulator:
    """The gradient of one step: k micro-batches on each of `size` workers.

    The loss of each micro-batch is divided by the counts of the whole global batch,
    which are summed over the workers before the first backward pass. The gradient of
    the step is then the plain sum of the micro-batches' gradients: 1 x 32 rows = 4 x 8
    rows = 2 workers x 16 rows, however many predictions each part has.
    """

    def __init__(
        self,
        task: Task,
        communicator: Communicator,
        settings: GradientSettings,
        loss_scale: tf.Variable | None = None,
        stop: tf.Variable | None = None,
        own_values: Sequence[tf.Variable] = (),
    ) -> None:
        """Prepares for one model.

        Args:
          task: The model and its losses.
          communicator: The workers.
          settings: How the gradient is made.
          loss_scale: Factor of the loss in the backward pass, by which gradients are
            divided again: a power of 2, float32 scalar.
          stop: Float32 scalar that may change while a step is computed. Not 0: no
            further micro-batch is begun.
          own_values: Float32 scalars that are summed over the workers.
        """
        self._task = task
        self._workers = communicator
        self._settings = settings
        self._loss_scale = loss_scale
        self._stop = stop
        self._own_values = own_values
        self._variables = task.model.trainable_variables
        self._is_of_whole_batch = hasattr(task, "whole_batch")
        # Accumulators hold the sum so far. Clipping each micro-batch, summing it over
        # the workers or dividing it by the loss scale would be done to earlier
        # micro-batches again.
        accumulates = (
            not settings.clip_each_micro_batch
            and settings.allreduce_post_accumulation
            and loss_scale is None
        )
        self._step = task.step_scope(accumulates=accumulates)
        self._step.is_compiled = settings.use_xla
        self._compute = self._micro_batch
        if settings.use_xla:
            self._compute = tf.function(
                self._micro_batch, autograph=False, jit_compile=True
            )

    def __call__(
        self, batch: Features, step: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Computes the gradient of a step; the trainer traces it into its graph.

        Args:
          batch: Features of shape [k, B, ...].
          step: Steps taken before, integer scalar.

        Returns:
          Dense float32 gradients, and the mean losses [L]; equal on every worker. With
          `stop` two numbers follow the losses: of workers that left the step before
          its last micro-batch, and of those that were asked to stop; then the sums of
          `own_values`. They travel with the gradients.
        """
        counts = self.divisors(batch)
        with self._step:
            if batch["input_ids"].shape[0] > 1 or self._settings.use_xla:
                batch = self._with_whole_batch(batch, step)
            parts, losses = self._accumulate(batch, tf.cast(step, tf.int32), counts)
            gradients = self._with_sums(parts)
            for variable, gradient in zip(self._variables, gradients, strict=True):
                gradient.set_shape(variable.shape)
        # One grouped allreduce per step: tensors travel together, and every worker gets
        # the same bits, so that all of them make the same update.
        if not self._settings.sums_over_workers:
            return gradients, losses
        if self._settings.allreduce_post_accumulation:
            *gradients, losses = self._workers.sum_gradients(
                gradients, losses, "gradients"
            )
        else:
            [losses] = self._workers.sum([losses], "losses")
        return gradients, losses

    def micro_batch(
        self, batch: Features, step: tf.Tensor, counts: tf.Tensor, i: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gradients and losses of one micro-batch of this worker alone.

        Args:
          batch: The result of `prepared`.
          step: See `__call__`.
          counts: The result of `divisors`.
          i: Index of the micro-batch.
        """
        with self._step:
            features = self._features(batch, tf.cast(step, tf.int32), i)
            gradients, losses = self._compute(features, counts[i])
            return self._with_sums(gradients), losses

    def prepared(self, batch: Features, step: tf.Tensor) -> Features:
        """A batch for `micro_batch`; to be called on all workers."""
        with self._step:
            return self._with_whole_batch(batch, step)

    def _with_whole_batch(self, batch: Features, step: tf.Tensor) -> Features:
        """Adds what a micro-batch must know of all others, if the task asks for it."""
        if not self._is_of_whole_batch:
            return batch

        def logits(i: tf.Tensor) -> tf.Tensor:
            features = self._features(batch, tf.cast(step, tf.int32), i)
            return self._task.logits(features, training=True)

        parts = tf.range(batch["input_ids"].shape[0])
        found = tf.map_fn(
            logits, parts, fn_output_signature=tf.float32, parallel_iterations=1
        )
        return batch | self._task.whole_batch(found, batch["batch_slots"])

    def _with_sums(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor]:
        """Gradients with those of the step's accumulators filled in."""
        return [
            self._step.take_sum(variable.path) if gradient is None else gradient
            for variable, gradient in zip(self._variables, gradients, strict=True)
        ]

    def divisors(self, batch: Features) -> tf.Tensor:
        """Divisors of the losses, [k, L]; all rows are equal for global means."""
        num_micro_batches = batch["input_ids"].shape[0]
        if self._settings.is_micro_batch_mean:
            parts = range(num_micro_batches)
            rows = [
                self._task.counts({n: x[i] for n, x in batch.items()}) for i in parts
            ]
            return tf.stack(rows) * (num_micro_batches * self._workers.size)
        [counts] = self._workers.sum([self._task.counts(batch)], "counts")
        return tf.repeat(counts[None], num_micro_batches, axis=0)

    def _accumulate(
        self, batch: Features, step: tf.Tensor, counts: tf.Tensor
    ) -> tuple[list[tf.Tensor | None], tf.Tensor]:
        """Gradients, None for those in accumulators, and mean losses of this worker."""
        num_micro_batches = batch["input_ids"].shape[0]
        if num_micro_batches == 1:
            gradients, losses, asked = self._part(batch, step, counts, tf.constant(0))
            return gradients, self._with_stops(losses, tf.constant(False), asked)
        # Gradients in the step's accumulators are not loop variables.
        names = [v.path for v in self._variables if v.path not in self._step.sums]
        shapes = [v.shape for v in self._variables if v.path not in self._step.sums]

        def body(
            i: tf.Tensor, asked: tf.Tensor, sums: list[tf.Tensor], losses: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], tf.Tensor]:
            gradients, part, asked = self._part(batch, step, counts, i)
            terms = [gradient for gradient in gradients if gradient is not None]
            added = [_next_sum(x, term) for x, term in zip(sums, terms, strict=True)]
            return i + 1, asked, added, losses + part

        start = (
            tf.constant(0),
            tf.constant(0.0),
            [_first_sum(shape) for shape in shapes],
            tf.zeros(len(self._task.loss_names)),
        )
        grown = [tf.TensorShape([None] * len(shape)) for shape in shapes]
        done, asked, sums, losses = tf.while_loop(
            lambda i, asked, *_: (i < num_micro_batches) & (asked == 0.0),
            body,
            start,
            shape_invariants=(start[0].shape, start[1].shape, grown, start[3].shape),
            parallel_iterations=1,  # Two at a time would need twice the activations.
        )
        found = dict(zip(names, sums, strict=True))
        gradients = [found.get(variable.path) for variable in self._variables]
        return gradients, self._with_stops(losses, done < num_micro_batches, asked)

    def _with_stops(
        self, losses: tf.Tensor, has_left: tf.Tensor, asked: tf.Tensor
    ) -> tf.Tensor:
        """The losses, and with `stop` the numbers that follow them."""
        if self._stop is None:
            return losses
        more = [tf.cast(has_left, tf.float32), asked]
        more += [value.read_value() for value in self._own_values]
        return tf.concat([losses, more], axis=0)

    def _asked(self, gradients: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """Whether to stop, when these gradients have been computed; a float32."""
        if self._stop is None:
            return tf.constant(0.0)
        with tf.control_dependencies([g for g in gradients if g is not None]):
            return self._stop.read_value()

    def _part(
        self, batch: Features, step: tf.Tensor, counts: tf.Tensor, i: tf.Tensor
    ) -> tuple[list[tf.Tensor | None], tf.Tensor, tf.Tensor]:
        """Gradients of micro-batch `i`, clipped and summed as the settings say.

        The losses of this worker follow, and whether to stop: for all workers alike
        where each micro-batch is summed over them, since all must leave the loop then.
        """
        settings = self._settings
        gradients, losses = self._compute(self._features(batch, step, i), counts[i])
        if settings.clip_each_micro_batch:
            # The mean over micro-batches is in the counts: undo it for the norm.
            parts = batch["input_ids"].shape[0] * self._workers.size
            limit = settings.max_grad_norm / parts
            gradients, _ = clip_by_global_norm(gradients, limit)
        asked = self._asked(gradients)
        if not settings.allreduce_post_accumulation:
            *gradients, asked = self._workers.sum_gradients(
                gradients, asked, "micro_batch_gradients"
            )
        return gradients, losses, asked

    def _features(self, batch: Features, step: tf.Tensor, i: tf.Tensor) -> Features:
        """The features of micro-batch `i`, with what decides its dropout."""
        settings = self._settings
        features = {name: array[i] for name, array in batch.items()}
        size = tf.shape(features["input_ids"])[0]
        part = settings.rank * batch["input_ids"].shape[0] + i
        # The index in the global batch: dropout does not depend on how it is divided.
        rows = part * size + tf.range(size)
        seed_and_step = tf.repeat(tf.stack([settings.seed, step])[None], size, axis=0)
        features["dropout_seed"] = tf.concat([seed_and_step, rows[:, None]], axis=1)
        rows_vary = features["input_ids"].shape[0] is None
        if rows_vary and not (settings.use_xla or self._is_of_whole_batch):
            # XLA would compile the step again for each number of rows; and workers that
            # collect vectors must have equally many.
            features = _without_empty_rows(features)
        return features

    def _micro_batch(
        self, features: Features, counts: tf.Tensor
    ) -> tuple[list[tf.Tensor | None], tf.Tensor]:
        """Forward and backward pass: gradients, and losses divided by `counts`."""
        with self._step.micro_batch(self._variables) as part:
            sums = self._task.loss_sums(features, training=True)
            losses = tf.math.divide_no_nan(sums, counts)
            loss = tf.reduce_sum(losses)
            if self._loss_scale is not None:
                loss *= self._loss_scale
        gradients = part.gradients(loss)
        if self._loss_scale is not None:
            gradients = [g / self._loss_scale for g in gradients]
        return gradients, losses
