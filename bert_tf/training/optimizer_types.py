"""The name of an optimizer to the optimizer."""

from collections.abc import Sequence

from bert_tf.config import checks
from bert_tf.config.pretraining import EXCLUDED_FROM_WEIGHT_DECAY, OPTIMIZER_TYPES
from bert_tf.training.optimizers import (
    LAMB,
    AdamWeightDecay,
    BertOptimizer,
    LearningRate,
)


def build_optimizer(
    optimizer_type: str,
    learning_rate: LearningRate,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    weight_decay_rate: float = 0.01,
    exclude_from_weight_decay: Sequence[str] = EXCLUDED_FROM_WEIGHT_DECAY,
    exclude_from_layer_adaptation: Sequence[str] = (),
) -> BertOptimizer:
    """Makes the optimizer that a run asks for; the numbers are `BertOptimizer`'s.

    `optimizer_type` is lamb, adam (original BERT's, without bias correction) or
    adamw (with it); `exclude_from_layer_adaptation` is for lamb only.

    Raises:
      ValueError: if the type is unknown or a value is out of range.
    """
    is_known = optimizer_type in OPTIMIZER_TYPES
    rule = f"be one of {', '.join(OPTIMIZER_TYPES)}"
    checks.require(is_known, "optimizer_type", rule, optimizer_type)
    settings = {
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
        "weight_decay_rate": weight_decay_rate,
        "exclude_from_weight_decay": exclude_from_weight_decay,
    }
    if optimizer_type == "lamb":
        settings["exclude_from_layer_adaptation"] = exclude_from_layer_adaptation
        return LAMB(learning_rate, **settings)
    is_corrected = optimizer_type == "adamw"
    return AdamWeightDecay(learning_rate, bias_correction=is_corrected, **settings)
