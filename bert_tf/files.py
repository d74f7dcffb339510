"""Files that are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file for writing that gets its name when all of it is on the disk.

    Args:
      path: Its name; a file of that name is replaced.

    Yields:
      The file. If what is done with it fails, nothing is left of it.
    """
    temporary = f"{os.fspath(path)}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text, UTF-8, as a `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())
