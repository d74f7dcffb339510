"""Where each record of a set of TFRecord files begins, and reading one, checked."""

import dataclasses
import glob
import hashlib
import os
import struct
import tempfile
from collections import OrderedDict

import google_crc32c
import numpy as np

from bert_tf.errors import CorruptRecordError

# A record is: length (8 bytes), masked crc of the length (4), data, masked crc (4).
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAME_BYTES = _HEADER.size + _FOOTER.size

_NOT_RECORDS = (".json", ".txt", ".md", ".md5", ".sha256", ".npy", ".tmp", ".index")
_MAX_OPEN_FILES = 256


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord files store: crc32c, rotated and offset."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record_files(input_files_dir: str) -> list[str]:
    """The record files of one or more folders, in a fixed order.

    Args:
      input_files_dir: Folders (or files) separated by commas; * and ? work.

    Returns:
      Paths, sorted within each folder.

    Raises:
      FileNotFoundError: if a part of the list matches nothing, or holds no file.
    """
    files: list[str] = []
    for pattern in filter(None, (part.strip() for part in input_files_dir.split(","))):
        if os.path.exists(pattern):
            matches = [pattern]
        else:
            matches = [
                match
                for match in sorted(glob.glob(pattern))
                if os.path.isdir(match) or not match.endswith(_NOT_RECORDS)
            ]
        if not matches:
            raise FileNotFoundError(f"There is no file or folder {pattern}.")
        for match in matches:
            found = _files_of(match)
            if not found:
                raise FileNotFoundError(
                    f"{match} holds no record files. Make some with `python -m bert_tf "
                    "data create`."
                )
            files += map(os.path.normpath, found)
    _check_files(input_files_dir, files)
    return files


def _check_files(input_files_dir: str, files: list[str]) -> None:
    """Refuses an empty list, and a file that is named twice."""
    if not files:
        raise FileNotFoundError(f"{input_files_dir!r} names no folder of records.")
    seen: dict[str, str] = {}
    for path in files:
        other = seen.setdefault(os.path.realpath(path), path)
        if other is not path:
            raise FileExistsError(
                f"{input_files_dir} names a file twice: {other} and {path}. Its "
                "records would count double; name it once."
            )


