"""Processes that the fault tests start, watch, hit and clear away."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from integration.launching import ROOT, start

MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]


class Started:
    """A command that runs, its lines with their times, and its processes."""

    def __init__(self, *command):
        self._mark = str(command[-1])
        self.lines = []
        self._process = start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self._process.pid

    @property
    def text(self):
        return "".join(line for _, line in self.lines)

    def _read(self):
        for line in self._process.stdout:
            self.lines.append((time.monotonic(), line))

    def wait_for(self, text, seconds=400):
        """Waits until a line has the text; returns whether it came."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            if text in self.text:
                return True
            time.sleep(0.005)
        return text in self.text

    def rank(self, number):
        """The process of a worker under mpirun, once it is there."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for pid in descendants(self.pid):
                if f"OMPI_COMM_WORLD_RANK={number}\0" in environment(pid):
                    return pid
            time.sleep(0.01)
        raise AssertionError(f"no rank {number}")

    def hit(self, number, pid=None):
        """Sends a signal, to mpirun or the only process if none is named."""
        self._hit = time.monotonic()
        try:
            os.kill(pid or self.pid, number)
        except ProcessLookupError:
            raise AssertionError(f"It has ended by itself: {self.text}") from None

    def finish(self, seconds=60):
        """Waits for the end; returns exit code and seconds since the signal."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        took = time.monotonic() - getattr(self, "_hit", time.monotonic())
        self._reader.join(5)
        return code, took

    def end(self, seconds=0):
        """Ends whatever is left after some time; returns how many processes that were.

        mpirun may end before a worker that it has killed has left.
        """
        end = time.monotonic() + seconds
        while (left := self._left()) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()
        return len(left)

    def _left(self):
        left = [self.pid] if self._process.poll() is None else []
        left += descendants(self.pid)
        return left + [p for p in processes() if p not in left and self._is_ours(p)]

    def _is_ours(self, pid):
        """Whether it is a worker whose parent is gone: by its unique last argument."""
        command = read(f"/proc/{pid}/cmdline").split("\0")
        return self._mark in command and os.getpid() != pid


def read(path):
    try:
        return pathlib.Path(path).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment(pid):
    return read(f"/proc/{pid}/environ")


def parents():
    """Process -> its parent."""
    found = {}
    for pid in processes():
        stat = read(f"/proc/{pid}/stat")
        if stat:
            found[pid] = int(stat.rpartition(")")[2].split()[1])
    return found


def descendants(pid):
    known = parents()
    found, new = [], [pid]
    while new:
        new = [child for child, parent in known.items() if parent in new]
        found += new
    return found


def script(name, *arguments, size=1):
    """The command line of a script of this checkout, under mpirun for several."""
    path = name if os.path.isabs(name) else ROOT / name
    command = [sys.executable, path]
    if size > 1:
        command = [*MPIRUN, "-np", size, *command, "--horovod"]
    return [*command, *arguments]
