"""Starts real processes: scripts, and workers under mpirun."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]


def environment():
    tools = str(pathlib.Path(sys.executable).parent)
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([tools, environment["PATH"]])
    environment["OMP_NUM_THREADS"] = "1"
    environment["PYTHONPATH"] = str(ROOT)
    return environment


def start(command, **options):
    return subprocess.Popen(
        [str(part) for part in command], env=environment(), text=True, **options
    )


def run_python(*arguments, timeout=120):
    """Runs a script to its end; returns code, output and errors."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def mpirun(size, *arguments, timeout=300):
    """Runs a script on `size` workers; kills them all when the time is over."""
    return mpirun_apart([["-np", str(size), sys.executable, *arguments]], timeout)


def mpirun_apart(programs, timeout=300):
    """Runs programs, each with options of mpirun before it, as workers of one run."""
    assert shutil.which("mpirun", path=environment()["PATH"]), (
        "mpirun is missing: `make setup` installs it"
    )
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    for number, program in enumerate(programs):
        command += [":"] * bool(number) + [str(part) for part in program]
    return subprocess.run(
        ["timeout", "--signal=TERM", "--kill-after=5", str(timeout), *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout + 30,
    )


def run_workers(worker, runs, folder, *programs):
    """Starts a worker of this folder for each program; see `worker.py`.

    Args:
      worker: Name of its file.
      runs: Its command lines by name.
      folder: Where it leaves its results.
      *programs: For each, the options of mpirun before it, "-np" and a number first.

    Returns:
      Name of a run -> what each rank ended with, by name.
    """
    (folder / "runs.json").write_text(json.dumps(runs))
    path = ROOT / "tests" / "integration" / worker
    command = [sys.executable, path, folder / "runs.json", folder]
    result = mpirun_apart([[*program, *command] for program in programs])
    assert result.returncode == 0, result.stderr[-3000:]
    size = sum(int(program[1]) for program in programs)
    return {
        name: [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in range(size)]
        for name in runs
    }
