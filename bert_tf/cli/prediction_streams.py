"""Where the lines of `predict` come from one by one: a terminal, a pipe, a file."""

import argparse
import io
import select
import sys
from typing import TextIO


def is_stream(path: str) -> bool:
    """Whether lines of --input may come one by one, as from what a shell connects."""
    return path == "-" or path.startswith(("/dev/stdin", "/dev/fd/"))


def is_terminal(options: argparse.Namespace) -> bool:
    """Whether the texts are to be typed in."""
    is_stdin = options.input == "-" and not options.text
    return is_stdin and sys.stdin is not None and sys.stdin.isatty()


def open_stream(path: str) -> TextIO:
    """Opens an --input whose lines may come one by one; see `is_stream`."""
    return _standard_input() if path == "-" else _open(path)


def has_ended(stream: TextIO) -> bool:
    """Whether a new stream holds nothing; false if only its first line would tell."""
    if not isinstance(stream, io.TextIOWrapper):  # A test may replace it.
        return False
    is_ready, _, _ = select.select([stream], [], [], 0)
    return bool(is_ready) and not stream.buffer.peek(1)


def name_of(path: str) -> str:
    """The input, for messages."""
    return "standard input" if path == "-" else path


def _standard_input() -> TextIO:
    if sys.stdin is None:
        raise ValueError(
            "`input` is standard input, which is closed. Pass --input=FILE."
        )
    if not isinstance(sys.stdin, io.TextIOWrapper):  # A test may replace it.
        return sys.stdin
    # Not sys.stdin, which Python closes at its end: it would wait for a thread that
    # reads, and abort.
    return _open(sys.stdin.fileno(), closefd=False)


def _open(path: str | int, *, closefd: bool = True) -> TextIO:
    """What is not UTF-8 becomes surrogates, which a line is refused for."""
    encoding = {"encoding": "utf-8-sig", "errors": "surrogateescape"}
    return open(path, closefd=closefd, **encoding)
