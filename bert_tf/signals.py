"""Signals that ask a process to stop: received at once, also while a graph runs.

Python calls a signal's handler between two instructions of the main thread, and a step
is one call into TensorFlow that may take minutes. The number of each signal is
therefore also written into a pipe, which a thread reads.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

from bert_tf.errors import Stopped
from bert_tf.launch import launched_rank, launched_size

# Exit codes: "try again later", as sysexits.h calls it; and that of shells.
STOPPED = 75
KILLED_BY = 128

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

# A supervisor may send SIGTERM to all processes of a job, and the launcher turns its
# own into SIGUSR1: two different signals so soon are one request.
_SAME_REQUEST_SECONDS = 0.5
# mpirun sends SIGTERM before it kills its processes, because another one has failed.
_MPIRUN_SECONDS = 0.4
# Another worker has the signal, too, if it was sent to mpirun: the first one reports.
_FIRST_WORKER_SECONDS = 1.0
# For the main thread to clean up. It cannot while it waits for another worker.
_CLEAN_UP_SECONDS = 5.0


def write_error(line: str) -> None:
    """Writes a line on stderr, whatever locks the other threads hold."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="backslashreplace"))


class StopRequest:
    """Whether a signal has asked this process to stop, and what follows.

    At first a signal raises `Stopped` in the main thread: nothing would be lost. Inside
    `reacting` it calls a function instead. A second signal ends the process at once.

    Attributes:
      code: Exit code of a stopped process.
      number: The first signal that was received; 0 for none.
      is_known: Whether a training reacts to a signal of this or of another worker.
      state: What is saved and what is lost, for the line that is printed.
      has_saved: Whether this run has saved a checkpoint.
      writing: Held while files are written that must not be left unfinished.
    """

    def __init__(self, *, resumes: bool = False, overwrites: bool = False) -> None:
        """A request that has not been made.

        Args:
          resumes: Whether the same command resumes what is stopped.
          overwrites: Whether it overwrites an earlier run.
        """
        self._resumes = resumes
        self._overwrites = overwrites
        self.has_saved = False
        self.number = 0
        self.is_known = False
        self.state = "no step was taken, so there is nothing to save"
        self.writing = threading.RLock()
        self._react: Callable[[], None] | None = None
        self._has_raised = self._has_reported = False
        self._reporting = threading.Lock()
        self._is_over = threading.Event()
        self._received: list[int] = []

    @property
    def code(self) -> int:
        """See the class."""
        return STOPPED if self._resumes else KILLED_BY + self.number

    @contextlib.contextmanager
    def received(self) -> Iterator[None]:
        """Receives signals inside; elsewhere than in the main thread, none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = {number: signal.getsignal(number) for number in NUMBERS}
        pipe_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._received = [
            number
            for number, handler in before.items()
            # nohup makes SIGHUP ignored.
            if number != signal.SIGHUP or handler != signal.SIG_IGN
        ]
        self.receive_again()
        listener = threading.Thread(target=self._listen, args=[reader], daemon=True)
        listener.start()
        try:
            yield
        finally:
            self._is_over.set()
            self._received = []
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
            signal.set_wakeup_fd(pipe_before)
            os.close(writer)
            listener.join()
            os.close(reader)

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Raises `Stopped` again where another exception took its place.

        C code that calls Python, such as that of TensorFlow's gradients, may replace
        the exception of a signal's handler, for example by a TypeError.
        """
        try:
            yield
        except Exception as error:
            if self._has_raised:
                raise Stopped from error
            raise

    def receive_again(self) -> None:
        """Replaces the handlers of a library: UCX, loaded by MPI, takes SIGHUP."""
        for number in self._received:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        """In the main thread, between two of its instructions."""
        self.number = self.number or number
        if self._react is None and not self._has_raised:
            self._has_raised = True
            raise Stopped

    def _listen(self, reader: int) -> None:
        first, since = 0, 0.0
        while received := os.read(reader, 1):
            [number] = received
            if number not in NUMBERS:
                continue  # For a handler that someone else has installed.
            if not first:
                first, since = number, time.monotonic()
                self.number = self.number or number
                threading.Thread(target=self._answer, daemon=True).start()
            elif number == first or time.monotonic() - since > _SAME_REQUEST_SECONDS:
                write_error(f"Second signal ({name_of(number)}): leaving at once.")
                os._exit(KILLED_BY + number)

    def _answer(self) -> None:
        """Acts on the first signal, in a thread."""
        react = self._react
        if react is None:
            self._wait_before_report()
            react = self._react
        if react is None:
            self.report()
            self._is_over.wait(_CLEAN_UP_SECONDS)
            react = self._react
        if react:
            react()
        elif not self._is_over.is_set():
            os._exit(self.code)

    def _wait_before_report(self) -> None:
        if launched_size() > 1:
            is_first = launched_rank() == 0
            time.sleep(_MPIRUN_SECONDS if is_first else _FIRST_WORKER_SECONDS)

    @contextlib.contextmanager
    def reacting(self, react: Callable[[], None]) -> Iterator[None]:
        """Calls `react`, in a thread, at a signal inside; the caller must then stop.

        Args:
          react: Returns soon. It may be called twice.

        Raises:
          Stopped: at the end, if a signal was received.
        """
        self._react = react
        try:
            if self.number and not self._has_raised:
                react()
            yield
        finally:
            self._react = None
        self.check()

    def check(self) -> None:
        """Raises `Stopped` if a signal was received."""
        if self.number:
            self._has_raised = True
            raise Stopped

    def leave_report_to_the_first(self) -> None:
        """Prints no line: the first worker does."""
        self._has_reported = True

    def finish(self) -> int:
        """Prints the line about the stop, if it is still missing; returns the code."""
        if not self._has_reported:
            self._wait_before_report()
            self.report()
        return self.code

    def report(self, signals: dict[int, tuple[int, str]] | None = None) -> None:
        """Prints the line about the stop, once.

        Args:
          signals: Rank -> signal and host, of the workers that received one; None: this
            process did.
        """
        with self._reporting:
            if self._has_reported:
                return
            self._has_reported = True
            if not self._resumes:
                write_error("interrupted")
                return
            if signals is None:
                signals = {launched_rank(): (self.number, socket.gethostname())}
            advice = "The same command resumes."
            if self._overwrites and self.has_saved:
                advice = "The same command without --overwrite_output_dir resumes."
            elif self._overwrites:
                advice = "The same command starts again."
            write_error(
                f"Stopped by {describe(signals)}: {self.state}. {advice} Exit code "
                f"{self.code}."
            )


def name_of(number: int) -> str:
    """SIGTERM for 15."""
    return signal.Signals(number).name


def describe(signals: dict[int, tuple[int, str]]) -> str:
    """The signal, and who received it unless that is the first worker.

    Args:
      signals: Rank -> signal and host.
    """
    rank = min(signals)
    number, host = signals[rank]
    name = name_of(number) if number else "a signal"
    return f"{name}, received by worker {rank} on {host}" if rank else name
