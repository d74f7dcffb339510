"""Builds the optimizer of a run, its learning rate, and moving averages of weights."""

import re

import keras

from bert_tf.config.run import OptimizerConfig, RunConfig, RunTrainingConfig
from bert_tf.jobs.run.resume import weights_by_name
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.training.averages import WeightAverages
from bert_tf.training.clock import TrainingClock
from bert_tf.training.optimizer_base import BertOptimizer
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.schedules import (
    TIME_PARTS,
    DecayByTime,
    WarmupPolynomialDecay,
)

_LAYER = r"bert/encoder/layer_\d+/"


def peak_learning_rate(
    config: OptimizerConfig, start: StartingPoint, size: int
) -> float:
    """The peak rate of all workers together; a resumed run keeps its own."""
    if start.position is not None:
        return start.position.learning_rate
    return config.learning_rate * (size if config.scale_learning_rate else 1)


def make_clock(
    training: RunTrainingConfig, start: StartingPoint
) -> TrainingClock | None:
    """The clock of a training that has a time; a resumed run keeps what it spent."""
    if training.max_hours is None:
        return None
    spent = start.position.elapsed_seconds if start.position else None
    return TrainingClock(3600 * training.max_hours, spent or 0.0)


def rate_factors(settings: OptimizerConfig, num_layers: int) -> dict[str, float]:
    """Factors of the learning rate, by a pattern of the variables that have each.

    With a decay d, layer i of L (from 1) has d^(L + 1 - i), the embeddings d^(L + 1),
    and head and pooler 1. Frozen variables have 0.

    Args:
      settings: Of the optimizer.
      num_layers: L.

    Source: the fine-tuning of BEiT (Bao et al. 2022, arXiv:2106.08254), as in ELECTRA.
    """
    patterns = ["^bert/embeddings/"]
    patterns += [f"^bert/encoder/layer_{n}/" for n in range(num_layers)]
    decay, frozen = settings.layerwise_lr_decay, settings.frozen_layers
    num_frozen = 0 if frozen is None else frozen + 1
    factors = {
        pattern: 0.0 if n < num_frozen else decay ** (num_layers + 1 - n)
        for n, pattern in enumerate(patterns)
    }
    return {pattern: factor for pattern, factor in factors.items() if factor != 1.0}


def make_optimizer(
    settings: OptimizerConfig,
    learning_rate: float,
    model: keras.Model,
    clock: TrainingClock | None,
) -> tuple[BertOptimizer, WarmupPolynomialDecay | DecayByTime]:
    """The optimizer of a model, and the schedule that it follows."""
    # With a clock the schedule counts parts of its time instead of steps.
    scale = TIME_PARTS / settings.num_train_steps if clock else 1
    schedule = WarmupPolynomialDecay(
        learning_rate=learning_rate,
        num_train_steps=round(scale * settings.num_train_steps),
        num_warmup_steps=round(scale * settings.warmup_steps),
        start_warmup_step=round(scale * settings.start_warmup_step),
        power=settings.power,
        compensate_warmup=settings.optimizer_type != "lamb",
    )
    if clock is not None:
        schedule = DecayByTime(schedule, clock.share)
    optimizer = build_optimizer(
        settings.optimizer_type,
        schedule,
        beta_1=settings.beta_1,
        beta_2=settings.beta_2,
        epsilon=settings.epsilon,
        weight_decay_rate=settings.weight_decay_rate,
        exclude_from_weight_decay=settings.exclude_from_weight_decay,
        rate_factors=rate_factors(settings, _num_layers(model)),
        exclude_from_layer_adaptation=settings.exclude_from_layer_adaptation,
    )
    optimizer.build(model.trainable_variables)
    return optimizer, schedule


def _num_layers(model: keras.Model) -> int:
    """The encoder layers of a model."""
    found = (re.match(_LAYER, variable.path) for variable in model.trainable_variables)
    return len({match[0] for match in found if match})


def make_averages(config: RunConfig, model: keras.Model) -> WeightAverages | None:
    """The moving averages of the weights, if a training asks for them."""
    if not (config.training.do_train and config.optimizer.ema_decay):
        return None
    return WeightAverages(weights_by_name(model), config.optimizer.ema_decay)
