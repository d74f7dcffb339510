"""Global numbers of the records of many files, and the location of each record."""

import abc
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class RecordPlace:
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


class NumberedRecords(abc.ABC):
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

    def __len__(self) -> int:
        """Number of records."""
        return int(self.starts[-1])

    def locate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of each record's file, and its number within that file: two [n]."""
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        return shards, numbers - self.starts[shards]

    def place(self, number: int) -> RecordPlace:
        """Location of the record with a global number."""
        shard, record = map(int, self.locate(np.asarray(number)))
        return RecordPlace(self.files[shard], record)

    @abc.abstractmethod
    def close(self) -> None:
        """Closes every file."""
