"""What PyTorch's files say of tensors: storages, and views of them.

A storage is a flat run of values; a tensor is a view of one by offset, shape and
strides, all counted in elements, as in NumPy but for the unit of the strides.
"""

import dataclasses
import io
import math
from typing import Any

import ml_dtypes
import numpy as np

from bert_tf.interop.pickle_walk import Function, shown, walk_pickle

# Class of a storage in `torch` -> the type of its values.
DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}

# NumPy 1 has no more.
_MAX_DIMENSIONS = 32
# Bounds the shapes of tensors without values; others are bounded by their storage.
_MAX_EMPTY_SIZE = 1 << 40


@dataclasses.dataclass(frozen=True)
class Storage:
    """Values of one or more tensors.

    Attributes:
      key: Its name in the file.
      dtype: Of its values.
      num_elements: Values that it has.
    """

    key: str
    dtype: np.dtype
    num_elements: int

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return self.num_elements * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A tensor whose values have not been read; it lies within its storage.

    Attributes:
      storage: Holds the values.
      offset: Place of the first one, in elements.
      shape: Sizes of the dimensions.
      strides: Distances between neighbours of each dimension, in elements, >= 0.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """The tensor.

        Args:
          values: All values of the storage, [num_elements].

        Returns:
          An array of `shape` that shares the memory of `values`.
        """
        if 0 in self.shape:
            return np.empty(self.shape, values.dtype)
        strides = [stride * values.itemsize for stride in self.strides]
        first = values[self.offset :]
        return np.lib.stride_tricks.as_strided(first, self.shape, strides)


@dataclasses.dataclass(frozen=True)
class _StorageType:
    """Stands for a class of storages."""

    dtype: np.dtype


class TensorPickle:
    """A pickle of tensors.

    Attributes:
      value: What it holds: tensors as `TensorView`s in lists and dictionaries.
      storages: Key -> every storage that it names.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        """Reads it.

        Args:
          stream: Stands at its first byte, and behind its last one afterwards.

        Raises:
          ValueError: if it is broken, or holds anything else.
        """
        self.storages: dict[str, Storage] = {}
        self.value = walk_pickle(stream, _ALLOWED, self._find_storage)

    def _find_storage(self, saved: object) -> Storage:
        if type(saved) is not tuple or len(saved) not in (5, 6):
            raise ValueError(
                f"a storage must be a tuple of 5. Received: {shown(saved)}"
            )
        tag, kind, key, _, count = saved[:5]
        is_right = tag == "storage" and isinstance(kind, _StorageType)
        if not is_right or type(key) is not str or not _is_count(count):
            received = ", ".join(shown(part) for part in saved)
            raise ValueError(
                "a storage must be ('storage', its type, its key, its device, its "
                f"number of elements). Received: {received}"
            )
        if saved[5:] not in ((), (None,)):
            raise ValueError(f"storage {shown(key)} is a part of another one")
        storage = Storage(key, kind.dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {shown(key)} is there with two types or sizes")
        return storage


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _counts(name: str, value: object) -> tuple[int, ...]:
    """A tuple of counts out of a file."""
    if type(value) is not tuple or len(value) > _MAX_DIMENSIONS:
        raise ValueError(
            f"the {name} must be a tuple of at most {_MAX_DIMENSIONS}. Received: "
            f"{shown(value)}"
        )
    for item in value:
        if not _is_count(item):
            raise ValueError(
                f"the {name} must be integers >= 0. Received: {shown(item)}"
            )
    return value


def _check_number(arguments: tuple[Any, ...], *numbers: int) -> None:
    if len(arguments) not in numbers:
        expected = " or ".join(str(number) for number in numbers)
        raise ValueError(f"it takes {expected} arguments. Received: {len(arguments)}")


def _view(
    storage: object, offset: object, shape: object, strides: object
) -> TensorView:
    """A tensor, if it lies within its storage."""
    if not isinstance(storage, Storage):
        raise ValueError(f"a tensor needs a storage. Received: {shown(storage)}")
    [offset] = _counts("offset", (offset,))
    shape, strides = _counts("shape", shape), _counts("strides", strides)
    if len(shape) != len(strides):
        raise ValueError(
            f"the shape {shape} and the strides {strides} differ in length"
        )
    # Where a dimension has one place, its stride means nothing and may be anything.
    strides = tuple(
        stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True)
    )
    if 0 in shape:
        is_within = math.prod(size or 1 for size in shape) <= _MAX_EMPTY_SIZE
    else:
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        # A tensor of more values than its storage has would repeat some of them: a
        # few bytes could claim to be any amount of memory.
        size = math.prod(shape)
        is_within = last < storage.num_elements and size <= storage.num_elements
    if not is_within:
        raise ValueError(
            f"a tensor must lie within its storage of {storage.num_elements} elements. "
            f"Received: offset {offset}, shape {shape}, strides {strides}"
        )
    return TensorView(storage, offset, shape, strides)


def _rebuild_tensor(arguments: tuple[Any, ...]) -> TensorView:
    _check_number(arguments, 4)
    return _view(*arguments)


def _rebuild_tensor_v2(arguments: tuple[Any, ...]) -> TensorView:
    """Whether it needs a gradient, and its hooks, are passed over."""
    _check_number(arguments, 6, 7)
    if arguments[6:] not in ((), (None,), ({},)):
        raise ValueError("a tensor is to be negated or conjugated")
    return _view(*arguments[:4])


def _rebuild_parameter(arguments: tuple[Any, ...]) -> TensorView:
    """A tensor that is trained; what else is said of it is passed over."""
    _check_number(arguments, 3, 4)
    if not isinstance(arguments[0], TensorView):
        raise ValueError(f"it needs a tensor. Received: {shown(arguments[0])}")
    return arguments[0]


def _make_dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    _check_number(arguments, 0)
    return {}


def _make_size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    _check_number(arguments, 1)
    return _counts("sizes", arguments[0])


_FUNCTIONS = {
    "collections.OrderedDict": _make_dictionary,
    "torch.Size": _make_size,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}
_ALLOWED = {name: Function(name, call) for name, call in _FUNCTIONS.items()} | {
    f"torch.{name}": _StorageType(dtype) for name, dtype in DTYPES.items()
}
