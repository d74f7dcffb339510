r"""Writes TensorFlow's checkpoint files, byte by byte as TensorFlow does.

TensorFlow's writer takes `[`, `*` and `\` in a path for patterns, chooses the names of
temporary files itself, and raises no OSError where the disk is full. Here paths are
plain, tensors are written one after another without a copy of all, and checksums
are computed on the way. The format is described in `tf_checkpoint`, which reads it.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

import google_crc32c
import numpy as np

from bert_tf.files import (
    mask_crc32c,
    masked_crc32c,
    sync_folder,
    temporary_folder,
    varint,
    written,
)
from bert_tf.tf_checkpoint import DATA, DTYPES, FOOTER, INDEX, MAGIC, MESSAGES, TRAILER

if TYPE_CHECKING:
    import tensorflow as tf

_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
# Large enough for the disk, small enough for other threads to get their turn.
_BYTES_AT_ONCE = 4 << 20
# Every so many keys one is written in full.
_RESTART_INTERVAL = 16
# Header of the index.
_HEADER = MESSAGES["Header"](num_shards=1, version={"producer": 1})


class _HashedFile:
    """A file whose sha256 is computed while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)

    def sync(self) -> str:
        """Syncs to disk; returns the sha256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()


def write_tensors(
    prefix: str, tensors: "Mapping[str, np.ndarray | tf.Tensor | tf.Variable]"
) -> dict[str, str]:
    """Writes index and data file and syncs them to disk, not atomically.

    Args:
      prefix: The path without `.index`.
      tensors: Name -> values.

    Returns:
      Name of each file, without its folder -> sha256 in hexadecimal digits.

    Raises:
      OSError: if that fails.
      ValueError: if a tensor is of a type that is not read either.
    """
    name = os.path.basename(prefix)
    entries = [(b"", _HEADER.SerializeToString())]
    with open(prefix + DATA, "wb") as opened:
        data, offset = _HashedFile(opened), 0
        for key in sorted(tensors):
            array = np.asarray(tensors[key])
            size, crc = _write_array(data, array)
            entries.append((key.encode(), _entry(array, offset, size, crc)))
            offset += size
        files = {name + DATA: data.sync()}
    with open(prefix + INDEX, "wb") as opened:
        index = _HashedFile(opened)
        index.write(_index(entries))
        files[name + INDEX] = index.sync()
    return files


def save_tf(prefix: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint of names and tensors, as google-research/bert's are.

    Files are renamed when they are complete; the index, without which there is no
    checkpoint, comes last.

    Args:
      prefix: The path without `.index`; replaced if it is there.
      tensors: Name -> values.

    Raises:
      OSError: if it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(prefix))
    with written(prefix), temporary_folder(prefix) as temporary:
        write_tensors(os.path.join(temporary, name), tensors)
        for ending in (DATA, INDEX):
            os.replace(temporary / (name + ending), prefix + ending)
        sync_folder(folder)


def _write_array(file: _HashedFile, array: np.ndarray) -> tuple[int, int]:
    """Writes the bytes of a tensor; returns their number and masked checksum."""
    if array.dtype not in _NUMBERS:
        raise ValueError(f"A tensor of type {array.dtype} cannot be written.")
    values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    crc = 0
    for begin in range(0, len(values), _BYTES_AT_ONCE):
        part = values[begin : begin + _BYTES_AT_ONCE]
        file.write(part.data)
        crc = google_crc32c.extend(crc, part)
    return len(values), mask_crc32c(crc)


def _entry(array: np.ndarray, offset: int, size: int, crc: int) -> bytes:
    """The message about a tensor."""
    entry = MESSAGES["Entry"](
        dtype=_NUMBERS[array.dtype],
        shape={"dim": [{"size": size} for size in array.shape]},
        offset=offset,
        size=size,
        crc32c=crc,
    )
    return entry.SerializeToString()


def _index(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The table: a block of all entries, one of nothing, and one that lists the first.

    Source: LevelDB's `doc/table_format.md`.
    """
    table, handles = b"", []
    last = _successor(entries[-1][0])
    for number in range(3):
        content = entries if number == 0 else []
        if number == 2:
            content = [(last, handles[0])]
        block = b"".join(_block(content))
        handles.append(varint(len(table)) + varint(len(block)))
        trailer = TRAILER.pack(0, masked_crc32c(block + b"\0"))
        table += block + trailer
    return table + FOOTER.pack((handles[1] + handles[2]).ljust(40, b"\0"), MAGIC)


def _block(entries: Sequence[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Entries whose keys leave out what they share with the one before."""
    restarts, position, before = [], 0, b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % _RESTART_INTERVAL == 0:
            restarts.append(position)
        else:
            shared = len(os.path.commonprefix([before, key]))
        sizes = (shared, len(key) - shared, len(value))
        part = b"".join(map(varint, sizes)) + key[shared:] + value
        yield part
        position, before = position + len(part), key
    restarts = restarts or [0]
    yield struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _successor(key: bytes) -> bytes:
    """A short key that is not smaller."""
    for number, byte in enumerate(key):
        if byte != 0xFF:
            return key[:number] + bytes([byte + 1])
    return key
