"""Index of the records of TFRecord files, and checked random access to them."""

import contextlib
import hashlib
import os
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import google_crc32c
import numpy as np

from bert_tf.data.records.record_numbers import NumberedRecords, RecordPlace
from bert_tf.data.text.input_files import file_identity, named_paths, report_skipped
from bert_tf.errors import CorruptRecordError
from bert_tf.files import whole_file

# A record is: length (8 bytes), masked crc of the length (4), data, masked crc (4).
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAME_BYTES = _HEADER.size + _FOOTER.size

_NOT_RECORDS = (".json", ".txt", ".md", ".md5", ".sha256", ".npy", ".tmp", ".index")
_MAX_OPEN_FILES = 256

Handle = TypeVar("Handle")


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord files store: crc32c, rotated and offset."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record_files(input_files_dir: str) -> list[str]:
    """The record files of one or more folders, in a fixed order.

    Args:
      input_files_dir: Comma-separated folders or files; * and ? are expanded.

    Returns:
      Paths, sorted within each folder.

    Raises:
      FileNotFoundError: if a part of the list matches nothing, or holds no file.
    """
    files: list[str] = []
    for pattern, matches in named_paths(input_files_dir):
        if matches != [pattern]:
            matches = [
                match
                for match in matches
                if os.path.isdir(match) or not match.endswith(_NOT_RECORDS)
            ]
        if not matches:
            raise FileNotFoundError(
                f"There is no file or folder {pattern}. Received: {input_files_dir}. "
                "Correct the path."
            )
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
        raise FileNotFoundError(
            f"A folder of records must be given. Received: {input_files_dir!r}."
        )
    seen: dict[object, str] = {}
    for path in files:
        other = seen.setdefault(file_identity(path), path)
        if other is not path:
            raise FileExistsError(
                f"{input_files_dir} names a file twice: {other} and {path}. Its "
                "records would count double: name it once, or remove the link."
            )


