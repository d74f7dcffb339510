"""What all kinds of fine-tuning share: examples, the best weights, predictions."""

import contextlib
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from bert_tf.config.finetuning import FinetuningConfig
from bert_tf.data.batches.example_batches import (
    ExampleReader,
    LabelledSequences,
    prediction_batches,
)
from bert_tf.data.packing.layout import RowSettings
from bert_tf.data.text.tokenizer_settings import TASK_FILE
from bert_tf.errors import NonFiniteError, counted
from bert_tf.evaluation.prediction import predict
from bert_tf.evaluation.speed import BatchTimes, describe_speed, speed_of
from bert_tf.jobs.run.agreement import agreement
from bert_tf.jobs.run.best_checkpoint import BestCheckpoint
from bert_tf.jobs.run.messages import describe_changes, describe_model
from bert_tf.jobs.run.output_dir import check_description
from bert_tf.jobs.run.plan import Plan, TrainingSet
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.training_loop import AfterStep, is_done
from bert_tf.modeling.finetuning import FinetuningTask
from bert_tf.stages import stage
from bert_tf.training.runlog import RunLog

# XLA compiles a micro-batch for each number of rows: for so many at most.
_COMPILED_ROW_COUNTS = 4
# What --allow_config_change permits in task.json.
_OF_CHANGES = {
    "data": ("max_seq_length",),
    "vocabulary": ("do_lower_case",),
    "labels": ("label_names", "version_2_with_negative"),
}

Config = TypeVar("Config", bound=FinetuningConfig, covariant=True)
FinetuningPlan = Plan[Config, object, FinetuningTask]


def row_settings(config: FinetuningConfig, choices: int) -> RowSettings:
    """Length of rows, and whether they are packed.

    Args:
      config: The settings.
      choices: Sequences of an example, which share a row.
    """
    return RowSettings(choices * config.max_seq_length, config.batch.pack_sequences)


def _max_row_counts(config: FinetuningConfig) -> int:
    """How many numbers of rows micro-batches may have; 0: any."""
    # Empty rows move others to another micro-batch, whose mean would be another one.
    is_free = config.runtime.use_xla and not config.training.is_micro_batch_mean
    return _COMPILED_ROW_COUNTS if is_free else 0


def training_set(
    config: FinetuningConfig,
    examples: LabelledSequences | None,
    facts: Mapping[str, object],
) -> TrainingSet | None:
    """What a plan needs to know of the examples that are trained on.

    Args:
      config: The settings.
      examples: The examples; None without training.
      facts: More about them for the fingerprint.
    """
    if examples is None:
        return None
    rows = row_settings(config, examples.choices)
    make_reader = functools.partial(
        ExampleReader, examples, settings=rows, max_row_counts=_max_row_counts(config)
    )
    return TrainingSet(
        num_records=len(examples),
        sha256=examples.sha256(),
        make_reader=make_reader,
        max_seq_length=rows.max_seq_length,
        rows=rows,
        facts={"max_seq_length": config.max_seq_length, **facts},
        measure_lengths=lambda: examples.lengths,
    )


def describe(plan: FinetuningPlan, session: Session) -> None:
    """Logs the model, the steps and the optimizer."""
    log, shape, settings = session.log, plan.shape, plan.config.optimizer
    describe_model(plan, session.threads, log)
    trained = plan.training_set
    if trained is None:
        return
    log.message(
        f"Training: {counted(trained.num_records, 'example')}, "
        f"{shape.global_batch_size} per step ({counted(shape.size, 'worker')} x "
        f"{shape.micro_batch_size} x {shape.num_micro_batches} accumulation), "
        f"{counted(settings.num_train_steps, 'step')}; "
        f"{settings.optimizer_type}, peak learning rate {plan.learning_rate:g}, "
        f"{counted(settings.warmup_steps, 'step')} of warm-up."
    )
    _describe_layers(plan, log)
    if plan.config.batch.pack_sequences:
        average = trained.sequences_per_row(trained.measure_lengths())
        log.message(f"Packed: about {average:.2f} sequences in a row.")
        if plan.config.runtime.use_xla:
            most = _max_row_counts(plan.config)
            how = "any number"
            if most:
                how = f"at most {most} numbers, since empty rows are added"
            log.message(f"--use_xla compiles for each number of packed rows: {how}.")
    describe_changes(plan, log)


def _describe_layers(plan: FinetuningPlan, log: RunLog) -> None:
    """Logs which layers are frozen, or have other learning rates."""
    settings, num_layers = plan.config.optimizer, plan.bert.num_hidden_layers
    frozen, decay = settings.frozen_layers, settings.layerwise_lr_decay
    weights = plan.task.model.trainable_variables
    factors = [plan.optimizer.rate_factor(x.path) for x in weights]
    if frozen is not None:
        pairs = zip(weights, factors, strict=True)
        count = sum(math.prod(x.shape) for x, factor in pairs if not factor)
        log.message(
            f"Frozen: the embeddings and {frozen} of {num_layers} layers, "
            f"{count:,} weights."
        )
    if decay != 1.0:
        lowest = min(filter(None, factors)) * plan.learning_rate
        log.message(
            f"Learning rate by layer: {plan.learning_rate:g} for the head, {decay:g} "
            f"times as much in each layer below, {lowest:g} in the lowest one."
        )


