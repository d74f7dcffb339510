"""Reads TensorFlow's checkpoint files: names and tensors.

They are read without TensorFlow's own reader, which ends the whole process on some
damaged files: here they are refused with a `ValueError`. Nothing in a file is executed.
Every checkpoint is read here, those of this program too.

The index is a sorted table of strings in LevelDB's format: blocks of entries, a block
that lists the blocks, and a footer with the offset of that block. A value is a message
with the data file, offset, type and shape of a tensor, which protocol buffers parse.
The messages are described here: TensorFlow's take seconds to load.
"""

import math
import os
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClassesForFiles

from bert_tf.files import masked_crc32c, placeholder

INDEX = ".index"
DATA = ".data-00000-of-00001"
# Tensors may share the bytes of a data file, but have at most so many times as many.
_MAX_REPEATS = 2

FOOTER = struct.Struct("<40sQ")
MAGIC = 0xDB4775248B80FB57
TRAILER = struct.Struct("<BI")
_MAX_INDEX_BYTES = 256 << 20
_MAX_DIMENSIONS = 8
_MAX_VARINT_BYTES = 10

# Numbers of TensorFlow's types; others, such as strings, hold no weights.
DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
    14: np.dtype(ml_dtypes.bfloat16),
    19: np.dtype("<f2"),
}

# Message -> field -> number and type, of several values if it ends in *.
# Source: TensorFlow's `tensor_bundle.proto`, and what that imports.
_FIELDS = {
    "Version": {"producer": (1, "int32")},
    "Header": {
        "num_shards": (1, "int32"),
        "endianness": (2, "int32"),
        "version": (3, "Version"),
    },
    "Dimension": {"size": (1, "int64")},
    "Shape": {"dim": (2, "Dimension*")},
    "Slice": {},
    "Entry": {
        "dtype": (1, "int32"),
        "shape": (2, "Shape"),
        "shard_id": (3, "int32"),
        "offset": (4, "int64"),
        "size": (5, "int64"),
        "crc32c": (6, "fixed32"),
        "slices": (7, "Slice*"),
    },
}


