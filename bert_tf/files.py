"""Atomic writes, and files and folders that one process has at a time.

Whatever is being written has a temporary name, `.<name>.<8 characters>.tmp`, and its
writer holds a lock on it. What a killed writer has left is therefore known by its name
and by the lock that nobody holds, and the next writer of the same name removes it.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from bert_tf.errors import RunError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp")
# Where a file system has no locks, only age tells a leftover from a file in use.
_OLD_SECONDS = 24 * 60 * 60
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file for writing that gets its name when all of it is on the disk.

    Several processes may write the same file at once: each writes one of its own, and
    the last to end gives it the name. What killed writers of it have left is removed.

    Args:
      path: Its name, in a folder that exists; a file of that name is replaced.

    Yields:
      The file. If what is done with it fails, nothing is left of it.
    """
    folder, name = os.path.split(os.path.abspath(path))
    remove_unfinished(folder, name)
    descriptor, temporary = _make_temporary(folder, name, tempfile.mkstemp)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o666 & ~_umask())  # As of any new file.
            os.replace(temporary, path)
            sync_folder(folder)
    finally:
        # A signal may come between the two: then the file has its name already.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text, UTF-8, as a `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder beside `path`, which is removed at the end if it is still there.

    What killed processes have left of such folders for the same `path` is removed.

    Args:
      path: The folder to be; the one above it is made.

    Yields:
      The new, empty folder.
    """
    parent, name = os.path.split(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    remove_unfinished(parent, name)

    descriptor, folder = _make_temporary(parent, name, _make_folder)
    try:
        os.chmod(folder, 0o777 & ~_umask())
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _make_folder(prefix: str, suffix: str, dir: str) -> tuple[int, str]:
    """As `tempfile.mkstemp`, of a folder."""
    while True:
        folder = tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=dir)
        with contextlib.suppress(FileNotFoundError):  # Taken for a leftover.
            return os.open(folder, os.O_RDONLY), folder


def _make_temporary(folder, name, make) -> tuple[int, str]:  # noqa: ANN001
    """A new file or folder of a temporary name, locked: its descriptor and path."""
    while True:
        descriptor, path = make(prefix=f".{name}.", suffix=".tmp", dir=folder)
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Before it was locked, another process may have taken it for a leftover.
        if os.path.exists(path):
            return descriptor, path
        os.close(descriptor)


def remove_unfinished(folder: str | os.PathLike[str], name: str = "") -> None:
    """Deletes files and folders that killed processes were writing.

    What another process is writing stays.

    Args:
      folder: Where they are; it need not exist.
      name: What they were to be; empty for any name.
    """
    try:
        entries = os.listdir(folder)
    except OSError:
        return
    for entry in entries:
        found = _TEMPORARY.fullmatch(entry)
        if found and name in ("", found["name"]):
            with contextlib.suppress(OSError):  # Gone, or not ours to delete.
                _remove_if_unused(os.path.join(folder, entry))


def _remove_if_unused(path: str) -> None:
    is_folder = os.path.isdir(path)
    # Some network file systems lock only what is open for writing.
    flags = os.O_RDONLY if is_folder else os.O_RDWR
    descriptor = os.open(path, flags | os.O_NOFOLLOW)
    try:
        if _is_unused(descriptor):
            shutil.rmtree(path) if is_folder else os.unlink(path)
    finally:
        os.close(descriptor)


def _is_unused(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # A file system without locks.
        return time.time() - os.fstat(descriptor).st_mtime > _OLD_SECONDS
    return True


def placeholder(path: str | os.PathLike[str]) -> str:
    """What has come in place of a file's content, in words; empty if nothing has.

    A clone without Git LFS holds pointers, a failed download a page or nothing.
    """
    with open(path, "rb") as file:
        first = file.read(64)
    if first.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, in place of which `git lfs pull` puts the file"
    if first.lstrip().startswith(b"<"):
        return "a page of HTML or XML"
    return "" if first else "empty"


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Checksum of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object; empty if there is no such file.

    Raises:
      ValueError: if it is not JSON, or not an object; the message names the file.
    """
    try:
        # Editors of Windows write a byte order mark.
        with open(path, encoding="utf-8-sig") as file:
            values = json.load(file)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        reason = f"it is {found}" if (found := placeholder(path)) else error
        raise ValueError(
            f"{path} is not JSON: {reason}. Restore the file, or delete it."
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} must hold a JSON object. Received: {type(values).__name__}. "
            "Restore the file, or delete it."
        )
    return values


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Puts a folder's names on the disk: what was renamed in it stays so.

    Raises:
      OSError: if the disk fails. A file system that cannot do it is passed over.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


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
