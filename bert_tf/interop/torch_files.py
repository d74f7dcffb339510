"""Weights in PyTorch's files, read and written without torch.

Two forms are read. torch >= 1.6 writes a zip archive: `<root>/data.pkl` holds a pickle
of the object and `<root>/data/<key>` the values of a storage. Older versions write five
pickles (a magic number, the form's version, facts about the machine, the object, the
storages' keys), then for every key the number of elements (int64) and the elements.
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
    DTYPES,
    MAX_PICKLE_BYTES,
    Storage,
    TensorView,
    shown,
    unpickle,
)

# Under which training programs keep the weights, beside the optimizer's state.
_WEIGHT_KEYS = ("model", "state_dict", "module")
# Of such dictionaries within one another.
_MAX_DEPTH = 4
# Added by the wrappers that train on several devices.
_WRAPPER = "module."

_ZIP_SIGNATURE = b"PK\x03\x04"
# Weights hardly become smaller; a file that claims more wants to fill the memory.
_MAX_RATIO = 100
_MAX_FREE_BYTES = 1 << 20  # But a few zeros may be as small as they like.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError)
_ZIP_ERRORS += (LookupError, OverflowError, RuntimeError)  # Encrypted; a newer version.

_LEGACY_SIGNATURE = b"\x80"  # The first instruction of every pickle of torch.
_LEGACY_BEGIN = {"magic number": 0x1950A86A20F9469CFC6C, "version": 1001}

_ROOT = "archive"
_STORAGE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# torch maps files into memory, where values should begin at such an address.
_ALIGNMENT_BYTES = 64
_PADDING_ID = 0x4246
_PADDING_HEADER = struct.Struct("<2H")
_LOCAL_HEADER_BYTES = 30
_LARGEST_INT4 = (1 << 31) - 1

_MAX_REASON_CHARS = 500

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
      ValueError: if it is broken, or holds, or asks for, anything but tensors and
        plain data.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`path` must be a file. Received: path={path}.")
    try:
        with open(path, "rb") as file:
            value, read = _open(file)
            return _read_tensors(_find_weights(value), read)
    except (ValueError, OverflowError, OSError) as error:
        # Some messages of Python repeat what the file holds.
        reason = " ".join(str(error)[:_MAX_REASON_CHARS].split())
        raise ValueError(
            f"{path}: {reason}. Fetch the file again or, if you trust its source, save "
            "the model's `state_dict()` with torch."
        ) from error


def is_torch(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as those of `torch.save` do."""
    with open(path, "rb") as file:
        return file.read(64).startswith((_ZIP_SIGNATURE, _LEGACY_SIGNATURE))


def _open(file: BinaryIO) -> tuple[object, _Reader]:
    """The object in a file, with `TensorView`s, and what reads their values."""
    first = file.read(64)
    if first.startswith(_ZIP_SIGNATURE):
        return _open_zip(file)
    if first.startswith(_LEGACY_SIGNATURE):
        return _open_legacy(file)
    kind = placeholder(file.name) or f"begins with {shown(first[:16])}"
    raise ValueError(f"not a file of torch: {kind}")


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
    if f"{root}byteorder" in names:  # Older versions of torch take it for granted.
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
    """Refuses misleading names, overlaps and zip bombs; zipfile finds the rest."""
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
        # Of the others, a few bytes may become gigabytes in a single call.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"the entry {shown(name)} has an unknown compression")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > _MAX_FREE_BYTES + _MAX_RATIO * archive.start_dir:
        raise ValueError(f"its entries claim {claimed} bytes out of {ends[-1]}")


def _read_entry(archive: zipfile.ZipFile, name: str, num_bytes: int) -> np.ndarray:
    """All bytes of an entry, uint8 [num_bytes]."""
    try:
        entry = archive.getinfo(name)
        if entry.file_size != num_bytes:
            raise ValueError(f"{entry.file_size} bytes instead of {num_bytes}")
        with archive.open(entry) as unpacked:  # It must agree with its own header.
            if entry.compress_type == zipfile.ZIP_DEFLATED:
                data = np.frombuffer(bytearray(unpacked.read()), np.uint8)
            else:  # Without the copy that zipfile would make.
                file = archive.fp
                file.seek(entry.header_offset + _LOCAL_HEADER_BYTES - 4)
                file.seek(sum(struct.unpack("<2H", file.read(4))), os.SEEK_CUR)
                data = np.fromfile(file, np.uint8, num_bytes)
        if len(data) != num_bytes or zlib.crc32(data) != entry.CRC:
            raise ValueError("another length or checksum than listed")
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
    begins = {}
    end = stream.tell()
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


def _find_weights(value: object) -> dict[str, TensorView]:
    """The dictionary of tensors in what a file holds, under their plain names."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(value, dict):
            raise ValueError(
                f"it must hold a dictionary of tensors, not {shown(value)}"
            )
        others = [key for key in value if not isinstance(value[key], TensorView)]
        inner = [key for key in _WEIGHT_KEYS if isinstance(value.get(key), dict)]
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


def _read_tensors(
    views: Mapping[str, TensorView], read: _Reader
) -> dict[str, np.ndarray]:
    """The tensors' values, each storage read once."""
    values: dict[str, np.ndarray] = {}
    for storage in {view.storage: None for view in views.values()}:
        data = read(storage)
        # Any byte but 0 means true, but NumPy wants 1.
        is_bool = storage.dtype == np.bool_
        values[storage.key] = data != 0 if is_bool else data.view(storage.dtype)
    # What is not contiguous is copied. The copies of honest files are no larger than
    # the storages; but strides of 0 or many views could repeat one without end.
    room = sum(array.nbytes for array in values.values())
    arrays: dict[TensorView, np.ndarray] = {}
    for view in views.values():
        if view not in arrays:
            arrays[view] = view.of(values[view.storage.key])
            if not arrays[view].flags.c_contiguous:
                room -= arrays[view].nbytes
                if room < 0:
                    raise ValueError("its tensors repeat a storage many times")
                arrays[view] = arrays[view].copy(order="C")
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
