"""Ends a worker in whose training nothing happens any more, and names those to blame.

A worker that was stopped, or whose host is gone, does not end: the others would wait
for it in a sum forever. Before the first step, the heartbeat of all workers shows
whether each of them is there: one that reads data, or traces a graph, is.
"""

import collections
import contextlib
import faulthandler
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from bert_tf.jobs.run import end_launcher
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
# A report that is this much older than the own one is of an earlier run.
_OLD_SECONDS = 60.0
# Programs of Open MPI that start workers, here or on other hosts.
_LAUNCHERS = ("mpirun", "mpiexec", "prterun", "prted", "orted")
# Programs start at different times, however short the limit is.
_LEAST_JOIN_SECONDS = 60.0


def _leave() -> NoReturn:
    """Ends this process, and sees to it that its launcher ends too."""
    launcher = os.getppid()
    with contextlib.suppress(OSError):
        if Path(f"/proc/{launcher}/comm").read_text().strip() in _LAUNCHERS:
            subprocess.Popen(
                [sys.executable, "-ISs", end_launcher.__file__, str(launcher)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    os._exit(HUNG)


class Beats(Protocol):
    """What shows that all workers are there."""

    @property
    def count(self) -> int | None:
        """Rises while they are; None if it is not known."""


class Watchdog:
    """Watches a worker between the marks that it makes, and whether others are there.

    Between the first call and the first mark, as in preparation and tracing, a worker
    may take as long as it likes: it ends only if another one is gone.

    Attributes:
      rank: This worker.
      hosts: Of all workers, by rank; empty if they are unknown.
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
        self.rank = rank
        self.hosts = hosts
        self.is_shared = True
        self._steps: collections.deque[float] = collections.deque(maxlen=100)
        self._what = ""
        self._idle = self._absent = 0.0
        self._beats: Beats | None = None
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
        self._start()

    def _start(self) -> None:
        if self._thread is None and self._seconds != 0:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def follow(self, beats: Beats) -> None:
        """Watches from now on whether the other workers are there."""
        self._beats = beats
        self._start()

    @contextlib.contextmanager
    def joining(self) -> Iterator[None]:
        """Watches how long the other workers take to start."""
        if len(self.hosts) == 1:
            yield
            return
        seconds = self._seconds
        self._seconds = seconds and max(seconds, _LEAST_JOIN_SECONDS)
        self.mark("joining the other workers (MPI_Init)")
        try:
            yield
        finally:
            self.pause()
            self._seconds = seconds

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
    def paused(self) -> Iterator[None]:
        """Watches nothing inside but marks that are made there."""
        before = self._what
        self.pause()
        yield
        self.pause()
        if before:
            self.mark(before)

    def watched(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The batches of an evaluation; inside `paused`.

        It is watched from its second batch on: the first one is traced.
        """
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
        before, last = time.monotonic(), None
        while not self._is_closed.wait(_TICK_SECONDS):
            now = time.monotonic()
            tick, before = min(now - before, _LONGEST_TICK_SECONDS), now
            self._idle += tick
            if self._what and self._idle > self.limit:
                self._report("nothing has happened", self._idle, f", in {self._what}")
                if len(self.hosts) > 1:
                    self._name(self._silent())
                _leave()
            beat = self._beats.count if self._beats else None
            is_late = beat is not None and beat == last
            self._absent, last = self._absent + tick if is_late else 0.0, beat
            if self._absent > self.limit and self._are_gone(beat):
                _leave()

    def _are_gone(self, beat: int) -> bool:
        """Whether the last beat was so long ago because a worker is gone.

        A beat may be late because one works on something else: it reports then.
        """
        absent, self._absent = self._absent, 0.0
        silent = self._silent()
        if not silent or self._beats.count != beat:
            return False
        self._report("other workers have not answered", absent, "")
        self._name(silent)
        return True

    def _report(self, what: str, seconds: float, where: str) -> None:
        """Writes what is wrong, and the stacks of all threads."""
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - seconds))
        write_error(
            f"error: {self._named(self.rank)}: {what} for {seconds:.0f} s "
            f"(--watchdog_seconds), since {since}{where}. Its threads:"
        )
        with contextlib.suppress(OSError):
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)

    def _named(self, rank: int) -> str:
        host = self.hosts[rank]
        return f"worker {rank} on {host}" if host else f"worker {rank}"

    def _silent(self) -> list[int]:
        """The workers whose watchdogs do not report within some seconds.

        All but this one are, where they cannot see its report.
        """
        report = os.path.join(self._folder, str(self.rank))
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, exist_ok=True)
            with open(report, "w", encoding="utf-8") as file:
                file.write(self.hosts[self.rank])
        time.sleep(_REPORT_SECONDS)
        return [
            rank
            for rank in range(len(self.hosts))
            if rank != self.rank and not self._has_report(rank, report)
        ]

    def _has_report(self, rank: int, own: str) -> bool:
        """Whether a worker has reported in this run, by the clock of the folder."""
        try:
            found = os.stat(os.path.join(self._folder, str(rank))).st_mtime
            return found > os.stat(own).st_mtime - _OLD_SECONDS
        except OSError:
            return False

    def _name(self, silent: Sequence[int]) -> None:
        own_host = self.hosts[self.rank]
        if not self.is_shared:
            silent = [rank for rank in silent if self.hosts[rank] == own_host]
        if not silent and not self.is_shared:
            write_error(
                f"error: all workers on {own_host} wait for another host. Which one is "
                "unknown, since output_dir is not shared: look at the host whose "
                "workers do not print this line."
            )
            return
        if not silent:
            write_error("error: all workers wait: none of them has stopped.")
            return
        names = ", ".join(map(self._named, silent))
        write_error(
            f"error: no sign of {names}: stopped, too slow, or its host is gone. The "
            "same command, without --overwrite_output_dir, resumes from the last "
            "checkpoint, if there is one."
        )
