"""Weights in PyTorch's files, read and written without torch.

Only torch reads its own files, and it is too large a dependency for that. Two forms are
read. torch >= 1.6 writes a zip archive: `<root>/data.pkl` is a pickle of the object and
`<root>/data/<key>` holds the values of a storage. Older versions write five pickles (a
magic number, the form's version, facts about the machine, the object, the keys of
storages), then the number of elements (int64) and the elements of each storage.
"""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import BinaryIO

import numpy as np

from bert_tf.files import placeholder, whole_file
from bert_tf.interop.torch_pickle import (
    MAX_PICKLE_BYTES,
    STORAGE_NAMES,
    Storage,
    Tensor,
    pickle_tensors,
    shown,
    unpickle,
)

# Keys under which training programs keep the weights, next to the optimizer's state.
_WEIGHT_KEYS = ("model", "state_dict", "module")
_MAX_DEPTH = 4  # Such dictionaries inside one another.
_WRAPPER = "module."  # Prefix of names that training on several devices adds.

_ZIP_SIGNATURE = b"PK\x03\x04"
_LEGACY_SIGNATURE = b"\x80"  # The first instruction of torch's pickles.
_LEGACY_BEGIN = {"magic number": 0x1950A86A20F9469CFC6C, "version": 1001}
# Weights hardly compress; a zip bomb does.
_MAX_RATIO = 100
_MAX_FREE_BYTES = 1 << 20  # A few zeros may compress to any size.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError)
_ZIP_ERRORS += (LookupError, OverflowError, RuntimeError)  # Encrypted; a newer version.

_MAX_REASON = 500  # Characters of a message.

_ROOT = "archive"
_ALIGNMENT_BYTES = 64  # torch maps files into memory, where values should be aligned.
_PADDING_HEADER, _PADDING_ID = struct.Struct("<2H"), 0x4246
_LOCAL_HEADER_BYTES = 30


# Gives the bytes of a storage, uint8 [num_bytes].
_Reader = Callable[[Storage], np.ndarray]


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
      ValueError: if it is damaged, or holds, or asks for, anything but tensors and
        plain data.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`path` must be a file. Received: path={path}.")
    try:
        with open(path, "rb") as file:
            first = file.read(64)
            if first.startswith(_ZIP_SIGNATURE):
                value, read = _open_zip(file)
            elif first.startswith(_LEGACY_SIGNATURE):
                value, read = _open_legacy(file)
            else:
                kind = placeholder(path) or f"begins with {shown(first[:16])}"
                raise ValueError(f"not a file of torch: {kind}")
            return _read_tensors(_find_weights(value), read)
    except (ValueError, OverflowError, OSError) as error:
        # Some messages of Python repeat the content of the file.
        reason = " ".join(str(error)[:_MAX_REASON].split())
        raise ValueError(
            f"{path}: {reason}. Fetch the file again or, if you trust its source, save "
            "the model's `state_dict()` with torch."
        ) from error


