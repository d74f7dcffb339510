"""The pickles inside PyTorch's files: tensors without their values, and plain data.

A pickle can ask for any code to be run. `_Unpickler` has a closed list of globals,
which are functions and types of this module. Before it, `_checked` scans all
instructions: such a list alone prevents neither exhausted memory nor changed objects.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np

# Storage class in `torch` -> dtype of its values.
_DTYPES = {
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
STORAGE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

# Far more than the tensors of any model need; they bound memory and time.
MAX_PICKLE_BYTES = 16 << 20
_MAX_INSTRUCTIONS = 2_000_000
_MAX_DIMENSIONS = 32  # NumPy 1 has no more.
_MAX_SHOWN = 60  # Characters of a value in messages.

# NEWOBJ always fails, as no global is a class here; but then the message names the
# class that the file asks for.
_INSTRUCTIONS = frozenset(
    "PROTO FRAME MARK STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 TUPLE EMPTY_LIST APPEND APPENDS "
    "EMPTY_DICT SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL "
    "STACK_GLOBAL NEWOBJ REDUCE BUILD BINPERSID".split()
)
_NEW_DICTIONARY = b"ccollections\nOrderedDict\n)R"
# Replaced before unpickling: all dictionaries are ours, which check their keys, and the
# final stack becomes a tuple, which must have one item.
_REPLACED = {"EMPTY_DICT": _NEW_DICTIONARY, "FRAME": b"", "STOP": b"t."}
# Raised by pickletools and the unpickler; the last one where warnings are errors.
_PICKLE_ERRORS = (pickle.UnpicklingError, EOFError, ValueError, TypeError)
_PICKLE_ERRORS += (AttributeError, LookupError, ArithmeticError, Warning)


class Storage(NamedTuple):
    """Values of one or more tensors, by their key in the file.

    A named tuple, like all types here that a pickle can reach: they have no attributes
    that the instruction BUILD could change.
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


