"""Whether a run can start from a checkpoint, and how it takes it."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.config.run import RunBatchConfig
from bert_tf.errors import RunError, counted
from bert_tf.interop.tensor_names import of_variable
from bert_tf.interop.weight_files import Kind, find_source
from bert_tf.interop.weights import (
    LoadReport,
    Weights,
    assign_weights,
    averages_or_weights,
    read_weights,
    weight_names,
)
from bert_tf.jobs.run.model_files import compare_config
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.tf_checkpoint import load_tf
from bert_tf.training import checkpoints
from bert_tf.training.averages import WeightAverages
from bert_tf.training.manifest import AVERAGE, STEP_NAME, RunPosition
from bert_tf.training.optimizer_base import BertOptimizer


def accumulation_steps(
    batch: RunBatchConfig,
    position: RunPosition | None,
    size: int,
    avg_seq_per_sample: float = 1.0,
) -> int:
    """Micro-batches per step and worker.

    Packed records hold several sequences each, so that fewer micro-batches make a step
    of about as many sequences as the flags set. A resumed run keeps its global batch.

    Args:
      batch: The settings.
      position: The manifest of the resumed run, or None.
      size: Number of workers.
      avg_seq_per_sample: Sequences per record.

    Returns:
      num_accumulation_steps or its replacement, >= 1.

    Raises:
      ValueError: if the global batch of the resumed run cannot be divided.
    """
    if position is None:
        return max(1, round(batch.num_accumulation_steps / avg_seq_per_sample))
    rows = batch.train_batch_size * size
    if position.global_batch_size % rows:
        raise ValueError(
            f"The resumed run has a global batch of {position.global_batch_size} "
            f"records, which {counted(size, 'worker')} x train_batch_size="
            f"{batch.train_batch_size} = {rows} does not divide. Choose another "
            "train_batch_size or number of workers."
        )
    return position.global_batch_size // rows


def weights_by_name(model: keras.Model) -> dict[str, tf.Variable]:
    """Trainable variables by the original tensor names."""
    return {of_variable(v.path): v.value for v in model.trainable_variables}


def slots_by_name(optimizer: BertOptimizer) -> dict[str, tf.Variable]:
    """Optimizer state by the original tensor names."""
    return {of_variable(name): slot.value for name, slot in optimizer.slots().items()}


def restore(
    start: StartingPoint,
    model: keras.Model,
    optimizer: BertOptimizer,
    bert: BertConfig,
    *,
    do_train: bool,
    averages: WeightAverages | None = None,
    head: Sequence[str] = (),
    weights: Weights | None = None,
) -> list[str]:
    """Loads the starting point into model and optimizer.

    A training that takes only weights counts its steps from 0; an evaluation reports
    the step of the checkpoint, and takes its moving averages, if it has any, as its
    weights.

    Args:
      start: Which checkpoint, and how much of it.
      model: Gets its weights.
      optimizer: Gets its state and step, where they are taken.
      bert: The model's architecture.
      do_train: Whether there is training.
      averages: Get the checkpoint's, or start with the weights.
      head: Names of weights that a training may initialise newly: a new task's.
      weights: Those of the starting point, if they have been read.

    Returns:
      Lines for the log.

    Raises:
      RunError: if the checkpoint does not fit the model, which is then not changed, or
        there is no training and it lacks the head.
    """
    if not start.prefix:
        return list(start.notes)
    variables = weights_by_name(model)
    if start.takes_state:
        slots = slots_by_name(optimizer) | (averages.slots() if averages else {})
        taken = slots if do_train else None
        step, report = load_checkpoint(start.prefix, variables, taken)
        optimizer.iterations.assign(step)
        return [*start.notes, *(f"{start.prefix}: {x}" for x in report.lines())]
    source = find_source(start.prefix)
    found = weights or read_weights(start.prefix)
    lines = compare_config(found.config, bert, source.config_file)
    lacking = [name for name in head if name in variables and name not in found.tensors]
    if lacking and not do_train:
        raise RunError(
            f"{source.path} has no head for this task: {' and '.join(lacking)} are "
            "missing. Pass --do_train, which trains one, or a model that "
            "was fine-tuned for the task as --init_checkpoint."
        )
    report = assign_weights(found, variables, new=head if do_train else ())
    if averages:
        averages.restart()
    if not do_train and source.kind is Kind.TENSORFLOW:
        optimizer.iterations.assign(checkpoints.step_of(source.path))
    return [*start.notes, *(f"{source.path}: {x}" for x in report.lines()), *lines]


def load_checkpoint(
    prefix: str,
    weights: Mapping[str, tf.Variable],
    slots: Mapping[str, tf.Variable] | None = None,
) -> tuple[int, LoadReport]:
    """Assigns the tensors of a checkpoint to variables of the same names and shapes.

    Args:
      prefix: The checkpoint, without .index.
      weights: Name -> variable.
      slots: The same of the optimizer's state and of moving averages, which start with
        the weights if the checkpoint has none. None: they are not taken, and averages
        of the checkpoint are its weights.

    Returns:
      The checkpoint's step (0 if it has none), and which tensors are not used.

    Raises:
      RunError: if a file is damaged, or if tensors are missing or of another shape; no
        variable is changed then.
    """
    variables = {**weights, **(slots or {})}
    notes: list[str] = []

    def choose(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        names = {STEP_NAME, *variables, *weight_names(shapes, [])}
        if slots is None:
            names = {STEP_NAME, *averages_or_weights(shapes, notes)}
        return [name for name in shapes if name in names]

    try:
        tensors = load_tf(prefix, choose)
        if slots is None:
            tensors = {n.removesuffix(AVERAGE): each for n, each in tensors.items()}
        step = tensors.pop(STEP_NAME, None)
        if slots and (step is None or not slots.keys() & tensors.keys()):
            raise RunError(
                f"{prefix} has weights without the state and step of an optimizer: no "
                "run can resume from it. Pass it as --init_checkpoint, without "
                "--resume and with another --output_dir, to start from its weights."
            )
        if slots and (new := _without_averages(slots, tensors)):
            notes.append("no moving averages in it: they start with its weights")
            tensors |= {name: tensors[name.removesuffix(AVERAGE)] for name in new}
        found = Weights(tensors, None, "", prefix, tuple(notes))
        return int(step or 0), assign_weights(found, variables, exact=True)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error


def _without_averages(
    slots: Mapping[str, tf.Variable], tensors: Mapping[str, np.ndarray]
) -> list[str]:
    """The averages that a checkpoint without any lacks."""
    averages = [name for name in slots if name.endswith(AVERAGE)]
    has_some = any(name in tensors for name in averages)
    known = [n for n in averages if n.removesuffix(AVERAGE) in tensors]
    return [] if has_some else known
