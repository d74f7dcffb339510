"""Stopped and resumed = never stopped, to the last byte."""

import fcntl
import json
import os
import re
import shutil

import numpy as np
import pytest
import runs
import tensorflow as tf
from conftest import make_example, write_records
from integration.launching import ROOT, mpirun
from runs import checkpoint_bytes, logged_values, pretraining_flags, read_tensors

from bert_tf import fused_ops
from bert_tf.errors import RunError
from bert_tf.tf_checkpoint_writer import write_tensors
from bert_tf.training import checkpoints

SCRIPT = ROOT / "run_pretraining.py"
STEPS = 8


@pytest.fixture
def command(tiny_config_file, tiny_records):
    """Makes a command line of 8 steps of 16 records."""

    def make(output_dir, *more, batch=4, accumulation=4):
        return pretraining_flags(
            *(tiny_config_file, tiny_records, output_dir),
            *("--keep_checkpoint_max=20", *more),
            batch=batch,
            accumulation=accumulation,
            steps=STEPS,
        )

    return make


def run(arguments):
    return runs.run("pretraining", *arguments)


def logged_losses(folder):
    """(step, loss) of each logged step; a step that is taken twice comes twice."""
    return logged_values(folder, "total_loss")


@pytest.mark.slow
def test_stopped_at_any_step_and_resumed_is_never_stopped(command, tmp_path):
    every = ("--save_checkpoints_steps=1", "--display_loss_steps=1")
    whole = tmp_path / "whole"
    run(command(whole, *every))
    for stop in (1, 3, 5, 7):
        folder = tmp_path / f"stopped-{stop}"
        run(command(folder, *every, f"--steps_this_run={stop}"))
        assert not (folder / f"model.ckpt-{STEPS}.index").exists()
        run(command(folder, *every))
        assert checkpoint_bytes(folder, STEPS) == checkpoint_bytes(whole, STEPS)
        assert logged_losses(folder) == logged_losses(whole)


@pytest.mark.slow
@pytest.mark.horovod
def test_two_workers_stop_and_resume_also_as_one(command, tmp_path):
    """2 ranks stopped and resumed on 2 = never stopped; resumed on 1, close to it."""
    more = ("--horovod", "--noscale_learning_rate", "--display_loss_steps=1")
    whole, again, alone = (tmp_path / name for name in ("whole", "again", "alone"))
    assert mpirun(2, SCRIPT, *command(whole, *more, accumulation=2)).returncode == 0
    stopped = command(again, *more, "--steps_this_run=5", accumulation=2)
    assert mpirun(2, SCRIPT, *stopped).returncode == 0
    shutil.copytree(again, alone)
    resumed = mpirun(2, SCRIPT, *command(again, *more, accumulation=2))
    assert resumed.returncode == 0
    assert checkpoint_bytes(again, STEPS) == checkpoint_bytes(whole, STEPS)
    # One worker has half the accumulation flag's rows: it must take twice as many.
    run(command(alone, "--noscale_learning_rate", "--display_loss_steps=1"))
    ours, theirs = (dict(logged_losses(folder)) for folder in (alone, whole))
    assert list(ours) == list(range(1, STEPS + 1))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)
    manifests = [
        json.loads((folder / f"model.ckpt-{STEPS}.json").read_text())
        for folder in (alone, whole)
    ]
    for key in ("records", "global_batch_size", "learning_rate", "seed"):
        assert manifests[0][key] == manifests[1][key]


@pytest.mark.slow
def test_the_global_batch_is_kept_on_other_settings(command, tmp_path, capsys):
    folder = tmp_path / "run"
    run(command(folder, "--steps_this_run=2"))
    run(command(folder, "--learning_rate=0.5", batch=8, accumulation=7))
    text = capsys.readouterr().out
    assert "1 worker x 8 records per micro-batch x 2 accumulation = 16" in text
    assert "Kept from the checkpoint: learning rate 0.01 (flags: 0.5)" in text
    assert "peak learning rate 0.01, 0 steps" in text
    assert "Kept from the checkpoint: global batch 16 (flags: 56)" in text


