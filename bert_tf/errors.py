"""The errors that a user can mend: entry scripts show them as one line."""


class RunError(Exception):
    """A run cannot start or go on; the message says why and what to do."""


class CorruptRecordError(RunError):
    """A record cannot be read; the message names file, record and byte offset."""


class NonFiniteError(RunError):
    """A loss or a gradient is not a finite number."""


class OtherWorkerFailed(RunError):  # noqa: N818 - it is the other one's error
    """Another worker stopped, and says why itself."""
