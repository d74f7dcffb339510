"""Gradients to new weights: LAMB and Adam with decoupled weight decay."""

from collections.abc import Sequence
from typing import Unpack

import keras
import tensorflow as tf

from bert_tf.config import checks
from bert_tf.config.run import OPTIMIZER_TYPES
from bert_tf.training.optimizer_base import (
    BertOptimizer,
    LearningRate,
    OptimizerSettings,
    checked_patterns,
    matches,
)
from bert_tf.training.update_formulas import Update, adam_update, lamb_update


def build_optimizer(
    optimizer_type: str,
    learning_rate: LearningRate,
    *,
    exclude_from_layer_adaptation: Sequence[str] = (),
    **settings: Unpack[OptimizerSettings],
) -> BertOptimizer:
    """Makes an optimizer by its type.

    Args:
      optimizer_type: lamb, adam (original BERT's, without bias correction) or adamw
        (with it).
      learning_rate: Rate, or schedule.
      exclude_from_layer_adaptation: See `LAMB`; without effect on the others.
      **settings: The other arguments of `BertOptimizer`.

    Raises:
      ValueError: if the type is unknown or a value is out of range.
    """
    is_known = optimizer_type in OPTIMIZER_TYPES
    rule = f"be one of {', '.join(OPTIMIZER_TYPES)}"
    checks.require(is_known, "optimizer_type", rule, optimizer_type)
    if optimizer_type == "lamb":
        return LAMB(
            learning_rate,
            exclude_from_layer_adaptation=exclude_from_layer_adaptation,
            **settings,
        )
    is_corrected = optimizer_type == "adamw"
    return AdamWeightDecay(learning_rate, bias_correction=is_corrected, **settings)


@keras.saving.register_keras_serializable(package="bert_tf")
class AdamWeightDecay(BertOptimizer):
    """Adam with decoupled weight decay; see `adam_update` for the formula.

    Args:
      learning_rate: As in `BertOptimizer`.
      bias_correction: False is the optimizer of original BERT, True is AdamW.
      **settings: The others of `BertOptimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        bias_correction: bool = False,
        **settings: Unpack[OptimizerSettings],
    ) -> None:
        super().__init__(learning_rate, bias_correction=bias_correction, **settings)

    def _update(self, path: str, *tensors: tf.Tensor) -> Update:
        return adam_update(*tensors, **self.hyperparameters_of(path))


@keras.saving.register_keras_serializable(package="bert_tf")
class AdamW(AdamWeightDecay):
    """`AdamWeightDecay` with bias correction, by Keras's name."""

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        bias_correction: bool = True,
        **settings: Unpack[OptimizerSettings],
    ) -> None:
        super().__init__(learning_rate, bias_correction=bias_correction, **settings)


@keras.saving.register_keras_serializable(package="bert_tf")
class LAMB(BertOptimizer):
    """Layer-wise adaptive moments; see `lamb_update` for the formula.

    A layer of the paper is a variable here.

    Args:
      learning_rate: As in `BertOptimizer`.
      bias_correction: As in `BertOptimizer`.
      exclude_from_layer_adaptation: Regular expressions; the trust ratio of a
        variable is 1 if one is found in its path.
      **settings: The others of `BertOptimizer`.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        *,
        bias_correction: bool = True,
        exclude_from_layer_adaptation: Sequence[str] = (),
        **settings: Unpack[OptimizerSettings],
    ) -> None:
        super().__init__(learning_rate, bias_correction=bias_correction, **settings)
        self._no_adaptation_patterns = checked_patterns(
            "exclude_from_layer_adaptation", exclude_from_layer_adaptation
        )

    def _update(self, path: str, *tensors: tf.Tensor) -> Update:
        return lamb_update(
            *tensors,
            **self.hyperparameters_of(path),
            layer_adaptation=self.adapts(path),
        )

    def adapts(self, path: str) -> bool:
        """See `BertOptimizer`."""
        return not matches(self._no_adaptation_patterns, path)

    def get_config(self) -> dict[str, object]:
        """The constructor's arguments."""
        patterns = list(self._no_adaptation_patterns)
        return super().get_config() | {"exclude_from_layer_adaptation": patterns}