def test_a_batch_that_does_not_divide_is_refused(command, tmp_path):
    folder = tmp_path / "run"
    run(command(folder, "--steps_this_run=2"))
    with pytest.raises(RunError, match=r"16 records, which 1 worker x .*=5 = 5 does"):
        run(command(folder, batch=5))


def test_a_finished_run_only_evaluates(command, tiny_records, tmp_path, capsys):
    folder = tmp_path / "run"
    evaluation = ("--do_eval", f"--eval_files_dir={tiny_records}")
    first = run(command(folder, *evaluation))
    second = run(command(folder, *evaluation))
    assert first == second
    assert first["global_step"] == STEPS
    text = capsys.readouterr().out
    assert f"All steps are done: {STEPS} of {STEPS}" in text
    assert "Kept from the checkpoint" not in text
    run(command(folder, *evaluation, "--learning_rate=0.5", "--seed=9"))
    text = capsys.readouterr().out
    assert "Kept from the checkpoint: learning rate 0.01 (flags: 0.5)" in text
    assert re.search(r"Kept from the checkpoint: seed \d+ \(flags: 9\)", text)


def test_a_finished_run_needs_its_training_data_no_more(
    command, tiny_records, tmp_path
):
    data = shutil.copytree(tiny_records, tmp_path / "data")
    more = (
        f"--input_files_dir={data}",
        "--do_eval",
        f"--eval_files_dir={tiny_records}",
    )
    first = run(command(tmp_path / "run", *more))
    shutil.rmtree(data)
    assert run(command(tmp_path / "run", *more)) == first


@pytest.mark.slow
def test_an_evaluation_alone_takes_the_checkpoint_that_is_named(
    command, tiny_records, tmp_path
):
    folder = tmp_path / "run"
    run(command(folder, "--save_checkpoints_steps=4"))
    named = f"--init_checkpoint={folder}/model.ckpt-4"
    evaluation = ("--nodo_train", "--do_eval", f"--eval_files_dir={tiny_records}")
    assert run(command(folder, named, *evaluation))["global_step"] == 4
    assert run(command(folder, *evaluation))["global_step"] == STEPS


@pytest.mark.slow
def test_overwriting_keeps_the_old_until_the_new_is_written(
    command, tmp_path, monkeypatch
):
    """Also that of the same step."""
    folder = tmp_path / "run"
    run(command(folder, "--steps_this_run=2", "--save_checkpoints_steps=1"))
    before = [checkpoint_bytes(folder, step) for step in (1, 2)]
    names = sorted(os.listdir(folder))
    written = []

    def full(*args):
        written.append(args)
        if len(written) > 1:  # After the trial before the first step.
            raise OSError(28, "No space left on device")
        return write_tensors(*args)

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    again = ("--overwrite_output_dir", "--save_checkpoints_steps=1")
    with pytest.raises(RunError, match="model.ckpt-1 cannot be written.*No space"):
        run(command(folder, "--seed=7", *again))
    monkeypatch.undo()
    assert [checkpoint_bytes(folder, step) for step in (1, 2)] == before
    assert sorted(os.listdir(folder)) == names
    run(command(folder, "--seed=7", "--steps_this_run=1", *again))
    assert checkpoint_bytes(folder, 1) != before[0]
    assert not (folder / "model.ckpt-2.json").exists()


@pytest.mark.slow
def test_an_evaluation_set_may_have_another_length(command, tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "short").mkdir()
    examples = [make_example(rng, max_seq_length=12) for _ in range(20)]
    write_records(tmp_path / "short" / "part-0", examples)
    evaluation = ("--do_eval", f"--eval_files_dir={tmp_path}/short")
    results = run(command(tmp_path / "run", "--steps_this_run=1", *evaluation))
    assert results["next_sentence_count"] == 20


