"""Random access to the records of HDF5 files.

h5py reads padded rows. Rows of variable length are read here, because the library (HDF5
2.0.0) loops forever over a damaged heap and allocates whatever a row claims to hold.
"""

import dataclasses
import itertools
import math
import os
import struct
import zlib

import h5py
import numpy as np

from bert_tf.data.records.hdf5_layout import (
    GZIP,
    ROW_REFERENCE,
    filters_of,
    open_datasets,
    read_layout,
    readable,
)
from bert_tf.data.records.record_index import OpenFiles, RecordIndex
from bert_tf.data.records.schema import (
    PER_PREDICTION,
    PER_TOKEN,
    RecordParser,
    RecordShape,
)
from bert_tf.errors import CorruptRecordError

# HDF5 File Format Specification 3.0, section III.E (global heap, version 1).
_COLLECTION = struct.Struct("<4sB3xQ")  # Signature, version and size of all of it.
_OBJECT = struct.Struct("<H6xQ")  # Number and size of its data.
_MAX_COLLECTION_BYTES = 1 << 24  # 64 KiB, unless one row is larger.

Arrays = dict[str, np.ndarray]


def _read_collection(descriptor: int, address: int) -> bytes:
    """All of a heap collection, or nothing if there is none."""
    left = os.fstat(descriptor).st_size - address
    if left < _COLLECTION.size:
        return b""
    header = os.pread(descriptor, _COLLECTION.size, address)
    *signature, size = _COLLECTION.unpack(header)
    if signature != [b"GCOL", 1] or size > min(left, _MAX_COLLECTION_BYTES):
        return b""
    return os.pread(descriptor, size, address)


