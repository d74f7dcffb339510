"""Ends mpirun after a worker has left, if mpirun does not notice: a program.

    python end_launcher.py PROCESS

Open MPI 5 may miss the exit of a worker that leaves while others are stopped in their
set-up, and then waits forever. It is a program, since the worker's process is gone.
"""

import os
import signal
import sys
import time

# For mpirun to end everything by itself, and then to obey a signal.
_SECONDS = {signal.SIGTERM: 3.0, signal.SIGKILL: 2.0}


def end_launcher(launcher: int) -> None:
    """Waits for the end of a process; then ends it and its children.

    Args:
      launcher: The process.
    """
    started = _start_of(launcher)
    for number, seconds in _SECONDS.items():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not started or _start_of(launcher) != started:
                return
            time.sleep(0.1)
        processes = [launcher]
        if number == signal.SIGKILL:
            processes += children(launcher)
        for process in processes:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                pass


def _stat(process: int | str) -> list[str]:
    """The fields of /proc/<process>/stat from its state on; empty if it is gone."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _start_of(process: int) -> str:
    """When a process began, in ticks; empty if it has ended."""
    fields = _stat(process)
    return fields[19] if fields and fields[0] not in "XZ" else ""


def children(process: int) -> list[int]:
    """The processes that a process has started and that have not been waited for."""
    names = filter(str.isdecimal, os.listdir("/proc"))
    return [int(name) for name in names if _stat(name)[1:2] == [str(process)]]


if __name__ == "__main__":
    end_launcher(int(sys.argv[1]))
