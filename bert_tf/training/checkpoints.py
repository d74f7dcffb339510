"""Weights, optimizer state and position of a run, in files that name every tensor."""

import contextlib
import dataclasses
import glob
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from bert_tf.errors import RunError
from bert_tf.files import file_sha256, remove_unfinished, sync_folder, write_whole

FORMAT_VERSION = 1
_STEP_NAME = "global_step"
_MAX_LISTED = 20
_INCOMPLETE = ".incomplete"
_STATE_KEYS = ("model_checkpoint_path", "all_model_checkpoint_paths")
_INDEX = re.compile(r"^model\.ckpt-\d+\.index$")
_MANIFEST = re.compile(r"^model\.ckpt-(\d+)\.json$")
# Of `save`: tensor files before their renaming and, of TensorFlow's, before theirs; and
# the other two in earlier versions of this program.
_LEFTOVER = re.compile(
    r"model\.ckpt-\d+(\.tmp\..*|\.json[a-z0-9_]{8}\.tmp)$|checkpoint[a-z0-9_]{8}\.tmp$"
)
# Tensors that training systems keep beside the weights, of no use to another run.
_BOOKKEEPING = re.compile(
    r"(^|/)(adam_m|adam_v|accum|Adam|Adam_1|LAMB|LAMB_1|m|v|global_step|local_step|"
    r"loss_scale.*|good_steps|beta1_power|beta2_power|save_counter.*|"
    r"_CHECKPOINTABLE_OBJECT_GRAPH)$"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPosition:
    """Where a run stands: what a manifest keeps beside the tensors.

    Attributes:
      step: Steps taken.
      records: Records read, over all workers, from the start of the run.
      global_batch_size: Records of one step.
      learning_rate: Peak learning rate in effect, scaled by the workers already.
      seed: Decides order and dropout.
      num_records: Records of the training set.
      loss_scale: Of float16; None without one.
      num_finite_steps: Steps since the loss scale was last changed.
      data_sha256: Of the training set; None in manifests of earlier versions.
      is_packed: Whether its records are packed; None likewise, or if it has none.
      config: The settings of the run.
    """

    step: int
    records: int
    global_batch_size: int
    learning_rate: float
    seed: int
    num_records: int
    loss_scale: float | None = None
    num_finite_steps: int = 0
    data_sha256: str | None = None
    is_packed: bool | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)


def _tensor_files(prefix: str) -> list[str]:
    return sorted(glob.glob(f"{glob.escape(prefix)}.data-*")) + [f"{prefix}.index"]


def save(
    directory: str, tensors: Mapping[str, tf.Tensor], position: RunPosition
) -> str:
    """Writes and commits one checkpoint.

    The tensor files are written under another name, renamed, and only then named by
    the manifest, whose own renaming makes the checkpoint count. Last comes the file
    `checkpoint`, which other tools read.

    Args:
      directory: Where; exists.
      tensors: Name -> value; `global_step` is added.
      position: Where the run stands.

    Returns:
      The checkpoint's prefix, directory/model.ckpt-<step>.

    Raises:
      RunError: if it cannot be written; older checkpoints are as they were.
    """
    prefix = os.path.join(directory, f"model.ckpt-{position.step}")
    try:
        _write(directory, prefix, tensors, position)
    except (OSError, tf.errors.OpError) as error:
        # What there is of it takes room that may be what is missing.
        with contextlib.suppress(OSError):
            remove_leftovers(directory)
        raise RunError(
            f"The checkpoint {prefix} cannot be written: {error}. Older ones are as "
            "they were. Make room, and give the same command again: it resumes from "
            "the last."
        ) from error
    return prefix


