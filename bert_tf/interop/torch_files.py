"""Weights in PyTorch's files, read and written without torch.

Reading executes nothing: see `pickle_walk`. Both forms of these files are read, the zip
form is written.
"""

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from bert_tf.files import placeholder, whole_file
from bert_tf.interop import torch_legacy, torch_zip
from bert_tf.interop.pickle_walk import shown
from bert_tf.interop.torch_tensors import DTYPES, TensorView

# Under which training programs keep the weights, beside the optimizer's state.
_WEIGHT_KEYS = ("model", "state_dict", "module")
# Of such dictionaries within one another.
_MAX_DEPTH = 4
# Added by the wrappers that train on several devices.
_WRAPPER = "module."

_ROOT = "archive"
_STORAGE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# torch maps files into memory, where values should begin at such an address.
_ALIGNMENT_BYTES = 64
_PADDING_ID = 0x4246
_PADDING_HEADER = struct.Struct("<2H")
_LOCAL_HEADER_BYTES = 30
_LARGEST_INT4 = (1 << 31) - 1


def load_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the weights of a file that `torch.save` wrote.

    The file holds a dictionary of tensors, or one that has such a dictionary as
    `model`, `state_dict` or `module`; the rest of it is not read. The checksums of
    the zip form are verified.

    Args:
      path: `pytorch_model.bin`, `model.ckpt-28252.pt`, `.apex.pt`, ...

    Returns:
      Name, without a leading `module.` -> values, of the type in the file. Tensors that
      share values in the file, such as tied ones, may share memory.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is broken, or holds, or asks for, anything but tensors and
        plain data.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`path` must be a file. Received: path={path}.")
    try:
        with open(path, "rb") as file:
            content = _open(file)
            return _read(_find_weights(content.value), content)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: {reason}. Fetch the file again or, if you trust its source, save "
            "the model's `state_dict()` with torch."
        ) from error


