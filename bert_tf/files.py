"""Files that are whole or not there, and folders that belong to one process."""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO


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


@contextlib.contextmanager
def locked_folder(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps a folder from other processes that ask for it like this, to the end.

    The system unlocks it too if this process is killed. Where the file system has no
    locks, nothing is kept.

    Args:
      path: The folder.

    Raises:
      BlockingIOError: if another process has it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        try:
            yield
        finally:
            # Not only closed: a child process may have a copy of it.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