def _write(
    directory: str,
    prefix: str,
    tensors: Mapping[str, tf.Tensor],
    position: RunPosition,
) -> None:
    """Does the steps of `save` in their order."""
    named = dict(tensors) | {_STEP_NAME: tf.constant(position.step, tf.int64)}
    names = sorted(named)
    temporary = f"{prefix}.tmp"
    tf.raw_ops.SaveV2(
        prefix=temporary,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.convert_to_tensor(named[name]) for name in names],
    )
    marker = prefix + _INCOMPLETE
    with open(marker, "w"):
        pass  # Says that the files are ours to remove, should this be interrupted.
    if os.path.exists(f"{prefix}.json"):
        os.remove(f"{prefix}.json")  # Of a run that is overwritten.
    for file in _tensor_files(temporary):
        with open(file, "rb") as written:
            os.fsync(written.fileno())
        os.replace(file, prefix + file.removeprefix(temporary))
    sync_folder(directory)  # Before the manifest says that they are there.
    files = {os.path.basename(f): file_sha256(f) for f in _tensor_files(prefix)}
    manifest = {"format": FORMAT_VERSION, **dataclasses.asdict(position)}
    manifest["files"] = files
    write_whole(f"{prefix}.json", json.dumps(manifest, indent=2) + "\n")
    os.remove(marker)
    _name_newest(directory, position.step)


def _name_newest(directory: str, step: int) -> None:
    """Writes the file `checkpoint`, which other tools read, unless it is right."""
    text = "".join(f'{key}: "model.ckpt-{step}"\n' for key in _STATE_KEYS)
    path = os.path.join(directory, "checkpoint")
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read() == text.encode():
            return
    write_whole(path, text)


def committed_steps(directory: str) -> list[int]:
    """Steps of the checkpoints whose manifest is there, in rising order."""
    if not os.path.isdir(directory):
        return []
    matches = map(_MANIFEST.match, os.listdir(directory))
    return sorted(int(match[1]) for match in matches if match)


