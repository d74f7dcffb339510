"""A used folder resumes, starts again with a line, or is refused; never in silence."""

import json
import os
import shutil

import pytest
import runs
from runs import checkpoint_bytes, pretraining_flags, read_log

from bert_tf.errors import RunError
from bert_tf.training import checkpoints

STEPS = 4


@pytest.fixture(scope="module")
def command(tiny_config_file, tiny_records):
    def make(folder, *more):
        return pretraining_flags(
            *(tiny_config_file, tiny_records, folder, *more), steps=STEPS
        )

    return make


def run(arguments):
    return runs.run("pretraining", *arguments)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """A run with checkpoints of steps 1 to 4."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(command(folder, "--save_checkpoints_steps=1", "--keep_checkpoint_max=9"))
    return folder


@pytest.fixture
def used(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def remove(folder, *patterns):
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


ALL_BUT_LOG = ("model.ckpt-*", "checkpoint")


@pytest.mark.parametrize(
    "removed, trace",
    [
        (("model.ckpt-*",), "checkpoint"),
        (("model.ckpt-*", "bert_dllog.json"), "checkpoint"),
        (ALL_BUT_LOG, "a save of step 4 in bert_dllog.json"),
        (("*.json", "*.index", "checkpoint"), "model.ckpt-4: .* is missing"),
        (("*.index", "*.data-*", "checkpoint"), "model.ckpt-4: .*files must be"),
        (("*.data-*", "*ckpt*.json", "checkpoint"), "another program, or without"),
    ],
)
def test_a_folder_that_had_checkpoints_is_refused(used, command, removed, trace):
    remove(used, *removed)
    before = {path.name: path.stat().st_size for path in used.iterdir()}
    for _ in range(2):  # The refusal changes nothing.
        with pytest.raises(RunError, match=trace) as caught:
            run(command(used))
        assert str(used) in str(caught.value)
        assert "--overwrite_output_dir" in str(caught.value)
    assert {path.name: path.stat().st_size for path in used.iterdir()} == before


def test_the_advice_works(used, whole, command):
    remove(used, "*.index")
    with pytest.raises(RunError, match="--overwrite_output_dir to start anew"):
        run(command(used))
    run(command(used, "--overwrite_output_dir"))
    assert checkpoint_bytes(used, STEPS) == checkpoint_bytes(whole, STEPS)


def test_a_log_outside_of_the_folder_may_be_of_other_runs(whole, command, tmp_path):
    log = tmp_path / "log.json"
    shutil.copy(whole / "bert_dllog.json", log)
    run(command(tmp_path / "run", f"--dllog_path={log}", "--steps_this_run=1"))


def stop_before_the_first_checkpoint(command, folder, monkeypatch):
    """Killed, or a full disk: the log has steps, and there is no checkpoint."""

    def full(*args, **more):
        raise RunError("full")

    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.raises(RunError, match="full"):
        run(command(folder, "--save_checkpoints_steps=1"))
    monkeypatch.undo()


def test_a_run_that_ended_before_its_first_checkpoint_starts_again_with_a_line(
    command, whole, tmp_path, monkeypatch, capsys
):
    stop_before_the_first_checkpoint(command, tmp_path, monkeypatch)
    assert not checkpoints.checkpoint_files(str(tmp_path))
    capsys.readouterr()
    run(command(tmp_path))
    line = f"The last run in {tmp_path} ended before its first checkpoint."
    assert line in capsys.readouterr().out
    assert checkpoint_bytes(tmp_path, STEPS) == checkpoint_bytes(whole, STEPS)


def test_an_overwritten_run_survives_until_the_new_one_has_a_checkpoint(
    command, used, whole, monkeypatch
):
    """The trial before the first step does not count."""
    overwriting = ("--seed=5", "--overwrite_output_dir")
    stop_before_the_first_checkpoint(
        lambda folder, *more: command(folder, *overwriting, *more), used, monkeypatch
    )
    for step in range(1, STEPS + 1):
        assert checkpoint_bytes(used, step) == checkpoint_bytes(whole, step)
    run(command(used, *overwriting, "--steps_this_run=2"))
    assert checkpoints.committed_steps(str(used)) == [2]
    assert checkpoint_bytes(used, 2) != checkpoint_bytes(whole, 2)


def test_checkpoints_of_another_program_are_moved_by_overwriting(
    command, whole, tmp_path, capsys
):
    folder = tmp_path / "run"
    folder.mkdir()
    for ending in ("index", "data-00000-of-00001"):
        shutil.copy(whole / f"model.ckpt-4.{ending}", folder)
    with pytest.raises(RunError, match="another program.*ckpt-4.*--overwrite_output"):
        run(command(folder))
    run(command(folder, "--overwrite_output_dir", "--steps_this_run=1"))
    moved = folder / "damaged-model.ckpt-4"
    assert str(moved) in capsys.readouterr().out
    assert len(list(moved.iterdir())) == 2
    assert checkpoints.committed_steps(str(folder)) == [1]


def test_each_save_is_logged(whole):
    saves = [e for e in read_log(whole) if "checkpoint_seconds" in e.get("data", {})]
    assert [entry["step"] for entry in saves] == [1, 2, 3, 4]
    for entry in saves:
        seconds = entry["data"]["checkpoint_seconds"]
        assert 0 <= entry["data"]["checkpoint_blocked_seconds"] and 0 < seconds < 60


def test_an_unfinished_line_of_the_log_is_no_trace(whole, command, tmp_path):
    lines = (whole / "bert_dllog.json").read_text().splitlines(keepends=True)
    [first] = [x for x in lines if "checkpoint_seconds" in x and '"step": 1,' in x]
    (tmp_path / "bert_dllog.json").write_text(first[:-9])
    with pytest.raises(json.JSONDecodeError):
        json.loads(first[:-9].removeprefix("DLLL "))
    run(command(tmp_path, "--steps_this_run=1"))
    assert os.path.exists(tmp_path / "model.ckpt-1.json")
