"""The older form of PyTorch's files: five pickles, and the storages behind them.

torch < 1.6 writes pickles of a magic number, of the form's version, of facts about the
machine, of the object, and of the storages' keys; then for every key the number of
elements (int64) and the elements.
"""

import io
import os
import struct
from typing import BinaryIO

import numpy as np

from bert_tf.interop.pickle_walk import MAX_PICKLE_BYTES, shown
from bert_tf.interop.torch_tensors import Storage, TensorPickle

# The first instruction of every pickle that torch writes.
SIGNATURE = b"\x80"

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = struct.Struct("<q")


class LegacyContent:
    """An open file of the older form.

    Attributes:
      value: The saved object, tensors as `TensorView`s.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Reads everything but the storages.

        Args:
          file: Open for reading, as long as this is used.

        Raises:
          ValueError: if it is not such a file.
        """
        self._file = file
        file.seek(0)
        stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        _check_equal("magic number", TensorPickle(stream).value, _MAGIC_NUMBER)
        _check_equal("version", TensorPickle(stream).value, _VERSION)
        machine = TensorPickle(stream).value
        if type(machine) is not dict or machine.get("little_endian") is not True:
            raise ValueError("it must come from a little-endian machine")
        pickled = TensorPickle(stream)
        self.value = pickled.value
        keys = TensorPickle(stream).value
        self._begins = self._find_storages(keys, pickled.storages, stream.tell())

    def _find_storages(
        self, keys: object, storages: dict[str, Storage], place: int
    ) -> dict[str, int]:
        """Key -> where the storage's elements begin."""
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise ValueError(
                f"its storages' keys must be a list of strings. Received: {shown(keys)}"
            )
        if len(set(keys)) < len(keys) or set(keys) != storages.keys():
            raise ValueError(
                f"it must list each of its {len(storages)} storages once. Received: "
                f"{len(keys)} keys, {len(set(keys) & storages.keys())} of them right"
            )
        num_bytes = os.fstat(self._file.fileno()).st_size
        begins = {}
        for key in keys:
            self._file.seek(place)
            header = self._file.read(_COUNT.size)
            storage = storages[key]
            if place + _COUNT.size + storage.num_bytes > num_bytes:
                raise ValueError(
                    f"it ends before storage {shown(key)} of {storage.num_bytes} bytes "
                    f"at byte {place} does"
                )
            [count] = _COUNT.unpack(header)
            if count != storage.num_elements:
                raise ValueError(
                    f"storage {shown(key)}, byte {place}, must have "
                    f"{storage.num_elements} elements. Received: {count}"
                )
            begins[key] = place + _COUNT.size
            place = begins[key] + storage.num_bytes
        return begins

    def read(self, storage: Storage) -> np.ndarray:
        """The bytes of a storage, uint8 [num_bytes].

        Raises:
          ValueError: if the file has become shorter.
        """
        self._file.seek(self._begins[storage.key])
        data = np.fromfile(self._file, np.uint8, storage.num_bytes)
        if len(data) < storage.num_bytes:
            raise ValueError(f"it ends within storage {shown(storage.key)}")
        return data


def _check_equal(name: str, value: object, expected: int) -> None:
    if type(value) is not int or value != expected:
        raise ValueError(f"its {name} must be {expected}. Received: {shown(value)}")
