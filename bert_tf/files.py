"""Atomic writes, temporary folders, file locks and checksums.

Unfinished output has a temporary name, `.<name>.<8 hexadecimal digits>.bert_tf.tmp`,
which no other program uses, and its writer holds a lock on it. A temporary name that
nobody has locked was therefore left by a killed writer, and the next writer of the same
name deletes it.
"""

import codecs
import contextlib
import errno
import fcntl
import functools
import gzip
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from bert_tf.errors import RunError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.bert_tf\.tmp", re.DOTALL)
# On a file system without locks, only its age shows that a temporary file is unused.
_OLD_SECONDS = 24 * 60 * 60
# Names to try: one may be taken, or be deleted by another process as a leftover.
_MAX_ATTEMPTS = 100
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names a file in the errors of a full disk, which come without a path."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Writes a file atomically: a temporary file, synced to disk, then renamed.

    Several processes may write the same path at once: each has its own temporary file,
    and the last rename wins. Temporary files of killed writers are deleted.

    Args:
      path: The file to write, in an existing folder; an existing file is replaced.

    Yields:
      The temporary file. On an exception it is deleted, and `path` stays as it was.
    """
    folder, name = os.path.split(os.path.abspath(path))
    remove_unfinished(folder, name)
    descriptor, temporary = _make_temporary(folder, name, _make_file)
    try:
        with written(path), open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
            os.replace(temporary, path)
            sync_folder(folder)
    finally:
        # After the rename, even if a signal follows it, there is nothing to delete.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8, atomically; see `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def save_array(file: BinaryIO, array: np.ndarray) -> None:
    """Writes an array as .npy to an open file.

    `np.save` would write to the file's descriptor, and report a full disk by the number
    of bytes alone.
    """
    np.save(types.SimpleNamespace(write=file.write), array)


@contextlib.contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Makes a temporary folder next to `path`, deleted at the end unless renamed.

    Temporary folders of killed processes for the same `path` are deleted.

    Args:
      path: The future folder; its parent is created.

    Yields:
      The new, empty folder, to be filled and then renamed to `path`.
    """
    parent, name = os.path.split(os.path.abspath(path))
    os.makedirs(parent, exist_ok=True)
    remove_unfinished(parent, name)

    descriptor, folder = _make_temporary(parent, name, _make_folder)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make_file(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _make_folder(path: str) -> int:
    os.mkdir(path)
    return os.open(path, os.O_RDONLY)


def _make_temporary(
    folder: str, name: str, make: Callable[[str], int]
) -> tuple[int, str]:
    """Makes a locked file or folder with a temporary name: its descriptor and path."""
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        suffix = f"{secrets.token_hex(4)}.bert_tf.tmp"
        path = os.path.join(folder, f".{name}.{suffix}")
        try:
            descriptor = make(path)
        except (FileExistsError, FileNotFoundError):
            # Where no file can be made, as in /proc, no other name helps.
            if not attempts_left or not os.path.isdir(folder):
                raise
            continue
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Before the lock, another process may have deleted it as a leftover.
        if os.path.exists(path):
            return descriptor, path
        os.close(descriptor)
    raise FileNotFoundError(
        errno.ENOENT, "Another process deletes temporary files", folder
    )


def remove_unfinished(folder: str | os.PathLike[str], name: str = "") -> None:
    """Deletes the temporary files and folders that killed processes left behind.

    Those of running processes are locked, and stay.

    Args:
      folder: Where to look; it need not exist.
      name: The final name that they were written for; empty for any name.
    """
    try:
        entries = os.listdir(folder)
    except OSError:
        return
    for entry in entries:
        found = _TEMPORARY.fullmatch(entry)
        if found and name in ("", found["name"]):
            with contextlib.suppress(OSError):  # Gone, or owned by another user.
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


def is_gzip_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file is compressed by gzip, by its name."""
    return str(path).lower().endswith(".gz")


def without_gz(path: str) -> str:
    """A path without the ending of gzip."""
    return path[:-3] if is_gzip_name(path) else path


def extension(path: str) -> str:
    """The extension in lower case, without that of gzip: .csv of A.CSV.gz."""
    return os.path.splitext(without_gz(path))[1].lower()


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file for reading bytes; the content of a .gz is unpacked as it is read.

    Raises:
      OSError: if it cannot be opened.
      ValueError: if a .gz is damaged or cut; the message names it.
    """
    if not is_gzip_name(path):
        with open(path, "rb") as file:
            yield file
        return
    try:
        with gzip.open(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} is not a whole gzip file: {error}. Fetch it again."
        ) from None


