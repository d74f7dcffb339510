"""The pickles inside PyTorch's files: tensors without their values, and plain data.

Only torch reads its files and it is too large a dependency for that, so this does: a
`pickle.Unpickler` with a closed list of globals, behind a check of each instruction,
because such a list alone stops neither exhausted memory nor changed objects.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

# Storage class in `torch` -> dtype of its values.
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

# Far more than the names of any model's tensors take; they bound memory and time.
MAX_PICKLE_BYTES = 16 << 20
_MAX_INSTRUCTIONS = 2_000_000
_MAX_DIMENSIONS = 32  # NumPy 1 has no more.
_MAX_SHOWN = 60

# NEWOBJ never succeeds, as no global is a class here; but then the message names the
# class that the file asks for.
_INSTRUCTIONS = frozenset(
    "PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE EMPTY_LIST APPEND APPENDS "
    "EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL "
    "STACK_GLOBAL NEWOBJ REDUCE BUILD BINPERSID".split()
)
# Instructions that are unpickled instead: all dictionaries are ours, which check their
# keys, and what is on the stack at the end becomes a tuple, which should have one item.
_REPLACED = {
    "EMPTY_DICT": b"ccollections\nOrderedDict\n)R",
    "FRAME": b"",
    "STOP": b"t.",
}
# What pickletools and the unpickler raise; the last where warnings are errors.
_ERRORS = (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError)
_ERRORS += (LookupError, ArithmeticError, Warning)


class Storage(NamedTuple):
    """Values of one or more tensors.

    A named tuple, like all types here that a pickle gets hold of: they have no
    attributes that the instruction BUILD could change.

    Attributes:
      key: Its name in the file.
      dtype: Of its values.
      num_elements: Number of values.
    """

    key: str
    dtype: np.dtype
    num_elements: int

    def __str__(self) -> str:
        """For messages."""
        return f"storage {shown(self.key)} of {self.num_elements} {self.dtype}"

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return self.num_elements * self.dtype.itemsize


class TensorView(NamedTuple):
    """A tensor whose values have not been read; it lies within its storage.

    Attributes:
      storage: Holds the values.
      offset: Index of the first one.
      shape: Sizes of the dimensions.
      strides: Distances between neighbours of each dimension, in elements, >= 0.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """The tensor, as an array in the memory of all `values` of its storage."""
        if 0 in self.shape:
            return np.empty(self.shape, values.dtype)
        strides = [stride * values.itemsize for stride in self.strides]
        first = values[self.offset :]
        return np.lib.stride_tricks.as_strided(first, self.shape, strides)


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Function(NamedTuple):
    """What a pickle may call, with arguments of any number and type."""

    call: Callable[..., Any]

    def __call__(self, *arguments: object) -> object:
        return self.call(*arguments)


class _Dictionary(dict):
    def __init__(self) -> None:
        super().__init__()

    def __setitem__(self, key: object, value: object) -> None:
        """Refuses what takes forever to hash or find, such as nested tuples."""
        if type(key) is not str and (type(key) is not int or key.bit_length() > 63):
            raise ValueError(f"it has {shown(key)} as the key of a dictionary")
        super().__setitem__(key, value)

    def __setstate__(self, state: object) -> None:
        """Ignores attributes, such as the versions of a model's layers."""
        if not isinstance(state, dict):
            raise ValueError(f"it has {shown(state)} as the attributes of a dictionary")


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytearray) -> None:
        super().__init__(io.BytesIO(data), encoding="latin-1")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> _Function | _StorageType:
        full = f"{module}.{name}"
        if full not in _GLOBALS:
            raise ValueError(
                f"it needs {shown(full)}, which is refused: only tensors are read"
            )
        return _GLOBALS[full]

    def persistent_load(self, saved: object) -> Storage:
        match saved:
            case ("storage", _StorageType(dtype), str(key), _, int(count), *part) if (
                count >= 0 and part in ([], [None])
            ):
                storage = Storage(key, dtype, count)
            case _:
                raise ValueError(f"{shown(saved)} does not name a whole storage")
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"{storage} has another type or size elsewhere")
        return storage


