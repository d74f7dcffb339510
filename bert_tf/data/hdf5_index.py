"""Random access to the records of HDF5 files."""

import dataclasses
import os

import h5py
import numpy as np

from bert_tf.data.features import RecordParser, RecordShape, ValueLimits
from bert_tf.data.hdf5 import LABEL, PER_PREDICTION, PER_TOKEN
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
        begins = np.flatnonzero(np.diff(records, prepend=-2) != 1)
        counts = np.diff(begins, append=len(records))
        data = b"".join(
            os.pread(descriptor, count * size, column.offset + record * size)
            for record, count in zip(
                records[begins].tolist(), counts.tolist(), strict=True
            )
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
            lengths = self._lengths(shard, columns[group[0]], records)
            is_real = np.arange(width) < lengths[:, None]
            for name in group:
                if name in columns:
                    values = self._read_values(shard, name, records, lengths, width)
                    arrays[name] = np.zeros(is_real.shape, np.int64)
                    arrays[name][is_real] = values
                else:
                    arrays[name] = is_real
        return arrays

    def _read_values(
        self,
        shard: int,
        name: str,
        records: np.ndarray,
        expected: np.ndarray,
        width: int,
    ) -> np.ndarray:
        """The values of all rows of variable length, one after another."""
        path = self.files[shard]
        lengths = self._lengths(shard, self._layouts[shard].columns[name], records)
        wrong = (lengths != expected) | (lengths > width)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise CorruptRecordError(
                f"{path}, record {records[row]}: `{name}` must have as many values as "
                f"the record has elsewhere, {expected[row]}, and at most {width}. "
                f"Received: {lengths[row]}. Make the file again."
            )
        with readable(f"{path}, dataset {name}"):
            return np.concatenate(self._files[path][name][records])

    def _lengths(self, shard: int, column: Column, records: np.ndarray) -> np.ndarray:
        """Values in each row of variable length: [n] int64.

        They are looked at first: the library would allocate whatever a file claims.
        """
        references = self._read_rows(shard, column, records)
        return references["length"][:, 0].astype(np.int64)

    def close(self) -> None:
        """Closes every file."""
        self._descriptors.close()
        self._files.close()


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