def _make_messages() -> dict[str, type[Message]]:
    """The classes of the messages, in a pool apart from TensorFlow's."""
    file = descriptor_pb2.FileDescriptorProto(name="tensor_bundle", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            made = message.field.add(name=field, number=number)
            made.label = made.LABEL_REPEATED if kind[-1] == "*" else made.LABEL_OPTIONAL
            if (plain := kind.rstrip("*")) in _FIELDS:
                made.type, made.type_name = made.TYPE_MESSAGE, plain
            else:
                made.type = getattr(made, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return GetMessageClassesForFiles([file.name], pool)


# Name in _FIELDS -> the class of that message.
MESSAGES = _make_messages()


class Entry(NamedTuple):
    """The type, shape and bytes of a tensor.

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


def load_tf(
    prefix: str, choose: Callable[[Mapping[str, tuple[int, ...]]], Collection[str]]
) -> dict[str, np.ndarray]:
    """Reads tensors of a checkpoint, into memory that is mapped from its files.

    Args:
      prefix: The path without `.index`.
      choose: Takes the shapes by name, without strings, and returns the names to read.

    Returns:
      Name -> values of the type in the file, read-only.

    Raises:
      FileNotFoundError: if the index or a data file is not there.
      ValueError: if a file is damaged or contradicts itself.
    """
    index_file = prefix + INDEX
    try:
        _require_file(index_file)
        with open(index_file, "rb") as file:
            num_shards, entries = read_index(file.read())
        numbers = {name: e for name, e in entries.items() if e.dtype is not None}
        chosen = choose({name: entry.shape for name, entry in numbers.items()})
        return _read(prefix, num_shards, {name: numbers[name] for name in chosen})
    except ValueError as error:
        raise ValueError(
            f"{prefix} cannot be read: {error}. Fetch the checkpoint again."
        ) from error


def tensor_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's tensors by name; errors are those of `load_tf`."""
    found: dict[str, tuple[int, ...]] = {}

    def choose(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        found.update(shapes)
        return []

    load_tf(prefix, choose)
    return found


def _require_file(path: str) -> None:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"The checkpoint has no file {path}. Pass the path without its ending, "
            "such as /dir/bert_model.ckpt, and fetch all of its files."
        )
    if found := placeholder(path):
        raise ValueError(f"{path} is {found}")


def _read(
    prefix: str, num_shards: int, entries: Mapping[str, Entry]
) -> dict[str, np.ndarray]:
    shards: dict[int, dict[str, Entry]] = {}
    for name, entry in entries.items():
        shards.setdefault(entry.shard, {})[name] = entry
    tensors = {}
    for shard, members in sorted(shards.items()):
        if shard >= num_shards:
            raise ValueError(f"a tensor lies in data file {shard} of {num_shards}")
        path = f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"
        _require_file(path)
        num_bytes = os.path.getsize(path)
        if sum(entry.size for entry in members.values()) > _MAX_REPEATS * num_bytes:
            raise ValueError(f"its tensors are larger than {path}")
        # Mapped: all tensors of a resumed run together take no memory of their own.
        data = np.memmap(path, mode="r") if num_bytes else np.zeros(0, np.uint8)
        for name in sorted(members, key=lambda name: members[name].offset):
            _check(name, members[name], num_bytes)
            tensors[name] = _decode(name, members[name], data)
    return {name: tensors[name] for name in entries}


def _check(name: str, entry: Entry, num_bytes: int) -> None:
    if entry.is_sliced:
        raise ValueError(
            f"{name!r} is stored in pieces, as a partitioned variable is; save it whole"
        )
    expected = math.prod(entry.shape) * entry.dtype.itemsize
    if entry.size != expected:
        raise ValueError(
            f"{name!r} of shape {entry.shape} must have {expected} bytes, not "
            f"{entry.size}"
        )
    if entry.offset + entry.size > num_bytes:
        raise ValueError(
            f"{name!r} ends at byte {entry.offset + entry.size} of a data file with "
            f"{num_bytes}"
        )


def _decode(name: str, entry: Entry, data: np.ndarray) -> np.ndarray:
    data = data[entry.offset : entry.offset + entry.size]
    if masked_crc32c(data) != entry.crc32c:
        raise ValueError(f"{name!r} is damaged: its checksum differs")
    return np.frombuffer(data, entry.dtype).reshape(entry.shape)


def read_index(data: bytes) -> tuple[int, dict[str, Entry]]:
    """Reads an index.

    Args:
      data: The content of the file `PREFIX.index`.

    Returns:
      The number of data files, and the name of each tensor -> its entry.

    Raises:
      ValueError: if it is damaged, or of a format that no checkpoint has.
    """
    if not FOOTER.size <= len(data) <= _MAX_INDEX_BYTES:
        raise ValueError(f"its index has {len(data)} bytes, which no checkpoint has")
    handles, magic = FOOTER.unpack(data[-FOOTER.size :])
    if magic != MAGIC:
        raise ValueError("its index does not end like that of a checkpoint")
    try:
        # The first handle, offset and size, is of a block that checkpoints leave empty.
        _, position = _varint(handles, 0)
        _, position = _varint(handles, position)
        values = dict(_values(data, handles, position))
        header = MESSAGES["Header"].FromString(values.pop(b""))
        entries = {
            name.decode(): _entry(MESSAGES["Entry"].FromString(value))
            for name, value in values.items()
        }
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"its index is damaged ({error!r})") from error
    except DecodeError as error:
        raise ValueError(f"its index is damaged ({error})") from error
    if header.endianness:
        raise ValueError("it was written on a big-endian machine")
    return header.num_shards or 1, entries


def _values(
    data: bytes, handles: bytes, position: int
) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the whole table."""
    for _, handle in _block_entries(_block(data, handles, position)):
        yield from _block_entries(_block(data, handle, 0))


def _block(data: bytes, handle: bytes, position: int) -> bytes:
    """The bytes of a block, from a handle with its offset and size."""
    offset, position = _varint(handle, position)
    size, _ = _varint(handle, position)
    end = offset + size
    if end + TRAILER.size > len(data):
        raise ValueError("its index is damaged (a block lies beyond the end)")
    compression, checksum = TRAILER.unpack_from(data, end)
    if compression:
        raise ValueError("its index is compressed, which checkpoints never are")
    if masked_crc32c(data[offset : end + 1]) != checksum:
        raise ValueError("its index is damaged (a checksum differs)")
    return data[offset:end]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; each key shares its first bytes with the previous one."""
    [num_restarts] = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (num_restarts + 1)
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        size, position = _varint(block, position)
        if position + unshared + size > end or shared > len(key):
            raise ValueError("its index is damaged (an entry is cut)")
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, 7 bits in each byte, and the offset after it."""
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("its index is damaged (a number does not end)")


def _entry(entry: Message) -> Entry:
    shape = tuple(dimension.size for dimension in entry.shape.dim)
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"its index has a tensor of {len(shape)} dimensions")
    if min(*shape, entry.shard_id, entry.offset, entry.size) < 0:
        raise ValueError("its index is damaged (a count is negative)")
    return Entry(
        dtype=DTYPES.get(entry.dtype),
        shape=shape,
        shard=entry.shard_id,
        offset=entry.offset,
        size=entry.size,
        crc32c=entry.crc32c,
        is_sliced=bool(entry.slices),
    )