def _files_of(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    files, skipped = [], []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        is_record_file = (
            entry.is_file()
            and not entry.name.startswith((".", "_"))
            and not entry.name.endswith(_NOT_RECORDS)
        )
        (files if is_record_file else skipped).append(entry)
    if files:
        report_skipped(path, [entry.name for entry in skipped])
    return [entry.path for entry in files]


def scan_offsets(path: str) -> np.ndarray:
    """Finds every record of a file by its length fields.

    Args:
      path: A TFRecord file.

    Returns:
      [n + 1] int64: the offset of each record, and the size of the file.

    Raises:
      CorruptRecordError: if the file is empty or truncated, or a length is damaged.
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
    """Offset of the record after the one at `offset`."""
    place = f"{path}, record {record}, byte offset {offset}"
    if len(header) == _HEADER.size:
        length, crc = _HEADER.unpack(header)
        if masked_crc(header[:8]) != crc:
            raise CorruptRecordError(
                f"{place}: the length field is damaged, or this is not an "
                "uncompressed TFRecord file. Make the file again, unpack it if it is "
                "compressed, or move it out of the folder if it never held records."
            )
        end = offset + _FRAME_BYTES + length
        if end <= size:
            return end
    raise CorruptRecordError(
        f"{place}: the file of {size} bytes is truncated within this record. Make or "
        "copy the file again."
    )


def _cache_files(path: str, cache_dir: str) -> tuple[str, str]:
    """Paths of the stored offsets of a file in its current state.

    Returns:
      The path, and that of earlier versions, which left out inode and change time.
    """
    status = os.stat(path)
    earlier = f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"
    # A copy may have the size and the time of the file that it replaces, but it has
    # another inode or another change time.
    state = f"{earlier}|{status.st_ctime_ns}|{status.st_ino}"
    name, earlier_name = (
        os.path.join(cache_dir, hashlib.sha256(text.encode()).hexdigest() + ".npy")
        for text in (state, earlier)
    )
    return name, earlier_name


def _stored_offsets(path: str, cache_dir: str) -> np.ndarray | None:
    """The stored offsets of a file as it is now; None if there are no valid ones."""
    name, earlier_name = _cache_files(path, cache_dir)
    for stored in (name, earlier_name):
        with contextlib.suppress(OSError, ValueError, EOFError):
            # The earlier name may be that of a replaced file: compare change times.
            is_later = os.stat(stored).st_mtime_ns > os.stat(path).st_ctime_ns
            if stored == name or is_later:
                # Indexing a plain view is much faster than indexing the memory map.
                offsets = np.load(stored, mmap_mode="r", allow_pickle=False)
                return offsets.view(np.ndarray)
    return None


def load_offsets(path: str, cache_dir: str = "") -> np.ndarray:
    """The offsets of `scan_offsets`, memory-mapped from a cache if there is one.

    Args:
      path: A TFRecord file.
      cache_dir: Folder in which offsets are cached between runs; empty for no cache.

    Returns:
      [n + 1] int64.
    """
    if not cache_dir:
        return scan_offsets(path)
    offsets = _stored_offsets(path, cache_dir)
    if offsets is None:
        offsets = scan_offsets(path)
        os.makedirs(cache_dir, exist_ok=True)
        # Several workers may write it at once.
        with whole_file(_cache_files(path, cache_dir)[0]) as file:
            np.save(file, offsets)
    return offsets


class OpenFiles(Generic[Handle]):
    """Open files; of too many the least recently used is closed."""

    def __init__(
        self, open_file: Callable[[str], Handle], close_file: Callable[[Handle], None]
    ) -> None:
        """Opens nothing yet.

        Args:
          open_file: Path -> open file.
          close_file: Closes what `open_file` returned.
        """
        self._open_file = open_file
        self._close_file = close_file
        self._handles: OrderedDict[str, Handle] = OrderedDict()

    def __getitem__(self, path: str) -> Handle:
        """The open file of that path."""
        if path in self._handles:
            self._handles.move_to_end(path)
            return self._handles[path]
        if len(self._handles) >= _MAX_OPEN_FILES:
            self._close_file(self._handles.popitem(last=False)[1])
        self._handles[path] = self._open_file(path)
        return self._handles[path]

    def close(self) -> None:
        """Closes every file."""
        while self._handles:
            self._close_file(self._handles.popitem()[1])

    def __del__(self) -> None:
        """Closes the files of a set that is no longer used."""
        self.close()


def open_descriptors() -> OpenFiles[int]:
    """Files by path, as descriptors to read from."""
    return OpenFiles(lambda path: os.open(path, os.O_RDONLY), os.close)


class RecordIndex(NumberedRecords):
    """Random access to all records of a list of TFRecord files, by number."""

    format = "tfrecord"

    def __init__(self, files: list[str], cache_dir: str = "") -> None:
        """Finds every record.

        Args:
          files: TFRecord files, in the order of the global record numbers.
          cache_dir: Folder in which offsets are cached between runs; empty for none.

        Raises:
          CorruptRecordError: if a file is empty or truncated.
        """
        self._offsets = [load_offsets(path, cache_dir) for path in files]
        super().__init__(files, [len(offsets) - 1 for offsets in self._offsets])
        self._descriptors = open_descriptors()

    def place(self, number: int) -> RecordPlace:
        """Location of the record with a global number."""
        shard, record = map(int, self.locate(np.asarray(number)))
        return RecordPlace(self.files[shard], record, int(self._offsets[shard][record]))

    def read(self, numbers: np.ndarray) -> list[bytes]:
        """Reads records and checks their checksums.

        Args:
          numbers: [n] int64 global record numbers, each in [0, len(self)).

        Returns:
          The n serialised examples.

        Raises:
          CorruptRecordError: naming file, record and byte offset.
        """
        return [
            self._read_one(int(shard), int(record))
            for shard, record in zip(*self.locate(numbers), strict=True)
        ]

    def _read_one(self, shard: int, record: int) -> bytes:
        begin, end = self._offsets[shard][record : record + 2]
        descriptor = self._descriptors[self.files[shard]]
        frame = os.pread(descriptor, int(end - begin), int(begin))
        data = frame[_HEADER.size : -_FOOTER.size]
        if len(frame) == end - begin:
            [crc] = _FOOTER.unpack_from(frame, len(frame) - _FOOTER.size)
            if crc == masked_crc(data):
                return data
        place = RecordPlace(self.files[shard], record, int(begin))
        raise CorruptRecordError(
            f"{place}: the record is damaged (its checksum does not match). Make or "
            "copy the file again."
        )

    def close(self) -> None:
        """Closes every file."""
        self._descriptors.close()
