"""What an HDF5 file of records holds, found out without trusting it.

An HDF5 file may point to other files, ask for code that decodes it, and declare more
data than it has. Nothing of that is followed: the datasets must be the file's own.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator

import h5py
import numpy as np

from bert_tf.data.hdf5 import (
    LABEL,
    MAX_PREDICTIONS,
    MAX_SEQ_LENGTH,
    PER_PREDICTION,
    PER_TOKEN,
)
from bert_tf.data.hdf5_heap import ROW_REFERENCE
from bert_tf.errors import CorruptRecordError

# Far more than any model has positions; it bounds what a wrong file makes us allocate.
MAX_LENGTH = 1 << 16

_PACKED = ("packed_input_len", "packed_masked_lm_len")
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
# Of deflate; a file that claims more holds no such data.
_MAX_COMPRESSION = 1100
_MAX_CHUNK_BYTES = 1 << 26
_BYTES_OF_SIZES = (8, 8)
_REFERENCES_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Column:
    """One dataset.

    Attributes:
      name: The feature.
      dtype: Of its values, in the file.
      num_records: Its rows.
      width: Values per record; 0 if that differs.
      offset: Where its rows begin if they stand one after another, else None. Those of
        variable length are `ROW_REFERENCE`s.
    """

    name: str
    dtype: np.dtype
    num_records: int
    width: int
    offset: int | None

    @property
    def stored_dtype(self) -> np.dtype:
        """What stands at `offset`."""
        return self.dtype if self.width else ROW_REFERENCE


@dataclasses.dataclass(frozen=True)
class Layout:
    """What one file holds.

    Attributes:
      columns: The datasets by name; a file without padding may lack `input_mask`.
      num_records: Rows of each of them.
      max_seq_length: S; without padding the longest row, or what the file says.
      max_predictions: P, likewise.
      is_variable_length: Whether the rows have no padding.
    """

    columns: dict[str, Column]
    num_records: int
    max_seq_length: int
    max_predictions: int
    is_variable_length: bool


def open_hdf5(path: str) -> h5py.File:
    """Opens a file for reading.

    Raises:
      CorruptRecordError: if it cannot be read.
    """
    with readable(path):
        # Locks fail on some network file systems, and readers do not need them.
        return h5py.File(path, "r", locking=False)


@contextlib.contextmanager
def readable(place: object) -> Iterator[None]:
    """Turns what the HDF5 library says of a broken file into one line.

    Raises:
      CorruptRecordError: for every error of the library, naming the place.
    """
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CorruptRecordError(
            f"{place}: cannot be read as HDF5 ({reason}). Make or copy the file again."
        ) from error


def read_layout(path: str) -> Layout:
    """Checks a file of records, without reading them.

    Args:
      path: An HDF5 file.

    Returns:
      What it holds.

    Raises:
      CorruptRecordError: if it is not such a file, naming file and dataset.
    """
    with open_hdf5(path) as file, readable(path):
        if any(file.id.links.exists(name.encode()) for name in _PACKED):
            raise CorruptRecordError(
                f"{path}: holds packed records in MLPerf's form, which cannot be read. "
                "Make unpacked ones, and pack them with `python -m bert_tf data pack`."
            )
        columns = {name: _column(file, path, name) for name in _present(file)}
        _check_shapes(path, columns)
        tokens, predictions = columns[PER_TOKEN[0]], columns[PER_PREDICTION[0]]
        is_variable_length = tokens.width == 0
        if is_variable_length:
            widths = (
                _attribute(file, path, MAX_SEQ_LENGTH) or _longest(path, tokens),
                _attribute(file, path, MAX_PREDICTIONS) or _longest(path, predictions),
            )
        else:
            widths = tokens.width, predictions.width
    for name, width in zip(("input_ids", "masked_lm_ids"), widths, strict=True):
        if width > MAX_LENGTH:
            _refuse(path, name, f"must have rows of at most {MAX_LENGTH}", width)
    return Layout(columns, tokens.num_records, *widths, is_variable_length)


def _present(file: h5py.File) -> list[str]:
    """The datasets to read: without padding `input_mask` may be left out."""
    names = [*PER_TOKEN, *PER_PREDICTION, LABEL]
    if not file.id.links.exists(b"input_mask") and _is_variable(file):
        names.remove("input_mask")
    return names


def _is_variable(file: h5py.File) -> bool:
    name = PER_TOKEN[0].encode()
    links = file.id.links
    if not links.exists(name) or links.get_info(name).type != h5py.h5l.TYPE_HARD:
        return False
    found = h5py.h5o.open(file.id, name)
    is_dataset = isinstance(found, h5py.h5d.DatasetID)
    return is_dataset and isinstance(found.get_type(), h5py.h5t.TypeVlenID)


def _refuse(path: str, name: str, rule: str, received: object) -> None:
    raise CorruptRecordError(
        f"{path}: the dataset `{name}` {rule}. Received: {received}. Make the file "
        "again, for example with `python -m bert_tf data convert`."
    )


def _column(file: h5py.File, path: str, name: str) -> Column:
    """Finds one dataset, which must be stored in this file."""
    links = file.id.links
    if not links.exists(name.encode()):
        _refuse(path, name, "must be there", "no such dataset")
    # Only then may it be opened: a link may lead to any file of this machine.
    if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        _refuse(path, name, "must stand in the file itself", "a link")
    dataset = h5py.h5o.open(file.id, name.encode())
    if not isinstance(dataset, h5py.h5d.DatasetID):
        _refuse(path, name, "must be a dataset", "another object")
    kind = dataset.get_type()
    is_variable = isinstance(kind, h5py.h5t.TypeVlenID)
    dtype = _integer_dtype(path, name, kind.get_super() if is_variable else kind)
    rank = 1 if is_variable or name == LABEL else 2
    shape = dataset.shape
    if shape is None or len(shape) != rank or 0 in shape:
        _refuse(path, name, f"must have {rank} dimensions, and records", shape)
    stored = ROW_REFERENCE if is_variable else dtype
    _check_storage(path, name, dataset, math.prod(shape) * stored.itemsize)
    offset = dataset.get_offset()
    if is_variable and (
        offset is None or file.id.get_create_plist().get_sizes() != _BYTES_OF_SIZES
    ):
        _refuse(path, name, "must be contiguous", "rows of variable length in chunks")
    width = 0 if is_variable else math.prod(shape[1:])
    return Column(name, dtype, shape[0], width, offset)


def _integer_dtype(path: str, name: str, kind: h5py.h5t.TypeID) -> np.dtype:
    if not isinstance(kind, h5py.h5t.TypeIntegerID):
        _refuse(path, name, "must hold integers", type(kind).__name__)
    bits = kind.get_size() * 8
    if bits > 64 or kind.get_precision() != bits:
        _refuse(path, name, "must hold integers of 8 to 64 bits", kind.get_precision())
    return kind.dtype


def _check_storage(
    path: str, name: str, dataset: h5py.h5d.DatasetID, num_bytes: int
) -> None:
    """All data must be in this file, in a form that needs no foreign code."""
    made = dataset.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        _refuse(path, name, "must stand in the file itself", "data of other files")
    filters = [made.get_filter(number)[0] for number in range(made.get_nfilters())]
    if not set(filters) <= set(_FILTERS):
        allowed = ", ".join(_FILTERS.values())
        _refuse(path, name, f"may use {allowed} only", f"filters number {filters}")
    if made.get_layout() == h5py.h5d.CHUNKED:
        chunk = math.prod(made.get_chunk()) * dataset.get_type().get_size()
        if chunk > _MAX_CHUNK_BYTES:
            limit = f"must have chunks of at most {_MAX_CHUNK_BYTES} bytes"
            _refuse(path, name, limit, chunk)
    stored = dataset.get_storage_size()
    ratio = _MAX_COMPRESSION if 1 in filters else 1
    end = (dataset.get_offset() or 0) + stored
    if stored * ratio < num_bytes or end > os.path.getsize(path):
        _refuse(
            path,
            name,
            f"must hold the {num_bytes} bytes that its shape says",
            f"{stored} bytes; the file is cut, or was never finished",
        )


def _check_shapes(path: str, columns: dict[str, Column]) -> None:
    """Datasets of the same kind must have the same shape and form."""
    for group in (PER_TOKEN, PER_PREDICTION, (PER_TOKEN[0], *PER_PREDICTION, LABEL)):
        first = columns[group[0]]
        for name in group:
            column = columns.get(name, first)
            if column.num_records != first.num_records:
                rule = f"must have as many records as {first.name}, {first.num_records}"
                _refuse(path, name, rule, column.num_records)
            is_comparable = group in (PER_TOKEN, PER_PREDICTION)
            if is_comparable and column.width != first.width:
                rule = f"must be as wide as {first.name}, {first.width} (0: variable)"
                _refuse(path, name, rule, column.width)
    tokens, predictions = columns[PER_TOKEN[0]], columns[PER_PREDICTION[0]]
    if (tokens.width == 0) != (predictions.width == 0):
        rule = "must be of variable length if, and only if, input_ids is"
        _refuse(path, predictions.name, rule, f"width {predictions.width}")


def _attribute(file: h5py.File, path: str, name: str) -> int | None:
    """A number that a file says of itself."""
    if not h5py.h5a.exists(file.id, name.encode()):
        return None
    attribute = h5py.h5a.open(file.id, name.encode())
    is_integer = isinstance(attribute.get_type(), h5py.h5t.TypeIntegerID)
    if not is_integer or attribute.shape != ():
        raise CorruptRecordError(f"{path}: the attribute `{name}` must be one integer.")
    value = np.zeros((), np.int64)
    attribute.read(value)
    if value < 1:
        raise CorruptRecordError(
            f"{path}: the attribute `{name}` must be at least 1. Received: {value}."
        )
    return int(value)


def _longest(path: str, column: Column) -> int:
    """The most values of a row of variable length, at least 1."""
    longest = 1
    with open(path, "rb") as file:
        file.seek(column.offset)
        left = column.num_records
        while left:
            count = min(left, _REFERENCES_AT_ONCE)
            rows = np.fromfile(file, ROW_REFERENCE, count)
            longest = max(longest, int(rows["length"].max()))
            left -= count
    return longest