def content_size(path: str | os.PathLike[str]) -> int:
    """Bytes of a file, of a .gz those of its content, which is read once for that."""
    status = os.stat(path)
    if not is_gzip_name(path):
        return status.st_size
    return _unpacked_size(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _unpacked_size(path: str | os.PathLike[str], *version: int) -> int:
    del version  # Another one is another file.
    with opened(path) as file:
        return file.seek(0, os.SEEK_END)


def placeholder(path: str | os.PathLike[str]) -> str:
    """Names what a file holds instead of its content; empty if none is recognised.

    A clone without Git LFS holds pointers; a failed download a web page or nothing.
    """
    with open(path, "rb") as file:
        first = file.read(64)
    if first.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, which `git lfs pull` replaces by the file"
    if first.lstrip().startswith(b"<") and _is_text(first):
        return "a page of HTML or XML"
    return "" if first else "empty"


def _is_text(first: bytes) -> bool:
    """Whether a file begins like text: weights may have any first byte."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(first)
    except UnicodeDecodeError:
        return False
    return "".join(text.split()).isprintable()


def check_regular(path: str | os.PathLike[str], max_bytes: int | None = None) -> None:
    """Refuses what cannot be read as a whole: a folder, a pipe, a device, a huge file.

    Args:
      path: The file.
      max_bytes: Its largest size; None for any.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: in the other cases; the message names the file.
    """
    try:
        status = os.stat(path)
    except NotADirectoryError as error:
        raise FileNotFoundError(str(error)) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} must be a file, and cannot be read: {error.strerror}. Pass "
            "another path."
        ) from None
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise ValueError(
            f"{path} must be a file, and is {found}. Pass another path, or write its "
            "content to a file first."
        )
    if max_bytes is not None and status.st_size > max_bytes:
        raise ValueError(
            f"{path} must have at most {max_bytes:,} bytes. Received: "
            f"{status.st_size:,} bytes. Pass another file."
        )


def file_checksum(path: str | os.PathLike[str], algorithm: str) -> str:
    """Checksum of a file: md5, sha1 or sha256 in lower-case hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    return file_checksum(path, "sha256")


def masked_crc32c(data: bytes | np.ndarray) -> int:
    """The checksum that TensorFlow stores in record files and checkpoints.

    Source: `tensorflow/core/lib/hash/crc32c.h`: rotated and offset, since the checksum
    of data that holds its own checksum proves little.
    """
    return mask_crc32c(google_crc32c.value(data))


def mask_crc32c(crc: int) -> int:
    """The masked form of a checksum; see `masked_crc32c`."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    """A number of protocol buffers and of TensorFlow's tables.

    In base 128, low digits first; all but the last have the high bit.
    """
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def missing_folders(path: str | os.PathLike[str]) -> list[str]:
    """A folder and those above it that do not exist, the innermost first."""
    missing, path = [], os.path.abspath(path)
    while not os.path.exists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Syncs a folder to disk, so that renames in it survive a crash.

    Raises:
      OSError: if the disk fails. File systems that cannot sync folders are ignored.
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
    """Locks an open file or folder for this process until it is closed.

    A kill of the process releases the lock too. On a file system without locks,
    nothing is locked.

    Args:
      file: A descriptor, or a file.
      activity: What holders of this lock do, for the error message.

    Raises:
      RunError: if another process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(
            f"Another process is {activity}. Wait for it, or end it."
        ) from None
    except OSError:
        pass  # A file system without locks.
