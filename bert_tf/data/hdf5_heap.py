"""Rows of variable length in an HDF5 file, read with bounds and without the library.

The library loops for ever where the size of an object is damaged, and allocates
whatever a row claims to hold.
Source: HDF5 File Format Specification 3.0, section III.E (global heap, version 1).
"""

import os
import struct
from collections.abc import Container, Mapping

import numpy as np

from bert_tf.errors import CorruptRecordError

# How a row is stored: so many values, in an object of the heap collection there.
ROW_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("object", "<u4")])

_COLLECTION = struct.Struct("<4sB3xQ")  # Signature, version and size of all of it.
_OBJECT = struct.Struct("<HH4xQ")  # Number, references to it, size of its data.
_SIGNATURE = (b"GCOL", 1)
_ALIGNMENT = 8
# The library begins with 4096 bytes and goes up to 64 KiB, but for one large row.
_MAX_COLLECTION_BYTES = 1 << 24
# For so many rows of a collection searching is faster than going through it.
_FEW = 16


def read_rows(
    descriptor: int, references: np.ndarray, dtype: np.dtype, place: str
) -> np.ndarray:
    """Reads rows of variable length.

    Args:
      descriptor: The open file.
      references: [n] `ROW_REFERENCE`.
      dtype: Of the values, in the file.
      place: File and dataset, for messages.

    Returns:
      The values of all rows, one after another.

    Raises:
      CorruptRecordError: if a row is not where it should be.
    """
    wanted: dict[int, dict[int, int]] = {}
    rows = [
        (length * dtype.itemsize, address, number)
        for length, address, number in references.tolist()
        if length
    ]
    for size, address, number in rows:
        wanted.setdefault(address, {})[number] = size
    found = {
        address: _read_objects(descriptor, address, sizes, place)
        for address, sizes in wanted.items()
    }
    parts = []
    for size, address, number in rows:
        data = found[address].get(number, b"")
        if size > len(data):
            raise _damaged(place, address)
        parts.append(data[:size])
    return np.frombuffer(b"".join(parts), dtype)


def _read_objects(
    descriptor: int, address: int, sizes: Mapping[int, int], place: str
) -> dict[int, bytes]:
    """Objects of one collection by their numbers, as far as they are there."""
    end = os.fstat(descriptor).st_size
    if address + _COLLECTION.size > end:
        raise _damaged(place, address)
    header = os.pread(descriptor, _COLLECTION.size, address)
    *signature, size = _COLLECTION.unpack(header)
    is_whole = size <= min(end - address, _MAX_COLLECTION_BYTES)
    if tuple(signature) != _SIGNATURE or not is_whole:
        raise _damaged(place, address)
    data = os.pread(descriptor, size, address)
    if len(sizes) <= _FEW:
        found = {number: _search(data, number, sizes[number]) for number in sizes}
        if None not in found.values():
            return found
    return _walk(data, sizes)


def _search(data: bytes, number: int, size: int) -> bytes | None:
    """The object with that header, if one place only looks like it."""
    words = np.frombuffer(data, "<u8", len(data) // _ALIGNMENT)
    # Without references to it the first half of a header is the number alone.
    places = np.flatnonzero(words[:-1] == number)
    places = places[words[places + 1] == size]
    if len(places) != 1:  # Values of a row may look like a header too.
        return None
    begin = int(places[0]) * _ALIGNMENT + _OBJECT.size
    return data[begin : begin + size]


def _walk(data: bytes, numbers: Container[int]) -> dict[int, bytes]:
    """The objects of those numbers, found from header to header."""
    objects = {}
    begin = _COLLECTION.size
    while begin + _OBJECT.size <= len(data):
        number, _, length = _OBJECT.unpack_from(data, begin)
        begin += _OBJECT.size
        if number == 0:  # The rest is free.
            break
        if number in numbers:
            objects[number] = data[begin : begin + length]
        begin += -(-length // _ALIGNMENT) * _ALIGNMENT
    return objects


def _damaged(place: str, address: int) -> CorruptRecordError:
    return CorruptRecordError(
        f"{place}: a row is damaged, or is not at byte offset {address}, where it "
        "should be. Make or copy the file again."
    )
