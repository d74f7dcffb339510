"""The launcher: signals passed on, restarts, and no process left behind."""

import os
import pathlib
import re
import signal
import sys

import pytest
import runs
from faults.counts import count
from faults.started import Started, descendants, script

from bert_tf.cli import launch as cli_launch

# Prints its process, waits for SIGUSR1, and ends as a training does.
TRAINING = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: (print("saved", flush=True), os._exit(75)))
print("started", os.getpid(), flush=True)
time.sleep(60)
"""
# Ignores what can be ignored, and has a child that does.
STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
child = "import time; time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("started", os.getpid(), flush=True)
time.sleep(60)
"""
# Ends with the codes in a file, one at each start.
FAILING = """
import os, pathlib, signal, sys
codes = pathlib.Path(sys.argv[1])
first, *rest = codes.read_text().split()
codes.write_text(" ".join(rest))
print("start", flush=True)
os.kill(os.getpid(), -int(first)) if int(first) < 0 else sys.exit(int(first))
"""


def launch(*command, options=()):
    """Starts the launcher."""
    own = [sys.executable, "-m", "bert_tf", "launch", *options, "--"]
    return Started(*own, *command)


def launch_python(code, *arguments, options=()):
    return launch(sys.executable, "-c", code, *arguments, options=options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_as_sigusr1(number):
    run = launch_python(TRAINING)
    try:
        assert run.wait_for("started", 30)
        run.hit(number)
        code, seconds = run.finish(20)
    finally:
        assert run.end() == 0
    assert code == 75 and "saved" in run.text and seconds < 3.0
    assert f"{number.name}: passed on to {sys.executable}" in run.text
    assert run.text.rstrip().endswith(f"Exit code 75: ended by {number.name}.")


def test_a_second_signal_leaves_no_process():
    run = launch_python(STUBBORN)
    try:
        assert run.wait_for("started", 30)
        assert len(descendants(run.pid)) == 2
        run.hit(signal.SIGINT)
        assert run.wait_for("passed on", 10)
        run.hit(signal.SIGINT)
        code, seconds = run.finish(30)
    finally:
        assert run.end() == 0
    assert code == 128 + signal.SIGKILL and seconds < 9.0


def test_the_command_is_not_in_the_session_of_the_terminal():
    """Ctrl-C on a terminal goes to a whole group of processes."""
    run = launch_python(TRAINING)
    try:
        assert run.wait_for("started", 30)
        [child] = descendants(run.pid)
        assert os.getsid(child) == child != os.getsid(run.pid)
    finally:
        run.end()


@pytest.mark.parametrize(
    "codes, starts, last",
    [
        ("0", 1, 0),
        ("1", 1, 1),  # An error in a line.
        ("75", 1, 75),  # Stopped.
        ("143", 1, 143),
        ("-9 71 0", 3, 0),  # Killed, then a lost worker.
        ("70 -11 -6 0", 3, 134),  # Two restarts at most.
    ],
)
def test_what_crashes_is_started_again(tmp_path, codes, starts, last):
    file = tmp_path / "codes"
    file.write_text(codes)
    run = launch_python(FAILING, file, options=["--restarts=2"])
    try:
        code, _ = run.finish(30)
    finally:
        run.end()
    assert code == last
    assert [line.strip() for _, line in run.lines].count("start") == starts
    if codes.startswith("-9"):
        words = "Exit code 137: killed (SIGKILL), most often for lack of memory."
        assert f"{words} Restart 1 of 2" in run.text


def test_a_command_that_is_not_there_is_an_error():
    run = launch("/no/such/program")
    code, _ = run.finish(30)
    assert code == 127
    assert "/no/such/program cannot be started: No such file" in run.text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--restarts=2"], "needs a command after --"),
        (["--restarts=-1", "--", "true"], "must not be negative"),
        (["python", "x.py"], "unrecognized arguments"),
        (
            ["--restarts=1", "--", "x", "--overwrite_output_dir=true"],
            "`restarts` must be 0 with --overwrite_output_dir",
        ),
    ],
)
def test_wrong_options_are_one_line(arguments, message):
    run = Started(sys.executable, "-m", "bert_tf", "launch", *arguments)
    code, _ = run.finish(30)
    assert code == 1 and message in run.text and len(run.lines) == 1


