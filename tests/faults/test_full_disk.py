"""A disk that is full while a checkpoint is written: a line, and nothing is lost."""

import os
import resource
import subprocess
import sys

import pytest
import runs
from integration.launching import ROOT, environment
from runs import checkpoint_bytes, pretraining_flags

from bert_tf.errors import RunError
from bert_tf.training import checkpoints

LIMIT = 9000  # Less than a checkpoint of the tiny model, more than a manifest.


@pytest.fixture
def command(tiny_config_file, tiny_records, tmp_path):
    def make(*more):
        return pretraining_flags(
            *(tiny_config_file, tiny_records, tmp_path / "run"),
            *("--save_checkpoints_steps=1", "--dllog_path=/dev/null", *more),
        )

    return make


def test_a_file_that_cannot_grow_ends_the_run_with_one_line(command, tmp_path):
    """The checkpoint is written by the thread: the resumed run makes no trial."""
    folder = tmp_path / "run"
    runs.run("pretraining", *command("--steps_this_run=2"))
    before = checkpoint_bytes(folder, 2)
    names = sorted(os.listdir(folder))
    result = subprocess.run(
        [sys.executable, ROOT / "run_pretraining.py", *command()],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
    )
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: The checkpoint {folder}/model.ckpt-3 cannot be wr")
    assert "File too large" in line and "Older checkpoints are not changed" in line
    assert checkpoint_bytes(folder, 2) == before
    assert sorted(os.listdir(folder)) == names
    runs.run("pretraining", *command())
    assert checkpoints.committed_steps(str(folder)) == [7, 8]


@pytest.mark.parametrize("number", [1, 3, 5, 8])
def test_any_write_of_a_save_may_fail(command, tmp_path, monkeypatch, number):
    """The first of these is the trial; then data, index and manifest of each step."""
    folder, synced = tmp_path / "run", []
    real = os.fsync

    def full(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if "model.ckpt-" in path and path.endswith((".index", "00001")):
            synced.append(path)
            if len(synced) == number:
                raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot be written: .*No space left"):
        runs.run("pretraining", *command("--keep_checkpoint_max=9"))
    monkeypatch.undo()
    complete = list(range(1, (number - 1) // 2))
    assert [*checkpoints.committed_steps(str(folder))][-1:] == complete[-1:]
    assert not [name for name in os.listdir(folder) if "bert_tf" in name]