def is_torch(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as those of `torch.save` do."""
    with open(path, "rb") as file:
        return file.read(64).startswith((torch_zip.SIGNATURE, torch_legacy.SIGNATURE))


def _open(file: BinaryIO) -> torch_zip.ZipContent | torch_legacy.LegacyContent:
    first = file.read(64)
    if first.startswith(torch_zip.SIGNATURE):
        return torch_zip.ZipContent(file)
    if first.startswith(torch_legacy.SIGNATURE):
        return torch_legacy.LegacyContent(file)
    kind = placeholder(file.name) or f"begins with {shown(first[:16])}"
    raise ValueError(f"not a file of torch: {kind}")


def _find_weights(value: object) -> dict[str, TensorView]:
    """The dictionary of tensors in what a file holds, under their plain names."""
    for _ in range(_MAX_DEPTH):
        if type(value) is not dict:
            raise ValueError(
                f"it must hold a dictionary of tensors, not {shown(value)}"
            )
        others = [key for key in value if not isinstance(value[key], TensorView)]
        inner = [key for key in _WEIGHT_KEYS if type(value.get(key)) is dict]
        if not others or not inner:
            break
        value = value[inner[0]]
    else:
        raise ValueError(f"its tensors are over {_MAX_DEPTH} dictionaries deep")
    others += [key for key in value if type(key) is not str]
    if others:
        keys = ", ".join(shown(key) for key in others[:5])
        raise ValueError(
            "it must hold tensors by name, or a dictionary of them as "
            f"{', '.join(_WEIGHT_KEYS)}. Received what is not a named tensor: {keys}"
        )
    weights = {name.removeprefix(_WRAPPER): view for name, view in value.items()}
    if len(weights) < len(value):
        raise ValueError(f"it has tensors both with and without {_WRAPPER!r}")
    return weights


def _read(
    views: Mapping[str, TensorView],
    content: torch_zip.ZipContent | torch_legacy.LegacyContent,
) -> dict[str, np.ndarray]:
    """The tensors' values, each storage read once."""
    values: dict[str, np.ndarray] = {}
    for view in views.values():
        storage = view.storage
        if storage.key not in values:
            data = content.read(storage)
            # Any byte but 0 means true, but NumPy wants 1.
            is_bool = storage.dtype == np.bool_
            values[storage.key] = data != 0 if is_bool else data.view(storage.dtype)
    # What is not contiguous is copied. The copies of honest files are no larger than
    # the storages; many views of one storage could be of any size together.
    room = sum(array.nbytes for array in values.values())
    arrays: dict[TensorView, np.ndarray] = {}
    for name, view in views.items():
        if view in arrays:
            continue
        array = view.of(values[view.storage.key])
        if not array.flags.c_contiguous:
            room -= array.nbytes
            if room < 0:
                raise ValueError(f"tensor {shown(name)} and others repeat a storage")
            array = array.copy(order="C")
        arrays[view] = array
    return {name: arrays[view] for name, view in views.items()}


def save_torch(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    *,
    under: str = "",
) -> None:
    """Writes tensors so that `torch.load(path, weights_only=True)` reads them.

    The same tensors make the same bytes. The file has its name only when it is whole.

    Args:
      path: Where; replaced if it is there.
      tensors: Name -> values of a type that `load_torch` reads, in the file's order.
      under: A name, such as `model`, under which a dictionary holds the tensors' own
        dictionary, as training programs have it; empty for the tensors alone.

    Raises:
      ValueError: if a tensor has another type, or a name is not a string.
    """
    little_endian = {}
    for name, values in tensors.items():
        dtype = (
            values.dtype.newbyteorder("<")
            if isinstance(values, np.ndarray)
            else type(values)
        )
        if not isinstance(name, str) or dtype not in _STORAGE_NAMES:
            known = ", ".join(str(known) for known in _STORAGE_NAMES)
            raise ValueError(
                f"{path}: tensors must be arrays of {known} under names. Received: "
                f"{name!r} of {dtype}. Convert it first."
            )
        little_endian[name] = np.asarray(values, dtype)
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        _write(archive, little_endian, under)


def _write(
    archive: zipfile.ZipFile, tensors: Mapping[str, np.ndarray], under: str
) -> None:
    _write_entry(archive, "data.pkl", _pickle(tensors, under))
    _write_entry(archive, "byteorder", b"little")
    for number, values in enumerate(tensors.values()):
        # Not every type of NumPy gives its buffer, but bytes do.
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        _write_entry(archive, f"data/{number}", data)
    _write_entry(archive, "version", b"3\n")


def _write_entry(archive: zipfile.ZipFile, name: str, data: bytes | np.ndarray) -> None:
    """Adds an entry whose data begin at a multiple of the alignment."""
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}")  # Its date is always the first of 1980.
    begin = archive.fp.tell() + _LOCAL_HEADER_BYTES + len(entry.filename)
    padding = -(begin + _PADDING_HEADER.size) % _ALIGNMENT_BYTES
    entry.extra = _PADDING_HEADER.pack(_PADDING_ID, padding) + bytes(padding)
    entry.file_size = len(data)
    with archive.open(entry, "w") as file:
        file.write(data)


def _pickle(tensors: Mapping[str, np.ndarray], under: str) -> bytes:
    """A pickle, protocol 2, of an OrderedDict of tensors, or of one that has it."""
    dictionary = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\x02", dictionary, b"("]
    for number, (name, values) in enumerate(tensors.items()):
        storage = _STORAGE_NAMES[values.dtype].encode()
        strides = np.empty(
            values.shape, np.bool_
        ).strides  # In elements: they are 1 byte.
        parts += [
            _string(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            b"(" + _string("storage") + b"ctorch\n" + storage + b"\n",
            _string(str(number)) + _string("cpu") + _integer(values.size) + b"tQ",
            _integer(0),
            b"(" + b"".join(map(_integer, values.shape)) + b"t",
            b"(" + b"".join(map(_integer, strides)) + b"t",
            b"\x89" + dictionary + b"tR",
        ]
    outer = (b"}" + _string(under), b"s") if under else (b"", b"")
    return b"".join([parts[0], outer[0], *parts[1:], b"u", outer[1], b"."])


def _string(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value <= _LARGEST_INT4:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)