class Tensor(NamedTuple):
    """A tensor that lies within its storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, values: np.ndarray) -> np.ndarray:
        """The tensor in the memory of all `values` of its storage."""
        if 0 in self.shape:
            return np.empty(self.shape, values.dtype)
        strides = [stride * values.itemsize for stride in self.strides]
        first = values[self.offset :]
        return np.lib.stride_tricks.as_strided(first, self.shape, strides)


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Function(NamedTuple):
    """A function that a pickle may call, with arguments of any number and type."""

    call: Callable[..., object]

    def __call__(self, *arguments: object) -> object:
        return self.call(*arguments)


class _Dictionary(dict):
    def __init__(self) -> None:
        super().__init__()

    def __setitem__(self, key: object, value: object) -> None:
        # Others, such as nested tuples, can take forever to hash or to find.
        if type(key) is not str and (type(key) is not int or key.bit_length() > 63):
            raise ValueError(f"it has {shown(key)} as the key of a dictionary")
        super().__setitem__(key, value)

    def __setstate__(self, state: object) -> None:
        # Ignored: attributes, such as the versions of a model's layers.
        if not isinstance(state, dict):
            raise ValueError(f"it has {shown(state)} as attributes of a dictionary")


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes) -> None:
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


def unpickle(stream: io.BytesIO) -> tuple[object, dict[str, Storage]]:
    """Reads the next pickle of a stream; nothing in it is imported or executed.

    Returns:
      The object, made of numbers, strings, bytes, tuples, lists, dictionaries and
      `Tensor`s; and key -> every storage that it names.

    Raises:
      ValueError: if the pickle is damaged, asks for another instruction or global, or
        is larger than any that names tensors.
    """
    unpickler = _Unpickler(_checked(stream))
    try:
        values = unpickler.load()
    except _PICKLE_ERRORS as error:
        raise ValueError(f"its pickle is refused: {error}") from error
    if len(values) != 1:
        raise ValueError(f"its pickle holds {len(values)} objects instead of one")
    return values[0], unpickler.storages


def _checked(stream: io.BytesIO) -> bytearray:
    """The next pickle of a stream, in a form that is safe to unpickle.

    `pickletools` reads all arguments and so finds lengths beyond the end, for which the
    unpickler would allocate memory.
    """
    data, safe = stream.getvalue(), bytearray(pickle.MARK)
    position, num_marks = stream.tell(), 0
    try:
        for count, (opcode, argument, position) in enumerate(
            pickletools.genops(stream)
        ):
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
    except _PICKLE_ERRORS as error:
        raise ValueError(f"its pickle is refused, byte {position}: {error}") from error
    return safe


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *rest: object
) -> Tensor:
    if not (
        type(storage) is Storage
        and type(shape) is type(strides) is tuple
        and len(shape) == len(strides) <= _MAX_DIMENSIONS
        and all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    ):
        received = ", ".join(map(shown, (storage, offset, shape, strides)))
        raise ValueError(
            "a tensor needs a storage, an offset, and as many sizes as strides, up to "
            f"{_MAX_DIMENSIONS}, all >= 0. Received: {received}"
        )
    # Whether it is trained, and hooks, are ignored.
    if len(rest) > 3 or rest[2:] not in ((), (None,), ({},)):
        raise ValueError("a tensor is to be negated or conjugated")
    if 0 in shape:
        return Tensor(storage, 0, shape, (0,) * len(shape))
    # The stride of a dimension of one element has no meaning and may be anything.
    strides = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    # NumPy would check this too, but its numbers overflow.
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if last >= storage.num_elements:
        raise ValueError(
            f"a tensor must lie within its {storage}. Received: offset {offset}, shape "
            f"{shape}, strides {strides}"
        )
    return Tensor(storage, offset, shape, strides)


_PARAMETER = _Function(lambda tensor, *_: tensor)
_GLOBALS = {
    "collections.OrderedDict": _Function(_Dictionary),
    "torch.Size": _Function(lambda sizes: sizes),
    "torch._utils._rebuild_tensor": _Function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _PARAMETER,
    "torch._utils._rebuild_parameter_with_state": _PARAMETER,
    **{f"torch.{name}": _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


def pickle_tensors(arrays: Mapping[str, np.ndarray], under: str) -> bytes:
    """A pickle of an OrderedDict of tensors without their values, as torch writes it.

    It is put together from instructions, as Python's pickler would import torch.

    Args:
      arrays: Name -> values of a type in `STORAGE_NAMES`. Their number is the key of
        their storage.
      under: The key of that dictionary in an outer one; empty for none.
    """
    parts = [_NEW_DICTIONARY + b"("]
    for number, (name, values) in enumerate(arrays.items()):
        storage = STORAGE_NAMES[values.dtype].encode()
        # With one byte per element, strides count elements.
        strides = np.empty(values.shape, np.bool_).strides
        parts += [
            _push(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"("
            + _push("storage")
            + b"ctorch\n"
            + storage
            + b"\n"
            + _push(str(number)),
            _push("cpu") + _push(values.size) + b"tQ",
            _push(0) + _push(values.shape) + _push(strides) + _push(False),
            _NEW_DICTIONARY + b"tR",
        ]
    inner = b"".join(parts) + b"u"
    if under:
        inner = _NEW_DICTIONARY + _push(under) + inner + b"s"
    return b"\x80\x02" + inner + b"."


def _push(value: object) -> bytes:
    """The instructions that push a plain value."""
    return pickle.dumps(value, protocol=2)[2:-1]  # Without PROTO and STOP.


def shown(value: object) -> str:
    """A short text without line breaks for a value of a file.

    Not its `repr`: a few bytes can describe a value whose `repr` fills the memory.
    """
    if isinstance(value, str | bytes):
        return ascii(value[:_MAX_SHOWN])
    if value is None or isinstance(value, int | float):
        return repr(value)[:_MAX_SHOWN]
    if type(value) is tuple and not any(type(item) is tuple for item in value[:6]):
        return f"({', '.join(map(shown, value[:6]))})"
    return f"a {type(value).__name__}"
