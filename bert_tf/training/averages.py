"""Exponential moving averages of a model's weights."""

import contextlib
from collections.abc import Iterator, Mapping

import tensorflow as tf

from bert_tf.training.manifest import AVERAGE


class WeightAverages:
    """The average of each weight over the steps of a training.

        average_0 = weight_0
        average_t = decay * average_(t-1) + (1 - decay) * weight_t

    It follows each update of the weights; a step that is left out does not change it.
    Every worker computes it from equal weights.

    The averages can change places with the weights, for an evaluation: then the
    variables of the model hold the averages, and nothing may be trained.

    Source: Polyak and Juditsky 1992; the exponential form as in
    tf.train.ExponentialMovingAverage, without its num_updates.
    """

    def __init__(self, weights: Mapping[str, tf.Variable], decay: float) -> None:
        """Starts with the weights as they are; see `restart`.

        Args:
          weights: Name in a checkpoint -> variable, float32.
          decay: In [0, 1).
        """
        self.decay = decay
        self._weights = dict(weights)
        self._averages = {
            name: tf.Variable(weight, trainable=False)
            for name, weight in weights.items()
        }
        self._are_in_model = False

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables of the averages, in the order of the weights."""
        return list(self._averages.values())

    def slots(self) -> dict[str, tf.Variable]:
        """Name in a checkpoint -> variable of an average."""
        return {name + AVERAGE: average for name, average in self._averages.items()}

    def restart(self) -> None:
        """Makes each average equal to its weight."""
        for name, average in self._averages.items():
            average.assign(self._weights[name])

    def update(self) -> None:
        """Moves the averages towards the weights; part of the graph of a step."""
        for name, average in self._averages.items():
            kept = self.decay * average
            average.assign(kept + (1.0 - self.decay) * self._weights[name])

    def swap(self) -> None:
        """Exchanges weights and averages."""
        for name, average in self._averages.items():
            weight = self._weights[name].numpy()
            self._weights[name].assign(average)
            average.assign(weight)
        self._are_in_model = not self._are_in_model

    def tensors(self) -> dict[str, tf.Variable]:
        """What a checkpoint holds: weights and averages by name, wherever they are."""
        weights, slots = self._weights, self.slots()
        if self._are_in_model:
            weights = {name: slots[name + AVERAGE] for name in self._weights}
            slots = {name + AVERAGE: each for name, each in self._weights.items()}
        return {**weights, **slots}

    def values(self) -> dict[str, tf.Variable]:
        """The averages by the name of their weight, wherever they are."""
        return self._weights if self._are_in_model else self._averages

    @contextlib.contextmanager
    def in_model(
        self, lock: contextlib.AbstractContextManager[object]
    ) -> Iterator[None]:
        """Has the averages in the model inside.

        Args:
          lock: Held while they change places: who holds it sees one or the other.
        """
        is_inner = self._are_in_model
        with lock:
            is_inner or self.swap()
        try:
            yield
        finally:
            with lock:
                is_inner or self.swap()
