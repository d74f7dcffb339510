"""Weights, optimizer state and position of a run, in files that name every tensor.

A checkpoint is `model.ckpt-N.index`, its data file and the manifest
`model.ckpt-N.json`. All three are written into a temporary folder, whose new name,
`.model.ckpt-N.bert_tf.committed`, commits the checkpoint; then they are moved to where
other tools look for them, with the files of the model that it is used with: whatever
kills the writer, a checkpoint never stands beside those of another run. The manifest
of a checkpoint that is removed is first renamed to `.model.ckpt-N.bert_tf.removed`. So
`remove_leftovers` completes either after a kill.
"""

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from bert_tf.errors import RunError
from bert_tf.files import (
    remove_unfinished,
    sync_folder,
    temporary_folder,
    whole_file,
    write_whole,
)
from bert_tf.tf_checkpoint import DATA, INDEX
from bert_tf.tf_checkpoint_writer import write_tensors
from bert_tf.training.manifest import (
    STEP_NAME,
    TENSOR_FILE,
    RunPosition,
    manifest_text,
    read_manifest,
    step_of,
    verify,
)

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["STEP_NAME", "RunPosition", "read_manifest", "step_of", "verify"]
STATE_FILE = "checkpoint"
ASIDE = "damaged-"
_STATE_KEYS = ("model_checkpoint_path", "all_model_checkpoint_paths")
_STEP = r"model\.ckpt-(0|[1-9][0-9]*)"
_FILE = re.compile(rf"{_STEP}\.(json|{TENSOR_FILE})")
_COMMITTED = re.compile(rf"\.{_STEP}\.bert_tf\.committed")
_REMOVED = re.compile(rf"\.{_STEP}\.bert_tf\.removed")
# In the folder of a commit: what is deleted first, steps and names, and the folder of
# files that are then moved next to the checkpoint. No other names are taken from them.
_REPLACES = "replaces"
_BESIDE = "beside"
_BESIDE_NAME = re.compile(r"(best/)?[a-z_]+\.(json|txt)")
# From earlier versions: a mark on what is not complete, and tensor files before they
# were renamed, by the program or by TensorFlow.
_INCOMPLETE = re.compile(rf"{_STEP}\.incomplete")
_OLD_TEMPORARY = re.compile(rf"{_STEP}\.tmp\.{TENSOR_FILE}(\.tempstate[0-9]+)?")

Tensors = Mapping[str, "np.ndarray | tf.Tensor | tf.Variable"]


def save(
    directory: str,
    tensors: Tensors,
    position: RunPosition,
    *,
    replaces: Collection[int] = (),
    beside: Mapping[str, bytes | None] | None = None,
) -> str:
    """Writes and commits one checkpoint; see the module.

    Args:
      directory: Where; exists.
      tensors: Name -> value; `global_step` is added.
      position: That of the run.
      replaces: Steps of checkpoints that are deleted when this one is committed: both
        happen, or neither.
      beside: Files in the same folder that change with it: name -> content; None for a
        file that is deleted.

    Returns:
      The checkpoint's prefix, directory/model.ckpt-<step>.

    Raises:
      RunError: if it cannot be written; older checkpoints are not changed.
    """
    prefix = _prefix(directory, position.step)
    with _reported(prefix):
        _publish_all(directory)  # What an error has interrupted.
        with temporary_folder(prefix) as folder:
            _write(str(folder), tensors, position)
            _write_changes(str(folder), replaces, beside or {})
            committed = _hidden(directory, position.step, "committed")
            os.rename(folder, committed)
        sync_folder(directory)
        _publish(directory, position.step)
    return prefix


def try_save(directory: str, tensors: Tensors, position: RunPosition) -> None:
    """Writes a checkpoint and deletes it: a disk that is full is found early.

    Raises:
      RunError: if it cannot be written.
    """
    prefix = _prefix(directory, position.step)
    with _reported(prefix), temporary_folder(prefix) as folder:
        _write(str(folder), tensors, position)


@contextlib.contextmanager
def _reported(prefix: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"The checkpoint {prefix} cannot be written: {error}. Older checkpoints "
            "are not changed. Make room, or correct what is wrong with the folder, and "
            "run the same command again: it resumes from the newest checkpoint, unless "
            "--overwrite_output_dir is passed."
        ) from error


def _prefix(directory: str, step: int) -> str:
    return os.path.join(directory, f"model.ckpt-{step}")


def _hidden(directory: str, step: int, state: str) -> str:
    return os.path.join(directory, f".model.ckpt-{step}.bert_tf.{state}")


def _write(folder: str, tensors: Tensors, position: RunPosition) -> None:
    """Writes a checkpoint's files into a folder, and syncs them to disk."""
    named = dict(tensors) | {STEP_NAME: np.array(position.step, np.int64)}
    prefix = _prefix(folder, position.step)
    files = write_tensors(prefix, named)
    write_whole(f"{prefix}.json", manifest_text(position, files))


def _write_changes(
    folder: str, replaces: Collection[int], beside: Mapping[str, bytes | None]
) -> None:
    """Writes what else the commit of a checkpoint changes."""
    deleted = [name for name, content in beside.items() if content is None]
    if replaces or deleted:
        lines = map(str, [*replaces, *deleted])
        write_whole(os.path.join(folder, _REPLACES), "\n".join(lines))
    for name, content in beside.items():
        if content is not None:
            os.makedirs(os.path.join(folder, _BESIDE), exist_ok=True)
            with whole_file(os.path.join(folder, _BESIDE, name)) as file:
                file.write(content)