def _files_of(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    return [
        entry.path
        for entry in entries
        if entry.is_file()
        and not entry.name.startswith((".", "_"))
        and not entry.name.endswith(_NOT_RECORDS)
    ]


def scan_offsets(path: str) -> np.ndarray:
    """Finds every record of a file by its length fields.

    Args:
      path: A TFRecord file.

    Returns:
      [n + 1] int64: where each record begins, and the size of the file.

    Raises:
      CorruptRecordError: if the file is empty, cut, or a length is damaged.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise CorruptRecordError(f"{path} is empty. Make it again, or remove it.")
    offsets = [0]
    offset = 0
    with open(path, "rb") as file:
        while offset < size:
            header = file.read(_HEADER.size)
            offset = _next_offset(path, len(offsets) - 1, offset, header, size)
            offsets.append(offset)
            file.seek(offset)
    return np.asarray(offsets, np.int64)


def _next_offset(path: str, record: int, offset: int, header: bytes, size: int) -> int:
    """Where the record after the one at `offset` begins."""
    place = f"{path}, record {record}, byte offset {offset}"
    if len(header) == _HEADER.size:
        length, crc = _HEADER.unpack(header)
        if masked_crc(header[:8]) != crc:
            raise CorruptRecordError(
                f"{place}: the length field is damaged, or this is not an "
                "uncompressed TFRecord file. Make the file again."
            )
        end = offset + _FRAME_BYTES + length
        if end <= size:
            return end
    raise CorruptRecordError(
        f"{place}: the file is cut within this record; it has {size} bytes. Make or "
        "copy the file again."
    )


def _cache_file(path: str, cache_dir: str) -> str:
    """Name of the stored offsets of a file in its present state."""
    status = os.stat(path)
    state = f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"
    return os.path.join(cache_dir, hashlib.sha256(state.encode()).hexdigest() + ".npy")


def load_offsets(path: str, cache_dir: str = "") -> np.ndarray:
    """The offsets of `scan_offsets`, memory-mapped from a cache where there is one.

    Args:
      path: A TFRecord file.
      cache_dir: Where offsets are kept between runs; empty for nowhere.

    Returns:
      [n + 1] int64.
    """
    if not cache_dir:
        return scan_offsets(path)
    cached = _cache_file(path, cache_dir)
    try:
        return np.load(cached, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        offsets = scan_offsets(path)  # Not stored yet, or cut by a crash.
    os.makedirs(cache_dir, exist_ok=True)
    # Several workers may do this at once: each writes a file of its own, and the
    # renames replace one right answer by another.
    with tempfile.NamedTemporaryFile(dir=cache_dir, delete=False) as file:
        np.save(file, offsets)
    os.replace(file.name, cached)
    return offsets


@dataclasses.dataclass(frozen=True)
class RecordPlace:
    """Where a record stands: for messages.

    Attributes:
      path: The file.
      record: Its number within the file, from 0.
      offset: Its first byte.
    """

    path: str
    record: int
    offset: int

    def __str__(self) -> str:
        """The form that error messages use."""
        return f"{self.path}, record {self.record}, byte offset {self.offset}"


class RecordIndex:
    """Random access to all records of a list of files, by number."""

    def __init__(self, files: list[str], cache_dir: str = "") -> None:
        """Finds every record.

        Args:
          files: TFRecord files; their records are numbered through.
          cache_dir: Where offsets are kept between runs; empty for nowhere.

        Raises:
          CorruptRecordError: if a file is empty or cut.
        """
        self.files = files
        self._offsets = [load_offsets(path, cache_dir) for path in files]
        counts = [len(offsets) - 1 for offsets in self._offsets]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._descriptors: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        """Number of records."""
        return int(self.starts[-1])

    def place(self, number: int) -> RecordPlace:
        """Where record `number` stands."""
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        record = number - int(self.starts[shard])
        return RecordPlace(self.files[shard], record, int(self._offsets[shard][record]))

    def read(self, numbers: np.ndarray) -> list[bytes]:
        """Reads records and checks their sums.

        Args:
          numbers: [n] int64, each in [0, len(self)).

        Returns:
          The n serialised examples.

        Raises:
          CorruptRecordError: naming file, record and byte offset.
        """
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        records = numbers - self.starts[shards]
        return [
            self._read_one(int(shard), int(record))
            for shard, record in zip(shards, records, strict=True)
        ]

    def _read_one(self, shard: int, record: int) -> bytes:
        begin, end = self._offsets[shard][record : record + 2]
        frame = os.pread(self._descriptor(shard), int(end - begin), int(begin))
        data = frame[_HEADER.size : -_FOOTER.size]
        if len(frame) == end - begin:
            [crc] = _FOOTER.unpack_from(frame, len(frame) - _FOOTER.size)
            if crc == masked_crc(data):
                return data
        place = RecordPlace(self.files[shard], record, int(begin))
        raise CorruptRecordError(
            f"{place}: the record is damaged (its checksum does not agree). Make or "
            "copy the file again."
        )

    def _descriptor(self, shard: int) -> int:
        """An open file, the least recently used one closed when there are many."""
        if shard in self._descriptors:
            self._descriptors.move_to_end(shard)
            return self._descriptors[shard]
        if len(self._descriptors) >= _MAX_OPEN_FILES:
            _, oldest = self._descriptors.popitem(last=False)
            os.close(oldest)
        self._descriptors[shard] = os.open(self.files[shard], os.O_RDONLY)
        return self._descriptors[shard]

    def close(self) -> None:
        """Closes every file."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
