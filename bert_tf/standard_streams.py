"""Standard output and errors that may be full, closed or gone: printing never fails."""

import io
import os
import select
import sys
from typing import TextIO


def keep_printing() -> None:
    """Makes the standard streams of this process safe; a script calls it first.

    A program that prints a line for each step would end when the disk with its output
    is full or the reader of its pipe has left, or Python would make its exit code 120.
    Standard output that cannot be written is instead dropped, with one warning on
    standard error; that is dropped without one.
    """
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    for name, descriptor in (("stderr", 2), ("stdout", 1)):
        stream, original = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is original and not _is_safe(stream):
            safe = _safe_stream(descriptor, name, stream)
            setattr(sys, name, safe)
            setattr(sys, f"__{name}__", safe)  # Which Python flushes when it exits.


def _open_if_closed(descriptor: int) -> None:
    """Opens /dev/null where a stream is closed: the next file would get its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest free number is taken, which is this one: lower ones are open.
        os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, True)


def _is_safe(stream: TextIO | None) -> bool:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(raw, _DroppingFile)


def _safe_stream(descriptor: int, name: str, stream: TextIO | None) -> TextIO:
    """A stream with the settings of another one; None: it was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(_DroppingFile(descriptor, name)),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",  # An odd character must not end a run either.
        line_buffering=True,
        write_through=descriptor == 2,
    )


class _DroppingFile(io.FileIO):
    """A file that drops what cannot be written, and says so once."""

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._title = name
        self._has_warned = False

    def write(self, data: bytes) -> int:
        """Writes all of it, or drops it."""
        view = memoryview(data).cast("B")
        try:
            written = 0
            while written < len(view):
                count = super().write(view[written:])
                if count is None:  # A pipe that is full and does not block.
                    select.select([], [self.fileno()], [])
                written += count or 0
        except OSError as error:
            self._warn(error)
        return len(view)

    def _warn(self, error: OSError) -> None:
        if self._has_warned or self._title == "stderr":
            return
        self._has_warned = True
        print(
            f"warning: standard output cannot be written ({error.strerror}): what is "
            "printed from here on is lost.",
            # Not sys.stderr: a progress bar replaces that while it is shown.
            file=sys.__stderr__,
            flush=True,
        )
