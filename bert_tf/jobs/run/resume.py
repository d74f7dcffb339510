"""Where a run starts: with new weights, with given ones, or where a run stopped."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.config.run import RunBatchConfig, RunConfig
from bert_tf.errors import RunError
from bert_tf.interop.tensor_names import of_variable
from bert_tf.interop.weight_files import Kind, find_source
from bert_tf.interop.weights import (
    LoadReport,
    Weights,
    assign_weights,
    read_weights,
    weight_names,
)
from bert_tf.tf_checkpoint import load_tf
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import STEP_NAME, RunPosition
from bert_tf.training.optimizers import BertOptimizer

_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@dataclasses.dataclass(frozen=True)
class StartingPoint:
    """Which checkpoint a run starts from, and how much of it is taken.

    Attributes:
      prefix: The checkpoint, or empty for new weights.
      takes_state: Whether optimizer state and step are taken too.
      position: The manifest of the resumed run, if the checkpoint has one.
      is_own: Whether the checkpoint is one of this run's output_dir.
      notes: Lines for the log.
    """

    prefix: str = ""
    takes_state: bool = False
    position: RunPosition | None = None
    is_own: bool = False
    notes: tuple[str, ...] = ()


def find_starting_point(config: RunConfig, *, own_first: bool = False) -> StartingPoint:
    """Applies the rules of starting and resuming.

    A committed checkpoint in output_dir wins over everything but
    overwrite_output_dir; then comes init_checkpoint. Without training,
    init_checkpoint comes first, unless `own_first`.

    Args:
      config: The settings.
      own_first: Prefer the checkpoint in output_dir without training too: the
        init_checkpoint of a fine-tuning is what its training started from.

    Raises:
      ValueError: if output_dir holds checkpoints of another program, or there is
        nothing to evaluate.
      RunError: if a checkpoint is damaged.
    """
    files, do_train = config.files, config.training.do_train
    steps = checkpoints.committed_steps(files.output_dir)
    is_own_first = do_train or own_first or not files.init_checkpoint
    if steps and is_own_first and not files.overwrite_output_dir:
        return _newest_own(files.output_dir, files.init_checkpoint, do_train)
    notes = ()
    if steps and do_train and files.overwrite_output_dir:
        notes = (
            f"--overwrite_output_dir: the checkpoints in {files.output_dir} (newest: "
            f"step {steps[-1]}) are deleted when the first new one is complete.",
        )
    foreign = checkpoints.foreign_checkpoints(files.output_dir)
    if foreign and do_train:
        raise ValueError(
            "`output_dir` must not hold checkpoints of another program, which would "
            f"be mixed up with new ones. Received: {files.output_dir} with "
            f"{', '.join(foreign)}. Pass another --output_dir, and one of them as "
            "--init_checkpoint (pre-training takes its step with --resume)."
        )
    if files.init_checkpoint:
        start = _named(config)
        return dataclasses.replace(start, notes=(*notes, *start.notes))
    if not do_train:
        raise ValueError(
            "Without `do_train` there must be a checkpoint, in `output_dir` or as "
            f"`init_checkpoint`. Received: output_dir={files.output_dir} without a "
            "checkpoint, init_checkpoint=''. Pass --init_checkpoint or --do_train."
        )
    return StartingPoint(notes=notes)


def _newest_own(output_dir: str, init_checkpoint: str, do_train: bool) -> StartingPoint:
    """The newest checkpoint in output_dir."""
    while True:
        step = checkpoints.committed_steps(output_dir)[-1]
        prefix = os.path.join(output_dir, f"model.ckpt-{step}")
        try:
            position = checkpoints.read_manifest(prefix)
            break
        except RunError:
            # A training next to this evaluation may have replaced it by a newer one.
            if do_train or step in checkpoints.committed_steps(output_dir):
                raise
    notes = ()
    if init_checkpoint and do_train:
        notes = (
            f"--init_checkpoint={init_checkpoint} is not used: the run is resumed from "
            "output_dir.",
        )
    return StartingPoint(prefix, True, position, is_own=True, notes=notes)


def _named(config: RunConfig) -> StartingPoint:
    """The checkpoint that init_checkpoint names: its weights, or its state too."""
    files = config.files
    source = find_source(files.init_checkpoint)
    is_tensorflow = source.kind is Kind.TENSORFLOW
    position = checkpoints.read_manifest(source.path) if is_tensorflow else None
    if not files.resume:
        return StartingPoint(source.path)
    if not is_tensorflow:
        raise ValueError(
            "`resume` takes the state of an optimizer, which only checkpoints of this "
            f"program and of google-research/bert hold. Received: {source.path}, a "
            f"{source.kind.value}. Drop --resume to start from its weights."
        )
    step = position.step if position else checkpoints.step_of(source.path)
    last = config.optimizer.num_train_steps
    if config.training.do_train and step >= last:
        raise ValueError(
            f"`resume` takes the step of `init_checkpoint`, {step}, too, which must be "
            f"less than num_train_steps={last}. Drop --resume to start at step 0 from "
            "its weights, as in a second phase, or raise --num_train_steps."
        )
    notes = ()
    if position is None:
        notes = (
            f"{source.path} has no manifest: learning rate, global batch and seed are "
            "those of the flags, and each of its steps counts as one of this batch.",
        )
    return StartingPoint(source.path, True, position, notes=notes)


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
            f"records, which {size} workers x train_batch_size="
            f"{batch.train_batch_size} = {rows} does not divide. Choose another "
            "train_batch_size or number of workers."
        )
    return position.global_batch_size // rows


def weights_by_name(model: keras.Model) -> dict[str, tf.Variable]:
    """Trainable variables by the original tensor names."""
    return {of_variable(v.path): v.value for v in model.trainable_variables}


def slots_by_name(optimizer: BertOptimizer) -> dict[str, tf.Variable]:
    """Optimizer state by the original tensor names."""
    slots = optimizer.slots().items()
    return {of_variable(name): slot.value for name, slot in slots}


def restore(
    start: StartingPoint,
    model: keras.Model,
    optimizer: BertOptimizer,
    bert: BertConfig,
    *,
    do_train: bool,
    head: Sequence[str] = (),
    weights: Weights | None = None,
) -> list[str]:
    """Loads the starting point into model and optimizer.

    A training that takes only weights counts its steps from 0; an evaluation reports
    the step of the checkpoint.

    Args:
      start: Which checkpoint, and how much of it.
      model: Gets its weights.
      optimizer: Gets its state and step, where they are taken.
      bert: The model's architecture.
      do_train: Whether there is training.
      head: Names of weights that a training may initialise newly: a new task's.
      weights: Those of the starting point, if they have been read.

    Returns:
      Lines for the log.

    Raises:
      RunError: if the checkpoint does not fit the model, which is then not changed.
    """
    if not start.prefix:
        return list(start.notes)
    variables = weights_by_name(model)
    if start.takes_state:
        slots = slots_by_name(optimizer)
        step, report = load_checkpoint(start.prefix, variables, slots)
        optimizer.iterations.assign(step)
        return [*start.notes, *(f"{start.prefix}: {x}" for x in report.lines())]
    source = find_source(start.prefix)
    found = weights or read_weights(start.prefix)
    lines = compare_config(found.config, bert, source.config_file)
    report = assign_weights(found, variables, new=head if do_train else ())
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
      slots: The same of the optimizer's state; None: it is not taken.

    Returns:
      The checkpoint's step (0 if it has none), and which tensors are not used.

    Raises:
      RunError: if a file is damaged, or if tensors are missing or of another shape; no
        variable is changed then.
    """
    variables = {**weights, **(slots or {})}

    def choose(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        names = {STEP_NAME, *variables, *weight_names(shapes, [])}
        return [name for name in shapes if name in names]

    try:
        tensors = load_tf(prefix, choose)
        step = tensors.pop(STEP_NAME, None)
        if slots and (step is None or not slots.keys() & tensors.keys()):
            raise RunError(
                f"{prefix} has weights without the state and step of an optimizer: no "
                "run can resume from it. Pass it as --init_checkpoint, without "
                "--resume and with another --output_dir, to start from its weights."
            )
        found = Weights(tensors, None, "", prefix)
        return int(step or 0), assign_weights(found, variables, exact=True)
    except (OSError, ValueError) as error:
        raise RunError(str(error)) from error


def compare_config(
    beside: BertConfig | None, bert: BertConfig, config_file: str
) -> list[str]:
    """Compares what shapes do not show with the config next to the initial weights.

    Args:
      beside: That config, if there is one.
      bert: The architecture of the model.
      config_file: The file of `beside`.

    Returns:
      A line for each difference that may be intended.

    Raises:
      ValueError: if the heads differ: the weights would mean something else.
    """
    if beside is None:
        return []
    if beside.num_attention_heads != bert.num_attention_heads:
        raise ValueError(
            f"{config_file}, next to the initial weights, has num_attention_heads="
            f"{beside.num_attention_heads}. Received: num_attention_heads="
            f"{bert.num_attention_heads}. Drop --bert_config_file and --preset to use "
            "that file; correct it if it is wrong."
        )
    return [
        f"{'warning: ' * (name not in _DROPOUTS)}{name}={getattr(bert, name)} is used; "
        f"{config_file} next to the initial weights has {getattr(beside, name)}."
        for name in ("hidden_act", "layer_norm_eps", *_DROPOUTS)
        if _usual(getattr(beside, name)) != _usual(getattr(bert, name))
    ]


def _usual(value: object) -> object:
    """One name for each activation that has several."""
    return "gelu_tanh" if value in ("gelu_new", "gelu_pytorch_tanh") else value
