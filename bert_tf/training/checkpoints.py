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
from bert_tf.tf_checkpoint import load_tf, write_tensors

FORMAT_VERSION = 1
STEP_NAME = "global_step"
_INCOMPLETE = ".incomplete"
_STATE_KEYS = ("model_checkpoint_path", "all_model_checkpoint_paths")
_INDEX = re.compile(r"^model\.ckpt-\d+\.index$")
_MANIFEST = re.compile(r"^model\.ckpt-(\d+)\.json$")
# Temporary files of `save`: tensor files before they are renamed, by us or TensorFlow;
# and manifests and the file `checkpoint` of earlier versions of this program.
_LEFTOVER = re.compile(
    r"model\.ckpt-\d+(\.tmp\..*|\.json[a-z0-9_]{8}\.tmp)$|checkpoint[a-z0-9_]{8}\.tmp$"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPosition:
    """The position of a run, which a manifest keeps next to the tensors.

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
      is_packed: Whether its records are packed; None if it has none, or in manifests
        of earlier versions.
      config: The settings of the run.
      fingerprint: What a resumed run must have too, see `jobs.run.fingerprint`; None in
        manifests of earlier versions.
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
    fingerprint: dict[str, Any] | None = None


def _tensor_files(prefix: str) -> list[str]:
    return sorted(glob.glob(f"{glob.escape(prefix)}.data-*")) + [f"{prefix}.index"]


def save(
    directory: str, tensors: Mapping[str, tf.Tensor], position: RunPosition
) -> str:
    """Writes and commits one checkpoint.

    The tensor files are written under temporary names and renamed. Then the manifest is
    written atomically: it commits the checkpoint. Last comes the file `checkpoint`,
    which other tools read.

    Args:
      directory: Where; exists.
      tensors: Name -> value; `global_step` is added.
      position: That of the run.

    Returns:
      The checkpoint's prefix, directory/model.ckpt-<step>.

    Raises:
      RunError: if it cannot be written; older checkpoints are not changed.
    """
    prefix = os.path.join(directory, f"model.ckpt-{position.step}")
    try:
        _write(directory, prefix, tensors, position)
    except (OSError, tf.errors.OpError) as error:
        # The disk may be full: unfinished files must not stay.
        with contextlib.suppress(OSError):
            remove_leftovers(directory)
        raise RunError(
            f"The checkpoint {prefix} cannot be written: {error}. Older checkpoints "
            "are not changed. Make room and run the same command again: it resumes "
            "from the newest."
        ) from error
    return prefix


def _write(
    directory: str,
    prefix: str,
    tensors: Mapping[str, tf.Tensor],
    position: RunPosition,
) -> None:
    """Writes, renames and commits; see `save`."""
    named = dict(tensors) | {STEP_NAME: tf.constant(position.step, tf.int64)}
    temporary = f"{prefix}.tmp"
    write_tensors(temporary, named)
    marker = prefix + _INCOMPLETE
    with open(marker, "w"):
        pass  # Marks the files for `remove_leftovers`, should this be interrupted.
    if os.path.exists(f"{prefix}.json"):
        os.remove(f"{prefix}.json")  # Of a run that is overwritten.
    for file in _tensor_files(temporary):
        with open(file, "rb") as written:
            os.fsync(written.fileno())
        os.replace(file, prefix + file.removeprefix(temporary))
    sync_folder(directory)  # Before the manifest names them.
    files = {os.path.basename(f): file_sha256(f) for f in _tensor_files(prefix)}
    manifest = {"format": FORMAT_VERSION, **dataclasses.asdict(position)}
    manifest["files"] = files
    write_whole(f"{prefix}.json", json.dumps(manifest, indent=2) + "\n")
    os.remove(marker)
    _name_newest(directory, position.step)


def _name_newest(directory: str, step: int) -> None:
    """Writes the file `checkpoint`, which other tools read, if it must change."""
    text = "".join(f'{key}: "model.ckpt-{step}"\n' for key in _STATE_KEYS)
    path = os.path.join(directory, "checkpoint")
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read() == text.encode():
            return
    write_whole(path, text)


def committed_steps(directory: str) -> list[int]:
    """Steps of the checkpoints with a manifest, in rising order."""
    if not os.path.isdir(directory):
        return []
    matches = map(_MANIFEST.match, os.listdir(directory))
    return sorted(int(match[1]) for match in matches if match)


def read_manifest(prefix: str) -> RunPosition | None:
    """Reads a manifest, and compares the checksums of its files.

    Args:
      prefix: The checkpoint, without .index.

    Returns:
      The position, or None if there is no manifest (a checkpoint of another program).

    Raises:
      RunError: if the manifest cannot be read, or a checksum differs.
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
                f"{file} must have sha256 {expected} (see {path}). Received: "
                f"{found}. Restore the file, or remove {prefix}.* to use an older "
                "checkpoint."
            )
    return position


def step_of(prefix: str) -> int:
    """The step of a checkpoint, 0 if it does not have one.

    Raises:
      FileNotFoundError, ValueError: see `load_tf`.
    """
    found = load_tf(prefix, lambda shapes: {STEP_NAME} & shapes.keys())
    return int(found.get(STEP_NAME, 0))


def remove(directory: str, step: int) -> None:
    """Deletes a checkpoint; if interrupted, `remove_leftovers` deletes the rest."""
    prefix = os.path.join(directory, f"model.ckpt-{step}")
    with open(prefix + _INCOMPLETE, "w"):
        pass
    for file in [f"{prefix}.json", *_tensor_files(prefix), prefix + _INCOMPLETE]:
        if os.path.exists(file):
            os.remove(file)


def remove_leftovers(directory: str) -> None:
    """Cleans up after an interrupted `save` or `remove`; for the folder's owner alone.

    Files of checkpoints that were not committed are deleted, and no file that this
    module did not write. The file `checkpoint` then names the newest committed one.
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
    """Names of checkpoints without a manifest, which another program wrote."""
    files = os.listdir(directory) if os.path.isdir(directory) else []
    names = [f.removesuffix(".index") for f in files if _INDEX.match(f)]
    prefixes = {name: os.path.join(directory, name) for name in names}
    return sorted(
        name
        for name, prefix in prefixes.items()
        if not os.path.exists(f"{prefix}.json")
        and not os.path.exists(prefix + _INCOMPLETE)
    )
