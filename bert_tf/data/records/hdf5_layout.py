"""What an HDF5 file of records holds, found out without trusting it.

A file may point to other files, ask for code that decodes it, and declare more data
than it has: nothing of that is followed, the datasets must be the file's own. Besides,
the HDF5 library (2.0.0) trusts what a file says of chunks: it loops forever where they
have another number of dimensions than their dataset, crashes where one is shorter than
its checksum, and returns the memory after a short one as its data.
"""

import contextlib
import dataclasses
import math
import os
import zlib
from collections.abc import Iterator

import h5py
import numpy as np

from bert_tf.data.records.hdf5_writer import MAX_PREDICTIONS, MAX_SEQ_LENGTH
from bert_tf.data.records.schema import LABEL, PER_PREDICTION, PER_TOKEN
from bert_tf.errors import CorruptRecordError

GZIP = h5py.h5z.FILTER_DEFLATE
# How a row of variable length is stored: so many values, in an object of the heap
# collection at that address.
ROW_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("object", "<u4")])

# Far more than any model has positions; it bounds what a wrong file makes us allocate.
_MAX_LENGTH = 1 << 16
_MAX_CHUNK_BYTES = 1 << 26
_PACKED = (b"packed_input_len", b"packed_masked_lm_len")
_MAX_LENGTHS = {"input_ids": MAX_SEQ_LENGTH, "masked_lm_ids": MAX_PREDICTIONS}
_FLETCHER32 = h5py.h5z.FILTER_FLETCHER32
_FILTERS = {GZIP: "gzip", h5py.h5z.FILTER_SHUFFLE: "shuffle", _FLETCHER32: "fletcher32"}
_CHECKSUM_BYTES = 4
_BYTES_OF_SIZES = (8, 8)  # With others, `ROW_REFERENCE` would be wrong.
_LIBRARY_ERRORS = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    zlib.error,
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What one file holds.

    Attributes:
      widths: Values per record of each dataset, 0 where that differs. A file without
        padding may lack `input_mask`.
      num_records: Rows of each dataset.
      num_bytes: Size of the file.
      max_seq_length: S; without padding the attribute of the file, else the longest
        row.
      max_predictions: P, in the same way.
    """

    widths: dict[str, int]
    num_records: int
    num_bytes: int
    max_seq_length: int
    max_predictions: int

    @property
    def is_variable_length(self) -> bool:
        """Whether the rows have no padding."""
        return self.widths["input_ids"] == 0


def _refuse(path: str, name: str, rule: str, received: object) -> None:
    raise CorruptRecordError(
        f"{path}: the dataset `{name}` {rule}. Received: {received}. Make the file "
        "again, for example with `python -m bert_tf data convert`."
    )


@contextlib.contextmanager
def readable(location: object) -> Iterator[None]:
    """Turns an error of the HDF5 library into one line that names the location."""
    try:
        yield
    except _LIBRARY_ERRORS as error:
        reason = " ".join(str(error).split())
        raise CorruptRecordError(
            f"{location}: cannot be read as HDF5 ({reason}). Make or copy the file "
            "again."
        ) from error


def _open(path: str) -> h5py.File:
    with readable(path):
        # Locks fail on some network file systems, and readers do not need them. Random
        # records rarely share a chunk, so that keeping chunks would only take memory.
        return h5py.File(path, "r", locking=False, rdcc_nbytes=0)


def open_datasets(path: str) -> tuple[h5py.File, dict[str, h5py.Dataset]]:
    """A file that was checked, to be closed in the end, and its datasets."""
    file = _open(path)
    with readable(path):
        names = (*PER_TOKEN, *PER_PREDICTION, LABEL)
        return file, {name: file[name] for name in names if name in file}


def read_layout(path: str) -> Layout:
    """Checks a file of records without reading them.

    Raises:
      CorruptRecordError: if it is not such a file, naming file and dataset.
    """
    with _open(path) as file, readable(path):
        if any(file.id.links.exists(name) for name in _PACKED):
            raise CorruptRecordError(
                f"{path}: holds packed records in MLPerf's form, which cannot be read. "
                "Make unpacked ones, and pack them with `python -m bert_tf data pack`."
            )
        tokens = _checked_dataset(file, path, "input_ids")
        datasets = {"input_ids": tokens}
        is_variable = _is_variable(tokens)
        for name in (*PER_TOKEN[1:], *PER_PREDICTION, LABEL):
            is_needed = name != "input_mask" or not is_variable
            if is_needed or file.id.links.exists(b"input_mask"):
                datasets[name] = _checked_dataset(file, path, name)
        widths = {n: _width(dataset) for n, dataset in datasets.items()}
        counts = {n: dataset.shape[0] for n, dataset in datasets.items()}
        _check_shapes(path, widths, counts)
        lengths = []
        for name, attribute in _MAX_LENGTHS.items():
            length = widths[name] or _attribute(file, path, attribute)
            length = length or _longest(path, datasets[name])
            if length > _MAX_LENGTH:
                _refuse(path, name, f"must have rows of at most {_MAX_LENGTH}", length)
            lengths.append(length)
    return Layout(widths, counts[LABEL], os.path.getsize(path), *lengths)


def _is_variable(dataset: h5py.h5d.DatasetID) -> bool:
    return isinstance(dataset.get_type(), h5py.h5t.TypeVlenID)


def _width(dataset: h5py.h5d.DatasetID) -> int:
    return 0 if _is_variable(dataset) else math.prod(dataset.shape[1:])


def _checked_dataset(file: h5py.File, path: str, name: str) -> h5py.h5d.DatasetID:
    """A dataset whose data is completely in this file, and needs no other code."""
    links, key = file.id.links, name.encode()
    if not links.exists(key):
        _refuse(path, name, "must be there", "no such dataset")
    # Only then may it be opened: a link may lead to any file of this machine.
    if links.get_info(key).type != h5py.h5l.TYPE_HARD:
        _refuse(path, name, "must be in the file itself", "a link")
    dataset = h5py.h5o.open(file.id, key)
    if not isinstance(dataset, h5py.h5d.DatasetID):
        _refuse(path, name, "must be a dataset", "another object")
    made = dataset.get_create_plist()
    # To find its shape, the library may open other files: that comes after this check.
    if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        _refuse(path, name, "must be in the file itself", "data of other files")
    is_variable = _is_variable(dataset)
    kind = dataset.get_type()
    kind = kind.get_super() if is_variable else kind
    if not isinstance(kind, h5py.h5t.TypeIntegerID):
        _refuse(path, name, "must hold integers", type(kind).__name__)
    itemsize, precision = kind.get_size(), kind.get_precision()
    if itemsize > 8 or precision != 8 * itemsize:
        _refuse(path, name, "must hold integers of 8 to 64 bits", precision)
    rank = 1 if is_variable or name == LABEL else 2
    shape = dataset.shape
    if shape is None or len(shape) != rank or 0 in shape:
        _refuse(
            path, name, f"must have {rank} dimensions and at least one record", shape
        )
    if is_variable:
        is_contiguous = made.get_layout() == h5py.h5d.CONTIGUOUS
        sizes = file.id.get_create_plist().get_sizes()
        if not is_contiguous or sizes != _BYTES_OF_SIZES:
            _refuse(path, name, "must be contiguous", "rows in another form")
        itemsize = ROW_REFERENCE.itemsize
    if made.get_layout() == h5py.h5d.CHUNKED:
        missing = _missing_chunks(path, name, dataset, itemsize)
    else:
        missing = _missing_bytes(path, dataset, itemsize)
    if missing:
        num_bytes = math.prod(shape) * itemsize
        rule = f"must hold the {num_bytes} bytes that its shape says"
        reason = "the file is cut, or was never finished"
        _refuse(path, name, rule, f"{missing}; {reason}")
    return dataset


def filters_of(dataset: h5py.h5d.DatasetID) -> list[int]:
    """The numbers of a dataset's filters, in the order in which they were applied."""
    made = dataset.get_create_plist()
    return [made.get_filter(number)[0] for number in range(made.get_nfilters())]