def _publish(directory: str, step: int) -> None:
    """Moves the files of a committed checkpoint to their place, the manifest last.

    What it replaces is removed before. All of it may be done again.
    """
    folder = _hidden(directory, step, "committed")
    replaces, beside = (os.path.join(folder, x) for x in (_REPLACES, _BESIDE))
    if os.path.exists(replaces):
        with open(replaces, encoding="utf-8") as file:
            for each in file.read().split():
                if each.isdecimal() and int(each) != step:
                    remove(directory, int(each))
                elif _BESIDE_NAME.fullmatch(each):
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(os.path.join(directory, each))
        os.remove(replaces)
    if os.path.isdir(beside):
        for name in filter(_BESIDE_NAME.fullmatch, os.listdir(beside)):
            os.replace(os.path.join(beside, name), os.path.join(directory, name))
        os.rmdir(beside)
    names = [name for name in os.listdir(folder) if _FILE.fullmatch(name)]
    for name in sorted(names, key=lambda name: (name.endswith(".json"), name)):
        os.replace(os.path.join(folder, name), os.path.join(directory, name))
    sync_folder(directory)
    os.rmdir(folder)
    _name_newest(directory, step)


def _publish_all(directory: str) -> None:
    for name in os.listdir(directory):
        found = _COMMITTED.fullmatch(name)
        if found and os.path.isdir(os.path.join(directory, name)):
            _publish(directory, int(found[1]))


def _name_newest(directory: str, step: int) -> None:
    """Writes the file `checkpoint`, which other tools read, if it must change."""
    text = "".join(f'{key}: "model.ckpt-{step}"\n' for key in _STATE_KEYS)
    path = os.path.join(directory, STATE_FILE)
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OSError(f"{path} must be a file; move it elsewhere")
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read() == text.encode():
            return
    write_whole(path, text)


def checkpoint_files(directory: str) -> dict[int, list[str]]:
    """Names of the files of each step's checkpoint, complete or not, by step.

    Checkpoints that are being published or removed are left out.
    """
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found: dict[int, list[str]] = {}
    for name in sorted(names):
        if match := _FILE.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    for pattern in (_COMMITTED, _REMOVED, _INCOMPLETE):
        for match in filter(None, map(pattern.fullmatch, names)):
            step = int(match[1])
            is_whole = f"model.ckpt-{step}.json" in found.get(step, ())
            if pattern is _COMMITTED or not is_whole:
                found.pop(step, None)
    return found


def has_unpublished(directory: str) -> bool:
    """Whether a `save` was interrupted before all files were in their place."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return any(map(_COMMITTED.fullmatch, names))


def committed_steps(directory: str) -> list[int]:
    """Steps of the checkpoints of which all files are there, in rising order."""
    return sorted(
        step
        for step, names in checkpoint_files(directory).items()
        if {f"model.ckpt-{step}{each}" for each in (".json", INDEX, DATA)} == {*names}
        and all(os.path.isfile(os.path.join(directory, name)) for name in names)
    )


def remove(directory: str, step: int) -> None:
    """Deletes a checkpoint; if interrupted, `remove_leftovers` deletes the rest.

    Raises:
      OSError: if that fails.
    """
    marker = _hidden(directory, step, "removed")
    try:
        os.replace(f"{_prefix(directory, step)}.json", marker)
    except FileNotFoundError:
        return
    _complete_removal(directory, step)


def _complete_removal(directory: str, step: int) -> None:
    if not os.path.lexists(f"{_prefix(directory, step)}.json"):
        for found in filter(None, map(_FILE.fullmatch, os.listdir(directory))):
            if int(found[1]) == step:
                os.remove(os.path.join(directory, found[0]))
    os.remove(_hidden(directory, step, "removed"))


def remove_leftovers(directory: str) -> None:
    """Completes an interrupted `save` or `remove`; for the folder's owner alone.

    Files of checkpoints that were not committed are deleted, and no file that this
    program did not write. The file `checkpoint` then names the newest committed one.
    """
    remove_unfinished(directory)
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if not os.path.isfile(path) or os.path.islink(path):
            continue
        if found := _REMOVED.fullmatch(name):
            _complete_removal(directory, int(found[1]))
        elif _OLD_TEMPORARY.fullmatch(name):
            os.remove(path)
        elif (found := _INCOMPLETE.fullmatch(name)) and not os.path.getsize(path):
            os.rename(path, _hidden(directory, int(found[1]), "removed"))
            _complete_removal(directory, int(found[1]))
    _publish_all(directory)
    if steps := committed_steps(directory):
        _name_newest(directory, steps[-1])


def set_aside(directory: str, names: Collection[str]) -> str:
    """Moves files, or folders in their place, into a new folder, and returns its path.

    Its name is damaged-<what the names have in common>, with a number if that exists.
    """
    title = os.path.commonprefix(list(names)).partition(".index")[0].rstrip(".")
    number, folder = 1, os.path.join(directory, f"{ASIDE}{title}")
    while os.path.lexists(folder):
        number += 1
        folder = os.path.join(directory, f"{ASIDE}{title}-{number}")
    os.mkdir(folder)
    for name in names:
        os.rename(os.path.join(directory, name), os.path.join(folder, name))
    sync_folder(directory)
    return folder


def foreign_checkpoints(directory: str) -> list[str]:
    """Names of checkpoints without a manifest, which another program wrote."""
    found = checkpoint_files(directory).items()
    return [
        f"model.ckpt-{step}"
        for step, names in sorted(found)
        if f"model.ckpt-{step}.index" in names
        and f"model.ckpt-{step}.json" not in names
    ]
