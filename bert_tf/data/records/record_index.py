"""Record files in a fixed order, and global numbers of all their records."""

import abc
import dataclasses
import functools
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from bert_tf.config.record_sets import split_weight, whole_parts
from bert_tf.data.records.metadata import described_path
from bert_tf.data.text.input_files import (
    file_identity,
    matching_paths,
    named_paths,
    report_skipped,
)
from bert_tf.errors import similar_path

_NOT_RECORDS = (".json", ".txt", ".md", ".md5", ".sha256", ".npy", ".tmp", ".index")
_MAX_OPEN_FILES = 256

Handle = TypeVar("Handle")


@dataclasses.dataclass(frozen=True)
class NamedSet:
    """A part of a setting that names records.

    Attributes:
      path: A folder or file; * and ? are expanded.
      weight: As written; empty for none.
      files: Its record files, sorted within each folder.
    """

    path: str
    weight: str
    files: list[str]


@dataclasses.dataclass(frozen=True)
class SetShare:
    """A set of records, and how much of a run is read from it.

    Attributes:
      num_records: Records in the set.
      parts: How many of its records are in each block of the run; a block has as many
        records as all sets have parts together.
      path: Folder or file of the set, for messages.
    """

    num_records: int
    parts: int = 1
    path: str = ""


def record_files(input_files_dir: str) -> list[str]:
    """The files of `record_sets`, without weights."""
    return [file for one in record_sets(input_files_dir) for file in one.files]


def record_sets(
    input_files_dir: str, *, may_have_weights: bool = False
) -> list[NamedSet]:
    """The record files of one or more folders, in a fixed order.

    Args:
      input_files_dir: Comma-separated folders or files; * and ? are expanded. Each may
        have a weight: PATH:WEIGHT.
      may_have_weights: Whether that is allowed.

    Returns:
      The parts of the list.

    Raises:
      FileNotFoundError: if a part of the list matches nothing, or holds no file.
      ValueError: if a part has a weight that is not allowed or not valid, or only some
        parts have one.
    """

    def find(part: str) -> list[str]:
        return matching_paths(part) or matching_paths(split_weight(part.strip())[0])

    sets = []
    for name, matches in named_paths(input_files_dir, find):
        path, weight = (name, "") if matching_paths(name) else split_weight(name)
        if weight and matches and not may_have_weights:
            raise ValueError(
                "Only the records of a training, `input_files_dir`, may have weights. "
                f"Received: {name}. Leave out :{weight}."
            )
        sets.append(NamedSet(path, weight, _files_of_part(path, matches)))
    if any(one.weight for one in sets):
        whole_parts(input_files_dir, [one.weight for one in sets])
    _check_files(input_files_dir, [file for one in sets for file in one.files])
    return sets


def _files_of_part(pattern: str, matches: list[str]) -> list[str]:
    """The record files of what a part of a setting matches."""
    if matches != [pattern]:
        matches = [
            match
            for match in matches
            if os.path.isdir(match) or not match.endswith(_NOT_RECORDS)
        ]
    if not matches:
        raise FileNotFoundError(
            f"There is no file or folder {pattern}: correct the path. "
            f"{similar_path(pattern)}".rstrip()
        )
    files: list[str] = []
    for match in matches:
        found = _files_of(match)
        if not found:
            raise FileNotFoundError(
                f"{match} holds no record files. {_where_records_are(match)}"
            )
        files += map(os.path.normpath, found)
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


def _where_records_are(path: str) -> str:
    """What to do about a folder without record files."""
    folders = sorted(entry.path for entry in os.scandir(path) if entry.is_dir())
    holding = [
        folder
        for folder in folders
        if os.access(folder, os.R_OK | os.X_OK)
        and any(map(_is_record_file, os.scandir(folder)))
    ]
    if holding:
        return f"Its folders do: pass {' or '.join(holding[:3])}."
    return "Make some with `python -m bert_tf data create`."


def _is_record_file(entry: os.DirEntry) -> bool:
    return (
        entry.is_file()
        and not entry.name.startswith((".", "_"))
        and not entry.name.endswith(_NOT_RECORDS)
    )


def _files_of(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path]
    files, skipped = [], []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        (files if _is_record_file(entry) else skipped).append(entry)
    if files:
        metadata = {f"{entry.name}_metadata.json" for entry in files}
        names = [entry.name for entry in skipped if entry.name not in metadata]
        report_skipped(path, names)
    return [entry.path for entry in files]


@dataclasses.dataclass(frozen=True)
class RecordLocation:
    """Location of a record, for messages.

    Attributes:
      path: The file.
      record: Its number within the file, from 0.
      offset: Its byte offset; None if its bytes are not contiguous.
    """

    path: str
    record: int
    offset: int | None = None

    def __str__(self) -> str:
        """The form that error messages use."""
        offset = "" if self.offset is None else f", byte offset {self.offset}"
        return f"{self.path}, record {self.record}{offset}"


class RecordIndex(abc.ABC):
    """The records of a list of files, with global numbers in the order of the files.

    Attributes:
      format: Format of the files, as in metadata.
      files: The files.
      starts: [number of files + 1] int64: the global number of each file's first
        record, and the total.
    """

    format: str

    def __init__(self, files: list[str], counts: list[int]) -> None:
        """Numbers the records.

        Args:
          files: Record files.
          counts: Number of records of each file.
        """
        self.files = files
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @functools.cached_property
    def described(self) -> dict[str, str]:
        """File -> the path whose metadata describes it, see `described_path`."""
        return {path: described_path(path) for path in self.files}

    def __len__(self) -> int:
        """Number of records."""
        return int(self.starts[-1])

    def locate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of each record's file, and its number within that file: two [n]."""
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        return shards, numbers - self.starts[shards]

    def location(self, number: int) -> RecordLocation:
        """Location of the record with a global number."""
        shard, record = map(int, self.locate(np.asarray(number)))
        return RecordLocation(self.files[shard], record)

    @abc.abstractmethod
    def close(self) -> None:
        """Closes every file."""


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
