"""The time that a training has spent of its budget, as all workers see it."""

import time

import tensorflow as tf


class TrainingClock:
    """Measures a training that has a time instead of a number of steps.

    Each worker has one, and the first worker's is right: its share of the budget
    travels with the gradients of each step, so that all workers have the same learning
    rate and end after the same step.

    Attributes:
      share: What is spent of the budget, in [0, 1], as of the current step; a float32
        variable, equal on all workers.
    """

    def __init__(self, budget_seconds: float, spent_seconds: float = 0.0) -> None:
        """Prepares for one start of a run.

        Args:
          budget_seconds: Of the whole run.
          spent_seconds: By its earlier starts.
        """
        self.budget_seconds = budget_seconds
        self._spent = spent_seconds
        self._started: float | None = None
        self.share = tf.Variable(self.own_share(), trainable=False)

    def start(self) -> None:
        """Starts to count."""
        self._started = time.monotonic()

    def seconds(self) -> float:
        """Spent by all starts of the run so far."""
        if self._started is None:
            return self._spent
        return self._spent + time.monotonic() - self._started

    def own_share(self) -> float:
        """The share by this worker's clock."""
        return min(1.0, self.seconds() / self.budget_seconds)
