"""Progress of a long job: a bar on a terminal, else a line every 10 seconds."""

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

_LINE_PERIOD_SECONDS = 10.0


class ProgressReport:
    """Shows finished work, its rate and the time left on stderr; a context manager."""

    def __init__(self, total: float, unit: str = "records") -> None:
        """Makes a report that is shown once it is entered.

        Args:
          total: All the work, such as the bytes of the input.
          unit: Name of the results that are counted, in the plural.
        """
        self._total = max(total, 1)
        self._unit = unit
        self._done = 0.0
        self._count = 0.0
        self._begin = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("reading", total=self._total)

    def add(self, work: float, count: float) -> None:
        """Adds finished work, in units of `total`, and the number of its results."""
        self._done += work
        self._count += count
        now = time.monotonic()
        if self._bar:
            self._bar.update(
                self._task, completed=self._done, description=self._counts()
            )
        elif now - self._last_line > _LINE_PERIOD_SECONDS:
            self._last_line = now
            share = min(1.0, self._done / self._total)
            left = (now - self._begin) * (1 / share - 1) if share else 0.0
            print(
                f"{share:.0%}: {self._counts()}, about {left:,.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def _counts(self) -> str:
        seconds = max(time.monotonic() - self._begin, 1e-6)
        rate = self._count / seconds
        return f"{_short(self._count)} {self._unit}, {_short(rate)} {self._unit}/s"

    def __enter__(self) -> "ProgressReport":
        """Shows the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Stops the bar; after success prints the totals."""
        if self._bar:
            self._bar.stop()
        if error is None:
            print(f"done: {self._counts()}", file=sys.stderr, flush=True)


def _short(number: float) -> str:
    """Whole, or with a digit after the point if that is small and not whole."""
    return f"{number:,.1f}" if number < 10 and number % 1 else f"{number:,.0f}"
