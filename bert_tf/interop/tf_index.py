"""The index of a TensorFlow checkpoint, read without TensorFlow's own reader.

That reader ends the whole process on some damaged files; this one refuses them with a
`ValueError`. The index is a sorted table of strings in LevelDB's format: blocks of
entries, a block that lists the blocks, a footer that tells where that one is. A value
is a message that says where in the data files a tensor lies.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

from bert_tf.files import masked_crc32c

_FOOTER = struct.Struct("<40sQ")
_MAGIC = 0xDB4775248B80FB57
_TRAILER = struct.Struct("<BI")
_MAX_INDEX_BYTES = 256 << 20
_MAX_DIMENSIONS = 8
_MAX_VARINT_BYTES = 10

# Numbers of TensorFlow's types; others, such as strings, hold no weights.
_DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype("<f2"),
}


class TensorPlace(NamedTuple):
    """Where a tensor lies.

    Attributes:
      dtype: Its type, or None if it is no number.
      shape: Its sizes.
      shard: Number of the data file.
      offset: First byte.
      size: Number of bytes.
      crc32c: Masked checksum of the bytes.
      is_sliced: Whether it is stored in several pieces.
    """

    dtype: np.dtype | None
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int
    is_sliced: bool


def read_index(data: bytes) -> tuple[int, dict[str, TensorPlace]]:
    """Reads an index.

    Args:
      data: The content of the file `PREFIX.index`.

    Returns:
      The number of data files, and the name of each tensor -> its place.

    Raises:
      ValueError: if it is damaged, or of a format that no checkpoint has.
    """
    if not _FOOTER.size <= len(data) <= _MAX_INDEX_BYTES:
        raise ValueError(f"its index has {len(data)} bytes, as no checkpoint's has")
    handles, magic = _FOOTER.unpack(data[-_FOOTER.size :])
    if magic != _MAGIC:
        raise ValueError("its index does not end as a checkpoint's does")
    try:
        place = _skip_varints(handles, 2)
        entries = dict(_entries(data, handles, place))
        header = _fields(entries.pop(b""))
        places = {name.decode(): _place(value) for name, value in entries.items()}
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"its index is damaged ({error!r})") from error
    if header.get(2, 0) != 0:
        raise ValueError("it was written on a big-endian machine")
    return header.get(1, 1), places


def _entries(data: bytes, handles: bytes, place: int) -> Iterator[tuple[bytes, bytes]]:
    for _, handle in _block_entries(_block(data, handles, place)):
        yield from _block_entries(_block(data, handle, 0))


def _block(data: bytes, handle: bytes, place: int) -> bytes:
    """The bytes of a block, whose offset and size stand in a handle."""
    offset, place = _varint(handle, place)
    size, _ = _varint(handle, place)
    end = offset + size
    if end + _TRAILER.size > len(data):
        raise ValueError("its index is damaged (a block lies beyond the end)")
    compression, checksum = _TRAILER.unpack_from(data, end)
    if compression:
        raise ValueError("its index is compressed, which checkpoints never are")
    if masked_crc32c(data[offset : end + 1]) != checksum:
        raise ValueError("its index is damaged (a checksum differs)")
    return data[offset:end]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; a key begins with a part of the one before it."""
    [num_restarts] = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (num_restarts + 1)
    place, key = 0, b""
    while place < end:
        shared, place = _varint(block, place)
        unshared, place = _varint(block, place)
        size, place = _varint(block, place)
        if place + unshared + size > end or shared > len(key):
            raise ValueError("its index is damaged (an entry is cut)")
        key = key[:shared] + block[place : place + unshared]
        place += unshared
        yield key, block[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place behind it."""
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("its index is damaged (a number does not end)")


def _skip_varints(data: bytes, count: int) -> int:
    place = 0
    for _ in range(count):
        _, place = _varint(data, place)
    return place


def _items(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffer."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(message, place)
        elif kind == 5:
            [value] = struct.unpack_from("<I", message, place)
            place += 4
        elif kind == 2:
            size, place = _varint(message, place)
            value = message[place : place + size]
            if len(value) < size:
                raise ValueError("its index is damaged (a field is cut)")
            place += size
        else:
            raise ValueError(f"its index is damaged (a field of kind {kind})")
        yield tag >> 3, value


def _fields(message: bytes) -> dict[int, int | bytes]:
    """The last value of each field."""
    return dict(_items(message))


def _number(fields: dict[int, int | bytes], key: int) -> int:
    value = fields.get(key, 0)
    if not isinstance(value, int) or value >= 1 << 63:
        raise ValueError("its index is damaged (a field is no count)")
    return value


def _place(message: bytes) -> TensorPlace:
    fields = _fields(message)
    shape = fields.get(2, b"")
    if not isinstance(shape, bytes):
        raise ValueError("its index is damaged (a shape is a number)")
    sizes = []
    for key, dimension in _items(shape):
        if key == 2 and isinstance(dimension, bytes):
            sizes.append(_number(_fields(dimension), 1))
    if len(sizes) > _MAX_DIMENSIONS:
        raise ValueError(f"its index has a tensor of {len(sizes)} dimensions")
    return TensorPlace(
        dtype=_DTYPES.get(_number(fields, 1)),
        shape=tuple(sizes),
        shard=_number(fields, 3),
        offset=_number(fields, 4),
        size=_number(fields, 5),
        crc32c=_number(fields, 6),
        is_sliced=7 in fields,
    )
