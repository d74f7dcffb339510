"""A log, or standard output, that cannot be written does not end a training."""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import threading

import pytest
from faults.counts import count, full_only
from integration.launching import ROOT
from runs import checkpoint_bytes, pretraining_flags

PROMISE = "log or standard output cannot be written: training ends with exit code 0"
SCRIPT = ROOT / "run_pretraining.py"
STEPS = 4
WARNING = "warning: standard output cannot be written"

# Redirections of a shell, with what standard error then holds of warnings: how often
# standard output and the log file are named. None: standard error cannot be read.
SHELLS = {
    "a log on a full disk, and a reader that leaves": (
        "{command} --dllog_path=/dev/full | head -1",
        (1, 1),
    ),
    "standard output and errors closed": ("{command} >&- 2>&-", None),
    "standard output on a full disk": ("{command} >/dev/full", (1, 0)),
    "a reader that leaves": ("{command} | head -1", (1, 0)),
    "standard output closed": ("{command} >&-", (0, 0)),
    "standard input, output and errors closed": ("{command} <&- >&- 2>&-", None),
    "all on a full disk": ("{command} --dllog_path=/dev/full &>/dev/full", None),
    "a log on a full disk": ("{command} --dllog_path=/dev/full", (0, 1)),
    "errors on a full disk, log too": (
        "{command} --dllog_path=/dev/full 2>/dev/full",
        None,
    ),
    "both into a pipe whose reader leaves": ("{command} 2>&1 | head -1", None),
    "an encoding without most letters": (
        "PYTHONIOENCODING=ascii {command} --dllog_path={folder}/ünï.json",
        (0, 0),
    ),
    "a log in standard output, whose reader leaves": (
        "{command} --dllog_path=/dev/stdout | head -1",
        (1, 1),
    ),
}


@pytest.fixture
def command(tiny_config_file, tiny_records):
    def make(output_dir, *more):
        flags = pretraining_flags(
            *(tiny_config_file, tiny_records, output_dir, *more),
            accumulation=1,
            steps=STEPS,
        )
        return [sys.executable, str(SCRIPT), "--display_loss_steps=1", *map(str, flags)]

    return make


def shell(line, **options):
    """Runs a line of bash; the exit code is that of the first program of a pipe."""
    return subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


@pytest.mark.slow
def test_a_training_goes_on_without_its_output(command, tmp_path, figure):
    chosen = list(SHELLS)[: count(2, len(SHELLS))]

    def run(name):
        folder = tmp_path / str(chosen.index(name))
        folder.mkdir()
        text = " ".join(f"'{word}'" for word in command(folder / "run"))
        return shell(SHELLS[name][0].format(command=text, folder=folder))

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        results = dict(zip(chosen, threads.map(run, chosen), strict=True))
    expected = checkpoint_bytes(tmp_path / "0" / "run", STEPS)
    for number, (name, result) in enumerate(results.items()):
        assert result.returncode == 0, (name, result.stderr[-3000:])
        assert "Exception ignored" not in result.stderr, name
        assert "Traceback" not in result.stderr, name
        if warnings := SHELLS[name][1]:
            texts = (WARNING, "warning: the log ")
            found = tuple(result.stderr.count(text) for text in texts)
            assert found == warnings, (name, result.stderr)
        assert checkpoint_bytes(tmp_path / str(number) / "run", STEPS) == expected, name
    figure(PROMISE, len(results), len(chosen))


@full_only
@pytest.mark.slow
def test_a_log_that_is_deleted_with_its_folder_is_made_again(command, tmp_path, figure):
    """While the training runs; the pipe of its output tells when."""
    log = tmp_path / "logs" / "run.json"
    arguments = [*command(tmp_path / "run"), f"--dllog_path={log}"]
    process = subprocess.Popen(
        [*arguments, "--num_train_steps=500", "--display_loss_steps=20"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stop = threading.Timer(120, process.kill)
    stop.start()
    for line in process.stdout:
        if "Iteration: 1 " in line:
            shutil.rmtree(log.parent)
            break
    _, errors = process.communicate()
    stop.cancel()
    assert process.returncode == 0, errors[-3000:]
    assert errors.count("was deleted, and is made again") == 1
    assert "throughput_train" in log.read_text()
    figure(PROMISE, 1, 1)


@full_only
@pytest.mark.slow
def test_a_pipe_that_nobody_reads_is_refused_at_start(command, tmp_path, figure):
    os.mkfifo(tmp_path / "pipe")
    arguments = command(tmp_path / "run", f"--dllog_path={tmp_path}/pipe")
    result = shell(" ".join(f"'{word}'" for word in arguments))
    assert result.returncode == 1
    [line] = [x for x in result.stderr.splitlines() if x.startswith("error: ")]
    assert f"{tmp_path}/pipe cannot be written: nobody reads this pipe" in line
    figure("a log that is a pipe without a reader: refused at start", 1, 1)


@full_only
@pytest.mark.slow
def test_a_terminal_that_is_gone_does_not_end_a_training(command, tmp_path, figure):
    """Its bar is drawn by a thread of its own."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [*command(tmp_path / "run"), "--num_train_steps=500"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""
    while b"/500" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]
    assert b"Traceback" not in seen
    assert "Iteration: 500" in output
    figure(PROMISE, 1, 1)
