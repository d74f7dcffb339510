"""A folder that appears under its name only when everything in it is complete."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Names of the files that a folder of each kind holds, and that may be replaced.
RECORDS = re.compile(r"part-\d+-of-\d+\.tfrecord")
TEXTS = re.compile(r"part-\d+\.txt")


def check_output_dir(
    name: str, folder: str, kind: re.Pattern[str], overwrite: bool
) -> None:
    """Refuses a folder that output must not go to.

    Args:
      name: The setting, for messages.
      folder: Its value; need not exist.
      kind: `RECORDS` or `TEXTS`.
      overwrite: Whether files of that kind in it may be replaced.

    Raises:
      FileExistsError: if it holds such files and `overwrite` is false, or it holds
        anything else, or is a file.
    """
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise FileExistsError(
            f"`{name}` must be a folder. Received: {name}={folder}, a file."
        )
    names = sorted(os.listdir(folder))
    others = [entry for entry in names if not kind.fullmatch(entry)]
    if others:
        raise FileExistsError(
            f"`{name}` must be new, empty or hold earlier output only. Received: "
            f"{name}={folder}, which holds {others[0]}. Choose another folder."
        )
    if names and not overwrite:
        raise FileExistsError(
            f"`{name}` must not hold earlier output. Received: {name}={folder}, which "
            f"holds {names[0]}. Choose another folder, or say --overwrite."
        )


@contextlib.contextmanager
def temporary_output_dir(output_dir: str) -> Iterator[Path]:
    """A folder beside `output_dir`, which is removed at the end if it is still there.

    Yields:
      The new, empty folder.
    """
    target = Path(os.path.abspath(output_dir))
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, output_dir: str, kind: re.Pattern[str]) -> None:
    """Gives a complete folder its name; earlier output that had it is removed.

    Args:
      folder: Beside `output_dir`.
      output_dir: The name; nothing, or a folder that `check_output_dir` passed.
      kind: `RECORDS` or `TEXTS`.

    Raises:
      OSError: if files of another kind have come into `output_dir`.
    """
    target = os.path.abspath(output_dir)
    if os.path.isdir(target):
        for name in os.listdir(target):
            if kind.fullmatch(name):
                os.unlink(os.path.join(target, name))
    os.replace(folder, target)
