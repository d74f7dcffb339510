"""The zip form of PyTorch's files: a pickle, and an entry for each storage.

torch >= 1.6 writes `<root>/data.pkl`, `<root>/data/<key>` and, later, the byte order in
`<root>/byteorder`. The entries stand uncompressed; a zip program may have changed that.
Nothing is ever extracted: the names of the entries are compared and not followed.
"""

import dataclasses
import io
import struct
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from bert_tf.interop.pickle_walk import MAX_PICKLE_BYTES, shown
from bert_tf.interop.torch_tensors import Storage, TensorPickle

SIGNATURE = b"PK\x03\x04"

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_IS_ENCRYPTED = 0x1
_IS_UTF8 = 0x800
# Weights hardly become smaller; a file that claims more wants to fill the memory.
_MAX_RATIO = 100
_MAX_FREE_BYTES = 1 << 20  # But a few zeros may be as small as they like.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    OverflowError,
    RuntimeError,  # A password is needed, or (NotImplementedError) a newer version.
    ValueError,
)


@dataclasses.dataclass(frozen=True)
class _Entry:
    """One file in the archive; `begin` is where its data stand."""

    info: zipfile.ZipInfo
    begin: int

    @property
    def end(self) -> int:
        return self.begin + self.info.compress_size


class ZipContent:
    """An open file of the zip form.

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
        try:
            self._archive = zipfile.ZipFile(file)
            self._entries = _find_entries(file, self._archive)
        except _ZIP_ERRORS as error:
            raise ValueError(
                f"its zip archive is broken or unsafe ({error})"
            ) from error
        self._root = _find_root(self._entries)
        self._check_byte_order()
        name = f"{self._root}/data.pkl"
        if self._entries[name].info.file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"{shown(name)} has over {MAX_PICKLE_BYTES} bytes")
        self.value = TensorPickle(io.BytesIO(self._read(name))).value

    def read(self, storage: Storage) -> np.ndarray:
        """The bytes of a storage, uint8 [num_bytes].

        Raises:
          ValueError: if they are not there, or not what they were when saved.
        """
        name = f"{self._root}/data/{storage.key}"
        entry = self._entries.get(name)
        if entry is None:
            raise ValueError(f"the entry {shown(name)} is missing")
        if entry.info.file_size != storage.num_bytes:
            raise ValueError(
                f"the entry {shown(name)} must have {storage.num_bytes} bytes. "
                f"Received: {entry.info.file_size}"
            )
        return self._read(name)

    def _check_byte_order(self) -> None:
        name = f"{self._root}/byteorder"
        if name not in self._entries:
            return  # Older versions of torch take it for granted.
        order = b""
        if self._entries[name].info.file_size == len(b"little"):
            order = self._read(name).tobytes()
        if order != b"little":
            raise ValueError(f"{shown(name)} must be little. Received: {shown(order)}")

    def _read(self, name: str) -> np.ndarray:
        """All bytes of an entry, uint8."""
        entry = self._entries[name]
        info = entry.info
        if info.flag_bits & _IS_ENCRYPTED:
            raise ValueError(f"the entry {shown(name)} is encrypted")
        try:
            if info.compress_type == zipfile.ZIP_STORED:
                self._file.seek(entry.begin)
                data = np.fromfile(self._file, np.uint8, info.compress_size)
            elif info.compress_type == zipfile.ZIP_DEFLATED:
                with self._archive.open(info) as packed:
                    data = np.frombuffer(packed.read(info.file_size), np.uint8).copy()
            else:
                raise ValueError(f"compression {info.compress_type} is not known")
        except _ZIP_ERRORS as error:
            raise ValueError(f"the entry {shown(name)} is broken ({error})") from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise ValueError(f"the entry {shown(name)} has another length or checksum")
        return data


def _find_entries(file: BinaryIO, archive: zipfile.ZipFile) -> dict[str, _Entry]:
    """Name -> entry; each must have its own name and its own place."""
    entries: dict[str, _Entry] = {}
    for info in archive.infolist():
        name = info.orig_filename
        parts = name.removesuffix("/").split("/")
        if "\\" in name or "\0" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError(f"the name {shown(name)} is not that of a file in it")
        if name in entries:
            raise ValueError(f"the name {shown(name)} is there twice")
        entries[name] = _Entry(info, _find_data(file, info))
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.info.header_offset):
        if entry.info.header_offset < end:
            raise ValueError(f"the entry {shown(entry.info.filename)} overlaps another")
        end = entry.end
    if end > archive.start_dir:
        raise ValueError("an entry overlaps the list of entries")
    claimed = sum(entry.info.file_size for entry in entries.values())
    if claimed > _MAX_FREE_BYTES + _MAX_RATIO * end:
        raise ValueError(f"its entries claim {claimed} bytes out of {end}")
    return entries


def _find_data(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where an entry's data begin: after a header of its own, which must agree."""
    file.seek(info.header_offset)
    fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    signature, flags, method = fields[0], fields[2], fields[3]
    name_length, extra_length = fields[-2:]
    encoding = "utf-8" if info.flag_bits & _IS_UTF8 else "cp437"
    is_same = file.read(name_length) == info.orig_filename.encode(encoding)
    is_same &= (flags, method) == (info.flag_bits, info.compress_type)
    if signature != SIGNATURE or not is_same:
        raise ValueError(f"the header of {shown(info.filename)} says something else")
    return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length


def _find_root(entries: dict[str, _Entry]) -> str:
    """The folder of the only `data.pkl`."""
    roots = [
        name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")
    ]
    if len(roots) != 1:
        raise ValueError(
            f"a zip file of torch has one <root>/data.pkl. Received: {len(roots)} in "
            f"{len(entries)} entries"
        )
    return roots[0]
