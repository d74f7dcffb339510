"""Where a run starts: from nothing, from weights, or where a run stopped."""

import dataclasses
import os
from typing import Any

from bert_tf.config import PretrainingConfig
from bert_tf.errors import RunError
from bert_tf.interop.weight_files import Kind, find_source
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import RunPosition


@dataclasses.dataclass(frozen=True)
class StartingPoint:
    """Which checkpoint a run begins with, and how much of it is taken.

    Attributes:
      prefix: The checkpoint, or empty for new weights.
      takes_state: Whether optimizer state and step are taken too.
      position: Where the run stood, if the checkpoint says so.
      is_own: Whether the checkpoint is one of this run's output_dir.
      notes: What a reader may not expect.
    """

    prefix: str = ""
    takes_state: bool = False
    position: RunPosition | None = None
    is_own: bool = False
    notes: tuple[str, ...] = ()


def find_starting_point(config: Any, *, own_first: bool = False) -> StartingPoint:  # noqa: ANN401
    """Applies the rules of starting and resuming.

    A committed checkpoint in output_dir wins over everything but
    overwrite_output_dir; then comes init_checkpoint. An evaluation alone takes
    init_checkpoint first, but for `own_first`.

    Args:
      config: The settings, in groups `files, training`.
      own_first: Prefer the checkpoint in output_dir without training too: fine-tuning
        names in init_checkpoint what it began with.

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
            f"{', '.join(foreign)}. Name another output_dir, and start from one of "
            "them with --init_checkpoint (pre-training takes its step with --resume)."
        )
    if files.init_checkpoint:
        start = _named(config)
        return dataclasses.replace(start, notes=(*notes, *start.notes))
    if not do_train:
        raise ValueError(
            "Without `do_train` there must be a checkpoint: in output_dir, or "
            f"named by `init_checkpoint`. Received: output_dir={files.output_dir} "
            "without one, init_checkpoint=''."
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
            # A training beside this evaluation may have replaced it by a newer one.
            if do_train or step in checkpoints.committed_steps(output_dir):
                raise
    notes = ()
    if init_checkpoint and do_train:
        notes = (
            f"--init_checkpoint={init_checkpoint} is not used: the run is resumed from "
            "output_dir.",
        )
    return StartingPoint(prefix, True, position, is_own=True, notes=notes)


def _named(config: Any) -> StartingPoint:  # noqa: ANN401 - as of find_starting_point
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
            f"{source.kind.value}. Drop --resume to begin with its weights."
        )
    step = position.step if position else checkpoints.step_of(source.path)
    last = config.optimizer.num_train_steps
    if config.training.do_train and step >= last:
        raise ValueError(
            f"`resume` takes the step of `init_checkpoint`, {step}, too, which must be "
            f"less than num_train_steps={last}. Drop --resume to begin at step 0 with "
            "its weights, as in a second phase, or raise --num_train_steps."
        )
    notes = ()
    if position is None:
        notes = (
            f"{source.path} has no manifest: learning rate, global batch and seed are "
            "the flags', and all its steps count as of this batch.",
        )
    return StartingPoint(source.path, True, position, notes=notes)


def accumulation_steps(
    config: PretrainingConfig,
    position: RunPosition | None,
    size: int,
    avg_seq_per_sample: float = 1.0,
) -> int:
    """Micro-batches per step and worker.

    Packed records hold several sequences each: so many fewer are taken, that a step
    has about as many sequences as the flags say. A resumed run keeps its global batch.

    Args:
      config: The settings.
      position: Where the run stood, if it is resumed.
      size: Number of workers.
      avg_seq_per_sample: Sequences per record.

    Returns:
      num_accumulation_steps, or what takes its place, >= 1.

    Raises:
      ValueError: if the global batch cannot be cut up so.
    """
    batch = config.batch
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
