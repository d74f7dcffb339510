"""Where a run starts: with new weights, with given ones, or where a run stopped."""

import dataclasses
import os

from bert_tf.config.run import RunConfig
from bert_tf.errors import RunError
from bert_tf.interop.weight_files import Kind, find_source
from bert_tf.jobs.run.used_folder import check_traces, find_newest, refusal
from bert_tf.training import checkpoints
from bert_tf.training.manifest import RunPosition


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


def find_starting_point(
    config: RunConfig, *, own_first: bool = False, local_rank: int = 0
) -> StartingPoint:
    """Applies the rules of starting and resuming.

    The newest whole checkpoint in output_dir wins over everything but
    overwrite_output_dir; then comes init_checkpoint. Without training,
    init_checkpoint comes first, unless `own_first`.

    Args:
      config: The settings.
      own_first: Prefer the checkpoint in output_dir without training too: the
        init_checkpoint of a fine-tuning is what its training started from.
      local_rank: Number of this worker on its host. The first one computes the sha256
        of files; of a training, the others take the checkpoint that it has left there,
        and notice damage by the checksums of tensors.

    Raises:
      ValueError: if output_dir holds checkpoints of another program, or there is
        nothing to evaluate.
      RunError: if there were checkpoints, and none can be used.
    """
    files, do_train = config.files, config.training.do_train
    is_own_first = do_train or own_first or not files.init_checkpoint
    if is_own_first and not files.overwrite_output_dir:
        start = _own(config, local_rank)
        if start is not None:
            return start
    notes: list[str] = []
    if do_train and files.overwrite_output_dir:
        notes = _notes_on_overwriting(files.output_dir, config.saving.saves_nothing)
    elif do_train:
        notes = check_traces(files)
    if files.init_checkpoint:
        start = _named(config)
        return dataclasses.replace(start, notes=(*notes, *start.notes))
    if not do_train:
        raise ValueError(
            "Without `do_train` there must be a checkpoint, in `output_dir` or as "
            f"`init_checkpoint`. Received: output_dir={files.output_dir} without a "
            "checkpoint, init_checkpoint=''. Pass --init_checkpoint or --do_train."
        )
    return StartingPoint(notes=tuple(notes))


def _notes_on_overwriting(output_dir: str, saves_nothing: bool) -> list[str]:
    """What --overwrite_output_dir will delete."""
    steps = checkpoints.committed_steps(output_dir)
    if not steps:
        return []
    fate = "are deleted when the first new one is complete"
    if saves_nothing:
        fate = "stay, as this run saves none"
    return [
        f"--overwrite_output_dir: the checkpoints in {output_dir} (newest: step "
        f"{steps[-1]}) {fate}."
    ]


def _own(config: RunConfig, local_rank: int) -> StartingPoint | None:
    """The newest whole checkpoint in output_dir; None if there are no checkpoints."""
    files, do_train = config.files, config.training.do_train
    newest = find_newest(files.output_dir, hashes=local_rank == 0 or not do_train)
    foreign = checkpoints.foreign_checkpoints(files.output_dir)
    if newest.step is None and do_train and len(foreign) == len(newest.damaged) > 0:
        raise ValueError(
            "`output_dir` must not hold checkpoints of another program, or without "
            "their manifest (.json). Received: "
            f"{files.output_dir} with {', '.join(foreign)}. Pass another --output_dir, "
            "and one of them as --init_checkpoint (pre-training takes its step with "
            "--resume), or --overwrite_output_dir, which moves them into other folders."
        )
    if newest.step is None and newest.damaged:
        raise RunError(refusal(files.output_dir, newest.describe()))
    if newest.step is None:
        return None
    prefix = os.path.join(files.output_dir, f"model.ckpt-{newest.step}")
    notes = []
    if newest.damaged:
        notes.append(
            f"warning: damaged checkpoints in {files.output_dir} are not used "
            f"({newest.describe()}): {prefix} is used."
        )
    if files.init_checkpoint and do_train:
        notes.append(
            f"--init_checkpoint={files.init_checkpoint} is not used: the run is "
            "resumed from output_dir."
        )
    return StartingPoint(prefix, True, newest.position, is_own=True, notes=tuple(notes))


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
