"""Errors that a user can fix: entry scripts print them as one line."""


class RunError(Exception):
    """A run cannot start or continue; the message states the cause and the remedy."""


class CorruptRecordError(RunError):
    """A record cannot be read; the message names file, record and byte offset."""


class NonFiniteError(RunError):
    """A loss or a gradient is not a finite number."""


class OtherWorkerFailed(RunError):  # noqa: N818 - the error of another worker
    """Another worker stopped; that worker reports the cause."""


class WorkerLost(OtherWorkerFailed):
    """Another worker is gone, perhaps without a word about the cause."""


class Stopped(BaseException):  # noqa: N818 - not an error: a signal asked for it
    """A signal ends the run; no `except Exception` may hold it up."""
