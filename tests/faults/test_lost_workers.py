"""A worker that is killed, stopped, fails or leaves: all end, and it is named."""

import signal
import socket
import time

import pytest
import runs
from faults.counts import count
from faults.started import ROOT, Started, script

pytestmark = [pytest.mark.slow, pytest.mark.horovod]

FAILING = ROOT / "tests" / "faults" / "failing.py"
# Of the report: the watchdog's own 4 s for the others, and mpirun's end of all.
MOST_SECONDS = 10.0
WATCHDOG_SECONDS = 6
CODES = {"kill": 137, "stop": 70, "raise": 1, "exit": 1, "_exit": 1}


def command(folder, config_file, records, *failing, size=2):
    flags = runs.pretraining_flags(
        *(config_file, records, folder, f"--watchdog_seconds={WATCHDOG_SECONDS}"),
        *("--display_loss_steps=1", f"--output_dir={folder}"),
        batch=2,
        accumulation=2,
        steps=100_000,
    )
    if size == 1:
        return script(FAILING, *failing, *flags)
    return script(FAILING, *failing, *flags, size=2)


def arguments_first(command):
    """mpirun's --horovod comes before the arguments of `failing.py`: put it last."""
    command = [part for part in command if part != "--horovod"]
    return [*command[:-1], "--horovod", command[-1]]


def names_the_worker(kind, text):
    """Whether rank and host of worker 1 are in a line about it."""
    host = socket.gethostname()
    if kind in ("kill", "_exit"):  # mpirun's.
        return "process rank 1 with PID" in text and f"on node {host}" in text
    return f"worker 1 on {host}" in text


@pytest.mark.parametrize("kind", ["stop", "raise", "exit", "kill", "_exit"])
def test_a_lost_worker_ends_all_and_is_named(
    kind, tiny_config_file, tiny_records, tmp_path, figure
):
    total, kept, notes = count(kind in ("stop", "exit"), 10), 0, []
    if not total:
        pytest.skip("in full only: make test-faults")
    slowest = 0.0
    for place in range(total):
        folder = tmp_path / f"run-{place}"
        failing = (kind, 1, 2 + place % 4)
        run = Started(
            *arguments_first(command(folder, tiny_config_file, tiny_records, *failing))
        )
        try:
            assert run.wait_for("FAILING"), run.text
            if kind == "stop":
                assert run.wait_for("nothing has happened", 60), run.text
            reported = time.monotonic()
            code, _ = run.finish()
        finally:
            left = run.end(MOST_SECONDS)
        seconds = time.monotonic() - reported
        slowest = max(slowest, seconds)
        is_kept = code == CODES[kind] and not left and seconds < MOST_SECONDS
        if is_kept and names_the_worker(kind, run.text):
            kept += 1
        else:
            notes.append(
                f"code {code}, {left} left, {seconds:.1f} s: {run.text[-900:]}"
            )
    notes.append(f"{kind}: slowest {slowest:.1f} s")
    figure("a lost worker: all end, it is named", kept, total, " ".join(notes))


@pytest.mark.parametrize(
    "kind, place",
    [("stop", "prepare"), ("stop", "1"), ("stop", "join"), ("_exit", "join")],
)
def test_a_worker_that_is_lost_in_set_up_ends_all_and_is_named(
    kind, place, tiny_config_file, tiny_records, tmp_path, figure
):
    total, kept, notes = count(place == "prepare", 5), 0, []
    if not total:
        pytest.skip("in full only: make test-faults")
    for number in range(total):
        failing = (kind, 1, place)
        folder = tmp_path / f"run-{number}"
        run = Started(
            *arguments_first(command(folder, tiny_config_file, tiny_records, *failing))
        )
        try:
            assert run.wait_for("FAILING"), run.text
            # Where the others had joined, mpirun may see it leave before they do.
            is_seen = run.wait_for("no sign of worker 1", 90)
            assert is_seen or names_the_worker("_exit", run.text), run.text
            reported = time.monotonic()
            code, _ = run.finish()
        finally:
            left = run.end(MOST_SECONDS)
        seconds = time.monotonic() - reported
        codes = (70,) if is_seen else (70, CODES["_exit"])
        if place == "join":  # An mpirun that hangs is killed (end_launcher.py).
            codes += (-signal.SIGKILL,)
        if code in codes and not left and seconds < MOST_SECONDS:
            kept += 1
        else:
            notes.append(
                f"code {code}, {left} left, {seconds:.1f} s: {run.text[-900:]}"
            )
    name = f"a worker that is lost in set-up ({kind}, {place}): all end, it is named"
    figure(name, kept, total, " ".join(notes))


def test_the_watchdog_shows_where_a_single_process_hangs(
    tiny_config_file, tiny_records, tmp_path
):
    run = Started(
        *command(tmp_path / "run", tiny_config_file, tiny_records, "hang", 0, 3, size=1)
    )
    try:
        code, _ = run.finish(120)
    finally:
        assert run.end() == 0
    assert code == 70
    assert "in step 3 of the training" in run.text
    assert 'failing.py", line' in run.text and "in fail" in run.text
