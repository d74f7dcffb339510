"""Random access to the records of HDF5 files."""

import dataclasses
import os

import h5py
import numpy as np

from bert_tf.data.features import RecordParser, RecordShape, ValueLimits
from bert_tf.data.hdf5 import LABEL, PER_PREDICTION, PER_TOKEN
from bert_tf.data.hdf5_heap import read_rows
from bert_tf.data.hdf5_layout import Column, open_hdf5, read_layout, readable
from bert_tf.data.numbering import NumberedRecords
from bert_tf.data.record_index import OpenFiles, open_descriptors
from bert_tf.errors import CorruptRecordError

Arrays = dict[str, np.ndarray]


class Hdf5Index(NumberedRecords):
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
        self._descriptors = open_descriptors()
        self._files: OpenFiles[h5py.File] = OpenFiles(open_hdf5, h5py.File.close)

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
        # In the order of the file, each once: so does the library read fastest.
        unique, places = np.unique(numbers, return_inverse=True)
        shards, records = self.locate(unique)
        parts = [
            self._read_file(int(shard), records[shards == shard])
            for shard in np.unique(shards)
        ]
        return {
            name: np.concatenate([part[name] for part in parts])[places]
            for name in parts[0]
        }

    def _read_file(self, shard: int, records: np.ndarray) -> Arrays:
        """Some records of one file, ascending."""
        layout = self._layouts[shard]
        columns = layout.columns
        arrays = {
            name: self._read_rows(shard, column, records)
            for name, column in columns.items()
            if column.width
        }
        arrays[LABEL] = arrays[LABEL].reshape(-1, 1)
        if layout.is_variable_length:
            arrays |= self._read_variable(shard, records)
        return {name: array.astype(np.int64) for name, array in arrays.items()}

    def _read_rows(self, shard: int, column: Column, records: np.ndarray) -> np.ndarray:
        """Rows of one dataset: [n, width] of what is stored there."""
        path, width = self.files[shard], max(column.width, 1)
        if column.offset is None:
            with readable(f"{path}, dataset {column.name}"):
                return self._files[path][column.name][records].reshape(-1, width)
        # Without the library: it takes longer, and open files that it has looked at.
        descriptor = self._descriptors[path]
        size = width * column.stored_dtype.itemsize
        data = b"".join(
            os.pread(descriptor, count * size, column.offset + first * size)
            for first, count in _runs(records)
        )
        if len(data) != len(records) * size:
            raise CorruptRecordError(
                f"{path}, dataset {column.name}: the file was cut while it was read. "
                "Make or copy it again."
            )
        return np.frombuffer(data, column.stored_dtype).reshape(-1, width)

    def _read_variable(self, shard: int, records: np.ndarray) -> Arrays:
        """Rows without padding, padded."""
        columns = self._layouts[shard].columns
        arrays = {}
        for group, width in (
            (PER_TOKEN, self.shape.max_seq_length),
            (PER_PREDICTION, self.shape.max_predictions),
        ):
            references = {
                name: self._read_rows(shard, columns[name], records)[:, 0]
                for name in group
                if name in columns
            }
            lengths = references[group[0]]["length"]
            is_real = np.arange(width) < lengths[:, None]
            arrays |= dict.fromkeys(group, is_real)  # There may be no `input_mask`.
            for name, rows in references.items():
                self._check_lengths(shard, name, records, rows["length"], lengths)
                place = f"{self.files[shard]}, dataset {name}"
                descriptor = self._descriptors[self.files[shard]]
                values = read_rows(descriptor, rows, columns[name].dtype, place)
                arrays[name] = np.zeros(is_real.shape, np.int64)
                arrays[name][is_real] = values
        return arrays

    def _check_lengths(
        self,
        shard: int,
        name: str,
        records: np.ndarray,
        lengths: np.ndarray,
        expected: np.ndarray,
    ) -> None:
        """All features of a record's tokens, or predictions, have as many values."""
        layout = self._layouts[shard]
        is_per_token = name in PER_TOKEN
        width = layout.max_seq_length if is_per_token else layout.max_predictions
        wrong = (lengths != expected) | (lengths > width)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise CorruptRecordError(
                f"{self.files[shard]}, record {records[row]}: `{name}` must have as "
                f"many values as the record has elsewhere, {expected[row]}, and at "
                f"most {width}. Received: {lengths[row]}. Make the file again."
            )

    def close(self) -> None:
        """Closes every file."""
        self._descriptors.close()
        self._files.close()


def _runs(records: np.ndarray) -> list[tuple[int, int]]:
    """Ascending numbers as stretches without a gap: the first one, and how many."""
    ends = np.flatnonzero(records[1:] != records[:-1] + 1) + 1
    bounds = [0, *ends.tolist(), len(records)]
    return [
        (int(records[begin]), end - begin)
        for begin, end in zip(bounds, bounds[1:], strict=False)
    ]


class Hdf5Parser(RecordParser):
    """Records of HDF5 files to the model's inputs, labels and weights."""

    def __init__(
        self, index: Hdf5Index, shape: RecordShape, limits: ValueLimits
    ) -> None:
        """Prepares for one set of records; see `RecordParser`.

        Args:
          index: Where the records come from.
          shape: Their lengths; those of records without padding may be larger.
          limits: What the values must stay below.
        """
        super().__init__(index, shape, limits)
        self._limits["input_mask"] = 2

    def padded_to(
        self, max_seq_length: int | None, max_predictions: int | None
    ) -> "Hdf5Parser":
        """A parser of longer records, if these have no padding; otherwise this one."""
        if not self._index.is_variable_length:
            return self
        shape = dataclasses.replace(
            self.shape,
            max_seq_length=max(self.shape.max_seq_length, max_seq_length or 0),
            max_predictions=max(self.shape.max_predictions, max_predictions or 0),
        )
        return Hdf5Parser(self._index, shape, self._value_limits)

    def _parse(self, numbers: np.ndarray) -> Arrays:
        arrays = self._index.read(numbers)
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
                f"{self._index.place(number)}: `masked_lm_positions` must be 0 after "
                "the masked tokens only, since a 0 ends them. Make the file again."
            )
        arrays["masked_lm_weights"] = (positions != 0).astype(np.float32)
        return arrays
