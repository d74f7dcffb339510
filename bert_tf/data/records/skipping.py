"""Records that a run skips: they keep their numbers, and are read as empty rows."""

import os
from collections.abc import Sequence

import numpy as np

from bert_tf.config.record_ranges import RecordRange
from bert_tf.data.records.record_index import RecordIndex
from bert_tf.data.records.schema import RecordParser, RecordShape
from bert_tf.errors import CorruptRecordError, listed


def find_records(index: RecordIndex, ranges: Sequence[RecordRange]) -> np.ndarray:
    """The global numbers of named records, sorted; those of other sets are left out.

    Raises:
      ValueError: if a name fits several files, or a file has fewer records.
    """
    numbers = [np.zeros(0, np.int64)]
    for one in ranges:
        path = _named_file(index.files, one)
        if path is None:
            continue
        shard = index.files.index(path)
        begin, end = index.starts[shard : shard + 2].tolist()
        if begin + one.last >= end:
            raise ValueError(
                f"`skip_records` must name records of {path}, which has the numbers 0 "
                f"to {end - begin - 1}. Received: skip_records={one}."
            )
        numbers.append(begin + np.arange(one.first, one.last + 1))
    return np.unique(np.concatenate(numbers))


def require_files(files: Sequence[str], ranges: Sequence[RecordRange]) -> None:
    """Refuses a range that names none, or several, of the files of a run.

    Raises:
      ValueError: naming the range.
    """
    for one in ranges:
        if _named_file(files, one) is None:
            raise ValueError(
                "`skip_records` must name files of the run's records. Received: "
                f"skip_records={one}, but no file has this name or path; the first one "
                f"is {files[0]}."
            )


def _named_file(files: Sequence[str], one: RecordRange) -> str | None:
    """The file that a range names: by its path, or the end of it; empty for any."""
    name = os.path.normpath(one.file) if one.file else ""
    found = [
        path
        for path in files
        if not name or f"/{os.path.abspath(path)}".endswith(f"/{name}")
    ]
    if len(found) > 1:
        raise ValueError(
            "`skip_records` must name one file, by its path where its name is not "
            f"enough. Received: skip_records={one}, which fits {found[0]} and "
            f"{found[1]}."
        )
    return found[0] if found else None


def name_records(index: RecordIndex, numbers: np.ndarray) -> list[str]:
    """Records as `--skip_records` takes them: "train/part-3.tfrecord:5-9".

    Args:
      index: The set.
      numbers: Global numbers, in any order.
    """
    # With the folder: a training and an evaluation set may have the same file names.
    names = ["/".join(path.split(os.sep)[-2:]) for path in index.files]
    if len({*names}) < len(names):
        names = index.files
    ranges: list[RecordRange] = []
    shards, records = index.locate(np.unique(numbers))
    for shard, record in zip(shards.tolist(), records.tolist(), strict=True):
        if ranges and ranges[-1] == RecordRange(
            names[shard], ranges[-1].first, record - 1
        ):
            ranges.append(RecordRange(names[shard], ranges.pop().first, record))
        else:
            ranges.append(RecordRange(names[shard], record, record))
    return list(map(str, ranges))


def empty_rows(shape: RecordShape, count: int) -> dict[str, np.ndarray]:
    """Features of records without a token, a prediction or a label: all 0."""
    return {
        name: np.zeros(
            (count, length), np.float32 if name.endswith("_weights") else np.int32
        )
        for name, length in shape.lengths.items()
    }


class SkippingParser:
    """Reads records like the parser that it is made of, some of them as empty rows.

    A skipped record keeps its number, so that the order of all others stays. An empty
    row counts neither masked tokens nor a next-sentence label, so it changes neither
    losses nor gradients.

    Attributes:
      index: Where the records are.
      shape: Their lengths.
      skipped: Sorted numbers of the records that are skipped.
    """

    def __init__(self, parser: RecordParser, skipped: np.ndarray) -> None:
        """Wraps a parser.

        Args:
          parser: Reads the other records.
          skipped: Sorted global numbers.
        """
        self._parser = parser
        self.index = parser.index
        self.shape = parser.shape
        self.skipped = skipped

    def __call__(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """See `RecordParser`; an error says how to skip the record."""
        is_read = ~np.isin(numbers, self.skipped)
        try:
            if is_read.all():
                return self._parser(numbers)
            features = empty_rows(self.shape, len(numbers))
            found = self._parser(numbers[is_read]) if is_read.any() else {}
        except CorruptRecordError as error:
            raise with_advice(error, self.index) from error
        for name, values in found.items():
            features[name][is_read] = values
        return features


def with_advice(error: CorruptRecordError, index: RecordIndex) -> CorruptRecordError:
    """The error, and how a run can skip the record, if it is one."""
    if error.number is None:
        return error
    [name] = name_records(index, np.asarray([error.number]))
    return CorruptRecordError(
        f"{error} If the other records are right, run without it by "
        f"--skip_records={name}, or pass --max_corrupt_records=N to look for all "
        "corrupt records and skip up to N.",
        error.number,
    )


def describe_skipped(index: RecordIndex, numbers: np.ndarray) -> str:
    """A line with the number of skipped records, and the first of their names.

    Args:
      index: The set.
      numbers: Their global numbers, at least one.
    """
    names = listed(name_records(index, numbers), ",")
    return (
        f"{len(numbers)} of {len(index)} records are skipped (empty rows, which count "
        f"for no loss): {names}."
    )
