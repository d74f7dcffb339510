"""The loss scale of float16, which keeps small gradients from becoming 0."""

import tensorflow as tf

# Steps without an overflow after which a larger scale is tried.
GROWTH_STEPS = 2000
_SMALLEST, _LARGEST = 1.0, 2.0**32


class LossScale:
    """A power of 2: halved at an overflow, doubled after many steps without one.

    A step whose gradient overflows is repeated on the same records. A power of 2
    changes no digit of a gradient that neither overflows nor underflows.

    Source: Micikevicius et al. 2018 (arXiv:1710.03740), section 3.2. Departure: there
    the step is skipped.

    Attributes:
      variable: The scale, float32 scalar.
      num_finite_steps: Steps without overflow since the scale was last changed.
    """

    def __init__(self, value: float, num_finite_steps: int = 0) -> None:
        """Starts with a scale.

        Args:
          value: A power of 2.
          num_finite_steps: See the class.
        """
        self.variable = tf.Variable(value, dtype=tf.float32, trainable=False)
        self.num_finite_steps = num_finite_steps

    @property
    def value(self) -> float:
        """The scale."""
        return float(self.variable.numpy())

    def note_finite_step(self) -> None:
        """Counts a step whose gradient was finite; doubles the scale when due."""
        self.num_finite_steps += 1
        if self.num_finite_steps >= GROWTH_STEPS and self.value < _LARGEST:
            self.change(self.value * 2.0)

    def lower(self) -> bool:
        """Halves the scale; returns False if it is the smallest already."""
        if self.value <= _SMALLEST:
            return False
        self.change(self.value / 2.0)
        return True

    def change(self, value: float) -> None:
        """Sets another scale, and counts finite steps from 0."""
        self.variable.assign(value)
        self.num_finite_steps = 0