def _find_object(collection: bytes, number: int, size: int) -> bytes:
    """The data of an object of a heap collection, as far as it is there."""
    words = np.frombuffer(collection, "<u8", len(collection) // 8)
    # This is several times faster than going from header to header. Without references
    # to it a header is the number and the size, but values may look the same.
    headers = np.flatnonzero(words[:-1] == number)
    headers = headers[words[headers + 1] == size]
    if len(headers) == 1:
        begin = int(headers[0]) * 8 + _OBJECT.size
        return collection[begin : begin + size]
    begin = _COLLECTION.size
    while begin + _OBJECT.size <= len(collection):
        found, length = _OBJECT.unpack_from(collection, begin)
        begin += _OBJECT.size
        if found == number:
            return collection[begin : begin + min(length, size)]
        if found == 0:  # The rest is free.
            break
        begin += -(-length // 8) * 8
    return b""


def _read_references(dataset: h5py.Dataset, records: np.ndarray) -> np.ndarray:
    """Where rows of variable length are: [n] `ROW_REFERENCE`."""
    descriptor, offset = dataset.file.id.get_vfd_handle(), dataset.id.get_offset()
    size = ROW_REFERENCE.itemsize
    data = b"".join(
        os.pread(descriptor, size, offset + size * record)
        for record in records.tolist()
    )
    return np.frombuffer(data, ROW_REFERENCE)


def _read_rows(path: str, dataset: h5py.Dataset, references: np.ndarray) -> np.ndarray:
    """The values of rows of variable length, one row after another."""
    descriptor = dataset.file.id.get_vfd_handle()
    dtype = h5py.check_vlen_dtype(dataset.dtype)
    collections: dict[int, bytes] = {}
    rows = []
    for length, address, number in references.tolist():
        if not length:
            continue
        if address not in collections:
            collections[address] = _read_collection(descriptor, address)
        size = length * dtype.itemsize
        rows.append(_find_object(collections[address], number, size))
        if len(rows[-1]) < size:
            raise CorruptRecordError(
                f"{path}, dataset {dataset.name[1:]}: a row is damaged, or is not at "
                f"byte offset {address}, where it should be. Make or copy the file "
                "again."
            )
    return np.frombuffer(b"".join(rows), dtype)


def _consecutive_runs(records: np.ndarray) -> list[tuple[int, int]]:
    """Ascending numbers as stretches without a gap: the first one, and the end.

    A slice for each is several times faster than the library's list of records.
    """
    gaps = np.flatnonzero(np.diff(records) != 1) + 1
    begins, ends = records[[0, *gaps]], records[[*(gaps - 1), -1]] + 1
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


class Hdf5Index(RecordIndex):
    """Random access to all records of a list of HDF5 files, by number.

    Attributes:
      shape: The lengths of the records; without padding those of the longest ones.
      is_variable_length: Whether the files hold rows without padding.
    """

    format = "hdf5"

    def __init__(self, files: list[str]) -> None:
        """Checks every file.

        Args:
          files: HDF5 files; their records are numbered through.

        Raises:
          CorruptRecordError: if a file is not as it should be, or two differ.
        """
        self._layouts = [read_layout(path) for path in files]
        super().__init__(files, [layout.num_records for layout in self._layouts])
        first = self._layouts[0]
        for path, layout in zip(files, self._layouts, strict=True):
            lengths = [(x.max_seq_length, x.max_predictions) for x in (first, layout)]
            is_equal = first.is_variable_length or lengths[0] == lengths[1]
            if layout.is_variable_length != first.is_variable_length or not is_equal:
                raise CorruptRecordError(
                    "All records of a set must have the same lengths, and padding or "
                    f"none. {files[0]} has max_seq_length, max_predictions_per_seq="
                    f"{lengths[0]}, and {path} {lengths[1]}."
                )
        self.is_variable_length = first.is_variable_length
        self.shape = RecordShape(
            max(layout.max_seq_length for layout in self._layouts),
            max(layout.max_predictions for layout in self._layouts),
        )
        self._files: OpenFiles[tuple[h5py.File, dict[str, h5py.Dataset]]] = OpenFiles(
            open_datasets, lambda opened: opened[0].close()
        )
        # Which chunks of a dataset have the right length.
        self._sound_chunks: dict[tuple[str, str], np.ndarray] = {}

    def read(self, numbers: np.ndarray) -> Arrays:
        """Reads records.

        Args:
          numbers: [n] int64, each in [0, len(self)).

        Returns:
          The features that HDF5 files have: int64 [n, S], [n, P], and
          `next_sentence_labels` [n, 1].

        Raises:
          CorruptRecordError: naming file and record, or dataset.
        """
        # In the order of the file, each once: the library takes no others.
        unique, positions = np.unique(numbers, return_inverse=True)
        shards, records = self.locate(unique)
        parts = [
            self._read_file(int(shard), records[shards == shard])
            for shard in np.unique(shards)
        ]
        return {
            name: np.concatenate([part[name] for part in parts])[positions]
            for name in parts[0]
        }

    def _read_file(self, shard: int, records: np.ndarray) -> Arrays:
        """Some records of one file, ascending."""
        path, layout = self.files[shard], self._layouts[shard]
        file, datasets = self._files[path]
        descriptor = file.id.get_vfd_handle()
        # The library would take zeros for what is missing.
        if os.fstat(descriptor).st_size < layout.num_bytes:
            raise CorruptRecordError(
                f"{path}: the file was cut while it was read. Make or copy it again."
            )
        arrays, runs = {}, _consecutive_runs(records)
        for name, width in layout.widths.items():
            if not width:
                continue
            with readable(f"{path}, dataset {name}"):
                dataset = datasets[name]
                if dataset.compression == "gzip":
                    self._check_chunks(path, dataset, records)
                if dataset.chunks:
                    rows = dataset[records]
                else:
                    rows = np.concatenate([dataset[begin:end] for begin, end in runs])
                arrays[name] = rows.reshape(-1, width).astype(np.int64)
        if layout.is_variable_length:
            arrays |= self._read_variable(shard, PER_TOKEN, records)
            arrays |= self._read_variable(shard, PER_PREDICTION, records)
        return arrays

    def _check_chunks(
        self, path: str, dataset: h5py.Dataset, records: np.ndarray
    ) -> None:
        """Refuses a compressed chunk that is longer or shorter than it should be."""
        chunk = dataset.chunks
        chunk_bytes = math.prod(chunk) * dataset.dtype.itemsize
        grid = [-(-s // c) for s, c in zip(dataset.shape, chunk, strict=True)]
        sound = self._sound_chunks.setdefault(
            (path, dataset.name), np.zeros((grid[0], math.prod(grid[1:])), bool)
        )
        gzip = filters_of(dataset.id).index(GZIP)
        blocks = np.unique(records // chunk[0])
        for row, part in itertools.product(blocks, range(sound.shape[1])):
            if sound[row, part]:
                continue
            begin = (int(row) * chunk[0], part * chunk[-1])[: dataset.ndim]
            mask, data = dataset.id.read_direct_chunk(begin)
            is_plain = mask >> gzip & 1  # As long as it is in the file.
            if not is_plain:
                data = zlib.decompressobj().decompress(data, chunk_bytes + 1)
                if len(data) != chunk_bytes:
                    raise ValueError(f"the chunk at {begin} is not {chunk_bytes} bytes")
            sound[row, part] = True

    def _read_variable(
        self, shard: int, group: tuple[str, ...], records: np.ndarray
    ) -> Arrays:
        """Features without padding that are equally long, padded."""
        path, layout = self.files[shard], self._layouts[shard]
        is_per_token = group[0] in PER_TOKEN
        longest = layout.max_seq_length if is_per_token else layout.max_predictions
        width = (
            self.shape.max_seq_length if is_per_token else self.shape.max_predictions
        )
        arrays, expected = {}, None
        for name in group:
            if name not in layout.widths:
                continue
            dataset = self._files[path][1][name]
            with readable(f"{path}, dataset {name}"):
                references = _read_references(dataset, records)
            lengths = references["length"]
            expected = lengths if expected is None else expected
            wrong = (lengths != expected) | (lengths > longest)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise CorruptRecordError(
                    f"{path}, record {records[row]}: `{name}` must have as many values "
                    f"as the record has elsewhere, {expected[row]}, and at most "
                    f"{longest}. Received: {lengths[row]}. Make the file again."
                )
            is_real = np.arange(width) < lengths[:, None]
            arrays[name] = np.zeros(is_real.shape, np.int64)
            arrays[name][is_real] = _read_rows(path, dataset, references)
        if is_per_token and "input_mask" not in arrays:
            arrays["input_mask"] = is_real.astype(np.int64)
        return arrays

    def close(self) -> None:
        """Closes every file."""
        self._files.close()


class Hdf5Parser(RecordParser):
    """Records of HDF5 files to the model's inputs, labels and weights."""

    def padded_to(
        self, max_seq_length: int | None, max_predictions: int | None
    ) -> "Hdf5Parser":
        """A parser of longer records, if these have no padding; otherwise this one."""
        if not self.index.is_variable_length:
            return self
        shape = dataclasses.replace(
            self.shape,
            max_seq_length=max(self.shape.max_seq_length, max_seq_length or 0),
            max_predictions=max(self.shape.max_predictions, max_predictions or 0),
        )
        return Hdf5Parser(self.index, shape, self.limits)

    def _parse(self, numbers: np.ndarray) -> Arrays:
        arrays = self.index.read(numbers)
        widths = dict.fromkeys(PER_TOKEN, self.shape.max_seq_length)
        widths |= dict.fromkeys(PER_PREDICTION, self.shape.max_predictions)
        for name, width in widths.items():
            missing = width - arrays[name].shape[1]
            if missing:
                arrays[name] = np.pad(arrays[name], ((0, 0), (0, missing)))
        positions = arrays["masked_lm_positions"]
        gaps = (positions[:, 1:] != 0) & (positions[:, :-1] == 0)
        if gaps.any():
            number = int(numbers[int(np.argmax(gaps.any(axis=1)))])
            raise CorruptRecordError(
                f"{self.index.location(number)}: `masked_lm_positions` must be 0 after "
                "the masked tokens only, since a 0 ends them. Make the file again."
            )
        arrays["masked_lm_weights"] = (positions != 0).astype(np.float32)
        return arrays
