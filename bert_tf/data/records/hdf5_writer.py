"""Records as HDF5 files, as the PyTorch BERT trainers of NVIDIA and Intel read them.

Each feature is a dataset with a row per record. There is no `masked_lm_weights`: a
position that is not 0 counts ([CLS] is never masked). Two forms: rows padded to the
same length, or rows of variable length without padding, as MLPerf's trainer has them.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from bert_tf.data.output_files import WholeFileWriter
from bert_tf.data.records.schema import LABEL, PER_PREDICTION, PER_TOKEN

# Attributes of a file without padding: the maximum lengths of its rows.
MAX_SEQ_LENGTH = "max_seq_length"
MAX_PREDICTIONS = "max_predictions_per_seq"

_DTYPES = {
    "input_ids": "<i4",
    "input_mask": "<i1",
    "segment_ids": "<i1",
    "masked_lm_positions": "<i4",
    "masked_lm_ids": "<i4",
    "next_sentence_labels": "<i1",
}
# Written at once, whatever the caller's blocks are, so that the bytes of a file do not
# depend on them; a multiple of what is compressed at once, which is little, since a
# reader of one record must decompress all of it.
_ROWS_AT_ONCE = 4096
_ROWS_COMPRESSED = 32
_GZIP_LEVEL = 4

Arrays = Mapping[str, np.ndarray]


class UnstorableRecordError(ValueError):
    """A record that an HDF5 file cannot hold without loss.

    Attributes:
      row: Which one, of the block that was to be written.
      reason: Why, a full sentence.
    """

    def __init__(self, row: int, reason: str) -> None:
        """Makes the error.

        Args:
          row: See the attribute.
          reason: See the attribute.
        """
        super().__init__(reason)
        self.row = row
        self.reason = reason


def check_storable(features: Arrays, variable_length: bool) -> None:
    """Refuses records that could not be read back as they are.

    Args:
      features: Unpacked record features, [n, ...].
      variable_length: Whether the padding will be left out.

    Raises:
      UnstorableRecordError: naming the first such record.
    """
    for name, dtype in _DTYPES.items():
        limit = np.iinfo(dtype).max
        if name in ("input_mask", LABEL):
            limit = 1
        values = features[name]
        wrong = (values < 0) | (values > limit)
        _refuse(wrong, f"`{name}` must be in [0, {limit}] in an HDF5 file")
    positions, weights = features["masked_lm_positions"], features["masked_lm_weights"]
    _refuse(
        weights != (positions != 0),
        "`masked_lm_weights` must be 1 where `masked_lm_positions` is not 0, and 0 "
        "elsewhere: an HDF5 file has positions only",
    )
    gaps = (positions[:, 1:] != 0) & (positions[:, :-1] == 0)
    _refuse(gaps, "`masked_lm_positions` must be 0 after the masked tokens only")
    if not variable_length:
        return
    mask = features["input_mask"]
    gaps = mask[:, 1:] > mask[:, :-1]
    _refuse(gaps, "`input_mask` must be ones and then zeros to leave out the padding")
    for name in ("input_ids", "segment_ids"):
        wrong = (features[name] != 0) & (mask == 0)
        _refuse(wrong, f"`{name}` must be 0 in the padding to leave it out")
    wrong = (features["masked_lm_ids"] != 0) & (positions == 0)
    _refuse(wrong, "`masked_lm_ids` must be 0 in the padding to leave it out")


def _refuse(wrong: np.ndarray, rule: str) -> None:
    rows = wrong.any(axis=1)
    if rows.any():
        row = int(np.argmax(rows))
        raise UnstorableRecordError(row, f"{rule}. Keep the records as TFRecords.")


class Hdf5Writer(WholeFileWriter):
    """Writes one HDF5 file; the same records give the same bytes.

    Attributes:
      num_records: Records written.
    """

    def __init__(
        self,
        path: str | Path,
        num_records: int,
        max_seq_length: int,
        max_predictions: int,
        *,
        variable_length: bool = False,
        compression: str = "none",
    ) -> None:
        """Creates the temporary file.

        Args:
          path: The final path.
          num_records: How many records will be written.
          max_seq_length: S.
          max_predictions: P.
          variable_length: Leave out the padding.
          compression: none or gzip; gzip compresses padded rows only.
        """
        super().__init__(path)
        self.num_records = 0
        self._expected = num_records
        self._variable_length = variable_length
        self._waiting = {name: [] for name in _DTYPES}
        self._num_waiting = self._num_stored = 0
        self._file = h5py.File(self._temporary, "w", libver=("earliest", "v108"))
        try:
            self._add_datasets(max_seq_length, max_predictions, compression)
        except BaseException:
            self.discard()
            raise

    def _add_datasets(
        self, max_seq_length: int, max_predictions: int, compression: str
    ) -> None:
        widths = dict.fromkeys(PER_TOKEN, max_seq_length)
        widths |= dict.fromkeys(PER_PREDICTION, max_predictions)
        for name, dtype in _DTYPES.items():
            if self._variable_length and name in widths:
                self._add_dataset(name, (), h5py.vlen_dtype(np.dtype(dtype)), "none")
            else:
                width = (widths[name],) if name in widths else ()
                self._add_dataset(name, width, np.dtype(dtype), compression)
        if self._variable_length:
            self._file.attrs.create(MAX_SEQ_LENGTH, max_seq_length, dtype="<i4")
            self._file.attrs.create(MAX_PREDICTIONS, max_predictions, dtype="<i4")

    def _add_dataset(
        self, name: str, width: tuple[int, ...], dtype: np.dtype, compression: str
    ) -> None:
        options = {}
        if compression == "gzip":
            rows = min(_ROWS_COMPRESSED if width else _ROWS_AT_ONCE, self._expected)
            options = {"chunks": (rows, *width), "compression": "gzip"}
            options["compression_opts"] = _GZIP_LEVEL
        shape = (self._expected, *width)
        # A time in the file would make its bytes differ.
        self._file.create_dataset(name, shape, dtype, track_times=False, **options)

    def write(self, features: Arrays) -> None:
        """Adds records.

        Args:
          features: `input_ids`, `input_mask`, `segment_ids` [n, S], `masked_lm_*`
            [n, P], `next_sentence_labels` [n, 1]; others are ignored.

        Raises:
          UnstorableRecordError: if a record cannot be stored without loss.
          ValueError: if there are more records than the file has room for.
        """
        check_storable(features, self._variable_length)
        count = len(features[LABEL])
        self.num_records += count
        self._check_number(self.num_records <= self._expected)
        for name, dtype in _DTYPES.items():
            self._waiting[name].append(features[name].astype(dtype))
        self._num_waiting += count
        while self._num_waiting >= _ROWS_AT_ONCE:
            self._store(_ROWS_AT_ONCE)

    def _store(self, count: int) -> None:
        """Writes the first `count` of the waiting records."""
        columns = {name: np.concatenate(part) for name, part in self._waiting.items()}
        self._waiting = {name: [rows[count:]] for name, rows in columns.items()}
        self._num_waiting -= count
        columns = {name: rows[:count] for name, rows in columns.items()}
        columns[LABEL] = columns[LABEL][:, 0]
        if self._variable_length:
            lengths = columns["input_mask"].sum(axis=1, dtype=np.int64)
            counts = (columns["masked_lm_positions"] != 0).sum(axis=1)
            for name in PER_TOKEN:
                columns[name] = _without_padding(columns[name], lengths)
            for name in PER_PREDICTION:
                columns[name] = _without_padding(columns[name], counts)
        begin, self._num_stored = self._num_stored, self._num_stored + count
        with _system_errors(self.path):
            for name, rows in columns.items():
                self._file[name][begin : self._num_stored] = rows

    def close(self) -> None:
        """Syncs the file to disk and renames it.

        Raises:
          ValueError: if other than `num_records` records were written.
        """
        self._check_number(self.num_records == self._expected)
        if self._num_waiting:
            self._store(self._num_waiting)
        with _system_errors(self.path):
            self._file.close()
        with open(self._temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self._temporary, self.path)

    def _check_number(self, condition: bool) -> None:
        if not condition:
            raise ValueError(
                f"`num_records` must be what is written to {self.path}. Received: "
                f"num_records={self._expected}, and {self.num_records} records."
            )

    def discard(self) -> None:
        """Deletes the temporary file."""
        # On a full disk this fails too, and the first error is the one to show.
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        super().discard()


@contextlib.contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Raises the system's error, such as a full disk, in place of the library's."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        found = re.search(r"\berrno = (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from error


def _without_padding(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The first `lengths` values of each row: [n] arrays, or [n, length] if equal."""
    if (lengths == lengths[0]).all():
        return rows[:, : lengths[0]]  # The library takes such arrays for a matrix.
    cut = np.empty(len(rows), object)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        cut[number] = row[:length]
    return cut
