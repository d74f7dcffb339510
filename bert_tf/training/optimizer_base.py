"""What all optimizers share: moments, exclusion by path, Keras's arguments."""

import abc
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn, TypedDict, Unpack

import keras
import numpy as np
import tensorflow as tf

from bert_tf.config import checks
from bert_tf.config.run import EXCLUDED_FROM_WEIGHT_DECAY
from bert_tf.training.update_formulas import Hyperparameters, Update, update_in_place

LearningRate = float | keras.optimizers.schedules.LearningRateSchedule


class KerasSettings(TypedDict, total=False):
    """Arguments of Keras's own optimizers, with their meaning there."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None


class OptimizerSettings(KerasSettings, total=False):
    """Arguments of every optimizer; see `BertOptimizer`."""

    beta_1: float
    beta_2: float
    epsilon: float
    weight_decay_rate: float
    weight_decay: float
    exclude_from_weight_decay: Sequence[str]
    rate_factors: Mapping[str, float]
    name: str | None


class BertOptimizer(keras.optimizers.Optimizer, abc.ABC):
    """What LAMB and Adam share: the two moments, and exclusion by path.

    A variable's moments are float32 variables of its shape, called adam_m and
    adam_v as in google-research/bert. The trainer of this library clips gradients
    itself, once, after the allreduce; Keras's arguments are for `fit`.

    Args:
      learning_rate: Rate, or schedule, which is called with the steps already taken.
        Default: 0.001.
      beta_1: Decay rate of the first moment, in [0, 1).
      beta_2: Decay rate of the second moment, in [0, 1).
      epsilon: Added to the root of the second moment, > 0.
      weight_decay_rate: Decoupled decay, >= 0. Default: 0.01.
      weight_decay: Keras's name of the same.
      exclude_from_weight_decay: Regular expressions; a variable is not decayed if
        one is found in its path.
      rate_factors: Regular expression -> factor of the learning rate of variables in
        whose path it is found, the first one that is; 0: they are not updated, and nor
        are their moments.
      bias_correction: Divide the moments by 1 - beta^step.
      name: Name of the optimizer.
      **settings: See `KerasSettings`.

    Raises:
      ValueError: if a value is out of range, the decay has two names, or a pattern is
        not a valid regular expression.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay_rate: float | None = None,
        weight_decay: float | None = None,
        exclude_from_weight_decay: Sequence[str] = EXCLUDED_FROM_WEIGHT_DECAY,
        rate_factors: Mapping[str, float] | None = None,
        bias_correction: bool,
        name: str | None = None,
        **settings: Unpack[KerasSettings],
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **settings)
        # Keras's own decay, outside the trust ratio, stays off.
        checks.require(
            None in (weight_decay_rate, weight_decay),
            *("weight_decay", "be given under one name"),
            f"{weight_decay}, weight_decay_rate={weight_decay_rate}",
        )
        rates = (weight_decay_rate, weight_decay, 0.01)
        self.weight_decay_rate = next(rate for rate in rates if rate is not None)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.bias_correction = bias_correction
        # The trainer sets this where fused operations are in use. In Keras's `fit` it
        # stays False: XLA may compile there.
        self.is_fused = False
        self._gradient_scale: tf.Tensor | None = None
        self._has_slots = True
        checks.require_probability(self, "beta_1", "beta_2")
        checks.require_positive(self, "epsilon")
        checks.require_not_negative(self, "weight_decay_rate")
        self._no_decay_patterns = checked_patterns(
            "exclude_from_weight_decay", exclude_from_weight_decay
        )
        self._rate_factors = dict(rate_factors or {})
        checked_patterns("rate_factors", list(self._rate_factors))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the moments of each variable, zero.

        Args:
          variables: The model's trainable variables, float32.

        Raises:
          ValueError: if a variable is not float32.
        """
        if self.built:
            return
        for variable in variables:
            if variable.dtype != "float32":
                raise ValueError(
                    f"`variables` must be float32. Received: {variable.path} of dtype "
                    f"{variable.dtype}. Use a mixed dtype policy for less precision."
                )
        super().build(variables)
        self._adam_m, self._adam_v = self.add_optimizer_variables(
            variables, ["adam_m", "adam_v"]
        )

    def slots(self) -> dict[str, keras.Variable]:
        """The moments by the names of original BERT checkpoints.

        Returns:
          "<path of the variable>/adam_m" and ".../adam_v" -> moment, float32, in
          the order of the variables. Empty after `release_slots`.

        Raises:
          ValueError: if the optimizer is not built, or two variables share a path.
        """
        if not self.built:
            raise ValueError(
                "`slots` must be called on a built optimizer. Received: built=False. "
                "Do `optimizer.build(model.trainable_variables)` first."
            )
        slots: dict[str, keras.Variable] = {}
        kept = self._trainable_variables if self._has_slots else ()
        for index, variable in enumerate(kept):
            if f"{variable.path}/adam_m" in slots:
                raise ValueError(
                    "`variables` must have paths that differ. Received: "
                    f"{variable.path} twice. Name the layers."
                )
            slots[f"{variable.path}/adam_m"] = self._adam_m[index]
            slots[f"{variable.path}/adam_v"] = self._adam_v[index]
        return slots

    def release_slots(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Hands over both moments of each variable, and frees their memory.

        They come in the order of the variables. From then on `slots` is empty, and
        `apply` cannot be called.
        """
        self._has_slots = False
        for pair in zip(self._adam_m, self._adam_v, strict=True):
            yield tuple(moment.numpy() for moment in pair)
            for moment in pair:  # Keras keeps them: the numbers alone are freed.
                handle = moment.value.handle
                tf.raw_ops.AssignVariableOp(resource=handle, value=tf.zeros([0]))

    def apply_scaled(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[keras.Variable],
        scale: tf.Tensor,
    ) -> None:
        """Applies gradients multiplied by a number.

        Args:
          gradients: Dense float32 tensors.
          variables: One for each gradient.
          scale: float32 scalar, for clipping.
        """
        self._gradient_scale = scale
        self.apply(gradients, variables)
        self._gradient_scale = None

    def apply(
        self,
        grads: Sequence[tf.Tensor | tf.IndexedSlices | None],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Keras's method, on dense gradients: clipping needs the norms of sums.

        Args:
          grads: One for each variable; slices are summed into a dense tensor.
          trainable_variables: Default: those the optimizer was built with.
        """
        grads = list(grads)
        variables = list(trainable_variables or self._trainable_variables)
        for index, variable in enumerate(variables[: len(grads)]):
            grads[index] = dense_gradient(grads[index], variable)
        super().apply(grads, trainable_variables)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Assigns the new weights and moments of one variable, float32."""
        index = self._get_variable_index(variable)
        path = self._trainable_variables[index].path
        slots = self._adam_m[index].value, self._adam_v[index].value
        gradient = tf.cast(gradient, tf.float32)
        rate = tf.cast(learning_rate, tf.float32)
        self.update_variable(
            path, variable, slots, gradient, self._gradient_scale, rate
        )

    def update_variable(
        self,
        path: str,
        variable: tf.Variable,
        slots: Sequence[tf.Variable],
        gradient: tf.Tensor,
        scale: tf.Tensor | None,
        rate: tf.Tensor,
    ) -> None:
        """Assigns new weights and both moments, of the gradient's shape, float32.

        The path decides decay, adaptation and the factor of the rate, a scalar; that
        of the gradient is `scale`, None for 1.
        """
        factor = self.rate_factor(path)
        if not factor:
            return
        rate = rate if factor == 1.0 else rate * factor
        step = tf.cast(self.iterations + 1, tf.float32)
        if self.is_fused:
            update_in_place(
                variable,
                slots,
                gradient,
                scale,
                rate,
                step,
                layer_adaptation=self.adapts(path),
                **self.hyperparameters_of(path),
            )
            return
        if scale is not None:
            gradient = gradient * scale
        updated = self._update(
            path,
            tf.convert_to_tensor(variable),
            *(tf.convert_to_tensor(slot) for slot in slots),
            gradient,
            rate,
            step,
        )
        for target, value in zip((variable, *slots), updated, strict=True):
            self.assign(target, value)

    def rate_factor(self, path: str) -> float:
        """The factor of the learning rate of the variable of that path."""
        found = (x for p, x in self._rate_factors.items() if re.search(p, path))
        return next(found, 1.0)

    def adapts(self, path: str) -> bool:
        """Whether the variable of that path has a trust ratio."""
        del path
        return False

    @abc.abstractmethod
    def _update(self, path: str, *tensors: tf.Tensor) -> Update:
        """Calls the formula of the optimizer for the variable of that path."""

    def _hyperparameters(self) -> Hyperparameters:
        names = ("beta_1", "beta_2", "epsilon", "weight_decay_rate", "bias_correction")
        return {name: getattr(self, name) for name in names}

    def hyperparameters_of(self, path: str) -> Hyperparameters:
        """The numbers for the variable of that path: no decay if it is excluded."""
        is_excluded = matches(self._no_decay_patterns, path)
        no_decay = {"weight_decay_rate": 0.0} if is_excluded else {}
        return self._hyperparameters() | no_decay

    def exclude_from_weight_decay(self, *_: object, **__: object) -> NoReturn:
        """Refuses Keras's method, which would have no effect on this decay."""
        raise ValueError(
            "`exclude_from_weight_decay` must be given to the constructor, as regular "
            "expressions. Received: a call of the method."
        )

    def get_config(self) -> dict[str, object]:
        """The constructor's arguments."""
        base = super().get_config()
        del base["weight_decay"]  # Keras's own, see the constructor.
        return {
            **base,
            **self._hyperparameters(),
            "exclude_from_weight_decay": list(self._no_decay_patterns),
            "rate_factors": self._rate_factors,
        }


def dense_gradient(
    gradient: tf.Tensor | tf.IndexedSlices | None, variable: keras.Variable
) -> tf.Tensor | None:
    """The gradient, slices of a table summed into a tensor of its shape."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    return tf.math.unsorted_segment_sum(
        gradient.values, gradient.indices, variable.shape[0]
    )


def checked_patterns(name: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns, if each is a valid regular expression."""
    checks.require_patterns(name, patterns)
    return tuple(patterns)


def matches(patterns: Sequence[str], path: str) -> bool:
    """Whether any pattern is found in the path of a variable."""
    return any(re.search(pattern, path) for pattern in patterns)