@pytest.mark.parametrize("words", [("--flagfile={}",), ("--flagfile", "{}")])
def test_restarts_are_refused_where_a_file_of_flags_overwrites(tmp_path, words):
    (tmp_path / "outer.flags").write_text(f"--flagfile={tmp_path}/inner.flags\n")
    (tmp_path / "inner.flags").write_text("--overwrite_output_dir\n")
    named = [word.format(tmp_path / "outer.flags") for word in words]
    with pytest.raises(ValueError, match="must be 0 with --overwrite_output_dir"):
        cli_launch.main(["--restarts=1", "--", "/no/such/program", *named])


@pytest.mark.parametrize(
    "last", ["--nooverwrite_output_dir", "-overwrite_output_dir=0"]
)
def test_the_last_overwrite_output_dir_counts(tmp_path, last):
    (tmp_path / "x.flags").write_text("--overwrite_output_dir\n")
    first = f"--flagfile={tmp_path}/x.flags"
    run = launch("/no/such/program", first, last, options=["--restarts=1"])
    code, _ = run.finish(30)
    assert code == 127
    with pytest.raises(ValueError, match="must be 0 with --overwrite_output_dir"):
        cli_launch.main(["--restarts=1", "--", "/no/such/program", last, first])


def test_another_program_s_flagfile_need_not_be_a_file_of_flags():
    command = ("/no/such/program", "--flagfile=/no/such/file")
    run = launch(*command, options=["--restarts=1"])
    code, _ = run.finish(30)
    assert code == 127


@pytest.fixture
def endless(tiny_config_file, tiny_records):
    """Makes the flags of a training that does not end by itself."""

    def make(folder, *more):
        return runs.pretraining_flags(
            *(tiny_config_file, tiny_records, folder, "--display_loss_steps=1", *more),
            batch=2,
            accumulation=4,
            steps=100_000,
        )

    return make


@pytest.mark.slow
@pytest.mark.horovod
def test_a_terminated_launcher_saves_what_mpirun_runs(endless, tmp_path, figure):
    kept, slowest, total, notes = 0, 0.0, count(1, 10), []
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    for place in range(total):
        folder = tmp_path / f"run-{place}"
        flags = endless(folder, f"--output_dir={folder}")
        run = launch(*script("run_pretraining.py", *flags, size=2))
        try:
            assert run.wait_for(f"Iteration: {3 + place} "), run.text
            run.hit(signals[place % 3])
            code, seconds = run.finish()
        finally:
            left = run.end()
        slowest = max(slowest, seconds)
        saved = list(pathlib.Path(folder).glob("model.ckpt-[1-9]*.json"))
        is_kept = code == 75 and not left and len(saved) == 1
        kept += is_kept
        if not is_kept:
            notes.append(f"{code}, {left} left, {saved}: {run.text[-900:]}")
    figure(
        "a signal to the launcher of mpirun saves",
        kept,
        total,
        " ".join([f"slowest {slowest:.1f} s", *notes]),
    )


@pytest.mark.slow
@pytest.mark.horovod
def test_a_signal_to_mpirun_itself_loses_at_most_an_interval(endless, tmp_path, figure):
    """It ends its workers at once, whatever they do; the same command resumes."""
    total, interval, lost = count(1, 9), 5, []
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    for place in range(total):
        folder = tmp_path / f"run-{place}"
        flags = endless(folder, f"--save_checkpoints_steps={interval}")
        run = Started(*script("run_pretraining.py", *flags, size=2))
        try:
            assert run.wait_for(f"Iteration: {12 + place} "), run.text
            run.hit(signals[place % 3])
            code, _ = run.finish()
        finally:
            left = run.end()
        assert code != 0 and not left, run.text
        # mpirun prints no more of its workers' lines; they are in the log.
        last = max(step for step, _ in runs.logged_values(folder, "total_loss"))
        again = Started(
            *script("run_pretraining.py", *flags, "--steps_this_run=1", size=2)
        )
        code, _ = again.finish(120)
        assert code == 0, again.text
        saved = int(re.search(r"Resuming from .* \(step (\d+)\)", again.text)[1])
        assert not list(folder.glob(".model.ckpt-*"))
        lost.append(last - saved)
    figure(
        "a signal to mpirun itself: resumed, at most an interval lost",
        sum(steps <= interval for steps in lost),
        total,
        f"intervals of {interval} steps, at most {max(lost)} lost",
    )
