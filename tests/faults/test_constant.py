"""Memory, files, threads and sockets of a training that is watched from outside."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from faults.counts import count
from integration.launching import ROOT
from runs import pretraining_flags

pytestmark = pytest.mark.slow
STEPS = count(150, 1000)
SCRIPT = ROOT / "run_pretraining.py"
# State of a socket in /proc/net/tcp that listens.
LISTENS = "0A"


@pytest.fixture
def start(tiny_config_file, tiny_records, tmp_path):
    """Starts a training with its TMPDIR in a new folder, given more flags."""

    def run(*more):
        temporary = tmp_path / "temporary"
        temporary.mkdir(exist_ok=True)
        flags = pretraining_flags(
            *(tiny_config_file, tiny_records, tmp_path / "run"),
            *(f"--num_train_steps={STEPS}", "--save_checkpoints_steps=10"),
            *("--display_loss_steps=1", *more),
            accumulation=2,
        )
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *map(str, flags)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return process, temporary

    return run


def resident_bytes(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def count_in(pid, name):
    return len(os.listdir(f"/proc/{pid}/{name}"))


def listening(pid):
    """The listening sockets of a process."""
    own = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            own.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except FileNotFoundError:
            continue
    found = []
    for family in ("tcp", "tcp6"):
        lines = pathlib.Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        found += [
            row[1] for row in rows if row[3] == LISTENS and f"socket:[{row[9]}]" in own
        ]
    return found


def test_a_training_stays_as_it_was(start, figure):
    """From the first fifth of its steps to the end, with a save each 10 steps."""
    process, temporary = start()
    measured = []
    for line in process.stdout:
        step = re.search(r"Iteration: (\d+)", line)
        if step and int(step[1]) % 10 == 5:
            pid = process.pid
            measured.append(
                (resident_bytes(pid), count_in(pid, "fd"), count_in(pid, "task"))
            )
            assert not listening(pid)
    assert process.wait() == 0
    warm = measured[len(measured) // 5 :]
    memory, files, threads = zip(*warm, strict=True)
    growth = max(memory[-3:]) / max(memory[:3]) - 1
    assert len(warm) > STEPS // 20
    # A save or a shard may be open at one moment; a leak is there at each of the last.
    assert min(files[-3:]) <= max(files[:3]), files
    assert min(threads[-3:]) <= max(threads[:3]), threads
    assert not list(temporary.iterdir())
    note = f"{growth:+.2%} memory over {STEPS} steps"
    figure("memory, files and threads constant", int(growth < 0.01), 1, note)


ENDS = ["killed", "refused", "failed"]


@pytest.mark.parametrize("end", ENDS[: count(1, len(ENDS))])
def test_no_end_leaves_a_file_in_the_temporary_folder(start, figure, tmp_path, end):
    more = {"refused": ["--init_checkpoint=/none"], "failed": ["--learning_rate=1e30"]}
    process, temporary = start(*more.get(end, []))
    if end == "killed":
        for line in process.stdout:
            if "Iteration: 20 " in line:
                process.send_signal(signal.SIGKILL)
                break
    process.communicate()
    assert process.returncode == {"killed": -9}.get(end, 1)
    assert not list(temporary.iterdir())
    assert end != "refused" or not (tmp_path / "run").exists()
    figure("nothing left in the temporary folder after any end", 1, 1)


def test_evaluations_leave_nothing_behind(start, figure, tiny_records):
    """Each traces its graphs anew: many short runs in one process.

    TensorFlow keeps a kernel for every variable that was ever made, up to
    `clear_session`.
    """
    program = f"""
import gc, os, sys
sys.path[:0] = [{str(ROOT / "tests")!r}, {str(ROOT)!r}]
import conftest, keras
from runs import run
def measure():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
seen = []
for number in range({count(12, 40)}):
    run("pretraining", *sys.argv[1:])
    keras.utils.clear_session()
    seen.append(measure())
middle, last = seen[len(seen) // 2], seen[-1]
print(last[0] / middle[0] - 1, last[1] - middle[1], last[2] - middle[2])
"""
    process, temporary = start("--num_train_steps=20")
    process.communicate()
    flags = [str(word) for word in process.args[2:]]
    more = ["--do_eval", f"--eval_files_dir={tiny_records}", "--max_eval_steps=3"]
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", program, *flags, *more],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    growth, files, threads = map(float, result.stdout.splitlines()[-1].split())
    assert files <= 0 and threads <= 0
    assert not list(temporary.iterdir())
    note = f"{growth:+.2%} memory, {time.monotonic() - started:.0f} s"
    figure(
        "evaluations in one process leave nothing behind", int(growth < 0.03), 1, note
    )
