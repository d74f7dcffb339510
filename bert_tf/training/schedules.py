"""Learning rate of a step: linear warm-up, then polynomial decay."""

from typing import Any

import keras
import tensorflow as tf

from bert_tf.config import checks

# Parts of a time budget that a learning rate can tell apart.
TIME_PARTS = 1_000_000


@keras.saving.register_keras_serializable(package="bert_tf")
class WarmupPolynomialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to the peak, then polynomial decay to the end rate.

    With `t` steps taken, `T` training steps, `w` warm-up steps that count from step `s`
    (0 by default) and power `p`:

        t < s + w:  learning_rate * max(t - s, 0) / w
        else:   end + (start - end) * (1 - min(t, T) / T)^p

    The decay is counted from step 0, not from the end of warm-up. `start` is
    `learning_rate`, so that the rate falls from `learning_rate` by the factor
    (1 - (s + w) / T)^p where warm-up ends. With `compensate_warmup`,
    start = end + (learning_rate - end) / (1 - (s + w) / T)^p, and there is no jump.
    From step T on the rate is the end rate, even where warm-up is longer than T.

    Without `s` the first step, t = 0, has rate 0 if there is warm-up: it moves the
    moments of an optimizer and no weight. Step t = s + w is the first of the decay.

    Source: google-research/bert for the two branches and the step that they count
    from; NVIDIA's BERT for TensorFlow for the power 0.5 of LAMB with its jump, and
    for the compensation of Adam, there with power 1 and end rate 0; MLPerf's BERT for
    `s`, without the rates below 0 that it has there before step s. The LAMB paper
    (arXiv:1904.00962, section 4) decays linearly. Departures: the compensation
    holds for every power and end rate, and training shorter than its warm-up ends
    at the end rate.

    Attributes:
      learning_rate: Peak rate, as used: already multiplied by the number of workers.
      num_train_steps: Steps until the end rate, T.
      num_warmup_steps: Steps of linear warm-up, w; 0 for none.
      start_warmup_step: Step from which the warm-up counts, s; may be negative.
      power: Power of the decay, p.
      end_learning_rate: Rate at step T and after it.
      compensate_warmup: Start the decay higher, so that it meets the warm-up.
    """

    def __init__(
        self,
        *,
        learning_rate: float,
        num_train_steps: int,
        num_warmup_steps: int,
        start_warmup_step: int = 0,
        power: float,
        end_learning_rate: float = 0.0,
        compensate_warmup: bool = False,
    ) -> None:
        """Checks and keeps the settings.

        Raises:
          ValueError: if a value is out of range, or no step of decay is left to
            compensate the warm-up.
        """
        super().__init__()
        self.learning_rate = learning_rate
        self.num_train_steps = num_train_steps
        self.num_warmup_steps = num_warmup_steps
        self.start_warmup_step = start_warmup_step
        self.power = power
        self.end_learning_rate = end_learning_rate
        self.compensate_warmup = compensate_warmup
        checks.require_positive(self, "learning_rate", "num_train_steps", "power")
        checks.require_not_negative(self, "num_warmup_steps", "end_learning_rate")
        checks.require(
            end_learning_rate <= learning_rate,
            "end_learning_rate",
            f"be at most learning_rate={learning_rate}",
            end_learning_rate,
        )
        checks.require(
            not compensate_warmup or self._warmup_end < num_train_steps,
            "num_warmup_steps",
            f"be less than num_train_steps={num_train_steps}",
            num_warmup_steps,
            "Train longer or warm up for fewer steps.",
        )

    def __call__(self, step: tf.Tensor | keras.Variable | int) -> tf.Tensor:
        """Learning rate of the next step.

        Args:
          step: Optimizer steps already taken, integer scalar, from 0.

        Returns:
          The learning rate, float32 scalar, >= 0.
        """
        step = tf.cast(tf.convert_to_tensor(step), tf.int64)
        # Subtracted as integers: 1 - t / T in float32 loses digits near the end.
        steps_left = self.num_train_steps - tf.minimum(step, self.num_train_steps)
        share_left = _as_float(steps_left) / float(self.num_train_steps)
        end = self.end_learning_rate
        rate = end + (self._decay_start - end) * share_left**self.power
        last = min(self._warmup_end, self.num_train_steps)
        if last <= 0:
            return rate
        steps = _as_float(tf.maximum(step - self.start_warmup_step, 0))
        warmup_rate = self.learning_rate * (steps / float(self.num_warmup_steps))
        return tf.where(step < last, warmup_rate, rate)

    @property
    def _warmup_end(self) -> int:
        """The first step of the decay; 0 or less without warm-up."""
        steps = self.num_warmup_steps
        return steps + self.start_warmup_step if steps else 0

    @property
    def _decay_start(self) -> float:
        """What the decay would give at step 0."""
        if not self.compensate_warmup:
            return self.learning_rate
        share_left = 1.0 - max(self._warmup_end, 0) / self.num_train_steps
        end = self.end_learning_rate
        return end + (self.learning_rate - end) / share_left**self.power

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = (
            *("learning_rate", "num_train_steps", "num_warmup_steps"),
            *("start_warmup_step", "power", "end_learning_rate", "compensate_warmup"),
        )
        return {name: getattr(self, name) for name in names}


class DecayByTime(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that follows the share of a time budget that is spent.

    Source: Izsak et al. 2021 (arXiv:2104.07705), section 3: the learning rate decays
    with the time, so that it is zero when the budget is spent, on any hardware.
    """

    def __init__(self, schedule: WarmupPolynomialDecay, share: tf.Variable) -> None:
        """Wraps a schedule.

        Args:
          schedule: Its steps are `TIME_PARTS` parts of the budget.
          share: What is spent of it, in [0, 1].
        """
        super().__init__()
        self._schedule = schedule
        self._share = share

    def __call__(self, step: tf.Tensor | keras.Variable | int) -> tf.Tensor:
        """Learning rate of the next step, whose number does not matter."""
        del step
        return self._schedule(tf.cast(self._share * float(TIME_PARTS), tf.int64))


def _as_float(step: tf.Tensor) -> tf.Tensor:
    """A number of steps as float32."""
    return tf.cast(step, tf.float32)
