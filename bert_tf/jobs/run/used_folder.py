"""What a used output_dir holds: checkpoints, whole or damaged, and their traces."""

import json
import os
from typing import NamedTuple

from bert_tf.config.run import RunFilesConfig
from bert_tf.errors import RunError
from bert_tf.report.log_curves import FIRST_STEP, SAVE_SECONDS
from bert_tf.report.run_files import LOG_FILE
from bert_tf.training import checkpoints
from bert_tf.training.manifest import RunPosition


class Newest(NamedTuple):
    """The newest checkpoint of a folder that is whole.

    Attributes:
      step: Its step; None if there is none.
      position: The content of its manifest.
      damaged: Step -> what is wrong, of each newer checkpoint; the newest first.
    """

    step: int | None
    position: RunPosition | None
    damaged: dict[int, str]

    def describe(self) -> str:
        """What is wrong with the damaged ones."""
        return "; ".join(f"model.ckpt-{s}: {why}" for s, why in self.damaged.items())


def log_file(files: RunFilesConfig) -> str:
    """Where the log of a run is."""
    return files.dllog_path or os.path.join(files.output_dir, LOG_FILE)


def find_newest(directory: str, *, hashes: bool = True) -> Newest:
    """Checks the checkpoints of a folder, the newest first, until one is whole.

    A training may save and delete checkpoints meanwhile.

    Args:
      directory: The folder.
      hashes: Whether to compare the sha256 of tensor files, too.
    """
    damaged: dict[int, str] = {}
    while left := checkpoints.checkpoint_files(directory).keys() - damaged.keys():
        step = max(left)
        try:
            prefix = os.path.join(directory, f"model.ckpt-{step}")
            position = checkpoints.verify(prefix, hashes=hashes)
        except ValueError as error:
            damaged[step] = str(error)
            continue
        return Newest(step, position, _still_there(directory, damaged))
    return Newest(None, None, _still_there(directory, damaged))


def _still_there(directory: str, damaged: dict[int, str]) -> dict[int, str]:
    """Without those that a training has deleted meanwhile."""
    found = checkpoints.checkpoint_files(directory)
    return {step: why for step, why in damaged.items() if step in found}


def set_aside_state(directory: str) -> list[str]:
    """Moves away what has the name of the file `checkpoint` and is no file.

    Returns:
      Lines for the log.
    """
    path = os.path.join(directory, checkpoints.STATE_FILE)
    if os.path.isfile(path) or not os.path.lexists(path):
        return []
    moved = checkpoints.set_aside(directory, [checkpoints.STATE_FILE])
    return [f"warning: {path} must be a file, and is moved to {moved}."]


def set_aside_damaged(files: RunFilesConfig) -> list[str]:
    """Moves what is damaged out of the way of a training; for the folder's owner alone.

    The run will save these steps again. Nothing is moved where no checkpoint is whole.

    Args:
      files: The settings of a training.

    Returns:
      Lines for the log.
    """
    folder, lines = files.output_dir, []
    found = checkpoints.checkpoint_files(folder)
    if files.overwrite_output_dir:
        whole = checkpoints.committed_steps(folder)
        broken = {step: "it is not whole" for step in found if step not in whole}
        ending = "--overwrite_output_dir replaces whole ones only."
    else:
        newest = find_newest(folder)
        if newest.step is None:
            return lines
        broken = newest.damaged
        ending = f"The run resumes from model.ckpt-{newest.step}."
    for step, reason in broken.items():
        moved = checkpoints.set_aside(folder, found[step])
        prefix = os.path.join(folder, f"model.ckpt-{step}")
        lines.append(
            f"warning: the checkpoint {prefix} is damaged: {reason}. Its files are "
            f"moved to {moved}. {ending}"
        )
    return lines


def check_traces(files: RunFilesConfig) -> list[str]:
    """Refuses a new training where an earlier one has left a checkpoint's traces.

    Args:
      files: The settings of a training, whose folder has no whole checkpoint.

    Returns:
      A line for the log, if an earlier run ended before its first checkpoint.

    Raises:
      RunError: if there was a checkpoint.
    """
    folder = files.output_dir
    names = os.listdir(folder) if os.path.isdir(folder) else []
    own = checkpoints.checkpoint_files(folder).values()
    traces = [name for group in own for name in group]
    traces += [n for n in names if n == checkpoints.STATE_FILE]
    traces += sorted(n for n in names if n.startswith(checkpoints.ASIDE))
    logs = dict.fromkeys([os.path.join(folder, LOG_FILE), log_file(files)])
    has_started = False
    for path in logs:
        if os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
            continue  # It may be of other runs too.
        started, saved = _read_log(path)
        has_started |= started
        if saved is not None:
            traces.append(f"a save of step {saved} in {os.path.basename(path)}")
    if traces:
        raise RunError(refusal(folder, ", ".join(traces)))
    if has_started:
        return [f"The last run in {folder} ended before its first checkpoint."]
    return []


def refusal(folder: str, found: str) -> str:
    """The message about a folder whose checkpoints cannot be used."""
    return (
        f"`output_dir` {folder} must be new, or have a whole checkpoint to resume "
        f"from. Received: a folder that had checkpoints, none of which can be used "
        f"({found}). Restore them, pass another --output_dir, or pass "
        "--overwrite_output_dir to start anew."
    )


def _read_log(path: str) -> tuple[bool, int | None]:
    """Whether a training has started, and the step of the last save."""
    started, saved = False, None
    if not os.path.isfile(path):
        return started, saved
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            started |= f'"{FIRST_STEP}"' in line
            if f'"{SAVE_SECONDS}"' in line:
                try:
                    saved = json.loads(line.partition(" ")[2])["step"]
                except (ValueError, KeyError, TypeError):
                    continue  # The last line of a killed run.
    return started, saved