def is_torch(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as those of `torch.save` do."""
    with open(path, "rb") as file:
        return file.read(4).startswith((_ZIP_SIGNATURE, _LEGACY_SIGNATURE))


def _open_zip(file: BinaryIO) -> tuple[object, _Reader]:
    try:
        archive = zipfile.ZipFile(file)
        _check_entries(archive)
    except _ZIP_ERRORS as error:
        raise ValueError(f"its zip archive is broken or unsafe ({error})") from error
    names = archive.namelist()
    roots = [n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(
            f"a zip file of torch has one <root>/data.pkl. Received: {len(roots)} in "
            f"{len(names)} entries"
        )
    [root] = roots
    if f"{root}byteorder" in names:  # Older versions of torch do not write it.
        order = _read_entry(archive, f"{root}byteorder", len("little"))
        if bytes(order) != b"little":
            raise ValueError("its byte order must be little")
    num_bytes = archive.getinfo(f"{root}data.pkl").file_size
    if num_bytes > MAX_PICKLE_BYTES:
        raise ValueError(f"its pickle has over {MAX_PICKLE_BYTES} bytes")
    data = _read_entry(archive, f"{root}data.pkl", num_bytes)
    value, _ = unpickle(io.BytesIO(data))
    return value, lambda storage: _read_entry(
        archive, f"{root}data/{storage.key}", storage.num_bytes
    )


def _check_entries(archive: zipfile.ZipFile) -> None:
    """Refuses misleading names, overlaps and zip bombs; zipfile checks the rest."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [entry.header_offset for entry in entries[1:]] + [archive.start_dir]
    names = set()
    for entry, end in zip(entries, ends, strict=True):
        name = entry.orig_filename
        parts = name.removesuffix("/").split("/")
        if "\\" in name or "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError(f"the name {shown(name)} is not that of a file in it")
        if name in names:
            raise ValueError(f"the name {shown(name)} is there twice")
        names.add(name)
        begin = entry.header_offset + _LOCAL_HEADER_BYTES + len(name)
        if begin + entry.compress_size > end:
            raise ValueError(f"the entry {shown(name)} overlaps another")
        # Other compressions can turn a few bytes into gigabytes in a single call.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"the entry {shown(name)} has an unknown compression")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > _MAX_FREE_BYTES + _MAX_RATIO * archive.start_dir:
        raise ValueError(f"its entries claim {claimed} bytes out of {ends[-1]}")


def _read_entry(archive: zipfile.ZipFile, name: str, num_bytes: int) -> np.ndarray:
    """All bytes of an entry, uint8 [num_bytes]; zipfile checks their sum."""
    try:
        entry = archive.getinfo(name)
        if entry.file_size != num_bytes:
            raise ValueError(f"{entry.file_size} bytes instead of {num_bytes}")
        data = np.empty(num_bytes, np.uint8)
        with archive.open(entry) as file:
            if file.readinto(data) != num_bytes or file.read(1):
                raise ValueError("another length than listed")
    except KeyError as error:
        raise ValueError(f"the entry {shown(name)} is missing") from error
    except _ZIP_ERRORS as error:
        raise ValueError(f"the entry {shown(name)} is broken ({error})") from error
    return data


def _open_legacy(file: BinaryIO) -> tuple[object, _Reader]:
    file.seek(0)
    stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    for name, expected in _LEGACY_BEGIN.items():
        value, _ = unpickle(stream)
        if value != expected:
            raise ValueError(f"its {name} must be {expected}. Received: {shown(value)}")
    machine, _ = unpickle(stream)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("it must come from a little-endian machine")
    value, storages = unpickle(stream)
    keys, _ = unpickle(stream)
    if keys != sorted(storages):  # As torch does.
        raise ValueError(f"it must list its {len(storages)} storages, sorted by key")
    begins, end = {}, stream.tell()
    for storage in map(storages.get, keys):
        file.seek(end)
        count = np.fromfile(file, "<i8", 1).tolist()
        if count != [storage.num_elements]:
            raise ValueError(f"{storage} at byte {end} has {count} elements")
        begins[storage] = end + 8
        end += 8 + storage.num_bytes
        if end > os.fstat(file.fileno()).st_size:
            raise ValueError(f"it ends before byte {end}, the end of {storage}")

    def read(storage: Storage) -> np.ndarray:
        file.seek(begins[storage])
        data = np.fromfile(file, np.uint8, storage.num_bytes)
        if len(data) < storage.num_bytes:  # The file has become shorter meanwhile.
            raise ValueError(f"it ends within {storage}")
        return data

    return value, read


def _find_weights(value: object) -> dict[str, Tensor]:
    """The dictionary of tensors in a file's object, without the wrapper's prefix."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(value, dict):
            raise ValueError(
                f"it must hold a dictionary of tensors, not {shown(value)}"
            )
        others = [key for key in value if not isinstance(value[key], Tensor)]
        inner = [key for key in _WEIGHT_KEYS if isinstance(value.get(key), dict)]
        if not others or not inner:
            break
        value = value[inner[0]]
    else:
        raise ValueError(f"its tensors are over {_MAX_DEPTH} dictionaries deep")
    others += [key for key in value if type(key) is not str]
    if others:
        raise ValueError(
            "it must hold tensors by name, or a dictionary of them as "
            f"{', '.join(_WEIGHT_KEYS)}. Received an entry that is not a named tensor: "
            f"{', '.join(map(shown, others[:5]))}"
        )
    weights = {name.removeprefix(_WRAPPER): tensor for name, tensor in value.items()}
    if len(weights) < len(value):
        raise ValueError(f"it has tensors both with and without {_WRAPPER!r}")
    return weights


def _read_tensors(
    tensors: Mapping[str, Tensor], read: _Reader
) -> dict[str, np.ndarray]:
    """The tensors' values, each storage read once."""
    values: dict[str, np.ndarray] = {}
    for storage in {tensor.storage: None for tensor in tensors.values()}:
        data = read(storage)
        # Any byte but 0 means true; NumPy needs 1.
        is_bool = storage.dtype == np.bool_
        values[storage.key] = data != 0 if is_bool else data.view(storage.dtype)
    # Tensors that are not contiguous are copied. In honest files, the copies are not
    # larger than the storages; but with strides of 0, or many views, they could be.
    room = sum(array.nbytes for array in values.values())
    arrays: dict[Tensor, np.ndarray] = {}
    for tensor in set(tensors.values()):
        array = tensor.view(values[tensor.storage.key])
        if not array.flags.c_contiguous:
            room -= array.nbytes
            if room < 0:
                raise ValueError("its tensors repeat a storage many times")
            array = array.copy(order="C")
        arrays[tensor] = array
    return {name: arrays[tensor] for name, tensor in tensors.items()}


def save_torch(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    *,
    under: str = "",
) -> None:
    """Writes tensors so that `torch.load(path, weights_only=True)` reads them.

    The same tensors make the same bytes. The write is atomic.

    Args:
      path: The file, replaced if it exists.
      tensors: Name -> values of a type that `load_torch` reads, in the file's order.
      under: A key, such as `model`, for the dictionary of tensors in an outer one, as
        in the files of training programs; empty for the tensors alone.

    Raises:
      ValueError: if a tensor has another type, or a name is not a string.
    """
    arrays = {}
    for name, values in tensors.items():
        is_array = isinstance(values, np.ndarray)
        dtype = values.dtype.newbyteorder("<") if is_array else type(values)
        if not isinstance(name, str) or dtype not in STORAGE_NAMES:
            known = ", ".join(map(str, STORAGE_NAMES))
            raise ValueError(
                f"{path}: tensors must be arrays of {known} under names. Received: "
                f"{name!r} of {dtype}. Convert it first."
            )
        arrays[name] = np.asarray(values, dtype)
    entries = {"data.pkl": pickle_tensors(arrays, under), "byteorder": b"little"}
    # Not every dtype of NumPy has a buffer, but bytes do.
    for number, values in enumerate(arrays.values()):
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        entries[f"data/{number}"] = data
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in (entries | {"version": b"3\n"}).items():
            entry = zipfile.ZipInfo(f"{_ROOT}/{name}")  # Dated 1980, always.
            begin = file.tell() + _LOCAL_HEADER_BYTES + len(entry.filename)
            padding = -(begin + _PADDING_HEADER.size) % _ALIGNMENT_BYTES
            entry.extra = _PADDING_HEADER.pack(_PADDING_ID, padding) + bytes(padding)
            entry.file_size = len(data)
            with archive.open(entry, "w") as opened:
                opened.write(data)
