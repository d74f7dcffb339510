"""Stages that take long, and the terminal that shows them; loads nothing."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from bert_tf.launch import is_launched, launched_rank, report

_LINE_PERIOD_SECONDS = 10.0


def terminal_of(descriptor: int) -> str:
    """The terminal that shows a standard stream of this process; empty if none does.

    mpirun gives its workers a pseudo terminal for standard output, and a pipe for
    standard errors, whatever its own streams are: those are looked at instead.

    Args:
      descriptor: 1 or 2.
    """
    try:
        if is_launched():
            path = os.readlink(f"/proc/{os.getppid()}/fd/{descriptor}")
            return path if path.startswith(("/dev/pts/", "/dev/tty")) else ""
        return os.ttyname(descriptor)
    except OSError:
        return ""


def width_of(terminal: str) -> int:
    """Columns of a terminal; 80 if it cannot be asked."""
    try:
        descriptor = os.open(terminal, os.O_RDONLY | os.O_NOCTTY)
        try:
            return os.get_terminal_size(descriptor).columns or 80
        finally:
            os.close(descriptor)
    except OSError:
        return 80


def print_line(line: str, stream: TextIO | None = None) -> None:
    """Prints a line on a stream, by default standard output, if it can be written."""
    with contextlib.suppress(OSError, ValueError):  # A closed stream is a ValueError.
        print(line, file=stream, flush=True)


@contextlib.contextmanager
def stage(title: str, show: Callable[[str], None] = print_line) -> Iterator[None]:
    """Says what takes long: at its begin, and every 10 seconds until its end.

    Args:
      title: What is done.
      show: Prints a line; of the workers of a run, on the first one only.
    """
    if launched_rank():
        yield
        return
    begin, is_over = time.monotonic(), threading.Event()

    def repeat() -> None:
        while not is_over.wait(_LINE_PERIOD_SECONDS):
            show(f"{title}: {time.monotonic() - begin:.0f} s so far.")

    show(f"{title} ...")
    threading.Thread(target=repeat, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def loading_tensorflow() -> contextlib.AbstractContextManager[None]:
    """Says on stderr that TensorFlow is loaded, which takes seconds, unless it is.

    The processes of a `data` command say nothing: they load it at the same time.
    """
    if "tensorflow" in sys.modules or multiprocessing.parent_process():
        return contextlib.nullcontext()
    return stage("Loading TensorFlow", report)
