"""Where a run starts: from nothing, from weights, or where a run stopped."""

import dataclasses
import os
from typing import Any

from bert_tf.config import PretrainingConfig
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
    """

    prefix: str = ""
    takes_state: bool = False
    position: RunPosition | None = None
    is_own: bool = False


def own_steps(config: Any, *, own_first: bool = False) -> list[int]:  # noqa: ANN401
    """Steps of the checkpoints in output_dir with which a run goes on, ascending.

    Args:
      config: The settings, in groups `files, training`.
      own_first: As for `find_starting_point`.
    """
    files = config.files
    if files.overwrite_output_dir:
        return []
    if files.init_checkpoint and not (config.training.do_train or own_first):
        return []  # An evaluation of the checkpoint that is named.
    return checkpoints.committed_steps(files.output_dir)


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
    files = config.files
    if steps := own_steps(config, own_first=own_first):
        prefix = os.path.join(files.output_dir, f"model.ckpt-{steps[-1]}")
        return StartingPoint(
            prefix, True, checkpoints.read_manifest(prefix), is_own=True
        )
    foreign = checkpoints.foreign_checkpoints(files.output_dir)
    if foreign and config.training.do_train:
        raise ValueError(
            "`output_dir` must not hold checkpoints of another program, which would "
            f"be mixed up with new ones. Received: {files.output_dir} with "
            f"{', '.join(foreign)}. Name another output_dir, and start from one of "
            "them with --init_checkpoint (pre-training takes its step with --resume)."
        )
    if files.init_checkpoint:
        prefix = files.init_checkpoint.removesuffix(".index")
        position = checkpoints.read_manifest(prefix)
        return StartingPoint(prefix, files.resume, position if files.resume else None)
    if not config.training.do_train:
        raise ValueError(
            "Without `do_train` there must be a checkpoint: in output_dir, or "
            f"named by `init_checkpoint`. Received: output_dir={files.output_dir} "
            "without one, init_checkpoint=''."
        )
    return StartingPoint()


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
            f"The run to go on with has a global batch of {position.global_batch_size} "
            f"records, which {size} workers x train_batch_size="
            f"{batch.train_batch_size} = {rows} does not divide. Choose another "
            "train_batch_size or number of workers."
        )
    return position.global_batch_size // rows
