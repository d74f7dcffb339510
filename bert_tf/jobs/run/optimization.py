"""What moves the weights of a run: rate, clock, optimizer and moving averages."""

import keras

from bert_tf.config.run import OptimizerConfig, RunConfig, RunTrainingConfig
from bert_tf.jobs.run.resume import StartingPoint, weights_by_name
from bert_tf.training.averages import WeightAverages
from bert_tf.training.clock import TrainingClock
from bert_tf.training.optimizers import BertOptimizer, build_optimizer
from bert_tf.training.schedules import (
    TIME_PARTS,
    DecayByTime,
    WarmupPolynomialDecay,
)


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
        exclude_from_layer_adaptation=settings.exclude_from_layer_adaptation,
    )
    optimizer.build(model.trainable_variables)
    return optimizer, schedule


def make_averages(config: RunConfig, model: keras.Model) -> WeightAverages | None:
    """The moving averages of the weights, if a training asks for them."""
    if not (config.training.do_train and config.optimizer.ema_decay):
        return None
    return WeightAverages(weights_by_name(model), config.optimizer.ema_decay)