@pytest.mark.slow
def test_a_second_training_in_the_same_folder_is_refused(command, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(RunError, match="Another process is training in"):
        run(command(folder))
    assert not os.listdir(folder)
    os.close(descriptor)
    run(command(folder, "--steps_this_run=1"))
    run(command(folder, "--steps_this_run=1"))


def test_new_settings_of_a_resumed_run_are_logged(command, tmp_path, capsys):
    run(command(tmp_path, "--steps_this_run=1"))
    run(command(tmp_path, "--steps_this_run=1"))
    assert "New from here on" not in capsys.readouterr().out
    run(command(tmp_path, "--num_train_steps=20", "--steps_this_run=1"))
    line = "New from here on: num_train_steps 8 -> 20."
    assert line in capsys.readouterr().out


@pytest.mark.slow
def test_another_compute_path_of_a_resumed_run_is_logged(
    command, tmp_path, capsys, monkeypatch
):
    best = next(iter(fused_ops.paths()))
    if best == fused_ops.REFERENCE:
        pytest.skip(fused_ops.why_missing())
    run(command(tmp_path, "--steps_this_run=1"))
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, fused_ops.REFERENCE)
    run(command(tmp_path, "--steps_this_run=1"))
    fused_ops.limit("")
    line = f"New from here on: compute_path {best} -> reference."
    assert line in capsys.readouterr().out


@pytest.mark.slow
def test_other_records_of_the_same_number_are_refused_and_moved_ones_are_not(
    command, tiny_records, tmp_path
):
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(tiny_records, moved)
    shutil.copytree(tiny_records, other)
    rng = np.random.default_rng(99)
    write_records(other / "part-0.tfrecord", [make_example(rng) for _ in range(60)])
    for folder in (tiny_records, moved):
        data = f"--input_files_dir={folder}"
        run(command(tmp_path / "run", data, "--steps_this_run=1"))
    with pytest.raises(RunError, match="training data: sha256 .* -> .*change=data res"):
        run(command(tmp_path / "run", f"--input_files_dir={other}"))


@pytest.mark.slow
def test_what_killed_writers_left_anywhere_is_removed(command, tmp_path):
    for folder in (tmp_path, tmp_path / "best", tmp_path / ".record_index"):
        folder.mkdir(exist_ok=True)
        (folder / ".some.file.abcd1234.bert_tf.tmp").touch()
    for folder in (tmp_path, tmp_path / "best"):
        (folder / "model.ckpt-9.tmp.data-00000-of-00001.tempstate5").touch()
    run(command(tmp_path, "--steps_this_run=1"))
    assert not [path for path in tmp_path.rglob("*") if "tmp" in path.name]


def test_init_checkpoint_gives_weights_or_all_state(command, tmp_path, monkeypatch):
    # The trial before the first step leaves what it writes.
    monkeypatch.setattr(checkpoints, "try_save", checkpoints.save)
    first, weights, state = (tmp_path / name for name in ("first", "weights", "state"))
    run(command(first, "--steps_this_run=3"))
    start_from = f"--init_checkpoint={first}/model.ckpt-3"
    run(command(weights, start_from, "--steps_this_run=1"))
    run(command(state, start_from, "--resume"))
    before = read_tensors(first / "model.ckpt-3")
    for name, ours in read_tensors(weights / "model.ckpt-0").items():
        if name.endswith(("adam_m", "adam_v")) or name == "global_step":
            assert not ours.any(), name
        else:
            np.testing.assert_array_equal(ours, before[name])
    run(command(first))
    assert checkpoint_bytes(state, STEPS) == checkpoint_bytes(first, STEPS)


@pytest.mark.slow
def test_old_checkpoints_are_removed_but_for_the_last(command, tmp_path):
    folder = tmp_path / "run"
    run(command(folder, "--save_checkpoints_steps=2", "--keep_checkpoint_max=2"))
    left = sorted(name for name in os.listdir(folder) if name.endswith(".index"))
    assert left == ["model.ckpt-6.index", "model.ckpt-8.index"]
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / "model.ckpt-8")


@pytest.mark.slow
def test_overwriting_starts_afresh(command, tmp_path):
    folder = tmp_path / "run"
    run(command(folder, "--seed=1"))
    run(command(folder, "--overwrite_output_dir", "--steps_this_run=4"))
    left = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    ours = ["model.ckpt-4.json", "report.json", "training_result.json"]
    assert left == ["bert_config.json", "bert_dllog.json", *ours]
    run(command(folder))
    fresh = tmp_path / "fresh"
    run(command(fresh))
    assert checkpoint_bytes(folder, STEPS) == checkpoint_bytes(fresh, STEPS)