def _missing_bytes(path: str, dataset: h5py.h5d.DatasetID, itemsize: int) -> str:
    """How much of a contiguous dataset is in the file, if not all of it."""
    stored = dataset.get_storage_size()
    end = (dataset.get_offset() or 0) + stored
    is_whole = stored >= math.prod(dataset.shape) * itemsize
    return "" if is_whole and end <= os.path.getsize(path) else f"{stored} bytes"


def _missing_chunks(
    path: str, name: str, dataset: h5py.h5d.DatasetID, itemsize: int
) -> str:
    """How many chunks there are, if not all of them are sound.

    A chunk is sound if it lies in the file and is stored in as many bytes as it has, or
    fewer where it is compressed.
    """
    filters = filters_of(dataset)
    if not set(filters) <= set(_FILTERS):
        allowed = ", ".join(_FILTERS.values())
        _refuse(path, name, f"may use {allowed} only", f"filters number {filters}")
    if len(set(filters)) < len(filters) or _FLETCHER32 in filters[:-1]:
        rule = "may use each filter once, and fletcher32 as the last one"
        _refuse(path, name, rule, f"filters number {filters}")
    chunk, shape = dataset.get_create_plist().get_chunk(), dataset.shape
    if len(chunk) != len(shape):
        rule = f"must have chunks of {len(shape)} dimensions"
        _refuse(path, name, rule, len(chunk))
    chunk_bytes = math.prod(chunk) * itemsize
    if chunk_bytes > _MAX_CHUNK_BYTES:
        rule = f"must have chunks of at most {_MAX_CHUNK_BYTES} bytes"
        _refuse(path, name, rule, chunk_bytes)
    num_bytes = os.path.getsize(path)
    num_chunks = math.prod(-(-s // c) for s, c in zip(shape, chunk, strict=True))
    if num_chunks > num_bytes:
        return f"{num_bytes} bytes"
    found: list[h5py.h5d.StoreInfo] = []
    # A damaged index may go in circles: what is not None ends it.
    dataset.chunk_iter(
        lambda info: found.append(info) or (True if len(found) > num_chunks else None)
    )
    sound = set()
    for info in found:
        used = [f for n, f in enumerate(filters) if not info.filter_mask >> n & 1]
        checksum_bytes = _CHECKSUM_BYTES if _FLETCHER32 in used else 0
        least = most = chunk_bytes + checksum_bytes
        if GZIP in used:  # What cannot be compressed gets a little longer.
            least, most = checksum_bytes + 1, most + most // 100 + 64
        if least <= info.size <= most and info.byte_offset + info.size <= num_bytes:
            sound.add(info.chunk_offset)
    is_whole = len(sound) == num_chunks
    return "" if is_whole else f"{len(sound)} of {num_chunks} chunks"


def _check_shapes(path: str, widths: dict[str, int], counts: dict[str, int]) -> None:
    """Datasets of the same kind must have the same shape and form."""
    for name, width in widths.items():
        like = PER_PREDICTION[0] if name in PER_PREDICTION else PER_TOKEN[0]
        if counts[name] != counts["input_ids"]:
            rule = f"must have as many records as input_ids, {counts['input_ids']}"
            _refuse(path, name, rule, counts[name])
        if name != LABEL and width != widths[like]:
            rule = f"must be as wide as {like}, {widths[like]} (0: variable)"
            _refuse(path, name, rule, width)
        if (width == 0) != (widths["input_ids"] == 0) and name != LABEL:
            rule = "must be of variable length if, and only if, input_ids is"
            _refuse(path, name, rule, f"width {width}")


def _attribute(file: h5py.File, path: str, name: str) -> int | None:
    """A positive number that is an attribute of the file; None without it."""
    if not h5py.h5a.exists(file.id, name.encode()):
        return None
    attribute = h5py.h5a.open(file.id, name.encode())
    value = np.zeros((), np.int64)
    is_integer = isinstance(attribute.get_type(), h5py.h5t.TypeIntegerID)
    if is_integer and attribute.shape == ():
        attribute.read(value)
    if value < 1:
        raise CorruptRecordError(
            f"{path}: the attribute `{name}` must be one integer of at least 1. "
            f"Received: {value if is_integer else attribute.dtype}."
        )
    return int(value)


def _longest(path: str, dataset: h5py.h5d.DatasetID) -> int:
    """The most values of a row of variable length, at least 1."""
    count, offset = dataset.shape[0], dataset.get_offset()
    rows = np.fromfile(path, ROW_REFERENCE, count, offset=offset)
    return max(1, int(rows["length"].max()))