def shown(value: object) -> str:
    """A short text without line breaks for a value of a file, for messages."""
    if isinstance(value, str | bytes):
        return ascii(value[:_MAX_SHOWN])
    if value is None or isinstance(value, int | float):
        return repr(value)[:_MAX_SHOWN]
    if type(value) is tuple and not any(type(item) is tuple for item in value[:6]):
        return f"({', '.join(map(shown, value[:6]))})"
    return f"a {type(value).__name__}"


def unpickle(stream: io.BytesIO) -> tuple[object, dict[str, Storage]]:
    """Reads one pickle; nothing in it is imported or executed.

    Args:
      stream: At the pickle's first byte; afterwards behind its last one.

    Returns:
      The object, made of numbers, strings, bytes, tuples, lists, dictionaries and
      `TensorView`s; and key -> every storage that it names.

    Raises:
      ValueError: if the pickle is broken, asks for another instruction or global, or
        is larger than any that names tensors.
    """
    unpickler = _Unpickler(_checked(stream))
    try:
        values = unpickler.load()
    except _ERRORS as error:
        raise ValueError(f"its pickle is refused: {error}") from error
    if len(values) != 1:
        raise ValueError(f"its pickle holds {len(values)} objects instead of one")
    return values[0], unpickler.storages


def _checked(stream: io.BytesIO) -> bytearray:
    """The pickle at a stream's position, in a form that is safe to unpickle.

    `pickletools` reads all arguments and so finds lengths beyond the end, for which the
    unpickler would allocate memory.
    """
    data, safe = stream.getvalue(), bytearray(pickle.MARK)
    position, num_marks = stream.tell(), 0
    try:
        for count, step in enumerate(pickletools.genops(stream)):
            opcode, argument, position = step
            if opcode.name not in _INSTRUCTIONS:
                raise ValueError(f"instruction {opcode.name}, which no tensor needs")
            if count == _MAX_INSTRUCTIONS:
                raise ValueError(f"over {count} instructions")
            # The unpickler would allocate memory for all smaller indices.
            if opcode.name in ("BINPUT", "LONG_BINPUT") and argument > count:
                raise ValueError(f"memo index {argument}, too high")
            num_marks += opcode.name == "MARK"
            num_marks -= pickletools.markobject in opcode.stack_before
            if num_marks < 0 or (opcode.name == "STOP" and num_marks > 0):
                raise ValueError(f"{opcode.name} does not match the marks")
            safe += _REPLACED.get(opcode.name, data[position : stream.tell()])
    except _ERRORS as error:
        raise ValueError(f"its pickle is refused, byte {position}: {error}") from error
    return safe


def _rebuild_tensor(
    storage: Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: object = False,
    hooks: object = None,
    metadata: object = None,
) -> TensorView:
    """A tensor, if it lies within its storage; gradient and hooks are ignored."""
    is_counted = (
        type(storage) is Storage
        and type(shape) is type(strides) is tuple
        and len(shape) == len(strides) <= _MAX_DIMENSIONS
        and all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    )
    if not is_counted:
        received = ", ".join(map(shown, (storage, offset, shape, strides)))
        raise ValueError(
            "a tensor needs a storage, an offset, and as many sizes as strides, up to "
            f"{_MAX_DIMENSIONS}, all >= 0. Received: {received}"
        )
    if metadata not in (None, {}):
        raise ValueError("a tensor is to be negated or conjugated")
    # The stride of a dimension of one element means nothing and may be anything.
    strides = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 in shape:
        return TensorView(storage, 0, shape, (0,) * len(shape))
    if last >= storage.num_elements:
        raise ValueError(
            f"a tensor must lie within its {storage}. Received: offset {offset}, shape "
            f"{shape}, strides {strides}"
        )
    return TensorView(storage, offset, shape, strides)


def _rebuild_parameter(
    tensor: object, requires_grad: object, hooks: object, state: object = None
) -> TensorView:
    """A tensor that is trained; what else is said of it is ignored."""
    if type(tensor) is not TensorView:
        raise ValueError(f"a parameter needs a tensor. Received: {shown(tensor)}")
    return tensor


_GLOBALS = {
    "collections.OrderedDict": _Function(_Dictionary),
    "torch.Size": _Function(lambda sizes: sizes),
    "torch._utils._rebuild_tensor": _Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(_rebuild_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_rebuild_parameter),
    **{f"torch.{name}": _StorageType(dtype) for name, dtype in DTYPES.items()},
}
