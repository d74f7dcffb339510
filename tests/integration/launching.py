"""Starts real processes: scripts, and workers under mpirun."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def _environment():
    tools = str(pathlib.Path(sys.executable).parent)
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([tools, environment["PATH"]])
    environment["OMP_NUM_THREADS"] = "1"
    environment["PYTHONPATH"] = str(ROOT)
    return environment


def start(command, **options):
    return subprocess.Popen(
        [str(part) for part in command], env=_environment(), text=True, **options
    )


def run_python(*arguments, timeout=120):
    """Runs a script to its end; returns code, output and errors."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def mpirun(size, *arguments, timeout=300):
    """Runs a script on `size` workers; kills them all when the time is over."""
    return mpirun_apart([["-np", str(size), sys.executable, *arguments]], timeout)


def mpirun_apart(programs, timeout=300):
    """Runs programs, each with options of mpirun before it, as workers of one run."""
    assert shutil.which("mpirun", path=_environment()["PATH"]), (
        "mpirun is missing: `make setup` installs it"
    )
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    for number, program in enumerate(programs):
        command += [":"] * bool(number) + [str(part) for part in program]
    return subprocess.run(
        ["timeout", "--signal=TERM", "--kill-after=5", str(timeout), *command],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=timeout + 30,
    )
