"""A reader of torch's oldest file format, without torch and without running code.

The file holds, one after another: pickles of a magic number, of the protocol's version,
of facts about the system, of the object, and of the storages' keys; then for every key
the number of elements (int64) and the elements. Only what a dictionary of tensors needs
is allowed in these pickles, and each allowed name stands for a harmless class of ours.
"""

import pickle
from typing import NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class _Dictionary(dict):
    """Stands for collections.OrderedDict; takes what is set on it and forgets it."""

    def __setstate__(self, state):
        pass


class _Kind(NamedTuple):
    """Stands for a storage's class."""

    name: str


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    num_elements: int


class _Tensor(NamedTuple):
    """A view of a storage, made an array when the data have been read."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def _rebuild_tensor(storage, offset, shape, strides, requires_grad, hooks):
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, offset, shape, strides)


_ALLOWED = {
    ("collections", "OrderedDict"): _Dictionary,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    **{("torch", name): _Kind(name) for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    """Knows the allowed names alone."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is refused")
        return _ALLOWED[module, name]

    def persistent_load(self, saved):
        tag, kind, key, _, num_elements, view = saved
        if tag != "storage" or not isinstance(kind, _Kind) or view is not None:
            raise pickle.UnpicklingError(f"{saved!r} is not a storage")
        return _Storage(key, np.dtype(_DTYPES[kind.name]), num_elements)


def _read_storage(file, storage):
    [count] = np.frombuffer(file.read(8), "<i8")
    if count != storage.num_elements:
        raise ValueError(f"storage {storage.key}: {count} elements, not {storage}")
    data = file.read(count * storage.dtype.itemsize)
    return np.frombuffer(data, storage.dtype, count)


def _view(data, tensor):
    last = tensor.offset + sum(
        (size - 1) * stride
        for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if tensor.offset < 0 or min((*tensor.strides, 0)) < 0 or last >= len(data):
        raise ValueError(f"{tensor} reaches beyond its storage")
    strides = [stride * data.itemsize for stride in tensor.strides]
    start = data[tensor.offset :]
    return np.lib.stride_tricks.as_strided(start, tensor.shape, strides).copy()


def load_legacy(path):
    """Name -> array of a file that holds a dictionary of tensors."""
    with open(path, "rb") as file:
        if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
            raise ValueError(f"{path} is not of the legacy format")
        if not _Unpickler(file).load()["little_endian"]:
            raise ValueError(f"{path} is big-endian")
        tensors = _Unpickler(file).load()
        keys = _Unpickler(file).load()
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        data = {key: _read_storage(file, storages[key]) for key in keys}
        if file.read(1):
            raise ValueError(f"{path} goes on after its last storage")
    return {name: _view(data[t.storage.key], t) for name, t in tensors.items()}
