"""How far a long job is: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.progress import TimeRemainingColumn as RemainingColumn

_LINE_PERIOD_SECONDS = 30.0


class ProgressReport:
    """Shows bytes of text done and records made, on stderr; a context manager."""

    def __init__(self, total_bytes: int) -> None:
        """Prepares, and shows nothing yet.

        Args:
          total_bytes: Size of all the text.
        """
        self._total_bytes = max(total_bytes, 1)
        self._bytes = 0
        self._records = 0
        self._begin = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                RemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("reading", total=self._total_bytes)

    def add(self, num_bytes: int, num_records: int) -> None:
        """Counts work that is done."""
        self._bytes += num_bytes
        self._records += num_records
        if self._bar:
            self._bar.update(
                self._task, completed=self._bytes, description=self._counts()
            )
        elif time.monotonic() - self._last_line > _LINE_PERIOD_SECONDS:
            self._last_line = time.monotonic()
            share = min(1.0, self._bytes / self._total_bytes)
            print(f"{share:.0%}: {self._counts()}", file=sys.stderr, flush=True)

    def _counts(self) -> str:
        seconds = max(time.monotonic() - self._begin, 1e-6)
        rate = self._records / seconds
        return f"{self._records:,} records, {rate:,.0f} records/s"

    def __enter__(self) -> "ProgressReport":
        """Shows the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the bar; after success a last line says what was done."""
        if self._bar:
            self._bar.stop()
        if error is None:
            print(f"done: {self._counts()}", file=sys.stderr, flush=True)