def read_manifest(prefix: str) -> RunPosition | None:
    """What a manifest says of its checkpoint, after comparing the files' checksums.

    Args:
      prefix: The checkpoint, without .index.

    Returns:
      The position, or None if there is no manifest (a checkpoint of another program).

    Raises:
      RunError: if the manifest cannot be read, or a file is not as it says.
    """
    path = f"{prefix}.json"
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        files = values.pop("files")
        if values.pop("format") != FORMAT_VERSION:
            raise ValueError("it is of another format, that of a newer version")
        position = RunPosition(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(
            f"{path} is not a checkpoint manifest: {error!r}. Remove {prefix}.* to use "
            "an older checkpoint."
        ) from error
    for name, expected in files.items():
        file = os.path.join(os.path.dirname(prefix), os.path.basename(name))
        found = file_sha256(file) if os.path.exists(file) else "no file"
        if found != expected:
            raise RunError(
                f"{file} must have sha256 {expected}, as {path} says. Received: "
                f"{found}. Restore the file, or remove {prefix}.* to use an older "
                "checkpoint."
            )
    return position


def open_checkpoint(prefix: str) -> Any:  # noqa: ANN401 - TensorFlow names no class
    """Opens a checkpoint of names and tensors; runs no code from it.

    Args:
      prefix: Path without .index.

    Raises:
      RunError: if there is no checkpoint, or it cannot be read.
    """
    prefix = prefix.removesuffix(".index")
    if not os.path.exists(f"{prefix}.index"):
        raise RunError(
            f"There is no checkpoint {prefix} (no file {prefix}.index). Name the path "
            "without its ending, such as /dir/bert_model.ckpt."
        )
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise RunError(f"{prefix} cannot be read: {error}") from error


def step_of(prefix: str) -> int:
    """The step that a checkpoint tells; 0 if it tells none."""
    reader = open_checkpoint(prefix)
    is_there = reader.has_tensor(_STEP_NAME)
    return int(reader.get_tensor(_STEP_NAME)) if is_there else 0


def shape_of(prefix: str, name: str) -> list[int] | None:
    """The shape of a checkpoint's tensor; None if there is none of that name."""
    return open_checkpoint(prefix).get_variable_to_shape_map().get(name)


def restore(
    prefix: str,
    weights: Mapping[str, tf.Variable],
    slots: Mapping[str, tf.Variable] | None = None,
) -> tuple[int, list[str]]:
    """Assigns a checkpoint's tensors to variables of the same names.

    Args:
      prefix: The checkpoint, without .index.
      weights: Name -> variable; all must be there.
      slots: Optimizer state, likewise, or None to leave it alone.

    Returns:
      The checkpoint's step (0 if it has none), and the names of its tensors that
      nothing here is called.

    Raises:
      RunError: listing names that are missing and shapes that differ; no variable is
        changed then.
    """
    reader = open_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    wanted = dict(weights) | dict(slots or {})
    problems = [
        f"{name} {tuple(variable.shape)} is missing"
        for name, variable in wanted.items()
        if name not in shapes
    ]
    problems += [
        f"{name} must have shape {tuple(variable.shape)}, found {tuple(shapes[name])}"
        for name, variable in wanted.items()
        if name in shapes and tuple(variable.shape) != tuple(shapes[name])
    ]
    if slots is not None and _STEP_NAME not in shapes:
        problems.append(f"{_STEP_NAME} is missing")
    if problems and slots and not any(name in shapes for name in slots):
        raise RunError(
            f"{prefix} holds weights without the state of an optimizer, so that no run "
            "can be resumed from it. Name it with --init_checkpoint, without --resume "
            "and with another output_dir, to begin with its weights."
        )
    if problems:
        more = len(problems) - _MAX_LISTED
        problems = problems[:_MAX_LISTED] + [f"and {more} more"] * (more > 0)
        raise RunError(
            f"{prefix} does not fit the model: {'; '.join(problems)}. Check "
            "--bert_config_file or --preset"
            + ("." if slots is None else ", or name another output_dir.")
        )
    try:
        for name, variable in wanted.items():
            variable.assign(reader.get_tensor(name))
    except tf.errors.OpError as error:
        raise RunError(f"{prefix} is damaged at {name}: {error.message}") from error
    extra = sorted(n for n in shapes if n not in wanted and not _BOOKKEEPING.search(n))
    return step_of(prefix), extra


def remove(directory: str, step: int) -> None:
    """Deletes a checkpoint; if interrupted, `remove_leftovers` deletes the rest."""
    prefix = os.path.join(directory, f"model.ckpt-{step}")
    with open(prefix + _INCOMPLETE, "w"):
        pass
    for file in [f"{prefix}.json", *_tensor_files(prefix), prefix + _INCOMPLETE]:
        if os.path.exists(file):
            os.remove(file)


def remove_leftovers(directory: str) -> None:
    """Completes what an interrupted `save` or `remove` left, for the folder's owner.

    Files of checkpoints that were not committed are deleted, and nothing that was not
    written by this module; the file `checkpoint` names the newest one that was.
    """
    remove_unfinished(directory)
    for file in os.listdir(directory):
        if _LEFTOVER.match(file):
            os.remove(os.path.join(directory, file))
    pattern = os.path.join(glob.escape(directory), "model.ckpt-*")
    for marker in glob.glob(f"{pattern}{_INCOMPLETE}"):
        prefix = marker.removesuffix(_INCOMPLETE)
        if not os.path.exists(f"{prefix}.json"):
            for file in filter(os.path.exists, _tensor_files(prefix)):
                os.remove(file)
        os.remove(marker)
    if steps := committed_steps(directory):
        _name_newest(directory, steps[-1])


def foreign_checkpoints(directory: str) -> list[str]:
    """Names of checkpoints without a manifest: those of another program."""
    files = os.listdir(directory) if os.path.isdir(directory) else []
    names = [f.removesuffix(".index") for f in files if _INDEX.match(f)]
    prefixes = {name: os.path.join(directory, name) for name in names}
    return sorted(
        name
        for name, prefix in prefixes.items()
        if not os.path.exists(f"{prefix}.json")
        and not os.path.exists(prefix + _INCOMPLETE)
    )