def check_task(plan: FinetuningPlan, session: Session) -> None:
    """Compares task.json of a resumed run, on its first worker, with this run's.

    Raises:
      RunError: if the training had other settings that change what the model reads
        or predicts.
    """
    config = plan.config
    path = os.path.join(config.files.output_dir, TASK_FILE)
    # A prediction may use another length than its training.
    is_chosen = config.batch.max_seq_length and not config.training.do_train
    may_change = ("max_seq_length",) if is_chosen else ()
    for name in config.training.allow_config_change:
        may_change += _OF_CHANGES.get(name, ())
    with agreement(session.communicator):
        if session.is_first and plan.start.is_own:
            task = json.loads(plan.model_files[TASK_FILE])
            check_description(path, task, may_change=may_change)


@contextlib.contextmanager
def keep_best(
    plan: FinetuningPlan,
    session: Session,
    evaluate: Callable[[], dict[str, float]],
    criterion: str,
) -> Iterator[AfterStep | None]:
    """Evaluates after each epoch of the training inside, if the config asks for it.

    Args:
      plan: The run; at the end its model has the best weights.
      session: Its workers and its log.
      evaluate: Evaluates the model.
      criterion: Name of the result whose highest value is the best.

    Yields:
      What follows some steps of the training; None for nothing.
    """
    config, log, communicator = plan.config, session.log, session.communicator
    if config.saving.benchmark or not config.training.evaluate_each_epoch:
        yield None
        return
    with agreement(communicator):
        best = BestCheckpoint(plan, criterion, communicator.rank)
    if plan.start.is_own and plan.step and not best.last_step:
        log.message(f"The best checkpoint is chosen from step {plan.step} on.")

    def ends_early(step: int) -> bool:
        # The first worker decides: the last bits of a score may differ on others.
        ends = _ends_early(plan, best.step, step)
        return bool(communicator.gather([float(ends)])[0, 0])

    def evaluate_step(step: int) -> bool:
        with session.averaged(plan):
            results = evaluate()
            with session.stop.writing:
                if session.saver:
                    session.saver.save_first(step)
                is_best = best.offer(step, results)
        line = f"After step {step}: {criterion} = {results[criterion]:.6g}"
        log.message(f"{line} (best so far)" if is_best else line)
        log.evaluation(step, results)
        return ends_early(step)

    if plan.start.is_own and plan.step > best.last_step:
        # The run was stopped between a checkpoint and its evaluation.
        if _ends_epoch(plan, plan.step):
            evaluate_step(plan.step)
    # The training itself notices that all its steps are done.
    is_evaluated = plan.start.is_own and plan.step == best.last_step > 0
    is_over = is_evaluated and not is_done(plan) and ends_early(plan.step)
    if patience := config.training.early_stopping_patience:
        times = counted(patience, "evaluation")
        limit = f"{times} without a better {criterion}"
        log.message(f"Early stopping: the training ends after {limit}.")
    yield AfterStep(functools.partial(_ends_epoch, plan), evaluate_step, is_over)
    with agreement(communicator):  # Others may not see the first one's files.
        line = best.load() if session.is_first else ""
    log.message(line)
    communicator.broadcast(plan.variables)


def _ends_early(plan: FinetuningPlan, best_step: int, step: int) -> bool:
    """Whether the patience is over after the evaluation of a step."""
    patience = plan.config.training.early_stopping_patience
    if patience is None:
        return False
    worse = sum(_ends_epoch(plan, each) for each in range(best_step + 1, step + 1))
    return worse >= patience


def _ends_epoch(plan: FinetuningPlan, step: int) -> bool:
    """Whether a step is the run's last, or completes a pass over the examples."""
    return plan.ends_epoch(step) or step == plan.config.optimizer.num_train_steps


def predict_logits(
    plan: FinetuningPlan,
    session: Session,
    examples: LabelledSequences,
    batch_size: int,
    *,
    of_tokens: bool,
    activity: str,
    title: str = "",
) -> np.ndarray:
    """The logits of all tokens [T, C], or of all examples [n, C], on every worker.

    Args:
      plan: The run.
      session: Its workers and its log.
      examples: What to predict.
      batch_size: Rows of a batch.
      of_tokens: Whether the logits are per token.
      activity: What it is done for, to log: Predicting or Evaluating.
      title: Of the examples, to log how fast they are predicted; empty for no log.

    Raises:
      NonFiniteError: on every worker, if a logit is not a finite number.
    """
    communicator, sequences = session.communicator, examples.sequences
    batches = prediction_batches(
        examples,
        row_settings(plan.config, examples.choices),
        batch_size=batch_size,
        rank=communicator.rank,
        size=communicator.size,
    )
    count = len(sequences.input_ids) if of_tokens else len(sequences)
    times = BatchTimes()
    with stage(activity, session.log.message), session.watchdog.paused():
        logits = predict(
            plan.task,
            session.watchdog.watched(batches),
            count,
            communicator,
            of_tokens=of_tokens,
            times=times,
        )
    if title:
        _report_speed(session, title, times, batch_size)
    if not np.isfinite(logits).all():
        raise NonFiniteError(
            "The model's logits are not finite numbers. Its training diverged: train "
            "again with a lower --learning_rate, or use an earlier checkpoint."
        )
    return logits


def _report_speed(
    session: Session, title: str, times: BatchTimes, batch_size: int
) -> None:
    """Logs throughput and latency of a prediction by all workers."""
    found = session.communicator.gather_values(dataclasses.asdict(times))
    workers = [BatchTimes(**each) for each in found]
    for line in describe_speed(title, workers, batch_size):
        session.log.message(line)
    if speed := speed_of(workers):
        session.log.summary(speed)
