"""Ends a worker in whose training nothing happens any more, and names those to blame.

A worker that was stopped, or whose host is gone, does not end: the others would wait
for it in a sum forever.
"""

import collections
import contextlib
import faulthandler
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from bert_tf.signals import write_error

Item = TypeVar("Item")

# Exit code of a worker that the watchdog ends.
HUNG = 70
_LEAST_SECONDS = 600.0
_STEPS = 20
_TICK_SECONDS = 1.0
# A tick that takes longer is one in which this process was stopped itself.
_LONGEST_TICK_SECONDS = 2.0
# For the watchdogs of the other workers to report.
_REPORT_SECONDS = 4.0
_FOLDER = ".watchdog"


class Watchdog:
    """Watches a worker between the marks that it makes.

    It watches nothing before the first mark: neither preparation nor tracing.

    Attributes:
      is_shared: Whether the workers of all hosts see each other's reports.
    """

    def __init__(
        self,
        seconds: float | None = 0.0,
        output_dir: str = "",
        rank: int = 0,
        hosts: Sequence[str] = ("this host",),
    ) -> None:
        """Prepares for one run.

        Args:
          seconds: How long nothing may happen. None: 600, or 20 times the median step
            if that is longer; 0: forever.
          output_dir: Where workers leave their reports.
          rank: This worker.
          hosts: Of all workers, by rank.
        """
        self._seconds = seconds
        self._folder = os.path.join(output_dir, _FOLDER)
        self._rank = rank
        self._hosts = hosts
        self.is_shared = True
        self._steps: collections.deque[float] = collections.deque(maxlen=100)
        self._what = ""
        self._idle = 0.0
        self._last_step: float | None = None
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def limit(self) -> float:
        """Seconds without a mark after which the worker is ended."""
        if self._seconds is not None:
            return self._seconds
        median = statistics.median(self._steps) if self._steps else 0.0
        return max(_LEAST_SECONDS, _STEPS * median)

    def mark(self, what: str) -> None:
        """Notes that something happened, and what comes next."""
        self._idle = 0.0
        self._what = what
        if self._thread is None and self._seconds != 0:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def step_done(self, step: int) -> None:
        """Notes a step of the training."""
        now = time.monotonic()
        if self._last_step is not None:
            self._steps.append(now - self._last_step)
        self._last_step = now
        self.mark(f"step {step + 1} of the training")

    def pause(self) -> None:
        """Watches nothing up to the next mark."""
        self._what, self._last_step = "", None

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[Callable[[Iterable[Item]], Iterator[Item]]]:
        """Watches an evaluation, from its second batch on; the first one is traced.

        Yields:
          A function that passes on the batches.
        """
        before = self._what
        self.pause()
        yield self._each
        self.pause()
        if before:
            self.mark(before)

    def _each(self, batches: Iterable[Item]) -> Iterator[Item]:
        for number, batch in enumerate(batches, 1):
            if number > 1:
                self.mark(f"batch {number} of an evaluation")
            yield batch
        self.mark("the sum of an evaluation over the workers")

    def forget_reports(self) -> None:
        """Deletes the reports of an earlier run, for the training in the folder."""
        with contextlib.suppress(OSError):
            for name in filter(str.isdecimal, os.listdir(self._folder)):
                os.remove(os.path.join(self._folder, name))
            os.rmdir(self._folder)

    def close(self) -> None:
        """Stops watching."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._is_closed.wait(_TICK_SECONDS):
            now = time.monotonic()
            self._idle += min(now - before, _LONGEST_TICK_SECONDS)
            before = now
            if self._what and self._idle > self.limit:
                self._end_process(self._what, self._idle)

    def _end_process(self, what: str, idle: float) -> None:
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - idle))
        write_error(
            f"error: worker {self._rank} on {self._hosts[self._rank]}: nothing has "
            f"happened for {idle:.0f} s (--watchdog_seconds), since {since}, in "
            f"{what}. Its threads:"
        )
        with contextlib.suppress(OSError):
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        if len(self._hosts) > 1:
            write_error(self._name_the_silent())
        os._exit(HUNG)

    def _name_the_silent(self) -> str:
        """The workers whose watchdogs do not report within some seconds."""
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, exist_ok=True)
            report = os.path.join(self._folder, str(self._rank))
            with open(report, "w", encoding="utf-8") as file:
                file.write(self._hosts[self._rank])
        time.sleep(_REPORT_SECONDS)
        try:
            found = set(os.listdir(self._folder))
        except OSError as error:
            return f"error: no reports of other workers: {error}"
        own_host = self._hosts[self._rank]
        silent = [
            f"worker {rank} on {host}"
            for rank, host in enumerate(self._hosts)
            if str(rank) not in found and (self.is_shared or host == own_host)
        ]
        if not silent and not self.is_shared:
            return (
                f"error: all workers on {own_host} wait. The other hosts do not share "
                "output_dir, by which they would be compared: the one to look at is "
                "that whose workers print no such line."
            )
        if not silent:
            return "error: all workers wait: none of them has stopped."
        return (
            f"error: no sign of {', '.join(silent)}: stopped, too slow, or its host is "
            "gone. The same command resumes from the last checkpoint."
        )
