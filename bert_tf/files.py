"""Files that are whole or not there, and that one process has at a time."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from bert_tf.errors import RunError


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file for writing that gets its name when all of it is on the disk.

    Several processes may write the same file at once: each writes one of its own, and
    the last to end gives it the name.

    Args:
      path: Its name, in a folder that exists; a file of that name is replaced.

    Yields:
      The file. If what is done with it fails, nothing is left of it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=name, suffix=".tmp", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # As of any new file.
        os.replace(temporary, path)
    finally:
        # A signal may come between the two: then the file has its name already.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text, UTF-8, as a `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def lock(file: int | BinaryIO, activity: str) -> None:
    """Takes an open file or folder for this process alone, until it is closed.

    The system lets go of it too if the process is killed. Where the file system has no
    locks, nothing is taken.

    Args:
      file: A descriptor, or a file.
      activity: What the process is doing, for the message of another.

    Raises:
      RunError: if another process has it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(
            f"Another process is {activity}. Wait for it, or end it."
        ) from None
    except OSError:
        pass  # A file system without locks.
