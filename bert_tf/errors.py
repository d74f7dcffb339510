"""Errors that a user can fix: entry scripts print them as one line."""


class RunError(Exception):
    """A run cannot start or continue; the message states the cause and the remedy."""


class CorruptRecordError(RunError):
    """A record cannot be read; the message names file, record and byte offset.

    Attributes:
      number: Number of the record within its set; None if a whole file cannot be read.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number


class NonFiniteError(RunError):
    """A loss or a gradient is not a finite number."""


class OtherWorkerFailed(RunError):  # noqa: N818 - the error of another worker
    """Another worker stopped; that worker reports the cause."""
