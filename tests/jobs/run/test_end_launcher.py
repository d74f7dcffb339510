"""A launcher that waits for a worker that is gone is ended, with what it started."""

import signal
import subprocess
import sys
import time

import pytest

from bert_tf.jobs.run import end_launcher

# Starts a process that is stopped, and ignores SIGTERM if asked to.
LAUNCHER = """
import os, signal, subprocess, sys
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
os.kill(worker.pid, signal.SIGSTOP)
print(worker.pid, flush=True)
signal.pause()
"""


def started(kind):
    """A launcher, and the number of its worker."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, kind], stdout=subprocess.PIPE, text=True
    )
    return process, int(process.stdout.readline())


def is_there(process):
    return bool(end_launcher._start_of(process))


@pytest.fixture
def soon(monkeypatch):
    seconds = {signal.SIGTERM: 0.3, signal.SIGKILL: 0.3}
    monkeypatch.setattr(end_launcher, "_SECONDS", seconds)


def test_a_launcher_that_waits_gets_sigterm(soon):
    launcher, worker = started("obedient")
    end_launcher.end_launcher(launcher.pid)
    assert launcher.wait(5) == -signal.SIGTERM
    subprocess.run(["kill", "-KILL", str(worker)], check=True)


def test_one_that_ignores_it_is_killed_with_its_workers(soon):
    launcher, worker = started("deaf")
    end_launcher.end_launcher(launcher.pid)
    assert launcher.wait(5) == -signal.SIGKILL
    end = time.monotonic() + 5
    while is_there(worker) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_there(worker)


def test_one_that_ends_by_itself_is_left_alone(monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    monkeypatch.setattr(end_launcher.os, "kill", lambda *_: pytest.fail("a signal"))
    end_launcher.end_launcher(process.pid)
