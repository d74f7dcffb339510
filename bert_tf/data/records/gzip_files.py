"""TFRecord files that are compressed as a whole with gzip: unpacked once, into a cache.

Records are read at random, by their offset, which a compressed file does not allow.
"""

import contextlib
import fcntl
import gzip
import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

from bert_tf.errors import CorruptRecordError, counted
from bert_tf.files import masked_crc32c, whole_file
from bert_tf.launch import report

# A record is: length (8 bytes), masked crc of the length (4), data, masked crc (4).
HEADER = struct.Struct("<QI")
FRAME_BYTES = HEADER.size + 4
_GZIP = b"\x1f\x8b\x08"
_BYTES_AT_ONCE = 1 << 22
# What must stay free on the disk of the cache.
_RESERVE_BYTES = 256 << 20
# gzip makes no file smaller by a greater factor.
_MOST_COMPRESSED = 1032
# TensorFlow cannot parse a longer record.
_MAX_RECORD_BYTES = (1 << 31) - 1


def read_length(header: bytes) -> int | None:
    """The length in the header of a record; None if its checksum is wrong."""
    length, crc = HEADER.unpack(header)
    return length if masked_crc32c(header[:8]) == crc else None


def is_gzip(path: str) -> bool:
    """Whether a record file is compressed, by its first bytes."""
    with open(path, "rb") as file:
        header = file.read(HEADER.size)
    # The length of a first record may be these bytes too.
    return header.startswith(_GZIP) and not (
        len(header) == HEADER.size and read_length(header) is not None
    )


def file_state(path: str) -> str:
    """A text that changes with the content of a file.

    A copy may have the size and the time of the file that it replaces, but it has
    another inode or another change time.
    """
    status = os.stat(path)
    return f"{earlier_file_state(path)}|{status.st_ctime_ns}|{status.st_ino}"


def earlier_file_state(path: str) -> str:
    """The same as earlier versions wrote it: without inode and change time."""
    status = os.stat(path)
    return f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"


def unpack_files(files: Iterable[str], cache_dir: str) -> list[str]:
    """Unpacks the compressed ones of some record files.

    Args:
      files: TFRecord files.
      cache_dir: Folder for unpacked files, which later calls find there; made if it is
        missing.

    Returns:
      For each, the file that holds its records.

    Raises:
      CorruptRecordError: if a file is damaged, or holds anything but records.
      OSError: if the disk has no room.
    """
    found, made = [], []
    for path in files:
        if is_gzip(path):
            os.makedirs(cache_dir, exist_ok=True)
            name = hashlib.sha256(file_state(path).encode()).hexdigest() + ".unpacked"
            target = os.path.join(cache_dir, name)
            if _unpack_once(path, target):
                made.append(target)
            path = target
        found.append(path)
    if made:
        size = sum(map(os.path.getsize, made))
        report(
            f"Unpacked {counted(len(made), 'compressed record file')} to {size:,} "
            f"bytes in {cache_dir}."
        )
    return found


def _unpack_once(path: str, target: str) -> bool:
    """Unpacks a file unless that is done; other processes wait. Whether it did."""
    if os.path.exists(target):
        return False
    with open(path, "rb") as source:
        with contextlib.suppress(OSError):  # A file system without locks.
            fcntl.flock(source, fcntl.LOCK_EX)
        if os.path.exists(target):
            return False
        _check_room(path, target, _stated_size(source))
        try:
            with whole_file(target) as file:
                _copy(path, source, target, file)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorruptRecordError(
                f"{path}: this gzip file is cut or damaged ({error}). Make or copy the "
                "file again."
            ) from None
    return True


def _copy(path: str, source: BinaryIO, target: str, file: BinaryIO) -> None:
    """Unpacks records, and stops at the first that is none."""
    begin = size = 0  # Offset of the next record; bytes unpacked so far.
    rest = b""  # Unpacked bytes from `begin` on, less than a header.
    with gzip.GzipFile(fileobj=source, mode="rb") as unpacked:
        while block := unpacked.read(_BYTES_AT_ONCE):
            _check_room(path, target, len(block))
            data, start = rest + block, size - len(rest)
            size += len(block)
            while begin + HEADER.size <= size:
                header = data[begin - start : begin - start + HEADER.size]
                length = read_length(header)
                if length is None or length > _MAX_RECORD_BYTES:
                    raise CorruptRecordError(
                        f"{path}: unpacked, byte offset {begin}: this is not a "
                        "TFRecord, or its length field is damaged. Make the file "
                        "again, or move it out of the folder if it never held records."
                    )
                begin += FRAME_BYTES + length
            rest = data[begin - start :] if begin < size else b""
            file.write(block)


def _stated_size(source: BinaryIO) -> int:
    """The unpacked size that the end of a file states, modulo 2**32; 0 if it cannot be.

    It is wrong in a file that is cut.
    """
    packed = source.seek(0, os.SEEK_END)
    source.seek(max(0, packed - 4))
    size = int.from_bytes(source.read(), "little")
    source.seek(0)
    return size if size <= packed * _MOST_COMPRESSED else 0


def _check_room(path: str, target: str, size: int) -> None:
    folder = os.path.dirname(target)
    free = shutil.disk_usage(folder).free
    if free < size + _RESERVE_BYTES:
        raise OSError(
            f"{path} cannot be unpacked: {folder} has {free:,} bytes free, and needs "
            f"{size:,} and {_RESERVE_BYTES:,} in reserve. Free some, or pass an "
            "--output_dir on another disk."
        )
