"""The name of an optimizer to the optimizer."""

from collections.abc import Sequence
from typing import Any

from bert_tf.config import checks
from bert_tf.config.run import OPTIMIZER_TYPES
from bert_tf.training.optimizers import (
    LAMB,
    AdamWeightDecay,
    BertOptimizer,
    LearningRate,
)


def build_optimizer(
    optimizer_type: str,
    learning_rate: LearningRate,
    *,
    exclude_from_layer_adaptation: Sequence[str] = (),
    **settings: Any,  # noqa: ANN401
) -> BertOptimizer:
    """Makes the optimizer that a run asks for.

    Args:
      optimizer_type: lamb, adam (original BERT's, without bias correction) or adamw
        (with it).
      learning_rate: Rate, or schedule.
      exclude_from_layer_adaptation: See `LAMB`; without meaning for the others.
      **settings: The other arguments of `BertOptimizer`.

    Raises:
      ValueError: if the type is unknown or a value is out of range.
    """
    is_known = optimizer_type in OPTIMIZER_TYPES
    rule = f"be one of {', '.join(OPTIMIZER_TYPES)}"
    checks.require(is_known, "optimizer_type", rule, optimizer_type)
    if optimizer_type == "lamb":
        settings["exclude_from_layer_adaptation"] = exclude_from_layer_adaptation
        return LAMB(learning_rate, **settings)
    is_corrected = optimizer_type == "adamw"
    return AdamWeightDecay(learning_rate, bias_correction=is_corrected, **settings)
