"""The records of many files, numbered through; where each of them stands."""

import abc
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class RecordPlace:
    """Where a record stands: for messages.

    Attributes:
      path: The file.
      record: Its number within the file, from 0.
      offset: Its first byte; None if it is not in one piece.
    """

    path: str
    record: int
    offset: int | None = None

    def __str__(self) -> str:
        """The form that error messages use."""
        offset = "" if self.offset is None else f", byte offset {self.offset}"
        return f"{self.path}, record {self.record}{offset}"


class NumberedRecords(abc.ABC):
    """The records of a list of files, numbered through.

    Attributes:
      format: Of the files, as metadata calls it.
      files: The files.
      starts: [number of files + 1] int64: number of the first record of each file,
        and of all records.
    """

    format: str

    def __init__(self, files: list[str], counts: list[int]) -> None:
        """Numbers the records.

        Args:
          files: Record files.
          counts: How many records each of them holds.
        """
        self.files = files
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self) -> int:
        """Number of records."""
        return int(self.starts[-1])

    def locate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which file each record is in, and its number within that file: two [n]."""
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        return shards, numbers - self.starts[shards]

    def place(self, number: int) -> RecordPlace:
        """Where record `number` stands."""
        shard, record = map(int, self.locate(np.asarray(number)))
        return RecordPlace(self.files[shard], record)

    @abc.abstractmethod
    def close(self) -> None:
        """Closes every file."""
