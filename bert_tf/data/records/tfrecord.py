"""TFRecord files: an index of their records, checked random access, and writing.

Source: the framing as TensorFlow documents it (`tf.io.TFRecordWriter`). TensorFlow's
own reader has no random access, and takes seconds to import in each worker process.
"""

import contextlib
import hashlib
import os
import struct
import tempfile
from pathlib import Path

import numpy as np

from bert_tf.data.output_files import FileWriter
from bert_tf.data.records.gzip_files import (
    FRAME_BYTES,
    HEADER,
    earlier_file_state,
    file_state,
    is_gzip,
    read_length,
    unpack_files,
)
from bert_tf.data.records.record_index import OpenFiles, RecordIndex, RecordLocation
from bert_tf.errors import CorruptRecordError
from bert_tf.files import masked_crc32c, save_array, whole_file

_FOOTER = struct.Struct("<I")


def scan_offsets(path: str, name: str = "") -> np.ndarray:
    """Finds every record of a file by its length fields.

    Args:
      path: A TFRecord file.
      name: What messages call the file; default: its path.

    Returns:
      [n + 1] int64: the offset of each record, and the size of the file.

    Raises:
      CorruptRecordError: if the file is empty or truncated, or a length is damaged.
    """
    size, name = os.path.getsize(path), name or path
    if size == 0:
        raise CorruptRecordError(f"{name} is empty. Make it again, or remove it.")
    offsets = [0]
    offset = 0
    with open(path, "rb") as file:
        while offset < size:
            header = file.read(HEADER.size)
            offset = _next_offset(name, len(offsets) - 1, offset, header, size)
            offsets.append(offset)
            file.seek(offset)
    return np.asarray(offsets, np.int64)


def _next_offset(path: str, record: int, offset: int, header: bytes, size: int) -> int:
    """Offset of the record after the one at `offset`."""
    location = f"{path}, record {record}, byte offset {offset}"
    if len(header) == HEADER.size:
        length = read_length(header)
        if length is None:
            raise CorruptRecordError(
                f"{location}: the length field is damaged, or this is not an "
                "uncompressed TFRecord file. Make the file again, unpack it if it is "
                "compressed, or move it out of the folder if it never held records."
            )
        end = offset + FRAME_BYTES + length
        if end <= size:
            return end
    raise CorruptRecordError(
        f"{location}: the file of {size} bytes is truncated within this record. Make "
        "or copy the file again."
    )


def _cache_files(path: str, cache_dir: str) -> tuple[str, str]:
    """Paths of the stored offsets of a file in its current state.

    Returns:
      The path, and that of earlier versions.
    """
    name, earlier_name = (
        os.path.join(cache_dir, hashlib.sha256(text.encode()).hexdigest() + ".npy")
        for text in (file_state(path), earlier_file_state(path))
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


def load_offsets(path: str, cache_dir: str = "", name: str = "") -> np.ndarray:
    """The offsets of `scan_offsets`, memory-mapped from a cache if there is one.

    Args:
      path: A TFRecord file.
      cache_dir: Folder in which offsets are cached between runs; empty for no cache.
      name: See `scan_offsets`.

    Returns:
      [n + 1] int64.
    """
    if not cache_dir:
        return scan_offsets(path, name)
    offsets = _stored_offsets(path, cache_dir)
    if offsets is None:
        offsets = scan_offsets(path, name)
        os.makedirs(cache_dir, exist_ok=True)
        # Several workers may write it at once.
        with whole_file(_cache_files(path, cache_dir)[0]) as file:
            save_array(file, offsets)
    return offsets


class TfrecordIndex(RecordIndex):
    """Random access to all records of a list of TFRecord files, by number."""

    format = "tfrecord"

    def __init__(self, files: list[str], cache_dir: str = "") -> None:
        """Finds every record.

        Args:
          files: TFRecord files, in the order of the global record numbers; some may
            be compressed with gzip.
          cache_dir: Folder in which offsets and unpacked files are cached between runs;
            empty for none. Unpacked files are then temporary.

        Raises:
          CorruptRecordError: if a file is empty, truncated or not a gzip file.
        """
        self._temporary: tempfile.TemporaryDirectory | None = None
        folder = cache_dir
        if not folder and any(map(is_gzip, files)):
            self._temporary = tempfile.TemporaryDirectory(
                prefix="bert_tf.", ignore_cleanup_errors=True
            )
            folder = self._temporary.name
        self._paths = unpack_files(files, folder)
        self._offsets = [
            load_offsets(path, cache_dir, name)
            for path, name in zip(self._paths, files, strict=True)
        ]
        super().__init__(files, [len(offsets) - 1 for offsets in self._offsets])
        self._descriptors: OpenFiles[int] = OpenFiles(
            lambda path: os.open(path, os.O_RDONLY), os.close
        )

    def location(self, number: int) -> RecordLocation:
        """Location of the record with a global number."""
        shard, record = map(int, self.locate(np.asarray(number)))
        return RecordLocation(
            self.files[shard], record, int(self._offsets[shard][record])
        )

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
        descriptor = self._descriptors[self._paths[shard]]
        frame = os.pread(descriptor, int(end - begin), int(begin))
        data = frame[HEADER.size : -_FOOTER.size]
        if len(frame) == end - begin:
            [crc] = _FOOTER.unpack_from(frame, len(frame) - _FOOTER.size)
            if crc == masked_crc32c(data):
                return data
        location = RecordLocation(self.files[shard], record, int(begin))
        raise CorruptRecordError(
            f"{location}: the record is damaged (its checksum does not match). Make or "
            "copy the file again."
        )

    def close(self) -> None:
        """Closes every file."""
        self._descriptors.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def frame_record(data: bytes) -> bytes:
    """A record in TFRecord framing: length, its checksum, data, its checksum."""
    length = len(data).to_bytes(8, "little")
    header = HEADER.pack(len(data), masked_crc32c(length))
    return header + data + _FOOTER.pack(masked_crc32c(data))


def shard_name(number: int, num_shards: int) -> str:
    """Name of shard `number`, from 0, of `num_shards`."""
    return f"part-{number:05d}-of-{num_shards:05d}.tfrecord"


class RecordWriter(FileWriter):
    """Writes one TFRecord file, see `FileWriter`.

    Attributes:
      num_records: Records written.
    """

    def __init__(self, path: str | Path) -> None:
        """Creates the temporary file.

        Args:
          path: The final path.
        """
        super().__init__(path)
        self.num_records = 0

    def write(self, data: bytes) -> None:
        """Adds a serialised example."""
        self.write_framed(frame_record(data))

    def write_framed(self, frame: bytes) -> None:
        """Adds a record with the framing of `frame_record`."""
        self.append(frame)
        self.num_records += 1
